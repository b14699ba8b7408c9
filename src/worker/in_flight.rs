//! What the deliveries of one subscription have in common: whether they may begin, and what becomes of those that
//! may not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where recalled jobs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// To their queue: another worker takes them.
    Queue,
    /// To the ladder: nobody can do anything for them now.
    Ladder,
}

/// The jobs in flight: delivered, and not settled yet. Clones are the same ones.
#[derive(Clone)]
pub(super) struct InFlight {
    /// Cancelled when the jobs are recalled.
    pub(super) recalled: CancellationToken,
    /// Cancelled when the connection is lost: then all its deliveries come again, whatever is done here.
    pub(super) lost: CancellationToken,
    /// Cancelled when a delivery is stuck: its task ended without settling it.
    pub(super) failed: CancellationToken,
    /// The tasks of the jobs in flight.
    pub(super) tasks: TaskTracker,
    back: Arc<OnceLock<Back>>,
    active: Arc<AtomicBool>,
}

impl InFlight {
    /// An empty one, on a connection that is not lost.
    pub(super) fn new(lost: &CancellationToken) -> Self {
        Self {
            recalled: CancellationToken::new(),
            lost: lost.clone(),
            failed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            back: Arc::default(),
            active: Arc::default(),
        }
    }

    /// Nothing more begins; what has not ended goes back. The first one to say whereto is heard.
    pub(super) fn recall(&self, back: Back) {
        let _ = self.back.set(back);
        self.recalled.cancel();
    }

    /// Where recalled jobs go; none while they are not recalled.
    pub(super) fn back(&self) -> Option<Back> {
        self.back.get().copied()
    }

    /// Something was given to it: this worker is the active one. It waits for nothing here: who held the account's lease before is
    /// known with the lease, and whether that one's calls may still count.
    pub(super) fn activate(&self) {
        if !self.active.swap(true, Ordering::Relaxed) {
            tracing::info!("this worker is the active one");
        }
    }

    /// Whether anything was ever given to it: then this worker is the active one.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }
}
