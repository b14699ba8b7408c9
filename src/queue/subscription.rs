//! A subscription to one queue, and what can be lost of it.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer, Queue};

use super::{bounded, is_unreadable};

/// Bound on giving back what was buffered: it lies in this process's memory.
const BUFFERED_MAX: Duration = Duration::from_secs(5);

/// Why a session ended that was not told to.
#[derive(Debug)]
pub(crate) enum Lost {
    /// A message that the AMQP library cannot read was delivered.
    Unreadable,
    /// Anything else, in words.
    Other(String),
}

impl From<String> for Lost {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => formatter.write_str(
                "a message was delivered that the AMQP library cannot read (a property that is not UTF-8?); \
                 the broker moves it away after some deliveries",
            ),
            Self::Other(reason) => formatter.write_str(reason),
        }
    }
}

/// A consumer on a channel of its own.
pub(crate) struct Subscription {
    channel: Channel,
    consumer: Consumer,
    queue: String,
}

impl Subscription {
    /// Subscribes; so many deliveries come before one must be settled.
    pub(crate) async fn begin(connection: &Connection, queue: &str, prefetch: u16) -> Result<Self, String> {
        let channel = bounded(connection.create_channel()).await?;
        let consumer = consume(&channel, queue, prefetch).await?;
        Ok(Self { channel, consumer, queue: queue.to_owned() })
    }

    /// Subscribes again after [`Self::cancel`].
    pub(crate) async fn renew(&mut self, prefetch: u16) -> Result<(), String> {
        self.consumer = consume(&self.channel, &self.queue, prefetch).await?;
        Ok(())
    }

    /// The next delivery.
    pub(crate) async fn next(&mut self) -> Result<Delivery, Lost> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(error)) if is_unreadable(&error) => Err(Lost::Unreadable),
            Some(Err(error)) => Err(Lost::Other(error.to_string())),
            None => {
                Err(Lost::Other("the consumer was cancelled: its queue is gone, or its connection".into()))
            }
        }
    }

    /// Takes nothing more, and gives back what had come and was not taken yet: else it would wait, unsettled, for as long as
    /// the channel lives.
    pub(crate) async fn cancel(&mut self) -> Result<(), String> {
        bounded(self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default())).await?;
        let give_back = async {
            while let Some(Ok(delivery)) = self.consumer.next().await {
                let options = BasicNackOptions { requeue: true, ..Default::default() };
                let _ = delivery.acker.nack(options).await;
            }
        };
        tokio::time::timeout(BUFFERED_MAX, give_back)
            .await
            .map_err(|_| "what was buffered does not end".into())
    }

    /// How a queue stands, on this channel: after every delivery that came before the answer.
    pub(crate) async fn look(&self, queue: &str) -> Result<Queue, String> {
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        bounded(self.channel.queue_declare(queue.into(), passive, FieldTable::default())).await
    }
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, String> {
    bounded(channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    bounded(channel.basic_consume(queue.into(), "".into(), options, arguments)).await
}
