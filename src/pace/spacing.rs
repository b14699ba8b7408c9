//! Even spacing by governor's cell-rate limiter.
//!
//! Nothing waits in here, and the time is an input: the limiter says yes, or from when on it will. governor's own
//! waiting is neither fair nor cheap with many waiters, and its own clock cannot be moved by a test.

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// The share of the rate that is left unused, so that a second's worth of grants spans a second and 4 ms.
pub(super) const SLACK: f64 = 0.004;
/// Cells per grant: governor's bursts are whole cells, and what may be made up for is a fraction of a grant.
const CELLS: u32 = 100;

/// What the limiter takes for now: nanoseconds since the spacing began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, other: Nanos) -> Self {
        Self(self.0.saturating_add(other.as_u64()))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        self.0.checked_sub(duration.as_u64()).map_or(*self, Self)
    }
}

/// The clock of the limiter: shows what it was told.
#[derive(Debug, Clone, Default)]
struct ManualClock(Arc<AtomicU64>);

impl Clock for ManualClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, ManualClock, NoOpMiddleware<Moment>>;

/// Grants that are evenly spaced.
pub(super) struct Spacing {
    per_second: f64,
    late_max: Duration,
    clock: ManualClock,
    began: Instant,
    limiter: Limiter,
}

impl Spacing {
    /// At this rate. A grant that comes late by up to `late_max` is made up for by the ones after it.
    pub(super) fn new(per_second: f64, late_max: Duration, now: Instant) -> Self {
        let clock = ManualClock::default();
        let limiter = limiter(per_second, late_max, &clock);
        Self { per_second, late_max, clock, began: now, limiter }
    }

    /// The rate as Stripe was found to keep it.
    pub(super) fn adapt(&mut self, per_second: f64, now: Instant) {
        if (per_second - self.per_second).abs() < f64::EPSILON {
            return;
        }
        self.per_second = per_second;
        self.set_clock(now);
        self.limiter = limiter(per_second, self.late_max, &self.clock);
        // A new limiter would grant at once; the last grant of the old one may be a moment ago.
        let _ = self.limiter.check_n(cells(CELLS));
    }

    /// Grants now, or says from when on it may be asked again.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Instant> {
        self.set_clock(now);
        match self.limiter.check_n(cells(CELLS)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => Err(now + not_until.wait_time_from(self.clock.now())),
            Err(_) => unreachable!("the limiter's burst is at least one grant's cells"),
        }
    }

    fn set_clock(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_nanos();
        self.clock.0.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn limiter(per_second: f64, late_max: Duration, clock: &ManualClock) -> Limiter {
    // governor counts in nanoseconds.
    let cell = Duration::from_secs_f64(1.0 / (per_second * (1.0 - SLACK) * f64::from(CELLS)));
    let cell = cell.max(Duration::from_nanos(1));
    let late_cells = super::whole(late_max.as_secs_f64() / cell.as_secs_f64());
    let late_cells = u32::try_from(late_cells).unwrap_or(u32::MAX / 2);
    let quota = Quota::with_period(cell).expect("the period of a finite rate is not zero");
    let burst = cells(CELLS.saturating_add(late_cells));
    let limiter = Limiter::direct_with_clock(quota.allow_burst(burst), clock.clone());
    // It begins with one grant's cells: nothing is late yet.
    if let Some(late) = NonZeroU32::new(late_cells) {
        let _ = limiter.check_n(late);
    }
    limiter
}

fn cells(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("a grant has cells")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(per_second: f64, seconds: u64) -> Vec<Duration> {
        let start = Instant::now();
        let mut spacing = Spacing::new(per_second, Duration::from_millis(20), start);
        let (mut now, mut granted) = (start, Vec::new());
        while now - start < Duration::from_secs(seconds) {
            match spacing.check(now) {
                Ok(()) => granted.push(now - start),
                Err(later) => now = later,
            }
        }
        granted
    }

    #[test]
    fn a_seconds_worth_of_grants_spans_a_second_and_the_slack() {
        for rate in [0.5, 1.0, 25.0, 100.0, 1000.0, 10_000.0] {
            let granted = grants(rate, 8);
            let many = super::super::whole(rate);
            for pair in granted.windows(many + 1) {
                assert!(pair[many] - pair[0] > Duration::from_secs_f64(1.0039), "{rate}: {pair:?}");
            }
            #[expect(clippy::cast_precision_loss, reason = "few")]
            let used = granted.len() as f64 / (8.0 * rate);
            assert!(used > 0.995, "{rate}: {used}");
        }
    }

    #[test]
    fn what_came_late_is_made_up_for_but_not_what_came_very_late() {
        let start = Instant::now();
        let mut spacing = Spacing::new(25.0, Duration::from_millis(20), start);
        assert!(spacing.check(start).is_ok());
        let due = spacing.check(start).unwrap_err();
        assert!(spacing.check(due + Duration::from_millis(15)).is_ok(), "15 ms late");
        let next = spacing.check(due + Duration::from_millis(15)).unwrap_err();
        assert!(next - due <= Duration::from_millis(41), "the grid stays: {:?}", next - due);
        assert!(spacing.check(next + Duration::from_millis(200)).is_ok());
        let after = spacing.check(next + Duration::from_millis(200)).unwrap_err();
        assert!(after - next >= Duration::from_millis(220), "the grid moves by what exceeds 20 ms");
    }
}
