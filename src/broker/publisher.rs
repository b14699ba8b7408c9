//! Publishing that is certain: a message counts as published once the broker has confirmed it and returned nothing.
//!
//! On a connection of its own, since a broker that is short of memory stops reading from those that publish. A
//! confirm that does not come leaves open whether the message was stored, so the same message is published again:
//! whoever reads it must know it by its id.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use tokio::sync::Mutex;

use super::{Backoff, Broker};
use crate::metrics;

/// Longest wait for one confirm; a broker that is blocked confirms nothing.
const CONFIRM_MAX: Duration = Duration::from_secs(30);

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

struct Open {
    channel: Channel,
    /// Dropped, it closes.
    connection: Connection,
    number: u64,
}

/// Publishes; shared.
pub struct Publisher {
    broker: Broker,
    name: String,
    open: Mutex<Option<Open>>,
    opened: std::sync::atomic::AtomicU64,
}

impl Publisher {
    /// One that connects when it is first needed.
    #[must_use]
    pub fn new(broker: Broker, name: &str) -> Self {
        Self { broker, name: name.into(), open: Mutex::new(None), opened: 0.into() }
    }

    /// What queues and exchanges are called.
    #[must_use]
    pub fn topology(&self) -> &super::topology::Topology {
        &self.broker.topology
    }

    /// Where it publishes.
    pub(crate) fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Publishes, trying again for as long as the broker is away.
    ///
    /// # Errors
    /// If the broker is there and does not take it.
    pub async fn publish(&self, message: &Message<'_>) -> Result<(), NotTaken> {
        let mut backoff = Backoff::default();
        loop {
            let reason = match self.channel().await {
                Err(reason) => reason,
                Ok((channel, number)) => match once(&channel, message).await {
                    Ok(taken) => return taken,
                    Err(reason) => {
                        metrics::publish_unconfirmed();
                        self.close_if(number).await;
                        reason
                    }
                },
            };
            tracing::warn!(reason, "publishing failed; trying again");
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Connects, if it is not connected, so that the first message does not wait for it.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn connect(&self) -> Result<(), String> {
        self.channel().await.map(|_| ())
    }

    /// Closes its connection.
    pub async fn close(&self) {
        if let Some(open) = self.open.lock().await.take() {
            let _ = open.connection.close(200, "done".into()).await;
        }
    }

    async fn channel(&self) -> Result<(Channel, u64), String> {
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && open.channel.status().connected()
        {
            return Ok((open.channel.clone(), open.number));
        }
        let connection = self.broker.connect(&self.name).await?;
        let channel = connection.create_channel().await.map_err(|error| error.to_string())?;
        self.broker.topology.ensure(&channel).await.map_err(|error| error.to_string())?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| error.to_string())?;
        let number = self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *open = Some(Open { channel: channel.clone(), connection, number });
        Ok((channel, number))
    }

    /// Throws the connection away, unless somebody else has already built another.
    async fn close_if(&self, number: u64) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|open| open.number == number)
            && let Some(open) = open.take()
        {
            tokio::spawn(async move {
                let _ = open.connection.close(200, "broken".into()).await;
            });
        }
    }
}

async fn once(channel: &Channel, message: &Message<'_>) -> Result<Result<(), NotTaken>, String> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    // 2: written to disk.
    let properties = message.properties.clone().with_delivery_mode(2);
    let confirming = async {
        channel
            .basic_publish(message.exchange.into(), message.key.into(), options, message.body, properties)
            .await?
            .await
    };
    let confirmation = tokio::time::timeout(CONFIRM_MAX, confirming)
        .await
        .map_err(|_| "no confirm in time".to_owned())?
        .map_err(|error| error.to_string())?;
    match confirmation {
        Confirmation::Ack(None) => Ok(Ok(())),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Ok(Err(NotTaken::Unroutable)),
        Confirmation::Nack(None) => Ok(Err(NotTaken::Full)),
        Confirmation::NotRequested => Err("the broker confirms nothing".into()),
    }
}
