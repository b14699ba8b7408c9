//! The amounts that stand in a file, as money: whoever wrote 500 for five hundred sees that it is 5.00 EUR.

use std::collections::BTreeMap;

use super::Row;
use super::header::{Column, Holds, Part};
use super::mixed_amounts::Written;
use crate::operation::Request;
use crate::operation::currency::money;
use crate::operation::kind::Kind;

/// Currencies that are told; a file has few.
const CURRENCIES_MAX: usize = 10;
/// Where a request says what its amounts are of: the first that is given counts.
const CURRENCIES: [&str; 2] = ["currency", "spending_controls[spending_limits_currency]"];

/// The smallest and the largest amount of each currency, whose codes have three letters.
#[derive(Debug, Default)]
pub struct Amounts {
    ranges: BTreeMap<[u8; 3], (u64, u64)>,
    /// How they are written.
    pub(super) written: Written,
}

/// The columns in which amounts stand, for each request of a row.
#[derive(Debug, Default)]
pub(super) struct AmountColumns(Vec<OfRequest>);

#[derive(Debug)]
struct OfRequest {
    amounts: Vec<usize>,
    currencies: [Option<usize>; CURRENCIES.len()],
}

impl AmountColumns {
    pub(super) fn of(columns: &[Column]) -> Self {
        let of_part = |part: Part| {
            let places = |wanted: &dyn Fn(&Column, Kind) -> bool| -> Vec<usize> {
                let is_it = |column: &Column| match column.holds {
                    Holds::Parameter(of, kind) => of == part && wanted(column, kind),
                    _ => false,
                };
                columns.iter().enumerate().filter(|(_, column)| is_it(column)).map(|(at, _)| at).collect()
            };
            let amounts = places(&|_, kind| kind == Kind::Amount);
            let currency = |path: &str| places(&|column, _| column.path == path).first().copied();
            OfRequest { amounts, currencies: CURRENCIES.map(currency) }
        };
        let of_requests = [Part::First, Part::Last].map(of_part).into_iter();
        Self(of_requests.filter(|of_request| !of_request.amounts.is_empty()).collect())
    }

    /// The columns' places.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|of_request| of_request.amounts.iter().copied())
    }

    /// The same, each with its row's currency, which is empty if the row has none. `cell` gives the n-th cell.
    pub(super) fn each<'c>(&self, cell: impl Fn(usize) -> &'c str) -> impl Iterator<Item = (usize, &'c str)> {
        self.0.iter().flat_map(move |OfRequest { amounts, currencies }| {
            let currency = currencies.iter().flatten().map(|at| cell(*at)).find(|text| !text.is_empty());
            amounts.iter().map(move |at| (*at, currency.unwrap_or_default()))
        })
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Amounts {
    /// Adds those of a row that is right. `cell` gives the n-th cell.
    pub(super) fn add_cells<'c>(&mut self, columns: &AmountColumns, cell: impl Fn(usize) -> &'c str) {
        for (at, currency) in columns.each(&cell) {
            if let Ok(amount) = cell(at).parse() {
                self.add_one(currency, amount);
            }
        }
    }

    fn add_one(&mut self, currency: &str, amount: u64) {
        let Ok(code) = <[u8; 3]>::try_from(currency.as_bytes()) else { return };
        let code = code.map(|letter| letter.to_ascii_lowercase());
        let (least, most) = self.ranges.entry(code).or_insert((amount, amount));
        (*least, *most) = (amount.min(*least), amount.max(*most));
    }

    /// Adds all of others.
    pub(super) fn add_all(&mut self, others: &Self) {
        for (code, (least, most)) in &others.ranges {
            let (own_least, own_most) = self.ranges.entry(*code).or_insert((*least, *most));
            (*own_least, *own_most) = ((*own_least).min(*least), (*own_most).max(*most));
        }
        self.written.add_all(&others.written);
    }

    /// Forgets all; the memory is used again.
    pub(super) fn clear(&mut self) {
        self.ranges.clear();
        self.written.clear();
    }

    /// Adds a row's.
    pub fn add(&mut self, row: &Row) {
        for request in row.first.iter().chain([&row.request]) {
            self.add_request(request);
        }
    }

    fn add_request(&mut self, request: &Request) {
        let Some(currency) = CURRENCIES.into_iter().find_map(|name| request.value(name)) else { return };
        let of_amounts = request.names().filter(|name| name.ends_with("[amount]"));
        for amount in of_amounts.filter_map(|name| request.value(name)?.parse::<u64>().ok()) {
            self.add_one(currency, amount);
        }
    }

    /// Them in words; none if there are none.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let range = |(code, (least, most)): (&[u8; 3], &(u64, u64))| {
            let currency = String::from_utf8_lossy(code);
            if least == most {
                money(*least, &currency)
            } else {
                format!("from {} to {}", money(*least, &currency), money(*most, &currency))
            }
        };
        let ranges: Vec<String> = self.ranges.iter().take(CURRENCIES_MAX).map(range).collect();
        let more = if self.ranges.len() > CURRENCIES_MAX { ", and of other currencies" } else { "" };
        (!ranges.is_empty()).then(|| format!("The limits in this file are {}{more}.", ranges.join(", and ")))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Reading};

    #[test]
    fn whoever_means_hundreds_sees_what_five_hundred_is() {
        let text = "type,currency,spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval]\n\
            virtual,eur,500,monthly\nvirtual,EUR,120000,monthly\nvirtual,jpy,500,daily\nvirtual,eur,,\n";
        let stream = Manifest::read(Path::new("x"), text.as_bytes(), &Reading::default()).unwrap();
        let mut amounts = Amounts::default();
        for row in stream.rows() {
            amounts.add(&row.unwrap());
        }
        // The same of its cells, as a check of many rows has them.
        let manifest = Manifest::read(Path::new("x"), text.as_bytes(), &Reading::default()).unwrap();
        let (rows, mut of_cells) = (manifest.rows(), Amounts::default());
        for row in text.lines().skip(1) {
            let cells: Vec<&str> = row.split(',').collect();
            of_cells.add_cells(&rows.manifest().amounts, |at| cells[at]);
        }
        assert_eq!(of_cells.words(), amounts.words());
        let mut both = Amounts::default();
        both.add_all(&of_cells);
        both.add_all(&amounts);
        assert_eq!(both.words(), amounts.words());
        let words = amounts.words().unwrap();
        assert_eq!(words, "The limits in this file are from 5.00 EUR to 1,200.00 EUR, and 500 JPY.");
        assert_eq!(Amounts::default().words(), None);
    }
}
