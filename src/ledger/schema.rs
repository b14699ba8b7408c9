//! The ledger's tables, and how a ledger of an earlier version becomes one of this.
//!
//! Version 1 knew jobs with one step, a card, and overwrote their rows. Version 2 knows the steps of a job, each with a
//! version number for the compare-and-set, a digest of what is asked for, and an output of any kind. An embosser that
//! knows version 1 only refuses a ledger of version 2; one that runs while it is brought to version 2 halts at its next
//! write, before it calls. Version 3 has the audit log beside the same tables: an embosser that knows version 2 only
//! refuses it, and one that runs while it is brought to version 3 goes on.

use super::select::Sql;

/// The newest version this embosser knows. Indexes are no part of it ([`super::select::INDEXES`]): what works with them works without.
pub(super) const VERSION: i64 = 3;

/// Under which name of the metadata it stands from which version on an embosser may use this ledger: one that is a version behind
/// goes on, as what a version adds stands beside what is there. A later version that changes what is there says so by a later number.
pub(super) const READ_FROM: &str = "ledger_read_from";
/// The number itself.
pub(super) const READ_FROM_VERSION: i64 = 2;

/// What an attempt and its end ask of the database; taken back, so that nobody ever reads it. A database may let somebody
/// write to one table and not to another.
pub(super) const PROBE: [&str; 2] = [
    "INSERT INTO steps (scope, job_id, step, version, batch, row_number, content, state, generation, attempts, written_ms)
     VALUES ('probe', 'probe', 'probe', 1, 'probe', 0, '', 'begun', 0, 0, 0)",
    "UPDATE steps SET version = 2, state = 'refused' WHERE scope = 'probe' AND job_id = 'probe' AND step = 'probe'",
];

/// What makes version 2 of nothing. `INTEGER` is `BIGINT` to PostgreSQL.
fn tables(sql: Sql, integer: &str, without_rowid: &str) -> Vec<String> {
    let key_order = sql.by_bytes();
    vec![
        format!(
            "CREATE TABLE steps (
            scope TEXT NOT NULL, job_id TEXT NOT NULL, step TEXT NOT NULL, version {integer} NOT NULL,
            batch TEXT NOT NULL, row_number {integer} NOT NULL, row_id TEXT, content TEXT NOT NULL, pin TEXT,
            state TEXT NOT NULL CHECK (state IN ('begun', 'done', 'refused')),
            generation {integer} NOT NULL, key_began_ms {integer}, attempted_ms {integer}, attempts {integer} NOT NULL,
            output TEXT, error_code TEXT, error_message TEXT, request_id TEXT, note TEXT,
            written_ms {integer} NOT NULL, PRIMARY KEY (scope, job_id, step)){without_rowid}"
        ),
        format!("CREATE INDEX steps_by_batch ON steps (scope, batch, row_number, job_id{key_order})"),
        "CREATE INDEX steps_by_content ON steps (scope, content)".to_owned(),
        format!(
            "CREATE TABLE IF NOT EXISTS batches (
            scope TEXT NOT NULL, batch TEXT NOT NULL, digest TEXT, manifest_rows {integer} NOT NULL,
            began_ms {integer} NOT NULL, PRIMARY KEY (scope, batch)){without_rowid}"
        ),
        format!("CREATE TABLE metadata (name TEXT PRIMARY KEY, value TEXT NOT NULL){without_rowid}"),
    ]
}

/// What makes version 2 of version 1.
fn from_version_1(json_object: &str) -> [String; 3] {
    [
        format!(
            "INSERT INTO steps (scope, job_id, step, version, batch, row_number, row_id, content, state, generation,
                key_began_ms, attempted_ms, attempts, output, error_code, error_message, request_id, written_ms)
            SELECT scope, job_id, 'create_card', 1, batch, row_number, row_id, substr(fingerprint, 1, 32),
                CASE state WHEN 'issued' THEN 'done' ELSE state END, generation, key_began_ms, attempted_ms, attempts,
                CASE WHEN card_id IS NOT NULL THEN {json_object} END,
                error_code, error_message, request_id, written_ms
            FROM jobs"
        ),
        "DROP INDEX IF EXISTS jobs_by_batch".to_owned(),
        "DROP TABLE jobs".to_owned(),
    ]
}

/// The audit log's table, whose rows are only ever added.
fn audit(number: &str, integer: &str) -> Vec<String> {
    vec![
        format!(
            "CREATE TABLE audit (
            id {number}, key TEXT NOT NULL UNIQUE, time_ms {integer} NOT NULL, scope TEXT NOT NULL, who TEXT NOT NULL,
            role TEXT, action TEXT NOT NULL, batch TEXT, job TEXT, row_count {integer}, digest TEXT, detail TEXT)"
        ),
        "CREATE INDEX audit_by_batch ON audit (batch, id)".to_owned(),
        "CREATE INDEX audit_by_who ON audit (who, id)".to_owned(),
    ]
}

/// Who would change or delete an entry is refused; also who would put another in its place (SQLite's INSERT OR REPLACE fires
/// no trigger for the row that goes).
const AUDIT_IS_KEPT_BY_SQLITE: [&str; 3] = [
    "CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
    "CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
    "CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id OR key = NEW.key)
        BEGIN SELECT RAISE(ABORT, 'the audit log is only ever added to'); END",
];

/// The same in PostgreSQL, where a table can be emptied as a whole, too.
const AUDIT_IS_KEPT_BY_POSTGRES: [&str; 2] = [
    "CREATE FUNCTION embosser_audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'the audit log is only ever added to'; END $$",
    "CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION embosser_audit_is_kept()",
];

/// The statements that bring an SQLite ledger of this version to the newest.
pub(super) fn of_sqlite(found: i64) -> Vec<String> {
    let mut statements = Vec::new();
    if found < 2 {
        statements.extend(tables(Sql::Sqlite, "INTEGER", " WITHOUT ROWID"));
    }
    if found == 1 {
        let card = "json_object('id', card_id, 'last4', last4, 'exp_month', exp_month, 'exp_year', exp_year)";
        statements.extend(from_version_1(card));
    }
    statements.extend(audit("INTEGER PRIMARY KEY AUTOINCREMENT", "INTEGER"));
    statements.extend(AUDIT_IS_KEPT_BY_SQLITE.map(str::to_owned));
    statements
}

/// The statements that bring a ledger in PostgreSQL of this version to the newest.
pub(super) fn of_postgres(found: i64) -> Vec<String> {
    let mut statements = Vec::new();
    if found < 2 {
        statements.extend(tables(Sql::Postgres, "BIGINT", ""));
    }
    if found == 1 {
        let card = "json_build_object('id', card_id, 'last4', last4, 'exp_month', exp_month, 'exp_year', exp_year)::text";
        statements.extend(from_version_1(card));
    }
    statements.extend(audit("BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "BIGINT"));
    statements.extend(AUDIT_IS_KEPT_BY_POSTGRES.map(str::to_owned));
    statements
}
