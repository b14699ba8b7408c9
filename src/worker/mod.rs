//! The worker: jobs from RabbitMQ, down the same line that `issue` uses, and answered.
//!
//! [`session`] is one connection's life: consume, [`carry`], [`settle`]; [`dead`] is that of the dead letters. This file
//! begins sessions for as long as the worker runs. What was in flight when a session broke is the broker's again, which delivers it here or to another
//! worker: a job that still runs is waited for, one that has ended is answered from the ledger, and one whose end is
//! unknown goes on under the same idempotency key.

mod batches;
mod carry;
mod dead;
mod deliveries;
pub mod health;
mod in_flight;
mod last_empty;
mod looks;
mod new_links;
mod outage;
mod outbox;
mod session;
mod settle;
mod unsettled;
mod watchdog;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::Connection;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::backoff::Backoff;
use crate::config::{WorkerConfig, seconds};
use crate::line::{Halt, Line};
use crate::metrics;
use crate::pin_links::Owing;
use crate::queue::message::Terms;
use crate::queue::obstacle::Obstacle;
use crate::queue::publisher::{Publisher, Shared};
use crate::queue::subscription::Lost;
use crate::queue::{Broker, RECONNECT, bounded};
use batches::Batches;
use last_empty::LastEmpty;
use session::Window;
use unsettled::Unsettled;

/// What its connection for that is called at the broker.
const PUBLISHING: &str = "embosser worker: publishing";
/// A session that lived so long was a good one: the next is begun without much waiting.
const SESSION_GOOD: Duration = Duration::from_secs(60);
/// Wait after a message that kills the connection was delivered: short, because only so many deliveries make the broker move
/// it away, and every other job waits for that.
const UNREADABLE_WAIT: Duration = Duration::from_millis(200);
/// So many times in a row. A queue that was declared by others may have no delivery limit; then the waits grow as usual.
const UNREADABLE_MAX: u32 = 60;
/// Longest that a write to the ledger may take before it counts as one that cannot be made.
const RECORD_MAX: Duration = Duration::from_secs(10);

/// Whether the worker can work, for its readiness.
#[derive(Debug)]
pub struct Ready {
    connected: AtomicBool,
    consuming: AtomicBool,
    reason: Mutex<Option<String>>,
    obstacle: Arc<Obstacle>,
    unsettled: Unsettled,
    /// Whose jobs it is about.
    account: Option<String>,
}

impl Ready {
    fn new(obstacle: Arc<Obstacle>, account: Option<&str>) -> Self {
        Self {
            connected: AtomicBool::new(false),
            consuming: AtomicBool::new(false),
            reason: Mutex::default(),
            obstacle,
            unsettled: Unsettled::default(),
            account: account.map(str::to_owned),
        }
    }

    /// What keeps the worker from answering jobs though it is connected, in a sentence.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.reason()
    }

    /// Sets the gauges that are read at the moment of asking.
    pub fn show(&self) {
        self.unsettled.show(self.account.as_deref());
    }

    fn because(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why it does not consume, if it does not and knows.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    fn consuming(&self, consuming: bool) {
        self.consuming.store(consuming, Ordering::Relaxed);
        metrics::consuming(consuming, self.account.as_deref());
    }

    /// Whether there is a broker.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Whether there is a consumer on it.
    #[must_use]
    pub fn is_consuming(&self) -> bool {
        self.consuming.load(Ordering::Relaxed)
    }
}

/// The worker.
pub struct Worker {
    line: Arc<Line>,
    broker: Broker,
    publisher: Publisher,
    terms: Terms,
    /// Longest time from being told to stop to the end.
    drain: Duration,
    /// Longest time that jobs are held while Stripe is down.
    held_max: Duration,
    /// Longest silence that is not asked about.
    silent_max: Duration,
    /// The tasks of all deliveries, of lost sessions too.
    tasks: TaskTracker,
    ready: Arc<Ready>,
    /// When the jobs queue was empty.
    last_empty: LastEmpty,
    /// How many rows the batches have whose jobs come.
    batches: Batches,
    /// Tells when the ledger owes events.
    owing: Owing,
    /// How many dead letters were found; none once all were taken.
    dead_letters: watch::Sender<u32>,
}

impl Worker {
    /// A worker of this line on that broker. `owing` is the ledger's, and may be that of other workers, too.
    #[must_use]
    pub fn new(line: Arc<Line>, broker: Broker, terms: Terms, config: &WorkerConfig, owing: Owing) -> Self {
        let publisher = Publisher::new(broker.clone(), PUBLISHING);
        Self::publishing(line, publisher, terms, config, owing)
    }

    /// The same for one of several accounts, which publish on one connection.
    #[must_use]
    pub fn for_one_of_several(
        line: Arc<Line>,
        (broker, shared): (Broker, &Shared),
        terms: Terms,
        config: &WorkerConfig,
        owing: Owing,
    ) -> Self {
        let publisher = Publisher::on(shared, broker, PUBLISHING);
        Self::publishing(line, publisher, terms, config, owing)
    }

