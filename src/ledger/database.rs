//! A connection to the ledger's database, whichever of the two it is, and where its calls run.

use super::LedgerError;
use super::postgres::Postgres;
use super::sqlite::Sqlite;

/// A connection to either database.
pub(super) enum Store {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Calls the same method on whichever database it is.
macro_rules! either {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            $crate::ledger::database::Store::Sqlite($inner) => $call,
            $crate::ledger::database::Store::Postgres($inner) => $call.await,
        }
    };
}
pub(super) use either;

impl Store {
    pub(super) async fn open(url: &str) -> Result<Self, LedgerError> {
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
    pub(super) async fn open_again(&mut self, url: &str) -> Result<(), LedgerError> {
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

/// A ledger's address without its password, for messages.
pub(super) fn display_name(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.split('@').next_back().unwrap_or("").into() };
    if parsed.password().is_some() {
        let _ = parsed.set_password(None);
    }
    parsed.to_string()
}
