//! The amounts that stand in a file, as money: whoever wrote 500 for five hundred sees that it is 5.00 EUR.

use std::collections::BTreeMap;

use super::Row;
use crate::operation::Request;
use crate::operation::currency::money;

/// Currencies that are told apart; a file has few.
const CURRENCIES_MAX: usize = 10;

/// The smallest and the largest amount of each currency.
#[derive(Debug, Default)]
pub struct Amounts(BTreeMap<String, (u64, u64)>);

impl Amounts {
    /// Adds a row's.
    pub fn add(&mut self, row: &Row) {
        for request in row.first.iter().chain([&row.request]) {
            self.add_request(request);
        }
    }

    fn add_request(&mut self, request: &Request) {
        let currency = request.value("currency");
        let currency = currency.or_else(|| request.value("spending_controls[spending_limits_currency]"));
        let Some(currency) = currency.map(str::to_ascii_lowercase) else { return };
        let of_amounts = request.names().filter(|name| name.ends_with("[amount]"));
        for amount in of_amounts.filter_map(|name| request.value(name)?.parse::<u64>().ok()) {
            if self.0.len() == CURRENCIES_MAX && !self.0.contains_key(&currency) {
                return;
            }
            let (least, most) = self.0.entry(currency.clone()).or_insert((amount, amount));
            (*least, *most) = (amount.min(*least), amount.max(*most));
        }
    }

    /// Them in words; none if there are none.
    #[must_use]
    pub fn words(&self) -> Option<String> {
        let range = |(currency, (least, most)): (&String, &(u64, u64))| {
            if least == most {
                money(*least, currency)
            } else {
                format!("from {} to {}", money(*least, currency), money(*most, currency))
            }
        };
        let ranges: Vec<String> = self.0.iter().map(range).collect();
        (!ranges.is_empty()).then(|| format!("The limits in this file are {}.", ranges.join(", and ")))
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
        let words = amounts.words().unwrap();
        assert_eq!(words, "The limits in this file are from 5.00 EUR to 1,200.00 EUR, and 500 JPY.");
        assert_eq!(Amounts::default().words(), None);
    }
}
