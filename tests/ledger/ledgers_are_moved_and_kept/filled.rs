//! Ledgers with rows of every state in every table, and `embosser ledger` on them.

use std::path::{Path, PathBuf};
use std::process::Output;

use embosser::ledger::{AuditEntry, Ledger, Scope};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::support::postgres::Postgres;
use super::support::{Program, sqlite};

/// More rows than are moved in two pieces.
pub(crate) const ROWS: u64 = 5_000;

/// In both databases' words. Every state, texts that databases order and fold in ways of their own, the ends of what numbers hold, and
/// nulls wherever there may be one.
const FILLED: &str = "
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 5000)
    INSERT INTO steps (scope, job_id, step, version, batch, row_number, row_id, content, pin, state, generation, key_began_ms,
            attempted_ms, attempts, output, error_code, error_message, request_id, note, written_ms)
        SELECT 'test:h:acct_1', 'b/' || n, 'create_card', n % 7 + 1, 'b', n, 'r' || n, '00000000000000000000000000000000', '0123456789abcdef',
            CASE n % 5 WHEN 0 THEN 'begun' WHEN 1 THEN 'refused' WHEN 2 THEN 'refused' ELSE 'done' END, n % 3,
            1700000000000 + n, 1700000000001 + n, 1,
            CASE WHEN n % 5 > 2 THEN '{\"id\":\"ic_' || n || '\",\"last4\":\"0042\",\"exp_month\":12,\"exp_year\":2031}' END,
            CASE n % 5 WHEN 1 THEN 'card_declined' WHEN 2 THEN 'awaiting_pin' END,
            CASE n % 5 WHEN 1 THEN 'Stripe said no' WHEN 2 THEN 'waits for its cardholder to choose the PIN' END,
            CASE WHEN n % 2 = 0 THEN 'req_' || n END, CASE WHEN n % 9 = 0 THEN 'seen' END, 1700000000002 + n FROM counted;
    INSERT INTO steps (scope, job_id, step, version, batch, row_number, content, state, generation, attempts, error_code,
            error_message, written_ms, output) VALUES
        ('test:h', 'Ä b/é', 'create_card', 9223372036854775807, 'Ä b', 9223372036854775807, '0123456789abcdef0123456789abcdef',
            'refused', 4294967295, 4294967295, 'jwe_kid', 'line
two: \"quoted\" ''single'' \\ back, tab	and 😀 é é ß', -9223372036854775807, NULL),
        ('test:h', 'Z', 'create_card', 1, 'z', 0, '0123456789abcdef0123456789abcdef', 'refused', 0, 0, 'x', '', 0, NULL),
        ('test:h', 'a', 'update_card', 1, 'z', 0, '0123456789abcdef0123456789abcdef', 'refused', 0, 0, 'job_conflict',
            'ic_9 has this id', 1, NULL),
        ('test:h', 'a', 'first:create_cardholder', 2, 'z', 0, '0123456789abcdef0123456789abcdef', 'done', 0, 1, NULL, NULL, 1,
            '{\"id\":\"ich_1\",\"status\":\"active\"}'),
        ('live:h:acct_2', 'b/1', 'create_card', 2, 'b', 1, '0123456789abcdef0123456789abcdef', 'done', 0, 1, NULL, NULL, 1,
            '{\"id\":\"ic_x\",\"last4\":\"0042\",\"exp_month\":12,\"exp_year\":2031}');
    INSERT INTO batches (scope, batch, digest, manifest_rows, began_ms) VALUES
        ('test:h:acct_1', 'b', 'abc', 5000, 1700000000000), ('test:h', 'Ä b', NULL, 0, 0), ('test:h', 'z', '', 3, 9007199254740993);
    INSERT INTO metadata (name, value) VALUES
        ('account:test:h:0f', 'acct_1'), ('awaiting_pin:test:h|b/2', '{\"job\":\"é 😀\"}'), ('mark:test:h:empty', '17'),
        ('shipping:test:h|ic_3', '{\"shipping\":{\"status\":\"delivered\",\"tracking_number\":\"T1\"},\"at\":1700000000}'),
        ('shipping:test:h|ic_4', '{\"shipping\":{\"status\":\"shipped\",\"tracking_number\":\"T2\"},\"at\":1700000000}'),
        ('change:test:h:ic_1', 'b/3'), ('webhook:x', '{}'), ('ÄNDERUNG', ''), ('zz', '\\');";

/// A file with such a ledger; its address.
pub(crate) async fn in_sqlite(file: &Path) -> String {
    let url = sqlite(file);
    let ledger = Ledger::open(&url).await.unwrap();
    for number in 0..3 {
        ledger.add_audit_entry(entry(number)).await.unwrap();
    }
    ledger.close().await;
    in_file(file, FILLED);
    url
}

/// Anything in a file.
pub(crate) fn in_file(file: &Path, statements: &str) {
    rusqlite::Connection::open(file).unwrap().execute_batch(statements).unwrap();
}

/// Anything in a database on a server.
pub(crate) async fn on_server(url: &str, statements: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let run = sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await;
    run.map(|_| ())
}

pub(crate) fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        id: 0,
        time: embosser::clock::Time::from_unix_ms(1_700_000_000_000),
        scope: Scope::new("test", "h", None),
        who: "zoë".into(),
        role: None,
        action: "upload".into(),
        batch: Some("b".into()),
        job: None,
        rows: Some(number),
        digest: None,
        detail: Some("😀".into()),
    }
}

/// A database whose own order of texts is a language's, and not the bytes'.
pub(crate) async fn empty_database(server: &Postgres, name: &str) -> String {
    let make = format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'en'"
    );
    on_server(&server.url(), &make).await.unwrap();
    format!("{}{name}", server.url().strip_suffix("postgres").unwrap())
}

/// The program, without a Stripe.
pub(crate) fn program(directory: &Path) -> Program {
    let place = ("XDG_STATE_HOME".to_owned(), directory.display().to_string());
    Program { directory: directory.to_owned(), environment: vec![place] }
}

pub(crate) fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `embosser ledger …`, which must end so.
pub(crate) async fn ledger(program: &Program, arguments: &[&str], wanted: i32) -> String {
    let output = program.run(&[&["ledger"], arguments].concat()).await;
    assert_eq!(code(&output), Some(wanted), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// The lines of an export, but for the first, which names the ledger.
pub(crate) async fn exported(program: &Program, url: &str) -> Vec<String> {
    let output = program.run(&["ledger", "export", "--ledger", url]).await;
    assert_eq!(code(&output), Some(0), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::to_owned).collect()
}

/// Fails unless both have the same rows.
pub(crate) fn are_same(one: &[String], other: &[String]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        assert_eq!(one, other);
    }
}

pub(crate) fn path(directory: &tempfile::TempDir, name: &str) -> PathBuf {
    directory.path().join(name)
}
