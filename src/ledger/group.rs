//! Many jobs' writes in one flush, many jobs' look-ups in one question.
//!
//! A flush to disk costs milliseconds and serves any number of rows. So one server owns the writing connection and
//! takes whatever has come in since its last commit as the next group; another owns a reading connection, so that
//! a question never waits for a flush. SQLite's calls block: its servers are threads, PostgreSQL's are tasks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::store::{Again, Change, Touches, Written};
use super::{
    Batch, BatchCounts, BatchRow, Begin, Conclude, JobId, Kind, LedgerError, Recorded, Row, SameContent,
    Scope, Step, Time, Version, WrittenCounts,
};
use crate::job::Content;

/// Most rows in one commit. A bound on memory and on how long a reader of the database waits, not on speed.
const GROUP_ROWS_MAX: usize = 1024;
/// Writes or questions that may wait; beyond it the askers wait to ask, which is what pushes back on the intake.
const WAITING_MAX: usize = 4096;
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

/// A connection to either database.
enum Store {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Calls the same method on whichever database it is.
macro_rules! either {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            Store::Sqlite($inner) => $call,
            Store::Postgres($inner) => $call.await,
        }
    };
}

impl Store {
    async fn open(url: &str) -> Result<Self, LedgerError> {
        if url.starts_with("sqlite:") {
            let of_task = url.to_owned();
            let opened = tokio::task::spawn_blocking(move || Sqlite::open(&of_task)).await;
            Ok(Self::Sqlite(opened.map_err(|_| LedgerError::Closed)??))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Self::Postgres(Postgres::open(url).await?))
        } else {
            let url = display_name(url);
            Err(LedgerError::Address { url, reason: "unknown kind of database".into() })
        }
    }

    /// A new connection to the same database, if there is one to be had.
    ///
    /// # Errors
    /// If it is another database.
    async fn open_again(&mut self, url: &str) -> Result<(), LedgerError> {
        let fresh = match self {
            Self::Sqlite(sqlite) => match sqlite.is_in_place() {
                Ok(()) => Self::open(url).await,
                Err(replaced) => Err(replaced),
            },
            Self::Postgres(postgres) => postgres.open_again(url).await.map(Self::Postgres),
        };
        match fresh {
            Ok(fresh) => *self = fresh,
            Err(replaced @ LedgerError::Replaced(_)) => return Err(replaced),
            // It is tried again, or what failed before is told.
            Err(_) => {}
        }
        Ok(())
    }
}

/// Where the server of a store runs.
#[derive(Debug, Clone, Copy)]
enum Runs {
    /// On a thread of its own, since its calls block.
    OnThread,
    /// As a task.
    AsTask,
}

impl Runs {
    fn of(store: &Store) -> Self {
        match store {
            Store::Sqlite(_) => Self::OnThread,
            Store::Postgres(_) => Self::AsTask,
        }
    }

    fn run(self, name: &str, server: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::AsTask => drop(tokio::spawn(server)),
            Self::OnThread => {
                let runtime = tokio::runtime::Handle::current();
                std::thread::Builder::new()
                    .name(name.into())
                    .spawn(move || runtime.block_on(server))
                    .expect("a process that cannot start one thread cannot work");
            }
        }
    }
}

/// A ledger's address without its password, for messages.
pub(super) fn display_name(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.split('@').next_back().unwrap_or("").into() };
    if parsed.password().is_some() {
        let _ = parsed.set_password(None);
    }
    parsed.to_string()
}

struct Write {
    change: Change,
    done: oneshot::Sender<Result<Written, LedgerError>>,
}

enum Ask {
    LookUp(LookUp),
    Page {
        scope: Scope,
        batch: Batch,
        after: Option<(u64, JobId)>,
        only: Option<Kind>,
        limit: u32,
        answer: oneshot::Sender<Result<Vec<Row>, LedgerError>>,
    },
    Counts {
        answer: oneshot::Sender<Result<Vec<BatchCounts>, LedgerError>>,
    },
    WrittenAfter {
        scope: Scope,
        batch: Batch,
        after: Time,
        answer: oneshot::Sender<Result<WrittenCounts, LedgerError>>,
    },
    SameDigest {
        scope: Scope,
        digest: String,
        answer: oneshot::Sender<Result<Vec<String>, LedgerError>>,
    },
    SameContent {
        scope: Scope,
        contents: Vec<Content>,
        answer: oneshot::Sender<Result<Vec<SameContent>, LedgerError>>,
    },
    WriteBatch {
        batch: Box<BatchRow>,
        answer: oneshot::Sender<Result<(), LedgerError>>,
    },
    Metadata {
        name: String,
        answer: oneshot::Sender<Result<Option<String>, LedgerError>>,
    },
    MetadataUnder {
        prefix: String,
        answer: oneshot::Sender<Result<Vec<String>, LedgerError>>,
    },
    RenameScope {
        from: Scope,
        to: Scope,
        answer: oneshot::Sender<Result<(), LedgerError>>,
    },
    Close {
        answer: oneshot::Sender<()>,
    },
}

