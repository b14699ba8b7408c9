//! A date of birth in one column, as people and spreadsheets write it, where Stripe has three parameters.
//!
//! Never: a guess. `01/02/1990` is read as the columns file says, or as the column's other dates show, and otherwise is a problem; so
//! is a year of two digits.

use std::io::Read;

use jiff::civil::Date;
use serde::Deserialize;

use super::records::{Records, trimmed};
use super::{Manifest, ManifestError};

/// The column of such a date. It is no parameter of Stripe's; its parts are.
pub(super) const DATE_OF_BIRTH: &str = "cardholder[individual][dob]";
/// Its parts, in the order in which they are filled in.
pub(super) const PARTS: [&str; 3] = ["[day]", "[month]", "[year]"];
/// Longest text that is read as a date, in bytes.
const BYTES_MAX: usize = 64;

/// What comes first in a date that ends with its year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Order {
    /// The day.
    #[serde(rename = "day/month/year")]
    DayFirst,
    /// The month.
    #[serde(rename = "month/day/year")]
    MonthFirst,
}

impl Order {
    /// As a columns file says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DayFirst => "day/month/year",
            Self::MonthFirst => "month/day/year",
        }
    }
}

/// What is known of the order from a file's own dates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shown {
    /// Nobody has looked.
    #[default]
    NotLooked,
    /// They do not show it, or show both.
    Neither,
    /// One of them can be read in this order only, and none in the other only.
    As(Order),
}

/// The column of dates of birth, and how they are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct DateColumn {
    pub(super) at: usize,
    /// The place of its day, which is filled from it.
    pub(super) day: usize,
    /// What the columns file says of their order.
    pub(super) said: Option<Order>,
    /// What they show themselves.
    pub(super) shown: Shown,
}

/// Why a text is no date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    NoDate,
    /// A number of days, as spreadsheets count them.
    Number,
    TwoDigitYear,
    NoSuchDay,
    /// One or the other.
    Either(Date, Date),
}

/// A date's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Whose month is told by its name, or by the year before it.
    Sure { year: i16, month: i8, day: i8 },
    /// Which of the first two is the day is told by something else.
    Two { first: i8, second: i8, year: i16, has_dots: bool },
}

impl DateColumn {
    /// The date that a text is.
    pub(super) fn date_of(&self, text: &str) -> Result<Date, Wrong> {
        let date = |year, month, day| Date::new(year, month, day).map_err(|_| Wrong::NoSuchDay);
        let (first, second, year, has_dots) = match numbers_of(text)? {
            Numbers::Sure { year, month, day } => return date(year, month, day),
            Numbers::Two { first, second, year, has_dots } => (first, second, year, has_dots),
        };
        // Who writes dots writes the day before them.
        let order = match (self.said, has_dots, self.shown) {
            (Some(order), ..) | (None, false, Shown::As(order)) => Some(order),
            (None, true, _) => Some(Order::DayFirst),
            (None, false, Shown::NotLooked | Shown::Neither) => None,
        };
        match (order, date(year, second, first), date(year, first, second)) {
            (Some(Order::DayFirst), day_first, _) => day_first,
            (Some(Order::MonthFirst), _, month_first) => month_first,
            (None, Ok(one), Ok(other)) if one != other => Err(Wrong::Either(one, other)),
            (None, one, other) => one.or(other),
        }
    }

    /// Whether the order is still to be looked for.
    pub(super) fn is_open(&self) -> bool {
        self.said.is_none() && self.shown == Shown::NotLooked
    }

    /// What is wrong with a text that is no date: a code, and the reason.
    pub(super) fn explain(&self, wrong: Wrong) -> (&'static str, String) {
        const WAYS: &str = "write it as 1990-02-28 or 28.02.1990";
        let shown = |date: Date| date.strftime("%-d %B %Y").to_string();
        match wrong {
            Wrong::NoDate => ("no_date", format!("is no date of birth that can be read: {WAYS}")),
            Wrong::Number => (
                "no_date",
                format!(
                    "is a number where a date of birth belongs, as spreadsheets count days: show the column as dates and save the file \
                     again, or {WAYS}"
                ),
            ),
            Wrong::TwoDigitYear => (
                "two_digit_year",
                format!(
                    "has a year of two digits, which does not tell the century: {WAYS}, with all four digits of the year"
                ),
            ),
            Wrong::NoSuchDay => {
                let order = match self.said {
                    Some(order) => {
                        format!(" if it is read as {}, as the columns file says under [dates]", order.name())
                    }
                    None => String::new(),
                };
                ("no_such_day", format!("is a day that no calendar has{order}"))
            }
            Wrong::Either(one, other) => (
                "ambiguous_date",
                format!(
                    "may be {} or {}, and the other dates in its column do not show which; say in the columns file, under [dates], \
                     order = \"{}\" or \"{}\"",
                    shown(one),
                    shown(other),
                    Order::DayFirst.name(),
                    Order::MonthFirst.name()
                ),
            ),
        }
    }
}

