//! Promise: once the ledger says a row is written it survives, an issued row never changes, and a ledger that cannot
//! serve says why before anything is issued. The same for SQLite and PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::Command;

use embosser::card::CardRequest;
use embosser::clock::Time;
use embosser::job::{Batch, Generation, Job, JobId};
use embosser::ledger::{BatchRow, Ledger, LedgerError, Row, Scope, State};
use embosser::outcome::{Card, Refusal};
use embosser::sandbox::{Options, Sandbox};
use support::postgres::Postgres;
use support::{Program, expect_exit, write_manifest};

fn scope() -> Scope {
    Scope::new("test", "ledger.test", None)
}

fn row(id: &str, state: State) -> Row {
    let pairs = [("type", "virtual"), ("currency", "eur")].map(|(path, value)| (path.into(), value.into()));
    let card = CardRequest::from_pairs(pairs.into()).unwrap();
    let job = Job::new(JobId::new(id).unwrap(), Batch::new("b").unwrap(), None, card, None);
    let mut row = Row::of(&scope(), &job, state, Time::from_unix_ms(1_700_000_000_123));
    row.generation = Generation(3);
    row.key_began = Some(Time::from_unix_ms(1_700_000_000_001));
    row.attempted = Some(Time::from_unix_ms(1_700_000_000_002));
    row.attempts = 4;
    row.row = Some(17);
    row.row_id = Some("Ünïcode, \"quoted\" \\ 'id'".into());
    row.request_id = Some("req_1".into());
    row
}

fn issued() -> State {
    State::Issued(Card { id: "ic_1".into(), last4: "0042".into(), exp_month: 12, exp_year: 2031 })
}

fn refused() -> State {
    State::Refused(Refusal::own("stale_key", "encrypt again; \u{2028}'; DROP TABLE jobs; --"))
}

async fn found(ledger: &Ledger, id: &str) -> Option<Row> {
    ledger.look_up(&scope(), &JobId::new(id).unwrap()).await.unwrap()
}

async fn keeps_what_it_was_told(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    for (id, state) in [("begun", State::Begun), ("issued", issued()), ("refused", refused())] {
        let row = row(id, state);
        ledger.write(row.clone()).await.unwrap();
        assert_eq!(found(&ledger, id).await, Some(row));
    }
    assert_eq!(found(&ledger, "never heard of").await, None);
    // Several in one question are answered in its order.
    let ids = ["refused", "never heard of", "begun", "refused"];
    let asked = ids.map(|id| JobId::new(id).unwrap()).into();
    let together = ledger.look_up_all(&scope(), asked).await.unwrap();
    let known = [Some(refused()), None, Some(State::Begun), Some(refused())];
    assert_eq!(
        together,
        ids.into_iter().zip(known).map(|(id, state)| Some(row(id, state?))).collect::<Vec<_>>()
    );
    assert_eq!(ledger.look_up_all(&scope(), Vec::new()).await.unwrap(), []);
    // Issued is final; what is not may change.
    ledger.write(row("issued", State::Begun)).await.unwrap();
    assert_eq!(found(&ledger, "issued").await, Some(row("issued", issued())));
    ledger.write(row("refused", issued())).await.unwrap();
    assert_eq!(found(&ledger, "refused").await, Some(row("refused", issued())));
    // An end about other content than the row that is there is written whole, as is one of another batch.
    let mut moved = row("begun again", State::Begun);
    ledger.write(moved.clone()).await.unwrap();
    moved.batch = Batch::new("another").unwrap();
    (moved.row, moved.row_id) = (Some(3), None);
    moved.state = refused();
    ledger.write(moved.clone()).await.unwrap();
    assert_eq!(found(&ledger, "begun again").await, Some(moved.clone()));
    let page = ledger.batch_page(&scope(), &moved.batch, None, None, 10).await.unwrap();
    assert_eq!(page, [moved]);
    // Another account's row of the same name is another row.
    let elsewhere = Scope::new("live", "ledger.test", Some("acct_1"));
    assert_eq!(ledger.look_up(&elsewhere, &JobId::new("issued").unwrap()).await.unwrap(), None);
    ledger.close().await;
    // As after a restart.
    let ledger = Ledger::open(url).await.unwrap();
    assert_eq!(found(&ledger, "begun").await, Some(row("begun", State::Begun)));
    let counts = ledger.counts().await.unwrap();
    let all = counts.iter().fold((0, 0, 0), |(issued, refused, unresolved), batch| {
        (issued + batch.issued, refused + batch.refused, unresolved + batch.unresolved)
    });
    assert_eq!(all, (2, 1, 1));
    ledger.close().await;
}

async fn many_share_a_commit_and_come_back_in_order(url: &str) {
    const ROWS: u64 = 2_000;
    let ledger = Ledger::open(url).await.unwrap();
    let writes = (1..=ROWS).rev().map(|number| {
        let mut row = row(&format!("many/{number}"), State::Begun);
        row.batch = Batch::new("many").unwrap();
        row.row = Some(number);
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.write(row).await })
    });
    for write in writes.collect::<Vec<_>>() {
        write.await.unwrap().unwrap();
    }
    let commits = ledger.commits().commits.load(std::sync::atomic::Ordering::Relaxed);
    assert!(commits < ROWS / 4, "{commits} commits for {ROWS} rows");
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.batch_page(&scope(), &Batch::new("many").unwrap(), after, None, 300).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.row.unwrap(), last.id.clone()));
        seen.extend(page.iter().map(|row| row.row.unwrap()));
    }
    assert_eq!(seen, (1..=ROWS).collect::<Vec<_>>());
    ledger.close().await;
}

