//! Many jobs' writes in one flush, many jobs' look-ups in one question.
//!
//! A flush to disk costs milliseconds and serves any number of rows. So one task owns the writing connection and
//! takes whatever has come in since its last commit as the next group; another owns a reading connection, so that
//! a question never waits for a flush.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{Batch, BatchCounts, BatchRow, JobId, Kind, LedgerError, Row, Scope, Time, WrittenCounts, store};

/// Most rows in one commit. A bound on memory and on how long a reader of the database waits, not on speed.
const GROUP_ROWS_MAX: usize = 1024;
/// Writes or questions that may wait; beyond it the askers wait to ask, which is what pushes back on the intake.
const WAITING_MAX: usize = 4096;
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
            Store::Postgres($inner) => $call,
        }
    };
}

impl Store {
    async fn open(url: &str) -> Result<Self, LedgerError> {
        if url.starts_with("sqlite:") {
            Ok(Self::Sqlite(Sqlite::open(url).await?))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Self::Postgres(Postgres::open(url).await?))
        } else {
            let url = display_name(url);
            Err(LedgerError::Address { url, reason: "unknown kind of database".into() })
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
    row: Row,
    done: oneshot::Sender<Result<(), LedgerError>>,
}

enum Ask {
    LookUp {
        scope: Scope,
        id: JobId,
        answer: oneshot::Sender<Result<Option<Row>, LedgerError>>,
    },
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
    WriteBatch {
        batch: Box<BatchRow>,
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
    name: Arc<str>,
    commits: Arc<CommitCounts>,
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
        tokio::spawn(write_in_groups(writing, write_requests, url.to_owned(), name.clone(), commits.clone()));
        tokio::spawn(answer_in_groups(reading, ask_requests, url.to_owned()));
        Ok(Self { writes, asks, name, commits })
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

    /// Makes a row durable; returns once it survives a crash. An issued row stays as it is.
    ///
    /// # Errors
    /// If it could not be written; then nothing may be told or called on the strength of it.
    pub async fn write(&self, row: Row) -> Result<(), LedgerError> {
        let (done, written) = oneshot::channel();
        self.writes.send(Write { row, done }).await.map_err(|_| LedgerError::Closed)?;
        written.await.map_err(|_| LedgerError::Closed)?
    }

    /// What is known of a job.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn look_up(&self, scope: &Scope, id: &JobId) -> Result<Option<Row>, LedgerError> {
        self.ask(|answer| Ask::LookUp { scope: scope.clone(), id: id.clone(), answer }).await?
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

    /// Closes both connections, folding SQLite's write-ahead log into its file. Later calls are refused.
    pub async fn close(self) {
        let Self { writes, asks, .. } = self;
        drop(writes);
        let (answer, closed) = oneshot::channel();
        if asks.send(Ask::Close { answer }).await.is_ok() {
            let _ = closed.await;
        }
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.map_err(|_| LedgerError::Closed)?;
        answered.await.map_err(|_| LedgerError::Closed)
    }
}

async fn write_in_groups(
    mut store: Store,
    mut requests: mpsc::Receiver<Write>,
    url: String,
    name: Arc<str>,
    counts: Arc<CommitCounts>,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let mut group = Vec::with_capacity(GROUP_ROWS_MAX);
    while requests.recv_many(&mut group, GROUP_ROWS_MAX).await > 0 {
        let rows: Vec<&Row> = latest_of_each(&group).collect();
        let began = Instant::now();
        let result = commit(&mut store, &url, &name, &rows).await;
        crate::metrics::committed(group.len(), began.elapsed());
        counts.commits.fetch_add(1, Relaxed);
        counts.rows.fetch_add(group.len() as u64, Relaxed);
        for write in group.drain(..) {
            // A caller that was dropped meanwhile has nothing to learn; its row is written all the same.
            let _ = write.done.send(result.clone());
        }
    }
    either!(store, store => store.close().await);
}

/// A job's latest row only: one statement may not touch a row twice. A job writes twice into one group if whoever
/// waited for its first write was cancelled.
fn latest_of_each(group: &[Write]) -> impl Iterator<Item = &Row> {
    let latest: HashMap<(&Scope, &JobId), usize> =
        group.iter().enumerate().map(|(index, write)| ((&write.row.scope, &write.row.id), index)).collect();
    group
        .iter()
        .enumerate()
        .filter(move |(index, write)| latest[&(&write.row.scope, &write.row.id)] == *index)
        .map(|(_, write)| &write.row)
}

async fn commit(store: &mut Store, url: &str, name: &str, rows: &[&Row]) -> Result<(), LedgerError> {
    let mut wait = COMMIT_WAIT;
    let mut tries = 0;
    loop {
        let Err(error) = either!(&mut *store, store => store.write(rows).await) else { return Ok(()) };
        tries += 1;
        let meaning = store::meaning(name, &error);
        let passing = matches!(meaning, LedgerError::Locked(_))
            || matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_))
            || matches!(&error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("57P")));
        if !passing || tries >= COMMIT_TRIES_MAX {
            return Err(meaning);
        }
        tracing::warn!(error = %meaning, tries, "ledger commit failed; trying again");
        tokio::time::sleep(wait).await;
        wait *= 2;
        if !matches!(meaning, LedgerError::Locked(_))
            && let Ok(fresh) = Store::open(url).await
        {
            *store = fresh;
        }
    }
}

