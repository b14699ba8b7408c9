//! The account's pace: who may call Stripe, when.
//!
//! Stripe counts arrivals in a strict one-second window, but a job fetches a key and writes to the ledger between
//! being let in and calling. So a job first takes a [`Turn`] (in order; only as many as can be used in a moment),
//! prepares, and then waits for its [`Permit`], after which it sends at once.
//!
//! Why no second ever holds more than the configured rate: permits are granted evenly by a cell-rate limiter
//! ([`pacer`]), and never before a second and a margin after the call that was sent so many permits ago
//! ([`window`]). Evenness alone would not do, since what counts is when calls arrive.

mod adapt;
mod circuit;
mod pacer;
mod preparation;
mod room;
mod window;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::config::PaceConfig;
use crate::stripe::LimitReason;
use adapt::Adapt;
use circuit::{Circuit, Leave};
use preparation::Preparation;
use room::Room;
use window::Window;

/// A permit that had to be waited for longer than this finds its key too old: the job must prepare again.
const PREPARED_KEPT: Duration = Duration::from_secs(2);
/// In-flight calls when none are configured: what the pace takes in this time (Stripe's slowest usual answers).
const LATENCY_ASSUMED: Duration = Duration::from_secs(4);
/// Between two steps of concurrency back up.
const CONCURRENCY_STEP: Duration = Duration::from_secs(5);
/// Pause of everybody after a concurrency limiter's 429: the calls in flight are the trouble, not the pace.
const CONCURRENCY_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks whether a probe has ended.
const PROBE_LOOK: Duration = Duration::from_millis(50);

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
    /// Jobs that hold one of those places: preparing, waiting to send, or sent.
    pub in_flight: usize,
    /// Whether the line pauses.
    pub paused: bool,
    /// Whether Stripe is taken to be down: only a probe calls now and then.
    pub down: bool,
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
    /// Those who prepare or wait for their permit.
    prepared: Room,
    /// Those, and those whose call is under way.
    in_flight: Room,
    state: Mutex<State>,
    window: Mutex<Window>,
}

struct State {
    adapt: Adapt,
    circuit: Circuit,
    preparation: Preparation,
    paused_until: Option<Instant>,
    concurrency_restored: Instant,
}

struct Grant {
    sent: Instant,
    number: u64,
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
    answered: bool,
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
        let preparation = Preparation::new(configured, concurrency);
        let shared = Arc::new(Shared {
            configured,
            concurrency_configured: concurrency,
            prepared: Room::new(preparation.places()),
            in_flight: Room::new(concurrency),
            state: Mutex::new(State {
                adapt: Adapt::new(configured),
                circuit: Circuit::default(),
                preparation,
                paused_until: None,
                concurrency_restored: Instant::now(),
            }),
            window: Mutex::default(),
        });
        let (requests, queue) = mpsc::unbounded_channel();
        let limits = [config.endpoint_per_second, config.account_per_second];
        let of_pacer = shared.clone();
        std::thread::Builder::new()
            .name("pacer".into())
            .spawn(move || pacer::hand_out(&of_pacer, queue, limits))
            .expect("a process that cannot start one thread cannot work");
        Self { shared, requests }
    }

    /// Waits for a place near the head of the line, in order of arrival.
    ///
    /// # Errors
    /// If the line is closing.
    pub async fn turn(&self) -> Result<Turn, Closed> {
        let in_flight = self.shared.in_flight.enter().await.map_err(|_| Closed)?;
        let prepared = self.shared.prepared.enter().await.map_err(|_| Closed)?;
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
        let state = self.shared.state();
        let now = Instant::now();
        Health {
            configured_per_second: self.shared.configured,
            current_per_second: state.adapt.current(),
            concurrency: self.shared.in_flight.size(),
            in_flight: self.shared.in_flight.taken(),
            paused: state.paused_until.is_some_and(|until| until > now),
            down: !state.circuit.is_closed(),
        }
    }
}

