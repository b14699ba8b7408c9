//! The ledger's tables as a whole: their columns, by which each row is told from every other, and a row's values whatever it holds.
//! What reads or writes whole tables (to move, export or verify a ledger) knows no more of them than this.
//!
//! A table or column that is added to the schema belongs here, too: a test below compares the two.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::select::Sql;
use super::store::Columns;

/// What a column holds; in both databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    /// 64 bits.
    Number,
}

/// A table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Holds)],
    /// How many of the first columns tell a row from every other.
    pub(super) key: usize,
    /// In a statement's WHERE: which rows belong to the ledger; the others are about its database or machine.
    own: &'static str,
}

use Holds::{Number, Text};

/// All tables, in the order in which they are exported.
pub(super) const TABLES: [Table; 4] = [
    Table {
        name: "steps",
        columns: &[
            ("scope", Text),
            ("job_id", Text),
            ("step", Text),
            ("version", Number),
            ("batch", Text),
            ("row_number", Number),
            ("row_id", Text),
            ("content", Text),
            ("pin", Text),
            ("state", Text),
            ("generation", Number),
            ("key_began_ms", Number),
            ("attempted_ms", Number),
            ("attempts", Number),
            ("output", Text),
            ("error_code", Text),
            ("error_message", Text),
            ("request_id", Text),
            ("note", Text),
            ("written_ms", Number),
        ],
        key: 3,
        own: "1 = 1",
    },
    Table {
        name: "batches",
        columns: &[
            ("scope", Text),
            ("batch", Text),
            ("digest", Text),
            ("manifest_rows", Number),
            ("began_ms", Number),
        ],
        key: 2,
        own: "1 = 1",
    },
    Table {
        name: "audit",
        columns: &[
            ("id", Number),
            ("key", Text),
            ("time_ms", Number),
            ("scope", Text),
            ("who", Text),
            ("role", Text),
            ("action", Text),
            ("batch", Text),
            ("job", Text),
            ("row_count", Number),
            ("digest", Text),
            ("detail", Text),
        ],
        key: 1,
        own: "1 = 1",
    },
    Table {
        name: "metadata",
        columns: &[("name", Text), ("value", Text)],
        key: 1,
        // Which database it is, who holds leases in it, by whom it may be used, and where it stands.
        own: "name NOT IN ('identity', 'ledger_read_from', 'ledger_standing', 'ledger_came_by', 'probe')
              AND substr(name, 1, 6) <> 'lease:'",
    },
];

/// What stands in a column of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Null,
    Number(i64),
    Text(String),
}

impl Value {
    /// As JSON has it.
    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialise")
    }
}

/// A row, column by column.
pub(super) type Values = Vec<Value>;

impl Table {
    pub(super) fn of_name(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }

    /// The columns' names, with commas between them.
    pub(super) fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// Where a column is among the others.
    pub(super) fn at(&self, column: &str) -> usize {
        let found = self.columns.iter().position(|(name, _)| *name == column);
        found.expect("only columns of the table are asked for")
    }

