//! Cells that were mended after the file was made, on the page for instance.
//!
//! An edit names the line that a row begins on and the place of a cell in it, or the heading of a column that stands behind those of
//! the file. The record that comes out is as if the file had been written so: it is edited before anything else reads it. Its
//! memory, which may hold a JWE, is wiped on drop.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::CELL_BYTES_MAX;
use super::blocks::Flaw;
use super::records::{Record, trimmed};
use crate::operation::pin_words::speaks_of_pin;

/// Most cells that can be mended of one file: who has more mends the file.
const EDITS_MAX: usize = 5000;
/// Columns of a file are fewer.
const COLUMN_MAX: usize = 10_000;
/// Most columns that are added: an address and a parcel have fewer parts.
const ADDED_MAX: usize = 50;
/// Longest heading of one, in bytes: that of a parameter, with room.
const HEADING_BYTES_MAX: usize = 200;

/// Mended cells of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    cells: BTreeMap<u64, BTreeMap<usize, Zeroizing<String>>>,
    /// The headings of columns that the file has not, by their places: one after the other, behind the file's own.
    added: BTreeMap<usize, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    /// The line, from 1; none for a heading.
    line: Option<u64>,
    /// The column's place, from 1.
    column: usize,
    #[serde(default, deserialize_with = "wiped")]
    value: Option<Zeroizing<String>>,
    /// What a column is called that is added there.
    heading: Option<String>,
}

/// A text that is wiped on drop.
fn wiped<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    String::deserialize(from).map(|text| Some(Zeroizing::new(text)))
}

impl Edits {
    /// Reads a JSON list of `{"line": 7, "column": 2, "value": "02138"}`, both counted from 1, and of
    /// `{"column": 9, "heading": "shipping[name]"}` for columns that are added behind the file's own. Of two edits of one cell the
    /// later counts.
    ///
    /// # Errors
    /// A sentence that says what is wrong, without what stands there.
    pub fn parse(json: &str) -> Result<Self, String> {
        let edits: Vec<Edit> = serde_json::from_str(json).map_err(|error| {
            format!(
                "edits are a JSON list of {{\"line\": 7, \"column\": 2, \"value\": \"…\"}}; this is none at its line {}, \
                 column {}",
                error.line(),
                error.column()
            )
        })?;
        if edits.len() > EDITS_MAX {
            return Err(format!("at most {EDITS_MAX} cells can be mended here; mend the file itself"));
        }
        let (mut by_line, mut added) = (BTreeMap::<u64, BTreeMap<_, _>>::new(), BTreeMap::new());
        for Edit { line, column, value, heading } in edits {
            let (line, value) = match (line, value, heading) {
                (Some(line), Some(value), None) => (line, value),
                (None, None, Some(heading)) => {
                    add(&mut added, column, heading)?;
                    continue;
                }
                _ => {
                    return Err(
                        "an edit has a line, a column and a value; or a column and its heading".into()
                    );
                }
            };
            if line == 0 || !(1..=COLUMN_MAX).contains(&column) {
                return Err(format!(
                    "an edit's line and column are counted from 1, and there are at most {COLUMN_MAX} columns"
                ));
            }
            if value.len() > CELL_BYTES_MAX {
                return Err(format!(
                    "the edit of line {line}, column {column} has more than {CELL_BYTES_MAX} bytes"
                ));
            }
            by_line.entry(line).or_default().insert(column - 1, value);
        }
        Ok(Self { cells: by_line, added })
    }

    /// Puts the headings of columns that were added behind the file's own.
    ///
    /// # Errors
    /// If they were added to a file with other columns.
    pub(super) fn add_to(&self, headings: &mut Vec<String>) -> Result<(), String> {
        let Some(first) = self.added.keys().next() else { return Ok(()) };
        // Columns without a heading at the end are none: many programs write such ones.
        let own = headings.iter().rposition(|heading| !heading.is_empty()).map_or(0, |last| last + 1);
        if *first != own || !self.added.keys().copied().eq(own..own + self.added.len()) {
            return Err("columns were added behind others than this file has; is it another file?".into());
        }
        headings.truncate(own);
        headings.extend(self.added.values().cloned());
        Ok(())
    }

    /// How many cells are edited.
    #[must_use]
    pub fn cells(&self) -> u64 {
        self.cells.values().map(|cells| cells.len() as u64).sum()
    }

