//! The whole of a ledger in SQLite.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, TransactionBehavior, params_from_iter};

use super::PIECE_ROWS;
use crate::clock::{Clock, Time};
use crate::config::place::file_of;
use crate::ledger::lease::{Holder, LeaseError};
use crate::ledger::lease_file::{LockedFile, Taken};
use crate::ledger::result_code::meaning;
use crate::ledger::select::Sql;
use crate::ledger::sqlite::Sqlite;
use crate::ledger::standing::{self, CAME_BY, Standing};
use crate::ledger::tables::{Table, Value, Values};
use crate::ledger::{LedgerError, Scope, prune, store};

/// What is found wrong that is told of.
const FAULTS_MAX: u32 = 20;
/// What keeps the audit log from being changed.
const AUDIT_GUARDS: i64 = 3;

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl Sqlite {
    /// The connection, and the ledger's name for errors.
    fn parts(&mut self) -> (&mut Connection, &str) {
        (&mut self.connection, &self.name)
    }

    pub(super) fn whole_identity(&mut self) -> Result<String, LedgerError> {
        let (connection, name) = self.parts();
        let path = connection.path().unwrap_or_default().to_owned();
        let path = std::fs::canonicalize(&path)
            .map_err(|error| store::database(name, format!("{path}: {error}")))?;
        Ok(path.display().to_string())
    }

    pub(super) fn whole_stand(
        &mut self,
        standing: Option<&Standing>,
        came_by: Option<&str>,
    ) -> Result<(), LedgerError> {
        self.is_in_place()?;
        let mut statements = standing::of_sqlite(standing);
        statements.extend(came_by.map(|id| standing::set(CAME_BY, id)));
        let (connection, name) = self.parts();
        let to_error = |error: rusqlite::Error| meaning(name, &error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(to_error)?;
        for statement in statements {
            transaction.execute_batch(&statement).map_err(to_error)?;
        }
        transaction.commit().map_err(to_error)
    }

    pub(super) fn whole_begin_view(&mut self) -> Result<(), LedgerError> {
        let (connection, name) = self.parts();
        // It begins with the first question.
        let begin = "BEGIN; SELECT 1 FROM metadata LIMIT 1";
        connection.execute_batch(begin).map_err(|error| meaning(name, &error))
    }

    pub(super) fn whole_end_view(&mut self) -> Result<(), LedgerError> {
        let (connection, name) = self.parts();
        connection.execute_batch("COMMIT").map_err(|error| meaning(name, &error))
    }

    pub(super) fn whole_next(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
    ) -> Result<Vec<Values>, LedgerError> {
        let select = format!("{} LIMIT {PIECE_ROWS}", table.select(Sql::Sqlite, after.is_some()));
        let after: Vec<&dyn ToSql> =
            after.unwrap_or_default().iter().map(|value| value as &dyn ToSql).collect();
        self.all(&select, &after, |columns, name| {
            table.read(columns).map_err(|reason| store::database(name, reason))
        })
    }

    pub(super) fn whole_with_nul(&mut self, table: &Table) -> Result<Option<Values>, LedgerError> {
        let has_nul = |(name, _): &(&str, _)| format!("instr({name}, char(0)) > 0");
        let has_nul = table.columns.iter().map(has_nul).collect::<Vec<_>>().join(" OR ");
        let select = format!("SELECT {} FROM {} WHERE {has_nul} LIMIT 1", table.names(), table.name);
        let found = self.all(&select, &[], |columns, name| {
            table.read(columns).map_err(|reason| store::database(name, reason))
        })?;
        Ok(found.into_iter().next())
    }

    pub(super) fn whole_count(&mut self, table: &Table) -> Result<u64, LedgerError> {
        let (connection, name) = self.parts();
        let count: rusqlite::Result<i64> = connection.query_row(&table.count(), [], |row| row.get(0));
        count.map(i64::unsigned_abs).map_err(|error| meaning(name, &error))
    }

    pub(super) fn whole_add(
        &mut self,
        table: &Table,
        rows: &[Values],
        standing: &Standing,
    ) -> Result<(), LedgerError> {
        self.is_in_place()?;
        let places = vec!["?"; table.columns.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES ({places})", table.name, table.names());
        let (connection, name) = self.parts();
        let to_error = |error: rusqlite::Error| meaning(name, &error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(to_error)?;
        // Others see the triggers at any time: they are gone within this transaction only.
        for statement in standing::unguarded_in_sqlite() {
            transaction.execute_batch(&statement).map_err(to_error)?;
        }
        {
            let mut insert = transaction.prepare_cached(&insert).map_err(to_error)?;
            for row in rows {
                insert.execute(params_from_iter(row)).map_err(to_error)?;
            }
        }
        for statement in standing::of_sqlite(Some(standing)) {
            transaction.execute_batch(&statement).map_err(to_error)?;
        }
        transaction.commit().map_err(to_error)
    }

    pub(super) fn whole_thin(
        &mut self,
        table: &Table,
        keys: &[Values],
        before: Time,
    ) -> Result<u64, LedgerError> {
        let before = Value::Number(before.unix_ms());
        let of_key = |key: &Values| key.iter().cloned().chain([before.clone()]).collect();
        self.whole_run(&prune::of_one(table), &keys.iter().map(of_key).collect::<Vec<Values>>())
    }

    pub(super) fn whole_replace(&mut self, changes: &[(Values, String)]) -> Result<u64, LedgerError> {
        let update = "UPDATE metadata SET value = ?3 WHERE name = ?1 AND value = ?2";
        let of_change = |(row, value): &(Values, String)| {
            row.iter().cloned().chain([Value::Text(value.clone())]).collect()
        };
        self.whole_run(update, &changes.iter().map(of_change).collect::<Vec<Values>>())
    }

    /// Runs a statement with each of these, in one commit; how many rows it changed.
    fn whole_run(&mut self, statement: &str, all: &[Values]) -> Result<u64, LedgerError> {
        self.is_in_place()?;
        let (connection, name) = self.parts();
        let to_error = |error: rusqlite::Error| meaning(name, &error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(to_error)?;
        let mut changed = 0;
        {
            let mut statement = transaction.prepare_cached(statement).map_err(to_error)?;
            for values in all {
                changed += statement.execute(params_from_iter(values)).map_err(to_error)? as u64;
            }
        }
        transaction.commit().map_err(to_error)?;
        Ok(changed)
    }

    pub(super) fn whole_number(&mut self, select: &str, number: i64) -> Result<u64, LedgerError> {
        let (connection, name) = self.parts();
        let found: rusqlite::Result<i64> = connection.query_row(select, [number], |row| row.get(0));
        found.map(i64::unsigned_abs).map_err(|error| meaning(name, &error))
    }

    pub(super) fn whole_faults(&mut self) -> Result<Vec<String>, LedgerError> {
        let check = format!("PRAGMA integrity_check({FAULTS_MAX})");
        let found = self.all(&check, &[], |mut columns, name| {
            store::Columns::text(&mut columns).map_err(|reason| store::database(name, reason))
        })?;
        let mut faults: Vec<String> = found.into_iter().flatten().filter(|found| found != "ok").collect();
        let (connection, name) = self.parts();
        let guards =
            "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'audit_is_not_%'";
        let guards: rusqlite::Result<i64> = connection.query_row(guards, [], |row| row.get(0));
        if guards.map_err(|error| meaning(name, &error))? != AUDIT_GUARDS {
            faults.push("the triggers that keep the audit log from being changed are not all there".into());
        }
        Ok(faults)
    }
}

/// Takes the lock of each account's lease beside the file, and one of its own that keeps two movers apart; none twice.
pub(super) fn hold_leases(
    url: &str,
    held: &mut BTreeMap<PathBuf, LockedFile>,
) -> Result<Option<Box<Holder>>, LeaseError> {
    let ledger = file_of(url).unwrap_or_default();
    let own = LockedFile::path(url, &Scope::of_ledger(super::postgres::MOVE));
    let to_error = |error: std::io::Error| LeaseError::File { path: own.clone(), reason: error.to_string() };
    let whole = std::fs::canonicalize(&ledger).unwrap_or_else(|_| ledger.clone());
    let beginning = whole.file_name().map(|name| format!("{}.", name.to_string_lossy())).unwrap_or_default();
    let mut paths = vec![own.clone()];
    for entry in std::fs::read_dir(crate::files::folder_of(&whole)).map_err(to_error)? {
        let path = entry.map_err(to_error)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(&beginning) && name.ends_with(".lease") && path != own {
            paths.push(path);
        }
    }
    let clock = Clock::system();
    for path in paths {
        if held.contains_key(&path) {
            continue;
        }
        match LockedFile::take(path.clone(), &ledger, &clock)? {
            Taken::Ours { file, .. } => {
                held.insert(path, file);
            }
            Taken::HeldBy(holder) => return Ok(Some(holder)),
        }
    }
    Ok(None)
}
