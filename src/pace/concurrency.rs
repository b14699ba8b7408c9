//! How many calls may be in flight: a pure state machine, time is an input.
//!
//! A concurrency limiter's 429 says that there were too many at once, not that they came too fast: so the number
//! is lowered to what was in flight beside the call that was turned away, and the rate is left alone. Afterwards it
//! rises in steps, and each step that is turned away makes the next one wait twice as long.

use std::time::{Duration, Instant};

/// First wait before a step up.
const WAIT_MIN: Duration = Duration::from_secs(5);
/// Longest wait before a step up: a limit that was raised is noticed within this.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a step is on trial before the next, which is twice as large.
const TRIAL: Duration = Duration::from_secs(3);

/// The bound on calls in flight.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    configured: usize,
    limit: usize,
    /// The limit before the step that is on trial.
    proven: usize,
    step: usize,
    wait: Duration,
    changed: Instant,
}

impl ConcurrencyLimit {
    pub(super) fn new(configured: usize, now: Instant) -> Self {
        Self { configured, limit: configured, proven: configured, step: 1, wait: WAIT_MIN, changed: now }
    }

    /// Most calls in flight at this moment.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A call was turned away while so many others were in flight. Answers the new bound, if it is one.
    pub(super) fn limited(&mut self, others: usize, now: Instant) -> Option<usize> {
        let lowered = others.clamp(1, self.limit);
        if lowered == self.limit {
            return None;
        }
        if self.on_trial(now) && self.proven < self.limit {
            self.wait = (self.wait * 2).min(WAIT_MAX);
        }
        self.limit = lowered;
        self.proven = lowered;
        self.step = 1;
        self.changed = now;
        Some(lowered)
    }

    /// Time passes, and as many calls are in flight: the bound rises if it is time to and if it is felt at all.
    pub(super) fn tick(&mut self, in_flight: usize, now: Instant) {
        if self.limit >= self.configured || in_flight < self.limit {
            return;
        }
        let stepped = self.proven < self.limit;
        let due = if stepped { TRIAL } else { self.wait };
        if now.saturating_duration_since(self.changed) < due {
            return;
        }
        if stepped {
            self.step *= 2;
            self.wait = WAIT_MIN;
        }
        self.proven = self.limit;
        self.limit = (self.limit + self.step).min(self.configured);
        self.changed = now;
    }

    fn on_trial(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.changed) < TRIAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_to_what_was_in_flight_and_rises_again_in_growing_steps() {
        let start = Instant::now();
        let mut limit = ConcurrencyLimit::new(100, start);
        assert_eq!(limit.limited(4, start), Some(4));
        assert_eq!(limit.limited(7, start), None, "an answer from before is no news");
        let mut seconds = 0;
        while limit.limit() < 100 {
            seconds += 1;
            limit.tick(limit.limit(), start + Duration::from_secs(seconds));
        }
        assert!((15..60).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_limit_that_stays_is_asked_less_and_less_often() {
        let (mut now, mut turned_away) = (Instant::now(), 0);
        let mut limit = ConcurrencyLimit::new(100, now);
        limit.limited(4, now);
        for _ in 0..600 {
            now += Duration::from_secs(1);
            limit.tick(limit.limit(), now);
            if limit.limit() > 4 {
                turned_away += 1;
                limit.limited(4, now);
            }
        }
        assert!((8..16).contains(&turned_away), "{turned_away}");
    }

    #[test]
    fn a_bound_that_nobody_reaches_does_not_rise() {
        let start = Instant::now();
        let mut limit = ConcurrencyLimit::new(100, start);
        limit.limited(4, start);
        limit.tick(2, start + Duration::from_secs(3600));
        assert_eq!(limit.limit(), 4);
        assert_eq!(limit.limited(0, start), Some(1), "never to nothing");
    }
}
