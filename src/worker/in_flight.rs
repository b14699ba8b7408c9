//! What the deliveries of one subscription have in common: whether they may begin, and what becomes of those that
//! may not.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After becoming the active consumer: the worker before us may have used up the pace of the second before, and its
/// last calls are still on their way.
const HAND_OVER: Duration = Duration::from_millis(1250);

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
    begin: Arc<OnceLock<Instant>>,
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
            begin: Arc::default(),
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

    /// Waits until calls may be made. Who comes first begins the wait.
    pub(super) async fn handed_over(&self) {
        let begin = *self.begin.get_or_init(|| {
            tracing::info!("this worker is the active one");
            Instant::now() + HAND_OVER
        });
        tokio::select! {
            () = tokio::time::sleep_until(begin) => {}
            () = self.recalled.cancelled() => {}
        }
    }

    /// Whether anything was ever given to it: then this worker is the active one.
    pub(super) fn is_active(&self) -> bool {
        self.begin.get().is_some()
    }
}
