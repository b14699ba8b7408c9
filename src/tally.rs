//! How many of a batch's rows have ended how.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::{Ended, Outcome};

/// Counts that many tasks add to.
#[derive(Debug, Default)]
pub struct Tally {
    issued: AtomicU64,
    recorded: AtomicU64,
    /// Without those that were cancelled.
    refused_by_others: AtomicU64,
    cancelled: AtomicU64,
    unresolved: AtomicU64,
    awaiting_pin: AtomicU64,
    retried: AtomicU64,
    noted: AtomicU64,
    refused_before: AtomicU64,
}

/// What a [`Tally`] says at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows with a card.
    pub issued: u64,
    /// Those of all ends that the ledger knew before.
    pub recorded: u64,
    /// Rows without a card.
    pub refused: u64,
    /// Those of them that somebody cancelled before they had begun.
    pub cancelled: u64,
    /// Rows whose end is not known.
    pub unresolved: u64,
    /// Rows whose cardholder is to choose the PIN.
    pub awaiting_pin: u64,
    /// Calls beyond each row's first.
    pub retried: u64,
    /// Rows with a note.
    pub noted: u64,
    /// Rows that were refused before, and not tried again.
    pub refused_before: u64,
}

impl Tally {
    /// Counts an end.
    pub fn add(&self, ended: &Ended) {
        let counter = match &ended.outcome {
            Outcome::Done(_) => &self.issued,
            Outcome::Refused(refusal) if refusal.is_cancellation() => &self.cancelled,
            Outcome::Refused(_) => &self.refused_by_others,
            Outcome::Unresolved(_) => &self.unresolved,
            Outcome::AwaitingPin(_) => &self.awaiting_pin,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.noted.fetch_add(u64::from(ended.note.is_some()), Ordering::Relaxed);
        if ended.recorded_before {
            self.recorded.fetch_add(1, Ordering::Relaxed);
            let is_refused = matches!(ended.outcome, Outcome::Refused(_));
            self.refused_before.fetch_add(u64::from(is_refused), Ordering::Relaxed);
        } else {
            self.retried.fetch_add(u64::from(ended.attempts.saturating_sub(1)), Ordering::Relaxed);
        }
    }

    /// A row that was counted as waiting for its PIN has ended.
    pub fn chosen(&self, ended: &Ended) {
        let one_less = |waiting: u64| waiting.checked_sub(1);
        // If none is counted as waiting it is another upload's row, whose count is the ledger's.
        if self.awaiting_pin.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            self.add(ended);
        }
    }

    /// Counts rows as cancelled that never became jobs.
    pub fn add_cancelled(&self, rows: u64) {
        self.cancelled.fetch_add(rows, Ordering::Relaxed);
    }

    /// What it says now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Read once: what is cancelled is among what is refused.
        let cancelled = get(&self.cancelled);
        Counts {
            issued: get(&self.issued),
            recorded: get(&self.recorded),
            refused: get(&self.refused_by_others) + cancelled,
            cancelled,
            unresolved: get(&self.unresolved),
            awaiting_pin: get(&self.awaiting_pin),
            retried: get(&self.retried),
            noted: get(&self.noted),
            refused_before: get(&self.refused_before),
        }
    }
}

impl Counts {
    /// Rows that had their card before, or waited for its PIN.
    #[must_use]
    pub fn issued_before(&self) -> u64 {
        self.recorded.saturating_sub(self.refused_before)
    }

    /// Rows that have ended, known or not.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.issued + self.refused + self.unresolved + self.awaiting_pin
    }
}
