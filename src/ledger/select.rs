//! What a page of the ledger is asked for with. Each of these is answered from an index, in its order, from where the page
//! before ended: so a page costs what stands on it, however much else the ledger holds. `select`'s tests and
//! tests/ledger/pages_are_read_from_an_index.rs ask both databases how they answer them.

use super::store::COLUMNS;
use super::{Kind, Only};

/// In which database's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sql {
    /// SQLite's, which orders texts by their bytes.
    Sqlite,
    /// PostgreSQL's, which orders them as a country does, unless it is told otherwise.
    Postgres,
}

/// Rows with a code are those that were refused, and none is without. The indexes know a row by that and not by its state: PostgreSQL
/// writes every index of a row anew when a column changes that any of them looks at, and a row's state does with each job.
///
/// A row that waits for its cardholder's PIN.
const AWAITING_PIN: &str = "error_code = 'awaiting_pin'";
/// A row that was refused for good.
const REFUSED: &str = "error_code <> 'awaiting_pin'";
/// A row with a note.
const NOTED: &str = "note IS NOT NULL";

/// Indexes of which a ledger may lack some: they were not always made with its tables.
pub(super) const INDEXES: [&str; 4] =
    ["steps_awaiting_pin", "steps_refused", "steps_noted", "metadata_by_name"];

impl Sql {
    /// What follows a text that is ordered, or compared for its order.
    pub(super) const fn by_bytes(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " COLLATE \"C\"",
        }
    }

    /// With this database's parameters.
    fn worded(self, select: String) -> String {
        match self {
            Self::Sqlite => {
                (1..=9).fold(select, |select, at| select.replace(&format!("${at}"), &format!("?{at}")))
            }
            Self::Postgres => select,
        }
    }

    /// The statements that make [`INDEXES`]. Only few rows are in one of those over rows, so that a row that is begun and ends
    /// well costs nothing more.
    pub(super) fn indexes(self) -> Vec<String> {
        let c = self.by_bytes();
        let of_rows = |name: &str, rows: &str| {
            format!(
                "CREATE INDEX IF NOT EXISTS {name} ON steps (scope, batch, row_number, job_id{c}) WHERE {rows}"
            )
        };
        vec![
            of_rows(INDEXES[0], AWAITING_PIN),
            of_rows(INDEXES[1], REFUSED),
            of_rows(INDEXES[2], NOTED),
            format!("CREATE INDEX IF NOT EXISTS {} ON metadata (name{c})", INDEXES[3]),
        ]
    }

    /// Whether all of [`INDEXES`] are there: how many are.
    pub(super) fn indexes_there(self) -> String {
        let names = INDEXES.map(|name| format!("'{name}'")).join(", ");
        match self {
            Self::Sqlite => {
                format!("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name IN ({names})")
            }
            Self::Postgres => format!(
                "SELECT count(*) FROM pg_indexes WHERE schemaname = current_schema() AND indexname IN ({names})"
            ),
        }
    }

    /// That a row has a text in its names, or in the id or the last digits of what it has: a further parameter, in small letters.
    fn with(self) -> &'static str {
        match self {
            Self::Sqlite => {
                " AND instr(lower(coalesce(row_id, '') || char(10) || job_id || char(10)
                || coalesce(json_extract(output, '$.id'), '') || char(10) || coalesce(json_extract(output, '$.last4'), '')
                || char(10) || coalesce(json_extract(output, '$.cardholder'), '')), $6) > 0"
            }
            Self::Postgres => {
                " AND strpos(lower(concat_ws(chr(10), row_id, job_id, output::json->>'id', output::json->>'last4',
                output::json->>'cardholder')), $6) > 0"
            }
        }
    }

    /// Rows of a batch. Its parameters: scope, batch, the row's number and the job's id after which they come, how many, and what they
    /// are searched for, if they are.
    pub(super) fn batch_page(self, only: &Only) -> String {
        let c = self.by_bytes();
        let kind = match only.kind {
            None => "",
            Some(Kind::Begun) => " AND state = 'begun'",
            Some(Kind::Done) => " AND state = 'done'",
            Some(Kind::Refused) => &format!(" AND state = 'refused' AND {REFUSED}"),
            Some(Kind::AwaitingPin) => &format!(" AND state = 'refused' AND {AWAITING_PIN}"),
        };
        let noted = if only.noted { format!(" AND {NOTED}") } else { String::new() };
        let with = if only.with.is_some() { self.with() } else { "" };
        self.worded(format!(
            "SELECT {COLUMNS} FROM steps WHERE scope = $1 AND batch = $2 AND (row_number, job_id{c}) > ($3, $4)
             AND step NOT LIKE 'first:%'{kind}{noted}{with} ORDER BY row_number, job_id{c} LIMIT $5"
        ))
    }

    /// What has the content of a row. Its parameters: scope, and the content (SQLite) or contents (PostgreSQL).
    pub(super) fn same_content(self) -> String {
        let (from, is_wanted) = match self {
            // Without statistics of its tables SQLite takes one equal column of the key for as good as two of this index, and reads
            // the whole scope for each row.
            Self::Sqlite => ("steps INDEXED BY steps_by_content", "content = ?2"),
            Self::Postgres => ("steps", "content = ANY($2)"),
        };
        self.worded(format!(
            "SELECT content, job_id, batch, row_id, CASE state WHEN 'refused' THEN 'begun' ELSE state END, written_ms
             FROM {from} WHERE scope = $1 AND {is_wanted} AND (state <> 'refused' OR {AWAITING_PIN}) AND step NOT LIKE 'first:%'"
        ))
    }

    /// Names and their values. Its parameters: the name after which they come, the one before which they do
    /// ([`end_of`] a beginning), how many.
    pub(super) fn metadata_page(self) -> String {
        let c = self.by_bytes();
        self.worded(format!(
            "SELECT name, value FROM metadata WHERE name{c} > $1 AND name{c} < $2 ORDER BY name{c} LIMIT $3"
        ))
    }
}

