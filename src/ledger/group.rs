//! Many jobs' writes in one flush, many jobs' look-ups in one question.
//!
//! A flush to disk costs milliseconds and serves any number of rows. So one server owns the writing connection and
//! takes whatever has come in since its last commit as the next group; another owns a reading connection, so that
//! a question never waits for a flush. SQLite's calls block: its servers are threads, PostgreSQL's are tasks.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::database::{Runs, Store, either};
use super::handle::CommitCounts;
use super::patience::{Connection, Request};
use super::servers::Work;
use super::store::{Change, Commit, Written};
use super::{JobId, LedgerError, Row, Scope, Step};

/// Most rows in one commit. A bound on memory and on how long a reader of the database waits, not on speed.
const GROUP_ROWS_MAX: usize = 1024;
/// Writes or questions that may wait; beyond it the askers wait to ask, which is what pushes back on the intake.
pub(super) const WAITING_MAX: usize = 4096;
/// Least time from one group's begin to the next one's, for each row of it. At thousands of rows a second it makes few
/// large groups of many small ones, each of which would wake a thread and flush pages that the next one writes again;
/// when fewer rows come in than that, groups are as small as a flush is short, and nobody waits.
const GATHERED_PER_ROW: Duration = Duration::from_micros(60);
/// Most time for that.
const GATHERED_MAX: Duration = Duration::from_millis(3);
/// What is a large group. Up to a thousand jobs a second there is none, and nobody waits.
const GATHERED_FROM: usize = 8;
/// After so long without a question a server on the network is asked whether it answers.
const PING_EVERY: Duration = Duration::from_secs(2);

/// A change, and who waits for it.
pub(super) struct Write {
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Result<Written, LedgerError>>,
}

/// What is known of some steps is asked.
pub(super) enum Question {
    /// Of many jobs, answered in one go.
    LookUp(LookUp),
    /// Nothing more is asked: the connection is to be closed.
    Close(oneshot::Sender<()>),
}

/// Any other question.
pub(super) enum View {
    /// It.
    Asked(Box<dyn Asked>),
    /// Nothing more is asked: the connection is to be closed.
    Close(oneshot::Sender<()>),
}

/// A question whose answer's type is known to who asks only.
pub(super) trait Asked: Send {
    /// One try; what is found is kept.
    fn put<'s>(&'s mut self, store: &'s mut Store) -> BoxFuture<'s, Result<(), LedgerError>>;
    /// What kind it is: how long its answer may take.
    fn work(&self) -> Work;
    /// Whether anybody still waits for it.
    fn is_wanted(&self) -> bool;
    /// Ends once nobody does.
    fn unwanted(&mut self) -> BoxFuture<'_, ()>;
    /// Tells what was found, or why nothing was.
    fn tell(self: Box<Self>, asked: Result<(), LedgerError>);
}

/// Takes what has come in as the next group, a while after the one before if that was large.
struct Gathering {
    runs: Runs,
    /// When the next group may be taken, if it is not now.
    next: Option<Instant>,
}

/// What has come in.
#[derive(PartialEq, Eq)]
enum Came {
    Group,
    /// Nothing, for a while.
    Nothing,
    /// Nobody is left who could ask.
    End,
}

impl Gathering {
    fn new(runs: Runs) -> Self {
        Self { runs, next: None }
    }

    async fn next<T>(&mut self, requests: &mut mpsc::Receiver<T>, group: &mut Vec<T>) -> Came {
        let came = requests.recv_many(group, GROUP_ROWS_MAX);
        let came = match self.runs {
            Runs::OnThread => came.await,
            #[cfg(feature = "killpoints")]
            Runs::AsSimulated => came.await,
            Runs::AsTask => match tokio::time::timeout(PING_EVERY, came).await {
                Ok(came) => came,
                Err(_) => return Came::Nothing,
            },
        };
        if came == 0 {
            return Came::End;
        }
        let rest = self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        if !rest.is_zero() {
            match self.runs {
                Runs::OnThread => std::thread::sleep(rest),
                Runs::AsTask => tokio::time::sleep(rest).await,
                #[cfg(feature = "killpoints")]
                Runs::AsSimulated => tokio::time::sleep(rest).await,
            }
            while group.len() < GROUP_ROWS_MAX
                && let Ok(more) = requests.try_recv()
            {
                group.push(more);
            }
        }
        let rows = u32::try_from(group.len()).unwrap_or(u32::MAX);
        let gathered = (GATHERED_PER_ROW * rows).min(GATHERED_MAX);
        self.next = (group.len() >= GATHERED_FROM).then(|| Instant::now() + gathered);
        Came::Group
    }
}

