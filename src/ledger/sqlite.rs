//! The ledger in an SQLite file: the default, for one machine.
//!
//! Write-ahead log with `synchronous=FULL`: every commit is flushed before it returns, and readers never wait for
//! the writer. Its calls block, so each connection has a thread of its own (see [`super::group`]).

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, ToSql, TransactionBehavior, ffi};

use super::store::{self, Again, COLUMNS, Columns, Failure, VERSION};
use super::{Batch, BatchCounts, BatchRow, JobId, Kind, LedgerError, Row, Scope, State, WrittenCounts};

/// How long another process may hold the file before we give up: longer than any of our own commits.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements that stay prepared: all that this file has.
const STATEMENTS_PREPARED: usize = 16;

const SCHEMA: [&str; 3] = [
    "CREATE TABLE jobs (
        scope TEXT NOT NULL, job_id TEXT NOT NULL, batch TEXT NOT NULL, row_number INTEGER NOT NULL, row_id TEXT,
        fingerprint TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('begun', 'issued', 'refused')),
        generation INTEGER NOT NULL, key_began_ms INTEGER, attempted_ms INTEGER, attempts INTEGER NOT NULL,
        card_id TEXT, last4 TEXT, exp_month INTEGER, exp_year INTEGER,
        error_code TEXT, error_message TEXT, request_id TEXT, written_ms INTEGER NOT NULL,
        PRIMARY KEY (scope, job_id)) WITHOUT ROWID",
    "CREATE INDEX jobs_by_batch ON jobs (scope, batch, row_number, job_id)",
    "CREATE TABLE batches (
        scope TEXT NOT NULL, batch TEXT NOT NULL, digest TEXT, manifest_rows INTEGER NOT NULL,
        began_ms INTEGER NOT NULL, PRIMARY KEY (scope, batch)) WITHOUT ROWID",
];

/// Writes a row whole. One that says issued is final: the guard at the end keeps any late writer off it.
const UPSERT: &str =
    "INSERT INTO jobs (scope, job_id, batch, row_number, row_id, fingerprint, state, generation,
        key_began_ms, attempted_ms, attempts, card_id, last4, exp_month, exp_year, error_code, error_message,
        request_id, written_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
    ON CONFLICT (scope, job_id) DO UPDATE SET batch = excluded.batch, row_number = excluded.row_number,
        row_id = excluded.row_id, fingerprint = excluded.fingerprint, state = excluded.state,
        generation = excluded.generation, key_began_ms = excluded.key_began_ms,
        attempted_ms = excluded.attempted_ms, attempts = excluded.attempts, card_id = excluded.card_id,
        last4 = excluded.last4, exp_month = excluded.exp_month, exp_year = excluded.exp_year,
        error_code = excluded.error_code, error_message = excluded.error_message,
        request_id = excluded.request_id, written_ms = excluded.written_ms
    WHERE jobs.state <> 'issued'";

/// Says how a job ended whose row is there already and, as most are, about the same content: what [`UPSERT`] would do,
/// for less, as no column of the index is touched. Changes no row if there is none such.
const END: &str = "UPDATE jobs SET state = ?7, generation = ?8, key_began_ms = ?9, attempted_ms = ?10,
        attempts = ?11, card_id = ?12, last4 = ?13, exp_month = ?14, exp_year = ?15, error_code = ?16,
        error_message = ?17, request_id = ?18, written_ms = ?19
    WHERE scope = ?1 AND job_id = ?2 AND state <> 'issued'
        AND batch = ?3 AND row_number = ?4 AND row_id IS ?5 AND fingerprint = ?6";

const COUNTS: &str = "SELECT coalesce(b.scope, j.scope) AS scope, coalesce(b.batch, j.batch) AS batch,
        b.manifest_rows AS manifest_rows, j.issued AS issued, j.refused AS refused, j.unresolved AS unresolved,
        j.latest_ms AS latest_ms
    FROM (SELECT scope, batch, sum(state = 'issued') AS issued, sum(state = 'refused') AS refused,
            sum(state = 'begun') AS unresolved, max(written_ms) AS latest_ms FROM jobs GROUP BY scope, batch) j
        FULL OUTER JOIN batches b ON b.scope = j.scope AND b.batch = j.batch
    ORDER BY coalesce(j.latest_ms, b.began_ms) DESC";

/// A connection to the ledger's file.
pub(super) struct Sqlite {
    connection: Connection,
    name: String,
    look_up: String,
}

