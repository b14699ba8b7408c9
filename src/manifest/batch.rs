//! A manifest's rows as the jobs of one batch.

use crate::job::{Batch, Job, JobId, NameError, Place};
use crate::ledger::{BatchRow, Ledger, LedgerError, Scope};

use super::{CheckReport, Row};

/// Why a batch cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Its rows were issued under another name: they would be new jobs.
    #[error(
        "these rows were issued before as batch {other:?}; as batch {batch:?} they would all get second cards"
    )]
    IssuedAs {
        /// The name it was to have.
        batch: String,
        /// The name it had.
        other: String,
    },
    /// The ledger does not serve.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Whether the same rows may be issued under another name, for second cards.
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

/// Records the batch in the ledger, after a look for the same rows under another name.
///
/// # Errors
/// If there are such rows, or the ledger cannot be written.
pub async fn note(ledger: &Ledger, row: BatchRow, second: SecondCards) -> Result<(), BatchError> {
    if let (Some(digest), SecondCards::Refused) = (&row.digest, second) {
        let scope: &Scope = &row.scope;
        let same = ledger.batches_with_digest(scope, digest).await?;
        // The batch that has the name already is the same batch, whatever else had these rows.
        if !same.iter().any(|name| name == row.batch.as_str())
            && let Some(other) = same.into_iter().next()
        {
            return Err(BatchError::IssuedAs { batch: row.batch.to_string(), other });
        }
    }
    Ok(ledger.write_batch(row).await?)
}

/// The job of a row.
///
/// # Errors
/// If batch and `row_id` together make no job id.
pub fn job_of(row: Row, batch: &Batch) -> Result<Job, NameError> {
    let id = JobId::of_row(batch, row.row_id.as_deref(), row.number)?;
    let place = Place { row: row.number, row_id: row.row_id };
    Ok(Job::new(id, batch.clone(), Some(place), row.card, row.pin))
}