/// Reads the rest of the records, all of them, for the order that the dates at this place show.
pub(super) fn look<R: Read>(records: &mut Records<R>, at: usize) -> Shown {
    let (mut day_first, mut month_first) = (false, false);
    // What cannot be read on is told of by whoever reads the rows.
    while let Ok(Some(record)) = records.next() {
        let cell = record.iter().nth(at).filter(|_| record.flaw.is_none());
        let Some(text) = cell.and_then(|cell| std::str::from_utf8(cell).ok()) else { continue };
        let Ok(Numbers::Two { first, second, year, has_dots: false }) = numbers_of(trimmed(text)) else {
            continue;
        };
        match (Date::new(year, second, first).is_ok(), Date::new(year, first, second).is_ok()) {
            (true, false) => day_first = true,
            (false, true) => month_first = true,
            _ => {}
        }
    }
    match (day_first, month_first) {
        (true, false) => Shown::As(Order::DayFirst),
        (false, true) => Shown::As(Order::MonthFirst),
        _ => Shown::Neither,
    }
}

impl Manifest {
    /// Looks through the file for the order of its dates, if that is needed.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub(super) fn settle_dates(&mut self) -> Result<(), ManifestError> {
        let date = self.filling.as_ref().and_then(|filling| filling.date).filter(DateColumn::is_open);
        let Some(date) = date else { return Ok(()) };
        let shown = look(&mut self.records()?, date.at);
        if let Some(filling) = &mut self.filling {
            std::sync::Arc::make_mut(filling).date = Some(DateColumn { shown, ..date });
        }
        Ok(())
    }
}

fn numbers_of(text: &str) -> Result<Numbers, Wrong> {
    if text.len() > BYTES_MAX {
        return Err(Wrong::NoDate);
    }
    let text = without_time(text);
    let is_between = |letter: char| !letter.is_alphanumeric() || matches!(letter, '年' | '月' | '日');
    let mut parts: Vec<String> = text
        .split(is_between)
        .filter(|part| !part.is_empty() && !matches!(*part, "de" | "di" | "of"))
        .map(str::to_lowercase)
        .collect();
    if let [weekday, _, _, _] = parts.as_slice()
        && weekday.chars().all(char::is_alphabetic)
    {
        parts.remove(0);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        // As programs write it that have no room to lose.
        [whole] if whole.len() == 8 && whole.bytes().all(|byte| byte.is_ascii_digit()) => {
            sure(&whole[..4], number(&whole[4..6]), &whole[6..])
        }
        [whole] if whole.bytes().all(|byte| byte.is_ascii_digit()) => Err(Wrong::Number),
        [year, month, day] if digits(year) == 4 => {
            sure(year, month_named(month).or_else(|| number(month)), day)
        }
        [day, month, year] if month_named(month).is_some() => sure(year, month_named(month), day),
        [month, day, year] if month_named(month).is_some() => sure(year, month_named(month), day),
        [first, second, year] => {
            let (Some(first), Some(second)) = (number(first), number(second)) else {
                return Err(Wrong::NoDate);
            };
            let has_dots = text.contains('.');
            Ok(Numbers::Two { first, second, year: year_of(year)?, has_dots })
        }
        _ => Err(Wrong::NoDate),
    }
}

fn sure(year: &str, month: Option<i8>, day: &str) -> Result<Numbers, Wrong> {
    let (Some(month), Some(day)) = (month, number(day)) else { return Err(Wrong::NoDate) };
    Ok(Numbers::Sure { year: year_of(year)?, month, day })
}

fn year_of(text: &str) -> Result<i16, Wrong> {
    match digits(text) {
        4 => text.parse().map_err(|_| Wrong::NoDate),
        2 => Err(Wrong::TwoDigitYear),
        _ => Err(Wrong::NoDate),
    }
}

/// How many digits a text has that has nothing else.
fn digits(text: &str) -> usize {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.len() } else { 0 }
}

/// A day's or a month's number; `1st` and `1er` are 1.
fn number(text: &str) -> Option<i8> {
    let text = ["st", "nd", "rd", "th", "er"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text);
    matches!(digits(text), 1 | 2).then(|| text.parse().ok()).flatten()
}

