//! Amounts of two kinds in one column: `1500`, which is 15.00 EUR, beside `1 500,00 €`. Whoever wrote both meant the same by them.
//!
//! Never: the digits of a whole number, which may be a PIN in the wrong column; it is told as the money that it is read as.

use super::amounts::AmountColumns;
use super::header::Column;
use super::records::Record;
use super::rows::{may_be_a_pin, shown};
use super::{Manifest, Problem, Severity};
use crate::operation::currency::{decimals, is_currency, money};
use crate::operation::kind::Kind;

/// What people write beside money, in small letters; codes of currencies are known without.
const SIGNS: [&str; 11] = ["€", "$", "£", "¥", "us$", "euro", "fr", "sfr", "kr", "kč", "zł"];

/// How the amounts of a file are written: of each column of amounts the first of each kind.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<OfColumn>);

#[derive(Debug, Default, Clone)]
struct OfColumn {
    /// A whole number of the smallest unit.
    whole: Option<Example>,
    /// Money, as people write it.
    money: Option<Example>,
}

/// An amount, and whose it is.
#[derive(Debug, Clone)]
struct Example {
    line: u64,
    row_id: Option<String>,
    /// As it stands there, where that is no number alone.
    text: String,
    /// What it comes to in the smallest unit, and that as money, if it is known.
    read: Option<(u64, String)>,
}

impl Written {
    /// Looks at a row's amounts. `cell` gives the n-th cell.
    pub(super) fn look<'c>(
        &mut self,
        columns: &AmountColumns,
        (line, row_id): (u64, Option<&str>),
        cell: impl Fn(usize) -> &'c str,
    ) {
        for (nth, (at, currency)) in columns.each(&cell).enumerate() {
            if self.0.len() <= nth {
                self.0.resize(nth + 1, OfColumn::default());
            }
            let (text, known) = (cell(at), &mut self.0[nth]);
            let is_whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let place = if is_whole { &mut known.whole } else { &mut known.money };
            // Nothing is nothing, however it is written.
            if place.is_some()
                || text.bytes().all(|byte| !matches!(byte, b'1'..=b'9'))
                || !is_currency(currency)
            {
                continue;
            }
            let units = if is_whole { text.parse().ok() } else { units_of(text, currency) };
            if is_whole || units.is_some() || is_signed(text) {
                let read = units.map(|units| (units, money(units, currency)));
                let text = if may_be_a_pin(text) { String::new() } else { shown(text) };
                *place = Some(Example { line, row_id: row_id.map(str::to_owned), text, read });
            }
        }
    }

    /// Adds what was found in rows behind these.
    pub(super) fn add_all(&mut self, others: &Self) {
        self.0.resize(self.0.len().max(others.0.len()), OfColumn::default());
        for (own, other) in self.0.iter_mut().zip(&others.0) {
            for (own, other) in [(&mut own.whole, &other.whole), (&mut own.money, &other.money)] {
                if own.is_none() {
                    own.clone_from(other);
                }
            }
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to be told of the columns in which there are both; `line` is that of the headings.
    pub(super) fn warnings(&self, amounts: &AmountColumns, columns: &[Column], line: u64) -> Vec<Problem> {
        let mixed = amounts.places().zip(&self.0).filter_map(|(at, of_column)| {
            let (whole, money) = of_column.whole.as_ref().zip(of_column.money.as_ref())?;
            let column = columns[at].heading.as_deref().unwrap_or(&columns[at].name);
            let problem = Problem::new(line, 0, column, "mixed_amounts", reason(whole, money));
            Some(Problem { severity: Severity::Warning, ..problem })
        });
        mixed.collect()
    }
}

impl Example {
    fn place(&self) -> String {
        let row_id = self.row_id.as_ref().map(|row_id| format!(" ({row_id})"));
        format!("on line {}{}", self.line, row_id.unwrap_or_default())
    }
}

fn reason(whole: &Example, money: &Example) -> String {
    let is_read =
        whole.read.as_ref().map(|(_, words)| format!(" and is read as {words}")).unwrap_or_default();
    let (would_be, written) = match &money.read {
        Some((units, words)) => (format!(", which would be {words}"), format!(": {units} for {words}")),
        None => Default::default(),
    };
    format!(
        "has amounts of two kinds: {} stands a whole number, which counts the currency's smallest unit{is_read}, and {} \"{}\", written as \
         money{would_be}. If both are meant as money, write whole numbers of the smallest unit everywhere{written}",
        whole.place(),
        money.place(),
        money.text
    )
}

/// What money comes to in a currency's smallest unit; none if that is not sure.
fn units_of(text: &str, currency: &str) -> Option<u64> {
    let unit = 10_u64.pow(decimals(currency));
    let hundredths = Kind::Amount.explain(text).suggestion;
    match hundredths {
        Some(_) if unsigned(text).is_none() => None,
        Some(hundredths) => Some(hundredths.parse::<u64>().ok()?.checked_mul(unit)? / 100),
        None if is_signed(text) => unsigned(text)?.parse::<u64>().ok()?.checked_mul(unit),
        None => None,
    }
}

/// A number without what stands beside it, if that is nothing or a sign of money.
fn unsigned(text: &str) -> Option<&str> {
    let number = text.trim_matches(|letter: char| !letter.is_ascii_digit());
    let beside =
        text.split(number).map(|part| part.trim_matches([' ', '.', '\u{a0}', '\u{202f}']).to_lowercase());
    let is_of_money = |part: String| part.is_empty() || SIGNS.contains(&part.as_str()) || is_currency(&part);
    (!number.is_empty() && beside.into_iter().all(is_of_money)).then_some(number)
}

/// Whether a sign of money stands beside a number.
fn is_signed(text: &str) -> bool {
    let is_in_number = |letter: char| {
        letter.is_ascii_digit() || matches!(letter, '.' | ',' | '\'' | '\u{2019}') || letter.is_whitespace()
    };
    unsigned(text).is_some_and(|number| number.chars().all(is_in_number)) && !text.chars().all(is_in_number)
}

impl Manifest {
    /// Looks at how a record's amounts are written, whatever else is wrong with it.
    pub(super) fn look_at_amounts(&self, record: &Record<'_>, written: &mut Written) {
        // What stands above the headings is no row.
        if !self.has_amounts() || record.line <= self.headings_line || !self.has_its_cells(record) {
            return;
        }
        let Some(text) = record.texts() else { return };
        let row_id = self.columns.iter().position(|column| column.name == super::ROW_ID);
        written.look(&self.amounts, (record.line, row_id.map(text)), text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_told_from_other_texts_and_read_in_its_own_currency() {
        for (text, currency, units) in [
            ("1 500,00 €", "eur", Some(150_000)),
            ("1.500,00", "EUR", Some(150_000)),
            ("$1,500.00", "usd", Some(150_000)),
            ("500 €", "eur", Some(50_000)),
            ("EUR 500", "eur", Some(50_000)),
            ("500 zł", "pln", Some(50_000)),
            ("1 500,00 ¥", "jpy", Some(1_500)),
            ("1.500,00", "kwd", Some(1_500_000)),
            // It may be one and a half, or fifteen hundred.
            ("1.500 €", "eur", None),
            ("1.500", "eur", None),
            ("ca. 500,00", "eur", None),
            ("4.91E+11", "eur", None),
            ("unknown", "eur", None),
        ] {
            assert_eq!(units_of(text, currency), units, "{text} {currency}");
        }
        assert!(is_signed("1.500 €") && !is_signed("1.500") && !is_signed("10 %") && !is_signed("4.91E+11"));
    }
}
