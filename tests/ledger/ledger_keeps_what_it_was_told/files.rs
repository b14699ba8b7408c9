//! Ledgers of other versions, and files that are closed, taken away or no ledger of ours.

use std::path::Path;

use embosser::job::JobId;
use embosser::ledger::{Begin, Ledger, LedgerError, Row, Scope, State, Version};
use embosser::outcome::Output;

use super::support::postgres::Postgres;
use super::support::sqlite;
use super::{issued, row, scope, write};

/// What a ledger of the first version says after it was opened by this one.
async fn says_what_it_said(ledger: &Ledger, id: &str, refused_id: &str, begun_id: &str) {
    let scope = Scope::new("test", "127.0.0.1:18099", None);
    let row = async |id: &str| {
        ledger.look_up(&scope, &JobId::new(id).unwrap()).await.unwrap().expect("it is there")
    };
    let State::Done(Output::Issued(card)) = row(id).await.state else { panic!("issued") };
    assert!(card.id.starts_with("ic_sandbox") && card.last4.len() == 4 && card.exp_year == 2030, "{card:?}");
    let refused = row(refused_id).await;
    assert!(matches!(&refused.state, State::Refused(refusal) if refusal.code == "stale_key"), "{refused:?}");
    let begun = row(begun_id).await;
    assert_eq!((begun.state.clone(), begun.attempts, begun.version), (State::Begun, 1, Version(1)));
    assert!(begun.key_began.is_some() && begun.attempted.is_some());
    // An attempt goes on from it.
    let again = ledger.begin(Row { attempts: 2, ..begun.clone() }, Some(&begun)).await.unwrap();
    assert!(matches!(again, Begin::Recorded(receipt) if receipt.row().version == Version(2)));
    let same = ledger.same_content(&scope, vec![begun.content]).await.unwrap();
    assert!(same.iter().any(|same| same.id == begun.id), "{same:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_the_first_version_says_what_it_said() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    std::fs::copy(fixtures.join("ledger-v1.db"), &file).unwrap();
    let url = sqlite(&file);
    let (one, other) = tokio::join!(Ledger::open(&url), Ledger::open(&url));
    let (ledger, other) = (one.unwrap(), other.unwrap());
    says_what_it_said(&ledger, "staff/E00001", "more/F00001", "third/E00016").await;
    let counts = ledger.counts().await.unwrap();
    let total = counts.iter().fold((0, 0, 0), |(issued, refused, unresolved), batch| {
        (issued + batch.issued, refused + batch.refused, unresolved + batch.unresolved)
    });
    assert_eq!(total, (11, 9, 1));
    ledger.close().await;
    other.close().await;

    let server = Postgres::start();
    let sql = std::fs::read_to_string(fixtures.join("ledger-v1.sql")).unwrap();
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&server.url()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let ledger = Ledger::open(&server.url()).await.unwrap();
    says_what_it_said(&ledger, "staff/P00004", "staff/P00001", "third/Q00016").await;
    ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_end_the_file_alone_is_the_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    for round in 0..10 {
        let ledger = Ledger::open(&sqlite(&file)).await.unwrap();
        write(&ledger, row(&format!("row {round}"), issued())).await;
        ledger.close().await;
        assert!(!directory.path().join("ledger.db-wal").exists(), "round {round}");
        let copy = directory.path().join("copy.db");
        std::fs::copy(&file, &copy).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        let rows: u32 = connection.query_row("SELECT count(*) FROM steps", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_taken_away_while_it_is_used_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    for replaced in [false, true] {
        let ledger = Ledger::open(&sqlite(&file)).await.unwrap();
        write(&ledger, row("one", State::Begun)).await;
        std::fs::rename(&file, directory.path().join("elsewhere.db")).unwrap();
        if replaced {
            std::fs::write(&file, b"").unwrap();
        }
        let written = ledger.begin(row("two", State::Begun), None).await;
        assert!(matches!(written, Err(LedgerError::Replaced(_))), "{written:?}");
        let asked = ledger.look_up(&scope(), &JobId::new("one").unwrap()).await;
        assert!(matches!(asked, Err(LedgerError::Replaced(_))), "{asked:?}");
        ledger.close().await;
        let _ = std::fs::remove_file(&file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_foreign_ledger_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let url = sqlite(&directory.path().join("ledger.db"));
    Ledger::open(&url).await.unwrap().close().await;
    let connection = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    // What a newer version adds stands beside what is there, until one says that it does not.
    Ledger::open(&url).await.unwrap().close().await;
    connection.execute("UPDATE metadata SET value = '99' WHERE name = 'ledger_read_from'", []).unwrap();
    connection.close().unwrap();
    let newer = Ledger::open(&url).await.err().unwrap();
    assert!(matches!(newer, LedgerError::Newer { found: 99, .. }), "{newer}");
    let foreign = directory.path().join("notes.txt");
    std::fs::write(&foreign, "my notes, which no program should overwrite ".repeat(100)).unwrap();
    let error = Ledger::open(&sqlite(&foreign)).await.err().unwrap().to_string();
    assert!(error.contains("not a database"), "{error}");
    assert!(std::fs::read_to_string(foreign).unwrap().starts_with("my notes"));
}
