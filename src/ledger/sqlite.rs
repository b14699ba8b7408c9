//! The ledger in an SQLite file: the default, for one machine.
//!
//! Write-ahead log with `synchronous=FULL`: every commit is flushed before it returns, and readers never wait for
//! the writer. Its calls block, so each connection has a thread of its own (see [`super::group`]).

use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, ToSql, Transaction, TransactionBehavior};

use super::audit::sqlite as audit;
use super::database::Opening;
use super::file::{BUSY_TIMEOUT, Identity, identity_of, is_in_memory, patiently, uri_of};
use super::file_system::network_kind;
use super::result_code::meaning;
use super::schema::{self, VERSION};
use super::select::{self, INDEXES, Sql};
use super::standing::{self, NO_VERSION, STANDING};
use super::store::{self, COLUMNS, Change, Columns, Commit, Touches, Written};
use super::{Batch, BatchCounts, JobId, LedgerError, Only, Row, SameContent, Scope, Step};
use crate::config::place::file_of;
use crate::job::Content;

/// Statements that stay prepared: all that are usual.
const STATEMENTS_PREPARED: usize = 24;

/// A step's first row. Changes nothing if there is one.
const INSERT: &str =
    "INSERT INTO steps (scope, job_id, step, version, batch, row_number, row_id, content, pin, state,
        generation, key_began_ms, attempted_ms, attempts, output, error_code, error_message, request_id, note,
        written_ms)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20
    WHERE ?3 LIKE 'first:%' OR NOT EXISTS (SELECT 1 FROM steps WHERE scope = ?1 AND job_id = ?2 AND step <> ?3
        AND step NOT LIKE 'first:%')
    ON CONFLICT (scope, job_id, step) DO NOTHING";

/// A row as it is to be, if it has the version before. One that says issued is final, whoever writes.
const UPDATE: &str =
    "UPDATE steps SET version = ?4, batch = ?5, row_number = ?6, row_id = ?7, content = ?8, pin = ?9,
        state = ?10, generation = ?11, key_began_ms = ?12, attempted_ms = ?13, attempts = ?14, output = ?15,
        error_code = ?16, error_message = ?17, request_id = ?18, note = ?19, written_ms = ?20
    WHERE scope = ?1 AND job_id = ?2 AND step = ?3 AND version = ?4 - 1 AND state <> 'done'";

/// The same of a row whose batch, place and content stay: for less, as no column of an index is touched. (They are
/// named once, so that the statement takes the same values.)
const UPDATE_STATE: &str = "UPDATE steps SET version = ?4, pin = ?9, state = ?10, generation = ?11,
        key_began_ms = ?12, attempted_ms = ?13, attempts = ?14, output = ?15, error_code = ?16, error_message = ?17,
        request_id = ?18, note = ?19, written_ms = ?20
    WHERE scope = ?1 AND job_id = ?2 AND step = ?3 AND version = ?4 - 1 AND state <> 'done'
        AND batch = ?5 AND row_number = ?6 AND row_id IS ?7 AND content = ?8";

const SET_METADATA: &str = "INSERT INTO metadata (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";

const SET_BATCH: &str = "INSERT INTO batches (scope, batch, digest, manifest_rows, began_ms)
    VALUES (?1, ?2, ?3, ?4, ?5)
    ON CONFLICT (scope, batch) DO UPDATE SET digest = coalesce(excluded.digest, digest),
        manifest_rows = excluded.manifest_rows";

