//! Ledgers that are moved to where somebody is already, and moves that are given up.

use embosser::ledger::{Begin, Ledger, LedgerError, Row};

use super::filled::{
    are_same, empty_database, exported, in_file, in_sqlite, ledger, on_server, path, program,
};
use super::moved::{PLACES, killed_at, new_row, serves_nobody};
use super::support::postgres::Postgres;
use super::support::sqlite;

/// Both are moved to: a file, and a database on a server.
async fn targets(server: &Postgres, directory: &tempfile::TempDir) -> [String; 2] {
    [sqlite(&path(directory, "b.db")), empty_database(server, "cards").await]
}

async fn begins(ledger: &Ledger, row: Row) {
    let begun = ledger.begin(row, None).await.unwrap();
    assert!(matches!(begun, Begin::Recorded(_)), "{begun:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_new_ledger_open_already_records_nothing_until_all_is_there() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    for (number, to) in targets(&server, &directory).await.into_iter().enumerate() {
        let from = in_sqlite(&path(&directory, &format!("a{number}.db"))).await;
        let before = exported(&program, &from).await;
        let open = Ledger::open(&to).await.unwrap();
        open.probe_write().await.unwrap();
        for place in PLACES {
            killed_at(&program, place, &from, &to).await;
            serves_nobody(&to, &open, new_row().await).await;
            // Nor does one that knows nothing of moves.
            let written = "INSERT INTO metadata (name, value) VALUES ('x', 'y')";
            let refused = match to.starts_with("sqlite") {
                true => rusqlite::Connection::open(path(&directory, "b.db"))
                    .unwrap()
                    .execute_batch(written)
                    .unwrap_err()
                    .to_string(),
                false => on_server(&to, written).await.unwrap_err().to_string(),
            };
            assert!(refused.contains("another ledger is being moved to this one, from sqlite:"), "{refused}");
        }
        ledger(&program, &["move", &from, &to], 0).await;
        are_same(&exported(&program, &to).await, &before);
        open.close().await;
        let open = Ledger::open(&to).await.unwrap();
        begins(&open, new_row().await).await;
        open.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_came_before_the_mark_is_kept_and_nothing_moves_there() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    let from = in_sqlite(&path(&directory, "a.db")).await;
    for to in targets(&server, &directory).await {
        killed_at(&program, "move_received:1", &from, &to).await;
        // As if it had come between the look and the mark.
        let row = "INSERT INTO batches (scope, batch, manifest_rows, began_ms) VALUES ('s', 'b', 1, 1)";
        match to.starts_with("sqlite") {
            true => in_file(
                &path(&directory, "b.db"),
                &format!("DROP TRIGGER embosser_moved_batches_insert; {row}"),
            ),
            false => on_server(&to, &format!("DROP TRIGGER embosser_moved_batches ON batches; {row}"))
                .await
                .unwrap(),
        }
        let told = ledger(&program, &["move", &from, &to], 2).await;
        assert!(told.contains("is not empty"), "{told}");
        // Both serve as they did.
        for place in [&from, &to] {
            let open = Ledger::open(place).await.unwrap();
            open.probe_write().await.unwrap();
            open.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_given_up_until_its_last_mark_and_only_by_its_own_names() {
    let (server, directory) = (Postgres::start(), tempfile::tempdir().unwrap());
    let program = program(directory.path());
    let wrong = sqlite(&path(&directory, "wrong.db"));
    for (number, to) in targets(&server, &directory).await.into_iter().enumerate() {
        let from = in_sqlite(&path(&directory, &format!("a{number}.db"))).await;
        let abandon = ["move", "--abandon", &from, &to];
        let before = exported(&program, &from).await;
        let open = Ledger::open(&from).await.unwrap();
        let told = ledger(&program, &abandon, 2).await;
        assert!(told.contains("is not being moved"), "{told}");

        // Between the first two marks: the new one is as it was.
        killed_at(&program, "move_received:1", &from, &to).await;
        open.probe_write().await.unwrap();
        ledger(&program, &abandon, 0).await;
        Ledger::open(&to).await.unwrap().close().await;

        for place in ["move_began:1", "move_marked:1"] {
            killed_at(&program, place, &from, &to).await;
            let told = ledger(&program, &["move", "--abandon", &from, &wrong], 2).await;
            assert!(told.contains(&format!("name {to}")), "{told}");
            serves_nobody(&from, &open, new_row().await).await;
            let told = ledger(&program, &abandon, 0).await;
            assert!(told.contains(&format!("copied to {to} serves nobody")), "{told}");
            open.probe_write().await.unwrap();
            are_same(&exported(&program, &from).await, &before);
            let target = Ledger::open(&to).await;
            assert!(matches!(target, Err(LedgerError::Receiving { .. })), "{place}: {:?}", target.err());
        }
        let told = ledger(&program, &["move", &from, &to], 2).await;
        assert!(told.contains("if it was given up, drop that database"), "{told}");
        begins(&open, new_row().await).await;
        open.close().await;
    }
    assert!(!path(&directory, "wrong.db").exists());
}
