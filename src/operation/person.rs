//! What tells a person from others: an e-mail address, a phone number, or a name and an address; each as it is compared, however
//! it is spelt. A cardholder of Stripe's and a request for one have the same.
//!
//! Kept and told are digests and never what they are of.

use std::fmt;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Request;
use crate::content::hex;

/// By what a person is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The e-mail address.
    Email,
    /// The phone number, with the name: it is often an office's.
    Phone,
    /// The name and the address together.
    NameAndAddress,
}

impl By {
    /// In a sentence.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Email => "e-mail address",
            Self::Phone => "name and phone number",
            Self::NameAndAddress => "name and address",
        }
    }
}

/// The parameters of an address by which a person is known.
pub(crate) const ADDRESS: [&str; 5] = [
    "billing[address][line1]",
    "billing[address][line2]",
    "billing[address][city]",
    "billing[address][postal_code]",
    "billing[address][country]",
];

/// A digest of one of these.
pub type Key = [u8; 16];

/// What tells a person: the surest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    name: Key,
    /// The words of the name, sorted.
    words: Vec<Key>,
    keys: Vec<(By, Key)>,
}

/// A text of a person's, which nothing shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(super) struct Private(String);

impl fmt::Debug for Private {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Private")
    }
}

/// What is read of a cardholder who is a person: the year of birth, which nothing shows.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Individual {
    dob: Option<Born>,
}

#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Born {
    year: Option<u32>,
}

impl Individual {
    /// The year of birth in four digits, if it is known.
    pub(crate) fn birth_year(&self) -> Option<String> {
        self.dob.as_ref()?.year.map(|year| format!("{year:04}"))
    }
}

impl fmt::Debug for Individual {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Individual")
    }
}

/// A cardholder's billing details, as Stripe has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub(super) struct Billing {
    address: Option<Address>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Address {
    line1: Option<Private>,
    line2: Option<Private>,
    city: Option<Private>,
    postal_code: Option<Private>,
    country: Option<Private>,
}

/// Of whom something is known.
#[derive(Default)]
pub(crate) struct Details<'d> {
    pub(crate) name: Option<&'d str>,
    pub(crate) email: Option<&'d str>,
    pub(crate) phone: Option<&'d str>,
    /// In the order of [`ADDRESS`].
    pub(crate) address: [Option<&'d str>; 5],
}

impl Private {
    pub(super) fn of(this: Option<&Self>) -> Option<&str> {
        this.map(|private| private.0.as_str())
    }
}

impl Billing {
    pub(super) fn address(&self) -> [Option<&str>; 5] {
        let Some(Address { line1, line2, city, postal_code, country }) = &self.address else {
            return [None; 5];
        };
        [line1, line2, city, postal_code, country].map(|part| Private::of(part.as_ref()))
    }
}

impl Person {
    pub(crate) fn of(details: &Details<'_>) -> Self {
        let given =
            |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        let name = given(details.name).map(|name| plain(&name)).unwrap_or_default();
        let address = details.address.map(|part| given(part).map(|part| plain(&part)).unwrap_or_default());
        let email = given(details.email).map(|email| digest(By::Email, &[&plain(&email)]));
        let phone = given(details.phone).map(|phone| digest(By::Phone, &[&digits(&phone), &name]));
        let has_both = !name.is_empty() && !address[0].is_empty();
        let [street, more, city, postal_code, country] = &address;
        // A postal code is written with blanks and without.
        let postal_code = postal_code.replace(' ', "");
        let of_both =
            has_both.then(|| digest(By::NameAndAddress, &[&name, street, more, city, &postal_code, country]));
        let keys = [(By::Email, email), (By::Phone, phone), (By::NameAndAddress, of_both)];
        let mut words: Vec<_> = name.split(' ').map(|word| digest(By::NameAndAddress, &[word])).collect();
        words.sort_unstable();
        Self {
            words,
            name: digest(By::NameAndAddress, &[&name]),
            keys: keys.into_iter().filter_map(|(by, key)| Some((by, key?))).collect(),
        }
    }

    /// By what it can be found: the surest first.
    #[must_use]
    pub fn keys(&self) -> &[(By, Key)] {
        &self.keys
    }

    /// One of them.
    #[must_use]
    pub fn key(&self, by: By) -> Option<&Key> {
        self.keys.iter().find(|key| key.0 == by).map(|(_, key)| key)
    }

