//! A columns file for a manifest, as its headings suggest it: to be looked through by a person.

use std::fmt::Write as _;
use std::path::Path;

use super::columns::compared;
use super::contents::{CARD, Contents};
use super::headings::{column_called, is_in_no_column, says_cardholder};
use super::snapshot::Snapshot;
use super::stream::records_of;
use super::text::ReadAs;
use super::{ManifestError, ROW_ID, Reading, titles};
use crate::operation::PIN;
use crate::operation::params::speaks_of_pin;

/// What is noted of a column that is like a heading in nothing but its letters.
pub(super) const GUESS: &str = " # a guess by its letters";

/// What is noted of a heading below which names or Stripe's ids may stand.
const NAME_OR_ID: &str = " # \"cardholder\" if ids (ich_…) stand below it";

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
    let called: Vec<&str> =
        headings.iter().map(|heading| column_called(heading).unwrap_or(heading)).collect();
    let contents = Contents::of_names(&called);
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().replace(char::is_control, " "))
        .unwrap_or_default();
    let mut text = format!(
        "# Which heading of {name} is which column. Look through each line; an empty text leaves a column out.\n[columns]\n"
    );
    let (mut seen, mut given): (Vec<String>, Vec<String>) = Default::default();
    for heading in &headings {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        if seen.contains(&compared(heading)) {
            // A string takes whatever is written to it.
            let _ =
                writeln!(text, "# {} stands twice: give each column a heading of its own", quoted(heading));
            continue;
        }
        seen.push(compared(heading));
        let (column, note) = match column_of(contents, heading) {
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
    text.push_str(REST);
    Ok(text)
}

/// The column that a heading is or may be, and what a person is to know of that.
pub(super) fn column_of(contents: Contents, heading: &str) -> Option<(String, &'static str)> {
    if speaks_of_pin(heading) && contents.kind_of(heading).is_err() {
        return Some((
            PIN.to_owned(),
            " # encrypted on the cardholder's device; PINs in the clear are refused",
        ));
    }
    match contents.kind_of(heading) {
        _ if heading == ROW_ID || heading == CARD => Some((heading.to_owned(), "")),
        Ok(_) => Some((heading.to_owned(), "")),
        Err(problem) => match column_called(heading) {
            // It may be an id as well: what stands below it tells.
            Some(column) if says_cardholder(heading) => Some((column.to_owned(), NAME_OR_ID)),
            Some(column) => Some((column.to_owned(), "")),
            None if is_in_no_column(heading) => None,
            None => problem.suggestion.map(|column| (column, GUESS)),
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
