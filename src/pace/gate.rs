//! The gate: every decision of the pace, as a pure function of what happened and of the time.
//!
//! It lets jobs prepare (turns) and send (permits), and is told what became of them. It neither waits nor keeps a
//! queue, which is the [`super::Pace`]'s part; so whole hours of it are tried in a test within a moment.

use std::time::{Duration, Instant};

use super::adapt::Adapt;
use super::circuit::{Circuit, Look};
use super::concurrency::ConcurrencyLimit;
use super::preparation::Preparation;
use super::spacing::Spacing;
use super::window::Window;
use super::{Answered, CircuitState, Health, Limiter, Limits};

/// How late a permit may come and still be made up for: what a busy machine is late by at times.
const PERMIT_LATE_MAX: Duration = Duration::from_millis(20);
/// The same for turns, which nobody counts strictly: they must not fall behind the permits.
const TURN_LATE_MAX: Duration = Duration::from_millis(150);
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

/// Whether a turn or a permit decides about an open circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Yes,
    No,
}

/// One call that may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
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
    turns: Spacing,
    permits: Spacing,
    window: Window,
    adapt: Adapt,
    concurrency: ConcurrencyLimit,
    circuit: Circuit,
    preparation: Preparation,
    paused_until: Option<Instant>,
    /// The first permits wait a moment, once, so that turns run ahead of them.
    permits_from: Option<Instant>,
    led: bool,
    /// Turns out: jobs that prepare or wait for their permit.
    prepared: usize,
    /// Permits out: calls that will be sent or have no answer yet.
    in_flight: usize,
    /// Turns and permits that came back unused: handed on, whatever the spacing says.
    turns_back: u32,
    permits_back: u32,
    number: u64,
}

impl Gate {
    pub(super) fn new(limits: Limits, concurrency: usize, now: Instant) -> Self {
        Self {
            notices: Vec::new(),
            limits,
            turns: Spacing::new(limits, TURN_LATE_MAX, now),
            permits: Spacing::new(limits, PERMIT_LATE_MAX, now),
            window: Window::default(),
            adapt: Adapt::new(limits.strictest()),
            concurrency: ConcurrencyLimit::new(concurrency, now),
            circuit: Circuit::default(),
            preparation: Preparation::new(concurrency),
            paused_until: None,
            permits_from: None,
            led: false,
            prepared: 0,
            in_flight: 0,
            turns_back: 0,
            permits_back: 0,
            number: 0,
        }
    }

    /// Whether the next job may prepare.
    pub(super) fn turn(&mut self, now: Instant) -> May<Probe> {
        if let Some(until) = self.paused(now) {
            return May::At(until);
        }
        self.adapted(now);
        if self.prepared >= self.preparation.places(self.adapt.current()) {
            return May::Blocked;
        }
        let probe = match self.circuit.look(now) {
            Look::Go => Probe::No,
            Look::Probe => Probe::Yes,
            Look::Wait(until) => return May::At(until),
            Look::Probing => return May::Blocked,
        };
        if self.turns_back > 0 {
            self.turns_back -= 1;
        } else if let Err(from) = self.turns.check(now) {
            return May::At(from);
        }
        if probe == Probe::Yes {
            self.circuit.probe();
        }
        self.prepared += 1;
        May::Go(probe)
    }

    /// Whether the job that has been prepared since `ready` may send. `behind`: whether more jobs wait for a turn.
    pub(super) fn permit(&mut self, probe: Probe, ready: Instant, behind: bool, now: Instant) -> May<Call> {
        let other_probes = probe == Probe::No && !self.circuit.is_closed();
        if other_probes || now.saturating_duration_since(ready) > PREPARED_KEPT {
            return May::Stale;
        }
        let stale_from = ready + PREPARED_KEPT;
        let later = |from: Instant| May::At(from.min(stale_from + Duration::from_millis(1)));
        if let Some(until) = self.paused(now).or(self.permits_from.filter(|from| now < *from)) {
            return later(until);
        }
        self.adapted(now);
        if self.in_flight >= self.concurrency.limit() {
            return later(stale_from);
        }
        if let Err(from) = self.window.room(self.adapt.current(), now) {
            return later(from.unwrap_or(stale_from));
        }
        if self.permits_back > 0 {
            self.permits_back -= 1;
        } else if let Err(from) = self.permits.check(now) {
            return later(from);
        }
        if behind && !self.led {
            self.led = true;
            let per_second = self.adapt.current();
            let lead = self.preparation.lead(per_second) + Duration::from_secs_f64(1.0 / per_second);
            self.permits_from = Some(now + lead);
        }
        self.prepared = self.prepared.saturating_sub(1);
        self.number += 1;
        self.window.granted();
        let call = Call { number: self.number, beside: self.in_flight, granted: now };
        self.in_flight += 1;
        May::Go(call)
    }

