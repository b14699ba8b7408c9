//! Takes every row down the line, and gives its end to a thread that writes the results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::intake::feed::{Bounds, Each, Fed, Sink, feed};
use crate::job::{Batch, JobId};
use crate::ledger::{Only, Scope};
use crate::line::{Admitted, Line, Options};
use crate::manifest::InvalidRow;
use crate::manifest::batch::Jobs;
use crate::manifest::checked::CheckedManifest;
use crate::manifest::persons::Persons;
use crate::outcome::{Ended, Refusal};
use crate::remedy::TryAgain;
use crate::results::{self, Results};
use crate::tally::Tally;

/// Ends that the results' writer takes at once, and how long it lets them gather.
const WRITTEN_AT_ONCE: usize = 1024;
const WRITTEN_EVERY: Duration = Duration::from_millis(5);
/// Ends that wait to be written: a bound on memory.
const ENDS_WAITING: usize = 4096;

/// The results, and whose each row is.
pub(super) struct ResultsOfRun {
    pub(super) results: Results,
    pub(super) persons: Persons,
}

/// What came of taking the rows down the line.
pub(super) struct Carried {
    /// Rows that were taken.
    pub(super) taken: u64,
    /// Why not all rows were read, if so.
    pub(super) cut: Option<String>,
    /// Whether the results file is whole.
    pub(super) written: std::io::Result<()>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Takes every row down the line.
pub(super) async fn carry_all(
    line: Arc<Line>,
    manifest: CheckedManifest,
    jobs: Jobs,
    results: ResultsOfRun,
    tally: Arc<Tally>,
    bar: ProgressBar,
) -> Result<Carried, String> {
    let (batch, began) = (jobs.batch().clone(), Instant::now());
    let (ended, endings) = mpsc::channel::<RowEnded>(ENDS_WAITING);
    let scope = line.parts().scope.clone();
    let writer = tokio::task::spawn_blocking(move || write_results(results, &scope, endings));
    let again = jobs.again();
    let run = Arc::new(Run { line: line.clone(), batch: batch.clone(), again, ended, tally, bar });
    let read = move |each: &mut Each<'_>| {
        let _ = manifest.rows().map_err(|error| error.to_string())?.try_for_each(each);
        Ok(())
    };
    let fed = feed(read, jobs, &run, Bounds::of_line(&line)).await;
    drop(run);
    let written = writer.await.map_err(|_| "the results writer failed".to_owned())?;
    let Fed { taken, cut } = fed?;
    let written = match written {
        Ok(results) if line.is_stopping() || cut.is_some() => add_recorded(results, &line, &batch).await,
        Ok(ResultsOfRun { results, .. }) => Ok(results),
        Err(error) => Err(error),
    };
    let finishing = move || written.and_then(Results::finish);
    let written = tokio::task::spawn_blocking(finishing).await.map_err(|error| error.to_string())?;
    let written = match written {
        Ok(linked) => {
            mark_links_delivered(&line, linked).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    Ok(Carried { taken, cut, written, took: began.elapsed() })
}

/// The results are at their place, with these jobs' links in them.
async fn mark_links_delivered(line: &Line, linked: Vec<String>) {
    /// Written at once: the ledger commits them together.
    const AT_ONCE: usize = 64;
    let Some(links) = &line.parts().pin_links else { return };
    let ids = linked.into_iter().filter_map(|id| JobId::new(id).ok());
    let marks = stream::iter(ids).map(|id| async move { links.mark_delivered(&id).await });
    let failed = marks
        .buffer_unordered(AT_ONCE)
        .filter_map(|marked| std::future::ready(marked.err()))
        .collect::<Vec<_>>()
        .await;
    if let Some(error) = failed.first() {
        tracing::warn!(%error, "links were delivered, and that could not be recorded; the next run makes them anew");
    }
}

/// The line, and where the end of each row goes.
struct Run {
    line: Arc<Line>,
    batch: Batch,
    again: TryAgain,
    ended: mpsc::Sender<RowEnded>,
    tally: Arc<Tally>,
    bar: ProgressBar,
}

impl Run {
    async fn row_ended(&self, row: RowEnded) {
        self.tally.add(&row.ended);
        self.bar.inc(1);
        // A writer that failed says so itself.
        let _ = self.ended.send(row).await;
    }
}

impl Sink for Run {
    fn line(&self) -> Option<&Line> {
        Some(&self.line)
    }

    async fn carry(&self, job: Admitted) -> Result<(), String> {
        let (row, row_id) = job.job().place.clone().map_or((0, None), |place| (place.row, place.row_id));
        let job_id = Some(job.job().id.clone());
        // If the line stopped before it began, it is as if it had never come.
        if let Some(ended) = self.line.carry(job, Options { again: self.again, ..Options::default() }).await {
            self.row_ended(RowEnded { row, row_id, job_id, ended }).await;
        }
        Ok(())
    }

    async fn refused(&self, row: &InvalidRow) -> Result<(), String> {
        self.row_ended(refused_row(row, &self.batch)).await;
        Ok(())
    }
}

/// Gives the rows that a stopped run did not come to the ends that are recorded of them: its results tell no less than
/// those of the run before. A ledger that cannot be read adds nothing: what this run knows itself is told all the same.
async fn add_recorded(of_run: ResultsOfRun, line: &Line, batch: &Batch) -> std::io::Result<Results> {
    let ResultsOfRun { mut results, persons } = of_run;
    let Some(written) = results.job_ids()? else { return Ok(results) };
    let parts = line.parts();
    let mut pages = parts.ledger.pages(&parts.scope, batch, Only::default());
    loop {
        let rows = match pages.next().await {
            Ok(Some(rows)) => rows,
            Ok(None) => return Ok(results),
            Err(error) => {
                tracing::warn!(%error, "the results have only the rows that this run came to");
                return Ok(results);
            }
        };
        for row in rows.iter().filter(|row| !written.contains(row.id.as_str())) {
            let ended = row.ended();
            let person = persons.of_job(row.id.as_str());
            results.append(&results::Line { person, ..results::Line::of_row(row, &ended) })?;
        }
    }
}

/// A row's end on its way to the results file.
struct RowEnded {
    row: u64,
    row_id: Option<String>,
    /// None where batch and `row_id` together make no id.
    job_id: Option<JobId>,
    ended: Ended,
}

fn write_results(
    mut of_run: ResultsOfRun,
    scope: &Scope,
    mut endings: mpsc::Receiver<RowEnded>,
) -> std::io::Result<ResultsOfRun> {
    let ResultsOfRun { results, persons } = &mut of_run;
    let mut some = Vec::with_capacity(WRITTEN_AT_ONCE);
    while endings.blocking_recv_many(&mut some, WRITTEN_AT_ONCE) > 0 {
        for RowEnded { row, row_id, job_id, ended } in some.drain(..) {
            let job_id = job_id.as_ref().map_or("", JobId::as_str);
            let (row_id, scope) = (row_id.as_deref(), scope.as_str());
            let person = persons.of_job(job_id);
            let line = results::Line {
                row,
                row_id,
                job_id,
                ended: &ended,
                scope,
                person,
                shipping: None,
                cancelled_by: None,
            };
            results.append(&line)?;
        }
        // At a high rate a row ends every few microseconds, and to wake this thread for each would cost as much.
        std::thread::sleep(WRITTEN_EVERY);
    }
    Ok(of_run)
}

fn refused_row(invalid: &InvalidRow, batch: &Batch) -> RowEnded {
    let (code, message) = invalid.problems.first().map_or(("invalid", "invalid".to_owned()), |problem| {
        (problem.code, format!("line {}, column {}: {}", problem.line, problem.column, problem.reason))
    });
    RowEnded {
        row: invalid.number,
        row_id: invalid.row_id.clone(),
        job_id: invalid.job_id(batch).ok(),
        ended: Ended::refused(Refusal::own(code, message)),
    }
}
