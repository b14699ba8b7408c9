//! One connection's life: connect, declare, consume, and give every delivery its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::event::Named;
use super::message::{self, Envelope};
use super::settle::{Original, ROW_HEADER, ROW_ID_HEADER, Settlement, number, settlement, text};
use super::{Worker, dead};
use crate::clock::Time;
use crate::job::Job;
use crate::metrics;
use crate::pace::{CircuitState, Health};

/// Jobs in hand: what the pace takes in this time, which covers Stripe's slow answers.
const IN_HAND: Duration = Duration::from_secs(4);
/// Bounds of that number. lapin buffers without bound, so this is the only backpressure.
const IN_HAND_COUNT: std::ops::RangeInclusive<usize> = 16..=300;
/// Dead letters in hand: each may wait a minute for a call of old to have ended.
const DEAD_IN_HAND: u16 = 20;
/// After becoming the active consumer: another worker may have used up the pace of the second before.
const HAND_OVER: Duration = Duration::from_millis(1_100);
/// Between two looks at the queue and at Stripe's state.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// For how long nothing may come, with messages waiting and nothing in hand, before all is built anew.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long Stripe may be down before the queue is left alone.
const DOWN_MAX: Duration = Duration::from_secs(5);
/// Bound on one question to the broker.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Why a session ended.
pub(super) enum End {
    /// The worker was told to stop, or the line halted.
    Stopped,
    /// Something was lost.
    Broken(String),
}

struct Session {
    worker: Arc<Worker>,
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    dead: Consumer,
    tasks: JoinSet<()>,
    /// Whether this session was given anything: then it is the active one.
    active: Arc<AtomicBool>,
    latest: Instant,
    down_since: Option<Instant>,
}

pub(super) async fn session(worker: &Arc<Worker>, stop: &CancellationToken) -> End {
    let opening = tokio::select! {
        opening = open(worker) => opening,
        () = stop.cancelled() => return End::Stopped,
    };
    let mut session = match opening {
        Ok(session) => session,
        Err(reason) => return End::Broken(reason),
    };
    worker.ready.set(true);
    tracing::info!(broker = worker.broker.shown(), "consuming");
    match session.consume(stop).await {
        Ok(()) => {
            session.drain().await;
            End::Stopped
        }
        Err(reason) => {
            // What is in hand comes again, perhaps to another worker: two must not call at one account's pace.
            session.tasks.shutdown().await;
            let _ = tokio::time::timeout(ANSWER_MAX, session.connection.close(200, "broken".into())).await;
            End::Broken(reason)
        }
    }
}

async fn open(worker: &Arc<Worker>) -> Result<Session, String> {
    let failed = |error: lapin::Error| error.to_string();
    let connection = worker.broker.connect("embosser worker: consuming").await?;
    let topology = &worker.broker.topology;
    let channel = connection.create_channel().await.map_err(failed)?;
    topology.ensure(&channel).await.map_err(failed)?;
    channel.basic_qos(in_hand_max(worker), BasicQosOptions::default()).await.map_err(failed)?;
    let consumer = subscribe(&channel, &topology.jobs).await.map_err(failed)?;
    let of_dead = connection.create_channel().await.map_err(failed)?;
    of_dead.basic_qos(DEAD_IN_HAND, BasicQosOptions::default()).await.map_err(failed)?;
    let dead = subscribe(&of_dead, &topology.dead).await.map_err(failed)?;
    Ok(Session {
        worker: worker.clone(),
        connection,
        channel,
        consumer,
        dead,
        tasks: JoinSet::new(),
        active: Arc::default(),
        latest: Instant::now(),
        down_since: None,
    })
}

async fn subscribe(channel: &Channel, queue: &str) -> Result<Consumer, lapin::Error> {
    channel
        .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
}

fn in_hand_max(worker: &Worker) -> u16 {
    let per_second = worker.line.parts().pace.health().configured_per_second;
    let wanted = crate::pace::whole(per_second * IN_HAND.as_secs_f64());
    u16::try_from(wanted.clamp(*IN_HAND_COUNT.start(), *IN_HAND_COUNT.end())).unwrap_or(u16::MAX)
}

