//! Even spacing by governor's cell-rate limiters: one for the endpoint's limit and one for the account's.
//!
//! Nothing waits in here, and the time is an input: a limiter says yes, or from when on it will. governor's own
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

use super::Limits;

/// The share of the rate that is left unused, so that a second's worth of grants spans a second and 4 ms.
pub(super) const SLACK: f64 = 0.004;
/// Cells per grant: governor's bursts are whole cells, and what may be made up for is a fraction of a grant.
const CELLS: u32 = 100;

/// What the limiters take for now: nanoseconds since the spacing began.
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

/// The clock of the limiters: shows what it was told.
#[derive(Debug, Clone, Default)]
struct ToldClock(Arc<AtomicU64>);

impl Clock for ToldClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(self.0.load(Ordering::Relaxed))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, ToldClock, NoOpMiddleware<Moment>>;

/// Grants that are evenly spaced.
pub(super) struct Spacing {
    limits: Limits,
    current: f64,
    late_max: Duration,
    clock: ToldClock,
    began: Instant,
    /// The strictest first.
    limiters: Vec<Limiter>,
}

impl Spacing {
    /// For these limits. A grant that comes late by up to `late_max` is made up for by the ones after it.
    pub(super) fn new(limits: Limits, late_max: Duration, now: Instant) -> Self {
        let mut spacing = Self {
            limits,
            current: limits.strictest(),
            late_max,
            clock: ToldClock::default(),
            began: now,
            limiters: Vec::new(),
        };
        spacing.renew(now);
        spacing
    }

    /// The limits as Stripe was found to keep them: none above `current`.
    pub(super) fn adapt(&mut self, current: f64, now: Instant) {
        if (current - self.current).abs() < f64::EPSILON {
            return;
        }
        self.current = current;
        self.renew(now);
        // A new limiter would grant at once; the last grant of the old one may be a moment ago.
        for limiter in &self.limiters {
            let _ = limiter.check_n(cells(CELLS));
        }
    }

    /// Grants now, or says from when on it may be asked again.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Instant> {
        self.tell(now);
        // The strictest is asked first. It has let enough time pass for the others, unless those have just caught
        // up; a cell taken from it in vain then costs one period, never a call too many.
        for limiter in &self.limiters {
            match limiter.check_n(cells(CELLS)) {
                Ok(Ok(())) => {}
                Ok(Err(not_until)) => return Err(now + not_until.wait_time_from(self.clock.now())),
                Err(_) => unreachable!("every limiter's burst is at least one grant's cells"),
            }
        }
        Ok(())
    }

    fn tell(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_nanos();
        self.clock.0.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn renew(&mut self, now: Instant) {
        self.tell(now);
        let Limits { endpoint, account } = self.limits;
        let strictest = self.limits.strictest().min(self.current);
        self.limiters = vec![self.limiter(strictest)];
        // With equal limits the second always agrees with the first.
        if (endpoint - account).abs() > f64::EPSILON && endpoint.max(account).min(self.current) > strictest {
            self.limiters.push(self.limiter(endpoint.max(account).min(self.current)));
        }
    }

    fn limiter(&self, per_second: f64) -> Limiter {
        // governor counts in nanoseconds.
        let cell = Duration::from_secs_f64(1.0 / (per_second * (1.0 - SLACK) * f64::from(CELLS)));
        let cell = cell.max(Duration::from_nanos(1));
        let late_cells = super::whole(self.late_max.as_secs_f64() / cell.as_secs_f64());
        let late_cells = u32::try_from(late_cells).unwrap_or(u32::MAX / 2);
        let quota = Quota::with_period(cell).expect("the period of a finite rate is not zero");
        let limiter = Limiter::direct_with_clock(
            quota.allow_burst(cells(CELLS.saturating_add(late_cells))),
            self.clock.clone(),
        );
        // It begins with one grant's cells: nothing is late yet.
        if let Some(late) = NonZeroU32::new(late_cells) {
            let _ = limiter.check_n(late);
        }
        limiter
    }
}

fn cells(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("a grant has cells")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(limits: Limits, seconds: u64) -> Vec<Duration> {
        let start = Instant::now();
        let mut spacing = Spacing::new(limits, Duration::from_millis(20), start);
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
            let granted = grants(Limits { endpoint: rate, account: rate }, 8);
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
    fn the_stricter_of_the_two_limits_decides_whichever_it_is() {
        for limits in [Limits { endpoint: 20.0, account: 50.0 }, Limits { endpoint: 50.0, account: 20.0 }] {
            let count = grants(limits, 10).len();
            assert!((199..=201).contains(&count), "{count}");
        }
    }

    #[test]
    fn what_came_late_is_made_up_for_but_not_what_came_very_late() {
        let start = Instant::now();
        let rate = Limits { endpoint: 25.0, account: 25.0 };
        let mut spacing = Spacing::new(rate, Duration::from_millis(20), start);
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
