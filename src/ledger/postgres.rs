//! The ledger in PostgreSQL: for workers on several machines.
//!
//! The same table and the same rules as in SQLite; a group travels as one `json_to_recordset` statement.

use std::collections::HashMap;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection, Row as _};

use super::group::display_name;
use super::store::{self, Again, COLUMNS, Columns, Failure, VERSION};
use super::{Batch, BatchCounts, BatchRow, JobId, Kind, LedgerError, Row, Scope, WrittenCounts};

/// Serialises migrations of workers that start together; any number that no other program of the database uses.
const MIGRATION_LOCK: i64 = 0x656d_626f_7373;

const SCHEMA: [&str; 3] = [
    "CREATE TABLE jobs (
        scope TEXT NOT NULL, job_id TEXT NOT NULL, batch TEXT NOT NULL, row_number BIGINT NOT NULL, row_id TEXT,
        fingerprint TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('begun', 'issued', 'refused')),
        generation BIGINT NOT NULL, key_began_ms BIGINT, attempted_ms BIGINT, attempts BIGINT NOT NULL,
        card_id TEXT, last4 TEXT, exp_month BIGINT, exp_year BIGINT,
        error_code TEXT, error_message TEXT, request_id TEXT, written_ms BIGINT NOT NULL,
        PRIMARY KEY (scope, job_id))",
    "CREATE INDEX jobs_by_batch ON jobs (scope, batch, row_number, job_id COLLATE \"C\")",
    "CREATE TABLE batches (
        scope TEXT NOT NULL, batch TEXT NOT NULL, digest TEXT, manifest_rows BIGINT NOT NULL,
        began_ms BIGINT NOT NULL, PRIMARY KEY (scope, batch))",
];

// A row that says issued is final: the guard at the end keeps any late writer off it.
const WRITE: &str = "INSERT INTO jobs (scope, job_id, batch, row_number, row_id, fingerprint, state, generation,
        key_began_ms, attempted_ms, attempts, card_id, last4, exp_month, exp_year, error_code, error_message,
        request_id, written_ms)
    SELECT scope, job_id, batch, row_number, row_id, fingerprint, state, generation, key_began_ms, attempted_ms,
        attempts, card_id, last4, exp_month, exp_year, error_code, error_message, request_id, written_ms
    FROM json_to_recordset($1::json) AS written (scope TEXT, job_id TEXT, batch TEXT, row_number BIGINT,
        row_id TEXT, fingerprint TEXT, state TEXT, generation BIGINT, key_began_ms BIGINT, attempted_ms BIGINT,
        attempts BIGINT, card_id TEXT, last4 TEXT, exp_month BIGINT, exp_year BIGINT, error_code TEXT,
        error_message TEXT, request_id TEXT, written_ms BIGINT)
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
    FROM (SELECT scope, batch, count(*) FILTER (WHERE state = 'issued') AS issued,
            count(*) FILTER (WHERE state = 'refused') AS refused,
            count(*) FILTER (WHERE state = 'begun') AS unresolved, max(written_ms) AS latest_ms
          FROM jobs GROUP BY scope, batch) j
        FULL OUTER JOIN batches b ON b.scope = j.scope AND b.batch = j.batch
    ORDER BY coalesce(j.latest_ms, b.began_ms) DESC";

/// A connection to the ledger's database.
pub(super) struct Postgres {
    connection: PgConnection,
    name: String,
}

