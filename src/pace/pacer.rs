//! The pacer: one thread that checks the limiters and hands permits out in order.
//!
//! A thread of its own, since its sleeps must be exact: an async timer is up to a millisecond late, which at 25 calls
//! a second would cost 2 % or have to be made up for by calls that come too close. governor's own waiting is neither
//! fair nor cheap with many waiters.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, QuantaClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{mpsc, oneshot};

use super::{Grant, Shared};

/// Cells per permit: governor's bursts are whole cells, and [`late_max`] is a fraction of a permit.
const CELLS: u32 = 100;
/// Longest sleep before things are looked at again: a pause may have ended, who waits may have gone.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// How far a grant may lag behind the even grid and still be made up for: what a busy machine is late by, but never
/// so much that two grants come together.
fn late_max(per_second: f64) -> f64 {
    const LATE_SECONDS: f64 = 0.010;
    const LATE_CALLS: f64 = 0.5;
    // Above a hundred calls a second, a few of them may come together: timers are no finer.
    const LATE_SECONDS_MIN: f64 = 0.002;
    (LATE_CALLS / per_second).clamp(LATE_SECONDS_MIN, LATE_SECONDS)
}

/// Serves the queue until every [`super::Pace`] is gone.
pub(super) fn hand_out(
    shared: &Arc<Shared>,
    mut queue: mpsc::UnboundedReceiver<oneshot::Sender<Grant>>,
    limits: [f64; 2],
) {
    let mut limiters = Limiters::new(limits, f64::INFINITY);
    while let Some(waiting) = queue.blocking_recv() {
        // One that gave up waiting must not cost a slot.
        while !waiting.is_closed() {
            let wait = try_grant(shared, &mut limiters, limits);
            match wait {
                Ok(grant) => {
                    if waiting.send(grant).is_err() {
                        shared.abandoned();
                    }
                    break;
                }
                Err(wait) => std::thread::sleep(wait.min(SLEEP_MAX)),
            }
        }
    }
}

/// A grant, or how long to wait before asking again.
fn try_grant(shared: &Shared, limiters: &mut Limiters, limits: [f64; 2]) -> Result<Grant, Duration> {
    if let Some(rest) = shared.pause_left() {
        return Err(rest);
    }
    let now = Instant::now();
    let current = shared.rate_at(now);
    limiters.adapt(limits, current);
    let strict = shared.window().wait(current.min(limits[0]).min(limits[1]), now);
    if !strict.is_zero() {
        return Err(strict);
    }
    limiters.check()?;
    // Asked last: a leave to probe is given once and must be used.
    shared.ask_circuit()?;
    let sent = Instant::now();
    Ok(Grant { sent, number: shared.window().granted(sent) })
}

/// The endpoint's and the account's limit; equal or not, both are asked.
struct Limiters {
    current: f64,
    limiters: Vec<DefaultDirectRateLimiter>,
    clock: QuantaClock,
}

impl Limiters {
    fn new(limits: [f64; 2], current: f64) -> Self {
        let mut limiters: Vec<_> = limits.iter().map(|limit| limiter(limit.min(current))).collect();
        // With equal limits the second always agrees with the first.
        if limits[0] <= limits[1] {
            limiters.truncate(1);
        }
        Self { current, limiters, clock: QuantaClock::default() }
    }

    fn adapt(&mut self, limits: [f64; 2], current: f64) {
        let slowest = limits[0].min(limits[1]);
        let was = self.current.min(slowest);
        if (was - current.min(slowest)).abs() > f64::EPSILON {
            *self = Self::new(limits, current);
            // A new limiter would grant at once; the last grant of the old one may be a moment ago.
            for limiter in &self.limiters {
                let _ = limiter.check_n(cells());
            }
        }
    }

    fn check(&self) -> Result<(), Duration> {
        // The strictest is asked first; as the rates are fixed fractions, the others have then let enough time pass.
        for limiter in self.limiters.iter().rev() {
            match limiter.check_n(cells()) {
                Ok(Ok(())) => {}
                Ok(Err(not_until)) => return Err(not_until.wait_time_from(self.clock.now())),
                Err(_) => unreachable!("every limiter's burst is at least one permit's cells"),
            }
        }
        Ok(())
    }
}

fn cells() -> NonZeroU32 {
    NonZeroU32::new(CELLS).expect("a permit has cells")
}

fn limiter(per_second: f64) -> DefaultDirectRateLimiter {
    let cell = Duration::from_secs_f64(1.0 / (per_second * f64::from(CELLS)));
    let late_cells =
        u32::try_from(super::whole(late_max(per_second) / cell.as_secs_f64())).unwrap_or(u32::MAX / 2);
    let burst = NonZeroU32::new(CELLS + late_cells).expect("a permit has cells");
    let quota = Quota::with_period(cell).expect("the period of a finite rate is not zero").allow_burst(burst);
    RateLimiter::direct(quota)
}
