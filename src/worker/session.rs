//! One connection's life: connect, declare, consume, and give every delivery its task.
//!
//! Guarantees: a session that lost anything (the connection, the channel, the consumer, a queue) ends as a whole, and
//! nothing of it begins another call: its deliveries come again, here or at another worker. Calls under way end.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::hand::{Back, Hand};
use super::letter::Letter;
use super::outage::{Change, Outage, Taking};
use super::watchdog::{self, Look};
use super::{Worker, carry};
use crate::metrics;
use crate::pace::CircuitState;
use crate::trace;

/// Jobs in hand: what the pace takes in this time, which covers Stripe's slow answers.
const IN_HAND: Duration = Duration::from_secs(4);
/// Bounds of that number. lapin buffers without bound, so this is the only backpressure.
const IN_HAND_COUNT: std::ops::RangeInclusive<usize> = 16..=300;
/// Dead letters in hand: they cost a question to the ledger each.
const DEAD_IN_HAND: u16 = 20;
/// Between two looks at the queue and at Stripe's state.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Bound on one question to the broker.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bound on the wait for an empty hand before it is filled in another way; longer than a call to Stripe may take.
const EMPTIED_MAX: Duration = Duration::from_secs(45);

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
    hand: Hand,
    lost: CancellationToken,
    outage: Outage,
    /// When something was delivered last.
    latest: Instant,
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
    worker.ready.consuming(true);
    tracing::info!(broker = worker.broker.shown(), "consuming");
    match session.consume(stop).await {
        Ok(()) => {
            session.drain().await;
            End::Stopped
        }
        Err(reason) => {
            session.lose();
            End::Broken(reason)
        }
    }
}

async fn open(worker: &Arc<Worker>) -> Result<Session, String> {
    let failed = |error: lapin::Error| error.to_string();
    let connection = worker.broker.connect("embosser worker: consuming").await?;
    worker.ready.connected(true);
    let topology = &worker.broker.topology;
    let channel = connection.create_channel().await.map_err(failed)?;
    topology.ensure(&channel).await.map_err(failed)?;
    worker.publisher.connect().await?;
    let of_dead = connection.create_channel().await.map_err(failed)?;
    let dead = subscribe(&of_dead, &topology.dead, DEAD_IN_HAND).await?;
    let outage = Outage::none(worker.held_max);
    let consumer = subscribe(&channel, &topology.jobs, in_hand_max(worker, outage.taking())).await?;
    let lost = CancellationToken::new();
    Ok(Session {
        worker: worker.clone(),
        connection,
        channel,
        consumer,
        dead,
        hand: Hand::new(&lost),
        lost,
        outage,
        latest: Instant::now(),
    })
}

/// Waits for the broker's answer, but not for ever: a connection can look well and be dead.
async fn asked<T>(question: impl Future<Output = Result<T, lapin::Error>>) -> Result<T, String> {
    tokio::time::timeout(ANSWER_MAX, question)
        .await
        .map_err(|_| "the broker does not answer".to_owned())?
        .map_err(|error| error.to_string())
}

async fn subscribe(channel: &Channel, queue: &str, in_hand_max: u16) -> Result<Consumer, String> {
    asked(channel.basic_qos(in_hand_max, BasicQosOptions::default())).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    asked(channel.basic_consume(queue.into(), "".into(), options, arguments)).await
}

fn in_hand_max(worker: &Worker, taking: Taking) -> u16 {
    match taking {
        Taking::One => 1,
        Taking::All => {
            let per_second = worker.line.parts().pace.health().configured_per_second;
            let wanted = crate::pace::whole(per_second * IN_HAND.as_secs_f64());
            u16::try_from(wanted.clamp(*IN_HAND_COUNT.start(), *IN_HAND_COUNT.end())).unwrap_or(u16::MAX)
        }
    }
}

fn given(delivery: Option<Result<Delivery, lapin::Error>>) -> Result<Delivery, String> {
    match delivery {
        Some(Ok(delivery)) => Ok(delivery),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("the consumer was cancelled: its queue is gone, or its connection".into()),
    }
}

