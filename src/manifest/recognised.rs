//! What is told of a row that is known under another id.

use crate::clock::Time;
use crate::job::{Batch, JobId};
use crate::ledger::Kind;

/// A row that is known under another id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// The data row's number, from 1.
    pub row: u64,
    /// Its `row_id`, if it has one.
    pub row_id: Option<String>,
    /// The id that it is known under.
    pub id: JobId,
    /// The batch that this is of.
    pub batch: Batch,
    /// Its `row_id` there.
    pub known_row_id: Option<String>,
    /// Whether it has its card.
    pub kind: Kind,
    /// When that was written.
    pub written: Time,
}

impl Recognised {
    /// What stands beside the row's end.
    #[must_use]
    pub fn note(&self) -> String {
        let day = jiff::Timestamp::from_millisecond(self.written.unix_ms())
            .map_or_else(|_| "an unknown day".to_owned(), |day| day.strftime("%Y-%m-%d").to_string());
        let known = match &self.known_row_id {
            Some(row_id) => format!("{row_id} of batch {}", self.batch),
            None => self.id.to_string(),
        };
        let state = if self.kind == Kind::Done { "issued" } else { "begun" };
        format!("{state} before as {known}, on {day}; no second card was made")
    }
}
