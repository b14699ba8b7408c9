//! The ledger's database as the simulation sees it, and what happens to each process's calls of it.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use embosser::ledger::Scope;
use embosser::ledger::simulated::{Connections, Fate, Fates};
use rusqlite::{Connection, OptionalExtension as _};

use super::executor::Life;
use super::world::World;

static NUMBER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The database of this thread's latest simulation: the next one has it, emptied.
    static SPARE: RefCell<Option<(String, Connection, Connections)>> = const { RefCell::new(None) };
}

/// One simulation's database, in memory.
pub(crate) struct Database {
    pub(crate) url: String,
    pub(crate) connections: Connections,
    /// None once it was left to the next simulation.
    connection: Mutex<Option<Connection>>,
}

/// The connection of whoever judges.
struct Judges<'d>(MutexGuard<'d, Option<Connection>>);

impl Deref for Judges<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.as_ref().unwrap()
    }
}

/// A row, as far as the oracle needs it.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) state: String,
    pub(crate) effect: Option<String>,
    pub(crate) code: Option<String>,
}

impl Database {
    pub(crate) fn new() -> Self {
        if let Some((url, connection, connections)) = SPARE.take() {
            connections.begin_anew();
            let database = Self { url, connections, connection: Mutex::new(Some(connection)) };
            database.empty();
            return database;
        }
        let name = format!("/simulation-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let connection = Connection::open(format!("file:{name}?vfs=memdb")).unwrap();
        connection.execute_batch(&format!("ATTACH 'file:{name}-backup?vfs=memdb' AS backup")).unwrap();
        let url = format!("sqlite:{name}?vfs=memdb");
        Self { url, connections: Connections::default(), connection: Mutex::new(Some(connection)) }
    }

    fn connection(&self) -> Judges<'_> {
        Judges(self.connection.lock().unwrap())
    }

    /// The row of a job's last step.
    pub(crate) fn row(&self, scope: &Scope, job: &str) -> Option<Recorded> {
        let connection = self.connection();
        let select = "SELECT state, json_extract(output, '$.id'), error_code FROM steps
            WHERE scope = ?1 AND job_id = ?2 AND step NOT LIKE 'first:%'";
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Recorded { state: row.get(0)?, effect: row.get(1)?, code: row.get(2)? })
        };
        connection.prepare_cached(select).unwrap().query_row([scope.as_str(), job], read).optional().unwrap()
    }

    /// Whether there is a row of any of a job's own steps.
    pub(crate) fn has_any(&self, scope: &Scope, job: &str) -> bool {
        if !self.connections.are_used() {
            return false;
        }
        let connection = self.connection();
        let select = "SELECT EXISTS (SELECT 1 FROM steps WHERE scope = ?1 AND job_id = ?2)";
        connection.prepare_cached(select).unwrap().query_row([scope.as_str(), job], |row| row.get(0)).unwrap()
    }

    /// Whether a step is recorded in that state, under that generation's key.
    pub(crate) fn is(
        &self,
        scope: &Scope,
        job: &str,
        (is_first, generation): (bool, u32),
        state: &str,
    ) -> bool {
        let connection = self.connection();
        let select =
            "SELECT count(*) FROM steps WHERE scope = ?1 AND job_id = ?2 AND (step LIKE 'first:%') = ?3
            AND state = ?5 AND generation = ?4";
        let values = (scope.as_str(), job, is_first, generation, state);
        let count: u32 =
            connection.prepare_cached(select).unwrap().query_row(values, |row| row.get(0)).unwrap();
        count == 1
    }

    /// When a key of a step was first used, as the ledger says.
    pub(crate) fn key_began(&self, scope: &Scope, job: &str) -> Option<i64> {
        let connection = self.connection();
        let select = "SELECT min(key_began_ms) FROM steps WHERE scope = ?1 AND job_id = ?2";
        connection.prepare_cached(select).unwrap().query_row([scope.as_str(), job], |row| row.get(0)).unwrap()
    }

    /// Keeps a copy of everything, if there is anything.
    pub(crate) fn back_up(&self) -> bool {
        if !self.connections.are_used() {
            return false;
        }
        let connection = self.connection();
        for table in ["steps", "metadata", "batches"] {
            let copy = format!(
                "DROP TABLE IF EXISTS backup.{table}; CREATE TABLE backup.{table} AS SELECT * FROM main.{table}"
            );
            connection.execute_batch(&copy).unwrap();
        }
        true
    }

    /// Leaves nothing, as if it were a new one.
    pub(crate) fn empty(&self) {
        let connection = self.connection();
        let all =
            "DELETE FROM steps; DELETE FROM batches; DELETE FROM metadata WHERE name <> 'ledger_read_from'";
        connection.execute_batch(all).unwrap();
    }

    /// Makes everything as it was then.
    pub(crate) fn restore(&self) {
        let connection = self.connection();
        for table in ["steps", "metadata", "batches"] {
            let copy =
                format!("DELETE FROM main.{table}; INSERT INTO main.{table} SELECT * FROM backup.{table}");
            connection.execute_batch(&copy).unwrap();
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let connection = self.connection.get_mut().unwrap().take();
        if let Some(connection) =
            connection.filter(|_| self.connections.are_used() && !std::thread::panicking())
        {
            SPARE.set(Some((std::mem::take(&mut self.url), connection, self.connections.clone())));
        }
    }
}

/// What happens to one life's calls of the ledger.
pub(crate) struct OfLife {
    pub(crate) world: Arc<World>,
    pub(crate) life: Life,
    pub(crate) is_killed: Arc<AtomicBool>,
}

impl Fates for OfLife {
    fn next(&self) -> Fate {
        let world = &self.world;
        let bad = Fate { has_effect: false, ..Fate::GOOD };
        if world.now_ms() < world.state().ledger_out_until {
            return Fate { before: Duration::from_millis(50), ..bad };
        }
        if !world.comes(world.setup.chances.ledger) {
            return Fate::GOOD;
        }
        let fate = match world.pick(&[0, 1, 2, 3, 4]) {
            0 => bad,
            1 => Fate { is_answered: false, ..Fate::GOOD },
            2 => Fate { before: Duration::from_millis(world.pick(&[5, 50, 500])), ..Fate::GOOD },
            3 => Fate { after: Duration::from_millis(world.pick(&[5, 50, 4000])), ..Fate::GOOD },
            _ => Fate {
                // On both sides of the longest that is waited for.
                before: Duration::from_secs(world.pick(&[0, 9, 11, 59])),
                has_effect: true,
                after: Duration::from_secs(world.pick(&[0, 9, 11, 61])),
                is_answered: false,
            },
        };
        world.note(format_args!("life {}: the ledger: {fate:?}", self.life));
        fate
    }

    fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::SeqCst)
    }
}
