//! A batch's way to RabbitMQ: every row that was held, published once, and followed to its end by its result event.
//!
//! What the ledger says was issued before is not published again. Never: a write to the jobs of the ledger, but for the
//! note beside a card. Between this process and the worker only the worker knows what has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::Server;
use super::batch::Batch;
use super::following::Outstanding;
use super::held::Held;
use super::intake::Queue;
use super::problem::{Kind, Problem};
use super::run::{ROWS_AHEAD, read, sampled};
use crate::clock::Time;
use crate::job::Job;
use crate::ledger::State;
use crate::line::gate::{Passed, Standing};
use crate::line::note_beside;
use crate::manifest::batch::Jobs;
use crate::outcome::Ended;
use crate::queue::publisher::NotTaken;
use crate::queue::send::Outgoing;

/// Publishes that wait for their confirm at once.
const UNCONFIRMED_MAX: usize = 256;
/// Between two tries to publish to a full queue.
const FULL_WAIT: Duration = Duration::from_millis(500);

/// Publishes the batch and follows it to its end.
pub(super) async fn run(server: Server, queue: &Arc<Queue>, batch: Arc<Batch>, held: Held, named: Jobs) {
    let outstanding = queue.following.batch(&batch);
    let followed = publish_and_follow(&server, queue, &batch, held, named, &outstanding);
    let reason = sampled(&batch, followed).await.err();
    queue.following.leave(&outstanding);
    if let Some(reason) = &reason {
        tracing::warn!(batch = %batch.name, reason, "a batch is interrupted");
    }
    server.batches().ended(&batch, reason);
}

/// How far publishing has come.
struct Publishing {
    server: Server,
    queue: Arc<Queue>,
    batch: Arc<Batch>,
    outstanding: Arc<Outstanding>,
    /// Rows that were published, or had ended before.
    taken: AtomicU64,
}

async fn publish_and_follow(
    server: &Server,
    queue: &Arc<Queue>,
    batch: &Arc<Batch>,
    held: Held,
    named: Jobs,
    outstanding: &Arc<Outstanding>,
) -> Result<(), String> {
    let counts = server.views().counts().await.map_err(|error| error.to_string())?;
    // The batch's latest row before it began, by the worker's own clock: clocks that differ do not matter then.
    let before = counts
        .iter()
        .find(|counts| counts.batch == batch.name.as_str() && counts.scope == queue.scope.now().as_str())
        .and_then(|counts| counts.latest)
        .unwrap_or(Time::from_unix_ms(i64::MIN));
    let publishing = Arc::new(Publishing {
        server: server.clone(),
        queue: queue.clone(),
        batch: batch.clone(),
        outstanding: outstanding.clone(),
        taken: AtomicU64::new(0),
    });
    let (jobs, incoming) = mpsc::channel(ROWS_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read(held, named, &jobs));
    let published = tokio::select! {
        published = publish_all(&publishing, incoming) => published,
        () = queue.stopping.cancelled() => Err("the server was stopped".to_owned()),
    };
    let read = reader.await.unwrap_or_else(|_| Err("the held rows could not be read".into()));
    let unpublished = match published.and_then(|all| read.map(|()| all))? {
        All::Published => 0,
        All::CalledOff => batch.rows().saturating_sub(publishing.taken.load(Ordering::Relaxed)),
    };
    batch.out_of_reach(unpublished);
    tokio::select! {
        ended = outstanding.all_ended(server, queue, before) => ended,
        () = batch.is_let_go() => Err(format!(
            "{} rows are in the queue and nobody takes them; a worker that comes issues them, unless the queue is emptied \
             before",
            outstanding.left()
        )),
        () = queue.stopping.cancelled() => Err("the server was stopped; the worker goes on".to_owned()),
    }
}

enum All {
    Published,
    CalledOff,
}

