//! A columns file for a manifest, as its headings suggest it: to be looked through by a person.

use std::fmt::Write as _;
use std::path::Path;

use super::columns::compared;
use super::contents::{CARD, Contents};
use super::dates::DATE_OF_BIRTH;
use super::headings::{is_in_no_column, says_cardholder};
use super::parts::Parts;
use super::snapshot::Snapshot;
use super::stream::records_of;
use super::text::ReadAs;
use super::{ManifestError, ROW_ID, Reading, titles};
use crate::operation::PIN;
use crate::operation::pin_words::speaks_of_pin;

/// What is noted of a column that is like a heading in nothing but its letters.
pub(super) const GUESS: &str = " # a guess by its letters";

/// What is noted of a heading that is read as a part of a column.
const JOINED: &str = " # joined below";

/// What is noted of a heading below which names or Stripe's ids may stand.
const NAME_OR_ID: &str = " # \"cardholder\" if ids (ich_…) stand below it";

/// What is said of columns that are filled from several headings.
const OF_JOINED: &str = "\n# Columns that are filled from several headings, a blank between two.\n[joined]\n";

/// What comes after the columns.
const REST: &str = r#"
# What each row has that has nothing there, whether or not the file has such a column.
[defaults]
# type = "physical"
# currency = "eur"
# status = "inactive"

# Words of the file and what they stand for, by columns.
# [values.type]
# "Plastic" = "physical"
"#;

/// What comes after that where the rows are people, and say nowhere where their cards are sent.
const OWN_ADDRESS: &str = r#"
# Where physical cards are sent if the row does not say it: to each person's own name and address.
# [shipping]
# to = "own address"
"#;

/// What comes after that where there is a date of birth.
const DATES: &str = r#"
# Which comes first in dates such as 01/02/1990, if they do not show it themselves.
# [dates]
# order = "day/month/year" # or "month/day/year"
"#;

/// The text of a columns file in which each heading of the manifest stands, with the column that it may be or left out.
///
/// # Errors
/// If the file cannot be read, or has no headings.
pub fn propose(path: &Path, reading: &Reading) -> Result<String, ManifestError> {
    let snapshot = Snapshot::of(path, reading)?;
    let source = snapshot.reader().map_err(|source| ManifestError::Read { path: path.into(), source })?;
    let (mut records, _) = records_of(path, source, &reading.of_text(&snapshot), ReadAs::default())?;
    let headings = titles::find(&mut records, path, &Reading::default())?.cells;
    // A heading is compared with its blanks as one, and stands in one line.
    let headings: Vec<String> = headings
        .iter()
        .map(|heading| heading.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|heading| !heading.is_empty())
        .collect();
    let names: Vec<&str> = headings.iter().map(String::as_str).collect();
    let parts = Parts::of(&names);
    let called: Vec<&str> =
        names.iter().zip(&parts.called).map(|(heading, called)| called.unwrap_or(heading)).collect();
    let contents = Contents::of_names(&called);
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().replace(char::is_control, " "))
        .unwrap_or_default();
    let mut text = format!(
        "# Which heading of {name} is which column. Look through each line; an empty text leaves a column out.\n[columns]\n"
    );
    let (mut seen, mut given): (Vec<String>, Vec<String>) = Default::default();
    for (at, heading) in headings.iter().enumerate() {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        if seen.contains(&compared(heading)) {
            // A string takes whatever is written to it.
            let _ =
                writeln!(text, "# {} stands twice: give each column a heading of its own", quoted(heading));
            continue;
        }
        seen.push(compared(heading));
        let is_joined = |(_, places): &&(&str, Vec<usize>)| places.contains(&at);
        let of_joined = parts.joined.iter().find(is_joined).map(|(column, _)| *column);
        let (column, note) = match column_of(contents, heading, parts.called[at]) {
            Some((column, _)) if of_joined == Some(column.as_str()) => (String::new(), JOINED.to_owned()),
            None if of_joined.is_some() => (String::new(), JOINED.to_owned()),
            Some((column, GUESS)) => {
                (String::new(), format!(" # left out; a guess by its letters: {}", quoted(&column)))
            }
            Some((column, note)) if !given.contains(&column) => (column, note.to_owned()),
            Some((column, _)) => (String::new(), format!(" # left out: another heading is {column}")),
            None => match key_of(heading).as_str() {
                "" => (String::new(), " # left out".to_owned()),
                key => (String::new(), format!(" # left out; \"metadata[{key}]\" keeps it with the card")),
            },
        };
        let _ = writeln!(text, "{} = {}{note}", quoted(heading), quoted(&column));
        given.push(column);
    }
    if !parts.joined.is_empty() {
        text.push_str(OF_JOINED);
    }
    for (column, places) in &parts.joined {
        let quoted: Vec<String> =
            places.iter().map(|at| toml::Value::from(headings[*at].as_str()).to_string()).collect();
        let _ = writeln!(text, "{} = [{}]", toml::Value::from(*column), quoted.join(", "));
    }
    text.push_str(REST);
    let fills = |column: &str| {
        given.iter().any(|known| known == column) || parts.joined.iter().any(|(known, _)| *known == column)
    };
    if fills("cardholder[billing][address][line1]") && !fills("shipping[address][line1]") {
        text.push_str(OWN_ADDRESS);
    }
    if fills(DATE_OF_BIRTH) {
        text.push_str(DATES);
    }
    Ok(text)
}

/// The column that a heading is or may be, and what a person is to know of that.
///
/// `called` is what people mean by it beside its neighbours.
pub(super) fn column_of(
    contents: Contents,
    heading: &str,
    called: Option<&str>,
) -> Option<(String, &'static str)> {
    if speaks_of_pin(heading) && contents.kind_of(heading).is_err() {
        return Some((
            PIN.to_owned(),
            " # encrypted on the cardholder's device; PINs in the clear are refused",
        ));
    }
    match contents.kind_of(heading) {
        _ if heading == ROW_ID || heading == CARD || heading == DATE_OF_BIRTH => {
            Some((heading.to_owned(), ""))
        }
        Ok(_) => Some((heading.to_owned(), "")),
        Err(problem) => match called {
            // It may be an id as well: what stands below it tells.
            Some(column) if says_cardholder(heading) => Some((column.to_owned(), NAME_OR_ID)),
            Some(column) => Some((column.to_owned(), "")),
            None if is_in_no_column(heading) => None,
            // As Stripe's name but for capitals; a person's status in a company is another matter.
            None => problem.suggestion.map(|column| {
                let is_it = column.eq_ignore_ascii_case(heading) && column != "status";
                (column, if is_it { "" } else { GUESS })
            }),
        },
    }
}

/// A heading as a key of metadata.
fn key_of(heading: &str) -> String {
    /// As Stripe has it.
    const KEY_MAX: usize = 40;
    heading
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_.".contains(*letter))
        .take(KEY_MAX)
        .collect()
}