    /// Whether both have an e-mail address and these differ.
    #[must_use]
    pub fn has_other_email(&self, other: &Self) -> bool {
        matches!((self.key(By::Email), other.key(By::Email)), (Some(one), Some(other)) if one != other)
    }

    /// Of the name.
    #[must_use]
    pub fn name(&self) -> &Key {
        &self.name
    }

    /// Whether it may be the same name: as it is, or with a second first name in one of the two.
    #[must_use]
    pub fn may_have_name_of(&self, other: &Self) -> bool {
        let is_within = |one: &Self, other: &Self| one.words.iter().all(|word| other.words.contains(word));
        is_within(self, other) || is_within(other, self)
    }

    /// Names the person among all that one account has: the surest of the keys, and the name, since two people may share an
    /// e-mail address. None if nothing tells the person.
    #[must_use]
    pub fn identity(&self) -> Option<String> {
        let (_, key) = self.keys.first()?;
        let digest = Sha256::new().chain_update(key).chain_update(self.name).finalize();
        Some(hex(&digest[..16]))
    }
}

impl Request {
    /// Who the cardholder is that it asks for.
    #[must_use]
    pub fn person(&self) -> Person {
        let address = ADDRESS.map(|part| self.value(part));
        Person::of(&Details {
            name: self.value("name"),
            email: self.value("email"),
            phone: self.value("phone_number"),
            address,
        })
    }
}

/// Without what differs between two spellings of the same: case, and how many blanks there are.
pub(crate) fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Of a phone number what is dialled: without blanks, brackets, and what stands for "abroad".
fn digits(phone: &str) -> String {
    let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').to_owned()
}

fn digest(by: By, parts: &[&str]) -> Key {
    let mut digest = Sha256::new();
    digest.update(by.word());
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut key = Key::default();
    key.copy_from_slice(&digest.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Found, Operation};

    fn requested(pairs: &[(&str, &str)]) -> Person {
        let address = [
            ("billing[address][line1]", "1 High Street"),
            ("billing[address][city]", "Cork"),
            ("billing[address][postal_code]", "T12 AB34"),
            ("billing[address][country]", "IE"),
        ];
        let pairs = pairs.iter().chain(&address).map(|(path, value)| ((*path).into(), (*value).into()));
        Request::from_pairs(Operation::CreateCardholder, pairs.collect()).unwrap().person()
    }

    #[test]
    fn a_person_is_the_same_however_it_is_spelt() {
        let one =
            requested(&[("name", "Ana Berg"), ("email", "Ana@Example.com"), ("phone_number", "+353 1 234")]);
        let other =
            requested(&[("name", "ana  BERG"), ("email", "ana@example.com"), ("phone_number", "003531234")]);
        assert_eq!(one, other);
        assert_eq!(
            one.keys().iter().map(|(by, _)| *by).collect::<Vec<_>>(),
            [By::Email, By::Phone, By::NameAndAddress]
        );
        assert_eq!(one.identity(), other.identity());
        let namesake = requested(&[("name", "Max Berg"), ("email", "ana@example.com")]);
        assert_eq!(namesake.keys()[0], one.keys()[0]);
        assert_ne!(namesake.identity(), one.identity(), "two people may share an address");
        assert!(!namesake.may_have_name_of(&one));
        assert!(requested(&[("name", "Ana Maria Berg")]).may_have_name_of(&one));
    }

    #[test]
    fn what_stripe_has_of_a_person_is_told_alike_and_shown_nowhere() {
        let object = r#"{"id":"ich_1","name":"Ana Berg","email":"ana@example.com","phone_number":"+3531234","billing":{"address":
            {"line1":"1 High Street","line2":null,"city":"Cork","postal_code":"T12AB34","country":"IE","state":null}}}"#;
        let found: Found = serde_json::from_str(object).unwrap();
        let wanted =
            requested(&[("name", "Ana Berg"), ("email", "Ana@Example.com"), ("phone_number", "+353 1234")]);
        assert_eq!(found.person(), wanted);
        let shown = format!("{found:?}");
        assert!(
            !shown.contains("example.com") && !shown.contains("Berg") && !shown.contains("3531"),
            "{shown}"
        );
    }
}
