//! The ledger in PostgreSQL: for workers on several machines.
//!
//! The same table and the same rules as in SQLite; a group travels as one `json_to_recordset` statement.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row as _};

use super::address::Needs;
use super::audit::postgres as audit;
use super::database::{MIGRATION_MAX, Opening, in_time};
use super::migration::settings;
use super::schema;
use super::select::{self, Sql};
use super::servers::{Backend, Servers, Session, Work, end_lost};
pub(super) use super::sqlstate::meaning;
use super::store::{self, COLUMNS, Change, Columns, Commit, Written};
use super::timeline::Timeline;
use super::{Batch, BatchCounts, JobId, LedgerError, Only, Row, SameContent, Scope, Step};
use crate::job::Content;

/// Under which name the database's own identity stands: another one is another ledger.
pub(super) const IDENTITY: &str = "identity";

pub(super) const SET_METADATA: &str = "INSERT INTO metadata (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";

/// Writes rows, each if the one that is there has the version before; answers which were written. A row that says
/// issued is final, whoever writes.
const WRITE: &str = "WITH wanted AS (SELECT * FROM json_to_recordset($1::json) AS written (scope TEXT, job_id TEXT,
        step TEXT, version BIGINT, batch TEXT, row_number BIGINT, row_id TEXT, content TEXT, pin TEXT, state TEXT,
        generation BIGINT, key_began_ms BIGINT, attempted_ms BIGINT, attempts BIGINT, output TEXT, error_code TEXT,
        error_message TEXT, request_id TEXT, note TEXT, written_ms BIGINT)),
    changed AS (UPDATE steps SET version = wanted.version, batch = wanted.batch, row_number = wanted.row_number,
        row_id = wanted.row_id, content = wanted.content, pin = wanted.pin, state = wanted.state,
        generation = wanted.generation, key_began_ms = wanted.key_began_ms, attempted_ms = wanted.attempted_ms,
        attempts = wanted.attempts, output = wanted.output, error_code = wanted.error_code,
        error_message = wanted.error_message, request_id = wanted.request_id, note = wanted.note,
        written_ms = wanted.written_ms
        FROM wanted WHERE wanted.version > 1 AND steps.scope = wanted.scope AND steps.job_id = wanted.job_id
            AND steps.step = wanted.step AND steps.version = wanted.version - 1 AND steps.state <> 'done'
        RETURNING steps.scope, steps.job_id, steps.step),
    made AS (INSERT INTO steps (scope, job_id, step, version, batch, row_number, row_id, content, pin, state,
            generation, key_began_ms, attempted_ms, attempts, output, error_code, error_message, request_id, note,
            written_ms)
        SELECT scope, job_id, step, version, batch, row_number, row_id, content, pin, state, generation,
            key_began_ms, attempted_ms, attempts, output, error_code, error_message, request_id, note, written_ms
        FROM wanted WHERE version = 1 AND (step LIKE 'first:%' OR NOT EXISTS (SELECT 1 FROM steps AS other
            WHERE other.scope = wanted.scope AND other.job_id = wanted.job_id AND other.step <> wanted.step
            AND other.step NOT LIKE 'first:%'))
        ON CONFLICT (scope, job_id, step) DO NOTHING RETURNING scope, job_id, step)
    SELECT scope, job_id, step FROM changed UNION ALL SELECT scope, job_id, step FROM made";

const COUNTS: &str = "SELECT coalesce(b.scope, j.scope) AS scope, coalesce(b.batch, j.batch) AS batch,
        b.manifest_rows AS manifest_rows, j.issued AS issued, j.refused AS refused, j.cancelled AS cancelled,
        j.unresolved AS unresolved, j.awaiting AS awaiting, j.noted AS noted, j.latest_ms AS latest_ms, b.digest AS digest,
        b.began_ms AS began_ms
    FROM (SELECT scope, batch, count(*) FILTER (WHERE state = 'done') AS issued,
            count(*) FILTER (WHERE state = 'refused' AND error_code IS DISTINCT FROM 'awaiting_pin') AS refused,
            count(*) FILTER (WHERE state = 'refused' AND error_code = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE state = 'refused' AND error_code = 'awaiting_pin') AS awaiting,
            count(*) FILTER (WHERE state = 'begun') AS unresolved, count(note) AS noted, max(written_ms) AS latest_ms
          FROM steps WHERE step NOT LIKE 'first:%' GROUP BY scope, batch) j
        FULL OUTER JOIN batches b ON b.scope = j.scope AND b.batch = j.batch
    ORDER BY coalesce(j.latest_ms, b.began_ms) DESC";

