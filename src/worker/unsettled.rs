//! Deliveries that are to be settled and are not yet: what shows that a broker, or whoever reads the results, keeps the
//! worker from going on, though nothing has failed.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metrics;

/// Those of a worker.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Since when each of them is; with a number, as two may come at once.
    since: Mutex<BTreeSet<(Instant, u64)>>,
    number: std::sync::atomic::AtomicU64,
}

/// One of them, until this is dropped.
#[must_use]
pub(super) struct Settling<'u> {
    of: &'u Unsettled,
    this: (Instant, u64),
}

impl Unsettled {
    fn since(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        // Every change is an insertion or a removal.
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a delivery is decided; the broker is to be told.
    pub(super) fn begin(&self) -> Settling<'_> {
        let number = self.number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let this = (Instant::now(), number);
        self.since().insert(this);
        Settling { of: self, this }
    }

    /// Sets the gauges of the account.
    pub(super) fn show(&self, account: Option<&str>) {
        let (count, oldest) = {
            let since = self.since();
            (since.len(), since.first().map(|(since, _)| since.elapsed()).unwrap_or_default())
        };
        metrics::unsettled(count, oldest, account);
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        self.of.since().remove(&self.this);
    }
}