/// A job that writes twice into one group: whoever waited for its first write was cancelled.
async fn a_jobs_latest_word_counts_within_one_commit(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let writes: Vec<_> = (0..50)
        .map(|number| {
            let state = if number == 49 { issued() } else { State::Begun };
            let (ledger, row) = (ledger.clone(), row("twice", state));
            async move { ledger.write(row).await }
        })
        .collect();
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(found(&ledger, "twice").await.unwrap().state, issued());
    ledger.close().await;
}

async fn remembers_a_manifest_by_its_digest(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let batch = |name: &str| BatchRow {
        scope: scope(),
        batch: Batch::new(name).unwrap(),
        digest: Some("d1".into()),
        rows: 5,
        began: Time::from_unix_ms(1),
    };
    ledger.write_batch(batch("one")).await.unwrap();
    ledger.write_batch(batch("one")).await.unwrap();
    ledger.write_batch(BatchRow { began: Time::from_unix_ms(2), ..batch("two") }).await.unwrap();
    assert_eq!(ledger.batches_with_digest(&scope(), "d1").await.unwrap(), ["one", "two"]);
    assert!(ledger.batches_with_digest(&scope(), "d2").await.unwrap().is_empty());
    ledger.close().await;
}

async fn all_of_it(url: &str) {
    keeps_what_it_was_told(url).await;
    many_share_a_commit_and_come_back_in_order(url).await;
    a_jobs_latest_word_counts_within_one_commit(url).await;
    remembers_a_manifest_by_its_digest(url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_what_it_was_told() {
    let directory = tempfile::tempdir().unwrap();
    all_of_it(&sqlite(&directory.path().join("a b%20c.db"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_what_it_was_told() {
    let server = Postgres::start();
    all_of_it(&server.url()).await;
}

/// A manifest issued on PostgreSQL, whose server is restarted in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_restarts_costs_no_row() {
    let mut server = Postgres::start();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 150).await;
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__LEDGER__URL", &server.url());
    let running = program.spawn(&["issue", "cards.csv", "--rate", "50"]);
    while sandbox.account().cards.len() < 40 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let restarted = tokio::task::spawn_blocking(move || {
        server.stop();
        server.start_again();
        server
    });
    let _server = restarted.await.unwrap();
    let output = running.ended().await;
    expect_exit(&output, 0);
    support::one_card_each(&sandbox.account(), &expected);
}

fn sqlite(path: &Path) -> String {
    format!("sqlite://{}", path.to_str().unwrap().replace('%', "%25").replace(' ', "%20"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_foreign_ledger_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let url = sqlite(&directory.path().join("ledger.db"));
    Ledger::open(&url).await.unwrap().close().await;
    let connection = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.close().unwrap();
    let newer = Ledger::open(&url).await.err().unwrap();
    assert!(matches!(newer, LedgerError::Newer { found: 99, .. }), "{newer}");
    let foreign = directory.path().join("notes.txt");
    std::fs::write(&foreign, "my notes, which no program should overwrite ".repeat(100)).unwrap();
    let error = Ledger::open(&sqlite(&foreign)).await.err().unwrap().to_string();
    assert!(error.contains("not a database"), "{error}");
    assert!(std::fs::read_to_string(foreign).unwrap().starts_with("my notes"));
}

/// What `issue` says of a ledger; nothing may have been asked of Stripe.
async fn refused_ledger(directory: &Path, url: &str) -> String {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    write_manifest(&directory.join("cards.csv"), &sandbox, 3).await;
    let program = Program::new(directory, &sandbox);
    let output = program.run(&["issue", "cards.csv", "--ledger", url]).await;
    assert_eq!(sandbox.account().creates, 0);
    let code = output.status.code();
    assert!(code == Some(2) || code == Some(3), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_or_read_only_ledger_says_so_before_anything_is_issued() {
    let directory = tempfile::tempdir().unwrap();
    let url = sqlite(&directory.path().join("ledger.db"));
    Ledger::open(&url).await.unwrap().close().await;
    let read_only = refused_ledger(directory.path(), &format!("{url}?mode=ro")).await;
    assert!(read_only.contains("is read-only"), "{read_only}");
    let holder = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let locked = refused_ledger(directory.path(), &url).await;
    assert!(locked.contains("is locked by another process"), "{locked}");
    drop(holder);
    let nowhere = refused_ledger(directory.path(), "sqlite:///no/such/directory/ledger.db").await;
    assert!(nowhere.contains("/no/such/directory"), "{nowhere}");
    let server = refused_ledger(directory.path(), "postgres://u:secret@127.0.0.1:1/db").await;
    assert!(server.contains("127.0.0.1:1/db") && !server.contains("secret"), "{server}");
}

/// On a file system of eight megabytes, which the ledger shares with something that fills it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_run_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(&small).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 200).await;
    let program = Program::new(directory.path(), &sandbox);
    let ledger = sqlite(&small.join("ledger.db"));
    let arguments = ["issue", "cards.csv", "--rate", "200", "--ledger", &ledger];
    let running = program.spawn(&arguments);
    while sandbox.account().cards.len() < 30 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let _ = std::fs::write(small.join("filler"), vec![0; 8 << 20]);
    let output = running.ended().await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    expect_exit(&output, 3);
    assert!(said.contains("the disk is full"), "{said}");
    std::fs::remove_file(small.join("filler")).unwrap();
    let again = program.run(&arguments).await;
    let unmounted = Command::new("umount").arg("-l").arg(&small).status().unwrap();
    assert!(unmounted.success());
    expect_exit(&again, 0);
    support::one_card_each(&sandbox.account(), &expected);
}
