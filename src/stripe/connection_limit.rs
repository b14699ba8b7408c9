//! Few connections at a time, while few suffice.
//!
//! One flush of the ledger lets a hundred jobs go at once, and each of their calls would take a connection of its own:
//! new ones cost handshakes, and old ones that have left the processor's caches cost half as much again per call as
//! one that was just in use. So a call that finds the usual number in use waits a moment for one of them. A server
//! that takes its time to answer has no use for that: whoever waited in vain goes, and there is one more for all
//! that come after, until half of them lie idle.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many are always there: the line cost a twentieth more with twice as many, and a third more with no bound.
const CONNECTIONS_MIN: usize = 32;
/// How long a call waits for one of them at least, and half of how long it does at most: longer than a hundred calls take
/// that a server on the same machine answers at once, and nothing beside Stripe's answer.
const WAIT: Duration = Duration::from_millis(10);

/// Counts the calls under way.
pub(super) struct ConnectionLimit {
    free: Semaphore,
    all: AtomicUsize,
    /// Calls that had to wait, ever.
    came: AtomicUsize,
    /// Those of them that wait no longer.
    went: AtomicUsize,
    /// Whether a task looks after those who wait. It is one for all: with a timer for each, most calls would wake the
    /// thread that keeps the time.
    attended: AtomicBool,
}

/// A call's place. Dropped, it goes to the next.
#[must_use]
pub struct Slot<'l> {
    limit: &'l ConnectionLimit,
    /// There until it is dropped.
    taken: Option<SemaphorePermit<'l>>,
}

impl ConnectionLimit {
    pub(super) fn new() -> Self {
        Self {
            free: Semaphore::new(CONNECTIONS_MIN),
            all: AtomicUsize::new(CONNECTIONS_MIN),
            came: AtomicUsize::new(0),
            went: AtomicUsize::new(0),
            attended: AtomicBool::new(false),
        }
    }

    /// Waits for a place, for a moment only.
    pub(super) async fn slot(self: &Arc<Self>) -> Slot<'_> {
        let taken = match self.free.try_acquire() {
            Ok(taken) => taken,
            Err(_) => {
                let _waits = Waits::begin(self);
                self.free.acquire().await.expect("nobody closes the semaphore")
            }
        };
        Slot { limit: self, taken: Some(taken) }
    }

    /// Gives a place that was not there before to everybody who has waited in vain, until nobody waits.
    async fn attend(limit: Weak<Self>) {
        let mut came_before = 0_usize;
        loop {
            tokio::time::sleep(WAIT).await;
            let Some(limit) = limit.upgrade() else { return };
            let went = limit.went.load(Ordering::SeqCst);
            // They go in the order in which they came, so these were there at the last look. Who came since and gave up
            // is taken for one of them, which then waits until the next look.
            let in_vain = came_before.saturating_sub(went);
            limit.all.fetch_add(in_vain, Ordering::Relaxed);
            limit.free.add_permits(in_vain);
            came_before = limit.came.load(Ordering::SeqCst);
            if came_before == went && !limit.is_needed_again() {
                return;
            }
        }
    }

    /// Whether the task that would end is to go on: somebody came who saw it there.
    fn is_needed_again(&self) -> bool {
        self.attended.store(false, Ordering::SeqCst);
        self.came.load(Ordering::SeqCst) != self.went.load(Ordering::SeqCst)
            && !self.attended.swap(true, Ordering::SeqCst)
    }

    /// Whether one was taken out, as half of them lie idle.
    fn shrinks(&self) -> bool {
        let less =
            |all: usize| (all > CONNECTIONS_MIN && self.free.available_permits() > all / 2).then(|| all - 1);
        self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Somebody waits for a place.
struct Waits<'l>(&'l ConnectionLimit);

impl<'l> Waits<'l> {
    fn begin(limit: &'l Arc<ConnectionLimit>) -> Self {
        limit.came.fetch_add(1, Ordering::SeqCst);
        if !limit.attended.swap(true, Ordering::SeqCst) {
            tokio::spawn(ConnectionLimit::attend(Arc::downgrade(limit)));
        }
        Self(limit)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.went.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take_if(|_| self.limit.shrinks()) {
            taken.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many calls at once, and how many of them waited in vain.
    async fn calls(limit: &Arc<ConnectionLimit>, count: usize) -> (Vec<Slot<'_>>, usize) {
        let before = limit.all.load(Ordering::Relaxed);
        let slots = futures_util::future::join_all((0..count).map(|_| limit.slot())).await;
        (slots, limit.all.load(Ordering::Relaxed) - before)
    }

    #[tokio::test]
    async fn calls_to_a_slow_server_wait_in_vain_once() {
        let limit = Arc::new(ConnectionLimit::new());
        let (slots, in_vain) = calls(&limit, 10 * CONNECTIONS_MIN).await;
        assert_eq!(in_vain, 9 * CONNECTIONS_MIN);
        let (more, in_vain) = calls(&limit, 1).await;
        assert_eq!(in_vain, 1, "all the others are under way");
        drop(slots);
        let (others, in_vain) = calls(&limit, 5 * CONNECTIONS_MIN).await;
        assert_eq!(in_vain, 0, "as many as lately, or half");
        drop((more, others));
    }

    #[tokio::test]
    async fn a_place_that_comes_free_goes_to_who_waits() {
        let limit = Arc::new(ConnectionLimit::new());
        let (mut slots, in_vain) = calls(&limit, CONNECTIONS_MIN).await;
        assert_eq!(in_vain, 0);
        let (waiting, ()) = tokio::join!(limit.slot(), async { drop(slots.pop()) });
        assert_eq!(limit.all.load(Ordering::Relaxed), CONNECTIONS_MIN, "none was added");
        drop(waiting);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_no_place_behind() {
        let limit = Arc::new(ConnectionLimit::new());
        let (slots, _) = calls(&limit, CONNECTIONS_MIN).await;
        let gave_up = tokio::time::timeout(WAIT / 2, calls(&limit, CONNECTIONS_MIN)).await;
        assert!(gave_up.is_err(), "no place within half a moment");
        tokio::time::sleep(5 * WAIT).await;
        assert_eq!(limit.all.load(Ordering::Relaxed), CONNECTIONS_MIN);
        assert_eq!(Arc::weak_count(&limit), 0, "nor anybody who looks for them");
        drop(slots);
    }

    #[tokio::test]
    async fn nothing_runs_where_nobody_waits() {
        let limit = Arc::new(ConnectionLimit::new());
        for round in 1..=3 {
            let all = limit.all.load(Ordering::Relaxed);
            let (slots, in_vain) = calls(&limit, all + 1).await;
            assert_eq!(in_vain, 1, "looked after in round {round}, too");
            while limit.attended.load(Ordering::SeqCst) {
                tokio::time::sleep(WAIT).await;
            }
            assert_eq!(Arc::weak_count(&limit), 0, "the task has ended");
            drop(slots);
        }
    }

    #[tokio::test]
    async fn after_a_slow_time_there_are_few_again() {
        let limit = Arc::new(ConnectionLimit::new());
        drop(calls(&limit, 10 * CONNECTIONS_MIN).await);
        for _ in 0..10 * CONNECTIONS_MIN {
            drop(limit.slot().await);
        }
        assert_eq!(limit.all.load(Ordering::Relaxed), CONNECTIONS_MIN);
        assert_eq!(limit.free.available_permits(), CONNECTIONS_MIN);
    }
}