const COUNTS: &str = "SELECT coalesce(b.scope, j.scope) AS scope, coalesce(b.batch, j.batch) AS batch,
        b.manifest_rows AS manifest_rows, j.issued AS issued, j.refused AS refused, j.cancelled AS cancelled,
        j.unresolved AS unresolved, j.awaiting AS awaiting, j.noted AS noted, j.latest_ms AS latest_ms, b.digest AS digest,
        b.began_ms AS began_ms
    FROM (SELECT scope, batch, sum(state = 'done') AS issued,
            sum(state = 'refused' AND error_code IS NOT 'awaiting_pin') AS refused,
            sum(state = 'refused' AND error_code IS 'cancelled') AS cancelled, sum(state = 'begun') AS unresolved,
            sum(state = 'refused' AND error_code IS 'awaiting_pin') AS awaiting, count(note) AS noted, max(written_ms) AS latest_ms
            FROM steps WHERE step NOT LIKE 'first:%' GROUP BY scope, batch) j
        FULL OUTER JOIN batches b ON b.scope = j.scope AND b.batch = j.batch
    ORDER BY coalesce(j.latest_ms, b.began_ms) DESC";

/// A connection to the ledger's file.
pub(super) struct Sqlite {
    pub(super) connection: Connection,
    pub(super) name: String,
    look_up: String,
    file: PathBuf,
    /// Which file that was when it was opened.
    identity: Option<Identity>,
}