async fn answer_in_groups(mut store: Store, mut requests: mpsc::Receiver<Ask>, url: String) {
    let mut asked = Vec::with_capacity(GROUP_ROWS_MAX);
    while requests.recv_many(&mut asked, GROUP_ROWS_MAX).await > 0 {
        let mut look_ups = Vec::with_capacity(asked.len());
        let mut closing = None;
        for ask in asked.drain(..) {
            match ask {
                Ask::LookUp { scope, id, answer } => look_ups.push((scope, id, answer)),
                Ask::Page { scope, batch, after, only, limit, answer } => {
                    let after = after
                        .as_ref()
                        .map_or((-1, None), |(row, id)| (i64::try_from(*row).unwrap_or(i64::MAX), Some(id)));
                    let limit = i64::from(limit);
                    let page = either!(&mut store, store => store.batch_page(&scope, &batch, after, only, limit).await);
                    let _ = answer.send(page);
                }
                Ask::Counts { answer } => {
                    let counts = either!(&mut store, store => store.counts().await);
                    let _ = answer.send(counts.map_err(|error| store::meaning(&display_name(&url), &error)));
                }
                Ask::WrittenAfter { scope, batch, after, answer } => {
                    let after_ms = after.unix_ms();
                    let counts =
                        either!(&mut store, store => store.written_after(&scope, &batch, after_ms).await);
                    let _ = answer.send(counts.map_err(|error| store::meaning(&display_name(&url), &error)));
                }
                Ask::SameDigest { scope, digest, answer } => {
                    let same = either!(&mut store, store => store.same_digest(&scope, &digest).await);
                    let _ = answer.send(same.map_err(|error| store::meaning(&display_name(&url), &error)));
                }
                Ask::WriteBatch { batch, answer } => {
                    let written = either!(&mut store, store => store.write_batch(&batch).await);
                    let _ = answer.send(written.map_err(|error| store::meaning(&display_name(&url), &error)));
                }
                Ask::Close { answer } => closing = Some(answer),
            }
        }
        if !look_ups.is_empty() {
            answer_look_ups(&mut store, &url, look_ups).await;
        }
        if let Some(answer) = closing {
            either!(store, store => store.close().await);
            let _ = answer.send(());
            return;
        }
    }
}

/// Asks, over a new connection if the old one was lost.
async fn look_up(store: &mut Store, url: &str, keys: &[(&Scope, &JobId)]) -> Result<Vec<Row>, LedgerError> {
    let mut wait = COMMIT_WAIT;
    let mut tries = 0;
    loop {
        let found = either!(&mut *store, store => store.look_up(keys).await);
        tries += 1;
        let passing = matches!(found, Err(LedgerError::Locked(_) | LedgerError::Database { .. }));
        if !passing || tries >= COMMIT_TRIES_MAX {
            return found;
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
        if let Ok(fresh) = Store::open(url).await {
            *store = fresh;
        }
    }
}

type LookUp = (Scope, JobId, oneshot::Sender<Result<Option<Row>, LedgerError>>);

async fn answer_look_ups(store: &mut Store, url: &str, look_ups: Vec<LookUp>) {
    let keys: Vec<(&Scope, &JobId)> = look_ups.iter().map(|(scope, id, _)| (scope, id)).collect();
    match look_up(store, url, &keys).await {
        Ok(rows) => {
            let mut known: HashMap<(Scope, JobId), Row> =
                rows.into_iter().map(|row| ((row.scope.clone(), row.id.clone()), row)).collect();
            for (scope, id, answer) in look_ups {
                let row = known.get(&(scope.clone(), id.clone())).cloned();
                let _ = answer.send(Ok(row));
            }
            known.clear();
        }
        Err(error) => {
            for (_, _, answer) in look_ups {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}
