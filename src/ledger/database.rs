//! A connection to the ledger's database, whichever of the two it is, and where its calls run.

use std::sync::Arc;
use std::time::Duration;

use super::LedgerError;
use super::address::Needs;
use super::postgres::{Lost, Postgres};
use super::schema::VERSION;
use super::servers::{Servers, Work};
#[cfg(feature = "killpoints")]
use super::simulated;
use super::sqlite::Sqlite;
use super::sqlstate::passes;
use super::standing::NO_VERSION;
use super::store::Change;
use crate::config::place::without_password;

/// Longest that a change of a whole ledger may take: of its tables, or of its rows' scope.
pub(super) const MIGRATION_MAX: Duration = Duration::from_secs(600);
/// Longest that a server on the network is waited for when its connection is closed.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What opening a ledger may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is made where it is missing, and brought to this version.
    Making,
    /// Nothing.
    Existing,
    /// Nothing; whatever its standing is, by whoever keeps ledgers ([`super::whole`]).
    Keeping,
}

impl Opening {
    /// Whether a ledger of this version is to be brought to ours. A newer one is used if it can be by embossers `read_by` that version on.
    pub(super) fn migrates(
        self,
        found: i64,
        read_by: Option<i64>,
        ledger: &str,
    ) -> Result<bool, LedgerError> {
        let ledger = ledger.to_owned();
        match found {
            VERSION => Ok(false),
            NO_VERSION if self == Self::Keeping => Ok(false),
            // Who keeps a whole ledger must know all of it.
            found
                if found > VERSION
                    && self != Self::Keeping
                    && read_by.is_some_and(|from| from <= VERSION) =>
            {
                Ok(false)
            }
            found if found > VERSION => Err(LedgerError::Newer { ledger, found, known: VERSION }),
            _ if self == Self::Making => Ok(true),
            0 => Err(LedgerError::Missing(ledger)),
            found => Err(LedgerError::Older { ledger, found, known: VERSION }),
        }
    }
}

/// Where a ledger is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In a file.
    File(Arc<str>),
    /// On a server, or several.
    Servers(Arc<Servers>),
    /// In a simulation's memory.
    #[cfg(feature = "killpoints")]
    Simulated(Arc<simulated::Given>),
}

impl Place {
    /// Reads `sqlite:…` or `postgres://…`.
    pub(super) fn of(url: &str) -> Result<Self, LedgerError> {
        if url.starts_with("sqlite:") {
            return Ok(Self::File(url.into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Servers(Arc::new(Servers::of(url)?)));
        }
        let url = without_password(url);
        Err(LedgerError::Address { url, reason: "unknown kind of database".into() })
    }

    /// A new connection, for this work.
    pub(super) async fn open(
        &self,
        opening: Opening,
        needs: Needs,
        work: Work,
    ) -> Result<Store, LedgerError> {
        match self {
            Self::File(url) => {
                let url = url.clone();
                let opened = tokio::task::spawn_blocking(move || Sqlite::open(&url, opening)).await;
                Ok(Store::Sqlite(opened.map_err(|_| LedgerError::Closed)??))
            }
            Self::Servers(servers) => {
                let mut postgres = Postgres::connect(servers, needs, work).await?;
                postgres.begin(opening).await?;
                Ok(Store::Postgres(Box::new(postgres)))
            }
            #[cfg(feature = "killpoints")]
            Self::Simulated(given) => Ok(Store::Simulated(Box::new(simulated::Store::open(given, opening)?))),
        }
    }

    /// A new connection to the same database as the one that was lost.
    pub(super) async fn open_again(&self, lost: &Lost) -> Result<Store, LedgerError> {
        match self {
            Self::Servers(servers) => {
                Ok(Store::Postgres(Box::new(Postgres::open_again(servers, lost).await?)))
            }
            // None of a file's is ever lost.
            Self::File(_) => Err(LedgerError::Closed),
            #[cfg(feature = "killpoints")]
            Self::Simulated(_) => Err(LedgerError::Closed),
        }
    }

    /// Whether what failed may go well a while later.
    pub(super) fn passes(&self, error: &LedgerError) -> bool {
        match self {
            Self::File(_) => matches!(error, LedgerError::Locked(_)),
            Self::Servers(_) => passes(error),
            #[cfg(feature = "killpoints")]
            Self::Simulated(_) => passes(error),
        }
    }
}

/// A connection to either database.
pub(super) enum Store {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
    #[cfg(feature = "killpoints")]
    Simulated(Box<simulated::Store>),
}

/// Calls the same method on whichever database it is.
macro_rules! either {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            $crate::ledger::database::Store::Sqlite($inner) => $call,
            $crate::ledger::database::Store::Postgres($inner) => $call.await,
            #[cfg(feature = "killpoints")]
            $crate::ledger::database::Store::Simulated(simulated) => match simulated.begin().await {
                Err(unreachable) => Err(unreachable),
                Ok(fate) => {
                    let $inner = simulated.sqlite();
                    fate.ends($call).await
                }
            },
        }
    };
}
pub(super) use either;

