//! What is written into the audit log: each thing that somebody did over HTTP which changes something or shows a secret.
//!
//! Guarantees: what moves money (a batch that begins, an approval, a cancel) is written before it takes effect, so that
//! nothing happens without its entry. An entry alone may stand for something that a crash kept from happening. Never: a
//! PIN, its ciphertext, a link or a token.

use super::Server;
use super::access::Caller;
use super::problem::Problem;
use crate::job::{Batch, JobId};
use crate::ledger::AuditEntry;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    BatchBegun,
    BatchHeld,
    BatchScheduled,
    BatchApproved,
    BatchRejected,
    BatchExpired,
    BatchPaused,
    BatchResumed,
    BatchCancelled,
    BatchTracked,
    CardsCancelSent,
    CardsCancelled,
    RowsSettled,
    ManifestChecked,
    ColumnsKept,
    JobSent,
    PinLinksListed,
    PinLinksMade,
    PinLinkRevoked,
    PinJobsCancelled,
    PinChosen,
    PinShown,
    TokensRead,
}

impl Action {
    /// As it stands in the log.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::BatchBegun => "batch_begun",
            Self::BatchHeld => "batch_held",
            Self::BatchScheduled => "batch_scheduled",
            Self::BatchApproved => "batch_approved",
            Self::BatchRejected => "batch_rejected",
            Self::BatchExpired => "batch_expired",
            Self::BatchPaused => "batch_paused",
            Self::BatchResumed => "batch_resumed",
            Self::BatchCancelled => "batch_cancelled",
            Self::BatchTracked => "batch_tracked",
            Self::CardsCancelSent => "cards_cancel_sent",
            Self::CardsCancelled => "cards_cancelled",
            Self::RowsSettled => "rows_settled",
            Self::ManifestChecked => "manifest_checked",
            Self::ColumnsKept => "columns_kept",
            Self::JobSent => "job_sent",
            Self::PinLinksListed => "pin_links_listed",
            Self::PinLinksMade => "pin_links_made",
            Self::PinLinkRevoked => "pin_link_revoked",
            Self::PinJobsCancelled => "pin_jobs_cancelled",
            Self::PinChosen => "pin_chosen",
            Self::PinShown => "pin_shown",
            Self::TokensRead => "tokens_read",
        }
    }
}

/// What it was done with.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) batch: Option<String>,
    /// A job's or a card's id.
    pub(super) job: Option<String>,
    pub(super) rows: Option<u64>,
    /// SHA-256 of the file, in hexadecimal.
    pub(super) digest: Option<String>,
    pub(super) detail: Option<String>,
}

impl About {
    /// A batch.
    pub(super) fn batch(name: &str) -> Self {
        Self { batch: Some(name.to_owned()), ..Self::default() }
    }

    /// A job or a card.
    pub(super) fn job(id: &str) -> Self {
        Self { job: Some(id.to_owned()), ..Self::default() }
    }
}

impl Server {
    /// Writes down what somebody does; once this returns, it survives a crash.
    ///
    /// # Errors
    /// If it cannot be written down; then it must not be done.
    pub(super) async fn record(&self, caller: &Caller, action: Action, about: About) -> Result<(), Problem> {
        let About { batch, job, rows, digest, detail } = about;
        let entry = AuditEntry {
            id: 0,
            time: self.clock().now(),
            scope: self.scope().clone(),
            who: caller.name().to_owned(),
            role: caller.role().map(|role| role.word().to_owned()),
            action: action.word().to_owned(),
            // What was asked for may be no name at all.
            batch: batch.filter(|batch| Batch::new(batch.as_str()).is_ok()),
            job: job.filter(|job| JobId::new(job.as_str()).is_ok()),
            rows,
            digest,
            detail,
        };
        Ok(self.parts.views.add_audit_entry(entry).await?)
    }
}