impl Sqlite {
    /// Opens the file, making it and its tables where they are missing.
    pub(super) fn open(url: &str, opening: Opening) -> Result<Self, LedgerError> {
        let name = url.to_owned();
        let file = file_of(url).unwrap_or_default();
        if let Some(kind) = network_kind(&file) {
            return Err(LedgerError::NetworkFile { ledger: name, kind });
        }
        let connect = || {
            let mut flags = OpenFlags::default();
            flags.set(OpenFlags::SQLITE_OPEN_CREATE, opening == Opening::Making);
            let connection = Connection::open_with_flags(uri_of(url), flags)?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_PREPARED);
            connection.busy_timeout(BUSY_TIMEOUT)?;
            // Else a statement that might use a partial index for some values is planned anew for each value.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            let wal = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
            let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", wal)?;
            connection.pragma_update(None, "synchronous", "full")?;
            // The table's CHECK guards against other programs. What is written here is one of its three words by its
            // type, and SQLite would build a table of them for every row.
            connection.pragma_update(None, "ignore_check_constraints", true)?;
            Ok((connection, mode))
        };
        let (connection, found) = patiently(connect).map_err(|error| meaning(&name, &error))?;
        let is_read_only = connection.is_readonly("main").map_err(|error| meaning(&name, &error))?;
        if found != "wal" && !is_read_only && !is_in_memory(url) {
            return Err(LedgerError::Journal { ledger: name, found });
        }
        // The step itself, or the last one that is known of the id, whatever it does.
        let look_up = format!(
            "SELECT {COLUMNS} FROM steps WHERE scope = ?1 AND job_id = ?2
             AND (step = ?3 OR ?3 NOT LIKE 'first:%' AND step NOT LIKE 'first:%') ORDER BY step <> ?3 LIMIT 1"
        );
        let identity = identity_of(&file);
        let mut sqlite = Self { connection, name, look_up, file, identity };
        sqlite.migrate(opening)?;
        Ok(sqlite)
    }

    fn migrate(&mut self, opening: Opening) -> Result<(), LedgerError> {
        let name = self.name.clone();
        let to_error = |error: rusqlite::Error| meaning(&name, &error);
        let found = version(&self.connection).map_err(to_error)?;
        if found == NO_VERSION && opening != Opening::Keeping {
            return Err(standing::refused(self.metadata(STANDING)?.as_deref(), &name));
        }
        let read_from = if found > VERSION { read_from(&self.connection) } else { None };
        let migrates = opening.migrates(found, read_from, &name)?;
        if opening != Opening::Making || !migrates && has_indexes(&self.connection).map_err(to_error)? {
            return Ok(());
        }
        // IMMEDIATE, and asked again inside: of two processes that start at once, the second finds the tables made.
        let make = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found = version(&transaction)?;
            if found < VERSION {
                for statement in schema::of_sqlite(found) {
                    transaction.execute(&statement, [])?;
                }
                let value = schema::READ_FROM_VERSION.to_string();
                transaction.execute(SET_METADATA, [schema::READ_FROM, &value])?;
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            for statement in Sql::Sqlite.indexes() {
                transaction.execute(&statement, [])?;
            }
            transaction.commit()
        };
        patiently(|| make(&mut self.connection)).map_err(to_error)
    }

    /// Whether the path still names the file that was opened. Who deletes or replaces it takes the ledger away: SQLite
    /// would go on with the old file, which nobody finds any more.
    pub(super) fn is_in_place(&self) -> Result<(), LedgerError> {
        if self.identity.is_some() && identity_of(&self.file) != self.identity {
            return Err(LedgerError::Replaced(self.name.clone()));
        }
        Ok(())
    }

    pub(super) fn write(&mut self, changes: &[&Change], commit: Commit) -> Result<Vec<Written>, LedgerError> {
        self.is_in_place()?;
        let mut all = Vec::with_capacity(changes.len());
        let mut write = || {
            all.clear();
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for change in changes {
                all.push(write_one(&transaction, change, &self.look_up, &self.name, commit)?);
            }
            transaction.commit()?;
            Ok(())
        };
        let written = write();
        written.map(|()| all).map_err(|error| match error {
            Unwritten::Database(error) => meaning(&self.name, &error),
            Unwritten::Row(meaning) => meaning,
        })
    }

    pub(super) fn look_up(
        &mut self,
        keys: &[(&Scope, &JobId, Step)],
    ) -> Result<Vec<Option<Row>>, LedgerError> {
        self.is_in_place()?;
        let to_error = |error: rusqlite::Error| meaning(&self.name, &error);
        // One view of the file for all of them, opened once.
        let transaction = self.connection.unchecked_transaction().map_err(to_error)?;
        let mut found = Vec::with_capacity(keys.len());
        {
            let mut select = transaction.prepare_cached(&self.look_up).map_err(to_error)?;
            for (scope, id, step) in keys {
                let mut rows = select.query((scope.as_str(), id.as_str(), step.word())).map_err(to_error)?;
                let row = rows.next().map_err(to_error)?;
                found.push(row.map(|row| store::row_from(Answer::of(row), &self.name)).transpose()?);
            }
        }
        transaction.commit().map_err(to_error)?;
        Ok(found)
    }

    pub(super) fn same_content(
        &mut self,
        scope: &Scope,
        contents: &[Content],
    ) -> Result<Vec<SameContent>, LedgerError> {
        let select = Sql::Sqlite.same_content();
        let mut all = Vec::new();
        for content in contents {
            let values: [&dyn ToSql; 2] = [&scope.as_str(), &content.to_hex()];
            all.extend(self.all(&select, &values, |columns, name| store::same_content_from(columns, name))?);
        }
        Ok(all)
    }

    pub(super) fn batch_page(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after: (i64, Option<&JobId>),
        only: &Only,
        limit: i64,
    ) -> Result<Vec<Row>, LedgerError> {
        let after_id = after.1.map_or("", JobId::as_str);
        let with = only.with.as_deref().map(str::to_ascii_lowercase);
        let (scope, batch) = (scope.as_str(), batch.as_str());
        let mut values: Vec<&dyn ToSql> = vec![&scope, &batch, &after.0, &after_id, &limit];
        if let Some(with) = &with {
            values.push(with);
        }
        let select = Sql::Sqlite.batch_page(only);
        self.all(&select, &values, |columns, name| store::row_from(columns, name))
    }

    pub(super) fn counts(&mut self) -> Result<Vec<BatchCounts>, LedgerError> {
        self.all(COUNTS, &[], |columns, name| {
            store::counts_from(columns).map_err(|reason| store::database(name, reason))
        })
    }

    pub(super) fn metadata(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        self.is_in_place()?;
        let select = "SELECT value FROM metadata WHERE name = ?1";
        let found = self.connection.query_row(select, [name], |row| row.get(0)).optional();
        found.map_err(|error| meaning(&self.name, &error))
    }

    /// Up to so many names that begin so and come after that one, each with its value.
    pub(super) fn metadata_page(
        &mut self,
        prefix: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(String, String)>, LedgerError> {
        let values: [&dyn ToSql; 3] = [&after.max(prefix), &select::end_of(prefix), &limit];
        self.all(&Sql::Sqlite.metadata_page(), &values, |mut columns, name| {
            let mut next = || columns.text().map(Option::unwrap_or_default);
            let read = next().and_then(|found| Ok((found, next()?)));
            read.map_err(|reason| store::database(name, reason))
        })
    }

    pub(super) fn close(self) {
        // Nothing is pending: every write was committed. Who closes last folds the write-ahead log into the file.
        let _ = self.connection.close();
    }

    /// Each row of an answer, read.
    pub(super) fn all<T>(
        &self,
        select: &str,
        values: &[&dyn ToSql],
        mut read: impl FnMut(Answer<'_, '_>, &str) -> Result<T, LedgerError>,
    ) -> Result<Vec<T>, LedgerError> {
        let to_error = |error: rusqlite::Error| meaning(&self.name, &error);
        let mut statement = self.connection.prepare_cached(select).map_err(to_error)?;
        let mut rows = statement.query(values).map_err(to_error)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(to_error)? {
            all.push(read(Answer::of(row), &self.name)?);
        }
        Ok(all)
    }
}

