//! Records whose cells cannot be told apart, or stand in wrong columns.

use super::Manifest;
use super::blocks::{Flaw, RECORD_BYTES_MAX};
use super::records::{Record, trimmed};

impl Manifest {
    /// Whether a record has a cell for each column, and no more. Spreadsheets write blank cells beyond the last heading.
    pub(super) fn has_its_cells(&self, record: &Record<'_>) -> bool {
        let is_blank = |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|text| trimmed(text).is_empty());
        record.len() >= self.columns.len() && record.iter().skip(self.columns.len()).all(is_blank)
    }

    /// What keeps a record's cells from being told apart, so that nothing more can be said of them.
    pub(super) fn misshapen(&self, record: &Record<'_>) -> Option<(&'static str, String)> {
        let columns = self.filling.as_ref().map_or(self.columns.len(), |filling| filling.own);
        let cells = match record.flaw {
            Some(Flaw::QuoteOpen) => {
                let reason =
                    "a quote that is opened in this row is never closed; the rest of the file is inside it";
                return Some(("quote_open", reason.into()));
            }
            Some(Flaw::TooLong) => {
                let reason =
                    format!("the row has more than {RECORD_BYTES_MAX} bytes; is a quote in it never closed?");
                return Some(("row_too_long", reason));
            }
            Some(Flaw::RowsInQuotes { lines }) => {
                let last = record.line + lines;
                let reason = format!(
                    "a quote that opens in this row is closed on line {last} only, so that the rows up to there would be one cell: they \
                     would get nothing. Take out the quote that is one too many (an inch sign, perhaps); one that belongs into a cell is \
                     written twice, and the cell between quotes"
                );
                return Some(("quote_astray", reason));
            }
            Some(Flaw::TextAfterQuote { lines }) => {
                let up_to = match lines {
                    0 => String::new(),
                    lines => format!(", and all up to line {} would be one row", record.line + lines),
                };
                let reason = format!(
                    "text stands after a quote that closes a cell{up_to}. Take out the quotes that belong to no cell; one that belongs \
                     into a cell is written twice, and the cell between quotes: \"Ada \"\"Countess\"\" Lovelace\""
                );
                return Some(("quote_astray", reason));
            }
            Some(Flaw::CellCount(cells)) => cells,
            None => record.len(),
        };
        if record.flaw.is_some() || !self.has_its_cells(record) {
            let why = match (cells > columns, self.delimiter) {
                (false, _) => "; is the row cut off?",
                (true, b';') => "; a cell with a semicolon in it needs quotes, and a column a heading",
                (true, b'\t') => "; a cell with a tab in it needs quotes, and a column a heading",
                (true, b'|') => "; a cell with a vertical bar in it needs quotes, and a column a heading",
                (true, _) => "; a cell with a comma in it needs quotes, and a column a heading",
            };
            return Some(("cell_count", format!("the row has {cells} cells and the header {columns}{why}")));
        }
        None
    }
}
