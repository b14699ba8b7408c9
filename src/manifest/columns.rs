//! A columns file: which heading of a manifest is which column, what all rows have in common, and which words of theirs are which
//! values of Stripe's.
//!
//! TOML of seven tables. `[columns]` has a heading as the file spells it and the column that it is, or an empty text where it is
//! to be left out. `[joined]` has columns that are filled from several headings, as a name is from its halves. `[defaults]` has columns and the values of rows that have none. `[values.COLUMN]` has words and what they
//! stand for. `[shipping]` says where physical cards go whose rows do not say it: to each person's own address. `[dates]` says whether the day or the month comes first in them. `[results]` says which headings are the person's name, for the results alone. Headings and words are matched whatever their case and the blanks around them are.
//!
//! Never: a PIN, a row's name or a card's id from here. Each row has its own.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

use super::ROW_ID;
use super::contents::CARD;
use super::dates::Order;
use super::own_address::is_filled_in;
use super::records::trimmed;
use crate::operation::PIN;

/// Longest file: ten thousand headings and words.
const BYTES_MAX: usize = 512 << 10;

/// What a columns file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnMap {
    /// Headings as they are compared, as they are spelt, and the columns that they are; empty if they are left out.
    headings: BTreeMap<String, (String, String)>,
    /// Columns and the headings that they are filled from.
    joined: BTreeMap<String, Vec<String>>,
    defaults: BTreeMap<String, String>,
    values: BTreeMap<String, Words>,
    /// Whether physical cards go to their person's own address where the row does not say where.
    ships_to_own_address: bool,
    /// In which order dates are written that end with their year.
    date_order: Option<Order>,
    /// The headings under which a person's name stands.
    person: Vec<String>,
}

/// Words as they are compared, and what they stand for.
pub type Words = HashMap<String, String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    columns: BTreeMap<String, String>,
    #[serde(default)]
    joined: BTreeMap<String, OneOrMore>,
    #[serde(default)]
    defaults: BTreeMap<String, Scalar>,
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, Scalar>>,
    #[serde(default)]
    shipping: OfShipping,
    #[serde(default)]
    dates: OfDates,
    #[serde(default)]
    results: OfResults,
}

/// How dates are written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct OfDates {
    order: Option<Order>,
}

/// Where physical cards go whose rows do not say it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct OfShipping {
    to: Option<Destination>,
}

#[derive(Deserialize)]
enum Destination {
    #[serde(rename = "own address")]
    OwnAddress,
}

/// What the results are to have from the manifest.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct OfResults {
    person: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a text in straight quotes, or several in brackets")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::More(texts) => texts,
        }
    }
}

/// What a cell can hold.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, a whole number, true or false")]
enum Scalar {
    Text(String),
    Number(i64),
    Boolean(bool),
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => trimmed(&text).to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Boolean(is) => is.to_string(),
        }
    }
}

