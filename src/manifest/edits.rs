//! Cells that were mended after the file was made, on the page for instance.
//!
//! An edit names the line that a row begins on and the place of a cell in it. The record that comes out is as if the file had
//! been written so: it is edited before anything else reads it. Its memory, which may hold a JWE, is wiped on drop.

use std::collections::BTreeMap;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::CELL_BYTES_MAX;
use super::records::Record;

/// Most cells that can be mended of one file: who has more mends the file.
const EDITS_MAX: usize = 5000;
/// Columns of a file are fewer.
const COLUMN_MAX: usize = 10_000;

/// Mended cells of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits(BTreeMap<u64, BTreeMap<usize, String>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    /// The line, from 1.
    line: u64,
    /// The column's place, from 1.
    column: usize,
    value: String,
}

impl Edits {
    /// Reads a JSON list of `{"line": 7, "column": 2, "value": "02138"}`, both counted from 1. Of two edits of one cell the
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
        let mut by_line: BTreeMap<u64, BTreeMap<usize, String>> = BTreeMap::new();
        for Edit { line, column, value } in edits {
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
        Ok(Self(by_line))
    }

    /// How many cells are edited.
    #[must_use]
    pub fn cells(&self) -> u64 {
        self.0.values().map(|cells| cells.len() as u64).sum()
    }

    /// How many rows are edited.
    pub(super) fn rows(&self) -> usize {
        self.0.len()
    }
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
    /// The record with its edits, if there are any for its line.
    pub(super) fn edit<'e>(&'e mut self, edits: &Edits, record: Record<'e>) -> Record<'e> {
        let Some(cells) = edits.0.get(&record.line).filter(|_| record.flaw.is_none()) else { return record };
        self.rows += 1;
        let more: usize = cells.values().map(String::len).sum();
        let room = record.iter().map(<[u8]>::len).sum::<usize>() + more;
        if self.cells.capacity() < room {
            self.cells = Zeroizing::new(Vec::with_capacity(room.next_power_of_two()));
        }
        self.cells.clear();
        self.ends.clear();
        let last = cells.keys().next_back().map_or(0, |last| last + 1);
        let own = record.iter().map(Some).chain(std::iter::repeat(None));
        for (at, cell) in own.enumerate().take(record.len().max(last)) {
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
