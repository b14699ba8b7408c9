//! The gate: every decision of the pace, as a pure function of what happened and of the time.
//!
//! It lets jobs prepare (turns) and send (permits), and is told what became of them. A call needs room in its endpoint's
//! limit and in the account's, and in the one above all accounts if there is one; calls in flight, and whether Stripe answers, are
//! the account's. It neither waits nor keeps a queue, which is the [`super::Pace`]'s part; so whole hours of it are tried in a test within a moment.

use std::time::{Duration, Instant};

use super::circuit::{Circuit, Look};
use super::concurrency::ConcurrencyLimit;
use super::lane::Lane;
use super::level::Level;
use super::platform::Above;
use super::{Answered, CircuitState, Endpoint, Health, Limiter, Limits};

/// Longest that what was prepared is kept: a fetched key grows old.
const PREPARED_KEPT: Duration = Duration::from_secs(2);

/// What may be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum May<T> {
    /// Go on.
    Go(T),
    /// What was prepared is too old: prepare again, with another turn.
    Stale,
    /// Not before then.
    At(Instant),
    /// Not before something else has happened.
    Blocked,
}

/// Whether a turn that ended without a permit is another job's at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Yes,
    No,
}

/// Whether a turn or a permit decides about an open circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Yes,
    No,
}

/// One call that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) endpoint: Endpoint,
    number: u64,
    /// Calls in flight when it was let go.
    beside: usize,
    granted: Instant,
}

/// What an operator should hear of. The gate is asked and told under a lock, and the log may be slow: so it is said
/// once the lock is released.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Notice {
    SlowingDown { per_second: f64, pause: Duration },
    FewerAtOnce { concurrency: usize },
    DoesNotAnswer { cause: String, wait: Duration },
}

impl Notice {
    /// `host`: whose gate it is.
    pub(super) fn say(self, host: &str) {
        match self {
            Self::SlowingDown { per_second, pause } => {
                let pause_seconds = pause.as_secs_f64();
                tracing::warn!(per_second, pause_seconds, "Stripe limits; slowing down");
            }
            Self::FewerAtOnce { concurrency } => {
                tracing::warn!(concurrency, "Stripe limits calls in flight; fewer at once");
            }
            Self::DoesNotAnswer { cause, wait } => {
                let wait_seconds = wait.as_secs_f64();
                tracing::warn!(wait_seconds, "{host} does not answer: {cause}; jobs wait");
            }
        }
    }
}

/// The pace's state.
pub(super) struct Gate {
    /// To be said once the lock is released.
    notices: Vec<Notice>,
    limits: Limits,
    account: Level,
    lanes: [Lane; Endpoint::COUNT],
    concurrency: ConcurrencyLimit,
    circuit: Circuit,
    /// Permits out: calls that will be sent or have no answer yet.
    in_flight: usize,
    number: u64,
    above: Option<Above>,
}

impl Gate {
    pub(super) fn new(limits: Limits, concurrency: usize, now: Instant) -> Self {
        Self {
            notices: Vec::new(),
            limits,
            account: Level::new(limits.account, now),
            lanes: std::array::from_fn(|_| Lane::new(limits.strictest(), concurrency, now)),
            concurrency: ConcurrencyLimit::new(concurrency, now),
            circuit: Circuit::default(),
            in_flight: 0,
            number: 0,
            above: None,
        }
    }

    /// A limit is above the account's.
    pub(super) fn put_below(&mut self, above: Above) {
        self.above = Some(above);
    }

    /// Whether the next job of an endpoint may prepare.
    pub(super) fn turn(&mut self, endpoint: Endpoint, now: Instant) -> May<Probe> {
        if let Some(until) = self.paused(endpoint, now) {
            return May::At(until);
        }
        self.adapted(endpoint, now);
        let places = self.places(endpoint);
        if self.lanes[endpoint.index()].prepared >= places {
            return May::Blocked;
        }
        // What is above the account is not taken for jobs that could not be sent: an account whose calls hang would keep it from others.
        let prepared: usize = self.lanes.iter().map(|lane| lane.prepared).sum();
        if self.above.is_some() && self.in_flight + prepared >= self.concurrency.limit() {
            return May::Blocked;
        }
        let lane = &mut self.lanes[endpoint.index()];
        let probe = match self.circuit.look(now) {
            Look::Go => Probe::No,
            Look::Probe => Probe::Yes,
            Look::Wait(until) => return May::At(until),
            Look::Probing => return May::Blocked,
        };
        if let Err(from) = lane.turn_is_here(now) {
            return May::At(from);
        }
        if self.above.as_ref().is_some_and(|above| !above.turn(now)) {
            return May::Blocked;
        }
        lane.has_turn = false;
        if probe == Probe::Yes {
            self.circuit.probe();
        }
        lane.prepared += 1;
        May::Go(probe)
    }

