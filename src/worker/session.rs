//! One connection's life: connect, declare, consume, and give every delivery its task.
//!
//! Guarantees: a session that lost anything (the connection, the channel, the consumer, a queue) ends as a whole, and
//! nothing of it begins another call: its deliveries come again, here or at another worker. Calls under way end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::Connection;
use lapin::message::Delivery;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::deliveries::{self, Of};
use super::in_flight::{Back, InFlight};
use super::last_empty::{self, Pending};
use super::looks::{FIRST_LOOKS_EVERY, LOOK_EVERY, Looks};
use super::outage::{Change, Outage};
use super::watchdog::{self, Look, Verdict};
use crate::config::seconds;
use crate::metrics;
use crate::queue::subscription::{Lost, Subscription};
use crate::queue::{IN_FLIGHT_MAX, bounded};

/// Jobs in flight: what the pace takes in this time, which covers Stripe's slow answers.
const IN_FLIGHT: Duration = Duration::from_secs(4);
/// Fewest and most of them.
const IN_FLIGHT_COUNT: std::ops::RangeInclusive<u16> = 16..=IN_FLIGHT_MAX;
/// Beyond what a job and its last call may take, until nothing is in flight, before the prefetch is used in another way.
const EMPTIED_MORE: Duration = Duration::from_secs(15);

/// How many messages are delivered before one is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// As many as the pace can use.
    Wide,
    /// One. Among those that come again is one that kills the connection, and each time it does that counts as a delivery
    /// of all that are in flight: the good ones must not be given up on with it.
    One,
}

struct Session {
    worker: Arc<Worker>,
    connection: Connection,
    jobs: Subscription,
    in_flight: InFlight,
    lost: CancellationToken,
    outage: Outage,
    window: Window,
    looks: Looks,
    /// What the latest look found of the queue, until it holds.
    pending: Pending,
    /// Whether the queue has so few messages that it may be empty before the next usual look.
    may_soon_be_empty: bool,
    /// When dead letters were looked for last.
    dead_letters_looked: Option<Instant>,
    /// When consuming began.
    began: Instant,
    /// When something was delivered last.
    latest: Instant,
}

/// Ok once the worker was told to stop, or the line halted; else what was lost.
pub(super) async fn session(
    worker: &Arc<Worker>,
    window: Window,
    stop: &CancellationToken,
) -> Result<(), Lost> {
    let mut session = tokio::select! {
        opened = open(worker, window) => opened?,
        () = stop.cancelled() => return Ok(()),
    };
    worker.ready.consuming(true);
    worker.ready.because(None);
    tracing::info!(broker = worker.broker.shown_latest(), "consuming");
    let ended = session.consume(stop).await;
    match &ended {
        Ok(()) => session.drain().await,
        Err(_) => session.lose(),
    }
    ended
}

async fn open(worker: &Arc<Worker>, window: Window) -> Result<Session, String> {
    let connection = worker.connect("embosser worker: consuming").await?;
    worker.ready.connected(true);
    let topology = &worker.broker.topology;
    worker.publisher.connect().await?;
    worker.can_record().await?;
    worker.last_empty.read().await?;
    let outage = Outage::none(worker.held_max);
    let prefetch = prefetch(worker, outage.taking(), window);
    let jobs = Subscription::begin(&connection, &topology.jobs, prefetch).await?;
    let lost = CancellationToken::new();
    Ok(Session {
        worker: worker.clone(),
        connection,
        jobs,
        in_flight: InFlight::new(&lost),
        lost,
        outage,
        window,
        looks: Looks::default(),
        pending: Pending::default(),
        may_soon_be_empty: true,
        dead_letters_looked: None,
        began: Instant::now(),
        latest: Instant::now(),
    })
}

fn prefetch(worker: &Worker, taking: Window, window: Window) -> u16 {
    match (taking, window) {
        (Window::One, _) | (_, Window::One) => 1,
        (Window::Wide, Window::Wide) => {
            let per_second = worker.line.parts().pace.health().configured_per_second;
            let wanted = crate::pace::whole(per_second * IN_FLIGHT.as_secs_f64());
            let wanted = u16::try_from(wanted).unwrap_or(u16::MAX);
            wanted.clamp(*IN_FLIGHT_COUNT.start(), *IN_FLIGHT_COUNT.end())
        }
    }
}

