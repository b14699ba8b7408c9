//! Rows that were refused and are not published again, of a batch of which only what needs no change is tried again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::job::{Batch, JobId};
use crate::ledger::{Kind, Ledger, LedgerError, Only, Row, Scope};
use crate::remedy::TryAgain;

/// Which rows these are; asked of the worker's ledger when their turn comes.
pub(super) struct Left {
    ledger: Ledger,
    scope: Scope,
    ids: Mutex<HashSet<JobId>>,
}

impl Left {
    /// None is known yet.
    pub(super) fn new(ledger: Ledger, scope: Scope) -> Self {
        Self { ledger, scope, ids: Mutex::default() }
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<JobId>> {
        // Every change is one insertion.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were found.
    pub(super) fn count(&self) -> u64 {
        self.ids().len() as u64
    }

    /// Whether it is one of them.
    pub(super) async fn has(&self, id: &JobId) -> Result<bool, LedgerError> {
        let known = self.ledger.look_up(&self.scope, id).await?;
        let stays = known.is_some_and(|row| row.stays_refused(TryAgain::Unchanged));
        if stays {
            self.ids().insert(id.clone());
        }
        Ok(stays)
    }

    /// Gives each that was found, as the ledger has it.
    pub(super) async fn each(
        &self,
        batch: &Batch,
        mut give: impl FnMut(&Row) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut pages = self.ledger.pages(&self.scope, batch, Only::of(Kind::Refused));
        while let Some(page) = pages.next().await.map_err(|error| error.to_string())? {
            let ids = self.ids();
            page.iter().filter(|row| ids.contains(&row.id)).try_for_each(&mut give)?;
        }
        Ok(())
    }

    /// Nothing more is asked.
    pub(super) async fn close(&self) {
        self.ledger.clone().close().await;
    }
}