impl ColumnMap {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that says where it is wrong.
    pub fn load(path: &Path) -> Result<Self, String> {
        let mut bytes = Vec::new();
        // A little more than it may have: then it is refused for that.
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let read = file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        if bytes.len() > BYTES_MAX {
            return Err(too_long());
        }
        let text = String::from_utf8(bytes).map_err(|_| "is no UTF-8 text; save it as UTF-8".to_owned())?;
        Self::parse(&text)
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// A sentence that says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > BYTES_MAX {
            return Err(too_long());
        }
        let written: Written = toml::from_str(text).map_err(|error| what_is_wrong(&error, text))?;
        let mut map = Self::default();
        let mut of_column: BTreeMap<String, String> = BTreeMap::new();
        for (heading, column) in written.columns {
            let (heading, column) = (trimmed(&heading).to_owned(), trimmed(&column).to_owned());
            if heading.is_empty() {
                return Err("[columns] has a heading without a name".into());
            }
            if !column.is_empty()
                && let Some(other) = of_column.insert(column.clone(), heading.clone())
            {
                return Err(format!(
                    "[columns] makes {other:?} and {heading:?} the column {column}; a column that is filled from several headings stands \
                     in [joined]: {column:?} = [{other:?}, {heading:?}]"
                ));
            }
            if let Some((other, _)) = map.headings.insert(compared(&heading), (heading.clone(), column)) {
                return Err(format!(
                    "[columns] has {other:?} and {heading:?}, which are the same but for blanks and capitals"
                ));
            }
        }
        map.joined = joined(written.joined, &of_column)?;
        let mut defaults = BTreeMap::new();
        for (column, value) in written.defaults {
            let column = trimmed(&column).to_owned();
            if column.is_empty() {
                return Err("[defaults] has a value without a column".into());
            }
            if let ROW_ID | CARD | PIN = column.as_str() {
                return Err(format!("[defaults] has {column}: each row needs its own"));
            }
            defaults.insert(column, value.into_text());
        }
        for (column, words) in written.values {
            let column = trimmed(&column).to_owned();
            if column.is_empty() {
                return Err("[values] has words without a column".into());
            }
            if let ROW_ID | CARD | PIN = column.as_str() {
                return Err(format!("[values] has {column}, which is taken as it is"));
            }
            let mut compared_words = Words::new();
            for (word, value) in words {
                if compared_words.insert(compared(&word), value.into_text()).is_some() {
                    return Err(format!("[values.{column:?}] has a word twice, but for blanks and capitals"));
                }
            }
            map.values.insert(column, compared_words);
        }
        if let Some(Destination::OwnAddress) = written.shipping.to {
            if let Some(column) = defaults.keys().find(|column| is_filled_in(column)) {
                return Err(format!(
                    "[shipping] sends physical cards to each person's own address, and [defaults] has {column} for all of them; keep one \
                     of them"
                ));
            }
            map.ships_to_own_address = true;
        }
        map.date_order = written.dates.order;
        map.person = written.results.person.map(OneOrMore::into_texts).unwrap_or_default();
        // A default may be one of the words.
        for (column, word) in defaults {
            let meant = map.values.get(&column).and_then(|words| words.get(&compared(&word))).cloned();
            map.defaults.insert(column, meant.unwrap_or(word));
        }
        Ok(map)
    }

    /// The column that a heading is; an empty name if it is left out, none if the file says nothing of it.
    pub(super) fn column_of(&self, heading: &str) -> Option<&str> {
        self.headings.get(&compared(heading)).map(|(_, column)| column.as_str())
    }

    /// The headings that are no longer the file's, as they are spelt.
    pub(super) fn missing_from<'m>(&'m self, headings: &[&str]) -> Vec<&'m str> {
        let there: Vec<String> = headings.iter().map(|heading| compared(heading)).collect();
        let missing = self.headings.iter().filter(|(heading, _)| !there.contains(heading));
        // What is left out anyway may be missing.
        missing
            .filter(|(_, (_, column))| !column.is_empty())
            .map(|(_, (heading, _))| heading.as_str())
            .collect()
    }

    /// Its headings as they are spelt, and the column that each is; empty if it is left out.
    pub fn headings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headings.values().map(|(heading, column)| (heading.as_str(), column.as_str()))
    }

    /// Columns that are filled from several headings, and these as they are spelt.
    pub fn joined(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.joined.iter().map(|(column, headings)| (column.as_str(), headings.as_slice()))
    }

    /// Whether a column is filled from this heading and others.
    pub(super) fn joins(&self, heading: &str) -> bool {
        let heading = compared(heading);
        self.joined.values().flatten().any(|joined| compared(joined) == heading)
    }

    /// What rows have in a column that have nothing there.
    pub fn defaults(&self) -> impl Iterator<Item = (&str, &str)> {
        self.defaults.iter().map(|(column, value)| (column.as_str(), value.as_str()))
    }

    /// Whether physical cards go to their person's own address where the row does not say where.
    #[must_use]
    pub fn ships_to_own_address(&self) -> bool {
        self.ships_to_own_address
    }

    /// In which order dates are written that end with their year, if it says so.
    #[must_use]
    pub fn date_order(&self) -> Option<Order> {
        self.date_order
    }

    /// Whether it says which headings are the person's name.
    pub fn tells_persons(&self) -> bool {
        !self.person.is_empty()
    }

    /// The headings under which a person's name stands.
    pub(super) fn person(&self) -> &[String] {
        &self.person
    }

    /// What words stand for, by columns.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Words)> {
        self.values.iter().map(|(column, words)| (column.as_str(), words))
    }
}

/// Columns that are filled from several headings; `of_column` are those that are filled from one.
fn joined(
    written: BTreeMap<String, OneOrMore>,
    of_column: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut joined = BTreeMap::new();
    for (column, headings) in written {
        let column = trimmed(&column).to_owned();
        let headings: Vec<String> =
            headings.into_texts().iter().map(|heading| trimmed(heading).to_owned()).collect();
        if column.is_empty() || headings.is_empty() || headings.iter().any(String::is_empty) {
            return Err("[joined] has a column without a name, or without headings".into());
        }
        if let ROW_ID | CARD | PIN = column.as_str() {
            return Err(format!("[joined] has {column}, which is taken from one heading as it is"));
        }
        if let Some(heading) = of_column.get(&column) {
            return Err(format!(
                "[joined] has {column}, and [columns] makes {heading:?} the same column; keep one of them"
            ));
        }
        let mut seen: Vec<String> = headings.iter().map(|heading| compared(heading)).collect();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() < headings.len() {
            return Err(format!("[joined] has a heading twice for {column}"));
        }
        joined.insert(column, headings);
    }
    Ok(joined)
}

