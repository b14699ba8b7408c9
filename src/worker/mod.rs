//! The worker: jobs from RabbitMQ, down the same line that `issue` uses, and answered.
//!
//! [`session`] is one connection's life: consume, carry, settle. This file begins sessions for as long as the worker
//! runs. What was in hand when a session broke is dropped, as a crash would: the broker delivers it again, here or
//! to another worker, and the ledger and Stripe's idempotency keys know it.

mod dead;
pub mod event;
pub mod health;
pub mod message;
pub mod send;
mod session;
pub(crate) mod settle;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::publisher::Publisher;
use crate::broker::{Backoff, Broker};
use crate::line::{Halt, Line};
use crate::metrics;
use message::Terms;
use session::End;

/// A session that lived so long was a good one: the next is begun without much waiting.
const SESSION_GOOD: Duration = Duration::from_secs(60);

/// Whether the worker can work, for its readiness.
#[derive(Debug, Default)]
pub struct Ready {
    consuming: AtomicBool,
}

impl Ready {
    fn set(&self, consuming: bool) {
        self.consuming.store(consuming, Ordering::Relaxed);
    }

    /// Whether there is a broker and a consumer on it.
    #[must_use]
    pub fn consuming(&self) -> bool {
        self.consuming.load(Ordering::Relaxed)
    }
}

/// The worker.
pub struct Worker {
    line: Arc<Line>,
    broker: Broker,
    publisher: Publisher,
    terms: Terms,
    drain: Duration,
    ready: Arc<Ready>,
}

impl Worker {
    /// A worker of this line on that broker.
    #[must_use]
    pub fn new(line: Arc<Line>, broker: Broker, terms: Terms, drain: Duration) -> Self {
        let publisher = Publisher::new(broker.clone(), "embosser worker: publishing");
        Self { line, broker, publisher, terms, drain, ready: Arc::default() }
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
        let mut backoff = Backoff::default();
        loop {
            let began = std::time::Instant::now();
            let end = session::session(&worker, &stop).await;
            worker.ready.set(false);
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
