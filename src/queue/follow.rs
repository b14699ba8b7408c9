//! Following results by their events, in a queue of one's own.
//!
//! The queue is made before the first job is published, so that no event is missed; it outlives a lost connection, and goes away an hour
//! after the last who followed it. If it is gone when the connection is back (the broker lost it, its node is away, or the hour went
//! by), that is told: events may have been missed. It is on one node and no quorum queue: one of those that was made right before its
//! broker was killed is never answered for by RabbitMQ 3.10 again.

use lapin::Connection;
use lapin::options::{BasicAckOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::event::ResultEvent;
use super::subscription::Subscription;
use super::{Broker, RECONNECT, bounded};
use crate::backoff::Backoff;
use crate::job::Batch;

/// How long the queue of events outlives whoever followed it, in milliseconds.
const KEPT_MS: i64 = 3_600_000;
/// Events that come before one was acknowledged: the only bound on what waits in memory.
const IN_FLIGHT_MAX: u16 = 256;

/// Who follows.
pub struct Follower {
    broker: Broker,
    name: &'static str,
    /// What its queues are called after.
    called_after: String,
    queue: String,
    keys: Vec<String>,
    open: Option<(Connection, Subscription)>,
    backoff: Backoff,
}

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// An event.
    Event(Box<ResultEvent>),
    /// An event that cannot be read: it is of another version. Of which job is not known.
    Unreadable,
    /// The connection was lost, and why; it is being made again.
    Lost(String),
    /// It is there again, and nothing was missed.
    Again,
    /// It is there again, with a queue that was made anew: events may have been missed.
    Anew,
}

impl Follower {
    /// One who hears all events, in a new queue that is called after it; `name` is the connection's.
    #[must_use]
    pub fn of_all(broker: Broker, name: &'static str, queue: &str) -> Self {
        Self::new(broker, name, queue, vec!["#".into()])
    }

    /// One who hears the events of a batch.
    #[must_use]
    pub fn of_batch(broker: Broker, name: &'static str, batch: &Batch) -> Self {
        Self::new(broker, name, batch.as_str(), ResultEvent::routing_keys_of(batch).into())
    }

    fn new(broker: Broker, name: &'static str, queue: &str, keys: Vec<String>) -> Self {
        let called_after = queue.to_owned();
        let queue = broker.topology.following(queue);
        Self { broker, name, called_after, queue, keys, open: None, backoff: RECONNECT }
    }

    /// Makes the queue, and listens.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn connect(&mut self) -> Result<(), String> {
        self.subscribe().await.map(|_| ())
    }

    /// The next event, or what became of the connection; for ever.
    ///
    /// Not to be dropped half way by who goes on afterwards: an event that was acknowledged would be lost.
    pub async fn next(&mut self) -> Heard {
        if let Some((_, events)) = &mut self.open {
            let lost = match events.next().await {
                Ok(delivery) => {
                    self.backoff.reset();
                    let _ = bounded(delivery.acker.ack(BasicAckOptions::default())).await;
                    let event = serde_json::from_slice(&delivery.data);
                    return event.map_or(Heard::Unreadable, Heard::Event);
                }
                Err(lost) => lost.to_string(),
            };
            if let Some((connection, _)) = self.open.take() {
                tokio::spawn(async move {
                    let _ = bounded(connection.close(200, "something on it was lost".into())).await;
                });
            }
            return Heard::Lost(lost);
        }
        tokio::time::sleep(self.backoff.wait()).await;
        match self.subscribe().await {
            Ok(Queue::Kept) => Heard::Again,
            Ok(Queue::Made) => Heard::Anew,
            Err(lost) => Heard::Lost(lost),
        }
    }

    /// Follows no more, and wants no queue any more.
    pub async fn forget(self) {
        if let Some((connection, _)) = self.open {
            let delete = async {
                let channel = bounded(connection.create_channel()).await?;
                bounded(channel.queue_delete(self.queue.as_str().into(), QueueDeleteOptions::default())).await
            };
            // It goes away by itself, too.
            let _ = delete.await;
            let _ = bounded(connection.close(200, "done".into())).await;
        }
    }

    async fn subscribe(&mut self) -> Result<Queue, String> {
        let connection = self.broker.open(self.name).await?;
        let found = self.is_there(&connection).await;
        let subscribed = self.declare_and_subscribe(&connection).await;
        if subscribed.is_err() && connection.status().connected() {
            // A broker that was killed right after it made a queue may have it by name alone, and never answers about it.
            self.queue = self.broker.topology.following(&self.called_after);
        }
        self.open = Some((connection, subscribed?));
        Ok(if found { Queue::Kept } else { Queue::Made })
    }

    async fn declare_and_subscribe(&self, connection: &Connection) -> Result<Subscription, String> {
        let channel = bounded(connection.create_channel()).await?;
        let queue = self.queue.as_str();
        let mut arguments = FieldTable::default();
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(KEPT_MS));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        bounded(channel.queue_declare(queue.into(), options, arguments)).await?;
        for key in &self.keys {
            let (results, key) = (self.broker.topology.results.as_str().into(), key.as_str().into());
            let bound = channel.queue_bind(
                queue.into(),
                results,
                key,
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bounded(bound).await?;
        }
        Subscription::begin(connection, queue, IN_FLIGHT_MAX).await
    }

    /// On a channel of its own, which does not survive the answer that there is none.
    async fn is_there(&self, connection: &Connection) -> bool {
        let Ok(channel) = bounded(connection.create_channel()).await else { return false };
        let passive = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let found =
            bounded(channel.queue_declare(self.queue.as_str().into(), passive, FieldTable::default())).await;
        let _ = bounded(channel.close(200, "looked".into())).await;
        found.is_ok()
    }
}

/// What became of the queue meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Kept,
    Made,
}
