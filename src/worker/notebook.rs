//! What a worker writes down for the next one, beside its jobs, and whether it can write at all.

use crate::clock::Time;
use crate::ledger::{Ledger, Scope};

/// One account's. Clones are the same one.
#[derive(Clone)]
pub(super) struct Notebook {
    ledger: Ledger,
    scope: Scope,
}

impl Notebook {
    pub(super) fn new(ledger: Ledger, scope: Scope) -> Self {
        Self { ledger, scope }
    }

    /// Whether outcomes can be recorded: who cannot do that must not take jobs.
    pub(super) async fn probe_write(&self) -> Result<(), String> {
        self.ledger.probe_write().await.map_err(|error| error.to_string())
    }

    /// Writes a moment down.
    pub(super) async fn mark(&self, name: &str, at: Time) -> Result<(), String> {
        self.ledger.mark(&self.scope, name, at).await.map_err(|error| error.to_string())
    }

    /// What was written down last.
    pub(super) async fn marked(&self, name: &str) -> Result<Option<Time>, String> {
        self.ledger.marked(&self.scope, name).await.map_err(|error| error.to_string())
    }
}
