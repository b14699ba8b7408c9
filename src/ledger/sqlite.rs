//! The ledger in an SQLite file: the default, for one machine.
//!
//! Write-ahead log with `synchronous=FULL`: every commit is flushed before it returns, and readers never wait for
//! the writer.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row as _};

use super::store::{self, COLUMNS, VERSION};
use super::{Batch, BatchCounts, BatchRow, JobId, Kind, LedgerError, Row, Scope, WrittenCounts};

/// How long another process may hold the file before we give up: longer than any of our own commits.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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

const INSERT: &str =
    "INSERT INTO jobs (scope, job_id, batch, row_number, row_id, fingerprint, state, generation,
        key_began_ms, attempted_ms, attempts, card_id, last4, exp_month, exp_year, error_code, error_message,
        request_id, written_ms) VALUES ";
/// One row of them.
const VALUES: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

// A row that says issued is final: the guard at the end keeps any late writer off it.
const UPDATE: &str =
    " ON CONFLICT (scope, job_id) DO UPDATE SET batch = excluded.batch, row_number = excluded.row_number,
        row_id = excluded.row_id, fingerprint = excluded.fingerprint, state = excluded.state,
        generation = excluded.generation, key_began_ms = excluded.key_began_ms,
        attempted_ms = excluded.attempted_ms, attempts = excluded.attempts, card_id = excluded.card_id,
        last4 = excluded.last4, exp_month = excluded.exp_month, exp_year = excluded.exp_year,
        error_code = excluded.error_code, error_message = excluded.error_message,
        request_id = excluded.request_id, written_ms = excluded.written_ms
    WHERE jobs.state <> 'issued'";

/// Rows in one statement: a group of any size is a few of these, which stay prepared. (A JSON document with all rows, as
/// PostgreSQL gets it, costs SQLite three times as much to unpack.)
const ROWS_AT_ONCE: [usize; 4] = [64, 16, 4, 1];

const COUNTS: &str = "SELECT coalesce(b.scope, j.scope) AS scope, coalesce(b.batch, j.batch) AS batch,
        b.manifest_rows AS manifest_rows, j.issued AS issued, j.refused AS refused, j.unresolved AS unresolved,
        j.latest_ms AS latest_ms
    FROM (SELECT scope, batch, sum(state = 'issued') AS issued, sum(state = 'refused') AS refused,
            sum(state = 'begun') AS unresolved, max(written_ms) AS latest_ms FROM jobs GROUP BY scope, batch) j
        FULL OUTER JOIN batches b ON b.scope = j.scope AND b.batch = j.batch
    ORDER BY coalesce(j.latest_ms, b.began_ms) DESC";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

/// A row's values, in the order of [`INSERT`].
fn bound<'q>(query: Query<'q>, row: store::Document<'q>) -> Query<'q> {
    query
        .bind(row.scope)
        .bind(row.job_id)
        .bind(row.batch)
        .bind(row.row_number)
        .bind(row.row_id)
        .bind(row.fingerprint)
        .bind(row.state)
        .bind(row.generation)
        .bind(row.key_began_ms)
        .bind(row.attempted_ms)
        .bind(row.attempts)
        .bind(row.card_id)
        .bind(row.last4)
        .bind(row.exp_month)
        .bind(row.exp_year)
        .bind(row.error_code)
        .bind(row.error_message)
        .bind(row.request_id)
        .bind(row.written_ms)
}

/// A connection to the ledger's file.
pub(super) struct Sqlite {
    connection: SqliteConnection,
    name: String,
    /// One for each of [`ROWS_AT_ONCE`].
    writes: [Arc<str>; ROWS_AT_ONCE.len()],
    look_ups: [Arc<str>; ROWS_AT_ONCE.len()],
}

