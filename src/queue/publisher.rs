//! Publishing that is certain: a message counts as published once the broker has confirmed it and returned nothing.
//!
//! On a connection of its own, since a broker that is short of memory stops reading from those that publish. A
//! confirm that does not come leaves open whether the message was stored, so the same message is published again:
//! whoever reads it must know it by its id.
//!
//! A channel carries one message at a time, and many channels make many messages at once. Many on one channel would be
//! told each other's ends: the client numbers a message and writes it out in two steps, so that two threads may write
//! theirs in the other order, and it gives a returned message to whichever confirm comes next. A message that was
//! rejected would then count as published, and be lost.
//!
//! A process for many accounts has one such connection for all of them ([`Shared`]). Each may have few messages on their way on it,
//! and one whose messages get no answer there goes on with a connection of its own: its queues may be ill, and hold up no other's.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus, Event, Queue};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_util::task::AbortOnDropHandle;

use super::obstacle::Obstacle;
use super::{Broker, RECONNECT, bounded, reason};
use crate::backoff::Backoff;
use crate::metrics;

/// Longest wait for one confirm. A broker that says that it takes nothing at present confirms nothing: then it is waited for
/// however long that lasts, and a connection that dies meanwhile ends the wait.
const CONFIRM_MAX: Duration = Duration::from_secs(30);
/// Waits before publishing again what a full queue did not take. Meanwhile nothing more is taken from where it came, which is
/// what pushes back; a queue's bound is far more than comes out of it in the longest of them.
const FULL: Backoff = Backoff::between(Duration::from_millis(250), Duration::from_secs(2));
/// Messages on their way at once, if the broker allows as many channels: brokers are often set to 100 and more.
const CHANNELS_MAX: u16 = 64;
/// Messages of one account on their way at once on a connection that accounts share: at confirms of 100 ms, which a slow disk or three
/// distant nodes come to, these are 160 a second, more than Stripe lets an account call.
const OF_ONE_MAX: usize = 16;
/// Connections in a row that an account's message may lose before it goes on alone.
const LOST_MAX: u32 = 2;

/// Why the broker does not take a message, though it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// The queue is full.
    #[error("the queue is full")]
    Full,
    /// No queue is bound for it.
    #[error("no queue takes it")]
    Unroutable,
}

/// A message on its way.
#[derive(Clone)]
pub struct Message<'m> {
    /// The exchange; the default one is "".
    pub exchange: &'m str,
    /// The routing key; on the default exchange the queue's name.
    pub key: &'m str,
    /// What it says.
    pub body: &'m [u8],
    /// Its properties; it is always durable.
    pub properties: BasicProperties,
}

/// A connection and its channels.
struct Open {
    connection: Connection,
    /// As many as may be open at once; closed when the connection is given up.
    free: Semaphore,
    /// Open, and nothing of a message before is under way on them.
    idle: std::sync::Mutex<Vec<Channel>>,
    /// Hears of the broker's alarms, as long as the connection is in use.
    _alarms: AbortOnDropHandle<()>,
}

/// Until the connection ends: a broker that is short of memory or disk space says so once something is published to it.
async fn hear_alarms(events: impl futures_util::Stream<Item = Event>, obstacle: Arc<Obstacle>) {
    let connection = obstacle.connected();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => obstacle.begin_alarm(connection, &reason),
            Event::ConnectionUnblocked | Event::Error(_) => obstacle.end_alarm(connection),
            _ => {}
        }
    }
    obstacle.end_alarm(connection);
}

/// One channel of it, for one message.
struct Lane<'o> {
    channel: Channel,
    open: &'o Open,
    _free: SemaphorePermit<'o>,
}

impl Open {
    fn new(connection: Connection, first: Channel, obstacle: &Arc<Obstacle>) -> Self {
        let channels = connection.configuration().channel_max().min(CHANNELS_MAX);
        let alarms = tokio::spawn(hear_alarms(connection.events_listener(), obstacle.clone()));
        Self {
            connection,
            free: Semaphore::new(channels.into()),
            idle: vec![first].into(),
            _alarms: AbortOnDropHandle::new(alarms),
        }
    }

    async fn lane(&self) -> Result<Lane<'_>, String> {
        let free = self.free.acquire().await.map_err(|_| "its connection was given up".to_owned())?;
        let idle = self.idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => confirming(&self.connection).await?,
        };
        Ok(Lane { channel, open: self, _free: free })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Lane<'_> {
    /// Publishes on it. Only a channel whose message was answered is used again: without an answer, or if this is
    /// dropped half way, it closes.
    async fn publish(self, message: &Message<'_>) -> Result<Result<(), NotTaken>, String> {
        let taken = once(&self.channel, message, self.open.connection.status()).await?;
        self.open.idle().push(self.channel);
        Ok(taken)
    }
}

