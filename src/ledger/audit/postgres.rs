//! The audit log in PostgreSQL.

use sqlx::PgConnection;
use sqlx::postgres::Postgres as Database;

use super::{AuditEntry, AuditQuery, COLUMNS, Order, SEARCHED, entry_from, stored};
use crate::ledger::LedgerError;
use crate::ledger::postgres::{Answer, Postgres, meaning};

/// Changes nothing if an entry of this key is there: then the first try took effect.
const ADD: &str =
    "INSERT INTO audit (key, time_ms, scope, who, role, action, batch, job, row_count, digest, detail)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (key) DO NOTHING";

pub(in crate::ledger) async fn add(
    connection: &mut PgConnection,
    entry: &AuditEntry,
    key: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(ADD)
        .bind(key)
        .bind(entry.time.unix_ms())
        .bind(entry.scope.as_str())
        .bind(&entry.who)
        .bind(&entry.role)
        .bind(&entry.action)
        .bind(&entry.batch)
        .bind(&entry.job)
        .bind(entry.rows.map(stored))
        .bind(&entry.digest)
        .bind(&entry.detail)
        .execute(connection)
        .await
        .map(|_| ())
}

impl Postgres {
    pub(in crate::ledger) async fn audit_entries(
        &mut self,
        query: &AuditQuery,
        limit: i64,
    ) -> Result<Vec<AuditEntry>, LedgerError> {
        // Only what is asked for stands in it, so that an index can serve it.
        let mut select: sqlx::QueryBuilder<Database> =
            sqlx::QueryBuilder::new(format!("SELECT {COLUMNS} FROM audit WHERE true"));
        if !query.scopes.is_empty() {
            let scopes: Vec<String> = query.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            select.push(" AND scope = ANY(").push_bind(scopes).push(")");
        }
        for (condition, value) in [(" AND batch = ", &query.batch), (" AND who = ", &query.who)] {
            if let Some(value) = value {
                select.push(condition).push_bind(value.clone());
            }
        }
        if let Some(with) = &query.with {
            select.push(format!(" AND strpos({SEARCHED}, ")).push_bind(with.to_lowercase()).push(") > 0");
        }
        if let Some(since) = query.since {
            select.push(" AND time_ms >= ").push_bind(since.unix_ms());
        }
        let (ahead, direction) = match query.order {
            Order::Newest => (" AND id < ", "DESC"),
            Order::Oldest => (" AND id > ", "ASC"),
        };
        if let Some(after) = query.after {
            select.push(ahead).push_bind(stored(after));
        }
        select.push(format!(" ORDER BY id {direction} LIMIT ")).push_bind(limit);
        let (connection, name) = self.parts();
        let found = select.build().fetch_all(connection).await.map_err(|error| meaning(name, &error))?;
        found.iter().map(|row| entry_from(Answer::of(row), name)).collect()
    }
}