impl Session {
    /// Ok once the worker is to stop; else what was lost.
    async fn consume(&mut self, stop: &CancellationToken) -> Result<(), String> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let worker = self.worker.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = worker.line.stopped() => return Ok(()),
                delivery = self.consumer.next() => self.take(given(delivery)?).await,
                delivery = self.dead.next() => {
                    self.tasks.spawn(dead::answer(self.worker.clone(), given(delivery)?));
                }
                _ = look.tick() => {
                    self.look().await?;
                    if self.stripe_is_down() {
                        self.leave_the_queue_alone(stop).await?;
                    }
                }
                Some(ended) = self.tasks.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        return Err("a job's task panicked".into());
                    }
                }
            }
        }
    }

    async fn take(&mut self, delivery: Delivery) {
        if !self.active.swap(true, Ordering::Relaxed) {
            tracing::info!("this worker is the active one");
            tokio::time::sleep(HAND_OVER).await;
        }
        self.latest = Instant::now();
        self.tasks.spawn(carry(self.worker.clone(), delivery));
    }

    /// Asks the broker how the queue stands, and whether it knows of a consumer.
    async fn look(&mut self) -> Result<(), String> {
        let topology = &self.worker.broker.topology;
        for (queue, label) in [(&topology.dead, "dead"), (&topology.jobs, "jobs")] {
            let options = QueueDeclareOptions { passive: true, ..Default::default() };
            let asked = self.channel.queue_declare(queue.as_str().into(), options, FieldTable::default());
            let state = tokio::time::timeout(ANSWER_MAX, asked)
                .await
                .map_err(|_| "the broker does not answer".to_owned())?
                .map_err(|error| error.to_string())?;
            metrics::queue(label, state.message_count());
            if state.consumer_count() == 0 {
                return Err(format!("the broker knows of no consumer of {queue}"));
            }
            let silent = self.active.load(Ordering::Relaxed)
                && self.tasks.is_empty()
                && self.latest.elapsed() > SILENCE_MAX;
            if label == "jobs" && state.message_count() == 0 {
                metrics::queue_age(Duration::ZERO);
                self.latest = Instant::now();
            } else if label == "jobs" && silent {
                return Err("messages wait, and none is delivered".into());
            }
        }
        Ok(())
    }

    fn stripe_is_down(&mut self) -> bool {
        let Health { circuit, .. } = self.worker.line.parts().pace.health();
        if circuit == CircuitState::Closed {
            self.down_since = None;
            return false;
        }
        let since = *self.down_since.get_or_insert_with(Instant::now);
        since.elapsed() > DOWN_MAX
    }

    /// Consumes nothing until Stripe answers again. Jobs in hand wait in the line, and one of them probes.
    async fn leave_the_queue_alone(&mut self, stop: &CancellationToken) -> Result<(), String> {
        tracing::warn!("Stripe does not answer; the queue is left alone until it does");
        self.cancel().await?;
        while !self.tasks.is_empty() && self.stripe_is_down() && !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = self.tasks.join_next() => {}
                () = tokio::time::sleep(LOOK_EVERY / 4) => {}
            }
            if !self.channel.status().connected() {
                return Err("the connection is gone".into());
            }
        }
        self.down_since = None;
        self.latest = Instant::now();
        self.active.store(false, Ordering::Relaxed);
        self.consumer = subscribe(&self.channel, &self.worker.broker.topology.jobs)
            .await
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Takes nothing more, and hands back what came but was not taken.
    async fn cancel(&mut self) -> Result<(), String> {
        let tag = self.consumer.tag();
        let cancelled = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        tokio::time::timeout(ANSWER_MAX, cancelled)
            .await
            .map_err(|_| "the broker does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        while let Ok(Some(Ok(delivery))) =
            tokio::time::timeout(Duration::from_millis(100), self.consumer.next()).await
        {
            let options = BasicNackOptions { requeue: true, ..Default::default() };
            let _ = delivery.acker.nack(options).await;
        }
        Ok(())
    }

    /// Lets calls in flight end, hands back what has not begun, and closes.
    async fn drain(&mut self) {
        let _ = self.cancel().await;
        self.worker.line.stop();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.worker.drain, all).await.is_err() {
            tracing::warn!("not all calls ended in time; their jobs come again");
            self.tasks.shutdown().await;
        }
        let _ = tokio::time::timeout(ANSWER_MAX, self.connection.close(200, "done".into())).await;
    }
}

fn given(delivery: Option<Result<Delivery, lapin::Error>>) -> Result<Delivery, String> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the consumer was cancelled: its queue is gone, or its connection".into()),
    }
}

/// One delivery from its body to its acknowledgement.
async fn carry(worker: Arc<Worker>, delivery: Delivery) {
    let Delivery { data, properties, acker, .. } = delivery;
    let body = Zeroizing::new(data);
    let settlement = match read(&worker, &body, &properties) {
        Ok(job) => {
            let named = Named::of(&job);
            let ended = worker.line.carry(job).await;
            settlement(named, ended.as_ref())
        }
        Err(no) => refused(&no),
    };
    worker.settle(settlement, Original { body: &body, properties: &properties }, &acker).await;
}

/// A message that is no job is refused on its first delivery.
pub(super) fn refused(no: &message::NoJob) -> Settlement {
    tracing::warn!(job = no.id.as_deref().unwrap_or(""), code = %no.refusal.code, reason = no.refusal.message,
        "a message is no job");
    metrics::refused_message(&no.refusal);
    let named = Named { id: no.id.clone(), batch: no.batch.clone(), place: None };
    Settlement::Answer(Box::new(named.refused(&no.refusal)))
}

pub(super) fn read(
    worker: &Worker,
    body: &[u8],
    properties: &BasicProperties,
) -> Result<Job, Box<message::NoJob>> {
    let now = worker.line.parts().clock.now();
    let headers = properties.headers().clone().unwrap_or_default();
    let published = properties
        .timestamp()
        .and_then(|seconds| i64::try_from(seconds).ok())
        .map(|seconds| Time::from_unix_ms(seconds.saturating_mul(1000)));
    if let Some(published) = published {
        metrics::queue_age(now.since(published));
    }
    let envelope = Envelope {
        published,
        row: number(&headers, ROW_HEADER).and_then(|row| u64::try_from(row).ok()),
        row_id: text(&headers, ROW_ID_HEADER),
    };
    message::job_of(body, &envelope, &worker.terms, now)
}