    /// A preparation took so long.
    pub(super) fn prepared_in(&mut self, took: Duration) {
        self.preparation.took(took);
    }

    /// A turn ended without a permit, and is handed on.
    pub(super) fn turn_back(&mut self, probe: Probe, now: Instant) {
        self.prepared = self.prepared.saturating_sub(1);
        self.turns_back = (self.turns_back + 1).min(self.turns_back_max());
        if probe == Probe::Yes {
            self.circuit.abandoned(now);
        }
    }

    /// What was prepared had grown old. Its job prepares again, in its turn: not at once with all the others.
    pub(super) fn turn_stale(&mut self, probe: Probe, now: Instant) {
        self.prepared = self.prepared.saturating_sub(1);
        self.led = false;
        if probe == Probe::Yes {
            self.circuit.abandoned(now);
        }
    }

    /// The preparation failed: the key could not be had, which says nothing of whether Stripe answers. The next turn
    /// comes at its time, not at once, so that no key endpoint that is down is asked faster than one that is up.
    pub(super) fn turn_failed(&mut self, probe: Probe, now: Instant) {
        self.prepared = self.prepared.saturating_sub(1);
        if probe == Probe::Yes {
            self.circuit.abandoned(now);
        }
    }

    /// Whoever watches the time for the gate woke so much later than it wanted to.
    pub(super) fn woke_late(&mut self, late: Duration, now: Instant) {
        self.window.was_late(late, now);
    }

    /// The call leaves.
    pub(super) fn left(&mut self, call: Call, now: Instant) {
        self.window.left(call.number, now);
        self.window.was_late(now.saturating_duration_since(call.granted), now);
        self.adapt.left();
    }

    /// The call never left.
    pub(super) fn never_left(&mut self) {
        self.window.never_left();
        // One, however many: what follows stays even. Who takes it needs a turn as well.
        self.permits_back = 1;
        self.turns_back = (self.turns_back + 1).min(self.turns_back_max());
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
            Answered::Limited(Limiter::Concurrency) => {
                self.circuit.answered();
                self.window.limited(call.number);
                if let Some(concurrency) = self.concurrency.limited(call.beside, now) {
                    self.notices.push(Notice::FewerAtOnce { concurrency });
                }
            }
            Answered::Limited(Limiter::Rate) => {
                self.circuit.answered();
                self.slow_down(call, now);
            }
            Answered::Failed(cause) => self.failed(cause, probe, now),
        }
    }

    fn failed(&mut self, cause: String, probe: Probe, now: Instant) {
        if let Some(wait) = self.circuit.failed(probe == Probe::Yes, now) {
            self.notices.push(Notice::DoesNotAnswer { cause, wait });
        }
    }

    /// A rate limiter turned that call away.
    fn slow_down(&mut self, call: Call, now: Instant) {
        let left = self.window.limited(call.number).unwrap_or(now);
        let Some(pause) = self.adapt.limited(left, now, &self.window) else { return };
        let per_second = self.adapt.current();
        self.notices.push(Notice::SlowingDown { per_second, pause });
        self.pause_until(now + pause);
    }

    /// Nobody goes before then.
    pub(super) fn pause_until(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |already| already.max(until)));
    }

    /// What is to be said since the last time.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What the pace is at this moment; the queues and the key endpoint are not known here.
    pub(super) fn health(&self, now: Instant) -> Health {
        Health {
            configured_per_second: self.limits.strictest(),
            current_per_second: self.adapt.current(),
            used_per_second: self.window.in_last_second(now),
            concurrency: self.concurrency.limit(),
            in_flight: self.in_flight,
            preparing: self.prepared,
            waiting: 0,
            paused_for: self.paused(now).map(|until| until - now),
            circuit: self.circuit.state(),
            key_circuit: CircuitState::Closed,
        }
    }

    fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| now < *until)
    }

    /// Time alone may have raised the rate and the concurrency.
    fn adapted(&mut self, now: Instant) {
        self.adapt.tick(now);
        self.concurrency.tick(self.in_flight, now);
        self.turns.adapt(self.adapt.current(), now);
        self.permits.adapt(self.adapt.current(), now);
    }

    /// A pause sends all that was prepared back; then no more come at once than may stand prepared.
    fn turns_back_max(&self) -> u32 {
        u32::try_from(self.preparation.places(self.adapt.current())).unwrap_or(u32::MAX)
    }
}
