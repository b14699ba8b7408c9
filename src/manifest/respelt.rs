//! What a row would ask for had a program spelt its dates and numbers otherwise than now.
//!
//! A row without a `row_id` is named by its content. The same table has `2026-03-01` as a spreadsheet and `01/03/2026` as the CSV that
//! Excel makes of it: each row would get a second card. So such a row is looked for under the contents, too, that the same dates and
//! amounts would have given it in other forms.

use std::collections::BTreeSet;

use jiff::civil::Date;
use zeroize::Zeroizing;

use super::Row;
use crate::job::Content;

/// A form of dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form {
    order: Order,
    separator: char,
    /// Whether days and months have two digits.
    is_padded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    YearMonthDay,
    DayMonthYear,
    MonthDayYear,
}

/// The forms in which spreadsheets write dates, this program's own first.
const FORMS: [Form; 9] = [
    Form::of(Order::YearMonthDay, '-', true),
    Form::of(Order::YearMonthDay, '/', true),
    Form::of(Order::DayMonthYear, '/', true),
    Form::of(Order::DayMonthYear, '/', false),
    Form::of(Order::MonthDayYear, '/', true),
    Form::of(Order::MonthDayYear, '/', false),
    Form::of(Order::DayMonthYear, '.', true),
    Form::of(Order::DayMonthYear, '.', false),
    Form::of(Order::DayMonthYear, '-', true),
];

/// What a row's content would be with its dates and numbers in other forms; nothing for a row that has none.
pub(super) fn contents(row: &Row) -> Vec<Content> {
    let values = || row.first.iter().chain([&row.request]).flat_map(|request| request.values());
    let mut contents = BTreeSet::new();
    let mut add = |respell: &dyn Fn(&str) -> Option<String>| {
        let spelt = |value: &str| Zeroizing::new(respell(value).unwrap_or_else(|| value.to_owned()));
        contents.insert(row.request.content_misread(row.first.as_ref(), &spelt));
    };
    for form in FORMS.iter().filter(|form| values().any(|value| form.date(value).is_some())) {
        for other in FORMS.iter().filter(|other| *other != form) {
            add(&|value| Some(other.text(form.date(value)?)));
        }
    }
    if values().any(|value| plain(value).is_some()) {
        add(&plain);
    }
    contents.remove(&row.content());
    contents.into_iter().collect()
}

impl Form {
    const fn of(order: Order, separator: char, is_padded: bool) -> Self {
        Self { order, separator, is_padded }
    }

    /// A date that is written so.
    fn date(self, text: &str) -> Option<Date> {
        if !(8..=10).contains(&text.len()) || !text.starts_with(|letter: char| letter.is_ascii_digit()) {
            return None;
        }
        let mut parts = text.split(self.separator);
        let [one, two, three] = [parts.next()?, parts.next()?, parts.next()?];
        let (year, month, day) = match self.order {
            Order::YearMonthDay => (one, two, three),
            Order::DayMonthYear => (three, two, one),
            Order::MonthDayYear => (three, one, two),
        };
        let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
        (self.text(date) == text).then_some(date)
    }

    fn text(self, date: Date) -> String {
        let width = if self.is_padded { 2 } else { 1 };
        let (day, month) = (format!("{:0width$}", date.day()), format!("{:0width$}", date.month()));
        let (year, separator) = (format!("{:04}", date.year()), self.separator.to_string());
        let parts = match self.order {
            Order::YearMonthDay => [year, month, day],
            Order::DayMonthYear => [day, month, year],
            Order::MonthDayYear => [month, day, year],
        };
        parts.join(&separator)
    }
}

/// A number without the decimals and the currency's sign that its cell shows.
fn plain(text: &str) -> Option<String> {
    let is_sign = |letter: char| letter == ' ' || "€$£¥".contains(letter);
    let core = text.trim_matches(is_sign);
    let is_number = core.starts_with(|letter: char| letter.is_ascii_digit())
        && core.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = core.parse::<f64>().ok().filter(|_| is_number)?.to_string();
    (number != text && (core.contains('.') || core.len() < text.len())).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::{Manifest, Reading};

    fn row(value: &str) -> Row {
        let text = format!("cardholder,type,currency,metadata[a],metadata[b]\nich_1,virtual,eur,{value},x\n");
        let stream = Manifest::read(Path::new("a"), text.as_bytes(), &Reading::default()).unwrap();
        stream.rows().next().unwrap().unwrap()
    }

    #[test]
    fn a_row_is_known_by_other_forms_of_its_dates_and_numbers() {
        for (one, other) in [
            ("2026-03-01", "01/03/2026"),
            ("2026-03-01", "3/1/2026"),
            ("2026-03-01", "01.03.2026"),
            ("1.3.2026", "01.03.2026"),
            ("2026-12-24", "2026/12/24"),
        ] {
            for (was, is) in [(one, other), (other, one)] {
                assert!(contents(&row(is)).contains(&row(was).content()), "{was} {is}");
            }
        }
        for (was, is) in [("500", "500.00 €"), ("1234.5", "$1234.50"), ("500", "500.00")] {
            assert!(contents(&row(is)).contains(&row(was).content()), "{was} {is}");
        }
    }

    #[test]
    fn what_is_no_date_has_one_form() {
        for value in ["12 High Street", "31/02/2026", "1-2-3", "500", "2026", "03-2026-01", "4711.5.5"] {
            assert!(contents(&row(value)).is_empty(), "{value}");
        }
        assert!(!contents(&row("2026-03-02")).contains(&row("01/03/2026").content()));
    }
}
