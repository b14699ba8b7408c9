//! Which line has the headings, where something stands above them: a title, or a row that names groups of columns.
//!
//! A row is looked past only if it names no column, or one, and one soon after it names several: then which is which is beyond
//! doubt, and what was done is told.

use std::io::Read;
use std::path::Path;

use crate::operation::pin_words::speaks_of_pin;

use super::ManifestError;
use super::ROW_ID;
use super::Reading;
use super::columns::ColumnMap;
use super::contents::{CARD, Contents};
use super::header::{self, cells_of};
use super::headings::column_called;
use super::records::{Records, trimmed};

/// Most rows above the headings that are looked past.
const ABOVE_MAX: u64 = 5;

/// The headings.
pub(super) struct Headings {
    pub(super) cells: Vec<String>,
    pub(super) line: u64,
    /// Rows above them with something in them.
    pub(super) above: u64,
}

/// Reads up to the headings; where the first row has them, no further. Behind them stand those of columns that were added since.
///
/// # Errors
/// If there is no row that can be read, or columns were added to another file.
pub(super) fn find<R: Read>(
    records: &mut Records<R>,
    path: &Path,
    reading: &Reading,
) -> Result<Headings, ManifestError> {
    let mut headings = find_own(records, path, reading.columns.as_deref())?;
    if let Some(edits) = &reading.edits {
        let added = edits.add_to(&mut headings.cells);
        added.map_err(|reason| ManifestError::Shape { path: path.into(), reason })?;
    }
    Ok(headings)
}

/// The headings that the file has itself.
fn find_own<R: Read>(
    records: &mut Records<R>,
    path: &Path,
    map: Option<&ColumnMap>,
) -> Result<Headings, ManifestError> {
    let (cells, line) = header::headings(records, path)?;
    let first = Headings { cells, line, above: 0 };
    let wanted = match known(&first.cells, map) {
        0 => 2,
        1 => 3,
        _ => return Ok(first),
    };
    let says_pin = |cells: &[String]| cells.iter().any(|cell| speaks_of_pin(cell));
    // A word for PINs above a heading is part of what it says: such a row is never looked past.
    if says_pin(&first.cells) {
        return Ok(first);
    }
    let place = records.place();
    let mut above = 1;
    while above <= ABOVE_MAX {
        // What cannot be read is told with the rows; and what is not in the same block is too far away.
        let Some(record) = records.look_on() else { break };
        if record.is_blank() {
            continue;
        }
        let Some(cells) = cells_of(&record) else { break };
        if known(&cells, map) >= wanted {
            return Ok(Headings { cells, line: record.line, above });
        }
        if says_pin(&cells) {
            break;
        }
        above += 1;
    }
    // They are rows.
    records.go_back(place);
    Ok(first)
}

/// Whether cells plainly are the headings of a table.
pub(super) fn are_headings(cells: &[String], map: Option<&ColumnMap>) -> bool {
    let cells: Vec<String> = cells.iter().map(|cell| trimmed(cell).to_owned()).collect();
    known(&cells, map) > 1
}

/// How many of the cells name columns, as Stripe, a columns file or people call them.
fn known(cells: &[String], map: Option<&ColumnMap>) -> usize {
    let names: Vec<&str> = cells.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
    let contents = Contents::of_names(&names);
    let is_known = |name: &&&str| {
        matches!(**name, ROW_ID | CARD)
            || map.is_some_and(|map| map.column_of(name).is_some())
            || column_called(name).is_some()
            // Whatever is wrong with such a heading is to be told.
            || speaks_of_pin(name)
            || contents.kind_of(name).is_ok()
    };
    names.iter().filter(is_known).count()
}