/// A connection to the ledger's database.
pub(super) struct Postgres {
    connection: PgConnection,
    backend: Backend,
    timeline: Timeline,
    name: String,
    identity: String,
    needs: Needs,
    work: Work,
}

/// What is known of a connection that was lost.
pub(super) struct Lost {
    backend: Backend,
    identity: String,
    needs: Needs,
    work: Work,
}

impl Postgres {
    /// The connection, and the ledger's name for errors.
    pub(super) fn parts(&mut self) -> (&mut PgConnection, &str) {
        (&mut self.connection, &self.name)
    }

    /// Longest that one of its answers is waited for.
    pub(super) fn answer_max(&self) -> Duration {
        self.work.answer_max()
    }

    /// Begins a session, without a look at its tables.
    pub(super) async fn connect(servers: &Servers, needs: Needs, work: Work) -> Result<Self, LedgerError> {
        let Session { connection, backend, timeline } = servers.connect(needs, work).await?;
        let (name, identity) = (servers.name().to_owned(), String::new());
        Ok(Self { connection, backend, timeline, name, identity, needs, work })
    }

    /// Makes the tables where they are missing, if that is wanted.
    pub(super) async fn begin(&mut self, opening: Opening) -> Result<(), LedgerError> {
        let found = in_time(&self.name.clone(), self.answer_max(), self.found(opening)).await?;
        if opening.migrates(found.version, found.read_by, &self.name)?
            || opening == Opening::Making && !found.is_indexed
        {
            in_time(&self.name.clone(), MIGRATION_MAX, self.migrate()).await?;
        }
        let identity = in_time(&self.name.clone(), self.answer_max(), self.metadata(IDENTITY)).await?;
        self.identity = identity.unwrap_or_default();
        Ok(())
    }

    /// What must be known of a connection that is of no more use.
    pub(super) fn lose(self) -> Lost {
        let Self { backend, identity, needs, work, .. } = self;
        Lost { backend, identity, needs, work }
    }

    /// Connects again, to the same database, once what the lost session may still execute is ended.
    pub(super) async fn open_again(servers: &Servers, lost: &Lost) -> Result<Self, LedgerError> {
        let mut again = Self::connect(servers, lost.needs, lost.work).await?;
        end_lost(&mut again.connection, &lost.backend, servers.name()).await?;
        again.begin(Opening::Existing).await?;
        if again.identity != lost.identity {
            return Err(LedgerError::Replaced(again.name));
        }
        Ok(again)
    }

    /// The number by which the server knows this session; none if it does not tell.
    pub(super) async fn pid(&mut self) -> Result<i32, LedgerError> {
        let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(&mut self.connection).await;
        let to_error = |error: sqlx::Error| meaning(&self.name, &error);
        row.map_err(to_error)?.try_get(0).map_err(to_error)
    }

    /// Whether its server is the primary still, as far as any of the ledger's sessions knows.
    pub(super) fn check_timeline(&self) -> Result<(), LedgerError> {
        self.timeline.check(&self.name)
    }

