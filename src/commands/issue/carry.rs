//! Takes every row down the line: a thread reads rows and has the line take them in, some at a time; each then goes its
//! way as a task, and its end to a thread that writes the results.
//!
//! Never: to have more rows wait for the pace than it takes in a moment, since a PIN is not to be read long before its
//! call.

use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::job::{Batch, JobId};
use crate::ledger::{Only, Scope};
use crate::line::{Admitted, Line, Options};
use crate::manifest::batch::Jobs;
use crate::manifest::{InvalidRow, Manifest};
use crate::outcome::{Ended, Outcome, Refusal};
use crate::results::{self, Results};
use crate::tally::Tally;

/// Jobs that may wait for their first turn: what the pace takes in this time. Enough to keep the line full, few enough
/// that no PIN is read long before its call.
const WAITING: Duration = Duration::from_millis(500);
/// Bounds of that number: more than 128 only push one another out of the processor's caches.
const WAITING_COUNT: std::ops::RangeInclusive<usize> = 4..=128;
/// Rows that the reader hands over at once: what the pace takes in this time, so that no PIN is read long before its
/// turn, and a thread is not woken for every row.
const READ_AT_ONCE: Duration = Duration::from_millis(5);
/// Bounds of that number.
const READ_COUNT: std::ops::RangeInclusive<usize> = 1..=64;
/// Ends that the results' writer takes at once, and how long it lets them gather.
const WRITTEN_AT_ONCE: usize = 1024;
const WRITTEN_EVERY: Duration = Duration::from_millis(5);
/// Rows of the ledger that are read at once.
const RECORDED_AT_ONCE: u32 = 1000;
/// Rows begun in one go; then all goes on that can. So a busy machine takes rows as fast as it carries them, and no more
/// are under way than it has use for. With four, one of two cores lacked work for a quarter of the time.
const BEGUN_AT_ONCE: u64 = 6;
/// Jobs under way at all, waits between attempts included: a bound on memory.
const CARRIED_MAX: usize = 4096;

/// What came of taking the rows down the line.
pub(super) struct Carried {
    /// Rows that were taken.
    pub(super) taken: u64,
    /// Why not all rows were read, if so.
    pub(super) cut: Option<String>,
    /// Whether the results file is whole.
    pub(super) written: std::io::Result<()>,
}

/// Takes every row down the line.
pub(super) async fn carry_all(
    line: Arc<Line>,
    manifest: Arc<Manifest>,
    jobs: Jobs,
    results: Results,
    tally: Arc<Tally>,
    bar: ProgressBar,
) -> Result<Carried, String> {
    let per_second = line.parts().pace.health().configured_per_second;
    let taken_in = |time: Duration| crate::pace::whole(per_second * time.as_secs_f64());
    let waiting_max = taken_in(WAITING).clamp(*WAITING_COUNT.start(), *WAITING_COUNT.end());
    let at_once = taken_in(READ_AT_ONCE).clamp(*READ_COUNT.start(), *READ_COUNT.end());
    let batch = jobs.batch().clone();
    // The reader is so many rows ahead; the others that wait are jobs.
    let (rows, mut incoming) = mpsc::channel(1);
    let reader = {
        let (line, runtime) = (line.clone(), Handle::current());
        std::thread::spawn(move || take_in(&manifest, &line, jobs, at_once, &runtime, &rows))
    };
    let (ended, endings) = mpsc::channel::<RowEnded>(CARRIED_MAX);
    let scope = line.parts().scope.clone();
    let writer = std::thread::spawn(move || write_results(results, &scope, endings));
    let carried = Arc::new(Semaphore::new(CARRIED_MAX));
    let waiting = Arc::new(Semaphore::new(waiting_max));
    let mut taken: u64 = 0;
    'rows: loop {
        let some = tokio::select! {
            some = incoming.recv() => some,
            () = line.stopped() => None,
        };
        let Some(Rows { jobs, refused }) = some else { break };
        for refused in refused {
            taken += 1;
            tally.add(&refused.ended);
            bar.inc(1);
            let _ = ended.send(refused).await;
        }
        for job in jobs {
            let room = carried.clone().acquire_owned().await.map_err(|error| error.to_string())?;
            let place = waiting.clone().acquire_owned().await.map_err(|error| error.to_string())?;
            if line.is_stopping() {
                break 'rows;
            }
            taken += 1;
            if taken.is_multiple_of(BEGUN_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            let (line, ended, tally, bar) = (line.clone(), ended.clone(), tally.clone(), bar.clone());
            tokio::spawn(async move {
                let (row, row_id) =
                    job.job().place.clone().map_or((0, None), |place| (place.row, place.row_id));
                let job_id = Some(job.job().id.clone());
                let end = line.carry(job.waiting_in(place), Options::default()).await;
                drop(room);
                let Some(end) = end else { return };
                tally.add(&end);
                bar.inc(1);
                let _ = ended.send(RowEnded { row, row_id, job_id, ended: end }).await;
            });
        }
    }
    drop(incoming);
    drop(ended);
    let written = tokio::task::spawn_blocking(move || writer.join())
        .await
        .map_err(|error| error.to_string())?
        .map_err(|_| "the results writer failed".to_owned())?;
    let cut = reader.join().map_err(|_| "the manifest's reader failed".to_owned())??;
    let written = match written {
        Ok(results) if line.is_stopping() || cut.is_some() => add_recorded(results, &line, &batch).await,
        written => written,
    };
    let finishing = move || written.and_then(Results::finish);
    let written = tokio::task::spawn_blocking(finishing).await.map_err(|error| error.to_string())?;
    Ok(Carried { taken, cut, written })
}

