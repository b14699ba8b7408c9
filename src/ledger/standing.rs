//! Where a ledger stands among those that it was moved to or from.
//!
//! While it moves, and ever after, the ledger that it moves from is written to by nobody: triggers refuse each write, whichever
//! embosser makes it, also one that has had the ledger open since before, and the version number that an earlier embosser looks at
//! refuses it a new connection. The ledger that it moves to refuses everybody likewise until all of it is there: only who moves the
//! other one there writes to it, each time within one transaction, for which alone the triggers let it pass. So at no time do two
//! ledgers serve, and a process that goes on with the wrong one makes no call: it cannot record its attempt.

use serde::{Deserialize, Serialize};

use super::LedgerError;
use super::schema::{READ_FROM, READ_FROM_VERSION, VERSION};
use super::tables::{TABLES, Values};

/// Under which name of the metadata it stands.
pub(super) const STANDING: &str = "ledger_standing";
/// Under which name a ledger that was moved says by which move it came.
pub(super) const CAME_BY: &str = "ledger_came_by";
/// The version of a ledger with a standing, and from which version on it may be used: no embosser ever knows it.
pub(super) const NO_VERSION: i64 = 1_000_000_000;

/// How a refusal of the triggers begins, with the place that it names after it.
const MOVED: &str = "this ledger was moved to ";
const MOVING: &str = "this ledger is being moved to ";
const RECEIVING: &str = "another ledger is being moved to this one, from ";
/// A setting of a session in PostgreSQL: by which move it writes.
const WRITES_BY: &str = "embosser.writes_by_move";

/// Why a ledger does not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum Standing {
    /// It is being moved away.
    Moving {
        /// The move's own id.
        id: String,
        /// Where to, as people are shown it.
        to: String,
        /// The version that its tables have.
        version: i64,
    },
    /// It was moved away.
    Moved {
        /// The move's own id.
        id: String,
        /// Where to.
        to: String,
    },
    /// Another one is being moved here.
    Receiving {
        /// The move's own id.
        id: String,
        /// Where from.
        from: String,
        /// The version that its tables have.
        version: i64,
        /// What was written last: of which table, and that row's key.
        at: Option<(String, Values)>,
    },
}

impl Standing {
    pub(super) fn of_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialise")
    }

    /// Whether another version's move cannot be gone on with: it may know other tables.
    pub(super) fn is_of_another_version(&self) -> Option<i64> {
        match self {
            Self::Moving { version, .. } | Self::Receiving { version, .. } => {
                Some(*version).filter(|version| *version != VERSION)
            }
            Self::Moved { .. } => None,
        }
    }

    /// What the triggers say.
    fn refusal(&self) -> String {
        match self {
            Self::Moving { to, .. } => format!("{MOVING}{to}"),
            Self::Moved { to, .. } => format!("{MOVED}{to}"),
            Self::Receiving { from, .. } => format!("{RECEIVING}{from}"),
        }
    }

    /// What whoever opens it is told.
    pub(super) fn error(&self, ledger: &str) -> LedgerError {
        let ledger = ledger.to_owned();
        match self {
            Self::Moving { to, .. } => LedgerError::Moving { ledger, to: to.clone() },
            Self::Moved { to, .. } => LedgerError::Moved { ledger, to: to.clone() },
            Self::Receiving { from, .. } => LedgerError::Receiving { ledger, from: from.clone() },
        }
    }
}

/// What whoever opens a ledger of [`NO_VERSION`] is told.
pub(super) fn refused(found: Option<&str>, ledger: &str) -> LedgerError {
    match found.and_then(Standing::of_json) {
        Some(standing) => standing.error(ledger),
        None => LedgerError::Newer { ledger: ledger.to_owned(), found: NO_VERSION, known: VERSION },
    }
}

/// What a database's message means if the triggers said it.
pub(super) fn told_by(message: &str, ledger: &str) -> Option<LedgerError> {
    let ledger = ledger.to_owned();
    if let Some(to) = message.strip_prefix(MOVED) {
        return Some(LedgerError::Moved { ledger, to: to.to_owned() });
    }
    if let Some(from) = message.strip_prefix(RECEIVING) {
        return Some(LedgerError::Receiving { ledger, from: from.to_owned() });
    }
    message.strip_prefix(MOVING).map(|to| LedgerError::Moving { ledger, to: to.to_owned() })
}