pub(super) async fn write_in_groups(
    mut connection: Connection,
    mut requests: mpsc::Receiver<Write>,
    runs: Runs,
    counts: Arc<CommitCounts>,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let mut group = Vec::with_capacity(GROUP_ROWS_MAX);
    let mut gathering = Gathering::new(runs);
    let mut closing = false;
    while !closing {
        match gathering.next(&mut requests, &mut group).await {
            Came::Group => {}
            Came::Nothing => {
                connection.ping().await;
                continue;
            }
            Came::End => break,
        }
        if let Some(close) = group.iter().position(|write| matches!(write.change, Change::Close)) {
            closing = true;
            // Whoever comes after it is told that the ledger is closed, by the drop of what it waits for.
            group.truncate(close);
        }
        let changes: Vec<&Change> = group.iter().map(|write| &write.change).collect();
        if changes.is_empty() {
            continue;
        }
        let began = Instant::now();
        let (written, failed) = written(&mut connection, &changes).await;
        crate::metrics::committed(group.len(), began.elapsed());
        counts.commits.fetch_add(1, Relaxed);
        counts.rows.fetch_add(group.len() as u64, Relaxed);
        // A caller that was dropped meanwhile has nothing to learn; its row is written all the same.
        let mut written = written.into_iter();
        for write in group.drain(..) {
            let result = written.next().ok_or_else(|| failed.clone().unwrap_or(LedgerError::Closed));
            let _ = write.done.send(result);
        }
    }
    connection.close().await;
}

