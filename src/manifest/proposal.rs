//! A columns file for a manifest, as its headings suggest it: to be looked through by a person.

use std::fmt::Write as _;
use std::path::Path;

use super::contents::{CARD, Contents};
use super::headings::column_called;
use super::snapshot::Snapshot;
use super::stream::records_of;
use super::text::ReadAs;
use super::{ManifestError, Problem, ROW_ID, Reading, header};

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
/// If the file cannot be read, has no headings, or one of PINs in the clear.
pub fn propose(path: &Path, reading: &Reading) -> Result<String, ManifestError> {
    let snapshot = Snapshot::of(path, reading)?;
    let source = snapshot.reader().map_err(|source| ManifestError::Read { path: path.into(), source })?;
    let (mut records, _) = records_of(path, source, &reading.of_text(&snapshot), ReadAs::default())?;
    let (headings, line) = header::headings(&mut records, path)?;
    let headings: Vec<&str> =
        headings.iter().map(String::as_str).filter(|heading| !heading.is_empty()).collect();
    let called: Vec<&str> =
        headings.iter().map(|heading| column_called(heading).unwrap_or(heading)).collect();
    let contents = Contents::of_names(&called);
    if let Some(heading) = headings.iter().find(|heading| contents.is_of_clear_pins(heading)) {
        let reason = "would hold PINs in the clear, which are refused anywhere; delete the column";
        let problems = vec![Problem::new(line, 0, *heading, "pin_in_clear", reason)];
        return Err(ManifestError::Header { path: path.into(), problems });
    }
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().replace(char::is_control, " "))
        .unwrap_or_default();
    let mut text = format!(
        "# Which heading of {name} is which column. Look through each line; an empty text leaves a column out.\n[columns]\n"
    );
    let mut given: Vec<String> = Vec::new();
    for heading in headings {
        let (column, note) = match column_of(contents, heading) {
            Some(column) if !given.contains(&column) => (column, String::new()),
            Some(column) => (String::new(), format!(" # left out: another heading is {column}")),
            None => (
                String::new(),
                format!(" # left out; \"metadata[{}]\" keeps it with the card", key_of(heading)),
            ),
        };
        let quoted = |text: &str| toml::Value::from(text).to_string();
        // A string takes whatever is written to it.
        let _ = writeln!(text, "{} = {}{note}", quoted(heading), quoted(&column));
        given.push(column);
    }
    text.push_str(REST);
    Ok(text)
}

/// The column that a heading is or may be.
fn column_of(contents: Contents, heading: &str) -> Option<String> {
    if heading == ROW_ID || heading == CARD {
        return Some(heading.to_owned());
    }
    match contents.kind_of(heading) {
        Ok(_) => Some(heading.to_owned()),
        Err(problem) => header::own_column_like(heading).map(str::to_owned).or(problem.suggestion),
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
