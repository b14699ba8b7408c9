//! What keeps the broker from taking messages, as far as a publisher was told or has found: an alarm of the broker's, or a
//! full queue. It is for readiness, metrics and progress: whoever publishes waits until it is over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics;

/// How long a queue must be full before that is told: a moment's fullness is how a bounded queue works.
const FULL_TOLD_AFTER: Duration = Duration::from_secs(10);

/// What one publisher knows of it.
#[derive(Debug, Default)]
pub struct Obstacle {
    state: Mutex<State>,
    /// That of the connection which it shares with others: its alarms are everybody's.
    above: Option<Arc<Obstacle>>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections so far.
    connections: u64,
    /// The broker's own words for its alarm, while it has one, and on which connection they were heard.
    alarm: Option<(u64, String)>,
    /// Messages that wait for room in a queue.
    waiting: usize,
    /// Since when at least one of them has waited, and where it was sent.
    full: Option<(Instant, String)>,
}

/// A message that waits for room in a queue, until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Obstacle>);

impl Obstacle {
    /// That of one who shares a connection with others.
    pub(super) fn below(above: &Arc<Self>) -> Self {
        Self { state: Mutex::default(), above: Some(above.clone()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a plain assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another connection is used from now on: of an alarm it will be told anew. Answers its number.
    pub(super) fn connected(&self) -> u64 {
        let mut state = self.state();
        state.connections += 1;
        state.alarm = None;
        metrics::broker_blocked(false);
        state.connections
    }

    /// The broker says on this connection that it reads nothing of what is published.
    pub(super) fn begin_alarm(&self, connection: u64, reason: &str) {
        let mut state = self.state();
        if connection == state.connections {
            state.alarm = Some((connection, reason.to_owned()));
            metrics::broker_blocked(true);
            tracing::warn!(reason, "RabbitMQ takes no messages; they wait until it does");
        }
    }

    /// It reads again, or the connection has ended.
    pub(super) fn end_alarm(&self, connection: u64) {
        let mut state = self.state();
        if state.alarm.take_if(|(of, _)| *of == connection).is_some() {
            metrics::broker_blocked(false);
            tracing::info!("RabbitMQ has no alarm any more, or its connection has ended");
        }
    }

    /// A message waits, as a queue that is reached by this name is full.
    pub(super) fn wait_for_room(self: &Arc<Self>, place: &str) -> Waiting {
        let mut state = self.state();
        state.waiting += 1;
        if state.full.is_none() {
            state.full = Some((Instant::now(), place.to_owned()));
            tracing::warn!(queue = place, "a queue is full; its messages wait for room");
        }
        Waiting(self.clone())
    }

    /// The broker's alarm in a sentence, while it has one.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let own = self
            .state()
            .alarm
            .as_ref()
            .map(|(_, reason)| format!("RabbitMQ takes no messages ({reason}): they wait until it does"));
        own.or_else(|| self.above.as_ref()?.alarm())
    }

    /// Whatever keeps messages from being taken, in a sentence.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.alarm().or_else(|| {
            let state = self.state();
            let (since, place) = state.full.as_ref()?;
            (since.elapsed() >= FULL_TOLD_AFTER)
                .then(|| format!("a queue that {place} leads to is full: whoever reads it does not keep up"))
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        if state.waiting == 0 {
            state.full = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_until_it_ends_and_a_full_queue_once_it_lasts() {
        let obstacle = Arc::new(Obstacle::default());
        assert_eq!(obstacle.reason(), None);
        let former = obstacle.connected();
        let connection = obstacle.connected();
        obstacle.begin_alarm(former, "low on disk");
        assert_eq!(obstacle.reason(), None, "of a connection that is not used any more");
        obstacle.begin_alarm(connection, "low on memory");
        obstacle.end_alarm(former);
        assert!(obstacle.reason().unwrap().contains("low on memory"));
        obstacle.end_alarm(connection);
        let (one, other) = (obstacle.wait_for_room("results"), obstacle.wait_for_room("results"));
        assert_eq!(obstacle.reason(), None, "a moment");
        let long_ago = Instant::now().checked_sub(FULL_TOLD_AFTER).unwrap();
        obstacle.state().full.as_mut().unwrap().0 = long_ago;
        drop(one);
        assert!(obstacle.reason().unwrap().contains("results"));
        assert_eq!(obstacle.alarm(), None);
        drop(other);
        assert_eq!(obstacle.reason(), None);
    }
}