async fn publish_all(publishing: &Arc<Publishing>, mut incoming: mpsc::Receiver<Job>) -> Result<All, String> {
    let mut tasks: JoinSet<Result<(), String>> = JoinSet::new();
    let mut all = All::Published;
    while let Some(job) = incoming.recv().await {
        if publishing.batch.gate.passed().await == Passed::CalledOff {
            all = All::CalledOff;
            break;
        }
        if tasks.len() >= UNCONFIRMED_MAX
            && let Some(ended) = tasks.join_next().await
        {
            ended.map_err(|error| error.to_string())??;
        }
        let publishing = publishing.clone();
        tasks.spawn(async move { publishing.publish(job).await });
    }
    drop(incoming);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    if publishing.batch.gate.standing() == Standing::CalledOff {
        all = All::CalledOff;
    }
    Ok(all)
}

impl Publishing {
    async fn publish(&self, job: Job) -> Result<(), String> {
        let Self { server, queue, batch, outstanding, taken } = self;
        let known =
            server.views().look_up(queue.scope.now(), &job.id).await.map_err(|error| error.to_string())?;
        let (id, pin) = (job.id.clone(), job.pin.is_some());
        if let Some(known) = &known {
            let ended = match &known.state {
                State::Issued(_) => {
                    let note = note_beside(&job, known);
                    if note != known.note {
                        let noted =
                            server.views().annotate(&known.scope, &known.id, known.step, note.clone()).await;
                        noted.map_err(|error| error.to_string())?;
                    }
                    Some(Ended { note, ..known.ended() })
                }
                State::Begun | State::Refused(_) => None,
            };
            if let Some(ended) = ended {
                batch.row_ended(&ended, pin, queue.clock.now());
                taken.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
        }
        let outgoing = Outgoing::of(job);
        // Its event may come before its confirm.
        outstanding.add(&id, pin);
        loop {
            match outgoing.publish(&queue.publisher).await {
                Ok(()) => break,
                Err(NotTaken::Full) if batch.gate.standing() == Standing::CalledOff => {
                    outstanding.remove(&id);
                    return Ok(());
                }
                Err(NotTaken::Full) => tokio::time::sleep(FULL_WAIT).await,
                Err(NotTaken::Unroutable) => return Err(no_queue(queue)),
            }
        }
        taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn no_queue(queue: &Queue) -> String {
    let name = &queue.publisher.topology().jobs;
    format!("there is no queue {name}; start a worker, or let rabbitmq.declare be true")
}

/// Publishes one job; what becomes of it is told by its event, and what is known of it by the ledger.
pub(super) async fn take(
    server: &Server,
    queue: &Arc<Queue>,
    job: Job,
    under_way: impl Send + 'static,
) -> Result<(), Problem> {
    let (server, queue) = (server.clone(), queue.clone());
    // In a task of its own: a sender that hangs up meanwhile ends the request, and what waits for the job's event would wait for
    // one that may never come. It belongs to the request's trace all the same.
    let publishing = async move { publish_alone(&server, &queue, job, under_way).await };
    let publishing = tokio::spawn(publishing.in_current_span());
    publishing.await.unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "a bug; it has been logged")))
}

async fn publish_alone(
    server: &Server,
    queue: &Arc<Queue>,
    job: Job,
    under_way: impl Send + 'static,
) -> Result<(), Problem> {
    let id = job.id.clone();
    let before = server.views().look_up(queue.scope.now(), &id).await?.map(|row| row.written);
    queue.following.job(&id, before, Box::new(under_way));
    let outgoing = Outgoing::of(job);
    let published = tokio::time::timeout(server.limits().idle_max, outgoing.publish(&queue.publisher)).await;
    let problem = match published {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(NotTaken::Full)) => Problem::new(Kind::Busy, "the queue is full"),
        Ok(Err(NotTaken::Unroutable)) => Problem::new(Kind::Unavailable, no_queue(queue)),
        Err(_) => Problem::new(Kind::Unavailable, "the broker does not answer; send the job again"),
    };
    queue.following.job_ended(id.as_str());
    Err(problem)
}
