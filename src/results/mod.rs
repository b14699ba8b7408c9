//! The results CSV: one line per row of the manifest, of the same form wherever it is written.
//!
//! What the ledger already knew is written too, so after a resumed run the file is complete. A file begins with a byte order
//! mark: Excel takes a CSV without one for a text of an older encoding, and spoils every name in it.

mod audit;
mod earlier;
mod file;
mod workbook;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::job::JobId;
use crate::ledger::Row;
use crate::outcome::{Ended, Outcome, Output};
use crate::shipping::Shipping;

pub use audit::{audit_head, audit_line};
pub use earlier::{Earlier, EarlierRow, read_back};
pub use file::Results;
pub use workbook::ResultsWorkbook;
pub(crate) use workbook::headings;

/// The columns, in order. Those of earlier versions ended before: see [`FORMER_COLUMNS`].
pub const COLUMNS: [&str; 22] = [
    "row",
    "row_id",
    "job_id",
    "outcome",
    "card_id",
    "last4",
    "expiry",
    "attempts",
    "error_code",
    "error_message",
    "request_id",
    "note",
    "scope",
    "cardholder_id",
    "changed",
    "pin_link",
    "person",
    "shipping_status",
    "tracking_number",
    "tracking_url",
    "eta",
    "cancelled_by",
];

/// How many of the columns the files of earlier versions have.
const FORMER_COLUMNS: [usize; 5] = [11, 13, 15, 16, 21];
/// Columns whose cells are numbers.
const NUMBERS: [&str; 2] = ["row", "attempts"];
/// What a file begins with.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// One row's line.
#[derive(Debug)]
pub struct Line<'a> {
    /// The data row's number in the manifest, from 1.
    pub row: u64,
    /// Its `row_id`, if it has one.
    pub row_id: Option<&'a str>,
    /// Its job.
    pub job_id: &'a str,
    /// What became of it.
    pub ended: &'a Ended,
    /// Whose cards: the ledger's scope. Empty where only somebody else knows: `submit` publishes to whatever worker
    /// there is.
    pub scope: &'a str,
    /// Whose it is, where the manifest says so and is at hand: the ledger does not know it.
    pub person: Option<&'a str>,
    /// Where its card is on its way, if that is known.
    pub shipping: Option<&'a Shipping>,
    /// The job that cancelled its card since, if one did.
    pub cancelled_by: Option<&'a str>,
}

impl<'a> Line<'a> {
    /// Of a row of the ledger, and its end.
    #[must_use]
    pub fn of_row(row: &'a Row, ended: &'a Ended) -> Self {
        Self {
            row: row.row.unwrap_or(0),
            row_id: row.row_id.as_deref(),
            job_id: row.id.as_str(),
            ended,
            scope: row.scope.as_str(),
            person: None,
            shipping: None,
            cancelled_by: None,
        }
    }

    /// With where its card is, of what is known of these.
    #[must_use]
    pub fn with_shipping(mut self, shipping: &'a HashMap<String, Shipping>) -> Self {
        if let Outcome::Done(output) = &self.ended.outcome {
            self.shipping = output.card().and_then(|card| shipping.get(&card.id));
        }
        self
    }

    /// With the job that cancelled its card, of those that cancelled these.
    #[must_use]
    pub fn with_cancelled(mut self, cancelled: &'a HashMap<String, JobId>) -> Self {
        if let Outcome::Done(Output::Issued(card)) = &self.ended.outcome {
            self.cancelled_by = cancelled.get(&card.id).map(JobId::as_str);
        }
        self
    }

    /// The line's cells, none of which a spreadsheet would run.
    #[must_use]
    pub fn cells(&self) -> [Cow<'_, str>; COLUMNS.len()] {
        self.texts().map(neutral)
    }

    /// The line as CSV.
    #[must_use]
    pub fn csv(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        line_into(&mut bytes, (&COLUMNS, &NUMBERS), &self.cells());
        bytes
    }

