//! Following a batch to its end by its result events, into a results file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;

use super::super::Exit;
use super::super::progress::progress;
use crate::job::Batch;
use crate::manifest::persons::Persons;
use crate::queue::Broker;
use crate::queue::event::ResultEvent;
use crate::queue::follow::{Follower, Heard};
use crate::results::{self, Results};
use crate::tally::{Counts, Tally};

/// Whose cards they are is known to the worker alone.
const SCOPE: &str = "";
/// A batch that is followed.
pub(super) struct Following {
    follower: Follower,
    batch: Batch,
    rows: u64,
    results: Results,
    /// Whose each row is.
    persons: Persons,
    results_path: PathBuf,
    /// Ids of the jobs that have ended.
    ended: HashSet<String>,
    tally: Arc<Tally>,
}

impl Following {
    /// Makes the queue of the batch's events.
    pub(super) async fn begin(
        broker: Broker,
        batch: &Batch,
        rows: u64,
        results_path: &Path,
        persons: Persons,
    ) -> Result<Self, String> {
        let results = Results::create(results_path, SCOPE)
            .map_err(|error| format!("results file {}: {error}", results_path.display()))?;
        let mut follower = Follower::of_batch(broker, "embosser submit: following", batch);
        follower.connect().await?;
        let (batch, results_path) = (batch.clone(), results_path.to_owned());
        Ok(Self {
            follower,
            batch,
            rows,
            results,
            persons,
            results_path,
            ended: HashSet::new(),
            tally: Arc::default(),
        })
    }

    /// Waits until every row that was published has ended.
    pub(super) async fn until_all_ended(mut self, published: u64) -> Result<Exit, String> {
        self.rows = published;
        let tally = self.tally.clone();
        let bar = progress(self.rows, move || format!("ended, {} refused", tally.counts().refused));
        let followed = tokio::select! {
            // Only the end of all drops this half way: an event that was acknowledged must not be lost.
            followed = self.follow(&bar) => Some(followed),
            _ = tokio::signal::ctrl_c() => None,
        };
        bar.finish_and_clear();
        let Some(followed) = followed else {
            self.results.finish().map_err(|error| format!("{}: {error}", self.results_path.display()))?;
            eprintln!(
                "stopped waiting; the jobs go on. Run the same command again for the results: nothing is issued twice"
            );
            return Ok(Exit::Unfinished);
        };
        followed?;
        let Counts { issued, refused, awaiting_pin, .. } = self.tally.counts();
        self.results.finish().map_err(|error| format!("{}: {error}", self.results_path.display()))?;
        self.follower.close().await;
        println!("{} rows ended: {issued} issued, {refused} refused.", self.rows);
        if awaiting_pin > 0 {
            println!(
                "{awaiting_pin} of them wait for their cardholders to choose a PIN: each link that was made is in the results, in the \
                 column pin_link."
            );
        }
        println!("Results: {}", self.results_path.display());
        Ok(if refused > 0 { Exit::Refused } else { Exit::Success })
    }

    async fn follow(&mut self, bar: &ProgressBar) -> Result<(), String> {
        while (self.ended.len() as u64) < self.rows {
            let event = self.next().await;
            self.take(event)?;
            bar.set_position(self.ended.len() as u64);
        }
        Ok(())
    }

    /// The next event, over a new connection where the old one was lost.
    async fn next(&mut self) -> ResultEvent {
        loop {
            match self.follower.next().await {
                Heard::Event(event) => return *event,
                Heard::Lost(reason) => {
                    tracing::warn!(reason, "the results cannot be followed; trying again");
                }
                Heard::Again | Heard::Unreadable => {}
                Heard::Anew => tracing::warn!(
                    "the broker lost the queue of results; if this does not come to its end, run the same command again"
                ),
            }
        }
    }

    fn take(&mut self, event: ResultEvent) -> Result<(), String> {
        let (Some(id), Some(row)) = (event.id.clone(), event.row) else { return Ok(()) };
        // A topic's pattern may match more than this batch, and an event may come twice.
        if event.batch.as_deref() != Some(self.batch.as_str()) || !self.ended.insert(id.clone()) {
            return Ok(());
        }
        let row_id = event.row_id.clone();
        let ended = event.into_ended();
        self.tally.add(&ended);
        let (row_id, person) = (row_id.as_deref(), self.persons.of_job(&id));
        let line =
            results::Line { row, row_id, job_id: &id, ended: &ended, scope: SCOPE, person, shipping: None };
        self.results.append(&line).map_err(|error| format!("{}: {error}", self.results_path.display()))
    }
}