/// Gives the rows that a stopped run did not come to the ends that are recorded of them: its results tell no less than
/// those of the run before. A ledger that cannot be read adds nothing: what this run knows itself is told all the same.
async fn add_recorded(mut results: Results, line: &Line, batch: &Batch) -> std::io::Result<Results> {
    let Some(told) = results.job_ids()? else { return Ok(results) };
    let parts = line.parts();
    let mut after = None;
    loop {
        let rows =
            parts.ledger.batch_page(&parts.scope, batch, after.take(), Only::default(), RECORDED_AT_ONCE);
        let rows = match rows.await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "the results have only the rows that this run came to");
                return Ok(results);
            }
        };
        let Some(last) = rows.last() else { return Ok(results) };
        after = Some((last.row.unwrap_or(0), last.id.clone()));
        for row in rows.iter().filter(|row| !told.contains(row.id.as_str())) {
            results.append(&results::Line::of_row(row, &row.ended()))?;
        }
    }
}

/// Some rows of the manifest.
#[derive(Default)]
struct Rows {
    /// As the line has taken them in, in the manifest's order.
    jobs: Vec<Admitted>,
    /// As the check refused them.
    refused: Vec<RowEnded>,
}

/// A row's end on its way to the results file.
struct RowEnded {
    row: u64,
    row_id: Option<String>,
    /// None where batch and `row_id` together make no id.
    job_id: Option<JobId>,
    ended: Ended,
}

/// Reads the rows and has the line take them in, some at a time: what is known of them is one question then. Answers
/// why it ended before the last one, if it did.
fn take_in(
    manifest: &Manifest,
    line: &Line,
    mut named: Jobs,
    at_once: usize,
    runtime: &Handle,
    taken: &mpsc::Sender<Rows>,
) -> Result<Option<String>, String> {
    let mut read = manifest.rows().map_err(|error| error.to_string())?;
    loop {
        let mut some = Rows::default();
        let mut jobs = Vec::with_capacity(at_once);
        let mut cut = None;
        for row in read.by_ref().take(at_once) {
            match row {
                Err(invalid) => match invalid.unreadable() {
                    Some(reason) => cut = Some(reason.to_owned()),
                    None => some.refused.push(refused_row(&invalid, named.batch())),
                },
                Ok(row) => {
                    let line = row.line;
                    jobs.push(Box::new(named.job_of(row).map_err(|error| {
                        format!("line {line}: batch and row_id together make a job id that {error}")
                    })?));
                }
            }
        }
        if jobs.is_empty() && some.refused.is_empty() {
            return Ok(cut);
        }
        some.jobs = runtime.block_on(line.admit(jobs));
        if taken.blocking_send(some).is_err() || cut.is_some() {
            return Ok(cut);
        }
    }
}

fn write_results(
    mut results: Results,
    scope: &Scope,
    mut endings: mpsc::Receiver<RowEnded>,
) -> std::io::Result<Results> {
    let mut some = Vec::with_capacity(WRITTEN_AT_ONCE);
    while endings.blocking_recv_many(&mut some, WRITTEN_AT_ONCE) > 0 {
        for RowEnded { row, row_id, job_id, ended } in some.drain(..) {
            let job_id = job_id.as_ref().map_or("", JobId::as_str);
            let (row_id, scope) = (row_id.as_deref(), scope.as_str());
            let line = results::Line { row, row_id, job_id, ended: &ended, scope };
            results.append(&line)?;
        }
        // At a high rate a row ends every few microseconds, and to wake this thread for each would cost as much.
        std::thread::sleep(WRITTEN_EVERY);
    }
    Ok(results)
}

fn refused_row(invalid: &InvalidRow, batch: &Batch) -> RowEnded {
    let (code, message) = invalid.problems.first().map_or(("invalid", "invalid".to_owned()), |problem| {
        (problem.code, format!("line {}, column {}: {}", problem.line, problem.column, problem.reason))
    });
    let name = invalid.row_id.clone().unwrap_or_else(|| format!("row {}", invalid.number));
    let job_id = JobId::of_row(batch, &name);
    RowEnded {
        row: invalid.number,
        row_id: invalid.row_id.clone(),
        job_id: job_id.ok(),
        ended: Ended {
            outcome: Outcome::Refused(Refusal::own(code, message)),
            attempts: 0,
            request_id: None,
            recorded_before: false,
            note: None,
        },
    }
}
