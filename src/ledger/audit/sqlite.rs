//! The audit log in SQLite.

use rusqlite::{ToSql, Transaction};

use super::{AuditEntry, AuditQuery, COLUMNS, Order, SEARCHED, entry_from, stored};
use crate::ledger::LedgerError;
use crate::ledger::sqlite::Sqlite;

/// Adds nothing if an entry of this key is there: then the first try took effect.
const ADD: &str = "INSERT INTO audit (key, time_ms, scope, who, role, action, batch, job, row_count, digest, detail)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11 WHERE NOT EXISTS (SELECT 1 FROM audit WHERE key = ?1)";

pub(in crate::ledger) fn add(
    transaction: &Transaction<'_>,
    entry: &AuditEntry,
    key: &str,
) -> rusqlite::Result<()> {
    let values: [&dyn ToSql; 11] = [
        &key,
        &entry.time.unix_ms(),
        &entry.scope.as_str(),
        &entry.who,
        &entry.role,
        &entry.action,
        &entry.batch,
        &entry.job,
        &entry.rows.map(stored),
        &entry.digest,
        &entry.detail,
    ];
    transaction.prepare_cached(ADD)?.execute(values)?;
    Ok(())
}

impl Sqlite {
    pub(in crate::ledger) fn audit_entries(
        &mut self,
        query: &AuditQuery,
        limit: i64,
    ) -> Result<Vec<AuditEntry>, LedgerError> {
        let scopes: Vec<&str> = query.scopes.iter().map(|scope| scope.as_str()).collect();
        let scopes = serde_json::to_string(&scopes).expect("strings always serialise");
        let (since, after) = (query.since.map(|since| since.unix_ms()), query.after.map(stored));
        // Only what is asked for stands in it, so that an index can serve it.
        let mut select = format!("SELECT {COLUMNS} FROM audit WHERE 1");
        let mut values: Vec<&dyn ToSql> = Vec::new();
        let (ahead, direction) = match query.order {
            Order::Newest => ("id < ?", "DESC"),
            Order::Oldest => ("id > ?", "ASC"),
        };
        let with = query.with.as_ref().map(|with| with.to_lowercase());
        let searched = format!("instr({}, ?) > 0", SEARCHED.replace("chr(", "char("));
        let conditions: [(&str, Option<&dyn ToSql>); 6] = [
            (
                "scope IN (SELECT value FROM json_each(?))",
                (!query.scopes.is_empty()).then_some(&scopes as &dyn ToSql),
            ),
            ("batch = ?", query.batch.as_ref().map(|batch| batch as &dyn ToSql)),
            ("who = ?", query.who.as_ref().map(|who| who as &dyn ToSql)),
            (&searched, with.as_ref().map(|with| with as &dyn ToSql)),
            ("time_ms >= ?", since.as_ref().map(|since| since as &dyn ToSql)),
            (ahead, after.as_ref().map(|after| after as &dyn ToSql)),
        ];
        for (condition, value) in conditions {
            let Some(value) = value else { continue };
            select.extend([" AND ", condition]);
            values.push(value);
        }
        select.extend([" ORDER BY id ", direction, " LIMIT ?"]);
        values.push(&limit);
        self.all(&select, &values, |columns, name| entry_from(columns, name))
    }
}