/// An answer of a server on the network, or that there was none in time. The connection is of no more use then: its answer may
/// still come.
pub(super) async fn in_time<T, E: From<LedgerError>>(
    name: &str,
    max: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(max, answer).await.unwrap_or_else(|_| {
        let reason = format!("no answer within {} seconds", max.as_secs());
        Err(LedgerError::Unreachable { ledger: name.to_owned(), reason }.into())
    })
}

impl Store {
    pub(super) async fn close(self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close(),
            // Nothing waits for it.
            Self::Postgres(postgres) => {
                let _ = tokio::time::timeout(CLOSE_MAX, postgres.close()).await;
            }
            #[cfg(feature = "killpoints")]
            Self::Simulated(_) => {}
        }
    }

    /// Longest that these changes may take; SQLite has bounds of its own.
    pub(super) fn write_max(&self, changes: &[&Change]) -> Duration {
        let is_of_all = |change: &&Change| matches!(change, Change::RenameScope { .. });
        if changes.iter().any(is_of_all) { MIGRATION_MAX } else { self.answer_max() }
    }

    /// Longest that an answer may take.
    pub(super) fn answer_max(&self) -> Duration {
        match self {
            Self::Sqlite(_) => MIGRATION_MAX,
            Self::Postgres(postgres) => postgres.answer_max(),
            #[cfg(feature = "killpoints")]
            Self::Simulated(_) => Work::Rows.answer_max(),
        }
    }

    /// Whether what is written to it is kept, as far as is known.
    pub(super) fn check_timeline(&self) -> Result<(), LedgerError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(postgres) => postgres.check_timeline(),
            #[cfg(feature = "killpoints")]
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Whether it answers.
    pub(super) async fn ping(&mut self) -> Result<(), LedgerError> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(postgres) => postgres.ping().await,
            #[cfg(feature = "killpoints")]
            Self::Simulated(_) => Ok(()),
        }
    }
}

/// Where the server of a store runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Runs {
    /// On a thread of its own, since its calls block.
    OnThread,
    /// As a task.
    AsTask,
    /// As a simulation's task. It looks at no database that nobody asks.
    #[cfg(feature = "killpoints")]
    AsSimulated,
}

impl Runs {
    pub(super) fn of(place: &Place) -> Self {
        match place {
            Place::File(_) => Self::OnThread,
            Place::Servers(_) => Self::AsTask,
            #[cfg(feature = "killpoints")]
            Place::Simulated(_) => Self::AsSimulated,
        }
    }

    pub(super) fn run(self, name: &str, server: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::AsTask => drop(tokio::spawn(server)),
            #[cfg(feature = "killpoints")]
            Self::AsSimulated => crate::simulation::spawn(server),
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
