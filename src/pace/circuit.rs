//! Whether a host is there at all: a pure state machine, time is an input.
//!
//! After several failures in a row nobody calls for a while; then one call probes, alone, and each that fails
//! doubles the wait. A job's own trouble (a refusal, a saved 500) is no failure here.

use std::time::{Duration, Instant};

use super::CircuitState;

/// Failures in a row after which a host is taken to be down.
pub(super) const FAILURES_MAX: u32 = 8;
/// First wait before a probe.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(500);
/// Longest wait between two probes.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What the line may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Call.
    Go,
    /// One may call, as the probe.
    Probe,
    /// Nobody calls before then.
    Wait(Instant),
    /// A probe is under way: wait for its end.
    Probing,
}

/// The circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    /// The host answers, but for so many failures since it last did.
    Closed { failures: u32 },
    /// Nobody calls until then; after it a probe.
    Open { until: Instant, wait: Duration },
    /// One call is under way, and its end decides.
    Probing { wait: Duration },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Circuit {
    /// What the line may do now.
    pub(super) fn look(&self, now: Instant) -> Look {
        match *self {
            Self::Closed { .. } => Look::Go,
            Self::Open { until, .. } if now < until => Look::Wait(until),
            Self::Open { .. } => Look::Probe,
            Self::Probing { .. } => Look::Probing,
        }
    }

    /// The probe goes.
    pub(super) fn probe(&mut self) {
        if let Self::Open { wait, .. } = *self {
            *self = Self::Probing { wait };
        }
    }

    /// The host answered.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// A call failed. Answers the wait if the circuit opens now.
    pub(super) fn failed(&mut self, is_probe: bool, now: Instant) -> Option<Duration> {
        let wait = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES_MAX => {
                *self = Self::Closed { failures: failures + 1 };
                return None;
            }
            Self::Closed { .. } => WAIT_MIN,
            Self::Probing { wait } if is_probe => (wait * 2).min(WAIT_MAX),
            // A call from before the circuit opened: no news.
            Self::Open { .. } | Self::Probing { .. } => return None,
        };
        *self = Self::Open { until: now + wait, wait };
        Some(wait)
    }

    /// The probe ended without telling anything: whoever made it was cancelled.
    pub(super) fn abandoned(&mut self, now: Instant) {
        if let Self::Probing { wait } = *self {
            *self = Self::Open { until: now, wait };
        }
    }

    /// As others see it.
    pub(super) fn state(&self) -> CircuitState {
        match self {
            Self::Closed { .. } => CircuitState::Closed,
            Self::Open { .. } => CircuitState::Open,
            Self::Probing { .. } => CircuitState::Probing,
        }
    }

    /// Whether calls flow.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_probes_alone_with_growing_waits() {
        let mut circuit = Circuit::default();
        let mut now = Instant::now();
        for _ in 1..FAILURES_MAX {
            assert_eq!(circuit.failed(false, now), None);
            assert_eq!(circuit.look(now), Look::Go);
        }
        let mut waits = vec![circuit.failed(false, now).unwrap()];
        assert_eq!(circuit.failed(false, now), None, "one that was under way is no news");
        for _ in 0..8 {
            let wait = *waits.last().unwrap();
            assert_eq!(circuit.look(now), Look::Wait(now + wait));
            now += wait;
            assert_eq!(circuit.look(now), Look::Probe);
            circuit.probe();
            assert_eq!(circuit.look(now), Look::Probing, "one at a time");
            assert_eq!(circuit.failed(false, now), None, "only the probe decides");
            waits.push(circuit.failed(true, now).unwrap());
        }
        assert!(waits.is_sorted() && waits.ends_with(&[WAIT_MAX, WAIT_MAX]), "{waits:?}");
        now += WAIT_MAX;
        assert_eq!(circuit.look(now), Look::Probe);
        circuit.probe();
        circuit.answered();
        assert_eq!(circuit.look(now), Look::Go);
        assert!(circuit.is_closed());
    }

    #[test]
    fn an_answer_in_between_begins_the_count_anew() {
        let mut circuit = Circuit::default();
        let now = Instant::now();
        for _ in 0..10 {
            for _ in 1..FAILURES_MAX {
                assert_eq!(circuit.failed(false, now), None);
            }
            circuit.answered();
        }
        assert!(circuit.is_closed());
    }

    #[test]
    fn an_abandoned_probe_lets_the_next_one_go() {
        let now = Instant::now();
        let mut circuit = Circuit::Probing { wait: WAIT_MIN };
        circuit.abandoned(now);
        assert_eq!(circuit.look(now), Look::Probe);
    }
}