impl Session {
    /// Ok once the worker is to stop; else what was lost.
    async fn consume(&mut self, stop: &CancellationToken) -> Result<(), Lost> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let worker = self.worker.clone();
        loop {
            let failed = self.in_flight.failed.clone();
            tokio::select! {
                // In this order: a look begins only when no delivery waits to be taken.
                biased;
                () = stop.cancelled() => return Ok(()),
                () = worker.line.stopped() => return Ok(()),
                () = failed.cancelled() => return Err(Lost::Other("a delivery was not settled".into())),
                delivery = self.jobs.next() => {
                    let delivery = delivery?;
                    if self.looks.rest(self.latest.elapsed(), Instant::now()) > LOOK_EVERY {
                        look.reset_after(LOOK_EVERY);
                    }
                    self.latest = Instant::now();
                    let widen = self.window == Window::One && !delivery.redelivered;
                    self.take(delivery);
                    if widen {
                        // All that came again has come.
                        self.window = Window::Wide;
                        self.take_otherwise(Change::Resume, stop).await?;
                    }
                }
                _ = look.tick() => {
                    self.worker.last_empty.hold(std::mem::take(&mut self.pending), self.latest.elapsed()).await?;
                    let looks = self.looks.is_due(self.latest.elapsed(), Instant::now());
                    if looks {
                        self.look().await?;
                    }
                    if self.worker.last_empty.published_after(false).is_none() && self.may_soon_be_empty {
                        look.reset_after(FIRST_LOOKS_EVERY);
                    } else if !looks && self.in_flight.tasks.is_empty() {
                        // What a look found is held before the rest.
                        look.reset_after(self.looks.rest(self.latest.elapsed(), Instant::now()));
                    }
                    let why = worker.line.all_wait_for();
                    match self.outage.look(why.is_none(), Instant::now()) {
                        Change::Stay => {}
                        change @ (Change::Park | Change::Resume) => {
                            log_change(change, why.as_deref().unwrap_or(""));
                            self.take_otherwise(change, stop).await?;
                        }
                    }
                }
            }
        }
    }

    fn take(&self, delivery: Delivery) {
        let published_after = self.worker.last_empty.published_after(delivery.redelivered);
        deliveries::take(&self.worker, &self.in_flight, delivery, Of::Jobs, published_after);
    }

    /// Asks the broker how the jobs queue stands, and whether it knows of a consumer.
    async fn look(&mut self) -> Result<(), String> {
        let asked = self.worker.line.parts().clock.now();
        let jobs = self.jobs.look(&self.worker.broker.topology.jobs).await?;
        metrics::queue("jobs", jobs.message_count(), self.worker.account());
        if jobs.message_count() == 0 {
            metrics::queue_age(Duration::ZERO, self.worker.account());
        }
        self.may_soon_be_empty = jobs.message_count() <= self.prefetch().into();
        let mut waiting = jobs.message_count();
        if self.dead_letters_looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY / 2) {
            self.dead_letters_looked = Some(Instant::now());
            waiting += self.dead_letters().await?;
        }
        self.looks.found(waiting, Instant::now());
        let look = Look {
            asked,
            messages: jobs.message_count(),
            consumers: jobs.consumer_count(),
            room: self.in_flight.tasks.len() < self.prefetch().into(),
            active: self.in_flight.is_active(),
            in_flight: self.worker.tasks.len(),
            consuming: self.began.elapsed(),
            silent: self.latest.elapsed(),
        };
        self.pending = last_empty::found(look);
        match watchdog::verdict(look, self.worker.silent_max) {
            Verdict::Stay => Ok(()),
            Verdict::Subscribe => {
                self.jobs.cancel().await?;
                self.latest = Instant::now();
                self.pending = Pending::default();
                self.jobs.renew(self.prefetch()).await
            }
            Verdict::Rebuild(why) => Err(why.into()),
        }
    }

    /// How many dead letters wait, which [`super::dead`] takes.
    async fn dead_letters(&self) -> Result<u32, String> {
        let topology = &self.worker.broker.topology;
        let (dead, parked) = (self.jobs.look(&topology.dead).await?, self.jobs.look(&topology.parked).await?);
        metrics::queue("dead", dead.message_count(), self.worker.account());
        metrics::parked(parked.message_count(), self.worker.account());
        self.worker.dead_letters.send_if_modified(|waiting| {
            *waiting = (*waiting).max(dead.message_count());
            *waiting > 0
        });
        Ok(dead.message_count())
    }

    fn prefetch(&self) -> u16 {
        prefetch(&self.worker, self.outage.taking(), self.window)
    }

    /// Waits until nothing is in flight, and takes as many jobs as is right now.
    async fn take_otherwise(&mut self, change: Change, stop: &CancellationToken) -> Result<(), String> {
        if change == Change::Park {
            self.in_flight.recall(Back::Ladder);
        }
        self.jobs.cancel().await?;
        self.in_flight.tasks.close();
        let parts = self.worker.line.parts();
        let job_max = seconds(parts.retry.elapsed_seconds_max);
        let emptied_max = job_max + parts.client.call_max() + EMPTIED_MORE;
        tokio::select! {
            () = self.in_flight.tasks.wait() => {}
            () = tokio::time::sleep(emptied_max) => return Err("jobs in flight do not end".into()),
            () = stop.cancelled() => return Ok(()),
        }
        self.in_flight = InFlight::new(&self.lost);
        self.latest = Instant::now();
        self.pending = Pending::default();
        self.jobs.renew(self.prefetch()).await
    }

    /// The connection, or something on it, is gone, and with it the right to settle anything.
    fn lose(self) {
        self.in_flight.recall(Back::Queue);
        self.lost.cancel();
        tokio::spawn(async move {
            let _ = bounded(self.connection.close(200, "something on it was lost".into())).await;
        });
    }

    /// Takes no more, lets calls in flight end, hands back what has not begun, and closes. Whoever takes over waits for the
    /// account's lease, and so does not find this worker still calling.
    async fn drain(&mut self) {
        let began = Instant::now();
        self.in_flight.recall(Back::Queue);
        let _ = self.jobs.cancel().await;
        self.worker.tasks.close();
        let rest = self.worker.drain.saturating_sub(began.elapsed());
        if tokio::time::timeout(rest, self.worker.tasks.wait()).await.is_err() {
            tracing::warn!("not all calls ended in time; their jobs come again");
        }
        self.lost.cancel();
        let _ = bounded(self.connection.close(200, "done".into())).await;
    }
}

fn log_change(change: Change, why: &str) {
    match change {
        Change::Park => tracing::warn!(why, "the jobs in flight wait on the ladder, and one at a time tries"),
        Change::Resume => tracing::info!("jobs go on"),
        Change::Stay => {}
    }
}
