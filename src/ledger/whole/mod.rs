//! A ledger as a whole, whatever its standing: its tables read row by row in one view of them, pieces of another one written to
//! it, its standing changed, and all of its leases held so that nobody calls meanwhile.
//!
//! Never: a row changed by what it says. Bounds: a piece of [`PIECE_ROWS`] rows is all that is in memory of a table.

mod postgres;
mod sqlite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::LedgerError;
use super::address::Needs;
use super::database::{Opening, Place, Store};
use super::lease::{Holder, LeaseError};
use super::lease_file::LockedFile;
use super::servers::Work;
use super::standing::{CAME_BY, STANDING, Standing};
use super::tables::{Table, Values};
use crate::clock::Time;
use crate::config::place::shown;

/// Rows that are read or written at once: some hundred KiB, and few enough commits that flushing is no matter.
pub(super) const PIECE_ROWS: usize = 2000;

/// What a ledger is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Only to read it; in PostgreSQL from a standby, too.
    Reading,
    /// To write to it.
    Writing,
    /// The same; it is made where there is none.
    Making,
}

/// A ledger, open as a whole.
pub(super) struct Whole {
    kind: Kind,
    /// For people: a file's with its whole path, a server's without its password.
    name: Arc<str>,
    url: String,
    held: BTreeMap<PathBuf, LockedFile>,
}

enum Kind {
    /// Lent to a thread while it is asked, since its calls block.
    File(Option<Box<super::sqlite::Sqlite>>),
    Server(Box<super::postgres::Postgres>),
}

/// Calls the same method on whichever database it is.
macro_rules! on {
    ($whole:expr, $inner:ident => $call:expr) => {
        match &mut $whole.kind {
            Kind::Server(server) => {
                let $inner = &mut **server;
                $call.await
            }
            Kind::File(file) => {
                let mut lent = file.take().ok_or(LedgerError::Closed)?;
                let ended = tokio::task::spawn_blocking(move || {
                    let $inner = &mut *lent;
                    let answer = $call;
                    (lent, answer)
                })
                .await;
                let (lent, answer) = ended.map_err(|_| LedgerError::Closed)?;
                *file = Some(lent);
                answer
            }
        }
    };
}

