//! A primary's timeline: each promotion of a standby begins a new one, so that of two servers which take themselves for the primary,
//! the one of the later timeline is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::LedgerError;

/// The latest timeline that any session of a ledger has seen; 0 as long as none did. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Latest(Arc<AtomicU32>);

/// The timeline that a session began on.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    own: u32,
    latest: Latest,
}

impl Latest {
    /// A session has begun on this one; 0 if its server does not tell.
    pub(super) fn seen(&self, own: u32) -> Timeline {
        self.0.fetch_max(own, Ordering::SeqCst);
        Timeline { own, latest: self.clone() }
    }
}

impl Timeline {
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.own > other.own
    }

    /// Whether another server has become the primary since: what is written to this one is lost.
    pub(super) fn is_over(&self) -> bool {
        self.own != 0 && self.own < self.latest.0.load(Ordering::SeqCst)
    }

    /// Refuses a session whose timeline is over.
    pub(super) fn check(&self, ledger: &str) -> Result<(), LedgerError> {
        if !self.is_over() {
            return Ok(());
        }
        let reason = "the server that answers was the primary before another took its place".to_owned();
        Err(LedgerError::NoPrimary { ledger: ledger.to_owned(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_over_once_a_later_one_was_seen() {
        let latest = Latest::default();
        let (first, untold) = (latest.seen(1), latest.seen(0));
        assert!(!first.is_over());
        let second = latest.clone().seen(2);
        assert!(first.is_over() && first.check("ledger").is_err());
        assert!(!second.is_over() && !untold.is_over() && second.is_later_than(&first));
        assert!(latest.seen(1).is_over(), "the primary of before takes itself for the primary");
    }
}