fn too_long() -> String {
    format!("has more than {} KiB", BYTES_MAX >> 10)
}

/// Where the file is wrong, and how; without what stands there, which may be a PIN.
fn what_is_wrong(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    let message = if message.starts_with("invalid type") {
        "here belongs a text in straight quotes"
    } else if message.starts_with("invalid unquoted key") || message.contains("quote") {
        "a heading or a word with anything but the letters a to z, digits, - and _ stands in straight quotes: \"Straße\""
    } else if message.starts_with("duplicate key") {
        "this stands twice"
    } else if message.starts_with("unknown field") {
        "there are the tables [columns], [joined], [defaults], [values.COLUMN], [shipping], with to in it, [dates], with order in it, and [results], with person in it, and \
         no other"
    } else if message.starts_with("unknown variant") && message.contains("day/month/year") {
        "here belongs \"day/month/year\" or \"month/day/year\""
    } else if message.starts_with("unknown variant") {
        "here belongs \"own address\"; or leave [shipping] out"
    } else if message.starts_with("a text in") {
        "here belongs a heading in straight quotes, or several in brackets"
    } else if message.starts_with("a text,") {
        "here belongs a text in straight quotes, a whole number, true or false"
    } else {
        "this is no TOML; each line is \"heading\" = \"column\", below [columns], [joined], [defaults], [values.COLUMN], [shipping], [dates] or [results]"
    };
    let Some(span) = error.span() else { return message.to_owned() };
    let before = &text[..text.floor_char_boundary(span.start)];
    format!("line {}: {message}", before.matches('\n').count() + 1)
}

/// A heading or a word as it is compared with others.
pub(super) fn compared(text: &str) -> String {
    trimmed(text).split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_found_whatever_their_case_and_blanks_are() {
        let map =
            ColumnMap::parse("[columns]\n'E-Mail  Adresse' = 'cardholder[email]'\nLohn = ''\n").unwrap();
        assert_eq!(map.column_of(" e-mail adresse\u{a0}"), Some("cardholder[email]"));
        assert_eq!((map.column_of("LOHN"), map.column_of("Name")), (Some(""), None));
        assert_eq!(map.missing_from(&["Name"]), ["E-Mail  Adresse"]);
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        for (text, said) in [
            ("[columns]\nA = 'type'\nB = 'type'\n", "in [joined]: \"type\" = [\"A\", \"B\"]"),
            ("[joined]\ntype = []\n", "without headings"),
            ("[joined]\nrow_id = ['A', 'B']\n", "one heading as it is"),
            ("[joined]\ntype = ['A', ' a']\n", "a heading twice for type"),
            ("[joined]\ntype = ['A', 'B']\n[columns]\nC = 'type'\n", "\"C\" the same column"),
            ("[columns]\nA = 'type'\n' a' = ''\n", "the same but for blanks and capitals"),
            ("[columns]\n'' = 'type'\n", "without a name"),
            ("[columns]\nA = 'type'\nA = 'status'\n", "line 3"),
            ("[columns]\nA = 1\n", "line 2: here belongs a text"),
            ("[columns]\nPIN = 4821\n", "line 2: here belongs a text"),
            ("[columns]\nStraße = 'type'\n", "straight quotes"),
            ("[defaults]\n' ' = 'x'\n", "without a column"),
            ("[default]\ntype = 'virtual'\n", "line 1: there are the tables"),
            ("[shipping]\nto = 'home'\n", "line 2: here belongs \"own address\""),
            ("[dates]\norder = 'dmy'\n", "line 2: here belongs \"day/month/year\" or"),
            ("[shipping]\nfrom = 'own address'\n", "line 2: there are the tables"),
            (
                "[shipping]\nto = 'own address'\n[defaults]\n'shipping[name]' = 'Reception'\n",
                "[defaults] has shipping[name] for all of them",
            ),
            ("[defaults]\nrow_id = 'A'\n", "each row needs its own"),
            ("[defaults]\n'pin[encrypted_number]' = 'eyJ'\n", "each row needs its own"),
            ("[defaults]\ntype = ['virtual']\n", "a whole number, true or false"),
            ("[values.card]\nA = 'ic_1'\n", "taken as it is"),
            (
                "[values.type]\nA = 'virtual'\na = 'physical'\n",
                "has a word twice, but for blanks and capitals",
            ),
        ] {
            let error = ColumnMap::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
