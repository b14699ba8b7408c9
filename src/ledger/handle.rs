//! The ledger as others hold it: what can be written to it, and what can be asked of it.

mod opening;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::availability::Availability;
use super::database::{Place, either};
use super::group::{LookUp, Question, View, Write};
use super::lease::LostSessions;
use super::servers::Work;
use super::store::{Change, Touches, Written};
use super::{
    Batch, BatchCounts, BatchRow, Begin, Conclude, JobId, LedgerError, Only, Recorded, Row, SameContent,
    Scope, Step, Time, Version,
};
use crate::job::Content;
use crate::operation::Operation;
use crate::simulation::{Mutation, is_broken};

pub use opening::PATIENCE;

/// Keys whose accounts are read at once.
const ACCOUNTS_AT_ONCE: u32 = 500;

/// The ledger, open. Clones share its connections.
#[derive(Clone)]
pub struct Ledger {
    writes: mpsc::Sender<Write>,
    questions: mpsc::Sender<Question>,
    pub(super) views: mpsc::Sender<View>,
    view_servers: u8,
    pub(super) place: Place,
    pub(super) name: Arc<str>,
    pub(super) availability: Arc<Availability>,
    /// Whether this handle can say that the process is to stop.
    pub(super) stops_waiting: bool,
    /// Sessions that held a lease and were lost, if the server still has them.
    pub(super) lost_leases: LostSessions,
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
    /// A handle for one line among several: that the line stops does not mean that the process is to stop, so that
    /// [`Self::stop_waiting`] does nothing.
    #[must_use]
    pub fn for_one_of_several(&self) -> Self {
        Self { stops_waiting: false, ..self.clone() }
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
    pub async fn begin(&self, row: impl Into<Box<Row>>, known: Option<&Row>) -> Result<Begin, LedgerError> {
        let (row, written) = self.compare_and_set(row.into(), known).await?;
        Ok(match written {
            Written::Changed(_) if is_broken(Mutation::SkipCompareAndSet) => {
                Begin::Recorded(Recorded { row })
            }
            Written::Done => Begin::Recorded(Recorded { row }),
            Written::Changed(found) => Begin::Changed(found),
            Written::Differs(_) => Begin::Changed(None),
        })
    }

    /// Records an end, if the row still is as `known`; returns once it survives a crash.
    ///
    /// # Errors
    /// If it could not be written; then nothing may be told on the strength of it.
    pub async fn conclude(
        &self,
        row: impl Into<Box<Row>>,
        known: Option<&Row>,
    ) -> Result<Conclude, LedgerError> {
        let (row, written) = self.compare_and_set(row.into(), known).await?;
        Ok(match written {
            Written::Done => Conclude::Written(row),
            Written::Changed(found) => Conclude::Changed(found),
            Written::Differs(_) => Conclude::Changed(None),
        })
    }

    async fn compare_and_set(
        &self,
        mut row: Box<Row>,
        known: Option<&Row>,
    ) -> Result<(Box<Row>, Written), LedgerError> {
        row.version = known.map_or(Version::NONE, |known| known.version).next();
        let touches =
            if known.is_some_and(|known| known.stands_like(&row)) { Touches::State } else { Touches::Whole };
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

    /// Gives a name another value, or none, if its value still is as `known`. Answers what it is if not.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn swap_metadata(
        &self,
        name: impl Into<String>,
        known: Option<String>,
        value: Option<String>,
    ) -> Result<Result<(), Option<String>>, LedgerError> {
        let written = self.change(Change::Swap { name: name.into(), known, value }).await?;
        Ok(match written {
            Written::Done => Ok(()),
            Written::Differs(found) => Err(found),
            Written::Changed(_) => Err(None),
        })
    }

    /// Up to `limit` names that begin so and come after that one, in their order, each with its value.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn metadata_page(
        &self,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, String)>, LedgerError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.ask(Work::Rows, move |store| {
            let (prefix, after, limit) = (prefix.clone(), after.clone(), i64::from(limit));
            Box::pin(async move { either!(store, store => store.metadata_page(&prefix, &after, limit)) })
        })
        .await
    }

    /// The value that a name was given.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn metadata(&self, name: &str) -> Result<Option<String>, LedgerError> {
        let name = name.to_owned();
        self.ask(Work::Rows, move |store| {
            let name = name.clone();
            Box::pin(async move { either!(store, store => store.metadata(&name)) })
        })
        .await
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
        let mut accounts = Vec::new();
        let mut after = prefix.clone();
        loop {
            let page = self.metadata_page(&prefix, &after, ACCOUNTS_AT_ONCE).await?;
            let is_last = page.len() < ACCOUNTS_AT_ONCE as usize;
            for (name, account) in page {
                after = name;
                accounts.push(account);
            }
            if is_last {
                break;
            }
        }
        accounts.sort_unstable();
        accounts.dedup();
        Ok(accounts)
    }

    /// Whether what a job writes can be written, found out by doing it.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn probe_write(&self) -> Result<(), LedgerError> {
        self.change(Change::Probe).await.map(|_| ())
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

    pub(super) async fn change(&self, change: Change) -> Result<Written, LedgerError> {
        let (done, written) = oneshot::channel();
        self.writes.send(Write { change, done }).await.map_err(|_| LedgerError::Closed)?;
        written.await.map_err(|_| LedgerError::Closed)?
    }

    /// What is known of a job's last step, whichever operation it is.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn look_up(&self, scope: &Scope, id: &JobId) -> Result<Option<Row>, LedgerError> {
        let rows = self.look_up_jobs(scope, std::slice::from_ref(id)).await?;
        Ok(rows.into_iter().flatten().next())
    }

    /// The same of several, in their order and in one question.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn look_up_jobs(&self, scope: &Scope, ids: &[JobId]) -> Result<Vec<Option<Row>>, LedgerError> {
        // An id has one last step; asked for any, the one that is known is answered.
        let any = Step::Last(Operation::CreateCard);
        self.look_up_all(scope, ids.iter().map(|id| (id.clone(), any)).collect()).await
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
        let (answer, answered) = oneshot::channel();
        let look_up = LookUp { scope: scope.clone(), steps, answer };
        self.questions.send(Question::LookUp(look_up)).await.map_err(|_| LedgerError::Closed)?;
        answered.await.map_err(|_| LedgerError::Closed)?
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
        let scope = scope.clone();
        let contents: Arc<[Content]> = contents.into();
        self.ask(Work::Views, move |store| {
            let (scope, contents) = (scope.clone(), contents.clone());
            Box::pin(async move { either!(store, store => store.same_content(&scope, &contents)) })
        })
        .await
    }

    /// Gives every row of one scope another, but for those that the other has already.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn rename_scope(&self, from: &Scope, to: &Scope) -> Result<(), LedgerError> {
        self.change(Change::RenameScope { from: from.clone(), to: to.clone() }).await.map(|_| ())
    }

    /// Up to `limit` of a batch's rows in the manifest's order, after the given row; only those that are asked
    /// for.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn batch_page(
        &self,
        scope: &Scope,
        batch: &Batch,
        after: Option<(u64, JobId)>,
        only: Only,
        limit: u32,
    ) -> Result<Vec<Row>, LedgerError> {
        let (scope, batch, limit) = (scope.clone(), batch.clone(), i64::from(limit));
        self.ask(Work::Views, move |store| {
            let (scope, batch, after, only) = (scope.clone(), batch.clone(), after.clone(), only.clone());
            Box::pin(async move {
                let after = after
                    .as_ref()
                    .map_or((-1, None), |(row, id)| (i64::try_from(*row).unwrap_or(i64::MAX), Some(id)));
                either!(store, store => store.batch_page(&scope, &batch, after, &only, limit))
            })
        })
        .await
    }

    /// Every batch with its counts, the latest first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn counts(&self) -> Result<Vec<BatchCounts>, LedgerError> {
        self.ask(Work::Views, |store| Box::pin(async move { either!(store, store => store.counts()) })).await
    }

    /// Records a batch's manifest.
    ///
    /// # Errors
    /// If it could not be written.
    pub async fn write_batch(&self, batch: BatchRow) -> Result<(), LedgerError> {
        self.change(Change::Batch(Box::new(batch))).await.map(|_| ())
    }

    /// Closes all connections, once all that was to be written is; the last of them folds SQLite's write-ahead log into
    /// its file, so that the file alone is the whole ledger. Later calls are refused.
    pub async fn close(self) {
        // Whoever still waits for a database that is away has waited long enough.
        self.stop_waiting();
        let Self { writes, questions, views, view_servers, mut closed, .. } = self;
        // The writer ends when it is told so, whoever still holds a clone.
        let (done, _) = oneshot::channel();
        let _ = writes.send(Write { change: Change::Close, done }).await;
        // One after the other: of two that close at once each takes the other for one that stays.
        let _ = closed.wait_for(|closed| *closed).await;
        for _ in 0..view_servers {
            let (answer, answered) = oneshot::channel();
            if views.send(View::Close(answer)).await.is_ok() {
                let _ = answered.await;
            }
        }
        let (answer, answered) = oneshot::channel();
        if questions.send(Question::Close(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}
