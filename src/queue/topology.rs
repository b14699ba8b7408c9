//! Queues and exchanges: what they are called, how they are declared, and why so.
//!
//! ```text
//! publisher → PREFIX.jobs → worker → PREFIX.results (topic exchange, key OUTCOME.BATCH)
//!                 ↑  ╲ dead-letters → PREFIX.dead → worker
//!                 │                        ╲ dead-letters → PREFIX.parked (nobody)
//!                 └── PREFIX.retry.{1s,5s,30s,2m,10m} ← worker
//! ```
//! The jobs queue is a quorum queue with a single active consumer: one worker calls Stripe, the others stand by, so the
//! rate limit holds by construction. It is bounded and rejects publishes when it is full: ciphertext does not
//! pile up. A retry queue per wait, since messages expire only at a queue's head.
//!
//! What not even the worker that drains the dead letters comes to an end with (a message that its AMQP library cannot read
//! kills each connection that it is delivered to) is parked: nobody takes it from there, somebody must look at it.

use std::sync::Once;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, Connection, ExchangeKind};

use super::differs::Differs;
use super::{ANSWER_MAX, bounded, reason};
use crate::config::{Declare, RabbitmqConfig};

/// Deliveries of one message after which the broker gives up on it, in the jobs queue and among the dead letters. Not -1: RabbitMQ 3.10 then loses messages.
const DELIVERIES_MAX: i32 = 20;

/// Most parked messages; the oldest makes room. Enough to see what they have in common, and 64 MiB of usual largest jobs.
const PARKED_MAX: i64 = 500;
/// How long a message stays parked: who comes back after a weekend still finds it. It may hold a PIN's ciphertext, so not
/// longer.
const PARKED_FOR: Duration = Duration::from_secs(3 * 24 * 3600);

/// The rungs of the retry ladder: what they are called, and how long a job waits there.
pub const RUNGS: [(&str, Duration); 5] = [
    ("1s", Duration::from_secs(1)),
    ("5s", Duration::from_secs(5)),
    ("30s", Duration::from_secs(30)),
    ("2m", Duration::from_secs(120)),
    ("10m", Duration::from_secs(600)),
];

/// The rung on which jobs wait while Stripe is down.
pub const RUNG_PARKED: usize = 3;

/// The names and bounds.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Where jobs wait.
    pub jobs: String,
    /// What the broker gave up on.
    pub dead: String,
    /// What nobody could answer: bounded, and taken by nobody.
    pub parked: String,
    /// The exchange of result events.
    pub results: String,
    prefix: String,
    /// Says whose they are; nothing is ever sent to it.
    owner: String,
    length_max: u32,
    declare: Declare,
}

impl Topology {
    pub(super) fn new(config: &RabbitmqConfig) -> Self {
        let prefix = config.prefix.clone();
        Self {
            jobs: format!("{prefix}.jobs"),
            dead: format!("{prefix}.dead"),
            parked: format!("{prefix}.parked"),
            results: format!("{prefix}.results"),
            owner: format!("{prefix}.owner"),
            prefix,
            length_max: config.jobs_max,
            declare: config.declare,
        }
    }

    /// The retry queue for a job's n-th wait, from 0; the last for all further ones.
    #[must_use]
    pub fn rung(&self, wait: usize) -> (String, Duration) {
        let (name, time) = RUNGS[wait.min(RUNGS.len() - 1)];
        (format!("{}.retry.{name}", self.prefix), time)
    }

    /// A new queue of events, for one who follows; what it is called after is cut if it is long. Two who follow the same batch
    /// have one each: from a queue that they shared, each would hear half.
    #[must_use]
    pub fn following(&self, after: &str) -> String {
        const AFTER_BYTES_MAX: usize = 180;
        let after = &after[..after.floor_char_boundary(AFTER_BYTES_MAX)];
        format!("{}.following.{after}-{:016x}", self.prefix, rand::random::<u64>())
    }

    /// Every queue, for those who look after them.
    #[must_use]
    pub fn queues(&self) -> Vec<String> {
        let rungs = (0..RUNGS.len()).map(|wait| self.rung(wait).0);
        [self.jobs.clone(), self.dead.clone(), self.parked.clone()].into_iter().chain(rungs).collect()
    }

