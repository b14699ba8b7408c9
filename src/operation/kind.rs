//! What one parameter may hold: told fast for the many values that are right, in full for the few that are not.
//!
//! [`Kind::accepts`] decides and [`Kind::explain`] only words it, so that no two paths through embosser can
//! disagree about a value. Never: a value in a reason.

use std::borrow::Cow;

use super::countries::country_named;

/// What a parameter may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text of so many characters at most.
    Text(usize),
    /// The id of a cardholder who exists.
    Cardholder,
    /// One of these, which are sorted.
    OneOf(&'static [&'static str]),
    /// A currency's three letters.
    Currency,
    /// A country's two letters.
    Country,
    /// A whole number.
    Integer {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A whole number of the currency's smallest unit.
    Amount,
    /// `true` or `false`; spreadsheets write them in capitals.
    Boolean,
    /// A PIN's JWE.
    Pin,
    /// A field that the answer is to hold in full: none that would bring a card's number along.
    Expand,
    /// A metadata value.
    Metadata {
        /// Its key speaks of a PIN, so digits in it are taken for one.
        of_pin: bool,
    },
}

/// Stripe's limit for any text without a tighter one, in characters.
pub(super) const TEXT_MAX: usize = 5000;
/// Over what time a spending limit counts.
pub(super) const INTERVALS: &[&str] =
    &["all_time", "daily", "monthly", "per_authorization", "weekly", "yearly"];
/// Whether a card is there when it is used.
pub(super) const PRESENCES: &[&str] = &["not_present", "present"];
/// Stripe's limit for a metadata value, in characters.
pub(super) const METADATA_VALUE_MAX: usize = 500;
/// Lists of values up to this length are told in full.
const LISTED_MAX: usize = 6;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) code: &'static str,
    pub(crate) reason: String,
    pub(crate) suggestion: Option<String>,
}

impl Wrong {
    fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), suggestion: None }
    }
}

impl Kind {
    /// Whether a value may be shown to who wrote it: nothing that may be a PIN.
    pub(crate) fn may_be_shown(self) -> bool {
        !matches!(self, Self::Pin | Self::Metadata { of_pin: true })
    }

    /// Whether the parameter may hold this value, which is not empty: an empty one is absent.
    pub(crate) fn accepts(self, value: &str) -> bool {
        let text = value;
        let value = value.as_bytes();
        match self {
            Self::Text(max) => within(value, max),
            Self::Cardholder => within(value, TEXT_MAX) && !is_no_id(value),
            Self::OneOf(values) => one_of(values, value),
            Self::Currency => value.len() == 3 && value.iter().all(u8::is_ascii_alphabetic),
            Self::Country => value.len() == 2 && value.iter().all(u8::is_ascii_alphabetic),
            Self::Integer { min, max } => integer(value).is_some_and(|number| (min..=max).contains(&number)),
            Self::Amount => integer(value).is_some_and(|number| number >= 0),
            Self::Boolean => boolean(value).is_some(),
            Self::Pin => crate::jwe::inspect(text).is_ok(),
            Self::Expand => within(value, TEXT_MAX) && !is_secret(value),
            Self::Metadata { of_pin } => within(value, METADATA_VALUE_MAX) && !(of_pin && pin_like(value)),
        }
    }

