//! A breaker for one host: while it does not answer, whoever needs it waits, and one at a time asks whether it is back.
//!
//! Duty: to hold up those who need this host, and nobody else. Its rules are the [`circuit`](super::circuit)'s. Whoever
//! may ask has a [`Pass`], and says with it how the asking ended; a pass that is dropped says nothing.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::CircuitState;
use super::circuit::{Circuit, Look};
use crate::locks::{Mutex, MutexGuard};

/// Whether a host is taken to be there. Clones share it.
#[derive(Clone)]
pub struct Breaker {
    shared: Arc<Shared>,
}

struct Shared {
    circuit: Mutex<Circuit>,
    /// What the host is and what waits for it, as the log names them.
    named: Mutex<Named>,
    /// Wakes those who wait.
    changed: watch::Sender<()>,
}

#[derive(Clone)]
struct Named {
    what: &'static str,
    host: String,
    waits: &'static str,
}

/// Leave to ask the host once.
#[must_use]
pub struct Pass {
    shared: Arc<Shared>,
    is_probe: bool,
    is_answered: bool,
}

impl Breaker {
    /// For one host: `what` it is and what `waits` while it does not answer, as the log says it.
    #[must_use]
    pub fn new(what: &'static str, waits: &'static str) -> Self {
        let named = Mutex::new(Named { what, host: String::new(), waits });
        let circuit = Mutex::new(Circuit::default());
        Self { shared: Arc::new(Shared { circuit, named, changed: watch::Sender::new(()) }) }
    }

    /// The host's name, for the log.
    pub fn name_host(&self, host: &str) {
        host.clone_into(&mut self.shared.named().host);
    }

    /// Waits until the host may be asked: at once while it answers; else until it does, or as the one that tries.
    pub async fn ready(&self) -> Pass {
        // Subscribed before the first look, so that no change goes unseen.
        let mut changed = self.shared.changed.subscribe();
        loop {
            let look = self.shared.look();
            let until = match look {
                Look::Go => return self.pass(false),
                Look::Probe => return self.pass(true),
                Look::Wait(until) => Some(until),
                Look::Probing => None,
            };
            // The sender lives as long as this does, so a change is all that ends the wait.
            let changes = async { drop(changed.changed().await) };
            match until {
                Some(until) => tokio::select! {
                    biased;
                    () = changes => {}
                    () = tokio::time::sleep_until(until.into()) => {}
                },
                None => changes.await,
            }
        }
    }

    /// Whether the host is taken to be there.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.shared.circuit().state()
    }

    fn pass(&self, is_probe: bool) -> Pass {
        Pass { shared: self.shared.clone(), is_probe, is_answered: false }
    }
}

impl Shared {
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look that is to probe does so: the next one finds it probing.
    fn look(&self) -> Look {
        let mut circuit = self.circuit();
        let look = circuit.look(Instant::now().into_std());
        if look == Look::Probe {
            circuit.probe();
        }
        look
    }

    fn change<T>(&self, change: impl FnOnce(&mut Circuit) -> T) -> T {
        let changed = change(&mut self.circuit());
        self.changed.send_replace(());
        changed
    }

    /// Said without a lock: the log may be slow.
    fn say_open(&self, reason: &str, wait: Duration) {
        let Named { what, host, waits } = self.named().clone();
        let wait_seconds = wait.as_secs_f64();
        tracing::warn!(wait_seconds, "{what} {host} does not answer: {reason}; {waits}");
    }

    fn say_closed(&self) {
        let Named { what, host, .. } = self.named().clone();
        tracing::info!("{what} {host} answers again");
    }
}

impl Pass {
    /// Whether it still may be used, by who waited for something else meanwhile: the host may have gone.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.is_probe || self.shared.circuit().is_closed()
    }

    /// The host answered.
    pub fn answered(mut self) {
        self.is_answered = true;
        let was_closed = {
            let mut circuit = self.shared.circuit();
            let was_closed = circuit.is_closed();
            circuit.answered();
            was_closed
        };
        if !was_closed {
            self.shared.changed.send_replace(());
            self.shared.say_closed();
        }
    }

    /// The host did not answer, or not with what it was asked for.
    pub fn failed(mut self, reason: &str) {
        self.is_answered = true;
        let (is_probe, now) = (self.is_probe, Instant::now().into_std());
        if let Some(wait) = self.shared.change(|circuit| circuit.failed(is_probe, now)) {
            self.shared.say_open(reason, wait);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe && !self.is_answered {
            let now = Instant::now().into_std();
            self.shared.change(|circuit| circuit.abandoned(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::super::circuit::{FAILURES_MAX, WAIT_MIN};
    use super::*;

    /// What a timer may be early by.
    const TICK: Duration = Duration::from_millis(2);

    async fn open() -> Breaker {
        let breaker = Breaker::new("a host", "some wait");
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.state(), CircuitState::Closed);
            breaker.ready().await.failed("connection refused");
        }
        assert_eq!(breaker.state(), CircuitState::Open);
        breaker
    }

    #[tokio::test]
    async fn while_the_host_is_down_one_asks_at_a_time_and_then_all_go_on() {
        let breaker = open().await;
        let opened = Instant::now();
        let mut probe = breaker.ready().await;
        assert!(opened.elapsed() >= WAIT_MIN - TICK, "nobody asks at first");
        for failures in 1..=2 {
            assert_eq!(breaker.state(), CircuitState::Probing);
            assert!(breaker.ready().now_or_never().is_none(), "one asks, the others wait for its end");
            let failed = Instant::now();
            probe.failed("connection refused");
            assert!(breaker.ready().now_or_never().is_none(), "nor does anybody right after it");
            probe = breaker.ready().await;
            assert!(failed.elapsed() >= WAIT_MIN * (1 << failures) - TICK, "each failure doubles the wait");
        }
        let all = futures_util::future::join_all((0..50).map(|_| breaker.ready()));
        let (passes, ()) = tokio::join!(all, async { probe.answered() });
        assert_eq!(breaker.state(), CircuitState::Closed);
        passes.into_iter().for_each(Pass::answered);
    }

    #[tokio::test]
    async fn whoever_gives_up_as_the_probe_lets_the_next_one_ask() {
        let breaker = open().await;
        let probe = breaker.ready().await;
        let (next, ()) = tokio::join!(breaker.ready(), async { drop(probe) });
        next.answered();
        assert_eq!(breaker.state(), CircuitState::Closed);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_takes_nothing_along() {
        let breaker = open().await;
        let probe = breaker.ready().await;
        let mut gives_up = Box::pin(breaker.ready());
        assert!(futures_util::poll!(&mut gives_up).is_pending());
        drop(gives_up);
        probe.answered();
        breaker.ready().await.answered();
    }

    #[tokio::test]
    async fn a_pass_from_before_it_opened_is_no_news_when_it_fails_and_good_news_when_it_succeeds() {
        let breaker = Breaker::new("a host", "some wait");
        let (fails, succeeds) = (breaker.ready().await, breaker.ready().await);
        for _ in 0..FAILURES_MAX {
            breaker.ready().await.failed("connection refused");
        }
        assert!(!fails.is_good() && !succeeds.is_good(), "whoever has not asked yet, waits");
        fails.failed("connection refused");
        assert_eq!(breaker.state(), CircuitState::Open);
        succeeds.answered();
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}
