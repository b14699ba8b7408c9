//! The account's pace: who may call Stripe, when.
//!
//! Stripe counts arrivals in a strict one-second window, but a job fetches a key and writes to the ledger between
//! being let in and calling. So a job first takes a [`Turn`] (in order; only as many as can be used in a moment),
//! prepares, and then waits for its [`Permit`], after which it sends at once.
//!
//! Why no second ever holds more than the configured rate R: permits are granted by a cell-rate limiter with the
//! period T = 1 / (R × (1 − [`SLACK`])), and a grant may come at most [`LATE`] earlier than its place on the even
//! grid after a late one. So R + 1 grants span at least R × T − LATE ≥ 1 s × (1 + SLACK) − LATE > 1 s. What is
//! left, about 2.5 ms, absorbs the way from the grant to the wire.

mod adapt;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, QuantaClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::config::PaceConfig;
use crate::stripe::LimitReason;
use adapt::Adapt;

/// The share of the rate that is left unused, so that a whole second of it leaves 4.5 ms.
const SLACK: f64 = 0.0045;
/// How far a grant may lag behind the even grid and still be made up for.
const LATE: Duration = Duration::from_millis(2);
/// Cells per permit: governor's bursts are whole cells, and [`LATE`] is a fraction of a permit.
const CELLS: u32 = 100;
/// How much work may be prepared ahead: as many jobs as the pace takes in this time.
const PREPARED: Duration = Duration::from_millis(300);
/// A permit that had to be waited for longer than this finds its key stale: the job must prepare again.
const PREPARED_KEPT: Duration = Duration::from_secs(2);
/// In-flight calls when none are configured: what the pace takes in this time (Stripe's slowest usual answers).
const LATENCY_ASSUMED: Duration = Duration::from_secs(4);
/// Failures in a row after which Stripe is taken to be down.
const FAILURES_MAX: u32 = 8;
/// First pause of the whole line when Stripe is down; doubles up to [`DOWN_PAUSE_MAX`].
const DOWN_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause of the whole line when Stripe is down.
const DOWN_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The line is closing: no more turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line is closed")]
pub struct Closed;

/// How a call ended, for the pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The limiters let it through.
    Accepted,
    /// A limiter turned it away.
    Limited(LimitReason),
    /// Stripe could not be reached or is in trouble.
    Failed,
}

/// What the pace is at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Health {
    /// Configured, in calls per second: the smaller of the endpoint's and the account's limit.
    pub configured_per_second: f64,
    /// Adapted to what Stripe accepts.
    pub current_per_second: f64,
    /// Most calls in flight.
    pub concurrency: usize,
    /// Whether the line pauses.
    pub paused: bool,
}

/// Hands out turns and permits. Clones share it.
#[derive(Clone)]
pub struct Pace {
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<oneshot::Sender<Grant>>,
}

struct Shared {
    configured: f64,
    concurrency_configured: usize,
    prepared: Arc<Semaphore>,
    in_flight: Arc<Semaphore>,
    /// Concurrency taken away after a concurrency limiter's 429, given back in steps.
    withheld: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    adapt: Adapt,
    paused_until: Option<Instant>,
    failures: u32,
    down_pause: Duration,
    concurrency_restored: Instant,
}

struct Grant {
    sent: Instant,
}

/// A place near the head of the line: time to fetch the key and prepare. Dropped, it goes to the next.
#[must_use]
pub struct Turn {
    pace: Pace,
    prepared: OwnedSemaphorePermit,
    in_flight: OwnedSemaphorePermit,
    taken: Instant,
}

/// The moment to send.
#[must_use]
pub struct Permit {
    pace: Pace,
    sent: Instant,
    _in_flight: OwnedSemaphorePermit,
}

/// What came of waiting for a permit.
pub enum Waited {
    /// Send now.
    Permit(Permit),
    /// The line was paused for so long that what was prepared is stale: take another turn.
    TooLong,
}