    /// Bytes of memory that they take, with the room of their places.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// What a place takes beside its text.
        const PLACE_BYTES: usize = 64;
        let cells = self.cells.values().flat_map(BTreeMap::values).map(|value| value.len());
        cells.chain(self.added.values().map(String::len)).map(|bytes| bytes + PLACE_BYTES).sum()
    }

    /// How many columns are added behind the file's own.
    pub(super) fn columns_added(&self) -> usize {
        self.added.len()
    }

    /// How many rows are edited.
    pub(super) fn rows(&self) -> usize {
        self.cells.len()
    }

    /// How many cells of a record are the file's own, where columns were added behind them; none where there are not, or the
    /// record has not a cell for each.
    fn own_cells(&self, record: &Record<'_>) -> Option<usize> {
        let own = *self.added.keys().next()?;
        (record.len() >= own && !record.is_blank()).then_some(own)
    }

    /// Whether something stands in a record where columns were added. It belongs to none of the file's own and may be anything, a PIN in
    /// the clear too: it must not be sent to Stripe under an added heading.
    fn are_over_cells(&self, record: &Record<'_>) -> bool {
        let is_blank = |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|text| trimmed(text).is_empty());
        self.added.keys().next().is_some_and(|own| !record.iter().skip(*own).all(is_blank))
    }
}

/// Takes the heading of a column that is added.
fn add(added: &mut BTreeMap<usize, String>, column: usize, heading: String) -> Result<(), String> {
    if !(1..=COLUMN_MAX).contains(&column) || added.len() == ADDED_MAX {
        return Err(format!("at most {ADDED_MAX} columns can be added here, each at its place from 1"));
    }
    let heading = trimmed(&heading);
    if heading.is_empty() || heading.len() > HEADING_BYTES_MAX || heading.chars().any(char::is_control) {
        return Err(format!("the heading of a column that is added has 1 to {HEADING_BYTES_MAX} bytes"));
    }
    // What is typed into a page is not encrypted.
    if speaks_of_pin(heading) {
        return Err("a column of PINs cannot be added here: they come encrypted, in the file".into());
    }
    added.insert(column - 1, heading.to_owned());
    Ok(())
}

/// A record's cells, edited; the memory is used again.
#[derive(Default)]
pub(super) struct Edited {
    cells: Zeroizing<Vec<u8>>,
    ends: Vec<usize>,
    /// Rows that were edited so far.
    pub(super) rows: usize,
}