    /// The line's cells as they are.
    #[must_use]
    pub fn texts(&self) -> [Cow<'_, str>; COLUMNS.len()] {
        let (card, cardholder, refusal) = match &self.ended.outcome {
            Outcome::Done(output) => (output.card(), output.cardholder(), None),
            Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => (None, None, Some(refusal)),
            Outcome::AwaitingPin(_) => (None, None, None),
        };
        let text = |text: Option<&'a str>| Cow::from(text.unwrap_or_default());
        let link = match &self.ended.outcome {
            Outcome::AwaitingPin(Some(link)) => link.expose(),
            _ => "",
        };
        [
            self.row.to_string().into(),
            self.row_id.unwrap_or("").into(),
            self.job_id.into(),
            self.ended.outcome.word().into(),
            card.map_or("", |card| &card.id).into(),
            card.map_or("", |card| &card.last4).into(),
            card.map_or("".into(), |card| format!("{:02}/{}", card.exp_month, card.exp_year).into()),
            self.ended.attempts.to_string().into(),
            refusal.map_or("", |refusal| &*refusal.code).into(),
            refusal.map_or("", |refusal| &refusal.message).into(),
            self.ended.request_id.as_deref().unwrap_or("").into(),
            self.ended.note.as_deref().unwrap_or("").into(),
            self.scope.into(),
            cardholder.unwrap_or("").into(),
            card.map_or("".into(), |card| card.changed.join("; ").into()),
            link.into(),
            self.person.unwrap_or("").into(),
            text(self.shipping.and_then(|shipping| shipping.status.as_deref())),
            text(self.shipping.and_then(|shipping| shipping.tracking_number.as_deref())),
            text(self.shipping.and_then(|shipping| shipping.tracking_url.as_deref())),
            self.shipping.and_then(Shipping::eta_in_utc).unwrap_or_default().into(),
            text(self.cancelled_by),
        ]
    }
}

/// Whether cards of this scope are real.
fn is_live(scope: &str) -> bool {
    scope.split(':').next() == Some("live")
}

/// Whether a spreadsheet would run the text (owasp.org, CSV injection), but for apostrophes before it.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// A cell that begins like a formula gets an apostrophe.
fn neutral(text: Cow<'_, str>) -> Cow<'_, str> {
    if is_formula(&text) { format!("'{text}").into() } else { text }
}

/// The text that was made a neutral cell.
fn as_it_was(cell: &str) -> &str {
    if is_formula(cell) { cell.strip_prefix('\'').unwrap_or(cell) } else { cell }
}

/// What results begin with as CSV: the mark that tells Excel how they are written, and the columns' names.
#[must_use]
pub fn head() -> Vec<u8> {
    [BYTE_ORDER_MARK.as_bytes(), &heading(&COLUMNS)].concat()
}

/// The columns' names, as one line.
fn heading(columns: &[&str]) -> Vec<u8> {
    (columns.join(",") + "\n").into_bytes()
}

/// Adds a line's cells, in columns of which some hold numbers.
///
/// A text that looks like a number is quoted: nothing else in a CSV tells LibreOffice that `0042` is none ("Quoted field as
/// text"), and other programs see no difference.
fn line_into(bytes: &mut Vec<u8>, (columns, numbers): (&[&str], &[&str]), cells: &[Cow<'_, str>]) {
    for (at, (column, cell)) in columns.iter().zip(cells).enumerate() {
        if at > 0 {
            bytes.push(b',');
        }
        let like_a_number = cell.starts_with(|first: char| first.is_ascii_digit() || first == '.');
        if cell.contains([',', '"', '\r', '\n']) || (like_a_number && !numbers.contains(column)) {
            bytes.push(b'"');
            bytes.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            bytes.push(b'"');
        } else {
            bytes.extend_from_slice(cell.as_bytes());
        }
    }
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_is_read_back_as_it_was() {
        for text in ["", "r1", "=1+1", "'=1+1", "''@x", "-", "it's", "'quoted'", "\t", "+353 1"] {
            let cell = neutral(text.into());
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
            assert_eq!(as_it_was(&cell), text);
        }
    }

    #[test]
    fn the_csv_crate_reads_each_cell_as_it_was_written() {
        let texts =
            ["", "0042", "1E5", "3-4", ".5", "a,b", "a \"b\"", "\"", "two\nlines", "cr\rlf\r\n", "Zoë"];
        for text in texts {
            let mut cells = COLUMNS.map(|_| Cow::from(text));
            cells[0] = "7".into();
            let mut bytes = head();
            line_into(&mut bytes, (&COLUMNS, &NUMBERS), &cells);
            let mut reader = csv::Reader::from_reader(bytes.as_slice());
            assert_eq!(reader.headers().unwrap(), &COLUMNS[..]);
            let read = reader.records().next().unwrap().unwrap();
            assert!(read.iter().eq(cells.iter()), "{text:?}: {read:?}");
        }
        let mut bytes = Vec::new();
        line_into(
            &mut bytes,
            (&COLUMNS, &NUMBERS),
            &COLUMNS.map(|column| if NUMBERS.contains(&column) { "3" } else { "0012" }.into()),
        );
        assert_eq!(
            String::from_utf8(bytes).unwrap().matches("\"0012\"").count(),
            COLUMNS.len() - NUMBERS.len()
        );
    }
}
