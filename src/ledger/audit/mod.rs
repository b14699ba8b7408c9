//! The audit log: who did what, in a table to which entries are only ever added.
//!
//! Guarantees: an entry that was added survives a crash; the database itself refuses to change or delete one. Never: a PIN,
//! its ciphertext, a link or a token. (An entry keeps the scope under which it was written: what was written before an
//! account's id was known is under the scope without it.)

pub(super) mod postgres;
pub(super) mod sqlite;

use super::database::either;
use super::servers::Work;
use super::store::{Change, Columns, database};
use super::{Ledger, LedgerError, Scope};
use crate::clock::Time;

/// Entries that are read at once where all are.
const PAGE_ENTRIES: u32 = 1000;

/// The columns that [`entry_from`] reads, in a SELECT over `audit`.
const COLUMNS: &str = "id, time_ms, scope, who, role, action, batch, job, row_count, digest, detail";

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Counts the entries of a ledger, from 1; 0 until it is added.
    pub id: u64,
    /// When.
    pub time: Time,
    /// Whose cards it was about.
    pub scope: Scope,
    /// Who did it: a token's name, or words for whoever has none.
    pub who: String,
    /// The role that let them.
    pub role: Option<String>,
    /// What they did, in a word.
    pub action: String,
    /// With which batch.
    pub batch: Option<String>,
    /// With which job or card.
    pub job: Option<String>,
    /// How many rows that was about.
    pub rows: Option<u64>,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: Option<String>,
    /// What else there is to know.
    pub detail: Option<String>,
}

/// In which order entries are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The latest first.
    #[default]
    Newest,
    /// As they were added.
    Oldest,
}

/// Which entries are asked for; all of them, the latest first, if nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Those of one of these scopes; none: of all.
    pub scopes: Vec<Scope>,
    /// Those about this batch.
    pub batch: Option<String>,
    /// Those of this person or service.
    pub who: Option<String>,
    /// Those with this in their batch, job, action or detail, or in who did it, in any case of its letters.
    pub with: Option<String>,
    /// Those since then.
    pub since: Option<Time>,
    /// Those that come after this one, in the order that is asked for.
    pub after: Option<u64>,
    /// The order.
    pub order: Order,
}

impl Ledger {
    /// Adds an entry; returns once it survives a crash.
    ///
    /// # Errors
    /// If it could not be written; then what it tells of must not be done.
    pub async fn add_audit_entry(&self, entry: AuditEntry) -> Result<(), LedgerError> {
        // A commit whose answer was lost is tried again, and must not add it twice.
        let key = format!("{:032x}", rand::random::<u128>());
        self.change(Change::Audit { entry: Box::new(entry), key }).await.map(|_| ())
    }

    /// Up to `limit` of the entries that are asked for.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn audit_entries(&self, query: AuditQuery, limit: u32) -> Result<Vec<AuditEntry>, LedgerError> {
        self.ask(Work::Views, move |store| {
            let query = query.clone();
            Box::pin(async move { either!(store, store => store.audit_entries(&query, i64::from(limit))) })
        })
        .await
    }

    /// The entries that are asked for, some at a time; `query` is where to go on. Empty after the last.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn next_audit_entries(&self, query: &mut AuditQuery) -> Result<Vec<AuditEntry>, LedgerError> {
        let page = self.audit_entries(query.clone(), PAGE_ENTRIES).await?;
        query.after = page.last().map(|last| last.id).or(query.after);
        Ok(page)
    }
}

/// What is searched, in an SQL expression of both databases.
const SEARCHED: &str = "lower(coalesce(batch, '') || chr(10) || coalesce(job, '') || chr(10) || who || chr(10) || action || chr(10)
    || coalesce(detail, ''))";

/// A number as the databases store it.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn entry_from(mut columns: impl Columns, ledger: &str) -> Result<AuditEntry, LedgerError> {
    let whole = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    let mut read = || -> Result<AuditEntry, String> {
        Ok(AuditEntry {
            id: whole(columns.number()?).unwrap_or(0),
            time: Time::from_unix_ms(columns.number()?.unwrap_or(0)),
            scope: Scope::of_ledger(&columns.text()?.unwrap_or_default()),
            who: columns.text()?.unwrap_or_default(),
            role: columns.text()?,
            action: columns.text()?.unwrap_or_default(),
            batch: columns.text()?,
            job: columns.text()?,
            rows: whole(columns.number()?),
            digest: columns.text()?,
            detail: columns.text()?,
        })
    };
    read().map_err(|reason| database(ledger, reason))
}
