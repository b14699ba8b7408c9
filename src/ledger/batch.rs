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

    /// Those of a batch's rows that are asked for.
    #[must_use]
    pub fn pages<'l>(&'l self, scope: &'l Scope, batch: &'l Batch, only: Only) -> Pages<'l> {
        Pages { ledger: self, scope, batch, only, after: None }
    }
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