    fn publishing(
        line: Arc<Line>,
        publisher: Publisher,
        terms: Terms,
        config: &WorkerConfig,
        owing: Owing,
    ) -> Self {
        let broker = publisher.broker().clone();
        let parts = line.parts();
        let ready = Arc::new(Ready::new(publisher.obstacle().clone(), parts.scope.account()));
        let last_empty = LastEmpty::new(&broker.topology.jobs, parts.ledger.clone(), parts.scope.clone());
        Self {
            line,
            broker,
            publisher,
            terms,
            drain: seconds(config.drain_seconds),
            held_max: seconds(config.held_seconds_max),
            silent_max: seconds(config.watchdog_seconds),
            tasks: TaskTracker::new(),
            ready,
            last_empty,
            batches: Batches::default(),
            owing,
            dead_letters: watch::Sender::new(0),
        }
    }

    /// Whose jobs it carries, if that is known.
    fn account(&self) -> Option<&str> {
        self.line.parts().scope.account()
    }

    /// Whether outcomes can be recorded. A worker that cannot would take jobs and hand them back, until the broker gave up
    /// on them.
    async fn can_record(&self) -> Result<(), String> {
        tokio::time::timeout(RECORD_MAX, self.line.parts().ledger.probe_write())
            .await
            .map_err(|_| "the ledger does not answer; no job is taken until it can be written to".to_owned())?
            .map_err(|error| format!("{error}; no job is taken until it can be written to"))
    }

    /// A connection to a broker whose queues are there, and are those of this worker's account.
    async fn connect(&self, name: &str) -> Result<Connection, String> {
        let connection = self.broker.open(name).await?;
        let scope = &self.line.parts().scope;
        // A key that may not ask whose it is was told of at start.
        let Some(account) = scope.account() else { return Ok(connection) };
        let owner = format!("{account} ({})", scope.mode());
        if let Err(reason) = self.broker.topology.claim(&connection, &owner).await {
            let _ = bounded(connection.close(200, "another account's".into())).await;
            return Err(reason);
        }
        Ok(connection)
    }

    /// Its readiness.
    #[must_use]
    pub fn ready(&self) -> Arc<Ready> {
        self.ready.clone()
    }

    /// Works until it is told to stop, or the line halts.
    ///
    /// # Errors
    /// Why the line halted.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Halt> {
        let worker = Arc::new(self);
        worker.ready.consuming(false);
        // What is logged says whose jobs it is about, where that is the span's to say.
        let dead_letters = tokio::spawn(dead::run(worker.clone(), stop.clone()).in_current_span());
        let owed = tokio::spawn(outbox::run(worker.clone(), stop.clone()).in_current_span());
        let new_links = tokio::spawn(new_links::run(worker.clone(), stop.clone()).in_current_span());
        let mut restarts = Restarts::default();
        loop {
            let began = std::time::Instant::now();
            let ended = session::session(&worker, restarts.window, &stop).await;
            worker.ready.consuming(false);
            worker.ready.connected(false);
            let Err(lost) = ended else { break };
            metrics::reconnected();
            worker.ready.because(Some(lost.to_string()));
            if !restarts.wait(&worker, "jobs", &lost, began.elapsed(), &stop).await {
                break;
            }
        }
        worker.line.stop();
        let began = std::time::Instant::now();
        let beside = futures_util::future::join3(dead_letters, owed, new_links);
        let _ = tokio::time::timeout(worker.drain, beside).await;
        // Calls of a session that was lost end as well, and are recorded.
        worker.tasks.close();
        let rest = worker.drain.saturating_sub(began.elapsed());
        let _ = tokio::time::timeout(rest, worker.tasks.wait()).await;
        worker.publisher.close().await;
        worker.line.halt().map_or(Ok(()), Err)
    }
}

/// How one session after another is begun on a queue.
struct Restarts {
    backoff: Backoff,
    /// Sessions in a row that a message killed.
    unreadable: u32,
    /// How many messages the next session takes at once.
    window: Window,
    /// Why the latest one was lost: what goes on for hours is told once.
    told: Option<String>,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { backoff: RECONNECT, unreadable: 0, window: Window::Wide, told: None }
    }
}

impl Restarts {
    /// Waits after a session that lived so long and was lost. False if no further one is to begin.
    async fn wait(
        &mut self,
        worker: &Worker,
        queue: &str,
        lost: &Lost,
        lived: Duration,
        stop: &CancellationToken,
    ) -> bool {
        if lived > SESSION_GOOD {
            self.backoff.reset();
            self.window = Window::Wide;
        }
        let wait = match lost {
            Lost::Unreadable => {
                self.window = Window::One;
                self.unreadable += 1;
                if self.unreadable <= UNREADABLE_MAX { UNREADABLE_WAIT } else { self.backoff.wait() }
            }
            Lost::Other(_) => {
                self.unreadable = 0;
                self.backoff.wait()
            }
        };
        let reason = lost.to_string();
        if lived > SESSION_GOOD || self.told.as_ref() != Some(&reason) {
            tracing::warn!(queue, reason, "not consuming; trying again until it works");
            self.told = Some(reason);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = stop.cancelled() => false,
            () = worker.line.stopped() => false,
        }
    }
}