impl Postgres {
    /// Connects, making the tables where they are missing.
    pub(super) async fn open(url: &str) -> Result<Self, LedgerError> {
        let name = display_name(url);
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| LedgerError::Address { url: name.clone(), reason: error.to_string() })?
            .application_name("embosser")
            .disable_statement_logging();
        let connection = options.connect().await.map_err(|error| meaning(&name, &error))?;
        let mut postgres = Self { connection, name };
        postgres.migrate().await?;
        Ok(postgres)
    }

    async fn migrate(&mut self) -> Result<(), LedgerError> {
        let name = self.name.clone();
        let told = |error: sqlx::Error| meaning(&name, &error);
        let mut transaction = self.connection.begin().await.map_err(told)?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(told)?;
        sqlx::query("CREATE TABLE IF NOT EXISTS embosser_ledger (version BIGINT NOT NULL)")
            .execute(&mut *transaction)
            .await
            .map_err(told)?;
        let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM embosser_ledger")
            .fetch_one(&mut *transaction)
            .await
            .map_err(told)?;
        let found = found.unwrap_or(0);
        if found > VERSION {
            return Err(LedgerError::Newer { ledger: name, found, known: VERSION });
        }
        if found < VERSION {
            for statement in SCHEMA {
                sqlx::query(statement).execute(&mut *transaction).await.map_err(told)?;
            }
            sqlx::query("INSERT INTO embosser_ledger (version) VALUES ($1)")
                .bind(VERSION)
                .execute(&mut *transaction)
                .await
                .map_err(told)?;
        }
        transaction.commit().await.map_err(told)
    }

    pub(super) async fn write(&mut self, rows: &[&Row]) -> Result<(), Failure> {
        let documents: Vec<store::Document<'_>> = latest_of_each(rows).map(store::document).collect();
        let document = serde_json::to_string(&documents).expect("strings and integers always serialise");
        let written = sqlx::query(WRITE).bind(document).execute(&mut self.connection).await;
        written.map(|_| ()).map_err(|error| failure(&self.name, &error))
    }

    pub(super) async fn look_up(
        &mut self,
        wanted: &[(&Scope, &JobId)],
    ) -> Result<Vec<Option<Row>>, LedgerError> {
        let keys: Vec<[&str; 2]> = wanted.iter().map(|(scope, id)| [scope.as_str(), id.as_str()]).collect();
        let document = serde_json::to_string(&keys).expect("strings always serialise");
        let select = format!(
            "SELECT {COLUMNS} FROM json_array_elements($1::json) AS wanted
             JOIN jobs ON jobs.scope = wanted->>0 AND jobs.job_id = wanted->>1"
        );
        let raw = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(document)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| meaning(&self.name, &error))?;
        let mut found: HashMap<(Scope, JobId), Row> = HashMap::with_capacity(raw.len());
        for row in &raw {
            let row = store::row_from(Answer { row, next: 0 }, &self.name)?;
            found.insert((row.scope.clone(), row.id.clone()), row);
        }
        let of = |(scope, id): &(&Scope, &JobId)| found.get(&((*scope).clone(), (*id).clone())).cloned();
        Ok(wanted.iter().map(of).collect())
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
             AND (row_number, job_id COLLATE \"C\") > ($3, $4) AND ($6::text IS NULL OR state = $6)
             ORDER BY row_number, job_id COLLATE \"C\" LIMIT $5"
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
            .map_err(|error| meaning(&self.name, &error))?;
        raw.iter().map(|row| store::row_from(Answer { row, next: 0 }, &self.name)).collect()
    }

    pub(super) async fn counts(&mut self) -> Result<Vec<BatchCounts>, LedgerError> {
        let raw = sqlx::query(COUNTS).fetch_all(&mut self.connection).await;
        let raw = raw.map_err(|error| meaning(&self.name, &error))?;
        let read = |row| store::counts_from(Answer { row, next: 0 });
        raw.iter().map(read).collect::<Result<_, _>>().map_err(|reason| store::database(&self.name, reason))
    }

    pub(super) async fn same_digest(
        &mut self,
        scope: &Scope,
        digest: &str,
    ) -> Result<Vec<String>, LedgerError> {
        let select = "SELECT batch FROM batches WHERE scope = $1 AND digest = $2 ORDER BY began_ms";
        let same = sqlx::query_scalar(select).bind(scope.as_str()).bind(digest);
        same.fetch_all(&mut self.connection).await.map_err(|error| meaning(&self.name, &error))
    }

    pub(super) async fn written_after(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after_ms: i64,
    ) -> Result<WrittenCounts, LedgerError> {
        let select = "SELECT state, count(*) FROM jobs
            WHERE scope = $1 AND batch = $2 AND written_ms > $3 GROUP BY state";
        let raw = sqlx::query(select)
            .bind(scope.as_str())
            .bind(batch.as_str())
            .bind(after_ms)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| meaning(&self.name, &error))?;
        let mut counts = WrittenCounts::default();
        for row in &raw {
            store::count_written(&mut counts, Answer { row, next: 0 })
                .map_err(|reason| store::database(&self.name, reason))?;
        }
        Ok(counts)
    }

    pub(super) async fn write_batch(&mut self, batch: &BatchRow) -> Result<(), LedgerError> {
        let written = sqlx::query(
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
        .await;
        written.map(|_| ()).map_err(|error| meaning(&self.name, &error))
    }

    pub(super) async fn close(self) {
        // Nothing is pending: every write was committed before its caller was told.
        let _ = self.connection.close().await;
    }
}

/// A job's latest row only: one statement may not touch a row twice. A job writes twice into one group if whoever
/// waited for its first write was cancelled.
fn latest_of_each<'r>(rows: &[&'r Row]) -> impl Iterator<Item = &'r Row> {
    let latest: HashMap<(&Scope, &JobId), usize> =
        rows.iter().enumerate().map(|(index, row)| ((&row.scope, &row.id), index)).collect();
    let numbered = rows.iter().enumerate();
    numbered.filter(move |(index, row)| latest[&(&row.scope, &row.id)] == *index).map(|(_, row)| *row)
}

/// One row of an answer.
struct Answer<'r> {
    row: &'r PgRow,
    next: usize,
}

impl Answer<'_> {
    fn value<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
        &'r mut self,
    ) -> Result<Option<T>, String> {
        self.next += 1;
        self.row.try_get(self.next - 1).map_err(|error| error.to_string())
    }
}

impl Columns for Answer<'_> {
    fn text(&mut self) -> Result<Option<String>, String> {
        self.value()
    }

    fn number(&mut self) -> Result<Option<i64>, String> {
        self.value()
    }
}

fn failure(ledger: &str, error: &sqlx::Error) -> Failure {
    let meaning = meaning(ledger, error);
    // Class 57P: the server is shutting down, or was (PostgreSQL's appendix A).
    let restarts = matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code.starts_with("57P")));
    let lost = matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_));
    let again = match &meaning {
        LedgerError::Locked(_) => Again::Later,
        _ if restarts || lost => Again::Anew,
        _ => Again::No,
    };
    Failure { meaning, again }
}

/// Says in the operator's terms what an error means, by its SQLSTATE.
fn meaning(ledger: &str, error: &sqlx::Error) -> LedgerError {
    match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("25006") => LedgerError::ReadOnly(ledger.into()),
        Some("53100") => LedgerError::Full(ledger.into()),
        Some("55P03") => LedgerError::Locked(ledger.into()),
        _ => store::database(ledger, error.to_string()),
    }
}