impl Sqlite {
    /// Opens the file, making it and its tables where they are missing.
    pub(super) async fn open(url: &str) -> Result<Self, LedgerError> {
        let name = url.to_owned();
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| LedgerError::Address { url: name.clone(), reason: error.to_string() })?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let connection = options.connect().await.map_err(|error| store::meaning(&name, &error))?;
        let list = |item: &str, rows: usize| vec![item; rows].join(", ");
        let writes = ROWS_AT_ONCE.map(|rows| format!("{INSERT}{}{UPDATE}", list(VALUES, rows)).into());
        let look_ups = ROWS_AT_ONCE.map(|rows| {
            let wanted = list("(?, ?)", rows);
            format!(
                "WITH wanted (scope, job_id) AS (VALUES {wanted}) SELECT {COLUMNS} FROM wanted
                 JOIN jobs ON jobs.scope = wanted.scope AND jobs.job_id = wanted.job_id"
            )
            .into()
        });
        let mut sqlite = Self { connection, name, writes, look_ups };
        sqlite.migrate().await?;
        Ok(sqlite)
    }

    async fn migrate(&mut self) -> Result<(), LedgerError> {
        let name = self.name.clone();
        let meaning = |error: sqlx::Error| store::meaning(&name, &error);
        let found = self.version().await.map_err(meaning)?;
        if found > VERSION {
            return Err(LedgerError::Newer { ledger: name, found, known: VERSION });
        }
        if found == VERSION {
            return Ok(());
        }
        // IMMEDIATE, and asked again inside: of two processes that start at once, the second finds the tables made.
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await.map_err(meaning)?;
        let found: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *transaction).await.map_err(meaning)?;
        if found < VERSION {
            for statement in SCHEMA {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(meaning)?;
            }
            sqlx::query("PRAGMA user_version = 1").execute(&mut *transaction).await.map_err(meaning)?;
        }
        transaction.commit().await.map_err(meaning)
    }

    async fn version(&mut self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut self.connection).await
    }

    pub(super) async fn write(&mut self, rows: &[&Row]) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        let mut rest = rows;
        for (statement, at_once) in self.writes.iter().zip(ROWS_AT_ONCE) {
            while rest.len() >= at_once {
                let (now, later) = rest.split_at(at_once);
                rest = later;
                let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.clone()));
                for row in now {
                    query = bound(query, store::document(row));
                }
                query.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await
    }

    pub(super) async fn look_up(&mut self, keys: &[(&Scope, &JobId)]) -> Result<Vec<Row>, LedgerError> {
        let mut found = Vec::new();
        let mut rest = keys;
        for (statement, at_once) in self.look_ups.iter().zip(ROWS_AT_ONCE) {
            while rest.len() >= at_once {
                let (now, later) = rest.split_at(at_once);
                rest = later;
                let mut query = sqlx::query(sqlx::AssertSqlSafe(statement.clone()));
                for (scope, id) in now {
                    query = query.bind(scope.as_str()).bind(id.as_str());
                }
                let raw = query.fetch_all(&mut self.connection).await;
                let raw = raw.map_err(|error| store::meaning(&self.name, &error))?;
                for raw in &raw {
                    found.push(store::row_from(raw, &self.name)?);
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn batch_page(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after: (i64, Option<&JobId>),
        only: Option<Kind>,
        limit: i64,
    ) -> Result<Vec<Row>, LedgerError> {
        let select = format!(
            "SELECT {COLUMNS} FROM jobs WHERE scope = $1 AND batch = $2
             AND (row_number, job_id) > ($3, $4) AND ($6 IS NULL OR state = $6) ORDER BY row_number, job_id LIMIT $5"
        );
        let raw = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(scope.as_str())
            .bind(batch.as_str())
            .bind(after.0)
            .bind(after.1.map_or("", JobId::as_str))
            .bind(limit)
            .bind(only.map(Kind::word))
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| store::meaning(&self.name, &error))?;
        raw.iter().map(|raw| store::row_from(raw, &self.name)).collect()
    }

    pub(super) async fn counts(&mut self) -> Result<Vec<BatchCounts>, sqlx::Error> {
        let raw = sqlx::query(COUNTS).fetch_all(&mut self.connection).await?;
        raw.iter().map(store::counts_from).collect()
    }

    pub(super) async fn same_digest(
        &mut self,
        scope: &Scope,
        digest: &str,
    ) -> Result<Vec<String>, sqlx::Error> {
        let raw = sqlx::query("SELECT batch FROM batches WHERE scope = $1 AND digest = $2 ORDER BY began_ms")
            .bind(scope.as_str())
            .bind(digest)
            .fetch_all(&mut self.connection)
            .await?;
        raw.iter().map(|raw| raw.try_get("batch")).collect()
    }

    pub(super) async fn written_after(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after_ms: i64,
    ) -> Result<WrittenCounts, sqlx::Error> {
        let select = "SELECT state, count(*) AS rows FROM jobs
            WHERE scope = $1 AND batch = $2 AND written_ms > $3 GROUP BY state";
        let raw = sqlx::query(select)
            .bind(scope.as_str())
            .bind(batch.as_str())
            .bind(after_ms)
            .fetch_all(&mut self.connection)
            .await?;
        store::written_from(&raw)
    }

    pub(super) async fn write_batch(&mut self, batch: &BatchRow) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO batches (scope, batch, digest, manifest_rows, began_ms) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (scope, batch) DO UPDATE SET digest = excluded.digest,
                 manifest_rows = excluded.manifest_rows",
        )
        .bind(batch.scope.as_str())
        .bind(batch.batch.as_str())
        .bind(batch.digest.as_deref())
        .bind(i64::try_from(batch.rows).unwrap_or(i64::MAX))
        .bind(batch.began.unix_ms())
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    pub(super) async fn close(self) {
        // Nothing is pending: every write was committed. Closing folds the write-ahead log into the file.
        let _ = self.connection.close().await;
    }
}
