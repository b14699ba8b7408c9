//! What a ledger in PostgreSQL has, and how it gets what it lacks. Of several that start at once the first makes it, and the others wait.

use std::time::Duration;

use sqlx::Connection as _;

use super::LedgerError;
use super::database::{MIGRATION_MAX, Opening};
use super::postgres::{IDENTITY, Postgres, SET_METADATA, meaning};
use super::schema::{self, VERSION};
use super::select::{INDEXES, Sql};
use super::standing::{self, NO_VERSION, STANDING};

/// Serialises migrations of workers that start together; any number that no other program of the database uses.
const MIGRATION_LOCK: i64 = 0x656d_626f_7373;

/// What is found where a ledger is to be.
pub(super) struct Found {
    /// 0: there is none.
    pub(super) version: i64,
    /// From which version on an embosser may use it, if it is newer than this one.
    pub(super) read_by: Option<i64>,
    pub(super) is_indexed: bool,
}

impl Postgres {
    /// What there is: its version, whether all indexes are there, and by which versions a newer one may be used.
    pub(super) async fn found(&mut self, opening: Opening) -> Result<Found, LedgerError> {
        let (connection, name) = self.parts();
        let to_error = |error: sqlx::Error| meaning(name, &error);
        let is_there: bool = sqlx::query_scalar("SELECT to_regclass('embosser_ledger') IS NOT NULL")
            .fetch_one(&mut *connection)
            .await
            .map_err(to_error)?;
        if !is_there {
            return Ok(Found { version: 0, read_by: None, is_indexed: false });
        }
        let version: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM embosser_ledger")
            .fetch_one(&mut *connection)
            .await
            .map_err(to_error)?;
        let version = version.unwrap_or(0);
        if version == NO_VERSION && opening != Opening::Keeping {
            let found = self.metadata(STANDING).await?;
            return Err(standing::refused(found.as_deref(), self.parts().1));
        }
        let (connection, name) = self.parts();
        let to_error = |error: sqlx::Error| meaning(name, &error);
        let mut is_indexed = true;
        if opening == Opening::Making {
            let there: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(Sql::Postgres.indexes_there()))
                .fetch_one(&mut *connection)
                .await
                .map_err(to_error)?;
            is_indexed = usize::try_from(there).is_ok_and(|there| there >= INDEXES.len());
        }
        let mut read_by = None;
        if version > VERSION {
            read_by = self.metadata(schema::READ_FROM).await?.and_then(|from| from.parse().ok());
        }
        Ok(Found { version, read_by, is_indexed })
    }

    pub(super) async fn migrate(&mut self) -> Result<(), LedgerError> {
        let (connection, name) = self.parts();
        let to_error = |error: sqlx::Error| meaning(name, &error);
        let mut transaction = connection.begin().await.map_err(to_error)?;
        // Others who start at once wait for the first; what it makes of a large ledger takes its time.
        sqlx::raw_sql(sqlx::AssertSqlSafe(settings(MIGRATION_MAX)))
            .execute(&mut *transaction)
            .await
            .map_err(to_error)?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(MIGRATION_LOCK)
            .execute(&mut *transaction)
            .await
            .map_err(to_error)?;
        sqlx::query("CREATE TABLE IF NOT EXISTS embosser_ledger (version BIGINT NOT NULL)")
            .execute(&mut *transaction)
            .await
            .map_err(to_error)?;
        let found: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM embosser_ledger")
            .fetch_one(&mut *transaction)
            .await
            .map_err(to_error)?;
        let found = found.unwrap_or(0);
        // Another one may have brought it here, or beyond, since it was looked at.
        if found < VERSION {
            for statement in schema::of_postgres(found) {
                sqlx::query(sqlx::AssertSqlSafe(statement))
                    .execute(&mut *transaction)
                    .await
                    .map_err(to_error)?;
            }
            sqlx::query("INSERT INTO metadata (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(IDENTITY)
                .bind(format!("{:032x}", rand::random::<u128>()))
                .execute(&mut *transaction)
                .await
                .map_err(to_error)?;
            sqlx::query(SET_METADATA)
                .bind(schema::READ_FROM)
                .bind(schema::READ_FROM_VERSION.to_string())
                .execute(&mut *transaction)
                .await
                .map_err(to_error)?;
            sqlx::query("INSERT INTO embosser_ledger (version) VALUES ($1)")
                .bind(VERSION)
                .execute(&mut *transaction)
                .await
                .map_err(to_error)?;
        }
        let there: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(Sql::Postgres.indexes_there()))
            .fetch_one(&mut *transaction)
            .await
            .map_err(to_error)?;
        // To ask for one that is there would wait for whoever writes.
        if usize::try_from(there).is_ok_and(|there| there < INDEXES.len()) {
            for statement in Sql::Postgres.indexes() {
                sqlx::query(sqlx::AssertSqlSafe(statement))
                    .execute(&mut *transaction)
                    .await
                    .map_err(to_error)?;
            }
        }
        transaction.commit().await.map_err(to_error)
    }
}

/// For this transaction: it may take as long as that, and wait as long for others.
pub(super) fn settings(max: Duration) -> String {
    let seconds = max.as_secs() - 1;
    format!("SET LOCAL statement_timeout = '{seconds}s'; SET LOCAL lock_timeout = '{seconds}s'")
}
