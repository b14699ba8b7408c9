//! What is printed, and when: what stands on a row's card and on the letter that carries it.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::Row;
use super::lint::{PRINTED_MAX, is_printed_of_a_business, is_printed_of_a_person};
use crate::operation::Request;

/// Hour of the day, UTC, at which Stripe sends the physical cards of a day to be printed.
const PRINTED_AT_HOUR: i8 = 6;

/// What is printed for a row, as an example of all, if its card is physical.
pub(super) fn example(row: &Row) -> Option<String> {
    let request = &row.request;
    if request.value("type") != Some("physical") {
        return None;
    }
    let name = row.first.as_ref().and_then(|person| person.value("name"));
    let name = name.map_or_else(|| "the cardholder's name".to_owned(), |name| quoted(&of_person(name)));
    let second = request.value("second_line").map(|line| format!(" and {}", quoted(line)));
    let on_card = format!("On the card of line {}: {name}{}", row.line, second.unwrap_or_default());
    let on_letter = on_letter(request);
    if on_letter.is_empty() {
        return Some(format!("{on_card}."));
    }
    Some(format!("{on_card}; it is sent to: {}.", on_letter.join(", ")))
}

/// A person's name as a card has it.
pub(super) fn of_person(name: &str) -> String {
    name.chars().filter(|letter| is_printed_of_a_person(*letter)).take(PRINTED_MAX).collect()
}

/// A business's name as the letter has it.
pub(super) fn of_business(name: &str) -> String {
    name.bytes().filter(|byte| is_printed_of_a_business(*byte)).map(char::from).collect()
}

/// The lines of the address, as they are printed.
fn on_letter(request: &Request) -> Vec<String> {
    let part = |name: &str| request.value(&format!("shipping[{name}]")).map(str::to_owned);
    let business = request.value("shipping[business_name]").map(of_business);
    let address = ["line1", "line2", "postal_code", "city", "state", "country"]
        .map(|part| request.value(&format!("shipping[address][{part}]")).map(str::to_owned));
    [part("name"), business].into_iter().chain(address).flatten().filter(|line| !line.is_empty()).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// When cards that are created now are sent to be printed at the earliest.
pub(super) fn next_cut_off(now: Timestamp) -> Timestamp {
    let now = now.to_zoned(TimeZone::UTC);
    let today = now.date().at(PRINTED_AT_HOUR, 0, 0, 0);
    let next = if now.datetime() < today { Some(today) } else { today.checked_add(1.day()).ok() };
    // Only at the end of all time is there no next day.
    next.and_then(|next| next.to_zoned(TimeZone::UTC).ok()).map_or(now.timestamp(), |next| next.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_cut_off_is_todays_or_tomorrows() {
        for (now, next) in [
            ("2026-11-28T05:59:59Z", "2026-11-28T06:00:00Z"),
            ("2026-11-28T06:00:00Z", "2026-11-29T06:00:00Z"),
            ("2026-12-31T23:00:00Z", "2027-01-01T06:00:00Z"),
        ] {
            assert_eq!(next_cut_off(now.parse().unwrap()), next.parse::<Timestamp>().unwrap(), "{now}");
        }
    }
}
