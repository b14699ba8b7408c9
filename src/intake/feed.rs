//! From rows to whatever takes their jobs: the line of this process, or the queue. `issue`, `submit` and `serve` feed theirs by
//! this.
//!
//! A thread reads rows and makes jobs of them, some at a time; each then goes its way as a task, once there is a place for it.
//! Never: to have more jobs wait than have use for it, since a PIN is not to be read long before its call.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};

use crate::job::Job;
use crate::line::{Admitted, JobLocks, Line, card_of};
use crate::manifest::batch::Jobs;
use crate::manifest::{InvalidRow, Row};

/// Jobs that may wait for their first turn: what the pace takes in this time. Enough to keep the line full, few enough
/// that no PIN is read long before its call, and that a job of another sender waits behind few.
const WAITING: Duration = Duration::from_millis(500);
/// Bounds of that number: more than 128 only push one another out of the processor's caches.
const WAITING_COUNT: RangeInclusive<usize> = 4..=128;
/// Rows that the reader hands over at once: what the pace takes in this time, so that no PIN is read long before its
/// turn, and a thread is not woken for every row.
const READ_AT_ONCE: Duration = Duration::from_millis(5);
/// Bounds of that number.
const READ_COUNT: RangeInclusive<usize> = 1..=64;
/// Jobs begun in one go; then all goes on that can. So a busy machine takes rows as fast as it carries them, and no more
/// are under way than it has use for. With four, one of two cores lacked work for a quarter of the time.
const BEGUN_AT_ONCE: u64 = 6;
/// Jobs under way at all, waits between attempts included: a bound on memory.
const UNDER_WAY_MAX: usize = 4096;

/// How many jobs wait, and are read, at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    waiting: usize,
    read: usize,
}

impl Bounds {
    /// Publishes that wait for their confirm: some four for each of the publisher's channels, so that none of them is ever idle.
    pub const OF_QUEUE: Self = Self { waiting: 256, read: 8 };

    /// For a line: by its pace.
    #[must_use]
    pub fn of_line(line: &Line) -> Self {
        let per_second = line.parts().pace.health().configured_per_second;
        let within = |time: Duration, count: RangeInclusive<usize>| {
            crate::pace::whole(per_second * time.as_secs_f64()).clamp(*count.start(), *count.end())
        };
        Self { waiting: within(WAITING, WAITING_COUNT), read: within(READ_AT_ONCE, READ_COUNT) }
    }
}

/// What takes jobs.
pub trait Sink: Send + Sync + 'static {
    /// The line that they go down; none where they go elsewhere.
    fn line(&self) -> Option<&Line>;

    /// Carries a job to its end, and counts or writes that. An error ends the whole feed: all that is under way is dropped.
    fn carry(&self, job: Admitted) -> impl Future<Output = Result<(), String>> + Send;

    /// A row that is no job. An error ends the whole feed.
    fn refused(&self, row: &InvalidRow) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a source's rows are given to, one by one, until it wants no more.
pub type Each<'e> = dyn FnMut(Result<Row, InvalidRow>) -> ControlFlow<()> + 'e;

/// What came of it.
#[derive(Debug)]
pub struct Fed {
    /// Rows that were taken.
    pub taken: u64,
    /// Why not all rows were read, if so.
    pub cut: Option<String>,
}

