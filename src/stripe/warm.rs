//! Few connections at a time, while few suffice.
//!
//! One flush of the ledger lets a hundred jobs go at once, and each of their calls would take a connection of its own:
//! new ones cost handshakes, and old ones that have left the processor's caches cost half as much again per call as
//! one that was just in use. So a call that finds the usual number in use waits a moment for one of them. A server
//! that takes its time to answer has no use for that: whoever waited in vain goes, and there is one more for all
//! that come after, until half of them lie idle.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// So many are always there: the line cost a twentieth more with twice as many, and a third more with no bound.
const FEW: usize = 32;
/// How long a call waits for one of them: longer than a hundred calls take that a server on the same machine answers at
/// once, and nothing beside Stripe's answer.
const MOMENT: Duration = Duration::from_millis(10);

/// Counts the calls under way.
pub(super) struct Warm {
    free: Semaphore,
    all: AtomicUsize,
}

/// A call's place. Dropped, it goes to the next.
#[must_use]
pub struct Slot<'w> {
    warm: &'w Warm,
    /// None if it was made for who waited in vain, and is in nobody's count yet.
    taken: Option<SemaphorePermit<'w>>,
}

impl Warm {
    pub(super) fn new() -> Self {
        Self { free: Semaphore::new(FEW), all: AtomicUsize::new(FEW) }
    }

    /// Waits for a place, for a moment only.
    pub(super) async fn slot(&self) -> Slot<'_> {
        let taken = match self.free.try_acquire() {
            Ok(taken) => Some(taken),
            Err(_) => timeout(MOMENT, self.free.acquire()).await.ok().and_then(Result::ok),
        };
        if taken.is_none() {
            self.all.fetch_add(1, Ordering::Relaxed);
        }
        Slot { warm: self, taken }
    }

    /// Whether one was taken out, as half of them lie idle.
    fn shrinks(&self) -> bool {
        let less = |all: usize| (all > FEW && self.free.available_permits() > all / 2).then(|| all - 1);
        self.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        match (self.taken.take(), self.warm.shrinks()) {
            (Some(taken), true) => taken.forget(),
            (Some(_), false) | (None, true) => {}
            (None, false) => self.warm.free.add_permits(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many calls at once, and how many of them waited in vain.
    async fn calls(warm: &Warm, count: usize) -> (Vec<Slot<'_>>, usize) {
        let slots = futures_util::future::join_all((0..count).map(|_| warm.slot())).await;
        let in_vain = slots.iter().filter(|slot| slot.taken.is_none()).count();
        (slots, in_vain)
    }

    #[tokio::test]
    async fn calls_to_a_slow_server_wait_in_vain_once() {
        let warm = Warm::new();
        let (slots, in_vain) = calls(&warm, 10 * FEW).await;
        assert_eq!(in_vain, 9 * FEW);
        let (more, in_vain) = calls(&warm, 1).await;
        assert_eq!(in_vain, 1, "all the others are under way");
        drop(slots);
        let (others, in_vain) = calls(&warm, 5 * FEW).await;
        assert_eq!(in_vain, 0, "as many as lately, or half");
        drop((more, others));
    }

    #[tokio::test]
    async fn a_place_that_comes_free_goes_to_who_waits() {
        let warm = Warm::new();
        let (mut slots, in_vain) = calls(&warm, FEW).await;
        assert_eq!(in_vain, 0);
        let (waiting, ()) = tokio::join!(warm.slot(), async { drop(slots.pop()) });
        assert!(waiting.taken.is_some());
        assert_eq!(warm.all.load(Ordering::Relaxed), FEW, "none was added");
    }

    #[tokio::test]
    async fn after_a_slow_time_there_are_few_again() {
        let warm = Warm::new();
        drop(calls(&warm, 10 * FEW).await);
        for _ in 0..10 * FEW {
            drop(warm.slot().await);
        }
        assert_eq!(warm.all.load(Ordering::Relaxed), FEW);
        assert_eq!(warm.free.available_permits(), FEW);
    }
}