impl Session {
    /// Ok once the worker is to stop; else what was lost.
    async fn consume(&mut self, stop: &CancellationToken) -> Result<(), String> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let worker = self.worker.clone();
        loop {
            let failed = self.hand.failed().clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = worker.line.stopped() => return Ok(()),
                () = failed.cancelled() => return Err("a job's task panicked".into()),
                delivery = self.consumer.next() => {
                    let delivery = given(delivery)?;
                    self.latest = Instant::now();
                    self.take(delivery, Of::Jobs);
                }
                delivery = self.dead.next() => {
                    let delivery = given(delivery)?;
                    self.take(delivery, Of::Dead);
                }
                _ = look.tick() => {
                    self.look().await?;
                    let answers = worker.line.parts().pace.health().circuit == CircuitState::Closed;
                    match self.outage.look(answers, Instant::now()) {
                        Change::Stay => {}
                        change @ (Change::Park | Change::Resume) => self.take_otherwise(change, stop).await?,
                    }
                }
            }
        }
    }

    /// Gives a delivery its task.
    fn take(&self, delivery: Delivery, of: Of) {
        let (worker, hand) = (self.worker.clone(), self.hand.clone());
        let letter = Letter::open(delivery);
        let topology = &self.worker.broker.topology;
        let queue = match of {
            Of::Jobs => &topology.jobs,
            Of::Dead => &topology.dead,
        };
        let span = trace::delivered(&self.worker.broker, queue, letter.headers(), letter.body.len());
        let task = async move {
            let settled = AssertUnwindSafe(async {
                let settlement = match of {
                    Of::Jobs => carry::job(&worker, &hand, &letter).await,
                    Of::Dead => carry::dead(&worker, &hand, &letter).await,
                };
                worker.settle(&hand, settlement, letter).await;
            });
            if settled.catch_unwind().await.is_err() {
                hand.fail();
            }
        };
        self.worker.tasks.spawn(self.hand.tasks().track_future(task.instrument(span)));
    }

    /// Asks the broker how the queues stand, and whether it knows of a consumer.
    async fn look(&self) -> Result<(), String> {
        let topology = &self.worker.broker.topology;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let ask =
            |queue: &str| asked(self.channel.queue_declare(queue.into(), passive, FieldTable::default()));
        let (dead, jobs) = (ask(&topology.dead).await?, ask(&topology.jobs).await?);
        metrics::queue("dead", dead.message_count());
        metrics::queue("jobs", jobs.message_count());
        if jobs.message_count() == 0 {
            metrics::queue_age(Duration::ZERO);
        }
        let look = Look {
            messages: jobs.message_count(),
            consumers: jobs.consumer_count(),
            room: self.hand.tasks().len() < in_hand_max(&self.worker, self.outage.taking()).into(),
            active: self.hand.is_active(),
            silent: self.latest.elapsed(),
        };
        watchdog::bites(look, self.worker.silent_max).map_or(Ok(()), |why| Err(why.into()))
    }

    /// Empties the hand, and takes as many jobs as is right now.
    async fn take_otherwise(&mut self, change: Change, stop: &CancellationToken) -> Result<(), String> {
        if change == Change::Park {
            tracing::warn!("Stripe does not answer; the jobs in hand wait, and one at a time tries");
            self.hand.recall(Back::Ladder);
        } else {
            tracing::info!("Stripe answers again");
        }
        self.cancel().await?;
        self.hand.tasks().close();
        tokio::select! {
            () = self.hand.tasks().wait() => {}
            () = tokio::time::sleep(EMPTIED_MAX) => return Err("jobs in hand do not end".into()),
            () = stop.cancelled() => return Ok(()),
        }
        self.hand = Hand::new(&self.lost);
        self.latest = Instant::now();
        let in_hand_max = in_hand_max(&self.worker, self.outage.taking());
        self.consumer = subscribe(&self.channel, &self.worker.broker.topology.jobs, in_hand_max).await?;
        Ok(())
    }

    /// Takes nothing more.
    async fn cancel(&self) -> Result<(), String> {
        asked(self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default())).await
    }

    /// The connection, or something on it, is gone, and with it the right to settle anything.
    fn lose(self) {
        self.hand.recall(Back::Queue);
        self.lost.cancel();
        tokio::spawn(async move {
            let _ = asked(self.connection.close(200, "something on it was lost".into())).await;
        });
    }

    /// Lets calls in flight end, hands back what has not begun, and closes. In this order: whoever takes over must not
    /// find this worker still calling.
    async fn drain(&mut self) {
        let began = Instant::now();
        self.hand.recall(Back::Queue);
        let _ = self.cancel().await;
        self.worker.tasks.close();
        let rest = self.worker.drain.saturating_sub(began.elapsed());
        if tokio::time::timeout(rest, self.worker.tasks.wait()).await.is_err() {
            tracing::warn!("not all calls ended in time; their jobs come again");
        }
        self.lost.cancel();
        let _ = asked(self.connection.close(200, "done".into())).await;
    }
}

/// Which queue a delivery is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Jobs,
    Dead,
}