    /// Makes what is missing, or only checks that it is there; on a channel of its own.
    ///
    /// # Errors
    /// If something is missing, or is there but other than declared.
    pub async fn ensure(&self, connection: &Connection) -> Result<(), String> {
        self.parked_and_dead(connection).await?;
        let channel = bounded(connection.create_channel()).await?;
        let exchange =
            ExchangeDeclareOptions { durable: true, passive: self.passive(), ..Default::default() };
        let results = self.results.as_str().into();
        bounded(channel.exchange_declare(results, ExchangeKind::Topic, exchange, FieldTable::default()))
            .await?;
        let length = AMQPValue::LongLongInt(self.length_max.into());
        let jobs = [
            ("x-single-active-consumer", AMQPValue::Boolean(true)),
            ("x-delivery-limit", AMQPValue::LongInt(DELIVERIES_MAX)),
            ("x-overflow", text("reject-publish")),
            ("x-max-length", length),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&self.dead)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ];
        self.queue(&channel, &self.jobs, table(jobs)).await.map_err(|error| self.why(&error))?;
        for wait in 0..RUNGS.len() {
            let (name, time) = self.rung(wait);
            let rung = [
                ("x-message-ttl", milliseconds(time)),
                ("x-overflow", text("reject-publish")),
                ("x-dead-letter-exchange", text("")),
                ("x-dead-letter-routing-key", text(&self.jobs)),
                ("x-dead-letter-strategy", text("at-least-once")),
            ];
            self.queue(&channel, &name, table(rung)).await.map_err(|error| self.why(&error))?;
        }
        bounded(channel.close(200, "declared".into())).await
    }

    /// The queue of the dead letters as it is declared now, or as an earlier embosser declared it: without a bound on
    /// deliveries. That one serves, too, but nothing is ever parked out of it.
    async fn parked_and_dead(&self, connection: &Connection) -> Result<(), String> {
        let channel = bounded(connection.create_channel()).await?;
        let parked = [
            ("x-max-length", AMQPValue::LongLongInt(PARKED_MAX)),
            ("x-message-ttl", milliseconds(PARKED_FOR)),
        ];
        self.queue(&channel, &self.parked, table(parked)).await.map_err(|error| self.why(&error))?;
        let dead = [
            ("x-delivery-limit", AMQPValue::LongInt(DELIVERIES_MAX)),
            // Nothing bounds its length; at-least-once wants it so.
            ("x-overflow", text("reject-publish")),
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(&self.parked)),
            ("x-dead-letter-strategy", text("at-least-once")),
        ];
        match self.queue(&channel, &self.dead, table(dead)).await {
            Ok(()) => bounded(channel.close(200, "declared".into())).await,
            Err(error) if Differs::of(&error).is_some() => {
                OF_BEFORE.call_once(|| {
                    tracing::warn!(
                        queue = self.dead,
                        "the queue was declared by an earlier embosser and has no delivery limit; give it one, as \
                         CHANGELOG.md tells"
                    );
                });
                Ok(())
            }
            Err(error) => Err(self.why(&error)),
        }
    }

    fn passive(&self) -> bool {
        self.declare == Declare::Passive
    }

    /// Says that these queues are this owner's, an account's and whether its cards are real, unless they are another one's: a worker
    /// of another account that took their jobs would make cards for the wrong people.
    ///
    /// The broker compares a queue's arguments with those of before when it is declared, so that of two owners who come at once
    /// one is refused. Where queues are not declared here, nothing is said.
    ///
    /// # Errors
    /// If they are another one's.
    pub(crate) async fn claim(&self, connection: &Connection, owner: &str) -> Result<(), String> {
        if self.passive() {
            return Ok(());
        }
        let channel = bounded(connection.create_channel()).await?;
        // Of its arguments one that holds any text, is compared, and does nothing in a queue that is empty. It needs an exchange
        // beside it, for which RabbitMQ wants the rights to read the queue and to write to the exchange.
        let arguments = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(owner))];
        let claimed = self.queue(&channel, &self.owner, table(arguments)).await;
        claimed.map_err(|error| match Differs::of(&error) {
            Some(Differs { current, .. }) => format!(
                "the queues of rabbitmq.prefix = \"{}\" are those of {current}, and this worker is for {owner}: give it a \
                 prefix of its own. If they are to be {owner}'s from now on, see RUNBOOK.md (\"The queues are another \
                 account's\")",
                self.prefix
            ),
            None => reason(&error),
        })?;
        bounded(channel.close(200, "claimed".into())).await
    }

    /// Why a queue could not be declared.
    fn why(&self, error: &lapin::Error) -> String {
        let Some(differs) = Differs::of(error) else { return reason(error) };
        let of_jobs = differs.queue == self.jobs && differs.argument == "x-max-length";
        differs.sentence(of_jobs.then_some("rabbitmq.jobs_max"))
    }

    async fn queue(&self, channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), lapin::Error> {
        let options = QueueDeclareOptions { durable: true, passive: self.passive(), ..Default::default() };
        let declared =
            tokio::time::timeout(ANSWER_MAX, channel.queue_declare(name.into(), options, arguments));
        declared
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
            .map(|_| ())
    }
}

/// So that it is told once, not at each connection.
static OF_BEFORE: Once = Once::new();

fn milliseconds(time: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn table<const N: usize>(arguments: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("x-queue-type".into(), text("quorum"));
    for (name, value) in arguments {
        table.insert(name.into(), value);
    }
    table
}