/// The ledger, open. Clones share its two connections.
#[derive(Clone)]
pub struct Ledger {
    writes: mpsc::Sender<Write>,
    asks: mpsc::Sender<Ask>,
    pub(super) url: Arc<str>,
    name: Arc<str>,
    commits: Arc<CommitCounts>,
    /// Whether the writing connection is closed.
    closed: watch::Receiver<bool>,
}

/// How many commits served how many rows; for metrics and benches.
#[derive(Debug, Default)]
pub struct CommitCounts {
    /// Commits made.
    pub commits: std::sync::atomic::AtomicU64,
    /// Rows in them.
    pub rows: std::sync::atomic::AtomicU64,
}

impl Ledger {
    /// Opens `sqlite://FILE` or `postgres://…`, making its tables where they are missing.
    ///
    /// # Errors
    /// Says why it cannot serve: locked, read-only, full, of a newer version, unreachable.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let writing = Store::open(url).await?;
        // In memory every connection is a database of its own: then the one must do both.
        let in_memory =
            url.starts_with("sqlite:") && (url.contains(":memory:") || url.contains("mode=memory"));
        if in_memory {
            let url = display_name(url);
            return Err(LedgerError::Address { url, reason: "a ledger in memory records nothing".into() });
        }
        let reading = Store::open(url).await?;
        let (writes, write_requests) = mpsc::channel(WAITING_MAX);
        let (asks, ask_requests) = mpsc::channel(WAITING_MAX);
        let name: Arc<str> = display_name(url).into();
        let commits = Arc::new(CommitCounts::default());
        let runs = Runs::of(&writing);
        let (closing, closed) = watch::channel(false);
        let writing = write_in_groups(writing, write_requests, url.to_owned(), commits.clone());
        let writer = async move {
            writing.await;
            let _ = closing.send(true);
        };
        runs.run("ledger-writer", writer);
        runs.run("ledger-reader", answer_in_groups(reading, ask_requests, url.to_owned()));
        Ok(Self { writes, asks, url: url.into(), name, commits, closed })
    }

    /// The ledger's address, without its password.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Commits and rows so far.
    #[must_use]
    pub fn commits(&self) -> &CommitCounts {
        &self.commits
    }

    /// Records an attempt, if the row still is as `known`; returns once it survives a crash.
    ///
    /// # Errors
    /// If it could not be written; then no call may be made.
    pub async fn begin(&self, row: Row, known: Option<&Row>) -> Result<Begin, LedgerError> {
        let (row, written) = self.compare_and_set(row, known).await?;
        Ok(match written {
            Written::Done => Begin::Recorded(Recorded { row }),
            Written::Changed(found) => Begin::Changed(found),
        })
    }

    /// Records an end, if the row still is as `known`; returns once it survives a crash.
    ///
    /// # Errors
    /// If it could not be written; then nothing may be told on the strength of it.
    pub async fn conclude(&self, row: Row, known: Option<&Row>) -> Result<Conclude, LedgerError> {
        let (row, written) = self.compare_and_set(row, known).await?;
        Ok(match written {
            Written::Done => Conclude::Written(row),
            Written::Changed(found) => Conclude::Changed(found),
        })
    }

    async fn compare_and_set(
        &self,
        mut row: Row,
        known: Option<&Row>,
    ) -> Result<(Box<Row>, Written), LedgerError> {
        row.version = known.map_or(Version::NONE, |known| known.version).next();
        let touches =
            if known.is_some_and(|known| known.stands_like(&row)) { Touches::State } else { Touches::Whole };
        let row = Box::new(row);
        let written = self.change(Change::Step { row: row.clone(), touches }).await?;
        Ok((row, written))
    }

    /// Puts a note beside a row, or takes it away.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn annotate(
        &self,
        scope: &Scope,
        id: &JobId,
        step: Step,
        note: Option<String>,
    ) -> Result<(), LedgerError> {
        self.change(Change::Note { scope: scope.clone(), id: id.clone(), step, note }).await.map(|_| ())
    }

    /// Gives a name a value that outlives the process.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn set_metadata(
        &self,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<(), LedgerError> {
        self.change(Change::Metadata { name: name.into(), value: value.into() }).await.map(|_| ())
    }

    /// The value that a name was given.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn metadata(&self, name: &str) -> Result<Option<String>, LedgerError> {
        self.ask(|answer| Ask::Metadata { name: name.into(), answer }).await?
    }

    /// Remembers which account a key belongs to; the key is told by a digest.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn remember_account(
        &self,
        mode: &str,
        host: &str,
        key_digest: &str,
        account: &str,
    ) -> Result<(), LedgerError> {
        self.set_metadata(format!("account:{mode}:{host}:{key_digest}"), account).await
    }

    /// The account that a key was seen to belong to.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn account_of(
        &self,
        mode: &str,
        host: &str,
        key_digest: &str,
    ) -> Result<Option<String>, LedgerError> {
        self.metadata(&format!("account:{mode}:{host}:{key_digest}")).await
    }

    /// The accounts that any key for this host was seen to belong to.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn accounts(&self, mode: &str, host: &str) -> Result<Vec<String>, LedgerError> {
        let prefix = format!("account:{mode}:{host}:");
        let mut accounts = self.ask(|answer| Ask::MetadataUnder { prefix, answer }).await??;
        accounts.sort_unstable();
        accounts.dedup();
        Ok(accounts)
    }

    /// Whether it can be written to, found out by a write.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn probe_write(&self) -> Result<(), LedgerError> {
        self.set_metadata("probe", "1").await
    }

    /// Remembers that something was so at a moment, by the time of day.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn mark(&self, scope: &Scope, name: &str, at: Time) -> Result<(), LedgerError> {
        self.set_metadata(format!("mark:{}:{name}", scope.as_str()), at.unix_ms().to_string()).await
    }

    /// The moment of the latest [`Self::mark`] of that name.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn marked(&self, scope: &Scope, name: &str) -> Result<Option<Time>, LedgerError> {
        let found = self.metadata(&format!("mark:{}:{name}", scope.as_str())).await?;
        Ok(found.and_then(|ms| ms.parse().ok()).map(Time::from_unix_ms))
    }

    async fn change(&self, change: Change) -> Result<Written, LedgerError> {
        let (done, written) = oneshot::channel();
        self.writes.send(Write { change, done }).await.map_err(|_| LedgerError::Closed)?;
        written.await.map_err(|_| LedgerError::Closed)?
    }

    /// What is known of a job's card.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn look_up(&self, scope: &Scope, id: &JobId) -> Result<Option<Row>, LedgerError> {
        let rows = self.look_up_all(scope, vec![(id.clone(), Step::CreateCard)]).await?;
        Ok(rows.into_iter().next().flatten())
    }

    /// What is known of each of these steps, in their order.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn look_up_all(
        &self,
        scope: &Scope,
        steps: Vec<(JobId, Step)>,
    ) -> Result<Vec<Option<Row>>, LedgerError> {
        self.ask(|answer| Ask::LookUp(LookUp { scope: scope.clone(), steps, answer })).await?
    }

    /// The steps that ask for any of these contents and have a card, or may come to have one.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn same_content(
        &self,
        scope: &Scope,
        contents: Vec<Content>,
    ) -> Result<Vec<SameContent>, LedgerError> {
        self.ask(|answer| Ask::SameContent { scope: scope.clone(), contents, answer }).await?
    }

    /// Gives every row of one scope another, but for those that the other has already.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn rename_scope(&self, from: &Scope, to: &Scope) -> Result<(), LedgerError> {
        self.ask(|answer| Ask::RenameScope { from: from.clone(), to: to.clone(), answer }).await?
    }

    /// Up to `limit` of a batch's rows in the manifest's order, after the given row; only those of one kind, if one
    /// is given.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn batch_page(
        &self,
        scope: &Scope,
        batch: &Batch,
        after: Option<(u64, JobId)>,
        only: Option<Kind>,
        limit: u32,
    ) -> Result<Vec<Row>, LedgerError> {
        self.ask(|answer| Ask::Page {
            scope: scope.clone(),
            batch: batch.clone(),
            after,
            only,
            limit,
            answer,
        })
        .await?
    }

    /// Every batch with its counts, the latest first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn counts(&self) -> Result<Vec<BatchCounts>, LedgerError> {
        self.ask(|answer| Ask::Counts { answer }).await?
    }

    /// How many of a batch's rows were written after a moment; for one who follows what others issue.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn written_after(
        &self,
        scope: &Scope,
        batch: &Batch,
        after: Time,
    ) -> Result<WrittenCounts, LedgerError> {
        self.ask(|answer| Ask::WrittenAfter { scope: scope.clone(), batch: batch.clone(), after, answer })
            .await?
    }

    /// Names of the batches that were made from a manifest with this digest.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn batches_with_digest(&self, scope: &Scope, digest: &str) -> Result<Vec<String>, LedgerError> {
        self.ask(|answer| Ask::SameDigest { scope: scope.clone(), digest: digest.into(), answer }).await?
    }

    /// Records a batch's manifest.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn write_batch(&self, batch: BatchRow) -> Result<(), LedgerError> {
        self.ask(|answer| Ask::WriteBatch { batch: Box::new(batch), answer }).await?
    }

    /// Closes both connections, once all that was to be written is; the last of them folds SQLite's write-ahead log into
    /// its file, so that the file alone is the whole ledger. Later calls are refused.
    pub async fn close(self) {
        let Self { writes, asks, mut closed, .. } = self;
        // The writer ends when it is told so, whoever still holds a clone.
        let (done, _) = oneshot::channel();
        let _ = writes.send(Write { change: Change::Close, done }).await;
        // One after the other: of two that close at once each takes the other for one that stays.
        let _ = closed.wait_for(|closed| *closed).await;
        let (answer, answered) = oneshot::channel();
        if asks.send(Ask::Close { answer }).await.is_ok() {
            let _ = answered.await;
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.map_err(|_| LedgerError::Closed)?;
        answered.await.map_err(|_| LedgerError::Closed)
    }
}

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

