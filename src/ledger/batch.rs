//! One batch: how it stands, and its rows, some at a time, so that memory is bounded however many they are.

use super::{BatchCounts, Ledger, LedgerError, Only, Row, Scope};
use crate::job::{Batch, JobId};

/// Rows that are read at once.
const PAGE_ROWS: u32 = 1000;

/// The rows of a batch in the manifest's order, page by page.
pub struct Pages<'l> {
    ledger: &'l Ledger,
    scope: &'l Scope,
    batch: &'l Batch,
    only: Only,
    after: Option<(u64, JobId)>,
}

impl Ledger {
    /// How a batch stands; none if it is not known.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn counts_of(&self, scope: &Scope, batch: &Batch) -> Result<Option<BatchCounts>, LedgerError> {
        let is_it = |counts: &BatchCounts| counts.batch == batch.as_str() && counts.scope == scope.as_str();
        Ok(self.counts().await?.into_iter().find(is_it))
    }

    /// Takes note that jobs of a batch come through a queue: one whose end is not known comes again by itself.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn note_queue(&self, scope: &Scope, batch: &Batch) -> Result<(), LedgerError> {
        self.set_metadata(queue_name(scope, batch), "1").await
    }

    /// Whether jobs of a batch came through a queue.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn came_by_queue(&self, scope: &Scope, batch: &Batch) -> Result<bool, LedgerError> {
        Ok(self.metadata(&queue_name(scope, batch)).await?.is_some())
    }

    /// Those of a batch's rows that are asked for.
    #[must_use]
    pub fn pages<'l>(&'l self, scope: &'l Scope, batch: &'l Batch, only: Only) -> Pages<'l> {
        Pages { ledger: self, scope, batch, only, after: None }
    }
}

/// The name of the entry which says that a batch's jobs come through a queue.
fn queue_name(scope: &Scope, batch: &Batch) -> String {
    format!("queued:{}|{batch}", scope.as_str())
}

impl Pages<'_> {
    /// The next rows; none after the last.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, LedgerError> {
        let (after, only) = (self.after.take(), self.only.clone());
        let page = self.ledger.batch_page(self.scope, self.batch, after, only, PAGE_ROWS).await?;
        self.after = page.last().map(|last| (last.row.unwrap_or(0), last.id.clone()));
        Ok(Some(page).filter(|page| !page.is_empty()))
    }
}