/// The month that a word is or is short for, in the languages that headings are known in.
fn month_named(word: &str) -> Option<i8> {
    const MONTHS: [&[&str]; 12] = [
        &["jan", "jän", "ene", "gen", "sty"],
        &["feb", "fév", "fev", "lut"],
        &["mar", "mär", "maer", "mrz", "maa", "mrt"],
        &["apr", "avr", "abr", "kwi"],
        &["may", "mai", "mei", "mag", "maj"],
        &["jun", "juin", "giu", "cze"],
        &["jul", "juil", "lug", "lip"],
        &["aug", "aoû", "aou", "ago", "sie"],
        &["sep", "set", "wrz"],
        &["oct", "okt", "ott", "paź"],
        &["nov", "lis"],
        &["dec", "dez", "déc", "dic", "gru"],
    ];
    let is_it = |names: &&[&str]| names.iter().any(|name| word.starts_with(name));
    (1..).zip(&MONTHS).find(|(_, names)| is_it(names)).map(|(month, _)| month)
}

/// A text without the time of day that some programs write behind a date.
fn without_time(text: &str) -> &str {
    let Some((before, _)) = text.split_once(':') else { return text };
    // The hour's digits go, and what stands between them and the date.
    let before = before.trim_end_matches(|letter: char| letter.is_ascii_digit());
    before.trim_end_matches(['T', ' ', ','])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, said: Option<Order>, shown: Shown) -> Result<String, Wrong> {
        DateColumn { at: 0, day: 1, said, shown }.date_of(text).map(|date| date.to_string())
    }

    #[test]
    fn a_date_that_can_be_only_one_is_read_however_it_is_written() {
        for text in [
            "1990-02-01",
            "1990/2/1",
            "1990. 02. 01.",
            "1990-02-01 00:00:00",
            "1990-02-01T00:00:00",
            "01.02.1990",
            "1.2.1990",
            "01.02.1990 00:00",
            "19900201",
            "1-Feb-1990",
            "1. Februar 1990",
            "1er février 1990",
            "1 de febrero de 1990",
            "1 lutego 1990",
            "February 1, 1990",
            "Feb 1st 1990",
            "Thursday, February 1, 1990",
            "1990年2月1日",
        ] {
            assert_eq!(read(text, None, Shown::Neither), Ok("1990-02-01".to_owned()), "{text}");
        }
        assert_eq!(read("13/02/1990", None, Shown::Neither), Ok("1990-02-13".to_owned()));
        assert_eq!(read("2/13/1990 12:00:00 AM", None, Shown::Neither), Ok("1990-02-13".to_owned()));
        assert_eq!(read("03/03/1990", None, Shown::Neither), Ok("1990-03-03".to_owned()));
    }

    #[test]
    fn a_date_that_can_be_two_is_read_as_it_is_said_or_shown_and_never_otherwise() {
        let (first, second) = (Ok("1990-02-01".to_owned()), Ok("1990-01-02".to_owned()));
        for text in ["01/02/1990", "1-2-1990", "01 02 1990"] {
            assert!(matches!(read(text, None, Shown::Neither), Err(Wrong::Either(..))), "{text}");
            assert_eq!(read(text, Some(Order::DayFirst), Shown::Neither), first, "{text}");
            assert_eq!(read(text, Some(Order::MonthFirst), Shown::As(Order::DayFirst)), second, "{text}");
            assert_eq!(read(text, None, Shown::As(Order::MonthFirst)), second, "{text}");
        }
        // Dots stand behind days, unless somebody says otherwise.
        assert_eq!(read("01.02.1990", None, Shown::As(Order::MonthFirst)), first);
        assert_eq!(read("01.02.1990", Some(Order::MonthFirst), Shown::NotLooked), second);
        assert_eq!(read("02/13/1990", Some(Order::DayFirst), Shown::NotLooked), Err(Wrong::NoSuchDay));
    }

    #[test]
    fn what_is_no_date_is_told_by_what_it_is() {
        for (text, wrong) in [
            ("01.02.90", Wrong::TwoDigitYear),
            ("1-Feb-90", Wrong::TwoDigitYear),
            ("2/1/90", Wrong::TwoDigitYear),
            ("32905", Wrong::Number),
            ("31.02.1990", Wrong::NoSuchDay),
            ("1990-13-01", Wrong::NoSuchDay),
            ("13/13/1990", Wrong::NoSuchDay),
            ("02/1990", Wrong::NoDate),
            ("unknown", Wrong::NoDate),
            ("1 Foo 1990", Wrong::NoDate),
            ("01.02.199", Wrong::NoDate),
            ("12:30", Wrong::NoDate),
            (":", Wrong::NoDate),
        ] {
            assert_eq!(read(text, None, Shown::Neither), Err(wrong), "{text}");
        }
    }
}
