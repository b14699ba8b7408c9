//! Where jobs go: down the line in this process, or to RabbitMQ for a worker. All that the rest of the server knows of
//! either.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Server;
use super::batch::Batch;
use super::following::{self, Following, OTHER_LEDGER};
use super::held::Held;
use super::problem::Problem;
use super::{publish, run};
use crate::clock::Clock;
use crate::job::Job;
use crate::ledger::Scope;
use crate::line::{Line, Options};
use crate::manifest::batch::Jobs;
use crate::manifest::recognise::Recognition;
use crate::pace::CircuitState;
use crate::queue::Broker;
use crate::queue::IN_FLIGHT_MAX;
use crate::queue::follow::Follower;
use crate::queue::publisher::Publisher;

/// Where jobs go.
pub enum Intake {
    /// Down the line in this process.
    Line(Arc<Line>),
    /// To RabbitMQ.
    Queue(Arc<Queue>),
}

/// The queue of a worker that writes to the same ledger.
pub struct Queue {
    /// To the broker.
    pub publisher: Publisher,
    /// Whose cards the worker makes.
    pub scope: WorkerScope,
    /// The time.
    pub clock: Clock,
    /// Calls a second that the worker is taken to make, for estimates.
    pub per_second: f64,
    /// Cancelled when nothing is published any more.
    pub stopping: CancellationToken,
    /// Who waits for what becomes of jobs.
    pub(super) following: Following,
    /// Who hears it, until the server begins.
    follower: Mutex<Option<Follower>>,
}

impl Queue {
    /// That of a worker for this scope, which is taken to make so many calls a second.
    ///
    /// # Errors
    /// Why the broker cannot be reached.
    pub async fn open(
        broker: &Broker,
        scope: WorkerScope,
        clock: Clock,
        per_second: f64,
    ) -> Result<Self, String> {
        let publisher = Publisher::new(broker.clone(), "embosser serve");
        publisher.connect().await?;
        // A queue for each server: every one of them hears every event.
        let mut follower = Follower::of_all(broker.clone(), "embosser serve: following", "serve");
        follower.connect().await?;
        Ok(Self {
            publisher,
            scope,
            clock,
            per_second,
            stopping: CancellationToken::new(),
            following: Following::default(),
            follower: Mutex::new(Some(follower)),
        })
    }
}

impl Queue {
    /// Jobs that are in the queue, with a worker or on the ladder, at most; none if the broker cannot be asked.
    pub(super) async fn queued(&self) -> Option<u64> {
        let topology = self.publisher.topology();
        let mut queued = u64::from(IN_FLIGHT_MAX);
        for name in topology.queues().iter().filter(|name| **name != topology.parked) {
            queued += u64::from(self.publisher.look(name).await.ok()?.message_count());
        }
        Some(queued)
    }

    /// Whether a worker takes jobs; none if the broker cannot be asked.
    pub(super) async fn has_worker(&self) -> Option<bool> {
        let jobs = self.publisher.look(&self.publisher.topology().jobs).await.ok()?;
        Some(jobs.consumer_count() > 0)
    }
}

/// Whose cards a worker makes: it asks Stripe which account its key belongs to, and the ledger that both use has the answer.
pub struct WorkerScope {
    /// Until the worker has written it.
    former: Scope,
    known: OnceLock<Scope>,
}

impl WorkerScope {
    /// Nothing is known of the account.
    #[must_use]
    pub fn unknown(former: Scope) -> Self {
        Self { former, known: OnceLock::new() }
    }

    /// It is known.
    pub fn is(&self, scope: Scope) {
        let _ = self.known.set(scope);
    }

    /// As far as it is known.
    #[must_use]
    pub fn now(&self) -> &Scope {
        self.known.get().unwrap_or(&self.former)
    }
}