/// The least text by bytes that comes after all that begin so. (What names begin with ends with a sign of ASCII.)
pub(super) fn end_of(beginning: &str) -> String {
    let mut end = beginning.to_owned();
    match end.pop() {
        Some(last) if last < char::MAX => {
            end.extend(char::from_u32(u32::from(last) + 1).or(Some('\u{e000}')));
            end
        }
        // After everything.
        _ => char::MAX.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::database::Opening;
    use crate::ledger::sqlite::Sqlite;

    #[test]
    fn the_end_of_a_beginning_comes_after_all_that_begin_so_and_before_all_else() {
        for beginning in ["awaiting_pin:test:host|", "account:live:host:", "a", "\u{d7ff}"] {
            let end = end_of(beginning);
            assert!(
                *format!("{beginning}{}", char::MAX) < *end && *beginning < *end,
                "{beginning:?} {end:?}"
            );
            assert!(!end.starts_with(beginning), "{end:?}");
        }
        assert_eq!(end_of("awaiting_pin:x|"), "awaiting_pin:x}");
    }

    /// SQLite's plan for a statement.
    fn plan(connection: &rusqlite::Connection, select: &str, parameters: usize) -> String {
        let mut explained = connection.prepare(&format!("EXPLAIN QUERY PLAN {select}")).unwrap();
        let values = vec!["1"; parameters];
        let lines = explained.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
        lines.unwrap().map(Result::unwrap).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn sqlite_reads_each_page_from_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.db");
        Sqlite::open(&format!("sqlite://{}", file.display()), Opening::Making).unwrap().close();
        let connection = rusqlite::Connection::open(file).unwrap();
        let only = |kind, noted| Only { kind, noted, with: None };
        for (only, index) in [
            (only(None, false), "steps_by_batch"),
            (only(Some(Kind::AwaitingPin), false), "steps_awaiting_pin"),
            (only(Some(Kind::Refused), false), "steps_refused"),
            (only(None, true), "steps_noted"),
        ] {
            let plan = plan(&connection, &Sql::Sqlite.batch_page(&only), 5);
            assert!(
                plan.contains(&format!("USING INDEX {index} (scope=? AND batch=? AND ")),
                "{only:?}: {plan}"
            );
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{only:?}: {plan}");
        }
        let same = plan(&connection, &Sql::Sqlite.same_content(), 2);
        assert!(same.contains("USING INDEX steps_by_content (scope=? AND content=?)"), "{same}");
        let plan = plan(&connection, &Sql::Sqlite.metadata_page(), 3);
        assert!(plan.contains("(name>? AND name<?)"), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
