//! A manifest's rows as the jobs of one batch.

use std::collections::HashMap;
use std::sync::Arc;

use super::recognise::Recognition;
use super::{CheckReport, Row};
use crate::job::{Batch, Content, Job, JobId, NameError, Place};
use crate::remedy::TryAgain;

/// Whether rows that are known under other ids may be issued again, for second cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondCards {
    /// No: it is taken for a mistake.
    Refused,
    /// They are wanted.
    Wanted,
}

/// The digest of the rows of a report, PINs left out, as the ledger holds it.
#[must_use]
pub fn digest_of(report: &CheckReport) -> Option<String> {
    report.digest.map(|digest| crate::job::Fingerprint(digest).to_hex())
}

/// What a whole manifest that was issued under another name is refused with.
#[must_use]
pub fn issued_as(batch: &Batch, other: &Batch) -> String {
    let (batch, other) = (batch.as_str(), other.as_str());
    format!(
        "these rows were issued before as batch {other:?}; as batch {batch:?} they would all get second cards"
    )
}

/// What the rows of a batch are called, each in its turn.
///
/// A row with a `row_id` is called by that. One without is called by what it asks for, and by how many rows before it ask for
/// the same: so a row that is put in at the top, or left out, changes no other row's name.
#[derive(Debug)]
pub struct RowNames {
    batch: Batch,
    seen: HashMap<Content, u32>,
}

impl RowNames {
    /// For a batch's rows from the first.
    #[must_use]
    pub fn new(batch: Batch) -> Self {
        Self { batch, seen: HashMap::new() }
    }

    /// The id of the next row; what it asks for is only looked at where it has no `row_id`.
    ///
    /// # Errors
    /// If batch and `row_id` together make no job id.
    pub fn id_of(&mut self, row: &Row, content: impl FnOnce() -> Content) -> Result<JobId, NameError> {
        /// Digits of the content: two rows of a batch that share them by chance would be one job, which is one in 2^32
        /// for a batch of a hundred thousand rows.
        const DIGITS: usize = 16;
        if let Some(row_id) = &row.row_id {
            return JobId::of_row(&self.batch, row_id);
        }
        let content = content();
        let count = self.seen.entry(content).or_default();
        *count += 1;
        let name = &content.to_hex()[..DIGITS];
        match *count {
            1 => JobId::of_row(&self.batch, &format!("#{name}")),
            count => JobId::of_row(&self.batch, &format!("#{name}-{count}")),
        }
    }
}

/// Makes the jobs of a batch of its rows, in their order.
#[derive(Debug)]
pub struct Jobs {
    batch: Batch,
    names: RowNames,
    recognition: Arc<Recognition>,
}

impl Jobs {
    /// For a batch's rows from the first; those that are known under other ids get these.
    #[must_use]
    pub fn new(batch: Batch, recognition: Arc<Recognition>) -> Self {
        Self { names: RowNames::new(batch.clone()), batch, recognition }
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Which of its rows that were refused before are tried again.
    #[must_use]
    pub fn again(&self) -> TryAgain {
        self.recognition.again()
    }

    /// The id of the next row's job.
    ///
    /// # Errors
    /// If batch and `row_id` together make no job id.
    pub fn id_of(&mut self, row: &Row) -> Result<JobId, NameError> {
        // Named even if it is known under another id: the names of rows after it do not depend on that.
        let own = self.names.id_of(row, || row.content())?;
        Ok(self.recognition.of_row(row.number).map_or(own, |recognised| recognised.id.clone()))
    }

    /// The job of the next row.
    ///
    /// # Errors
    /// If batch and `row_id` together make no job id.
    pub fn job_of(&mut self, row: Row) -> Result<Job, NameError> {
        let id = self.id_of(&row)?;
        let recognised = self.recognition.of_row(row.number);
        let place = Place { row: row.number, row_id: row.row_id };
        let mut job = Job::new(id, self.batch.clone(), Some(place), row.request, row.pin);
        if let Some(first) = row.first {
            job = job.after(first.reusing());
        }
        job.note = recognised.map(super::recognised::Recognised::note);
        Ok(job)
    }
}
