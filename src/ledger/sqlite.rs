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

// A row that says issued is final: the guard at the end keeps any late writer off it.
const WRITE: &str =
    "INSERT INTO jobs (scope, job_id, batch, row_number, row_id, fingerprint, state, generation,
        key_began_ms, attempted_ms, attempts, card_id, last4, exp_month, exp_year, error_code, error_message,
        request_id, written_ms)
    SELECT value->>'scope', value->>'job_id', value->>'batch', value->>'row_number', value->>'row_id',
        value->>'fingerprint', value->>'state', value->>'generation', value->>'key_began_ms',
        value->>'attempted_ms', value->>'attempts', value->>'card_id', value->>'last4', value->>'exp_month',
        value->>'exp_year', value->>'error_code', value->>'error_message', value->>'request_id',
        value->>'written_ms'
    FROM json_each($1) WHERE true
    ON CONFLICT (scope, job_id) DO UPDATE SET batch = excluded.batch, row_number = excluded.row_number,
        row_id = excluded.row_id, fingerprint = excluded.fingerprint, state = excluded.state,
        generation = excluded.generation, key_began_ms = excluded.key_began_ms,
        attempted_ms = excluded.attempted_ms, attempts = excluded.attempts, card_id = excluded.card_id,
        last4 = excluded.last4, exp_month = excluded.exp_month, exp_year = excluded.exp_year,
        error_code = excluded.error_code, error_message = excluded.error_message,
        request_id = excluded.request_id, written_ms = excluded.written_ms
    WHERE jobs.state <> 'issued'";

const COUNTS: &str = "SELECT coalesce(b.scope, j.scope) AS scope, coalesce(b.batch, j.batch) AS batch,
        b.manifest_rows AS manifest_rows, j.issued AS issued, j.refused AS refused, j.unresolved AS unresolved,
        j.latest_ms AS latest_ms
    FROM (SELECT scope, batch, sum(state = 'issued') AS issued, sum(state = 'refused') AS refused,
            sum(state = 'begun') AS unresolved, max(written_ms) AS latest_ms FROM jobs GROUP BY scope, batch) j
        FULL OUTER JOIN batches b ON b.scope = j.scope AND b.batch = j.batch
    ORDER BY coalesce(j.latest_ms, b.began_ms) DESC";

/// A connection to the ledger's file.
pub(super) struct Sqlite {
    connection: SqliteConnection,
    name: String,
    look_up_statement: Arc<str>,
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
        let look_up_statement = format!(
            "SELECT {COLUMNS} FROM json_each($1) AS wanted
             JOIN jobs ON jobs.scope = wanted.value->>0 AND jobs.job_id = wanted.value->>1"
        );
        let mut sqlite = Self { connection, name, look_up_statement: look_up_statement.into() };
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

    pub(super) async fn write(&mut self, document: &str) -> Result<(), sqlx::Error> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(WRITE).bind(document).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    pub(super) async fn look_up(&mut self, document: &str) -> Result<Vec<Row>, LedgerError> {
        let raw = sqlx::query(sqlx::AssertSqlSafe(self.look_up_statement.clone()))
            .bind(document)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| store::meaning(&self.name, &error))?;
        raw.iter().map(|raw| store::row_from(raw, &self.name)).collect()
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
