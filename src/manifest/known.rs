//! What the ledger has of a batch before a manifest of it begins.

use super::recognise::Recognition;
use crate::clock::Time;
use crate::job::JobId;
use crate::ledger::{Kind, Row, State};
use crate::webhooks::Begins;

/// Changed rows that are named.
const NAMED_MAX: usize = 20;

/// Rows that the ledger has, by what it says of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// With a card.
    pub issued: u64,
    /// Without one.
    pub refused: u64,
    /// Those of them that somebody cancelled before they had begun.
    pub cancelled: u64,
    /// Begun, and their end is not known.
    pub begun: u64,
    /// Waiting for their cardholder's PIN.
    pub awaiting_pin: u64,
    /// Those of all that have a note.
    pub noted: u64,
}

impl Known {
    /// All of them.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.issued + self.refused + self.begun + self.awaiting_pin
    }

    pub(super) fn add(&mut self, row: &Row) {
        self.noted += u64::from(row.note.is_some());
        self.cancelled +=
            u64::from(matches!(&row.state, State::Refused(refusal) if refusal.is_cancellation()));
        match row.state.kind() {
            Kind::Done => self.issued += 1,
            Kind::Refused => self.refused += 1,
            Kind::Begun => self.begun += 1,
            Kind::AwaitingPin => self.awaiting_pin += 1,
        }
    }
}

/// Rows that have their card, or whose call is begun, and that ask for something else now: that is not applied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// How many.
    pub rows: u64,
    /// The first of them, by their `row_id`s, or by their jobs' ids where they have none.
    pub first: Vec<String>,
}

impl Changed {
    pub(super) fn add(&mut self, row_id: Option<&str>, id: &JobId) {
        self.rows += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(row_id.unwrap_or(id.as_str()).to_owned());
        }
    }
}

/// What the ledger has of a manifest's batch, beside the manifest's own rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// The batch's rows that the manifest has not.
    pub rows: Known,
    /// When the batch's latest row was written, whether the manifest has it or not.
    pub latest: Option<Time>,
}

impl Others {
    /// What a run that is told begins with: so many rows are the manifest's, of which some stay refused.
    #[must_use]
    pub fn begins(&self, recognition: &Recognition) -> Begins {
        Begins {
            rows: self.rows.rows() + recognition.rows_of_batch(),
            others_refused: self.rows.refused + recognition.rows_that_stay_refused(),
            latest_ms: self.latest.map(Time::unix_ms),
        }
    }
}
