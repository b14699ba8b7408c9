//! How long rows are waited for whose events may have been missed: a pure state machine, time is an input.
//!
//! A queue is worked off in order. As long as what was ahead when the events were missed comes to its end, the rows
//! behind it are not lost, however long that takes; after that only their own ends count.

use std::time::{Duration, Instant};

/// How long nothing that counts may end before what is left is given up: longer than the ladder's longest rung.
const NOTHING_MAX: Duration = Duration::from_secs(15 * 60);

/// What has ended, of all that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Rows that are waited for and have not ended.
    pub(super) left: usize,
    /// Ends that were heard, of anybody's jobs.
    pub(super) heard: u64,
    /// Jobs that are in the queue or on the ladder, if that could be asked.
    pub(super) queued: Option<u64>,
}

/// Waits for rows.
#[derive(Debug)]
pub(super) struct Patience {
    latest: Instant,
    left: usize,
    heard: u64,
    /// Once so many ends were heard, nothing is ahead any more; not known until the queue could be asked.
    heard_max: Option<u64>,
}

impl Patience {
    /// It begins now.
    pub(super) fn new(seen: Seen, now: Instant) -> Self {
        let heard_max = seen.queued.map(|queued| seen.heard + queued);
        Self { latest: now, left: seen.left, heard: seen.heard, heard_max }
    }

    /// Whether it needs to know how many jobs are in the queue.
    pub(super) fn asks_for_queued(&self) -> bool {
        self.heard_max.is_none()
    }

    /// Whether what is left is given up.
    pub(super) fn is_over(&mut self, seen: Seen, now: Instant) -> bool {
        self.heard_max = self.heard_max.or(seen.queued.map(|queued| seen.heard + queued));
        let heard = seen.heard.min(self.heard_max.unwrap_or(u64::MAX));
        if (seen.left, heard) != (self.left, self.heard) {
            (self.left, self.heard, self.latest) = (seen.left, heard, now);
        }
        now.saturating_duration_since(self.latest) > NOTHING_MAX
    }

    /// The broker is away: nothing can end.
    pub(super) fn rest(&mut self, now: Instant) {
        self.latest = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn seen(left: usize, heard: u64, queued: Option<u64>) -> Seen {
        Seen { left, heard, queued }
    }

    #[test]
    fn rows_behind_those_of_others_are_waited_for_while_these_end_and_no_longer() {
        let start = Instant::now();
        let mut patience = Patience::new(seen(200, 10, Some(50_000)), start);
        assert!(!patience.asks_for_queued());
        // An hour's worth of another batch, ten minutes at a time.
        let ends = [8_000, 16_000, 24_000, 32_000, 40_000, 50_010];
        for (heard, minutes) in ends.into_iter().zip((10..).step_by(10)) {
            assert!(!patience.is_over(seen(200, heard, None), start + minutes * MINUTE), "{minutes}");
        }
        // What ends from here on was published later.
        assert!(!patience.is_over(seen(200, 51_000, None), start + 75 * MINUTE));
        assert!(patience.is_over(seen(200, 52_000, None), start + 76 * MINUTE));
    }

    #[test]
    fn their_own_ends_count_always_and_while_the_broker_is_away_no_time_passes() {
        let start = Instant::now();
        let mut patience = Patience::new(seen(3, 0, Some(0)), start);
        assert!(!patience.is_over(seen(2, 0, None), start + 14 * MINUTE));
        assert!(!patience.is_over(seen(2, 0, None), start + 28 * MINUTE));
        patience.rest(start + 60 * MINUTE);
        assert!(!patience.is_over(seen(2, 0, None), start + 75 * MINUTE));
        assert!(patience.is_over(seen(2, 0, None), start + 76 * MINUTE));
    }

    #[test]
    fn a_queue_that_could_not_be_asked_is_asked_again_and_every_end_counts_until_then() {
        let start = Instant::now();
        let mut patience = Patience::new(seen(1, 0, None), start);
        assert!(patience.asks_for_queued());
        assert!(!patience.is_over(seen(1, 5, None), start + 14 * MINUTE));
        assert!(!patience.is_over(seen(1, 6, Some(1)), start + 28 * MINUTE));
        assert!(!patience.asks_for_queued());
        assert!(!patience.is_over(seen(1, 9, None), start + 42 * MINUTE), "the one that was ahead");
        assert!(patience.is_over(seen(1, 12, None), start + 58 * MINUTE));
    }
}