/// Feeds the jobs of all rows to a sink, and waits until those that began have ended. `read` gives each row in turn; it is
/// called on a thread of its own.
///
/// # Errors
/// Why it ended before all jobs did: the source cannot be read, a row makes no job, or the sink said so.
pub async fn feed<S: Sink>(
    read: impl FnOnce(&mut Each<'_>) -> Result<(), String> + Send + 'static,
    jobs: Jobs,
    sink: &Arc<S>,
    bounds: Bounds,
) -> Result<Fed, String> {
    // The reader is one group ahead.
    let (groups, mut incoming) = mpsc::channel(1);
    let reading = Reading {
        sink: sink.clone(),
        jobs,
        runtime: Handle::current(),
        groups,
        read: Vec::new(),
        refused: Vec::new(),
        at_once: bounds.read,
    };
    let reader = tokio::task::spawn_blocking(move || reading.all(read));
    let mut tasks = Tasks::default();
    let taken = hand_over(&mut incoming, sink, bounds, &mut tasks).await?;
    drop(incoming);
    tasks.all_ended().await?;
    let cut = reader.await.map_err(|_| "the manifest's reader failed".to_owned())??;
    Ok(Fed { taken, cut: cut.or(tasks.bug) })
}

/// The jobs that have begun.
#[derive(Default)]
struct Tasks {
    under_way: JoinSet<Result<(), String>>,
    /// What is said of a job that a bug ended: it has no end, and the others go on.
    bug: Option<String>,
}

impl Tasks {
    /// Forgets those that have ended.
    fn gather(&mut self) -> Result<(), String> {
        while let Some(ended) = self.under_way.try_join_next() {
            self.ended(ended)?;
        }
        Ok(())
    }

    async fn all_ended(&mut self) -> Result<(), String> {
        while let Some(ended) = self.under_way.join_next().await {
            self.ended(ended)?;
        }
        Ok(())
    }

    fn ended(&mut self, ended: Result<Result<(), String>, JoinError>) -> Result<(), String> {
        ended.unwrap_or_else(|_| {
            self.bug = Some("a job was left by a bug".into());
            Ok(())
        })
    }
}

/// Rows that were read at once.
struct Group {
    jobs: Vec<Admitted>,
    refused: Vec<InvalidRow>,
}

/// Begins each job as soon as there is a place for it. Answers how many rows came.
async fn hand_over<S: Sink>(
    incoming: &mut mpsc::Receiver<Group>,
    sink: &Arc<S>,
    bounds: Bounds,
    tasks: &mut Tasks,
) -> Result<u64, String> {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let waiting = Arc::new(Semaphore::new(bounds.waiting));
    let changes = JobLocks::default();
    let mut rows = 0;
    loop {
        let group = tokio::select! {
            group = incoming.recv() => group,
            () = stopped(sink.line()) => None,
        };
        let Some(Group { jobs, refused }) = group else { return Ok(rows) };
        for row in refused {
            rows += 1;
            sink.refused(&row).await?;
        }
        for job in jobs {
            let room = under_way.clone().acquire_owned().await.map_err(|error| error.to_string())?;
            let place = waiting.clone().acquire_owned().await.map_err(|error| error.to_string())?;
            if sink.line().is_some_and(Line::is_stopping) {
                return Ok(rows);
            }
            rows += 1;
            if rows.is_multiple_of(BEGUN_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            // The line gives a job's place back at its first turn: it waits for nothing then that others need.
            let (job, place) = match sink.line() {
                Some(_) => (job.waiting_in(place), None),
                None => (job, Some(place)),
            };
            // A line keeps the order of a card's changes by itself; what goes elsewhere is handed over in their order.
            let change = match sink.line() {
                Some(_) => None,
                None => card_of(job.job()).map(|card| changes.queue(&card)),
            };
            let sink = sink.clone();
            tasks.under_way.spawn(async move {
                let _alone = match change {
                    Some(change) => change.locked().await,
                    None => None,
                };
                // On the heap: a task is moved whole when it is made and when it ends.
                let carried = Box::pin(sink.carry(job)).await;
                drop((place, room));
                carried
            });
        }
        tasks.gather()?;
    }
}

async fn stopped(line: Option<&Line>) {
    match line {
        Some(line) => line.stopped().await,
        None => std::future::pending().await,
    }
}

/// The thread that reads.
struct Reading<S: Sink> {
    sink: Arc<S>,
    jobs: Jobs,
    runtime: Handle,
    groups: mpsc::Sender<Group>,
    /// Jobs that were read and not handed over yet.
    #[expect(clippy::vec_box, reason = "each is moved through several queues, and is large")]
    read: Vec<Box<Job>>,
    refused: Vec<InvalidRow>,
    at_once: usize,
}

impl<S: Sink> Reading<S> {
    /// Reads all rows. Answers why it ended before the last one, if it did.
    fn all(
        mut self,
        read: impl FnOnce(&mut Each<'_>) -> Result<(), String>,
    ) -> Result<Option<String>, String> {
        let mut cut = None;
        read(&mut |row| {
            match row {
                Ok(row) => {
                    let (number, line, row_id) = (row.number, row.line, row.row_id.clone());
                    match self.jobs.job_of(row) {
                        Ok(job) => self.read.push(Box::new(job)),
                        // Such a row costs only itself.
                        Err(error) => self.refused.push(InvalidRow::without_id(number, line, row_id, &error)),
                    }
                }
                Err(row) => match row.unreadable() {
                    Some(reason) => {
                        cut = Some(reason.to_owned());
                        return ControlFlow::Break(());
                    }
                    None => self.refused.push(row),
                },
            }
            if self.read.len() + self.refused.len() < self.at_once {
                return ControlFlow::Continue(());
            }
            self.hand_over()
        })?;
        let _ = self.hand_over();
        Ok(cut)
    }

    /// Has the line take in what was read: so what is known of several jobs is one question.
    fn hand_over(&mut self) -> ControlFlow<()> {
        let jobs = std::mem::take(&mut self.read);
        let jobs = match self.sink.line() {
            Some(line) => self.runtime.block_on(line.admit(jobs)),
            None => jobs.into_iter().map(Admitted::from).collect(),
        };
        let group = Group { jobs, refused: std::mem::take(&mut self.refused) };
        match self.groups.blocking_send(group) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
