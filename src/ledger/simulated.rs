//! A ledger in a simulation: SQLite's own statements on a database in memory, whose calls fail, hang, or take effect without an answer
//! when the simulation says so, as a server's on the network do.
//!
//! It writes and asks on the simulation's own thread, as its tasks: nothing depends on the timing of threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::database::{Opening, Place};
pub use super::lease::simulated::{LeaseKind, Leases};
use super::sqlite::Sqlite;
use super::{Ledger, LedgerError, PATIENCE};

/// What happens to one call of the ledger's.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    /// How long it takes until it has its effect.
    pub before: Duration,
    /// Whether it has any.
    pub has_effect: bool,
    /// How long its answer takes then.
    pub after: Duration,
    /// Whether there is an answer.
    pub is_answered: bool,
}

/// Decides what happens to each call of one process.
pub trait Fates: Send + Sync {
    /// Of the next call.
    fn next(&self) -> Fate;
    /// Whether the process is being killed: it says nothing any more.
    fn is_killed(&self) -> bool;
}

/// What the ledger of one process is given.
#[derive(Clone)]
pub struct Given {
    /// Where it is, as `sqlite:file:/NAME?vfs=memdb`. Those of one address share it, for as long as one of them is there.
    pub url: String,
    /// What happens to its calls.
    pub fates: Arc<dyn Fates>,
    /// Connections to it that nobody uses.
    pub connections: Connections,
    /// The leases.
    pub leases: Leases,
    /// Which machine the process runs on.
    pub host: String,
    /// The process's number.
    pub process: u32,
}

/// Connections to one database in memory. A process whose life ends leaves its own to the next one's, with their prepared statements:
/// to open one costs as much as a job's whole way. Clones share them.
#[derive(Clone, Default)]
pub struct Connections(Arc<Kept>);

#[derive(Default)]
struct Kept {
    spare: Mutex<Vec<Sqlite>>,
    is_used: AtomicBool,
}

impl Connections {
    /// Whether anybody has connected since the begin.
    #[must_use]
    pub fn are_used(&self) -> bool {
        self.0.is_used.load(Ordering::SeqCst)
    }

    /// Another simulation begins, with an empty database.
    pub fn begin_anew(&self) {
        self.0.is_used.store(false, Ordering::SeqCst);
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Sqlite>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Sqlite> {
        self.0.is_used.store(true, Ordering::SeqCst);
        self.spare().pop()
    }
}

/// A connection. Each call of it is over before anything else runs, so that none is left in the middle of one.
pub(super) struct Store {
    /// None once it was left to the next.
    sqlite: Option<Sqlite>,
    given: Arc<Given>,
}

impl Ledger {
    /// A ledger in memory.
    ///
    /// # Errors
    /// If SQLite cannot make it.
    pub async fn simulated(given: Given) -> Result<Self, LedgerError> {
        Self::at(Place::Simulated(Arc::new(given)), "simulated".into(), Opening::Making, PATIENCE).await
    }
}

impl Store {
    pub(super) fn open(given: &Arc<Given>, opening: Opening) -> Result<Self, LedgerError> {
        let sqlite = match given.connections.take() {
            Some(spare) => spare,
            None => Sqlite::open(&given.url, opening)?,
        };
        Ok(Self { sqlite: Some(sqlite), given: given.clone() })
    }

    pub(super) fn sqlite(&mut self) -> &mut Sqlite {
        self.sqlite.as_mut().expect("it is left to the next when it is dropped")
    }

    /// A call begins; none has an effect that is not to have one.
    pub(super) async fn begin(&mut self) -> Result<Fate, LedgerError> {
        self.given.begin().await
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.given.connections.spare().extend(self.sqlite.take());
        }
    }
}

impl Fate {
    /// At once, with effect and answer.
    pub const GOOD: Self =
        Self { before: Duration::ZERO, has_effect: true, after: Duration::ZERO, is_answered: true };

    /// The call has had its effect.
    pub(super) async fn ends<T, E: From<LedgerError>>(self, answer: Result<T, E>) -> Result<T, E> {
        pause(self.after).await;
        if self.is_answered { answer } else { Err(no_answer().into()) }
    }
}

impl Given {
    pub(super) async fn begin(&self) -> Result<Fate, LedgerError> {
        let fate = self.fates.next();
        pause(fate.before).await;
        if fate.has_effect { Ok(fate) } else { Err(no_answer()) }
    }
}

async fn pause(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

fn no_answer() -> LedgerError {
    LedgerError::Unreachable { ledger: "simulated".into(), reason: "the connection is lost".into() }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Given").field("process", &self.process).finish_non_exhaustive()
    }
}
