//! A connection to the ledger's database, whichever of the two it is, and where its calls run.

use std::time::Duration;

use super::LedgerError;
use super::postgres::Postgres;
use super::schema::VERSION;
use super::sqlite::Sqlite;
use super::store::{Again, Failure};
use crate::config::place::without_password;

/// Longest that a server on the network may take for one statement, and for a new connection: it counts the rows of a
/// large ledger in less. Beyond it the connection is taken for dead, as a network that only swallows packets is not noticed
/// otherwise for a quarter of an hour.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Longest that such a server is waited for when its connection is closed.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What opening a ledger may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// It is made where it is missing, and brought to this version.
    Making,
    /// Nothing.
    Existing,
}

impl Opening {
    /// Whether a ledger of this version is to be brought to ours.
    pub(super) fn migrates(self, found: i64, ledger: &str) -> Result<bool, LedgerError> {
        let ledger = ledger.to_owned();
        match found {
            VERSION => Ok(false),
            found if found > VERSION => Err(LedgerError::Newer { ledger, found, known: VERSION }),
            _ if self == Self::Making => Ok(true),
            0 => Err(LedgerError::Missing(ledger)),
            found => Err(LedgerError::Older { ledger, found, known: VERSION }),
        }
    }
}

/// A connection to either database.
pub(super) enum Store {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Calls the same method on whichever database it is; a server on the network gets [`ANSWER_MAX`].
macro_rules! either {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            $crate::ledger::database::Store::Sqlite($inner) => $call,
            $crate::ledger::database::Store::Postgres($inner) => {
                let name = $inner.name().to_owned();
                $crate::ledger::database::in_time(&name, $call).await
            }
        }
    };
}
pub(super) use either;

/// An answer of a server on the network, or that there was none in time.
pub(super) async fn in_time<T, E: From<NoAnswer>>(
    name: &str,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(ANSWER_MAX, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(NoAnswer(name.to_owned()).into()),
    }
}

/// A server did not answer in time. The connection is of no more use: its answer may still come.
pub(super) struct NoAnswer(String);

impl From<NoAnswer> for LedgerError {
    fn from(NoAnswer(ledger): NoAnswer) -> Self {
        super::store::database(&ledger, format!("no answer within {} seconds", ANSWER_MAX.as_secs()))
    }
}

impl From<NoAnswer> for Failure {
    fn from(no_answer: NoAnswer) -> Self {
        Self { meaning: no_answer.into(), again: Again::Anew }
    }
}

impl Store {
    pub(super) async fn close(self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close(),
            // Nothing waits for it.
            Self::Postgres(postgres) => {
                let _ = tokio::time::timeout(CLOSE_MAX, postgres.close()).await;
            }
        }
    }

    pub(super) async fn open(url: &str, opening: Opening) -> Result<Self, LedgerError> {
        if url.starts_with("sqlite:") {
            let of_task = url.to_owned();
            let opened = tokio::task::spawn_blocking(move || Sqlite::open(&of_task, opening)).await;
            Ok(Self::Sqlite(opened.map_err(|_| LedgerError::Closed)??))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Self::Postgres(Postgres::open(url, opening).await?))
        } else {
            let url = without_password(url);
            Err(LedgerError::Address { url, reason: "unknown kind of database".into() })
        }
    }

    /// A new connection to the same database, if there is one to be had.
    ///
    /// # Errors
    /// If it is another database.
    pub(super) async fn open_again(&mut self, url: &str) -> Result<(), LedgerError> {
        let fresh = match self {
            Self::Sqlite(sqlite) => match sqlite.is_in_place() {
                Ok(()) => Self::open(url, Opening::Existing).await,
                Err(replaced) => Err(replaced),
            },
            Self::Postgres(postgres) => {
                in_time(postgres.name(), postgres.open_again(url)).await.map(Self::Postgres)
            }
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
pub(super) enum Runs {
    /// On a thread of its own, since its calls block.
    OnThread,
    /// As a task.
    AsTask,
}

impl Runs {
    pub(super) fn of(store: &Store) -> Self {
        match store {
            Store::Sqlite(_) => Self::OnThread,
            Store::Postgres(_) => Self::AsTask,
        }
    }

    pub(super) fn run(self, name: &str, server: impl Future<Output = ()> + Send + 'static) {
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
