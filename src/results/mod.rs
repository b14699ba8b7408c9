//! The results CSV: one line per row of the manifest, of the same form wherever it is written.
//!
//! What the ledger already knew is written too, so after a resumed run the file is complete.

mod audit;
mod earlier;
mod file;
mod workbook;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;

use crate::ledger::Row;
use crate::outcome::{Ended, Outcome};
use crate::shipping::Shipping;

pub use audit::{AUDIT_COLUMNS, audit_cells};
pub use earlier::{Earlier, EarlierRow, read_back};
pub use file::Results;
pub use workbook::ResultsWorkbook;
pub(crate) use workbook::headings;

/// The columns, in order. Those of earlier versions ended before: see [`FORMER_COLUMNS`].
pub const COLUMNS: [&str; 20] = [
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
    "shipping_status",
    "tracking_number",
    "tracking_url",
    "eta",
];

/// Which of the columns holds links.
const PIN_LINK: usize = 15;

/// How many of the columns the files of earlier versions have.
const FORMER_COLUMNS: [usize; 4] = [11, 13, 15, 16];

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
    /// Where its card is on its way, if that is known.
    pub shipping: Option<&'a Shipping>,
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
            shipping: None,
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

    /// The line's cells, none of which a spreadsheet would run.
    #[must_use]
    pub fn cells(&self) -> [Cow<'_, str>; COLUMNS.len()] {
        self.texts().map(neutral)
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
            text(self.shipping.and_then(|shipping| shipping.status.as_deref())),
            text(self.shipping.and_then(|shipping| shipping.tracking_number.as_deref())),
            text(self.shipping.and_then(|shipping| shipping.tracking_url.as_deref())),
            self.shipping.and_then(Shipping::eta_in_utc).unwrap_or_default().into(),
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

/// One CSV line.
///
/// # Errors
/// Never in practice: writing to memory.
pub fn record(cells: &[impl AsRef<str>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    record_into(&mut bytes, cells)?;
    Ok(bytes)
}

fn record_into(bytes: &mut Vec<u8>, cells: &[impl AsRef<str>]) -> io::Result<()> {
    /// Longer than most lines; the writer's own buffer is made anew for each.
    const LINE_BYTES: usize = 256;
    let mut writer = csv::WriterBuilder::new().buffer_capacity(LINE_BYTES).from_writer(bytes);
    writer.write_record(cells.iter().map(AsRef::as_ref)).map_err(io::Error::other)?;
    writer.flush()
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
}
