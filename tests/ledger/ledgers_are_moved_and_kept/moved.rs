//! Ledgers that are moved.

use embosser::clock::{Clock, Time};
use embosser::ledger::{AuditQuery, LeaseError, Leased, Ledger, LedgerError, Order, Row, Scope, State};
use embosser::sandbox::Options;

use super::filled::{
    ROWS, are_same, code, empty_database, entry, exported, in_file, in_sqlite, ledger, on_server, path,
    program, said,
};
use super::support::issuing::{Issuing, ended, issue};
use super::support::postgres::Postgres;
use super::support::{Program, client_of, line, one_card_each, sqlite};

/// Neither a new process nor one that has it open writes to it, or calls for one of its accounts.
pub(crate) async fn serves_nobody(url: &str, open: &Ledger, row: Row) {
    let is_refused = |error: &LedgerError| {
        matches!(
            error,
            LedgerError::Moved { .. } | LedgerError::Moving { .. } | LedgerError::Receiving { .. }
        )
    };
    for opened in [Ledger::open(url).await, Ledger::open_existing(url).await] {
        assert!(opened.as_ref().is_err_and(is_refused), "{:?}", opened.err());
    }
    let leased = open.lease(&row.scope, &Clock::system()).await;
    assert!(matches!(&leased, Err(LeaseError::Ledger(error)) if is_refused(error)), "{leased:?}");
    let begun = open.begin(row, None).await;
    assert!(begun.as_ref().is_err_and(is_refused), "{begun:?}");
    let probed = open.probe_write().await;
    assert!(probed.as_ref().is_err_and(is_refused), "{probed:?}");
    let added = open.add_audit_entry(entry(9)).await;
    assert!(added.as_ref().is_err_and(is_refused), "{added:?}");
}

pub(crate) async fn new_row() -> Row {
    let sandbox = embosser::sandbox::Sandbox::start(Options::default()).await.unwrap();
    let job = line::job(&sandbox, "new/1", "eur", None).await;
    sandbox.stop().await;
    Row::of(&Scope::new("test", "h", Some("acct_1")), &job, State::Begun, Time::from_unix_ms(1))
}

/// Where a move is killed, in its order.
pub(crate) const PLACES: [&str; 6] =
    ["move_received:1", "move_began:1", "move_piece:1", "move_piece:2", "move_compared:1", "move_marked:1"];

