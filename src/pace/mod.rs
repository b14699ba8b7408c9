//! The account's pace: who may call Stripe, when.
//!
//! Stripe counts arrivals in a strict one-second window, but a job fetches a key and writes to the ledger between
//! being let in and calling. So a job first takes a [`Turn`] (in order; no more than can be used in a moment),
//! prepares, and then waits for its [`Permit`], after which it sends at once and tells when its call has left.
//!
//! Stripe limits each endpoint, and the account above them: so each endpoint has a queue and a limit of its own, and a call
//! needs room in both. Guarantees: an endpoint's turns and permits are given in order of arrival. Whoever stops waiting, or
//! drops what was given, takes nothing along. No second holds more calls than a configured rate, judged by when they left:
//! permits are evenly spaced by a cell-rate limiter ([`spacing`]), and what leaves late delays those a second after it
//! ([`window`]). All decisions are the [`gate`]'s; this file keeps the queues and the time.

mod adapt;
mod breaker;
mod circuit;
mod concurrency;
mod gate;
mod lane;
mod level;
mod pacer;
mod platform;
mod preparation;
#[cfg(test)]
mod simulation;
mod spacing;
mod waiting;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::PaceConfig;
use crate::metrics;
pub use breaker::{Breaker, Pass};
use gate::{Call, Gate, Probe};
pub use pacer::Pacer;
use waiting::{Place, Queueing, Shared, Watcher};

/// In-flight calls when none are configured: what the pace takes in this time (Stripe's slowest usual answers).
const LATENCY_ASSUMED: Duration = Duration::from_secs(4);
/// Bounds of that: a few even at the slowest pace, and never more connections than a process may have open.
const CONCURRENCY_DEFAULT: std::ops::RangeInclusive<usize> = 16..=512;

/// The line is closing: no more turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line is closed")]
pub struct Closed;

/// How a call ended, for the pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The limiters let it through.
    Accepted,
    /// A limiter turned it away.
    Limited(Limiter),
    /// Stripe could not be reached or is in trouble: why, for the log.
    Failed(String),
}

/// What Stripe limits for itself, beside the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Creating a card.
    CreateCard,
    /// Changing a card.
    UpdateCard,
    /// Creating a cardholder.
    CreateCardholder,
    /// Listing cards.
    ListCards,
    /// Listing cardholders.
    ListCardholders,
    /// Retrieving one object.
    Retrieve,
    /// Making ephemeral keys.
    EphemeralKeys,
}

impl Endpoint {
    /// All of them, each at its index.
    const ALL: [Self; 7] = [
        Self::CreateCard,
        Self::UpdateCard,
        Self::CreateCardholder,
        Self::ListCards,
        Self::ListCardholders,
        Self::Retrieve,
        Self::EphemeralKeys,
    ];
    const COUNT: usize = Self::ALL.len();

    const fn index(self) -> usize {
        self as usize
    }
}

/// What a limiter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limiter {
    /// An endpoint's calls in a second: it slows down.
    EndpointRate,
    /// The account's calls in a second: all of them do.
    AccountRate,
    /// Calls in flight: fewer go at once, at the same pace.
    Concurrency,
}

/// Whether a host is taken to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// It answers.
    Closed,
    /// It failed several times in a row: nobody calls for a while.
    Open,
    /// One job calls, and how that ends decides.
    Probing,
}

/// What the pace is at this moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Health {
    /// Configured for an endpoint, in calls per second, and no more than for the account.
    pub configured_per_second: f64,
    /// Adapted to what Stripe accepts, of the endpoint for which that is least.
    pub current_per_second: f64,
    /// Calls that left in the last second, of the endpoint that had most.
    pub used_per_second: usize,
    /// Most calls in flight, adapted to what Stripe accepts.
    pub concurrency: usize,
    /// Calls that were let go and have no answer yet.
    pub in_flight: usize,
    /// Jobs that prepare, or are prepared and wait to send.
    pub preparing: usize,
    /// Jobs that wait for their turn.
    pub waiting: usize,
    /// For how long everybody pauses, after a limiter's 429.
    pub paused_for: Option<Duration>,
    /// Whether Stripe's API is taken to be there.
    pub circuit: CircuitState,
    /// Whether the endpoint of PIN keys is.
    pub key_circuit: CircuitState,
}

/// What Stripe allows, in calls per second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limits {
    endpoint: f64,
    account: f64,
}

impl Limits {
    fn strictest(&self) -> f64 {
        self.endpoint.min(self.account)
    }
}

/// Hands out turns and permits. Clones share it.
#[derive(Clone)]
pub struct Pace {
    queueing: Queueing,
    key_endpoint: Breaker,
}

/// A place near the head of the line: time to fetch the key and prepare. Dropped, it goes to the next.
#[must_use]
pub struct Turn {
    queueing: Queueing,
    place: Place,
    taken: Instant,
}

/// The moment to send.
#[must_use]
pub struct Permit {
    shared: Arc<Shared>,
    call: Call,
    probe: Probe,
    departure: Option<Departure>,
    answered: bool,
}

/// Tells when the permit's call has left. Dropped, the call never did, and the permit's moment is handed on.
#[must_use]
pub struct Departure {
    shared: Arc<Shared>,
    call: Call,
    left: bool,
}

/// What came of waiting for a permit.
pub enum Waited {
    /// Send now.
    Permit(Permit),
    /// The line was paused for so long that what was prepared is stale: take another turn.
    TooLong,
}