impl Pace {
    /// Starts the pacer. Limits must be positive; the configuration checks that.
    #[must_use]
    pub fn start(config: &PaceConfig) -> Self {
        let configured = config.endpoint_per_second.min(config.account_per_second);
        let concurrency = match config.concurrency {
            0 => whole(configured * LATENCY_ASSUMED.as_secs_f64()).clamp(16, 512),
            configured => configured,
        };
        let ahead = whole(configured * PREPARED.as_secs_f64()).clamp(2, concurrency.max(2));
        let now = Instant::now();
        let shared = Arc::new(Shared {
            configured,
            concurrency_configured: concurrency,
            prepared: Arc::new(Semaphore::new(ahead)),
            in_flight: Arc::new(Semaphore::new(concurrency)),
            withheld: AtomicUsize::new(0),
            state: Mutex::new(State {
                adapt: Adapt::new(configured),
                paused_until: None,
                failures: 0,
                down_pause: DOWN_PAUSE_MIN,
                concurrency_restored: now,
            }),
        });
        let (requests, queue) = mpsc::unbounded_channel();
        tokio::spawn(hand_out(
            shared.clone(),
            queue,
            [config.endpoint_per_second, config.account_per_second],
        ));
        Self { shared, requests }
    }

    /// Waits for a place near the head of the line, in order of arrival.
    ///
    /// # Errors
    /// If the line is closing.
    pub async fn turn(&self) -> Result<Turn, Closed> {
        let in_flight = self.shared.in_flight.clone().acquire_owned().await.map_err(|_| Closed)?;
        let prepared = self.shared.prepared.clone().acquire_owned().await.map_err(|_| Closed)?;
        // Nobody prepares while the line pauses: the key would be stale by the end of it.
        while let Some(rest) = self.shared.pause_left() {
            if self.shared.prepared.is_closed() {
                return Err(Closed);
            }
            tokio::time::sleep(rest.min(Duration::from_millis(200))).await;
        }
        Ok(Turn { pace: self.clone(), prepared, in_flight, taken: Instant::now() })
    }

    /// No more turns; jobs that wait for one are told. Permits still come to those that have theirs.
    pub fn close(&self) {
        self.shared.in_flight.close();
        self.shared.prepared.close();
    }

    /// What the pace is at this moment.
    #[must_use]
    pub fn health(&self) -> Health {
        // A statement of its own: the guard must be gone before the pause is asked for.
        let current_per_second = self.shared.state().adapt.current();
        Health {
            configured_per_second: self.shared.configured,
            current_per_second,
            concurrency: self.concurrency(),
            paused: self.shared.pause_left().is_some(),
        }
    }

    fn concurrency(&self) -> usize {
        self.shared.concurrency_configured - self.shared.withheld.load(Ordering::Relaxed)
    }
}

impl Turn {
    /// Waits for the moment to send.
    pub async fn permit(self) -> Waited {
        let Self { pace, prepared, in_flight, taken } = self;
        let (grant, granted) = oneshot::channel();
        if pace.requests.send(grant).is_err() {
            return Waited::TooLong;
        }
        let Ok(grant) = granted.await else { return Waited::TooLong };
        drop(prepared);
        if grant.sent.saturating_duration_since(taken) > PREPARED_KEPT {
            // Its slot is lost, once per pause and job; a PIN under a stale key would be worse.
            return Waited::TooLong;
        }
        Waited::Permit(Permit { pace, sent: grant.sent, _in_flight: in_flight })
    }
}