/// Why a group was not written.
enum Unwritten {
    Database(rusqlite::Error),
    /// A row that is in the way cannot be read.
    Row(LedgerError),
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

fn write_one(
    transaction: &Transaction<'_>,
    change: &Change,
    look_up: &str,
    name: &str,
    commit: Commit,
) -> Result<Written, Unwritten> {
    match change {
        Change::Step { row, touches } => {
            let document = store::document(row);
            let values = values(&document);
            let mut changed = 0;
            if row.version.0 == 1 {
                changed = transaction.prepare_cached(INSERT)?.execute(values)?;
            } else if *touches == Touches::State {
                changed = transaction.prepare_cached(UPDATE_STATE)?.execute(values)?;
            }
            if changed == 0 && row.version.0 > 1 {
                changed = transaction.prepare_cached(UPDATE)?.execute(values)?;
            }
            if changed > 0 {
                return Ok(Written::Done);
            }
            let mut select = transaction.prepare_cached(look_up)?;
            let mut rows = select.query((document.scope, document.job_id, document.step))?;
            let found = rows.next()?.map(|found| store::row_from(Answer::of(found), name)).transpose();
            Ok(Written::of_found(row, found.map_err(Unwritten::Row)?, commit))
        }
        Change::Note { scope, id, step, note } => {
            let update = "UPDATE steps SET note = ?4 WHERE scope = ?1 AND job_id = ?2 AND step = ?3";
            let values: [&dyn ToSql; 4] = [&scope.as_str(), &id.as_str(), &step.word(), note];
            transaction.prepare_cached(update)?.execute(values)?;
            Ok(Written::Done)
        }
        Change::Metadata { name, value } => {
            transaction.prepare_cached(SET_METADATA)?.execute([name, value])?;
            Ok(Written::Done)
        }
        Change::Swap { name, known, value } => {
            let select = "SELECT value FROM metadata WHERE name = ?1";
            let found: Option<String> = transaction.query_row(select, [name], |row| row.get(0)).optional()?;
            if found != *known {
                return Ok(Written::of_value(value.as_ref(), found, commit));
            }
            match value {
                Some(value) => transaction.prepare_cached(SET_METADATA)?.execute([name, value])?,
                None => transaction.execute("DELETE FROM metadata WHERE name = ?1", [name])?,
            };
            Ok(Written::Done)
        }
        Change::Batch(batch) => {
            let rows = i64::try_from(batch.rows).unwrap_or(i64::MAX);
            let values: [&dyn ToSql; 5] =
                [&batch.scope.as_str(), &batch.batch.as_str(), &batch.digest, &rows, &batch.began.unix_ms()];
            transaction.prepare_cached(SET_BATCH)?.execute(values)?;
            Ok(Written::Done)
        }
        Change::RenameScope { from, to } => {
            for table in ["steps", "batches"] {
                let update = format!("UPDATE OR IGNORE {table} SET scope = ?2 WHERE scope = ?1");
                transaction.execute(&update, [from.as_str(), to.as_str()])?;
            }
            for (from, to) in store::renamed_names(from, to) {
                let update = "UPDATE OR IGNORE metadata SET name = ?2 || substr(name, length(?1) + 1)
                    WHERE substr(name, 1, length(?1)) = ?1";
                transaction.execute(update, [from, to])?;
            }
            Ok(Written::Done)
        }
        Change::Probe => {
            transaction.execute_batch("SAVEPOINT probe")?;
            for statement in schema::PROBE {
                transaction.execute(statement, [])?;
            }
            transaction.execute_batch("ROLLBACK TO probe; RELEASE probe")?;
            // So that there is something to commit.
            transaction.prepare_cached(SET_METADATA)?.execute(["probe", "1"])?;
            Ok(Written::Done)
        }
        Change::Audit { entry, key } => {
            audit::add(transaction, entry, key)?;
            Ok(Written::Done)
        }
        Change::Close => Ok(Written::Done),
    }
}

fn has_indexes(connection: &Connection) -> rusqlite::Result<bool> {
    let there: u32 = connection.query_row(&Sql::Sqlite.indexes_there(), [], |row| row.get(0))?;
    Ok(there as usize == INDEXES.len())
}

/// From which version on an embosser may use a ledger that is newer than this one.
fn read_from(connection: &Connection) -> Option<i64> {
    let select = "SELECT value FROM metadata WHERE name = ?1";
    let found: rusqlite::Result<String> = connection.query_row(select, [schema::READ_FROM], |row| row.get(0));
    found.ok()?.parse().ok()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// A row's values, numbered as in [`INSERT`].
fn values<'d>(row: &'d store::Document<'_>) -> [&'d dyn ToSql; 20] {
    [
        &row.scope,
        &row.job_id,
        &row.step,
        &row.version,
        &row.batch,
        &row.row_number,
        &row.row_id,
        &row.content,
        &row.pin,
        &row.state,
        &row.generation,
        &row.key_began_ms,
        &row.attempted_ms,
        &row.attempts,
        &row.output,
        &row.error_code,
        &row.error_message,
        &row.request_id,
        &row.note,
        &row.written_ms,
    ]
}

/// One row of an answer.
pub(super) struct Answer<'r, 's> {
    row: &'r rusqlite::Row<'s>,
    next: usize,
}

impl<'r, 's> Answer<'r, 's> {
    fn of(row: &'r rusqlite::Row<'s>) -> Self {
        Self { row, next: 0 }
    }

    fn value(&mut self) -> Result<ValueRef<'r>, String> {
        self.next += 1;
        self.row.get_ref(self.next - 1).map_err(|error| error.to_string())
    }
}

impl Columns for Answer<'_, '_> {
    fn text(&mut self) -> Result<Option<String>, String> {
        let value = self.value()?;
        value.as_str_or_null().map(|text| text.map(str::to_owned)).map_err(|error| error.to_string())
    }

    fn number(&mut self) -> Result<Option<i64>, String> {
        self.value()?.as_i64_or_null().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_opens_a_new_file_at_once_with_others_waits_for_them() {
        for _ in 0..25 {
            let directory = tempfile::tempdir().unwrap();
            let url = format!("sqlite://{}/a.db", directory.path().display());
            let barrier = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        Sqlite::open(&url, Opening::Making).unwrap().close();
                    });
                }
            });
        }
    }
}