pub(crate) async fn killed_at(program: &Program, place: &str, from: &str, to: &str) {
    let killed = program.clone().with("EMBOSSER_KILL_AT", place).run(&["ledger", "move", from, to]).await;
    assert_eq!(code(&killed), None, "{place}: {}", said(&killed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_comes_over_whole_and_back_again() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    let (file, back) = (path(&directory, "a.db"), path(&directory, "b.db"));
    let (first, last) = (in_sqlite(&file).await, sqlite(&back));
    let second = empty_database(&server, "cards").await;
    let before = exported(&program, &first).await;
    assert!(before.len() as u64 > ROWS + 20, "{} lines", before.len());
    let open = Ledger::open(&first).await.unwrap();
    let told = ledger(&program, &["move", &first, &second], 0).await;
    assert!(told.contains("steps: 5,005 rows, the same in both") && told.contains(&second), "{told}");
    are_same(&exported(&program, &second).await, &before);
    serves_nobody(&first, &open, new_row().await).await;
    open.close().await;
    let told = ledger(&program, &["move", &first, &second], 0).await;
    assert!(told.contains("had been moved before"), "{told}");
    // So it is while somebody works there, who is not to end for it.
    let (scope, working) = (new_row().await.scope, Ledger::open(&second).await.unwrap());
    let lease = working.lease(&scope, &Clock::system()).await.unwrap();
    assert!(matches!(lease, Leased::Ours(_)), "{lease:?}");
    let told = ledger(&program, &["move", &first, &second], 0).await;
    assert!(told.contains("had been moved before"), "{told}");
    drop(lease);
    working.close().await;
    let told = ledger(&program, &["move", &first, &last], 2).await;
    assert!(told.contains(&format!("was moved to {second}")), "{told}");
    // The guard that an embosser looks at which knows nothing of moves.
    let version: i64 = rusqlite::Connection::open(&file)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert!(version > 1_000_000, "{version}");

    // It goes on there: the audit log's numbers, too.
    let open = Ledger::open(&second).await.unwrap();
    open.add_audit_entry(entry(7)).await.unwrap();
    let oldest = AuditQuery { order: Order::Oldest, ..AuditQuery::default() };
    let ids: Vec<u64> = open.audit_entries(oldest, 10).await.unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    let refused = on_server(&second, "DELETE FROM audit").await.unwrap_err().to_string();
    assert!(refused.contains("only ever added to"), "{refused}");
    let went_on = exported(&program, &second).await;
    ledger(&program, &["move", &second, &last], 0).await;
    are_same(&exported(&program, &last).await, &went_on);
    serves_nobody(&second, &open, new_row().await).await;
    open.close().await;
    let ledger = Ledger::open(&last).await.unwrap();
    ledger.add_audit_entry(entry(8)).await.unwrap();
    assert_eq!(ledger.audit_entries(AuditQuery::default(), 1).await.unwrap()[0].id, 5);
    ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_a_move_goes_on_and_two_never_serve() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    let from = in_sqlite(&path(&directory, "a.db")).await;
    let to = empty_database(&server, "cards").await;
    let before = exported(&program, &from).await;
    let open = Ledger::open(&from).await.unwrap();
    for place in PLACES {
        killed_at(&program, place, &from, &to).await;
        match place {
            // The other one is marked, and this one is not.
            "move_received:1" => open.probe_write().await.unwrap(),
            _ => serves_nobody(&from, &open, new_row().await).await,
        }
        let target = Ledger::open(&to).await;
        assert!(matches!(target, Err(LedgerError::Receiving { .. })), "{place}: {:?}", target.err());
    }
    ledger(&program, &["move", &from, &to], 0).await;
    let told = ledger(&program, &["move", &from, "--abandon", &to], 2).await;
    assert!(told.contains("cannot be given up any more"), "{told}");
    are_same(&exported(&program, &to).await, &before);
    serves_nobody(&from, &open, new_row().await).await;
    open.close().await;
    Ledger::open(&to).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_works_with_a_ledger_keeps_it_from_moving() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    let from = in_sqlite(&path(&directory, "a.db")).await;
    let to = empty_database(&server, "cards").await;
    let (scope, clock) = (Scope::new("test", "h", Some("acct_1")), Clock::system());
    for place in [&from, &to] {
        let working = Ledger::open(place).await.unwrap();
        let Leased::Ours(lease) = working.lease(&scope, &clock).await.unwrap() else {
            panic!("nobody else works")
        };
        let told = ledger(&program, &["move", &from, &to], 3).await;
        assert!(told.contains("works with the ledger") && told.contains("nothing was changed"), "{told}");
        assert!(lease.is_ours().await);
        working.probe_write().await.unwrap();
        drop(lease);
        working.close().await;
    }
    // Its end is told to the database by a task of its own.
    let began = std::time::Instant::now();
    let given_up = path(&directory, "given up.db");
    loop {
        let killed = program.clone().with("EMBOSSER_KILL_AT", "move_piece:1");
        let killed = killed.run(&["ledger", "move", &from, &to]).await;
        if code(&killed).is_none() {
            break;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{}", said(&killed));
    }
    let told = ledger(&program, &["move", &from, &sqlite(&given_up)], 2).await;
    assert!(told.contains("and not to"), "{told}");
    ledger(&program, &["move", &from, &to, "--abandon"], 0).await;
    let ledger_again = Ledger::open(&from).await.unwrap();
    ledger_again.probe_write().await.unwrap();
    ledger_again.close().await;
    let told = ledger(&program, &["move", &from, &to], 2).await;
    assert!(told.contains("holds a part of another move") && told.contains("drop that database"), "{told}");
    let told = ledger(&program, &["move", &from, &from], 2).await;
    assert!(told.contains("is the ledger that is to be moved"), "{told}");
    // Two ledgers are never mixed.
    let other = in_sqlite(&path(&directory, "other.db")).await;
    let told = ledger(&program, &["move", &from, &other], 2).await;
    assert!(told.contains("is not empty"), "{told}");
    // What PostgreSQL cannot hold is told before it is lost.
    in_file(
        &path(&directory, "other.db"),
        "UPDATE steps SET note = 'a' || char(0) || 'b' WHERE job_id = 'Z'",
    );
    let empty = empty_database(&server, "more").await;
    let told = ledger(&program, &["move", &other, &empty], 2).await;
    assert!(told.contains("\"Z\"") && told.contains("NUL"), "{told}");
    Ledger::open(&other).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_manifest_makes_no_second_card_on_the_new_ledger() {
    let (server, issuing) = (Postgres::start(), Issuing::with(Options::default()).await);
    let expected = issuing.manifest(12).await;
    let program = issuing.program();
    // Some are done, one was begun, and of that nobody knows the end.
    let killed = ended(issue(&program.clone().with("EMBOSSER_KILL_AT", "answered:5"), "20", &[])).await;
    assert_eq!(code(&killed), None, "{}", said(&killed));
    let (from, to) = (issuing.ledger("ledger.db"), empty_database(&server, "cards").await);
    ledger(&program, &["move", &from, &to], 0).await;
    let made = issuing.sandbox.account().cards.len();
    assert!((1..12).contains(&made), "{made}");
    let refused = ended(issue(&program, "20", &[])).await;
    assert_eq!(code(&refused), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains(&format!("was moved to {to}")), "{}", said(&refused));
    assert_eq!(issuing.sandbox.account().cards.len(), made, "a call was made for a ledger that was moved");
    let _ = client_of(&issuing.sandbox);
    for _ in 0..2 {
        let issued = ended(issue(&program, "20", &["--ledger", &to])).await;
        assert_eq!(code(&issued), Some(0), "{}", said(&issued));
        one_card_each(&issuing.sandbox.account(), &expected);
    }
}