    /// Whether the job that has been prepared since `ready` may send. `behind`: whether more jobs wait for a turn.
    pub(super) fn permit(
        &mut self,
        endpoint: Endpoint,
        probe: Probe,
        ready: Instant,
        behind: bool,
        now: Instant,
    ) -> May<Call> {
        let other_probes = probe == Probe::No && !self.circuit.is_closed();
        if other_probes || now.saturating_duration_since(ready) > PREPARED_KEPT {
            return May::Stale;
        }
        let stale_from = ready + PREPARED_KEPT;
        let later = |from: Instant| May::At(from.min(stale_from + Duration::from_millis(1)));
        let permits_from = self.lanes[endpoint.index()].permits_from.filter(|from| now < *from);
        if let Some(until) = self.paused(endpoint, now).or(permits_from) {
            return later(until);
        }
        self.adapted(endpoint, now);
        if self.in_flight >= self.concurrency.limit() {
            return later(stale_from);
        }
        let per_second = self.per_second(endpoint);
        let Self { account, lanes, above, .. } = self;
        let lane = &mut lanes[endpoint.index()];
        for level in [&mut lane.level, &mut *account] {
            if let Err(from) = level.room(now) {
                return later(from.unwrap_or(stale_from));
            }
        }
        if let Err(from) = lane.time_is_here(account, now) {
            return later(from);
        }
        if above.as_ref().is_some_and(|above| !above.permit(now)) {
            return later(stale_from);
        }
        lane.time_is_used();
        if behind {
            lane.lead(per_second, now);
        }
        lane.prepared = lane.prepared.saturating_sub(1);
        lane.level.granted();
        account.granted();
        self.number += 1;
        let call = Call { endpoint, number: self.number, beside: self.in_flight, granted: now };
        self.in_flight += 1;
        May::Go(call)
    }

    /// A preparation took so long.
    pub(super) fn prepared_in(&mut self, endpoint: Endpoint, took: Duration) {
        self.lanes[endpoint.index()].preparation.took(took);
        if let Some(above) = &self.above {
            above.prepared_in(took);
        }
    }

    /// A turn ended without a permit, and is handed on.
    pub(super) fn turn_back(&mut self, endpoint: Endpoint, probe: Probe, now: Instant) {
        let places = self.places(endpoint);
        let lane = &mut self.lanes[endpoint.index()];
        lane.hand_turn_on(places);
        self.turn_ended(endpoint, probe, Again::Yes, now);
    }

    /// What was prepared had grown old. Its job prepares again, in its turn: not at once with all the others.
    pub(super) fn turn_stale(&mut self, endpoint: Endpoint, probe: Probe, now: Instant) {
        self.lanes[endpoint.index()].led = false;
        self.turn_ended(endpoint, probe, Again::No, now);
    }

    /// The preparation failed: the key could not be had, which says nothing of whether Stripe answers. The next turn
    /// comes at its time, not at once, so that no key endpoint that is down is asked faster than one that is up.
    pub(super) fn turn_failed(&mut self, endpoint: Endpoint, probe: Probe, now: Instant) {
        self.turn_ended(endpoint, probe, Again::No, now);
    }

    fn turn_ended(&mut self, endpoint: Endpoint, probe: Probe, again: Again, now: Instant) {
        if let Some(above) = &self.above {
            above.turn_ended(again, now);
        }
        let lane = &mut self.lanes[endpoint.index()];
        lane.prepared = lane.prepared.saturating_sub(1);
        if probe == Probe::Yes {
            self.circuit.abandoned(now);
        }
    }

    /// Whoever watches the time for the gate woke so much later than it wanted to.
    pub(super) fn woke_late(&mut self, late: Duration, now: Instant) {
        self.account.was_late(late, now);
        self.lanes.iter_mut().for_each(|lane| lane.level.was_late(late, now));
    }

    /// The call leaves.
    pub(super) fn left(&mut self, call: Call, now: Instant) {
        let late = now.saturating_duration_since(call.granted);
        self.account.left(call.number, late, now);
        if let Some(above) = &self.above {
            above.left(late, now);
        }
        self.lanes[call.endpoint.index()].level.left(call.number, late, now);
    }

