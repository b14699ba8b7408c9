//! Following a batch to its end by its result events, into a results file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;

use super::super::Exit;
use super::super::progress::progress;
use super::super::signals::print;
use super::left::Left;
use crate::job::Batch;
use crate::manifest::persons::Persons;
use crate::queue::Broker;
use crate::queue::event::ResultEvent;
use crate::queue::follow::{Follower, Heard};
use crate::results::{self, Results};
use crate::tally::{Counts, Tally};

/// Whose cards they are is known to the worker alone.
const SCOPE: &str = "";

/// Ids of the jobs that this command published and whose end was not heard: others may publish under the same batch's name.
/// Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Awaited(Arc<Mutex<HashSet<String>>>);

impl Awaited {
    fn ids(&self) -> MutexGuard<'_, HashSet<String>> {
        // Every change is one insertion or one removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job that the broker has.
    pub(super) fn add(&self, id: String) {
        self.ids().insert(id);
    }

    /// False if it is no job of this command, or its end was heard before.
    fn remove(&self, id: &str) -> bool {
        self.ids().remove(id)
    }

    fn count(&self) -> u64 {
        self.ids().len() as u64
    }
}

/// How following came to an end.
enum Followed {
    /// Every row has ended.
    ToTheEnd,
    /// The queue of events was lost, and maybe events with it.
    Lost,
    /// Whoever waits wants to wait no more.
    Stopped,
}

/// A batch that is followed.
pub(super) struct Following {
    follower: Follower,
    batch: Batch,
    /// How many rows were published.
    rows: u64,
    /// Rows that stay refused, and were not.
    left: u64,
    results: Results,
    /// Whose each row is.
    persons: Persons,
    results_path: PathBuf,
    awaited: Awaited,
    tally: Arc<Tally>,
}

impl Following {
    /// Makes the queue of the batch's events.
    pub(super) async fn begin(
        broker: Broker,
        batch: &Batch,
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
            rows: 0,
            left: 0,
            results,
            persons,
            results_path,
            awaited: Awaited::default(),
            tally: Arc::default(),
        })
    }

    /// Where the jobs are to be added that are published.
    pub(super) fn awaited(&self) -> Awaited {
        self.awaited.clone()
    }

    /// Adds the rows that stay refused, as the ledger has them.
    pub(super) async fn add_left(&mut self, left: &Left) -> Result<(), String> {
        let batch = self.batch.clone();
        left.each(&batch, |row| {
            let ended = row.ended();
            self.tally.add(&ended);
            self.left += 1;
            let person = self.persons.of_job(row.id.as_str());
            let line = results::Line { scope: SCOPE, person, ..results::Line::of_row(row, &ended) };
            write(&mut self.results, &line, &self.results_path)
        })
        .await
    }

    /// Waits until every row that was published has ended. However that ends, what was heard is in the results.
    ///
    /// Rows whose events were lost are not published again from here: their PINs would have to be kept in memory for as long as the
    /// wait, and would be taken for young ones.
    pub(super) async fn until_all_ended(mut self) -> Result<Exit, String> {
        self.rows = self.awaited.count();
        let tally = self.tally.clone();
        let bar = progress(self.rows, move || format!("ended, {} refused", tally.counts().refused));
        let followed = tokio::select! {
            // Only the end of all drops this half way: an event that was acknowledged must not be lost.
            followed = self.follow(&bar) => followed,
            _ = tokio::signal::ctrl_c() => Ok(Followed::Stopped),
        };
        bar.finish_and_clear();
        let (rows, left, unheard, results_path) =
            (self.rows, self.left, self.awaited.count(), self.results_path.clone());
        let Counts { issued, refused, awaiting_pin, .. } = self.tally.counts();
        let finished = self.finish().await;
        match followed? {
            Followed::ToTheEnd => finished?,
            Followed::Stopped => {
                finished?;
                eprintln!(
                    "stopped waiting; the jobs go on. Run the same command again for the results: nothing is issued twice"
                );
                return Ok(Exit::Unfinished);
            }
            Followed::Lost => {
                finished?;
                eprintln!(
                    "the broker lost the queue in which the results came, so that the ends of {unheard} of {rows} rows were not \
                     heard; the jobs go on, and {} holds the ends of the others. Run the same command again for all results: nothing is \
                     issued twice",
                    results_path.display()
                );
                return Ok(Exit::Unfinished);
            }
        }
        print(&format!("{} rows ended: {issued} issued, {refused} refused.", rows + left));
        if awaiting_pin > 0 {
            print(&format!(
                "{awaiting_pin} of them wait for their cardholders to choose a PIN: each link that was made is in the results, in the \
                 column pin_link."
            ));
        }
        print(&format!("Results: {}", results_path.display()));
        Ok(if refused > 0 { Exit::Refused } else { Exit::Success })
    }

    /// Writes out what was heard, and wants no queue of events any more.
    pub(super) async fn finish(self) -> Result<(), String> {
        let finished = self.results.finish();
        self.follower.forget().await;
        finished.map(|_| ()).map_err(|error| format!("{}: {error}", self.results_path.display()))
    }

    async fn follow(&mut self, bar: &ProgressBar) -> Result<Followed, String> {
        loop {
            let unheard = self.awaited.count();
            bar.set_position(self.rows - unheard);
            if unheard == 0 {
                return Ok(Followed::ToTheEnd);
            }
            match self.follower.next().await {
                Heard::Event(event) => self.take(*event)?,
                Heard::Lost(reason) => {
                    tracing::warn!(reason, "the results cannot be followed; trying again");
                }
                Heard::Again | Heard::Unreadable => {}
                Heard::Anew => return Ok(Followed::Lost),
            }
        }
    }

    fn take(&mut self, event: ResultEvent) -> Result<(), String> {
        let (Some(id), Some(row)) = (event.id.clone(), event.row) else { return Ok(()) };
        // A topic's pattern may match more than this batch, whose name others may use, and an event may come twice.
        if event.batch.as_deref() != Some(self.batch.as_str()) || !self.awaited.remove(&id) {
            return Ok(());
        }
        let row_id = event.row_id.clone();
        let ended = event.into_ended();
        self.tally.add(&ended);
        let (row_id, person) = (row_id.as_deref(), self.persons.of_job(&id));
        let line = results::Line {
            row,
            row_id,
            job_id: &id,
            ended: &ended,
            scope: SCOPE,
            person,
            shipping: None,
            cancelled_by: None,
        };
        write(&mut self.results, &line, &self.results_path)
    }
}

fn write(results: &mut Results, line: &results::Line<'_>, path: &Path) -> Result<(), String> {
    results.append(line).map_err(|error| format!("{}: {error}", path.display()))
}
