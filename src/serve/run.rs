//! A batch's way down the line in this process: every row that was held, once.

use std::sync::Arc;
use std::time::Duration;

use super::Server;
use super::batch::Batch;
use super::held::Held;
use crate::intake::feed::{Bounds, Each, Sink, feed};
use crate::line::{Admitted, Line, Options};
use crate::manifest::batch::Jobs;
use crate::manifest::{InvalidRow, Manifest};

/// Between two samples of a batch's counts.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Carries the batch to its end.
pub(super) async fn run(server: Server, line: &Arc<Line>, batch: Arc<Batch>, held: Held, jobs: Jobs) {
    let sink = Arc::new(ToLine { server: server.clone(), line: line.clone(), batch: batch.clone() });
    let fed = feed(rows_of(held, &jobs), jobs, &sink, Bounds::of_line(line));
    let cut = sampled(&batch, fed).await.map_or_else(Some, |fed| fed.cut);
    let left = batch.rows().saturating_sub(batch.counts().ended());
    let reason = match (line.halt(), cut) {
        (Some(halt), _) if left > 0 => Some(halt.to_string()),
        (_, Some(reason)) => Some(reason),
        _ if left > 0 => Some("the server was stopped".into()),
        _ => None,
    };
    if let Some(reason) = &reason {
        tracing::warn!(batch = %batch.name, left, reason, "a batch is interrupted");
    }
    server.batches.ended(&batch, reason);
    server.tell_ended(&batch).await;
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

/// The line, and the batch whose rows end.
struct ToLine {
    server: Server,
    line: Arc<Line>,
    batch: Arc<Batch>,
}

impl Sink for ToLine {
    fn line(&self) -> Option<&Line> {
        Some(&self.line)
    }

    async fn carry(&self, job: Admitted) -> Result<(), String> {
        let pin = job.job().pin.is_some();
        let Batch { gate, again, .. } = &*self.batch;
        let through = Options { gate: Some(gate), again: *again, ..Options::default() };
        // If the line stopped before it began, it is as if it had never come.
        if let Some(ended) = self.line.carry(job, through).await {
            self.batch.row_ended(&ended, pin, self.server.clock().now());
        }
        Ok(())
    }

    async fn refused(&self, row: &InvalidRow) -> Result<(), String> {
        self.batch.left_out(row)
    }
}

/// Gives the held rows, each once.
pub(super) fn rows_of(
    held: Held,
    jobs: &Jobs,
) -> impl FnOnce(&mut Each<'_>) -> Result<(), String> + Send + 'static {
    let name = std::path::PathBuf::from(jobs.batch().as_str());
    move |each| {
        let reading = held.reading.clone();
        let held = Manifest::read(&name, held.into_reader(), &reading).map_err(|error| error.to_string())?;
        let _ = held.rows().try_for_each(each);
        Ok(())
    }
}