/// Writes a group, in halves of it where it takes longer than it may; as many as were written, in order, and why not the rest.
/// A database that is as slow with each part is given up on after the ledger's patience.
async fn written(connection: &mut Connection, changes: &[&Change]) -> (Vec<Written>, Option<LedgerError>) {
    let (mut written, mut at_once) = (Vec::with_capacity(changes.len()), changes.len());
    let (mut commit, mut slow_since) = (Commit::First, None);
    while written.len() < changes.len() {
        let left = &changes[written.len()..];
        let part = &left[..at_once.min(left.len())];
        match connection.ask_as(&mut Changes(part), commit).await {
            Ok(more) => {
                written.extend(more);
                at_once = at_once.saturating_mul(2);
                slow_since = None;
            }
            Err(LedgerError::TooSlow { reason, .. })
                if part.len() > 1
                    && slow_since.get_or_insert_with(Instant::now).elapsed() < connection.patience() =>
            {
                tracing::warn!(
                    rows = part.len(),
                    reason,
                    "a commit took too long; its rows are written by halves"
                );
                at_once = part.len().div_ceil(2);
                // Some of it may have taken effect.
                commit = Commit::Again;
            }
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// A group of changes. Those of whom nobody waits for are written all the same.
struct Changes<'c>(&'c [&'c Change]);

impl Request for Changes<'_> {
    type Answer = Vec<Written>;

    async fn put(&mut self, store: &mut Store, commit: Commit) -> Result<Vec<Written>, LedgerError> {
        either!(store, store => store.write(self.0, commit))
    }

    fn max(&self, store: &Store) -> Duration {
        store.write_max(self.0)
    }

    fn is_told_if_slow(&self) -> bool {
        self.0.len() > 1
    }
}

pub(super) async fn answer_look_ups(
    mut connection: Connection,
    mut incoming: mpsc::Receiver<Question>,
    runs: Runs,
) {
    let mut questions = Vec::with_capacity(GROUP_ROWS_MAX);
    let mut gathering = Gathering::new(runs);
    loop {
        match gathering.next(&mut incoming, &mut questions).await {
            Came::Group => {}
            Came::Nothing => {
                connection.ping().await;
                continue;
            }
            Came::End => break,
        }
        let mut look_ups = Vec::with_capacity(questions.len());
        let mut closing = None;
        for question in questions.drain(..) {
            match question {
                Question::LookUp(look_up) => look_ups.push(look_up),
                Question::Close(answer) => closing = Some(answer),
            }
        }
        if !look_ups.is_empty() {
            answer_group(&mut connection, look_ups).await;
        }
        if let Some(answer) = closing {
            connection.close().await;
            let _ = answer.send(());
            return;
        }
    }
    connection.close().await;
}

/// What is known of some steps?
pub(super) struct LookUp {
    pub(super) scope: Scope,
    pub(super) steps: Vec<(JobId, Step)>,
    pub(super) answer: oneshot::Sender<Result<Vec<Option<Row>>, LedgerError>>,
}

/// The same of several.
struct Group<'g> {
    look_ups: &'g [LookUp],
    keys: Vec<(&'g Scope, &'g JobId, Step)>,
}

impl Request for Group<'_> {
    type Answer = Vec<Option<Row>>;

    async fn put(&mut self, store: &mut Store, _: Commit) -> Result<Vec<Option<Row>>, LedgerError> {
        either!(store, store => store.look_up(&self.keys))
    }

    fn is_wanted(&self) -> bool {
        self.look_ups.iter().any(|look_up| !look_up.answer.is_closed())
    }
}

async fn answer_group(connection: &mut Connection, look_ups: Vec<LookUp>) {
    let mut keys = Vec::new();
    for look_up in &look_ups {
        keys.extend(look_up.steps.iter().map(|(id, step)| (&look_up.scope, id, *step)));
    }
    match connection.ask(&mut Group { look_ups: &look_ups, keys }).await {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            for LookUp { steps, answer, .. } in look_ups {
                let _ = answer.send(Ok(rows.by_ref().take(steps.len()).collect()));
            }
        }
        Err(error) => {
            for LookUp { answer, .. } in look_ups {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

/// Questions that several servers take from, so that a long one holds up no other.
pub(super) type Views = Arc<Mutex<mpsc::Receiver<View>>>;

pub(super) async fn answer_views(mut connection: Connection, views: Views) {
    loop {
        let next = async { views.lock().await.recv().await };
        let next = match connection.is_used() {
            // It is opened when it is needed, or is a file's.
            false => next.await,
            // So that it is known to serve, or to serve again, though nobody asks it.
            true => match tokio::time::timeout(PING_EVERY, next).await {
                Ok(next) => next,
                Err(_) => {
                    connection.ping().await;
                    continue;
                }
            },
        };
        let mut view = match next {
            Some(View::Asked(view)) => Viewing(view),
            Some(View::Close(answer)) => {
                connection.close().await;
                let _ = answer.send(());
                return;
            }
            None => break,
        };
        if !view.is_wanted() {
            continue;
        }
        let answer = connection.ask(&mut view).await;
        view.0.tell(answer);
    }
    connection.close().await;
}

/// A question that is being answered.
struct Viewing(Box<dyn Asked>);

impl Request for Viewing {
    type Answer = ();

    async fn put(&mut self, store: &mut Store, _: Commit) -> Result<(), LedgerError> {
        self.0.put(store).await
    }

    fn max(&self, store: &Store) -> Duration {
        match store {
            Store::Sqlite(_) => store.answer_max(),
            Store::Postgres(_) => self.0.work().answer_max(),
            #[cfg(feature = "killpoints")]
            Store::Simulated(_) => self.0.work().answer_max(),
        }
    }

    fn is_wanted(&self) -> bool {
        self.0.is_wanted()
    }

    fn is_told_if_slow(&self) -> bool {
        self.0.work() == Work::Views
    }

    async fn unwanted(&mut self) {
        self.0.unwanted().await;
    }
}
