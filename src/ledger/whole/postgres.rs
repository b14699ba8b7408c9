//! The whole of a ledger in PostgreSQL. Its tables are read by a cursor, whose order is the bytes' and so no index's: the server sorts
//! each table once, on its disk if need be.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::PIECE_ROWS;
use crate::clock::{Clock, Time};
use crate::ledger::database::{MIGRATION_MAX, in_time};
use crate::ledger::lease::{ENTRY, Holder, number_of};
use crate::ledger::postgres::{Answer, Postgres, meaning};
use crate::ledger::select::Sql;
use crate::ledger::standing::{self, CAME_BY, STANDING, Standing};
use crate::ledger::tables::{Holds, TABLES, Table, Value, Values};
use crate::ledger::{LedgerError, Scope, prune, store};

/// Whose lease keeps two movers apart: no account's.
pub(super) const MOVE: &str = "embosser ledger move";

type Outcome<T> = Result<T, sqlx::Error>;

impl Postgres {
    /// Runs it, for as long as a change of a whole ledger may take.
    async fn whole<T>(
        &mut self,
        run: impl AsyncFnOnce(&mut PgConnection) -> Outcome<T>,
    ) -> Result<T, LedgerError> {
        let (connection, name) = self.parts();
        let name = name.to_owned();
        in_time(&name, MIGRATION_MAX, async { run(connection).await.map_err(|error| meaning(&name, &error)) })
            .await
    }

    /// From here on its statements take as long as those of a migration, and whoever reads may take time between two.
    pub(super) async fn has_time(&mut self) -> Result<(), LedgerError> {
        let seconds = MIGRATION_MAX.as_secs() - 1;
        let set = format!(
            "SET statement_timeout = '{seconds}s'; SET lock_timeout = '30s'; SET idle_in_transaction_session_timeout = 0"
        );
        self.whole(async |connection| sqlx::raw_sql(AssertSqlSafe(set)).execute(connection).await.map(|_| ()))
            .await
    }

    pub(super) async fn whole_identity(&mut self) -> Result<String, LedgerError> {
        Ok(self.metadata(crate::ledger::postgres::IDENTITY).await?.unwrap_or_default())
    }