/// How it is with whoever calls Stripe.
pub(super) struct Health {
    pub(super) configured_per_second: f64,
    pub(super) current_per_second: f64,
    pub(super) in_flight: usize,
    pub(super) stripe_down: bool,
    /// What all jobs wait for, if they do.
    pub(super) waits_for: Option<String>,
    /// Why nothing is issued any more.
    pub(super) stopped: Option<String>,
    /// What is wrong with how this server is set up.
    pub(super) warning: Option<String>,
}

impl Intake {
    pub(super) fn scope(&self) -> &Scope {
        match self {
            Self::Line(line) => &line.parts().scope,
            Self::Queue(queue) => queue.scope.now(),
        }
    }

    pub(super) fn clock(&self) -> &Clock {
        match self {
            Self::Line(line) => &line.parts().clock,
            Self::Queue(queue) => &queue.clock,
        }
    }

    /// The ledger of the line, if this process issues by itself.
    pub(super) fn ledger(&self) -> Option<&crate::ledger::Ledger> {
        match self {
            Self::Line(line) => Some(&line.parts().ledger),
            Self::Queue(_) => None,
        }
    }

    /// The pace of this process, if it issues by itself.
    pub(super) fn pace(&self) -> Option<&crate::pace::Pace> {
        match self {
            Self::Line(line) => Some(&line.parts().pace),
            Self::Queue(_) => None,
        }
    }

    pub(super) fn health(&self) -> Health {
        match self {
            Self::Line(line) => {
                let health = line.parts().pace.health();
                Health {
                    configured_per_second: health.configured_per_second,
                    current_per_second: health.current_per_second,
                    in_flight: health.in_flight,
                    stripe_down: health.circuit != CircuitState::Closed,
                    waits_for: line.all_wait_for(),
                    stopped: line.halt().map(|halt| halt.to_string()),
                    warning: None,
                }
            }
            // The worker tells its own health; from here its configuration is all that is known.
            Self::Queue(queue) => Health {
                configured_per_second: queue.per_second,
                current_per_second: queue.per_second,
                in_flight: 0,
                stripe_down: false,
                waits_for: None,
                stopped: queue.following.lost().or_else(|| queue.publisher.obstacle().alarm()),
                warning: queue.following.is_elsewhere().then(|| OTHER_LEDGER.to_owned()),
            },
        }
    }

    /// The server begins.
    pub(super) fn begin(&self, server: &Server) {
        let Self::Queue(queue) = self else { return };
        let follower = queue.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(follower) = follower {
            server.tasks.spawn(following::follow(server.clone(), queue.clone(), follower));
        }
    }

    /// Nothing more begins.
    pub(super) fn stop(&self) {
        match self {
            Self::Line(line) => line.stop(),
            Self::Queue(queue) => queue.stopping.cancel(),
        }
    }

    /// Whether somebody issues what was taken in. While the broker is away, nobody is known to.
    pub(super) async fn has_worker(&self) -> bool {
        match self {
            Self::Line(_) => true,
            Self::Queue(queue) => {
                queue.following.lost().is_none() && queue.has_worker().await.unwrap_or(false)
            }
        }
    }

    /// Takes a batch to its end.
    pub(super) async fn run(
        &self,
        server: Server,
        batch: Arc<Batch>,
        held: Held,
        recognition: Arc<Recognition>,
    ) {
        let jobs = Jobs::new(batch.name.clone(), recognition);
        match self {
            Self::Line(line) => run::run(server, line, batch, held, jobs).await,
            Self::Queue(queue) => publish::run(server, queue, batch, held, jobs).await,
        }
    }

    /// Takes a job that was sent alone; once this returns it is known by its id, and `under_way` is dropped when it has
    /// ended.
    pub(super) async fn take(
        &self,
        server: &Server,
        job: Job,
        under_way: impl Send + 'static,
    ) -> Result<(), Problem> {
        match self {
            Self::Line(line) => {
                let line = line.clone();
                server.tasks.spawn(async move {
                    // The ledger has its end, if it came to one.
                    let _ = line.carry(job, Options::default()).await;
                    drop(under_way);
                });
                Ok(())
            }
            Self::Queue(queue) => publish::take(server, queue, job, under_way).await,
        }
    }
}