async fn write_in_groups(
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
    either!(store, store => store.close());
}

async fn commit(store: &mut Store, url: &str, changes: &[&Change]) -> Result<Vec<Written>, LedgerError> {
    let mut wait = COMMIT_WAIT;
    let mut tries = 0;
    loop {
        let failure = match either!(&mut *store, store => store.write(changes)) {
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

async fn answer_in_groups(mut store: Store, mut requests: mpsc::Receiver<Ask>, url: String) {
    let mut questions = Vec::with_capacity(GROUP_ROWS_MAX);
    let mut gathering = Gathering::of(&store);
    while gathering.next(&mut requests, &mut questions).await {
        let mut look_ups = Vec::with_capacity(questions.len());
        let mut closing = None;
        for ask in questions.drain(..) {
            match ask {
                Ask::LookUp(look_up) => look_ups.push(look_up),
                Ask::Page { scope, batch, after, only, limit, answer } => {
                    let after = after
                        .as_ref()
                        .map_or((-1, None), |(row, id)| (i64::try_from(*row).unwrap_or(i64::MAX), Some(id)));
                    let limit = i64::from(limit);
                    let page =
                        either!(&mut store, store => store.batch_page(&scope, &batch, after, only, limit));
                    let _ = answer.send(page);
                }
                Ask::Counts { answer } => {
                    let counts = either!(&mut store, store => store.counts());
                    let _ = answer.send(counts);
                }
                Ask::WrittenAfter { scope, batch, after, answer } => {
                    let after_ms = after.unix_ms();
                    let counts = either!(&mut store, store => store.written_after(&scope, &batch, after_ms));
                    let _ = answer.send(counts);
                }
                Ask::SameDigest { scope, digest, answer } => {
                    let same = either!(&mut store, store => store.same_digest(&scope, &digest));
                    let _ = answer.send(same);
                }
                Ask::SameContent { scope, contents, answer } => {
                    let same = either!(&mut store, store => store.same_content(&scope, &contents));
                    let _ = answer.send(same);
                }
                Ask::Metadata { name, answer } => {
                    let found = either!(&mut store, store => store.metadata(&name));
                    let _ = answer.send(found);
                }
                Ask::MetadataUnder { prefix, answer } => {
                    let found = either!(&mut store, store => store.metadata_under(&prefix));
                    let _ = answer.send(found);
                }
                Ask::RenameScope { from, to, answer } => {
                    let renamed = either!(&mut store, store => store.rename_scope(&from, &to));
                    let _ = answer.send(renamed);
                }
                Ask::WriteBatch { batch, answer } => {
                    let written = either!(&mut store, store => store.write_batch(&batch));
                    let _ = answer.send(written);
                }
                Ask::Close { answer } => closing = Some(answer),
            }
        }
        if !look_ups.is_empty() {
            answer_look_ups(&mut store, &url, look_ups).await;
        }
        if let Some(answer) = closing {
            either!(store, store => store.close());
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
struct LookUp {
    scope: Scope,
    steps: Vec<(JobId, Step)>,
    answer: oneshot::Sender<Result<Vec<Option<Row>>, LedgerError>>,
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