    /// Why a value that is not accepted is not.
    pub(crate) fn explain(self, value: &str) -> Wrong {
        match self {
            Self::Expand if is_secret(value.as_bytes()) => Wrong::new(
                "card_number",
                "would bring a card's number or CVC into this program, which never holds one; leave it out",
            ),
            Self::Expand => Wrong::new("too_long", format!("may have at most {TEXT_MAX} characters")),
            Self::Text(max) => Wrong::new("too_long", format!("may have at most {max} characters")),
            Self::Cardholder if !within(value.as_bytes(), TEXT_MAX) => {
                Wrong::new("too_long", format!("may have at most {TEXT_MAX} characters"))
            }
            Self::Cardholder => Wrong::new(
                "cardholder_id",
                "must be the id that Stripe has for the cardholder: ich_ and letters and digits; people who have none yet stand in columns \
                 like cardholder[name]",
            ),
            Self::Metadata { of_pin: true } if pin_like(value.as_bytes()) => Wrong::new(
                "pin_in_clear",
                "holds digits under a name that speaks of a PIN; a PIN in the clear is refused anywhere",
            ),
            Self::Metadata { .. } => {
                Wrong::new("too_long", format!("may have at most {METADATA_VALUE_MAX} characters"))
            }
            Self::OneOf(values) => {
                let few = if values.len() <= LISTED_MAX {
                    format!(": {}", values.join(", "))
                } else {
                    String::new()
                };
                let suggestion = nearest(value, values.iter().copied());
                let reason = format!("is not one of Stripe's values{few}");
                Wrong { suggestion, ..Wrong::new("not_allowed", reason) }
            }
            Self::Currency => Wrong {
                suggestion: currency_named(value).map(str::to_owned),
                ..Wrong::new("currency", "must be a three-letter currency code, such as usd")
            },
            Self::Country => Wrong {
                suggestion: country_named(value).map(str::to_owned),
                ..Wrong::new("country", "must be a two-letter country code, such as US")
            },
            Self::Integer { min, max } => number_wrong(value, min, max, "must be a whole number"),
            Self::Amount => Wrong {
                suggestion: in_cents(value),
                ..number_wrong(
                    value,
                    0,
                    i64::MAX,
                    "must be a whole number of the currency's smallest unit (cents): no point, comma or sign",
                )
            },
            Self::Boolean => Wrong {
                suggestion: boolean_named(value).map(|is| is.to_string()),
                ..Wrong::new("not_a_boolean", "must be true or false")
            },
            Self::Pin => match crate::jwe::inspect(value) {
                Err(refusal) => Wrong::new(refusal.code(), refusal.to_string()),
                Ok(()) => Wrong::new("pin", "must be an encrypted PIN"),
            },
        }
    }

    /// The one spelling of an accepted value, so that 07 and 7, or TRUE and true, are the same request.
    pub(crate) fn canonical(self, value: &str) -> Cow<'_, str> {
        match self {
            Self::Integer { .. } | Self::Amount if spelt_once(value.as_bytes()) => value.into(),
            Self::Integer { .. } | Self::Amount => match integer(value.as_bytes()) {
                Some(number) => number.to_string().into(),
                None => value.into(),
            },
            Self::Boolean => match boolean(value.as_bytes()) {
                Some(yes) => if yes { "true" } else { "false" }.into(),
                None => value.into(),
            },
            _ => value.into(),
        }
    }
}

/// The currency that people write so.
fn currency_named(value: &str) -> Option<&'static str> {
    Some(match value.to_lowercase().as_str() {
        "€" | "euro" | "euros" => "eur",
        "$" | "us$" | "dollar" | "dollars" | "us dollar" => "usd",
        "£" | "pound" | "pounds" | "sterling" => "gbp",
        "fr." | "sfr" | "franken" | "francs" => "chf",
        _ => return None,
    })
}

/// What people write for true and false.
fn boolean_named(value: &str) -> Option<bool> {
    match value.to_lowercase().as_str() {
        "yes" | "y" | "ja" | "j" | "oui" | "sí" | "si" | "sì" | "x" | "1" | "wahr" | "vrai" | "✓" => {
            Some(true)
        }
        "no" | "n" | "nein" | "non" | "nee" | "-" | "0" | "falsch" | "faux" => Some(false),
        _ => None,
    }
}

/// What people and spreadsheets write between thousands: blanks that break no line among them, and apostrophes.
fn is_between_thousands(letter: char) -> bool {
    matches!(letter, '.' | ',' | ' ' | '\'' | '\u{2019}' | '\u{a0}' | '\u{202f}' | '\u{2009}')
}

/// An amount with two decimals as a whole number of the hundredth unit: `1.000,00` and `1,000.00` are `100000`.
fn in_cents(value: &str) -> Option<String> {
    let number = value.trim_matches(|letter: char| !letter.is_ascii_digit());
    let (whole, cents) = number.rsplit_once(['.', ','])?;
    let is_number = cents.len() == 2
        && cents.bytes().all(|byte| byte.is_ascii_digit())
        && !whole.is_empty()
        && whole.chars().all(|letter| letter.is_ascii_digit() || is_between_thousands(letter));
    let digits: String = whole.chars().chain(cents.chars()).filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    (is_number && !value.contains('-'))
        .then(|| if digits.is_empty() { "0".to_owned() } else { digits.to_owned() })
}

fn number_wrong(value: &str, min: i64, max: i64, what: &str) -> Wrong {
    match integer(value.as_bytes()) {
        Some(_) if max == i64::MAX => Wrong::new("out_of_range", format!("must be at least {min}")),
        Some(_) => Wrong::new("out_of_range", format!("must be from {min} to {max}")),
        None => Wrong::new("not_an_integer", what),
    }
}

