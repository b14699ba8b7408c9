//! Which accounts of a ledger are owed events: asked once for all of them, since a worker may have a thousand.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::outbox::KIND;
use crate::ledger::{Ledger, LedgerError, Scope};

/// Between two looks: whoever sent the job waits for its cardholder anyway.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Tells accounts that events are owed. Clones share it; it looks as long as there is one.
#[derive(Clone)]
pub struct Owing {
    /// The scopes, as the latest look found them.
    scopes: watch::Receiver<HashSet<String>>,
    _looking: Arc<AbortOnDropHandle<()>>,
}

impl Owing {
    /// Begins to look.
    #[must_use]
    pub fn by(ledger: &Ledger) -> Self {
        let (found, scopes) = watch::channel(HashSet::new());
        let looking = tokio::spawn(look(ledger.clone(), found));
        Self { scopes, _looking: Arc::new(AbortOnDropHandle::new(looking)) }
    }

    /// Resolves once a look has found that events of that account are owed.
    pub async fn to(&mut self, scope: &Scope) {
        loop {
            if self.scopes.changed().await.is_err() {
                // The runtime ends.
                return std::future::pending().await;
            }
            if self.scopes.borrow_and_update().contains(scope.as_str()) {
                return;
            }
        }
    }
}

async fn look(ledger: Ledger, found: watch::Sender<HashSet<String>>) {
    loop {
        match scopes(&ledger).await {
            // Nobody is woken for nothing.
            Ok(scopes) if scopes.is_empty() => {}
            Ok(scopes) => drop(found.send(scopes)),
            Err(error) => tracing::warn!(%error, "whether events are owed cannot be read"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One question, and another one for each account that is owed something.
async fn scopes(ledger: &Ledger) -> Result<HashSet<String>, LedgerError> {
    let prefix = format!("{KIND}:");
    let (mut scopes, mut after) = (HashSet::new(), prefix.clone());
    while let Some((name, _)) = ledger.metadata_page(&prefix, &after, 1).await?.pop() {
        let scope = name[prefix.len()..].split('|').next().unwrap_or_default();
        // The least that comes after all of that account's.
        after = format!("{prefix}{scope}}}");
        scopes.insert(scope.to_owned());
    }
    Ok(scopes)
}
