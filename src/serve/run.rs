//! A batch's way down the line in this process: every row that was held, once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::Server;
use super::batch::Batch;
use super::held::Held;
use crate::job::Job;
use crate::line::{Line, Options};
use crate::manifest::Manifest;
use crate::manifest::batch::Jobs;

/// Rows between the reader and the line: the reader is far faster.
pub(super) const ROWS_AHEAD: usize = 8;
/// Rows of a batch that may wait for their turn beyond those in flight: the line never runs dry, and a job of
/// another sender waits behind few.
const WAITING_MAX: usize = 16;
/// Between two samples of a batch's counts.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Carries the batch to its end.
pub(super) async fn run(server: Server, line: &Arc<Line>, batch: Arc<Batch>, held: Held, jobs: Jobs) {
    let (rows, incoming) = mpsc::channel(ROWS_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read(held, jobs, &rows));
    sampled(&batch, carry(&server, line, &batch, incoming)).await;
    let read = reader.await.unwrap_or_else(|_| Err("the held rows could not be read".into()));
    let left = batch.rows().saturating_sub(batch.counts().ended());
    let reason = match (line.halt(), read) {
        (Some(halt), _) if left > 0 => Some(halt.to_string()),
        (_, Err(reason)) => Some(reason),
        _ if left > 0 => Some("the server was stopped".into()),
        _ => None,
    };
    if let Some(reason) = &reason {
        tracing::warn!(batch = %batch.name, left, reason, "a batch is interrupted");
    }
    server.batches().ended(&batch, reason);
}

/// Does it with the batch's counts sampled meanwhile.
pub(super) async fn sampled<T>(batch: &Batch, work: impl Future<Output = T>) -> T {
    let sampling = async {
        loop {
            tokio::time::sleep(SAMPLE_EVERY).await;
            batch.sample();
        }
    };
    tokio::select! {
        done = work => done,
        never = sampling => never,
    }
}

async fn carry(server: &Server, line: &Arc<Line>, batch: &Arc<Batch>, mut incoming: mpsc::Receiver<Job>) {
    let places = Arc::new(Semaphore::new(line.parts().pace.health().concurrency + WAITING_MAX));
    let carried = TaskTracker::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            incoming.recv().await.map(|job| (place, job))
        };
        let next = tokio::select! {
            next = next => next,
            () = line.stopped() => None,
        };
        let Some((place, job)) = next else { break };
        let (server, line, batch) = (server.clone(), line.clone(), batch.clone());
        carried.spawn(async move {
            let pin = job.pin.is_some();
            let through = Options { gate: Some(&batch.gate), ..Options::default() };
            let end = line.carry(job, through).await;
            drop(place);
            // The line stopped before it began: it is as if it had never come.
            let Some(end) = end else { return };
            batch.row_ended(&end, pin, server.clock().now());
        });
    }
    carried.close();
    carried.wait().await;
}

/// Makes jobs of the held rows; blocks.
pub(super) fn read(held: Held, mut named: Jobs, jobs: &mpsc::Sender<Job>) -> Result<(), String> {
    let name = std::path::PathBuf::from(named.batch().as_str());
    let rows = Manifest::read(&name, held.into_reader()).map_err(|error| error.to_string())?.rows();
    for row in rows {
        // Every row was checked when it came.
        let row = row.map_err(|row| format!("the held row {} can no longer be read", row.number))?;
        let job = named.job_of(row).map_err(|error| error.to_string())?;
        if jobs.blocking_send(job).is_err() {
            break;
        }
    }
    Ok(())
}