impl Edited {
    /// The record with its edits, if there are any for its line. One that has cells where columns were added is flawed, as it would be
    /// without these: it has more cells than the file has columns.
    pub(super) fn edit<'e>(&'e mut self, edits: &Edits, record: Record<'e>) -> Record<'e> {
        if edits.are_over_cells(&record) {
            self.rows += usize::from(edits.cells.contains_key(&record.line));
            // Compared with the headings, among which the added ones are.
            return Record::flawed(record.line, Flaw::CellCount(record.len() + edits.added.len()));
        }
        let none = BTreeMap::new();
        let cells = edits.cells.get(&record.line).filter(|_| record.flaw.is_none());
        let own_cells = edits.own_cells(&record).filter(|_| record.flaw.is_none());
        let (cells, len) = match (cells, own_cells) {
            (None, None) => return record,
            (cells, Some(own)) => (cells.unwrap_or(&none), own + edits.added.len()),
            (Some(cells), None) => {
                let last = cells.keys().next_back().map_or(0, |last| last + 1);
                (cells, record.len().max(last))
            }
        };
        self.rows += usize::from(!cells.is_empty());
        let more: usize = cells.values().map(|value| value.len()).sum();
        let room = record.iter().map(<[u8]>::len).sum::<usize>() + more;
        if self.cells.capacity() < room {
            self.cells = Zeroizing::new(Vec::with_capacity(room.next_power_of_two()));
        }
        self.cells.clear();
        self.ends.clear();
        let own = record.iter().map(Some).chain(std::iter::repeat(None));
        for (at, cell) in own.enumerate().take(len) {
            let edited = cells.get(&at).map(|value| value.as_bytes());
            self.cells.extend_from_slice(edited.or(cell).unwrap_or_default());
            self.ends.push(self.cells.len());
        }
        Record::new(record.line, &self.cells, &self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_if_it_had_been_written_so() {
        let edits =
            Edits::parse(r#"[{"line":2,"column":1,"value":"x"},{"line":2,"column":4,"value":"é"},{"line":2,"column":1,"value":"y"}]"#)
                .unwrap();
        let mut edited = Edited::default();
        let cells = |record: Record<'_>| {
            record.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(cells(edited.edit(&edits, Record::new(2, b"abc", &[1, 3]))), ["y", "bc", "", "é"]);
        assert_eq!(cells(edited.edit(&edits, Record::new(3, b"abc", &[1, 3]))), ["a", "bc"]);
        assert_eq!((edited.rows, edits.rows()), (1, 1));
    }

    #[test]
    fn columns_that_are_added_stand_behind_the_files_own() {
        let edits = Edits::parse(
            r#"[{"column":3,"heading":"shipping[name]"},{"column":4,"heading":"city"},{"line":2,"column":4,"value":"Ulm"}]"#,
        )
        .unwrap();
        let mut headings = vec!["a".to_owned(), "b".to_owned(), String::new()];
        edits.add_to(&mut headings).unwrap();
        assert_eq!(headings, ["a", "b", "shipping[name]", "city"]);
        assert!(edits.add_to(&mut vec!["a".to_owned()]).unwrap_err().contains("another file"));
        let mut edited = Edited::default();
        let mut cells = |record: Record<'_>| {
            edited
                .edit(&edits, record)
                .iter()
                .map(|cell| String::from_utf8_lossy(cell).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(cells(Record::new(2, b"xy", &[1, 2])), ["x", "y", "", "Ulm"]);
        // A cell that a program wrote for a column without a heading gives way.
        assert_eq!(cells(Record::new(3, b"xy", &[1, 2, 2])), ["x", "y", "", ""]);
        assert_eq!(cells(Record::new(5, b"x", &[1])), ["x"]);
        let pins = Edits::parse(r#"[{"column":3,"heading":"PIN"}]"#).unwrap_err();
        assert!(pins.contains("encrypted"), "{pins}");
        let gap = Edits::parse(r#"[{"column":3,"heading":"c"},{"column":5,"heading":"d"}]"#).unwrap();
        assert!(gap.add_to(&mut vec!["a".to_owned(), "b".to_owned()]).is_err());
    }

    /// Whatever an unheaded cell holds, it is not sent to Stripe under the heading of a column that was added.
    #[test]
    fn a_cell_without_a_heading_does_not_get_that_of_an_added_column() {
        let edits = Edits::parse(
            r#"[{"column":3,"heading":"shipping[name]"},{"line":2,"column":3,"value":"Ulm"},{"line":3,"column":3,"value":"Bonn"}]"#,
        )
        .unwrap();
        let mut edited = Edited::default();
        // With a heading that is empty, or none at all.
        for headings in [vec!["a", "b", ""], vec!["a", "b"]] {
            let mut headings: Vec<String> = headings.into_iter().map(str::to_owned).collect();
            edits.add_to(&mut headings).unwrap();
            assert_eq!(headings, ["a", "b", "shipping[name]"]);
        }
        for line in [2, 4] {
            for ends in [[1, 2, 6].as_slice(), &[1, 2, 2, 6]] {
                let record = edited.edit(&edits, Record::new(line, b"xy4821", ends));
                assert_eq!(
                    record.flaw,
                    Some(Flaw::CellCount(ends.len() + 1)),
                    "more than the three headings"
                );
                assert_eq!((record.line, record.len()), (line, 0));
            }
        }
        let whole = edited.edit(&edits, Record::new(3, b"xy ", &[1, 2, 3]));
        assert_eq!(whole.iter().last(), Some(b"Bonn".as_slice()));
        // Lines that were met: two of the first, and this.
        assert_eq!(edited.rows, 3);
    }

    #[test]
    fn what_is_no_edit_is_told_without_what_stands_there() {
        for (text, said) in [
            ("", "a JSON list"),
            (r#"[{"line":0,"column":1,"value":""}]"#, "counted from 1"),
            (r#"[{"line":1,"column":0,"value":""}]"#, "counted from 1"),
            (r#"[{"line":1,"column":1,"value":4821}]"#, "a JSON list"),
            (r#"[{"line":1,"column":1,"value":"","more":1}]"#, "a JSON list"),
        ] {
            let error = Edits::parse(text).unwrap_err();
            assert!(error.contains(said) && !error.contains("4821"), "{text}: {error}");
        }
    }
}