/// A channel on which messages are confirmed.
async fn confirming(connection: &Connection) -> Result<Channel, String> {
    let channel = bounded(connection.create_channel()).await?;
    bounded(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Publishes; shared.
pub struct Publisher {
    line: Connecting,
    obstacle: Arc<Obstacle>,
    /// The connection that it shares, as long as that serves it.
    shared: Option<(Shared, Semaphore)>,
    alone: AtomicBool,
}

/// A connection for the messages of several accounts. Clones are the same.
#[derive(Clone)]
pub struct Shared(Arc<Connecting>, Arc<Obstacle>);

/// A connection that is opened when it is needed.
struct Connecting {
    broker: Broker,
    name: String,
    declares: Declares,
    open: Mutex<Option<Arc<Open>>>,
}

/// Whether queues are declared when it is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declares {
    Yes,
    /// They are each account's own to declare.
    No,
}

impl Shared {
    /// One to that broker.
    #[must_use]
    pub fn new(broker: Broker, name: &str) -> Self {
        Self(Arc::new(Connecting::new(broker, name, Declares::No)), Arc::default())
    }

    /// Closes it.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl Publisher {
    /// One that connects when it is first needed.
    #[must_use]
    pub fn new(broker: Broker, name: &str) -> Self {
        let line = Connecting::new(broker, name, Declares::Yes);
        Self { line, obstacle: Arc::default(), shared: None, alone: AtomicBool::new(false) }
    }

    /// The same on a connection that others use as well, for as long as that serves it.
    #[must_use]
    pub fn on(shared: &Shared, broker: Broker, name: &str) -> Self {
        let obstacle = Arc::new(Obstacle::below(&shared.1));
        Self {
            obstacle,
            shared: Some((shared.clone(), Semaphore::new(OF_ONE_MAX))),
            ..Self::new(broker, name)
        }
    }

    /// What keeps the broker from taking its messages, as far as it knows.
    #[must_use]
    pub fn obstacle(&self) -> &Arc<Obstacle> {
        &self.obstacle
    }

    /// What queues and exchanges are called.
    #[must_use]
    pub fn topology(&self) -> &super::topology::Topology {
        &self.line.broker.topology
    }

    /// Where it publishes.
    pub(crate) fn broker(&self) -> &Broker {
        &self.line.broker
    }

    /// Publishes, trying again for as long as the broker is away.
    ///
    /// # Errors
    /// If the broker is there and does not take it.
    pub async fn publish(&self, message: &Message<'_>) -> Result<(), NotTaken> {
        let mut backoff = RECONNECT;
        let mut lost = 0;
        loop {
            let reason = match self.shared() {
                Some((shared, few)) => match self.publish_shared(shared, few, message, &mut lost).await {
                    Ok(taken) => return taken,
                    Err(reason) => reason,
                },
                None => match self.line.open(&self.obstacle).await {
                    Err(reason) => reason,
                    Ok(open) => match self.line.publish_on(&open, message).await {
                        Ok(taken) => return taken,
                        Err(reason) => reason,
                    },
                },
            };
            tracing::warn!(reason, "publishing failed; trying again");
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// The same, and again for as long as the queue is full: `while_full` is called each time, and may give up. The message is
    /// made anew for each try: it says when that is.
    ///
    /// # Errors
    /// If no queue takes it, or it was given up.
    pub async fn publish_until_taken<'m>(
        &self,
        message: impl Fn() -> Message<'m>,
        mut while_full: impl FnMut() -> ControlFlow<()>,
    ) -> Result<(), NotTaken> {
        let mut backoff = FULL;
        let mut waiting = None;
        loop {
            let message = message();
            match self.publish(&message).await {
                Err(NotTaken::Full) if while_full().is_continue() => {
                    let place = if message.exchange.is_empty() { message.key } else { message.exchange };
                    waiting.get_or_insert_with(|| self.obstacle.wait_for_room(place));
                    tokio::time::sleep(backoff.wait()).await;
                }
                taken => return taken,
            }
        }
    }

    /// Connects, if it is not connected, so that the first message does not wait for it. Whoever went on alone tries the shared connection
    /// again: this is called at the beginning of a session.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn connect(&self) -> Result<(), String> {
        self.alone.store(false, Ordering::Relaxed);
        self.open().await.map(|_| ())
    }

    /// The connection that is used now.
    async fn open(&self) -> Result<Arc<Open>, String> {
        match self.shared() {
            Some((Shared(line, obstacle), _)) => line.open(obstacle).await,
            None => self.line.open(&self.obstacle).await,
        }
    }

    fn shared(&self) -> Option<&(Shared, Semaphore)> {
        self.shared.as_ref().filter(|_| !self.alone.load(Ordering::Relaxed))
    }

    /// On the connection that others use as well. Without an answer to one message it is left to them, unless all of it was lost.
    async fn publish_shared(
        &self,
        Shared(line, obstacle): &Shared,
        few: &Semaphore,
        message: &Message<'_>,
        lost: &mut u32,
    ) -> Result<Result<(), NotTaken>, String> {
        let _one = few.acquire().await.map_err(|error| error.to_string())?;
        let open = line.open(obstacle).await?;
        let taken = match open.lane().await {
            Ok(lane) => lane.publish(message).await,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = &taken {
            metrics::publish_unconfirmed();
            let is_up = open.connection.status().connected();
            if !is_up {
                line.give_up(&open).await;
                *lost += 1;
            }
            if is_up || *lost >= LOST_MAX {
                tracing::warn!(
                    reason,
                    "no answer on the connection that accounts share; going on with one of its own"
                );
                self.alone.store(true, Ordering::Relaxed);
            }
        }
        taken
    }

    /// How a queue stands.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub(crate) async fn look(&self, queue: &str) -> Result<Queue, String> {
        let open = self.open().await?;
        // On a channel of its own, which does not survive the answer that there is none.
        let channel = bounded(open.connection.create_channel()).await?;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = bounded(channel.queue_declare(queue.into(), passive, FieldTable::default())).await?;
        let _ = bounded(channel.close(200, "looked".into())).await;
        Ok(queue)
    }

    /// Closes its connection; one that it shares is left to the others.
    pub async fn close(&self) {
        self.line.close().await;
    }
}

impl Connecting {
    fn new(broker: Broker, name: &str, declares: Declares) -> Self {
        Self { broker, name: name.into(), declares, open: Mutex::new(None) }
    }

    async fn close(&self) {
        let open = self.open.lock().await.take();
        if let Some(open) = open {
            open.free.close();
            let _ = bounded(open.connection.close(200, "done".into())).await;
        }
    }

    async fn open(&self, obstacle: &Arc<Obstacle>) -> Result<Arc<Open>, String> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && open.connection.status().connected()
        {
            return Ok(open.clone());
        }
        let connection = match self.declares {
            Declares::Yes => self.broker.open(&self.name).await?,
            Declares::No => self.broker.connect(&self.name).await?,
        };
        let channel = confirming(&connection).await?;
        let opened = Arc::new(Open::new(connection, channel, obstacle));
        if let Some(before) = open.replace(opened.clone()) {
            before.free.close();
        }
        Ok(opened)
    }

    async fn publish_on(
        &self,
        open: &Arc<Open>,
        message: &Message<'_>,
    ) -> Result<Result<(), NotTaken>, String> {
        let lane = open.lane().await?;
        let taken = lane.publish(message).await;
        if taken.is_err() {
            metrics::publish_unconfirmed();
            self.give_up(open).await;
        }
        taken
    }

    /// Throws the connection away, unless somebody else has already built another.
    async fn give_up(&self, broken: &Arc<Open>) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, broken))
            && let Some(open) = open.take()
        {
            open.free.close();
            tokio::spawn(async move {
                let _ = bounded(open.connection.close(200, "broken".into())).await;
            });
        }
    }
}

async fn once(
    channel: &Channel,
    message: &Message<'_>,
    connection: &ConnectionStatus,
) -> Result<Result<(), NotTaken>, String> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    // 2: written to disk.
    let properties = message.properties.clone().with_delivery_mode(2);
    let confirming = async {
        channel
            .basic_publish(message.exchange.into(), message.key.into(), options, message.body, properties)
            .await?
            .await
    };
    let mut confirming = std::pin::pin!(confirming);
    let confirmation = loop {
        match tokio::time::timeout(CONFIRM_MAX, confirming.as_mut()).await {
            Ok(confirmation) => break confirmation.map_err(|error| reason(&error))?,
            Err(_) if connection.blocked() => {}
            Err(_) => return Err("no confirm in time".to_owned()),
        }
    };
    match confirmation {
        Confirmation::Ack(None) => Ok(Ok(())),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Ok(Err(NotTaken::Unroutable)),
        Confirmation::Nack(None) => Ok(Err(NotTaken::Full)),
        Confirmation::NotRequested => Err("the broker confirms nothing".into()),
    }
}
