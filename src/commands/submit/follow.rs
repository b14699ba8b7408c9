//! Following a batch to its end by its result events, into a results file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::Exit;
use crate::job::Batch;
use crate::queue::Broker;
use crate::queue::event::{ResultEvent, ResultOutcome};
use crate::queue::follow::{Follower, Heard};
use crate::results::{self, Results};

/// Whose cards they are is known to the worker alone.
const SCOPE: &str = "";
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How far it has come, for the line of progress.
#[derive(Default)]
struct Counts {
    ended: AtomicU64,
    refused: AtomicU64,
}

async fn show(rows: u64, counts: Arc<Counts>) {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let (ended, refused) = (counts.ended.load(Ordering::Relaxed), counts.refused.load(Ordering::Relaxed));
        eprintln!("{ended}/{rows} ended, {refused} refused");
    }
}

/// A batch that is followed.
pub(super) struct Following {
    follower: Follower,
    batch: Batch,
    rows: u64,
    results: Results,
    results_path: PathBuf,
    seen: HashSet<String>,
    refused: u64,
    counts: Arc<Counts>,
}

impl Following {
    /// Makes the queue of the batch's events.
    pub(super) async fn begin(
        broker: Broker,
        batch: &Batch,
        rows: u64,
        results_path: &Path,
    ) -> Result<Self, String> {
        let results = Results::create(results_path, SCOPE)
            .map_err(|error| format!("results file {}: {error}", results_path.display()))?;
        let keys = [ResultOutcome::Issued, ResultOutcome::Refused]
            .map(|outcome| ResultEvent::routing_key_of(outcome, Some(batch.as_str())));
        let queue = broker.topology.following(batch.as_str());
        let mut follower = Follower::new(broker, "embosser submit: following", queue, keys.into());
        follower.connect().await?;
        let (batch, results_path) = (batch.clone(), results_path.to_owned());
        Ok(Self {
            follower,
            batch,
            rows,
            results,
            results_path,
            seen: HashSet::new(),
            refused: 0,
            counts: Arc::default(),
        })
    }

    /// Waits until every row that was published has ended.
    pub(super) async fn until_all_ended(mut self, published: u64) -> Result<Exit, String> {
        self.rows = published;
        let shown = tokio::spawn(show(self.rows, self.counts.clone()));
        let followed = tokio::select! {
            // Only the end of all drops this half way: an event that was acknowledged must not be lost.
            followed = self.follow() => Some(followed),
            _ = tokio::signal::ctrl_c() => None,
        };
        shown.abort();
        let Some(followed) = followed else {
            self.results.finish().map_err(|error| format!("{}: {error}", self.results_path.display()))?;
            eprintln!(
                "stopped waiting; the jobs go on. Run the same command again for the results: nothing is issued twice"
            );
            return Ok(Exit::Unfinished);
        };
        followed?;
        let issued = self.seen.len() as u64 - self.refused;
        self.results.finish().map_err(|error| format!("{}: {error}", self.results_path.display()))?;
        self.follower.close().await;
        println!("{} rows ended: {issued} issued, {} refused.", self.rows, self.refused);
        println!("Results: {}", self.results_path.display());
        Ok(if self.refused > 0 { Exit::Refused } else { Exit::Success })
    }

    async fn follow(&mut self) -> Result<(), String> {
        while (self.seen.len() as u64) < self.rows {
            let event = self.next().await;
            self.take(event)?;
            self.counts.ended.store(self.seen.len() as u64, Ordering::Relaxed);
            self.counts.refused.store(self.refused, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next event, over a new connection where the old one was lost.
    async fn next(&mut self) -> ResultEvent {
        loop {
            match self.follower.next().await {
                Heard::Event(event) => {
                    if let Ok(event) = serde_json::from_slice(&event) {
                        return event;
                    }
                }
                Heard::Lost(reason) => {
                    tracing::warn!(reason, "the results cannot be followed; trying again");
                }
                Heard::Again => {}
                Heard::Anew => tracing::warn!(
                    "the broker lost the queue of results; if this does not come to its end, run the same command again"
                ),
            }
        }
    }

    fn take(&mut self, event: ResultEvent) -> Result<(), String> {
        let (Some(id), Some(row)) = (event.id.clone(), event.row) else { return Ok(()) };
        // A topic's pattern may match more than this batch, and an event may come twice.
        if event.batch.as_deref() != Some(self.batch.as_str()) || !self.seen.insert(id.clone()) {
            return Ok(());
        }
        self.refused += u64::from(event.outcome == ResultOutcome::Refused);
        let row_id = event.row_id.clone();
        let ended = event.into_ended();
        let line = results::Line { row, row_id: row_id.as_deref(), job_id: &id, ended: &ended, scope: SCOPE };
        self.results.append(&line).map_err(|error| format!("{}: {error}", self.results_path.display()))
    }
}