impl Sqlite {
    /// Opens the file, making it and its tables where they are missing.
    pub(super) fn open(url: &str) -> Result<Self, LedgerError> {
        let name = url.to_owned();
        let connect = || {
            let connection = Connection::open_with_flags(uri_of(url), OpenFlags::default())?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_PREPARED);
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")?;
            // The table's CHECK guards against other programs. What is written here is one of its three words by its
            // type, and SQLite would build a table of them for every row.
            connection.pragma_update(None, "ignore_check_constraints", true)?;
            Ok(connection)
        };
        let connection = connect().map_err(|error| meaning(&name, &error))?;
        let look_up = format!("SELECT {COLUMNS} FROM jobs WHERE scope = ?1 AND job_id = ?2");
        let mut sqlite = Self { connection, name, look_up };
        sqlite.migrate()?;
        Ok(sqlite)
    }

    fn migrate(&mut self) -> Result<(), LedgerError> {
        let name = self.name.clone();
        let told = |error: rusqlite::Error| meaning(&name, &error);
        let found = version(&self.connection).map_err(told)?;
        if found > VERSION {
            return Err(LedgerError::Newer { ledger: name, found, known: VERSION });
        }
        if found == VERSION {
            return Ok(());
        }
        // IMMEDIATE, and asked again inside: of two processes that start at once, the second finds the tables made.
        let make = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if version(&transaction)? < 1 {
                for statement in SCHEMA {
                    transaction.execute(statement, [])?;
                }
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            transaction.commit()
        };
        make(&mut self.connection).map_err(told)
    }

    pub(super) fn write(&mut self, rows: &[&Row]) -> Result<(), Failure> {
        let mut write = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut end = transaction.prepare_cached(END)?;
                let mut upsert = transaction.prepare_cached(UPSERT)?;
                for row in rows {
                    let document = store::document(row);
                    let values = values(&document);
                    if row.state == State::Begun || end.execute(values)? == 0 {
                        upsert.execute(values)?;
                    }
                }
            }
            transaction.commit()
        };
        write().map_err(|error| failure(&self.name, &error))
    }

    pub(super) fn look_up(&mut self, keys: &[(&Scope, &JobId)]) -> Result<Vec<Option<Row>>, LedgerError> {
        let told = |error: rusqlite::Error| meaning(&self.name, &error);
        // One view of the file for all of them, opened once.
        let transaction = self.connection.unchecked_transaction().map_err(told)?;
        let mut found = Vec::with_capacity(keys.len());
        {
            let mut select = transaction.prepare_cached(&self.look_up).map_err(told)?;
            for (scope, id) in keys {
                let mut rows = select.query((scope.as_str(), id.as_str())).map_err(told)?;
                let row = rows.next().map_err(told)?;
                found.push(row.map(|row| store::row_from(Answer::of(row), &self.name)).transpose()?);
            }
        }
        transaction.commit().map_err(told)?;
        Ok(found)
    }

    pub(super) fn batch_page(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after: (i64, Option<&JobId>),
        only: Option<Kind>,
        limit: i64,
    ) -> Result<Vec<Row>, LedgerError> {
        let select = format!(
            "SELECT {COLUMNS} FROM jobs WHERE scope = ?1 AND batch = ?2
             AND (row_number, job_id) > (?3, ?4) AND (?6 IS NULL OR state = ?6) ORDER BY row_number, job_id LIMIT ?5"
        );
        let after_id = after.1.map_or("", JobId::as_str);
        let values: [&dyn ToSql; 6] =
            [&scope.as_str(), &batch.as_str(), &after.0, &after_id, &limit, &only.map(Kind::word)];
        self.all(&select, &values, |columns, name| store::row_from(columns, name))
    }

    pub(super) fn counts(&mut self) -> Result<Vec<BatchCounts>, LedgerError> {
        self.all(COUNTS, &[], |columns, name| {
            store::counts_from(columns).map_err(|reason| store::database(name, reason))
        })
    }

    pub(super) fn same_digest(&mut self, scope: &Scope, digest: &str) -> Result<Vec<String>, LedgerError> {
        let select = "SELECT batch FROM batches WHERE scope = ?1 AND digest = ?2 ORDER BY began_ms";
        self.all(select, &[&scope.as_str(), &digest], |mut columns, name| {
            columns.text().map(Option::unwrap_or_default).map_err(|reason| store::database(name, reason))
        })
    }

    pub(super) fn written_after(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after_ms: i64,
    ) -> Result<WrittenCounts, LedgerError> {
        let select = "SELECT state, count(*) FROM jobs
            WHERE scope = ?1 AND batch = ?2 AND written_ms > ?3 GROUP BY state";
        let mut counts = WrittenCounts::default();
        self.all(select, &[&scope.as_str(), &batch.as_str(), &after_ms], |columns, name| {
            store::count_written(&mut counts, columns).map_err(|reason| store::database(name, reason))
        })?;
        Ok(counts)
    }

    pub(super) fn write_batch(&mut self, batch: &BatchRow) -> Result<(), LedgerError> {
        let insert = "INSERT INTO batches (scope, batch, digest, manifest_rows, began_ms)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (scope, batch) DO UPDATE SET digest = excluded.digest,
                 manifest_rows = excluded.manifest_rows";
        let rows = i64::try_from(batch.rows).unwrap_or(i64::MAX);
        let values = (
            batch.scope.as_str(),
            batch.batch.as_str(),
            batch.digest.as_deref(),
            rows,
            batch.began.unix_ms(),
        );
        self.connection.execute(insert, values).map_err(|error| meaning(&self.name, &error))?;
        Ok(())
    }

    pub(super) fn close(self) {
        // Nothing is pending: every write was committed. Closing folds the write-ahead log into the file.
        let _ = self.connection.close();
    }

    /// Each row of an answer, read.
    fn all<T>(
        &self,
        select: &str,
        values: &[&dyn ToSql],
        mut read: impl FnMut(Answer<'_, '_>, &str) -> Result<T, LedgerError>,
    ) -> Result<Vec<T>, LedgerError> {
        let told = |error: rusqlite::Error| meaning(&self.name, &error);
        let mut statement = self.connection.prepare_cached(select).map_err(told)?;
        let mut rows = statement.query(values).map_err(told)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next().map_err(told)? {
            all.push(read(Answer::of(row), &self.name)?);
        }
        Ok(all)
    }
}

