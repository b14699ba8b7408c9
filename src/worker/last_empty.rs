//! When the jobs queue was last known to be empty: what says how old a job can be whose sender does not.
//!
//! A message that comes for the first time was published after its queue was last empty; one that comes again, after its
//! queue was last empty and nothing of it was in flight. Both moments are kept where the next worker finds them.
//!
//! Guarantees: a moment is used only for what was certainly delivered after the broker was asked. Its answer and its
//! deliveries come one after the other on one channel; what came before the answer may still wait to be taken, so the
//! moment holds from the next time on that nothing waits.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::RECORD_MAX;
use super::looks::IDLE_AFTER;
use super::watchdog::Look;
use crate::clock::Time;
use crate::ledger::{Ledger, Scope};

/// Between two writes of the same moment: a restarted worker then takes a job for so much older.
const KEPT_EVERY: Duration = Duration::from_secs(20);
/// The same where nothing has come for a while: a thousand accounts without jobs write little.
const KEPT_EVERY_IDLE: Duration = Duration::from_secs(60);
/// How long a worker must have consumed before nobody else can hold deliveries: one that was told to stop gives its own back
/// within `worker.drain_seconds`, and the broker notices a dead one by its heartbeats.
const ALONE_AFTER: Duration = Duration::from_secs(90);

/// What is known to have been before a message was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Moment {
    /// No message waited.
    Empty,
    /// No message waited, and none was in flight.
    Settled,
}

impl Moment {
    fn name(self, queue: &str) -> String {
        match self {
            Self::Empty => format!("{queue}.empty"),
            Self::Settled => format!("{queue}.settled"),
        }
    }
}

/// The moments of one queue.
pub(super) struct LastEmpty {
    queue: String,
    ledger: Ledger,
    scope: Scope,
    known: Mutex<HashMap<Moment, Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    at: Time,
    kept: Option<Instant>,
}

/// What was seen at the latest look and does not hold yet.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<(Moment, Time)>);

impl LastEmpty {
    pub(super) fn new(queue: &str, ledger: Ledger, scope: Scope) -> Self {
        Self { queue: queue.to_owned(), ledger, scope, known: Mutex::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Moment, Known>> {
        // Every change is a plain assignment.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the worker before knew.
    pub(super) async fn read(&self) -> Result<(), String> {
        for moment in [Moment::Empty, Moment::Settled] {
            let found = self.ledger.marked(&self.scope, &moment.name(&self.queue)).await;
            if let Some(at) = found.map_err(|error| error.to_string())? {
                self.known().entry(moment).or_insert(Known { at, kept: None });
            }
        }
        Ok(())
    }

    /// After when a delivery was published; none if that is not known.
    pub(super) fn published_after(&self, redelivered: bool) -> Option<Time> {
        let moment = if redelivered { Moment::Settled } else { Moment::Empty };
        self.known().get(&moment).map(|known| known.at)
    }

    /// What was seen before holds now: nothing that came before it waits to be taken any more. A ledger that is away is not waited for
    /// for long: deliveries are taken between two of these, and it is kept by one of the next. `silent` is for how long nothing has
    /// come.
    pub(super) async fn hold(&self, pending: Pending, silent: Duration) -> Result<(), String> {
        let kept_every = if silent >= IDLE_AFTER { KEPT_EVERY_IDLE } else { KEPT_EVERY };
        for (moment, at) in pending.0 {
            let due = {
                let mut known = self.known();
                let kept = known.get(&moment).and_then(|known| known.kept);
                known.insert(moment, Known { at, kept });
                kept.is_none_or(|kept| kept.elapsed() >= kept_every)
            };
            if due {
                let name = moment.name(&self.queue);
                let keeping = self.ledger.mark(&self.scope, &name, at);
                let Ok(kept) = tokio::time::timeout(RECORD_MAX, keeping).await else {
                    tracing::warn!("the ledger does not answer; when the queue was empty is kept later");
                    continue;
                };
                kept.map_err(|error| error.to_string())?;
                self.known().insert(moment, Known { at, kept: Some(Instant::now()) });
            }
        }
        Ok(())
    }
}

/// Which moments a look has found.
pub(super) fn found(look: Look) -> Pending {
    if look.messages > 0 || look.consumers == 0 {
        return Pending::default();
    }
    // Not by the count of consumers: RabbitMQ 3.10 counts the active one alone, which may be another worker and hold deliveries.
    let settled = look.active && look.in_flight == 0 && look.consuming >= ALONE_AFTER;
    let settled = settled.then_some((Moment::Settled, look.asked));
    Pending(std::iter::once((Moment::Empty, look.asked)).chain(settled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time::from_unix_ms(1000);
    const QUIET: Look = Look {
        asked: AT,
        messages: 0,
        consumers: 1,
        room: true,
        active: true,
        in_flight: 0,
        consuming: ALONE_AFTER,
        silent: Duration::ZERO,
    };

    #[test]
    fn a_queue_is_empty_only_if_a_broker_that_serves_it_says_so() {
        assert_eq!(found(QUIET).0, [(Moment::Empty, AT), (Moment::Settled, AT)]);
        assert_eq!(found(Look { in_flight: 3, ..QUIET }).0, [(Moment::Empty, AT)]);
        assert!(found(Look { messages: 1, ..QUIET }).0.is_empty());
        assert!(found(Look { consumers: 0, ..QUIET }).0.is_empty());
    }

    #[test]
    fn nothing_is_settled_while_another_worker_may_hold_something() {
        for look in [
            Look { active: false, ..QUIET },
            Look { in_flight: 1, ..QUIET },
            Look { consuming: Duration::from_secs(1), ..QUIET },
        ] {
            assert_eq!(found(look).0, [(Moment::Empty, AT)], "{look:?}");
        }
        assert_eq!(found(Look { consumers: 2, ..QUIET }).0.len(), 2);
    }
}