    /// What tells the row from every other.
    pub(super) fn key_of<'v>(&self, row: &'v [Value]) -> &'v [Value] {
        &row[..self.key]
    }

    /// The row's key, for people.
    pub(super) fn words(&self, row: &[Value]) -> String {
        let words = self.key_of(row).iter().map(Value::json).collect::<Vec<_>>();
        format!("{} {}", self.name, words.join(" "))
    }

    /// The key's columns as they are ordered: by their bytes, which is the same order in both databases.
    fn ordered(&self, sql: Sql) -> String {
        let ordered = |(name, holds): &(&str, Holds)| match holds {
            Text => format!("{name}{}", sql.by_bytes()),
            Number => (*name).to_owned(),
        };
        self.columns[..self.key].iter().map(ordered).collect::<Vec<_>>().join(", ")
    }

    /// The ledger's own rows in their order, those after a key if there is one. Its parameters are that key's values, numbered from 1.
    pub(super) fn select(&self, sql: Sql, is_after: bool) -> String {
        let order = self.ordered(sql);
        let mut select = format!("SELECT {} FROM {} WHERE {}", self.names(), self.name, self.own);
        if is_after {
            let sign = match sql {
                Sql::Sqlite => '?',
                Sql::Postgres => '$',
            };
            let places = (1..=self.key).map(|at| format!("{sign}{at}")).collect::<Vec<_>>().join(", ");
            let _ = write!(select, " AND ({order}) > ({places})");
        }
        let _ = write!(select, " ORDER BY {order}");
        select
    }

    /// How many rows are the ledger's own.
    pub(super) fn count(&self) -> String {
        format!("SELECT count(*) FROM {} WHERE {}", self.name, self.own)
    }

    /// A row of an answer to [`Self::select`].
    pub(super) fn read(&self, mut columns: impl Columns) -> Result<Values, String> {
        let mut row = Vec::with_capacity(self.columns.len());
        for (name, holds) in self.columns {
            let value = match holds {
                Text => columns.text().map(|text| text.map(Value::Text)),
                Number => columns.number().map(|number| number.map(Value::Number)),
            };
            let value = value.map_err(|reason| {
                let words = if row.len() >= self.key { self.words(&row) } else { self.name.to_owned() };
                format!("{words}: its {name} cannot be read ({reason})")
            })?;
            row.push(value.unwrap_or(Value::Null));
        }
        Ok(row)
    }
}

/// A row's values, to be read as an answer's.
pub(super) struct Reading<'v>(pub(super) std::slice::Iter<'v, Value>);

impl Columns for Reading<'_> {
    fn text(&mut self) -> Result<Option<String>, String> {
        match self.0.next() {
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(Value::Null) => Ok(None),
            Some(Value::Number(_)) | None => Err("it is no text".into()),
        }
    }

    fn number(&mut self) -> Result<Option<i64>, String> {
        match self.0.next() {
            Some(Value::Number(number)) => Ok(Some(*number)),
            Some(Value::Null) => Ok(None),
            Some(Value::Text(_)) | None => Err("it is no number".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::database::Opening;
    use crate::ledger::sqlite::Sqlite;

    #[test]
    fn every_table_and_column_of_the_schema_is_known_here() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.db");
        Sqlite::open(&format!("sqlite://{}", file.display()), Opening::Making).unwrap().close();
        let connection = rusqlite::Connection::open(file).unwrap();
        let texts = |select: &str| -> Vec<String> {
            let mut statement = connection.prepare(select).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        let mut known: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
        known.sort_unstable();
        let tables =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
        assert_eq!(texts(tables), known, "a table is moved, exported and verified only if it is known here");
        for table in &TABLES {
            let columns = format!("SELECT name || ' ' || type FROM pragma_table_info('{}')", table.name);
            let known: Vec<String> = table
                .columns
                .iter()
                .map(|(name, holds)| {
                    format!(
                        "{name} {}",
                        match holds {
                            Text => "TEXT",
                            Number => "INTEGER",
                        }
                    )
                })
                .collect();
            let mut found = texts(&columns);
            // A primary key's order is not the columns' own.
            found.sort_by_key(|column| known.iter().position(|known| known == column));
            assert_eq!(found, known, "{}", table.name);
            let key =
                format!("SELECT name FROM pragma_table_info('{}') WHERE pk > 0 ORDER BY pk", table.name);
            let known: Vec<&str> = table.columns[..table.key].iter().map(|(name, _)| *name).collect();
            assert_eq!(texts(&key), known, "{}", table.name);
        }
    }

    #[test]
    fn values_are_the_same_after_their_way_through_json() {
        let row = vec![Value::Null, Value::Number(i64::MIN), Value::Text("å\u{0}\u{1f600}\"\\".into())];
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(serde_json::from_str::<Values>(&text).unwrap(), row);
        assert!(Value::Null < Value::Number(-1) && Value::Text("Z".into()) < Value::Text("a".into()));
    }
}