    pub(super) async fn whole_stand(
        &mut self,
        standing: Option<&Standing>,
        came_by: Option<&str>,
    ) -> Result<(), LedgerError> {
        let mut statements = standing::of_postgres(standing);
        statements.extend(came_by.map(|id| standing::set(CAME_BY, id)));
        self.whole(async |connection| {
            let mut transaction = connection.begin().await?;
            for statement in statements {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        })
        .await
    }

    pub(super) async fn whole_begin_view(&mut self) -> Result<(), LedgerError> {
        self.plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    pub(super) async fn whole_end_view(&mut self) -> Result<(), LedgerError> {
        self.plain("COMMIT").await
    }

    async fn plain(&mut self, statement: &'static str) -> Result<(), LedgerError> {
        self.whole(async |connection| sqlx::raw_sql(statement).execute(connection).await.map(|_| ())).await
    }

    /// Begins to read a table, within a view.
    pub(super) async fn whole_begin(
        &mut self,
        table: &Table,
        after: Option<&[Value]>,
    ) -> Result<(), LedgerError> {
        let select = table.select(Sql::Postgres, after.is_some());
        self.plain("CLOSE ALL").await?;
        self.whole(async |connection| {
            let declare = AssertSqlSafe(format!("DECLARE embosser_rows NO SCROLL CURSOR FOR {select}"));
            let mut declare = sqlx::query(declare).persistent(false);
            for value in after.unwrap_or_default() {
                declare = match value {
                    Value::Text(text) => declare.bind(text.clone()),
                    Value::Number(number) => declare.bind(*number),
                    Value::Null => declare.bind(None::<String>),
                };
            }
            declare.execute(connection).await.map(|_| ())
        })
        .await
    }

    /// The next rows of the table that was begun with.
    pub(super) async fn whole_next(
        &mut self,
        table: &Table,
        _: Option<&[Value]>,
    ) -> Result<Vec<Values>, LedgerError> {
        let fetch = format!("FETCH {PIECE_ROWS} FROM embosser_rows");
        let found = self
            .whole(async |connection| {
                sqlx::query(AssertSqlSafe(fetch)).persistent(false).fetch_all(connection).await
            })
            .await?;
        let read = |row| table.read(Answer::of(row));
        let rows: Result<Vec<Values>, String> = found.iter().map(read).collect();
        rows.map_err(|reason| store::database(self.parts().1, reason))
    }

    /// PostgreSQL has none.
    pub(super) async fn whole_with_nul(&mut self, _: &Table) -> Result<Option<Values>, LedgerError> {
        Ok(None)
    }

    pub(super) async fn whole_count(&mut self, table: &Table) -> Result<u64, LedgerError> {
        let count = table.count();
        let count: i64 = self
            .whole(async |connection| sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(connection).await)
            .await?;
        Ok(count.unsigned_abs())
    }

    pub(super) async fn whole_add(
        &mut self,
        table: &Table,
        rows: &[Values],
        standing: &Standing,
    ) -> Result<(), LedgerError> {
        let documents: Vec<serde_json::Map<String, serde_json::Value>> = rows
            .iter()
            .map(|row| {
                let pair = |((name, _), value): (&(&str, Holds), &Value)| {
                    ((*name).to_owned(), serde_json::to_value(value).unwrap_or_default())
                };
                table.columns.iter().zip(row).map(pair).collect()
            })
            .collect();
        let documents = serde_json::to_string(&documents).expect("texts and numbers always serialise");
        let typed = |(name, holds): &(&str, Holds)| match holds {
            Holds::Text => format!("{name} TEXT"),
            Holds::Number => format!("{name} BIGINT"),
        };
        let typed = table.columns.iter().map(typed).collect::<Vec<_>>().join(", ");
        let (name, columns) = (table.name, table.names());
        // The audit log's entries keep their numbers.
        let insert = format!(
            "INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE
             SELECT {columns} FROM json_to_recordset($1::json) AS written ({typed})"
        );
        let record = standing::set(STANDING, &standing.to_json());
        let unguarded = standing::unguarded_in_postgres(standing);
        self.whole(async |connection| {
            let mut transaction = connection.begin().await?;
            sqlx::raw_sql(AssertSqlSafe(unguarded)).execute(&mut *transaction).await?;
            sqlx::query(AssertSqlSafe(insert)).bind(documents).execute(&mut *transaction).await?;
            sqlx::raw_sql(AssertSqlSafe(record)).execute(&mut *transaction).await?;
            transaction.commit().await
        })
        .await
    }

    /// The next entry of the audit log is numbered after those that came with their numbers; and the planner knows how many rows came.
    pub(super) async fn whole_settle(&mut self) -> Result<(), LedgerError> {
        let sequence = "SELECT setval(pg_get_serial_sequence('audit', 'id'), greatest(max(id), 1), max(id) IS NOT NULL) FROM audit";
        self.plain(sequence).await?;
        let tables = TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        self.whole(async |connection| {
            sqlx::raw_sql(AssertSqlSafe(format!("ANALYZE {tables}"))).execute(connection).await.map(|_| ())
        })
        .await
    }

    pub(super) async fn whole_thin(
        &mut self,
        table: &Table,
        keys: &[Values],
        before: Time,
    ) -> Result<u64, LedgerError> {
        let columns: Vec<&str> = table.columns[..table.key].iter().map(|(name, _)| *name).collect();
        let typed: Vec<String> = columns.iter().map(|name| format!("{name} TEXT")).collect();
        let is_key: Vec<String> =
            columns.iter().map(|name| format!("{0}.{name} = old.{name}", table.name)).collect();
        let update = AssertSqlSafe(format!(
            "UPDATE {} SET {} FROM json_to_recordset($2::json) AS old ({}) WHERE {} AND {}",
            table.name,
            prune::assignments(),
            typed.join(", "),
            is_key.join(" AND "),
            prune::condition("$1"),
        ));
        let object = |key: &Values| -> serde_json::Map<String, serde_json::Value> {
            let pair = |(name, value): (&&str, &Value)| {
                ((*name).to_owned(), serde_json::to_value(value).unwrap_or_default())
            };
            columns.iter().zip(key).map(pair).collect()
        };
        let objects: Vec<_> = keys.iter().map(object).collect();
        let objects = serde_json::to_string(&objects).expect("texts and numbers always serialise");
        self.whole(async |connection| {
            let update = sqlx::query(update).bind(before.unix_ms()).bind(objects);
            update.execute(connection).await.map(|changed| changed.rows_affected())
        })
        .await
    }

    pub(super) async fn whole_replace(&mut self, changes: &[(Values, String)]) -> Result<u64, LedgerError> {
        let changes: Vec<[String; 3]> = changes
            .iter()
            .filter_map(|(row, value)| match row.as_slice() {
                [Value::Text(name), Value::Text(before)] => {
                    Some([name.clone(), before.clone(), value.clone()])
                }
                _ => None,
            })
            .collect();
        let changes = serde_json::to_string(&changes).expect("texts always serialise");
        self.whole(async |connection| {
            let update = "UPDATE metadata SET value = wanted.triple->>2 FROM json_array_elements($1::json) AS wanted (triple)
                WHERE metadata.name = wanted.triple->>0 AND metadata.value = wanted.triple->>1";
            let update = sqlx::query(update).bind(changes);
            update.execute(connection).await.map(|changed| changed.rows_affected())
        })
        .await
    }

    pub(super) async fn whole_number(&mut self, select: &str, number: i64) -> Result<u64, LedgerError> {
        let select = AssertSqlSafe(select.to_owned());
        let found: i64 = self
            .whole(async |connection| sqlx::query_scalar(select).bind(number).fetch_one(connection).await)
            .await?;
        Ok(found.unsigned_abs())
    }

    /// PostgreSQL looks after its own files (`pg_amcheck` does it on demand): what is ours is looked at.
    pub(super) async fn whole_faults(&mut self) -> Result<Vec<String>, LedgerError> {
        let guards = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'audit'::regclass AND tgname = 'audit_is_kept' AND tgenabled = 'O'";
        let guards: i64 =
            self.whole(async |connection| sqlx::query_scalar(guards).fetch_one(connection).await).await?;
        let missing =
            "the trigger that keeps the audit log from being changed is not there, or is switched off";
        Ok((guards != 1).then(|| missing.to_owned()).into_iter().collect())
    }

    /// Takes the lock of each account's lease, and one of its own that keeps two movers apart. They end with this session.
    pub(super) async fn whole_hold_leases(&mut self) -> Result<Option<Box<Holder>>, LedgerError> {
        let entries: Vec<(String, String)> = self
            .whole(async |connection| {
                let entries = "SELECT name, value FROM metadata WHERE substr(name, 1, length($1)) = $1";
                sqlx::query_as(entries).bind(ENTRY).fetch_all(connection).await
            })
            .await?;
        let scope = |name: &str| Scope::of_ledger(name.strip_prefix(ENTRY).unwrap_or(name));
        let mut numbers: Vec<i64> = entries.iter().map(|(name, _)| number_of(&scope(name))).collect();
        numbers.push(number_of(&Scope::of_ledger(MOVE)));
        let taken: Vec<bool> = self
            .whole(async |connection| {
                let lock = "SELECT pg_try_advisory_lock(number) FROM unnest($1::bigint[]) WITH ORDINALITY AS wanted (number, at) ORDER BY at";
                sqlx::query_scalar(lock).bind(&numbers).fetch_all(connection).await
            })
            .await?;
        let Some(at) = taken.iter().position(|taken| !taken) else { return Ok(None) };
        let holder = entries.get(at).and_then(|(_, value)| serde_json::from_str(value).ok());
        let unknown = || Holder::unknown(&Clock::system(), "another machine");
        Ok(Some(Box::new(holder.unwrap_or_else(unknown))))
    }
}
