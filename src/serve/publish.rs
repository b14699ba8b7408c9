//! A batch's way to RabbitMQ: every row that was held, published once, and followed to its end by its result event.
//!
//! What the ledger says was issued before is not published again, nor what was refused and is not to be tried again. Never: a write to the jobs of the ledger, but for the
//! note beside a card. Between this process and the worker only the worker knows what has begun.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Instrument as _;

use super::Server;
use super::batch::Batch;
use super::following::Outstanding;
use super::held::Held;
use super::intake::Queue;
use super::problem::{Kind, Problem};
use super::run::{rows_of, sampled};
use crate::clock::Time;
use crate::intake::feed::{Bounds, Sink, feed};
use crate::job::Job;
use crate::ledger::{Row, State};
use crate::line::gate::{Passed, Standing};
use crate::line::{Admitted, Line, note_beside};
use crate::manifest::InvalidRow;
use crate::manifest::batch::Jobs;
use crate::outcome::Ended;
use crate::queue::publisher::NotTaken;
use crate::queue::send::{Outgoing, no_queue};

/// Publishes the batch and follows it to its end.
pub(super) async fn run(server: Server, queue: &Arc<Queue>, batch: Arc<Batch>, held: Held, named: Jobs) {
    let outstanding = queue.following.batch(&batch);
    let followed = publish_and_follow(&server, queue, &batch, held, named, &outstanding);
    let reason = sampled(&batch, followed).await.err();
    queue.following.leave(&outstanding);
    if let Some(reason) = &reason {
        tracing::warn!(batch = %batch.name, reason, "a batch is interrupted");
    }
    // Also one that was let go as there is no worker: one that comes takes it to its end.
    let goes_on = reason.is_some() && batch.is_all_queued();
    server.batches.ended(&batch, reason);
    if goes_on {
        server.leave_to_worker(&batch).await;
    } else {
        server.tell_ended(&batch).await;
    }
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
    let counts = server.parts.views.counts_of(queue.scope.now(), &batch.name).await;
    // The batch's latest row before it began, by the worker's own clock: clocks that differ do not matter then.
    let before = counts
        .map_err(|error| error.to_string())?
        .and_then(|counts| counts.latest)
        .unwrap_or(Time::from_unix_ms(i64::MIN));
    let publishing = Arc::new(Publishing {
        server: server.clone(),
        queue: queue.clone(),
        batch: batch.clone(),
        outstanding: outstanding.clone(),
        taken: AtomicU64::new(0),
    });
    let fed = tokio::select! {
        fed = feed(rows_of(held, &named), named, &publishing, Bounds::OF_QUEUE) => fed?,
        () = queue.stopping.cancelled() => return Err("the server was stopped".to_owned()),
    };
    let unpublished = match (batch.gate.standing(), fed.cut) {
        (Standing::CalledOff, _) => batch.rows().saturating_sub(publishing.taken.load(Ordering::Relaxed)),
        (Standing::Open | Standing::Shut, Some(reason)) => return Err(reason),
        (Standing::Open | Standing::Shut, None) => 0,
    };
    batch.all_queued(unpublished);
    server.tell_queued(batch).await;
    tokio::select! {
        ended = outstanding.all_ended(server, queue, before) => ended,
        () = batch.unfollowed() => Err(format!(
            "{} rows are in the queue and nobody takes them; a worker that comes issues them, unless the queue is emptied \
             before",
            outstanding.left()
        )),
        () = queue.stopping.cancelled() => Err("the server was stopped; the worker goes on".to_owned()),
    }
}

impl Sink for Publishing {
    fn line(&self) -> Option<&Line> {
        None
    }

    async fn carry(&self, job: Admitted) -> Result<(), String> {
        let job = job.into_job();
        if self.batch.gate.passed().await == Passed::CalledOff {
            return Ok(());
        }
        let known = self.server.parts.views.look_up(self.queue.scope.now(), &job.id).await;
        let known = known.map_err(|error| error.to_string())?;
        match known {
            Some(row) if matches!(row.state, State::Done(_)) => self.issued_before(&job, &row).await?,
            Some(row) if row.stays_refused(self.batch.again) => {
                self.batch.row_ended(&row.ended(), job.pin.is_some(), self.queue.clock.now());
            }
            _ if !self.publish(job).await? => return Ok(()),
            _ => {}
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn refused(&self, row: &InvalidRow) -> Result<(), String> {
        self.batch.left_out(row)
    }
}

impl Publishing {
    /// A row that the ledger has a card of, which keeps it: only the note beside it may change.
    async fn issued_before(&self, job: &Job, row: &Row) -> Result<(), String> {
        let note = note_beside(job, row);
        if note != row.note {
            let noted = self.server.parts.views.annotate(&row.scope, &row.id, row.step, note.clone()).await;
            noted.map_err(|error| error.to_string())?;
        }
        let ended = Ended { note, ..row.ended() };
        self.batch.row_ended(&ended, job.pin.is_some(), self.queue.clock.now());
        Ok(())
    }

    /// False if the batch was called off while the queue was full.
    async fn publish(&self, job: Job) -> Result<bool, String> {
        let (id, pin) = (job.id.clone(), job.pin.is_some());
        // Its event may come before its confirm.
        self.outstanding.add(&id, pin);
        let while_full = || match self.batch.gate.standing() {
            Standing::CalledOff => ControlFlow::Break(()),
            Standing::Open | Standing::Shut => ControlFlow::Continue(()),
        };
        match outgoing(&self.queue, job).publish(&self.queue.publisher, while_full).await {
            Ok(()) => Ok(true),
            Err(NotTaken::Full) => {
                self.outstanding.remove(&id);
                Ok(false)
            }
            Err(NotTaken::Unroutable) => Err(no_queue(&self.queue.publisher)),
        }
    }
}

/// A job for the worker, which says whose it is.
fn outgoing(queue: &Queue, job: Job) -> Outgoing {
    let scope = queue.scope.now();
    Outgoing::of(job).meant_for(scope.account(), Some(scope.mode()))
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
    let before = server.parts.views.look_up(queue.scope.now(), &id).await?.map(|row| row.written);
    queue.following.job(&id, before, Box::new(under_way));
    let outgoing = outgoing(queue, job);
    let published = outgoing.publish(&queue.publisher, || ControlFlow::Break(()));
    let published = tokio::time::timeout(server.limits.idle_max, published).await;
    let problem = match published {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(NotTaken::Full)) => Problem::new(Kind::Busy, "the queue is full"),
        Ok(Err(NotTaken::Unroutable)) => Problem::new(Kind::Unavailable, no_queue(&queue.publisher)),
        Err(_) => {
            let alarm = queue.publisher.obstacle().alarm();
            let reason = alarm.unwrap_or_else(|| "the broker does not answer".to_owned());
            Problem::new(Kind::Unavailable, format!("{reason}; send the job again"))
        }
    };
    queue.following.job_ended(id.as_str());
    Err(problem)
}