impl Whole {
    pub(super) async fn open(url: &str, access: Access) -> Result<Self, LedgerError> {
        let place = Place::of(url)?;
        let needs = match (access, &place) {
            // Of several servers one may be behind.
            (Access::Reading, Place::Servers(servers)) if servers.address.hosts.len() > 1 => Needs::Primary,
            (Access::Reading, _) => Needs::Any,
            (Access::Writing | Access::Making, _) => Needs::Writable,
        };
        if let Place::Servers(servers) = &place {
            super::pooler::refuse(servers, needs).await?;
        }
        let opened = match place.open(Opening::Keeping, needs, Work::Views).await {
            Err(_) if access == Access::Making && !exists(&place, needs).await? => {
                place.open(Opening::Making, needs, Work::Views).await?.close().await;
                place.open(Opening::Keeping, needs, Work::Views).await
            }
            opened => opened,
        };
        let kind = match opened? {
            Store::Sqlite(sqlite) => Kind::File(Some(Box::new(sqlite))),
            Store::Postgres(mut postgres) => {
                postgres.has_time().await?;
                Kind::Server(postgres)
            }
            #[cfg(feature = "killpoints")]
            Store::Simulated(_) => return Err(LedgerError::Closed),
        };
        Ok(Self { kind, name: shown(url).into(), url: url.to_owned(), held: BTreeMap::new() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is in PostgreSQL.
    pub(super) fn is_on_server(&self) -> bool {
        matches!(self.kind, Kind::Server(_))
    }

    /// What tells its database from every other.
    pub(super) async fn identity(&mut self) -> Result<String, LedgerError> {
        on!(self, whole => whole.whole_identity())
    }

    async fn value(&mut self, name: &'static str) -> Result<Option<String>, LedgerError> {
        on!(self, whole => whole.metadata(name))
    }

    /// Its standing; none of one that serves.
    pub(super) async fn standing(&mut self) -> Result<Option<Standing>, LedgerError> {
        let Some(text) = self.value(STANDING).await? else { return Ok(None) };
        let of_another = |reason: String| super::store::database(&self.name, reason);
        let standing = Standing::of_json(&text);
        let standing =
            standing.ok_or_else(|| of_another(format!("its {STANDING} cannot be read: {text}")))?;
        match standing.is_of_another_version() {
            None => Ok(Some(standing)),
            Some(version) => Err(of_another(format!(
                "its move was begun by an embosser whose ledgers are of version {version}; finish it, or give it up, with that one"
            ))),
        }
    }

    /// By which move it came here.
    pub(super) async fn came_by(&mut self) -> Result<Option<String>, LedgerError> {
        self.value(CAME_BY).await
    }

    /// Gives it a standing, or has it serve; in one commit. `came_by` is the move by which it came here.
    pub(super) async fn stand(
        &mut self,
        standing: Option<Standing>,
        came_by: Option<String>,
    ) -> Result<(), LedgerError> {
        on!(self, whole => whole.whole_stand(standing.as_ref(), came_by.as_deref()))
    }

    /// From here on one view of all tables is read, until [`Self::end_view`].
    pub(super) async fn begin_view(&mut self) -> Result<(), LedgerError> {
        on!(self, whole => whole.whole_begin_view())
    }

    pub(super) async fn end_view(&mut self) -> Result<(), LedgerError> {
        on!(self, whole => whole.whole_end_view())
    }

    /// The rows of a table in their keys' order, after that one.
    pub(super) async fn rows(
        &mut self,
        table: &'static Table,
        after: Option<Values>,
    ) -> Result<Rows<'_>, LedgerError> {
        if let Kind::Server(server) = &mut self.kind {
            server.whole_begin(table, after.as_deref()).await?;
        }
        Ok(Rows { whole: self, table, after, is_over: false })
    }

    pub(super) async fn count(&mut self, table: &'static Table) -> Result<u64, LedgerError> {
        on!(self, whole => whole.whole_count(table))
    }

    /// A row with the character NUL in one of its texts, if there is one.
    pub(super) async fn with_nul(&mut self, table: &'static Table) -> Result<Option<Values>, LedgerError> {
        on!(self, whole => whole.whole_with_nul(table))
    }

    /// Adds rows, and the standing that says so, in one commit.
    pub(super) async fn add(
        &mut self,
        table: &'static Table,
        rows: Vec<Values>,
        standing: Standing,
    ) -> Result<(), LedgerError> {
        on!(self, whole => whole.whole_add(table, &rows, &standing))
    }

    /// What only one of the two databases needs once all rows are there.
    pub(super) async fn settle(&mut self) -> Result<(), LedgerError> {
        if let Kind::Server(server) = &mut self.kind {
            server.whole_settle().await?;
        }
        Ok(())
    }

    /// What is wrong with the database itself: each in a sentence.
    pub(super) async fn faults(&mut self) -> Result<Vec<String>, LedgerError> {
        on!(self, whole => whole.whole_faults())
    }

    /// Takes out of the rows with these keys what was said beside them before that time ([`super::prune`]); of how many.
    pub(super) async fn thin(
        &mut self,
        table: &'static Table,
        keys: Vec<Values>,
        before: Time,
    ) -> Result<u64, LedgerError> {
        on!(self, whole => whole.whole_thin(table, &keys, before))
    }

    /// Gives names of the metadata, each as it was read, another value, if it still is so; how many.
    pub(super) async fn replace_metadata(
        &mut self,
        changes: Vec<(Values, String)>,
    ) -> Result<u64, LedgerError> {
        on!(self, whole => whole.whole_replace(&changes))
    }

    /// A number that this asks for. Its parameter is the number.
    pub(super) async fn number(&mut self, select: String, number: i64) -> Result<u64, LedgerError> {
        on!(self, whole => whole.whole_number(&select, number))
    }

    /// Holds the leases of all accounts, as long as this is open, so that nobody calls for any of them. Answers who holds one, if
    /// somebody does. Asked again, it takes those that came to be meanwhile.
    pub(super) async fn hold_leases(&mut self) -> Result<Option<Box<Holder>>, LeaseError> {
        match &mut self.kind {
            Kind::Server(server) => Ok(server.whole_hold_leases().await?),
            Kind::File(_) => {
                let (url, mut held) = (self.url.clone(), std::mem::take(&mut self.held));
                let holding = move || {
                    let holder = sqlite::hold_leases(&url, &mut held);
                    (held, holder)
                };
                let (held, holder) =
                    tokio::task::spawn_blocking(holding).await.map_err(|_| LedgerError::Closed)?;
                self.held = held;
                holder
            }
        }
    }

    pub(super) async fn close(self) {
        match self.kind {
            Kind::Server(server) => Store::Postgres(server).close().await,
            Kind::File(Some(file)) => {
                let _ = tokio::task::spawn_blocking(move || file.close()).await;
            }
            Kind::File(None) => {}
        }
    }
}

/// Whether there is any ledger, whichever version it is of.
async fn exists(place: &Place, needs: Needs) -> Result<bool, LedgerError> {
    match place.open(Opening::Existing, needs, Work::Views).await {
        Ok(store) => {
            store.close().await;
            Ok(true)
        }
        Err(LedgerError::Missing(_)) => Ok(false),
        // SQLite's words for a file that is not there.
        Err(error) => match place {
            Place::File(url) => Ok(crate::config::place::file_of(url).is_some_and(|file| file.exists())),
            _ => Err(error),
        },
    }
}

/// A table's rows, a piece at a time.
pub(super) struct Rows<'w> {
    whole: &'w mut Whole,
    table: &'static Table,
    after: Option<Values>,
    is_over: bool,
}

impl Rows<'_> {
    /// The next rows; none after the last.
    pub(super) async fn next(&mut self) -> Result<Vec<Values>, LedgerError> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let (table, after) = (self.table, self.after.take());
        let rows = on!(self.whole, whole => whole.whole_next(table, after.as_deref()))?;
        self.after = rows.last().map(|row| table.key_of(row).to_vec());
        self.is_over = rows.len() < PIECE_ROWS;
        Ok(rows)
    }
}