    /// Whether it answers, and still is what is needed of it.
    pub(super) async fn ping(&mut self) -> Result<(), LedgerError> {
        let to_error = |error: sqlx::Error| meaning(&self.name, &error);
        let look = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
        let found: (bool, bool) =
            sqlx::query_as(look).fetch_one(&mut self.connection).await.map_err(to_error)?;
        match (self.needs, found) {
            (Needs::Primary, (true, _)) | (Needs::Writable, (true, _) | (_, true)) => {
                Err(LedgerError::ReadOnly(self.name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Rows in rounds of one statement, which may not touch a row twice; then what else there is.
    pub(super) async fn write(
        &mut self,
        changes: &[&Change],
        commit: Commit,
    ) -> Result<Vec<Written>, LedgerError> {
        let mut all: Vec<Option<Written>> = vec![None; changes.len()];
        let mut left: Vec<usize> = (0..changes.len()).collect();
        while !left.is_empty() {
            let mut round: Vec<(usize, &Row)> = Vec::new();
            let mut keys = HashSet::new();
            let mut later = Vec::new();
            for index in left {
                match changes[index] {
                    Change::Step { row, .. } if keys.insert((&row.scope, &row.id, row.step)) => {
                        round.push((index, row));
                    }
                    Change::Step { .. } => later.push(index),
                    Change::Swap { name, known, value } => {
                        let swapped = self.swap(name, known.as_ref(), value.as_ref(), commit).await;
                        all[index] = Some(swapped.map_err(|error| meaning(&self.name, &error))?);
                    }
                    other => {
                        self.write_other(other).await.map_err(|error| meaning(&self.name, &error))?;
                        all[index] = Some(Written::Done);
                    }
                }
            }
            self.write_round(&round, &mut all, commit).await?;
            left = later;
        }
        if commit == Commit::Again {
            // What is found written may not have reached the standby before its answer was lost. The log is one: what is committed
            // after it, and was waited for, did.
            let set = sqlx::query(SET_METADATA).bind("probe").bind("1").execute(&mut self.connection).await;
            set.map_err(|error| meaning(&self.name, &error))?;
        }
        Ok(all.into_iter().map(|written| written.unwrap_or(Written::Changed(None))).collect())
    }

    async fn write_round(
        &mut self,
        round: &[(usize, &Row)],
        all: &mut [Option<Written>],
        commit: Commit,
    ) -> Result<(), LedgerError> {
        if round.is_empty() {
            return Ok(());
        }
        let documents: Vec<store::Document<'_>> = round.iter().map(|(_, row)| store::document(row)).collect();
        let document = serde_json::to_string(&documents).expect("strings and integers always serialise");
        let written = sqlx::query_as::<_, (String, String, String)>(WRITE)
            .bind(document)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| meaning(&self.name, &error))?;
        let written: HashSet<(&str, &str, &str)> =
            written.iter().map(|(scope, id, step)| (scope.as_str(), id.as_str(), step.as_str())).collect();
        let is_written =
            |row: &Row| written.contains(&(row.scope.as_str(), row.id.as_str(), row.step.word()));
        let unwritten: Vec<&(usize, &Row)> = round.iter().filter(|(_, row)| !is_written(row)).collect();
        for (index, row) in round {
            if is_written(row) {
                all[*index] = Some(Written::Done);
            }
        }
        if !unwritten.is_empty() {
            let keys: Vec<_> = unwritten.iter().map(|(_, row)| (&row.scope, &row.id, row.step)).collect();
            let found = self.look_up(&keys).await?;
            for ((index, row), found) in unwritten.into_iter().zip(found) {
                all[*index] = Some(Written::of_found(row, found, commit));
            }
        }
        Ok(())
    }

    async fn swap(
        &mut self,
        name: &str,
        known: Option<&String>,
        value: Option<&String>,
        commit: Commit,
    ) -> Result<Written, sqlx::Error> {
        let changed = match (known, value) {
            (None, Some(value)) => {
                let insert =
                    "INSERT INTO metadata (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
                sqlx::query(insert).bind(name).bind(value).execute(&mut self.connection).await?
            }
            (Some(known), Some(value)) => {
                let update = "UPDATE metadata SET value = $3 WHERE name = $1 AND value = $2";
                let update = sqlx::query(update).bind(name).bind(known).bind(value);
                update.execute(&mut self.connection).await?
            }
            (Some(known), None) => {
                let delete = "DELETE FROM metadata WHERE name = $1 AND value = $2";
                sqlx::query(delete).bind(name).bind(known).execute(&mut self.connection).await?
            }
            (None, None) => return Ok(Written::Done),
        };
        if changed.rows_affected() > 0 {
            return Ok(Written::Done);
        }
        let found = sqlx::query_scalar("SELECT value FROM metadata WHERE name = $1").bind(name);
        Ok(Written::of_value(value, found.fetch_optional(&mut self.connection).await?, commit))
    }

    async fn write_other(&mut self, change: &Change) -> Result<(), sqlx::Error> {
        match change {
            Change::Step { .. } | Change::Swap { .. } | Change::Close => Ok(()),
            Change::Audit { entry, key } => audit::add(&mut self.connection, entry, key).await,
            Change::Note { scope, id, step, note } => {
                let update = "UPDATE steps SET note = $4 WHERE scope = $1 AND job_id = $2 AND step = $3";
                let update = sqlx::query(update).bind(scope.as_str()).bind(id.as_str()).bind(step.word());
                update.bind(note).execute(&mut self.connection).await.map(|_| ())
            }
            Change::Metadata { name, value } => {
                sqlx::query(SET_METADATA).bind(name).bind(value).execute(&mut self.connection).await.map(|_| ())
            }
            Change::Probe => {
                let mut transaction = self.connection.begin().await?;
                for statement in schema::PROBE {
                    sqlx::query(statement).execute(&mut *transaction).await?;
                }
                transaction.rollback().await?;
                // So that there is something to commit.
                sqlx::query(SET_METADATA).bind("probe").bind("1").execute(&mut self.connection).await.map(|_| ())
            }
            Change::Batch(batch) => sqlx::query(
                "INSERT INTO batches (scope, batch, digest, manifest_rows, began_ms) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (scope, batch) DO UPDATE SET digest = coalesce(excluded.digest, batches.digest),
                     manifest_rows = excluded.manifest_rows",
            )
            .bind(batch.scope.as_str())
            .bind(batch.batch.as_str())
            .bind(batch.digest.as_deref())
            .bind(i64::try_from(batch.rows).unwrap_or(i64::MAX))
            .bind(batch.began.unix_ms())
            .execute(&mut self.connection)
            .await
            .map(|_| ()),
            Change::RenameScope { from, to } => {
                let mut transaction = self.connection.begin().await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(settings(MIGRATION_MAX))).execute(&mut *transaction).await?;
                for update in [
                    "UPDATE steps SET scope = $2 WHERE scope = $1 AND NOT EXISTS (SELECT 1 FROM steps AS other
                        WHERE other.scope = $2 AND other.job_id = steps.job_id AND other.step = steps.step)",
                    "UPDATE batches SET scope = $2 WHERE scope = $1 AND NOT EXISTS (SELECT 1 FROM batches AS other
                        WHERE other.scope = $2 AND other.batch = batches.batch)",
                ] {
                    let update = sqlx::query(update).bind(from.as_str()).bind(to.as_str());
                    update.execute(&mut *transaction).await?;
                }
                for (from, to) in store::renamed_names(from, to) {
                    let update = "UPDATE metadata SET name = $2 || substr(name, length($1) + 1)
                        WHERE substr(name, 1, length($1)) = $1 AND NOT EXISTS (SELECT 1 FROM metadata AS other
                            WHERE other.name = $2 || substr(metadata.name, length($1) + 1))";
                    sqlx::query(update).bind(from).bind(to).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }
        }
    }

    pub(super) async fn look_up(
        &mut self,
        wanted: &[(&Scope, &JobId, Step)],
    ) -> Result<Vec<Option<Row>>, LedgerError> {
        let keys: Vec<[&str; 3]> =
            wanted.iter().map(|(scope, id, step)| [scope.as_str(), id.as_str(), step.word()]).collect();
        let document = serde_json::to_string(&keys).expect("strings always serialise");
        let select = format!(
            "SELECT {COLUMNS} FROM json_array_elements($1::json) AS wanted
             JOIN steps ON steps.scope = wanted->>0 AND steps.job_id = wanted->>1 AND (steps.step = wanted->>2
             OR wanted->>2 NOT LIKE 'first:%' AND steps.step NOT LIKE 'first:%')"
        );
        let raw = sqlx::query(sqlx::AssertSqlSafe(select))
            .bind(document)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| meaning(&self.name, &error))?;
        let mut found: HashMap<(Scope, JobId, Step), Row> = HashMap::with_capacity(raw.len());
        for row in &raw {
            let row = store::row_from(Answer::of(row), &self.name)?;
            found.insert((row.scope.clone(), row.id.clone(), row.step), row);
        }
        let of = |(scope, id, step): &(&Scope, &JobId, Step)| {
            let of_step = |step| found.get(&((*scope).clone(), (*id).clone(), step));
            let others = || Step::every().filter(|other| step.is_last() && other.is_last());
            of_step(*step).or_else(|| others().find_map(of_step)).cloned()
        };
        Ok(wanted.iter().map(of).collect())
    }

    pub(super) async fn same_content(
        &mut self,
        scope: &Scope,
        contents: &[Content],
    ) -> Result<Vec<SameContent>, LedgerError> {
        let contents: Vec<String> = contents.iter().map(|content| content.to_hex()).collect();
        let raw = sqlx::query(sqlx::AssertSqlSafe(Sql::Postgres.same_content()))
            .bind(scope.as_str())
            .bind(contents)
            .fetch_all(&mut self.connection)
            .await
            .map_err(|error| meaning(&self.name, &error))?;
        raw.iter().map(|row| store::same_content_from(Answer::of(row), &self.name)).collect()
    }

    pub(super) async fn metadata(&mut self, name: &str) -> Result<Option<String>, LedgerError> {
        let found = sqlx::query_scalar("SELECT value FROM metadata WHERE name = $1").bind(name);
        found.fetch_optional(&mut self.connection).await.map_err(|error| meaning(&self.name, &error))
    }

    /// Up to so many names that begin so and come after that one, each with its value.
    pub(super) async fn metadata_page(
        &mut self,
        prefix: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(String, String)>, LedgerError> {
        let found = sqlx::query_as(sqlx::AssertSqlSafe(Sql::Postgres.metadata_page()))
            .bind(after.max(prefix))
            .bind(select::end_of(prefix))
            .bind(limit);
        found.fetch_all(&mut self.connection).await.map_err(|error| meaning(&self.name, &error))
    }

    pub(super) async fn batch_page(
        &mut self,
        scope: &Scope,
        batch: &Batch,
        after: (i64, Option<&JobId>),
        only: &Only,
        limit: i64,
    ) -> Result<Vec<Row>, LedgerError> {
        let with = only.with.as_deref().map(str::to_lowercase);
        let mut query = sqlx::query(sqlx::AssertSqlSafe(Sql::Postgres.batch_page(only)))
            .bind(scope.as_str())
            .bind(batch.as_str())
            .bind(after.0)
            .bind(after.1.map_or("", JobId::as_str))
            .bind(limit);
        if let Some(with) = with {
            query = query.bind(with);
        }
        let raw = query.fetch_all(&mut self.connection).await.map_err(|error| meaning(&self.name, &error))?;
        raw.iter().map(|row| store::row_from(Answer::of(row), &self.name)).collect()
    }

    pub(super) async fn counts(&mut self) -> Result<Vec<BatchCounts>, LedgerError> {
        let raw = sqlx::query(COUNTS).fetch_all(&mut self.connection).await;
        let raw = raw.map_err(|error| meaning(&self.name, &error))?;
        let read = |row| store::counts_from(Answer::of(row));
        raw.iter().map(read).collect::<Result<_, _>>().map_err(|reason| store::database(&self.name, reason))
    }

    pub(super) async fn close(self) {
        // Nothing is pending: every write was committed before its caller was told.
        let _ = self.connection.close().await;
    }
}

/// One row of an answer.
pub(super) struct Answer<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'a> Answer<'a> {
    pub(super) fn of(row: &'a PgRow) -> Self {
        Self { row, next: 0 }
    }

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