    /// The call never left.
    pub(super) fn never_left(&mut self, endpoint: Endpoint) {
        let places = self.places(endpoint);
        self.account.never_left();
        if let Some(above) = &self.above {
            above.never_left();
        }
        let lane = &mut self.lanes[endpoint.index()];
        lane.level.never_left();
        // One, however many: what follows stays even. Who takes it needs a turn as well.
        lane.permits_back = 1;
        lane.hand_turn_on(places);
    }

    /// Nothing is known of how the call ended: whoever made it was cancelled.
    pub(super) fn abandoned(&mut self, probe: Probe, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if probe == Probe::Yes {
            self.circuit.abandoned(now);
        }
    }

    /// The call ended.
    pub(super) fn answered(&mut self, answered: Answered, call: Call, probe: Probe, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match answered {
            Answered::Accepted => self.circuit.answered(),
            Answered::Limited(limiter) => {
                self.circuit.answered();
                self.limited(limiter, call, now);
            }
            Answered::Failed(cause) => {
                if let Some(wait) = self.circuit.failed(probe == Probe::Yes, now) {
                    self.notices.push(Notice::DoesNotAnswer { cause, wait });
                }
            }
        }
    }

    /// A limiter turned that call away: none of them let it through.
    fn limited(&mut self, limiter: Limiter, call: Call, now: Instant) {
        let lane = &mut self.lanes[call.endpoint.index()];
        let left = self.account.turned_away(call.number).unwrap_or(now);
        lane.level.turned_away(call.number);
        let level = match limiter {
            Limiter::Concurrency => {
                if let Some(concurrency) = self.concurrency.limited(call.beside, now) {
                    self.notices.push(Notice::FewerAtOnce { concurrency });
                }
                return;
            }
            Limiter::EndpointRate => &mut lane.level,
            Limiter::AccountRate => &mut self.account,
        };
        if let Some(pause) = level.slow_down(left, now) {
            let per_second = level.current();
            self.notices.push(Notice::SlowingDown { per_second, pause });
        }
    }

    /// Nobody calls before then.
    pub(super) fn pause_until(&mut self, until: Instant) {
        self.account.pause_until(until);
    }

    /// What is to be said since the last time.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What the pace is at this moment; the queues and the key endpoint are not known here.
    pub(super) fn health(&self, now: Instant) -> Health {
        let levels = || self.lanes.iter().map(|lane| &lane.level);
        let paused = levels().chain([&self.account]).filter_map(|level| level.paused(now)).max();
        Health {
            configured_per_second: self.limits.strictest(),
            current_per_second: levels().map(Level::current).fold(self.account.current(), f64::min),
            used_per_second: levels().map(|level| level.used(now)).max().unwrap_or(0),
            concurrency: self.concurrency.limit(),
            in_flight: self.in_flight,
            preparing: self.lanes.iter().map(|lane| lane.prepared).sum(),
            waiting: 0,
            paused_for: paused.map(|until| until - now),
            circuit: self.circuit.state(),
            key_circuit: CircuitState::Closed,
        }
    }

    fn paused(&self, endpoint: Endpoint, now: Instant) -> Option<Instant> {
        self.account.paused(now).max(self.lanes[endpoint.index()].level.paused(now))
    }

    /// Time alone may have raised the rates and the concurrency.
    fn adapted(&mut self, endpoint: Endpoint, now: Instant) {
        self.concurrency.tick(self.in_flight, now);
        self.account.tick(now);
        self.lanes[endpoint.index()].level.tick(now);
        let per_second = self.per_second(endpoint);
        self.lanes[endpoint.index()].turns.adapt(per_second, now);
    }

    /// What an endpoint may have at most.
    fn per_second(&self, endpoint: Endpoint) -> f64 {
        self.lanes[endpoint.index()].level.current().min(self.account.current())
    }

    /// How many of an endpoint's jobs may prepare or stand prepared: for its share of the account's rate, as what was
    /// prepared grows old.
    fn places(&self, endpoint: Endpoint) -> usize {
        let lane = &self.lanes[endpoint.index()];
        let others = self.lanes.iter().filter(|lane| lane.prepared > 0).count();
        let sharing = if lane.prepared > 0 { others } else { others + 1 };
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let share = self.account.current() / sharing as f64;
        lane.preparation.places(lane.level.current().min(share))
    }
}