impl Turn {
    /// Waits for the moment to send.
    pub async fn permit(self) -> Waited {
        let Self { pace, prepared, in_flight, taken } = self;
        let ready = Instant::now();
        pace.shared.prepared_in(ready.saturating_duration_since(taken));
        let (grant, granted) = oneshot::channel();
        if pace.requests.send(grant).is_err() {
            return Waited::TooLong;
        }
        let Ok(grant) = granted.await else { return Waited::TooLong };
        drop(prepared);
        let sent = pace.shared.sent(grant.number);
        let permit = Permit { pace, sent, answered: false, _in_flight: in_flight };
        if grant.sent.saturating_duration_since(ready) > PREPARED_KEPT {
            // Its slot is lost, once per pause and job; a PIN under a stale key would be worse.
            return Waited::TooLong;
        }
        Waited::Permit(permit)
    }
}

impl Permit {
    /// Says how the call ended.
    pub fn answered(mut self, answered: Answered) {
        self.answered = true;
        self.pace.shared.answered(answered, self.sent);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.answered {
            self.pace.shared.abandoned();
        }
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

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call of that grant goes out now.
    fn sent(&self, number: u64) -> Instant {
        let now = Instant::now();
        self.window().sent(number, now);
        self.state().adapt.sent(now);
        now
    }

    /// The rate at this moment; time alone may have raised it.
    fn rate_at(&self, now: Instant) -> f64 {
        let mut state = self.state();
        state.adapt.tick(now);
        state.adapt.current()
    }

    /// Leave to call, or how long to wait before asking again.
    fn ask_circuit(&self) -> Result<(), Duration> {
        match self.state().circuit.ask(Instant::now()) {
            Leave::Go => Ok(()),
            Leave::Wait(rest) => Err(rest),
            Leave::Probing => Err(PROBE_LOOK),
        }
    }

    /// A call whose caller was cancelled.
    fn abandoned(&self) {
        self.state().circuit.abandoned(Instant::now());
    }

    /// A job took so long to prepare: as many are let prepare as the pace needs meanwhile.
    fn prepared_in(&self, took: Duration) {
        let mut state = self.state();
        if let Some(places) = state.preparation.took(took) {
            self.prepared.resize(places);
        }
    }

    fn answered(&self, answered: Answered, sent: Instant) {
        let now = Instant::now();
        let mut state = self.state();
        if answered != Answered::Failed {
            state.circuit.answered();
        }
        match answered {
            Answered::Accepted => {
                let step_due = now.saturating_duration_since(state.concurrency_restored) > CONCURRENCY_STEP;
                if step_due && self.in_flight.size() < self.concurrency_configured {
                    state.concurrency_restored = now;
                    self.in_flight.resize(self.in_flight.size() + 1);
                }
            }
            Answered::Limited(LimitReason::GlobalConcurrency | LimitReason::EndpointConcurrency) => {
                state.concurrency_restored = now;
                let size = self.in_flight.size();
                self.in_flight.resize((size - size / 4).min(size - 1).max(1));
                state.pause(now, CONCURRENCY_PAUSE);
            }
            Answered::Limited(
                LimitReason::GlobalRate
                | LimitReason::EndpointRate
                | LimitReason::ResourceSpecific
                | LimitReason::Other,
            ) => {
                if let Some(pause) = state.adapt.limited(sent, now) {
                    let per_second = state.adapt.current();
                    tracing::warn!(per_second, "Stripe limits; slowing down");
                    state.pause(now, pause);
                }
            }
            Answered::Failed => {
                if let Some(wait) = state.circuit.failed(now) {
                    tracing::warn!(wait_seconds = wait.as_secs_f64(), "Stripe does not answer; waiting");
                }
            }
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

/// A small non-negative number rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
pub(crate) fn whole(value: f64) -> usize {
    value.ceil() as usize
}