/// SQLite's own form of the address: a URI, whose query (`mode=ro`) it understands itself. An absolute path gets the
/// empty host before it, and a `#`, which would end the path, is a letter like any other.
fn uri_of(url: &str) -> String {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path).replace('#', "%23");
    let host = if path.starts_with('/') { "//" } else { "" };
    format!("file:{host}{path}")
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// A row's values, numbered as in [`UPSERT`] and [`END`].
fn values<'d>(row: &'d store::Document<'_>) -> [&'d dyn ToSql; 19] {
    [
        &row.scope,
        &row.job_id,
        &row.batch,
        &row.row_number,
        &row.row_id,
        &row.fingerprint,
        &row.state,
        &row.generation,
        &row.key_began_ms,
        &row.attempted_ms,
        &row.attempts,
        &row.card_id,
        &row.last4,
        &row.exp_month,
        &row.exp_year,
        &row.error_code,
        &row.error_message,
        &row.request_id,
        &row.written_ms,
    ]
}

/// One row of an answer.
struct Answer<'r, 's> {
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

fn failure(ledger: &str, error: &rusqlite::Error) -> Failure {
    let meaning = meaning(ledger, error);
    let again = if matches!(meaning, LedgerError::Locked(_)) { Again::Later } else { Again::No };
    Failure { meaning, again }
}

/// Says in the operator's terms what an error means.
fn meaning(ledger: &str, error: &rusqlite::Error) -> LedgerError {
    // SQLite's primary result codes (sqlite.org/rescode.html); extended codes keep them in their low byte.
    match error.sqlite_error().map(|error| error.extended_code & 0xff) {
        Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED) => LedgerError::Locked(ledger.into()),
        Some(ffi::SQLITE_READONLY) => LedgerError::ReadOnly(ledger.into()),
        Some(ffi::SQLITE_FULL) => LedgerError::Full(ledger.into()),
        _ => store::database(ledger, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_names_its_file_and_no_other() {
        for (url, uri) in [
            ("sqlite://embosser.db", "file:embosser.db"),
            ("sqlite:embosser.db", "file:embosser.db"),
            ("sqlite://a/b.db?mode=ro", "file:a/b.db?mode=ro"),
            ("sqlite:///var/lib/a.db", "file:///var/lib/a.db"),
            ("sqlite:////var/lib/a.db", "file:////var/lib/a.db"),
            ("sqlite:/var/lib/a%20b.db", "file:///var/lib/a%20b.db"),
        ] {
            assert_eq!(uri_of(url), uri);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a#b.db");
        Sqlite::open(&format!("sqlite://{}", path.display())).unwrap().close();
        assert!(path.exists() && !directory.path().join("a").exists());
    }
}
