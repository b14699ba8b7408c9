//! The worker: jobs from RabbitMQ, down the same line that `issue` uses, and answered.
//!
//! [`session`] is one connection's life: consume, [`carry`], [`settle`]. This file begins sessions for as long as the
//! worker runs. What was in hand when a session broke is the broker's again, which delivers it here or to another
//! worker: a job that still runs is waited for, one that has ended is answered from the ledger, and one whose end is
//! unknown goes on under the same idempotency key.

mod carry;
pub mod event;
mod hand;
pub mod health;
pub(crate) mod letter;
pub mod message;
mod outage;
pub mod send;
mod session;
mod settle;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::publisher::Publisher;
use crate::broker::{Backoff, Broker};
use crate::config::{WorkerConfig, seconds};
use crate::line::{Halt, Line};
use crate::metrics;
use message::Terms;
use session::End;

/// A session that lived so long was a good one: the next is begun without much waiting.
const SESSION_GOOD: Duration = Duration::from_secs(60);

/// Whether the worker can work, for its readiness.
#[derive(Debug, Default)]
pub struct Ready {
    connected: AtomicBool,
    consuming: AtomicBool,
}

impl Ready {
    fn connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Relaxed);
    }

    fn consuming(&self, consuming: bool) {
        self.consuming.store(consuming, Ordering::Relaxed);
        metrics::consuming(consuming);
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
}

impl Worker {
    /// A worker of this line on that broker.
    #[must_use]
    pub fn new(line: Arc<Line>, broker: Broker, terms: Terms, config: &WorkerConfig) -> Self {
        let publisher = Publisher::new(broker.clone(), "embosser worker: publishing");
        Self {
            line,
            broker,
            publisher,
            terms,
            drain: seconds(config.drain_seconds),
            held_max: seconds(config.held_seconds_max),
            silent_max: seconds(config.watchdog_seconds),
            tasks: TaskTracker::new(),
            ready: Arc::default(),
        }
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
        let mut backoff = Backoff::default();
        loop {
            let began = std::time::Instant::now();
            let end = session::session(&worker, &stop).await;
            worker.ready.consuming(false);
            worker.ready.connected(false);
            match end {
                End::Stopped => break,
                End::Broken(reason) => {
                    metrics::reconnected();
                    if began.elapsed() > SESSION_GOOD {
                        backoff = Backoff::default();
                    }
                    let wait = backoff.wait();
                    tracing::warn!(
                        reason,
                        wait_seconds = wait.as_secs_f64(),
                        "not consuming; beginning anew"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = stop.cancelled() => break,
                    }
                }
            }
        }
        worker.line.stop();
        worker.publisher.close().await;
        worker.line.halt().map_or(Ok(()), Err)
    }
}
