//! A batch's way to RabbitMQ: every row that was held, published once; its progress is what the worker writes to the
//! ledger that both use.
//!
//! What the ledger says was issued before is not published again. Progress is counted by the rows that were written
//! after the batch's latest before it began: by the worker's own clock, so that clocks that differ do not matter.
//! Never: a write to the jobs of the ledger, but for the note beside a card. Between this process and the worker only the worker knows what has begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Server;
use super::batch::Batch;
use super::held::Held;
use super::intake::Queue;
use super::problem::{Kind, Problem};
use super::run::{ROWS_AHEAD, read, sampled};
use crate::broker::publisher::NotTaken;
use crate::clock::Time;
use crate::job::Job;
use crate::ledger::State;
use crate::manifest::batch::Jobs;
use crate::line::note_beside;
use crate::line::gate::{Passed, Standing};
use crate::outcome::Ended;
use crate::tally::Counts;
use crate::worker::send::Outgoing;

/// Publishes that wait for their confirm at once.
const UNCONFIRMED_MAX: usize = 256;
/// Between two tries to publish to a full queue.
const FULL_WAIT: Duration = Duration::from_millis(500);
/// Between two looks at the ledger; never more often than a look takes, ten times over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Publishes the batch and follows it to its end.
pub(super) async fn run(server: Server, queue: &Arc<Queue>, batch: Arc<Batch>, held: Held, named: Jobs) {
    let reason = sampled(&batch, publish_and_follow(&server, queue, &batch, held, named)).await.err();
    if let Some(reason) = &reason {
        tracing::warn!(batch = %batch.name, reason, "a batch is interrupted");
    }
    batch.ended(reason);
}

/// How far publishing has come.
struct Publishing {
    server: Server,
    queue: Arc<Queue>,
    batch: Arc<Batch>,
    /// The batch's latest row in the ledger when it began.
    before: Time,
    /// Rows whose end will be written to the ledger after that.
    expected: AtomicU64,
}

async fn publish_and_follow(
    server: &Server,
    queue: &Arc<Queue>,
    batch: &Arc<Batch>,
    held: Held,
    named: Jobs,
) -> Result<(), String> {
    let counts = server.views().counts().await.map_err(|error| error.to_string())?;
    let before = counts
        .iter()
        .find(|counts| counts.batch == batch.name.as_str() && counts.scope == queue.scope.now().as_str())
        .and_then(|counts| counts.latest)
        .unwrap_or(Time::from_unix_ms(i64::MIN));
    let publishing = Arc::new(Publishing {
        server: server.clone(),
        queue: queue.clone(),
        batch: batch.clone(),
        before,
        expected: AtomicU64::new(0),
    });
    let (jobs, incoming) = mpsc::channel(ROWS_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read(held, named, &jobs));
    let follower = tokio::spawn(follow(publishing.clone()));
    let published = tokio::select! {
        published = publish_all(&publishing, incoming) => published,
        () = queue.stopping.cancelled() => Err("the server was stopped".to_owned()),
    };
    let read = reader.await.unwrap_or_else(|_| Err("the held rows could not be read".into()));
    let unpublished = match published.and_then(|all| read.map(|()| all)) {
        Ok(All::Published) => 0,
        Ok(All::CalledOff) => {
            let expected = publishing.expected.load(Ordering::Relaxed);
            batch.rows().saturating_sub(expected + batch.own_counts().ended())
        }
        Err(reason) => {
            follower.abort();
            return Err(reason);
        }
    };
    batch.out_of_reach(unpublished);
    tokio::select! {
        followed = follower => followed.map_err(|error| error.to_string())?,
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
        let Self { server, queue, batch, before, expected } = self;
        let known = server.views().look_up(queue.scope.now(), &job.id).await.map_err(|error| error.to_string())?;
        let pin = job.pin.is_some();
        if let Some(known) = &known {
            let ended = match &known.state {
                State::Issued(_) if known.written <= *before => {
                    let note = note_beside(&job, known);
                    if note != known.note {
                        let noted = server.views().annotate(&known.scope, &known.id, known.step, note.clone()).await;
                        noted.map_err(|error| error.to_string())?;
                    }
                    Some(Ended { note, ..known.ended() })
                }
                // Written since: it is counted with what the worker writes.
                State::Issued(_) => {
                    expected.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                State::Begun | State::Refused(_) => None,
            };
            if let Some(ended) = ended {
                batch.row_ended(&ended, pin, queue.clock.now());
                return Ok(());
            }
        }
        let outgoing = Outgoing::of(job);
        loop {
            match outgoing.publish(&queue.publisher).await {
                Ok(()) => break,
                Err(NotTaken::Full) if batch.gate.standing() == Standing::CalledOff => return Ok(()),
                Err(NotTaken::Full) => tokio::time::sleep(FULL_WAIT).await,
                Err(NotTaken::Unroutable) => return Err(no_queue(queue)),
            }
        }
        expected.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn no_queue(queue: &Queue) -> String {
    let name = &queue.publisher.topology().jobs;
    format!("there is no queue {name}; start a worker, or let rabbitmq.declare be true")
}

/// Counts what the worker writes, until the batch has wholly ended.
async fn follow(publishing: Arc<Publishing>) -> Result<(), String> {
    let Publishing { server, queue, batch, before, expected } = &*publishing;
    loop {
        let began = std::time::Instant::now();
        let written = server.views().written_after(queue.scope.now(), &batch.name, *before).await;
        let written = written.map_err(|error| error.to_string())?;
        // A job whose end is not known yet is under way: the worker repeats it until it is known.
        let counts = Counts { issued: written.issued, refused: written.refused, ..Counts::default() };
        batch.elsewhere(counts, queue.clock.now());
        let ended = counts.ended() >= expected.load(Ordering::Relaxed);
        if ended && batch.is_out_of_reach() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * 10)).await;
    }
}

/// Publishes one job; what is known of it by then is told by the ledger.
pub(super) async fn take(
    server: &Server,
    queue: &Arc<Queue>,
    job: Job,
    under_way: impl Send + 'static,
) -> Result<(), Problem> {
    let id = job.id.clone();
    let before = server.views().look_up(queue.scope.now(), &id).await?.map(|row| row.written);
    let outgoing = Outgoing::of(job);
    let published = tokio::select! {
        published = outgoing.publish(&queue.publisher) => published,
        () = tokio::time::sleep(server.limits().idle_max) => {
            return Err(Problem::new(Kind::Unavailable, "the broker does not answer; send the job again"));
        }
    };
    published.map_err(|not_taken| match not_taken {
        NotTaken::Full => Problem::new(Kind::Busy, "the queue is full"),
        NotTaken::Unroutable => Problem::new(Kind::Unavailable, no_queue(queue)),
    })?;
    let (server, queue) = (server.clone(), queue.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = queue.stopping.cancelled() => break,
            }
            let row = server.views().look_up(queue.scope.now(), &id).await.ok().flatten();
            if row.is_some_and(|row| row.state != State::Begun && Some(row.written) != before) {
                break;
            }
        }
        drop(under_way);
    });
    Ok(())
}