impl Permit {
    /// Says how the call ended.
    pub fn answered(self, answered: Answered) {
        self.pace.shared.answered(answered, self.sent);
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change to the state is a plain assignment; a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause_left(&self) -> Option<Duration> {
        let until = self.state().paused_until?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn answered(&self, answered: Answered, sent: Instant) {
        let now = Instant::now();
        let mut state = self.state();
        match answered {
            Answered::Accepted => {
                state.adapt.accepted(sent);
                state.failures = 0;
                state.down_pause = DOWN_PAUSE_MIN;
                if now.saturating_duration_since(state.concurrency_restored) > Duration::from_secs(5) {
                    state.concurrency_restored = now;
                    self.restore_one();
                }
            }
            Answered::Limited(LimitReason::GlobalConcurrency | LimitReason::EndpointConcurrency) => {
                state.failures = 0;
                state.concurrency_restored = now;
                self.withhold_a_quarter();
                state.pause(now, Duration::from_millis(100));
            }
            Answered::Limited(
                LimitReason::GlobalRate
                | LimitReason::EndpointRate
                | LimitReason::ResourceSpecific
                | LimitReason::Other,
            ) => {
                state.failures = 0;
                if let Some(pause) = state.adapt.limited(sent, now) {
                    let per_second = state.adapt.current();
                    tracing::warn!(per_second, "Stripe limits; slowing down");
                    state.pause(now, pause);
                }
            }
            Answered::Failed => {
                state.failures += 1;
                if state.failures >= FAILURES_MAX {
                    state.failures = FAILURES_MAX - 1;
                    let pause = state.down_pause;
                    state.down_pause = (pause * 2).min(DOWN_PAUSE_MAX);
                    tracing::warn!(pause_seconds = pause.as_secs_f64(), "Stripe does not answer; pausing");
                    state.pause(now, pause);
                }
            }
        }
    }

    fn withhold_a_quarter(&self) {
        let left = self.concurrency_configured - self.withheld.load(Ordering::Relaxed);
        let take = (left / 4).max(1).min(left.saturating_sub(1));
        let taken = self.in_flight.forget_permits(take);
        self.withheld.fetch_add(taken, Ordering::Relaxed);
    }

    fn restore_one(&self) {
        let restored =
            self.withheld.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| held.checked_sub(1));
        if restored.is_ok() && !self.in_flight.is_closed() {
            self.in_flight.add_permits(1);
        }
    }
}

impl State {
    fn pause(&mut self, now: Instant, pause: Duration) {
        let until = now + pause;
        if self.paused_until.is_none_or(|already| already < until) {
            self.paused_until = Some(until);
        }
    }
}

/// One task checks the limiters and hands permits out in order: governor's own waiting is neither fair nor cheap
/// with many waiters.
async fn hand_out(
    shared: Arc<Shared>,
    mut queue: mpsc::UnboundedReceiver<oneshot::Sender<Grant>>,
    limits: [f64; 2],
) {
    let mut limiters = Limiters::new(limits, f64::INFINITY);
    while let Some(waiting) = queue.recv().await {
        loop {
            // One that gave up waiting must not cost a slot.
            if waiting.is_closed() {
                break;
            }
            if let Some(rest) = shared.pause_left() {
                tokio::time::sleep(rest).await;
                continue;
            }
            let current = {
                let mut state = shared.state();
                state.adapt.tick(Instant::now());
                state.adapt.current()
            };
            limiters.adapt(limits, current);
            match limiters.check() {
                Ok(()) => {
                    let _ = waiting.send(Grant { sent: Instant::now() });
                    break;
                }
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
    }
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
    let cell = Duration::from_secs_f64(1.0 / (per_second * (1.0 - SLACK) * f64::from(CELLS)));
    let late_cells = u32::try_from(whole(LATE.as_secs_f64() / cell.as_secs_f64())).unwrap_or(u32::MAX / 2);
    let burst = NonZeroU32::new(CELLS + late_cells).expect("a permit has cells");
    let quota = Quota::with_period(cell).expect("the period of a finite rate is not zero").allow_burst(burst);
    RateLimiter::direct(quota)
}

/// A small non-negative number rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
fn whole(value: f64) -> usize {
    value.ceil() as usize
}
