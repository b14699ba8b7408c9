//! Many jobs' writes in one flush, many jobs' look-ups in one question.
//!
//! A flush to disk costs milliseconds and serves any number of rows. So one server owns the writing connection and
//! takes whatever has come in since its last commit as the next group; another owns a reading connection, so that
//! a question never waits for a flush. SQLite's calls block: its servers are threads, PostgreSQL's are tasks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::database::{Runs, Store, either};
use super::handle::CommitCounts;
use super::store::{Again, Change, Commit, Written};
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
/// Tries of one commit before its jobs are told: a PostgreSQL that restarts, another process's long transaction.
const COMMIT_TRIES_MAX: u32 = 5;
/// Wait before a commit is tried again; doubles.
const COMMIT_WAIT: Duration = Duration::from_millis(200);

/// A change, and who waits for it.
pub(super) struct Write {
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Result<Written, LedgerError>>,
}

/// A question to the reading connection.
pub(super) enum Question {
    /// Of many jobs, answered in one go.
    LookUp(LookUp),
    /// Any other.
    Any(AnyQuestion),
    /// Nothing more is asked: the connection is to be closed.
    Close(oneshot::Sender<()>),
}

/// What is to be done with the connection; answers whether it went well.
pub(super) type AnyQuestion =
    Box<dyn for<'s> FnOnce(&'s mut Store) -> BoxFuture<'s, Result<(), LedgerError>> + Send>;

/// Takes what has come in as the next group, a while after the one before if that was large.
struct Gathering {
    runs: Runs,
    /// When the next group may be taken, if it is not now.
    next: Option<Instant>,
}

impl Gathering {
    fn of(store: &Store) -> Self {
        Self { runs: Runs::of(store), next: None }
    }

    /// Whether there is one; none when nobody is left who could ask.
    async fn next<T>(&mut self, requests: &mut mpsc::Receiver<T>, group: &mut Vec<T>) -> bool {
        if requests.recv_many(group, GROUP_ROWS_MAX).await == 0 {
            return false;
        }
        let rest = self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(Instant::now()));
        if !rest.is_zero() {
            match self.runs {
                Runs::OnThread => std::thread::sleep(rest),
                Runs::AsTask => tokio::time::sleep(rest).await,
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
        true
    }
}

pub(super) async fn write_in_groups(
    mut store: Store,
    mut requests: mpsc::Receiver<Write>,
    url: String,
    counts: Arc<CommitCounts>,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let mut group = Vec::with_capacity(GROUP_ROWS_MAX);
    let mut gathering = Gathering::of(&store);
    let mut closing = false;
    while !closing && gathering.next(&mut requests, &mut group).await {
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
        let result = commit(&mut store, &url, &changes).await;
        crate::metrics::committed(group.len(), began.elapsed());
        counts.commits.fetch_add(1, Relaxed);
        counts.rows.fetch_add(group.len() as u64, Relaxed);
        // A caller that was dropped meanwhile has nothing to learn; its row is written all the same.
        match result {
            Ok(written) => {
                for (write, written) in group.drain(..).zip(written) {
                    let _ = write.done.send(Ok(written));
                }
            }
            Err(error) => {
                for write in group.drain(..) {
                    let _ = write.done.send(Err(error.clone()));
                }
            }
        }
    }
    store.close().await;
}

async fn commit(store: &mut Store, url: &str, changes: &[&Change]) -> Result<Vec<Written>, LedgerError> {
    let mut wait = COMMIT_WAIT;
    let mut tries = 0;
    loop {
        let failure = match either!(&mut *store, store => store.write(changes, if tries == 0 { Commit::First } else { Commit::Again }))
        {
            Ok(written) => return Ok(written),
            Err(failure) => failure,
        };
        tries += 1;
        if failure.again == Again::No || tries >= COMMIT_TRIES_MAX {
            return Err(failure.meaning);
        }
        tracing::warn!(error = %failure.meaning, tries, "ledger commit failed; trying again");
        tokio::time::sleep(wait).await;
        wait *= 2;
        if failure.again == Again::Anew {
            store.open_again(url).await?;
        }
    }
}

pub(super) async fn answer_in_groups(mut store: Store, mut incoming: mpsc::Receiver<Question>, url: String) {
    let mut questions = Vec::with_capacity(GROUP_ROWS_MAX);
    let mut gathering = Gathering::of(&store);
    while gathering.next(&mut incoming, &mut questions).await {
        let mut look_ups = Vec::with_capacity(questions.len());
        let mut closing = None;
        for question in questions.drain(..) {
            match question {
                Question::LookUp(look_up) => look_ups.push(look_up),
                Question::Any(question) => {
                    // Whoever asked has been told; the next one is to find a connection that works.
                    if let Err(LedgerError::Database { .. }) = question(&mut store).await {
                        let _ = store.open_again(&url).await;
                    }
                }
                Question::Close(answer) => closing = Some(answer),
            }
        }
        if !look_ups.is_empty() {
            answer_look_ups(&mut store, &url, look_ups).await;
        }
        if let Some(answer) = closing {
            store.close().await;
            let _ = answer.send(());
            return;
        }
    }
}

/// Asks, over a new connection if the old one was lost.
async fn look_up(
    store: &mut Store,
    url: &str,
    keys: &[(&Scope, &JobId, Step)],
) -> Result<Vec<Option<Row>>, LedgerError> {
    let mut wait = COMMIT_WAIT;
    let mut tries = 0;
    loop {
        let found = either!(&mut *store, store => store.look_up(keys));
        tries += 1;
        let passing = matches!(found, Err(LedgerError::Locked(_) | LedgerError::Database { .. }));
        if !passing || tries >= COMMIT_TRIES_MAX {
            return found;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
        store.open_again(url).await?;
    }
}

/// What is known of some steps?
pub(super) struct LookUp {
    pub(super) scope: Scope,
    pub(super) steps: Vec<(JobId, Step)>,
    pub(super) answer: oneshot::Sender<Result<Vec<Option<Row>>, LedgerError>>,
}

async fn answer_look_ups(store: &mut Store, url: &str, look_ups: Vec<LookUp>) {
    let mut keys = Vec::new();
    for look_up in &look_ups {
        keys.extend(look_up.steps.iter().map(|(id, step)| (&look_up.scope, id, *step)));
    }
    match look_up(store, url, &keys).await {
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