/// Whether a field that is expanded is a card's number or CVC, by itself or within another.
fn is_secret(field: &[u8]) -> bool {
    field.split(|byte| *byte == b'.').any(|part| matches!(part.trim_ascii(), b"number" | b"cvc"))
}

/// Whether a text is certainly no id: a number, which may be a PIN's, a name or an address.
fn is_no_id(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_punctuation())
        || value.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b'@' | b'/'))
}

/// At most so many characters; a text has no more characters than bytes, so the short ones need no count.
#[inline]
fn within(value: &[u8], characters_max: usize) -> bool {
    // Bytes that go on with a character are 0b10xxxxxx.
    let characters = || value.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    value.len() <= characters_max || characters() <= characters_max
}

/// Up to this many values a walk is faster than a binary search.
const WALKED_MAX: usize = 8;

#[inline]
fn one_of(values: &[&str], value: &[u8]) -> bool {
    if values.len() <= WALKED_MAX {
        return values.iter().any(|allowed| allowed.as_bytes() == value);
    }
    values.binary_search_by(|allowed| allowed.as_bytes().cmp(value)).is_ok()
}

/// Digits with a minus at most: what Stripe reads as an integer, in the 64 bits it keeps.
#[inline]
fn integer(value: &[u8]) -> Option<i64> {
    /// So many digits never overflow.
    const DIGITS_SURE: usize = 18;
    if value.len() <= DIGITS_SURE && value.iter().all(u8::is_ascii_digit) && !value.is_empty() {
        return Some(value.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')));
    }
    if value.starts_with(b"+") { None } else { std::str::from_utf8(value).ok()?.parse().ok() }
}

/// Whether a number stands as it is written anyway: digits without a zero in front.
fn spelt_once(value: &[u8]) -> bool {
    value == b"0" || (!value.starts_with(b"0") && value.iter().all(u8::is_ascii_digit))
}

#[inline]
fn boolean(value: &[u8]) -> Option<bool> {
    if value.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if value.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// As many digits as a PIN has, and nothing else.
fn pin_like(value: &[u8]) -> bool {
    let value = value.trim_ascii();
    (4..=12).contains(&value.len()) && value.iter().all(u8::is_ascii_digit)
}

/// The name most like the one given, if any is like it at all.
pub(crate) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    /// Names less alike than this (Jaro-Winkler) are not what was meant.
    const ALIKE_MIN: f64 = 0.82;
    /// More of a text than this is no misspelt name, and the comparison's cost grows with its square.
    const GIVEN_BYTES_MAX: usize = 200;
    /// A single letter is like any name that begins with it.
    const GIVEN_LETTERS_MIN: usize = 2;
    let given = given.trim();
    if given.len() > GIVEN_BYTES_MAX || given.chars().count() < GIVEN_LETTERS_MIN {
        return None;
    }
    let given = given.to_lowercase();
    names
        .map(|name| (strsim::jaro_winkler(&given, name), name))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_for_words_of_stripes_is_suggested() {
        for (kind, written, meant) in [
            (Kind::Boolean, "Ja", Some("true")),
            (Kind::Boolean, "NEIN", Some("false")),
            (Kind::Boolean, "maybe", None),
            (Kind::Country, "Deutschland", Some("DE")),
            (Kind::Country, "Atlantis", None),
            (Kind::Currency, "Euro", Some("eur")),
        ] {
            assert!(!kind.accepts(written));
            assert_eq!(kind.explain(written).suggestion.as_deref(), meant, "{written}");
        }
    }

    #[test]
    fn what_people_write_for_money_is_understood() {
        for (written, cents) in [
            ("500,00", Some("50000")),
            ("1.000,00", Some("100000")),
            ("1,000.50 €", Some("100050")),
            ("$0.99", Some("99")),
            ("1\u{a0}500,00 €", Some("150000")),
            ("1\u{202f}500,00\u{a0}€", Some("150000")),
            ("1’500.00", Some("150000")),
            ("1.000", None),
            ("500", None),
            ("-5.00", None),
            ("a.00", None),
        ] {
            assert_eq!(in_cents(written).as_deref(), cents, "{written}");
        }
        let named = ["Euro", "€", "rub"].map(currency_named);
        assert_eq!(named, [Some("eur"), Some("eur"), None]);
    }
}