/// A text within a statement.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

/// The statements after which one transaction writes to a ledger in SQLite, whatever its standing; [`of_sqlite`] ends it.
pub(super) fn unguarded_in_sqlite() -> Vec<String> {
    let mut statements = Vec::new();
    for table in &TABLES {
        for event in ["insert", "update", "delete"] {
            statements.push(format!("DROP TRIGGER IF EXISTS embosser_moved_{}_{event}", table.name));
        }
    }
    statements
}

/// The same in PostgreSQL, for the move that is written here: a setting that ends with the transaction, so that nobody waits for the
/// locks of a trigger that is taken away.
pub(super) fn unguarded_in_postgres(standing: &Standing) -> String {
    let id = match standing {
        Standing::Moving { id, .. } | Standing::Moved { id, .. } | Standing::Receiving { id, .. } => id,
    };
    format!("SET LOCAL {WRITES_BY} = {}", quoted(id))
}

/// The statements that give a ledger in SQLite a standing, or none; within one transaction.
pub(super) fn of_sqlite(standing: Option<&Standing>) -> Vec<String> {
    let mut statements = unguarded_in_sqlite();
    statements.extend(marked(standing));
    let version = standing.map_or(VERSION, |_| NO_VERSION);
    statements.push(format!("PRAGMA user_version = {version}"));
    if let Some(standing) = standing {
        for table in &TABLES {
            for event in ["insert", "update", "delete"] {
                statements.push(format!(
                    "CREATE TRIGGER embosser_moved_{0}_{event} BEFORE {event} ON {0} BEGIN SELECT RAISE(ABORT, {1}); END",
                    table.name,
                    quoted(&standing.refusal())
                ));
            }
        }
    }
    statements
}

/// The same in PostgreSQL.
pub(super) fn of_postgres(standing: Option<&Standing>) -> Vec<String> {
    let mut statements: Vec<String> = TABLES
        .iter()
        .map(|table| format!("DROP TRIGGER IF EXISTS embosser_moved_{0} ON {0}", table.name))
        .collect();
    statements.extend(marked(standing));
    statements.push(format!("DELETE FROM embosser_ledger WHERE version = {NO_VERSION}"));
    if let Some(standing) = standing {
        statements.push(format!("INSERT INTO embosser_ledger (version) VALUES ({NO_VERSION})"));
        let refusal = format!("RAISE EXCEPTION '%', {};", quoted(&standing.refusal()));
        let body = match standing {
            Standing::Receiving { id, .. } => format!(
                "BEGIN IF current_setting('{WRITES_BY}', true) IS DISTINCT FROM {} THEN {refusal} END IF; RETURN NULL; END",
                quoted(id)
            ),
            Standing::Moving { .. } | Standing::Moved { .. } => format!("BEGIN {refusal} END"),
        };
        statements.push(format!(
            "CREATE OR REPLACE FUNCTION embosser_moved() RETURNS trigger LANGUAGE plpgsql AS {}",
            quoted(&body)
        ));
        statements.extend(TABLES.iter().map(|table| {
            format!(
                "CREATE TRIGGER embosser_moved_{0} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {0}
                 FOR EACH STATEMENT EXECUTE FUNCTION embosser_moved()",
                table.name
            )
        }));
    }
    statements
}

/// The statement that gives a name of the metadata a value.
pub(super) fn set(name: &str, value: &str) -> String {
    format!(
        "INSERT INTO metadata (name, value) VALUES ({}, {}) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        quoted(name),
        quoted(value)
    )
}

/// The names of the metadata that say so.
fn marked(standing: Option<&Standing>) -> Vec<String> {
    match standing {
        Some(standing) => {
            vec![set(STANDING, &standing.to_json()), set(READ_FROM, &NO_VERSION.to_string())]
        }
        None => vec![
            format!("DELETE FROM metadata WHERE name = {}", quoted(STANDING)),
            set(READ_FROM, &READ_FROM_VERSION.to_string()),
        ],
    }
}