impl Pace {
    /// One alone, with a pacer of its own. Limits must be positive; the configuration checks that.
    #[must_use]
    pub fn start(config: &PaceConfig) -> Self {
        Self::with(config, &Pacer::start())
    }

    /// One of several, whose times one pacer watches.
    #[must_use]
    pub fn with(config: &PaceConfig, pacer: &Pacer) -> Self {
        Self::start_with(config, &Watcher::Pacer(pacer))
    }

    /// The same for a simulation: its time is watched by a task, not by a thread.
    #[cfg(feature = "killpoints")]
    #[must_use]
    pub fn simulated(config: &PaceConfig) -> Self {
        Self::start_with(config, &Watcher::Task)
    }

    fn start_with(config: &PaceConfig, watcher: &Watcher<'_>) -> Self {
        let limits = Limits { endpoint: config.endpoint_per_second, account: config.account_per_second };
        let concurrency = match config.concurrency {
            0 => whole(limits.strictest() * LATENCY_ASSUMED.as_secs_f64())
                .clamp(*CONCURRENCY_DEFAULT.start(), *CONCURRENCY_DEFAULT.end()),
            configured => configured,
        };
        Self {
            queueing: Queueing::open(Gate::new(limits, concurrency, now()), watcher),
            key_endpoint: Breaker::new("Stripe's PIN key endpoint", "jobs with a PIN wait"),
        }
    }

    /// Waits for a place near the head of the endpoint's line, in order of arrival.
    ///
    /// # Errors
    /// If the line is closing.
    pub async fn turn(&self, endpoint: Endpoint) -> Result<Turn, Closed> {
        let place = self.queueing.place(endpoint).await?;
        Ok(Turn { queueing: self.queueing.clone(), place, taken: now() })
    }

    /// Names the hosts in what the log says of them: the API's, and the one where PIN keys are fetched.
    pub fn name_hosts(&self, api: &str, keys: &str) {
        self.queueing.name_host(api);
        self.key_endpoint.name_host(keys);
    }

    /// What a job with a PIN passes before its turn, so that one that waits for the key endpoint keeps no turn from
    /// those that do not need it.
    #[must_use]
    pub fn key_endpoint(&self) -> &Breaker {
        &self.key_endpoint
    }

    /// No more turns; jobs that wait for one are told. Permits still come to those that have theirs.
    pub fn close(&self) {
        self.queueing.close();
    }

    /// No call before so much time has passed: those of another process may still count in Stripe's second.
    pub fn hold(&self, rest: Duration) {
        if !rest.is_zero() {
            self.queueing.hold(now() + rest);
        }
    }

    /// What the pace is at this moment.
    #[must_use]
    pub fn health(&self) -> Health {
        Health { key_circuit: self.key_endpoint.state(), ..self.queueing.health() }
    }

    /// Sets the metrics of what the pace is at this moment, of that account where the process calls for several.
    pub fn show(&self, account: Option<&str>) {
        let health = self.health();
        let shown = metrics::Pace {
            configured_per_second: health.configured_per_second,
            current_per_second: health.current_per_second,
            concurrency: health.concurrency,
            is_paused: health.paused_for.is_some(),
            is_stripe_down: health.circuit != CircuitState::Closed,
            is_key_endpoint_down: health.key_circuit != CircuitState::Closed,
        };
        metrics::pace(&shown, account);
    }
}

impl Turn {
    /// Waits for the moment to send.
    pub async fn permit(self) -> Waited {
        let Self { queueing, place, taken } = self;
        queueing
            .permit(place, now().saturating_duration_since(taken))
            .await
            .map_or(Waited::TooLong, Waited::Permit)
    }

    /// The job could not prepare, as the key endpoint failed, which the pace takes for no failure of Stripe's API. Its
    /// place goes to the next.
    pub fn failed(self) {
        self.place.failed();
    }
}

impl Permit {
    fn new(shared: Arc<Shared>, call: Call, probe: Probe) -> Self {
        let departure = Some(Departure { shared: shared.clone(), call, left: false });
        Self { shared, call, probe, departure, answered: false }
    }

    /// What must be told when the call's first byte leaves; it can go along with the request's body.
    ///
    /// # Panics
    /// If it was taken before: a permit is for one call.
    pub fn departure(&mut self) -> Departure {
        self.departure.take().expect("a permit is for one call")
    }

    /// As if it had never been: for who holds the lock and tells the gate itself.
    fn undo(&mut self) {
        self.answered = true;
        if let Some(departure) = &mut self.departure {
            departure.left = true;
        }
    }

    /// Says how the call ended.
    pub fn answered(mut self, answered: Answered) {
        // A departure that nobody told of ends first: what is not known to have left has not.
        self.departure = None;
        self.answered = true;
        let now = now();
        let (call, probe) = (self.call, self.probe);
        self.shared.change(|gate| gate.answered(answered, call, probe, now));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.answered {
            self.departure = None;
            let (probe, now) = (self.probe, now());
            self.shared.change(|gate| gate.abandoned(probe, now));
        }
    }
}

impl Departure {
    /// The call leaves now.
    pub fn left(mut self) {
        self.left = true;
        let (call, now) = (self.call, now());
        self.shared.change(|gate| gate.left(call, now));
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if !self.left {
            let endpoint = self.call.endpoint;
            self.shared.change(|gate| gate.never_left(endpoint));
        }
    }
}

/// The machine's time, or a simulation's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A small non-negative number rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and not negative")]
pub(crate) fn whole(value: f64) -> usize {
    value.ceil() as usize
}
