//! Promise: of several processes on one ledger one at a time calls for an account: the account's limit holds across them,
//! and each results file has one writer.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::Options;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use support::issuing::{Issuing, ended, issue, said};
use support::postgres::Postgres;
use support::scene::{ONE_AT_A_TIME, Scene};
use support::serve::Served;
use support::{expect_exit, one_card_each};

const RATE: usize = 40;

/// Two processes that called at once would pass it by dozens of calls. One may be turned away: calls that left evenly need
/// not arrive so on a busy machine.
fn the_limit_was_kept(issuing: &Issuing) {
    let limited = issuing.sandbox.counts().limited;
    assert!(limited <= 1, "{limited} turned away: {:?}", issuing.sandbox.account().limited_by);
}

async fn limited_to_the_rate() -> Issuing {
    let limit = Some(RATE);
    Issuing::with(Options { endpoint_per_second: limit, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_waits_and_both_results_are_right_and_the_limit_is_kept() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(100).await;
    let program = issuing.program();
    let first = issue(&program, &RATE.to_string(), &[]);
    issuing.until("the first card", |sandbox| sandbox.counts().cards > 0).await;
    let holder = first.pid();
    let second = issue(&program, &RATE.to_string(), &["--results", "second.results.csv"]);
    let (first, second) = tokio::join!(ended(first), ended(second));
    expect_exit(&first, 0);
    expect_exit(&second, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
    issuing.results_are_true("cards.results.csv");
    issuing.results_are_true("second.results.csv");
    the_limit_was_kept(&issuing);
    assert!(said(&second).contains(&holder.to_string()), "who is waited for: {}", said(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_may_write_the_same_results_file() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(60).await;
    let program = issuing.program();
    let runs = [(); 2].map(|()| issue(&program, &RATE.to_string(), &[]));
    let [first, second] = runs;
    let (first, second) = tokio::join!(ended(first), ended(second));
    expect_exit(&first, 0);
    expect_exit(&second, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
    issuing.results_are_true("cards.results.csv");
    the_limit_was_kept(&issuing);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_wait_the_second_ends_and_names_the_holder() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(100).await;
    let program = issuing.program();
    let first = issue(&program, &RATE.to_string(), &[]);
    issuing.until("the first card", |sandbox| sandbox.counts().cards > 0).await;
    let second = ended(issue(&program, &RATE.to_string(), &["--no-wait"])).await;
    expect_exit(&second, 2);
    assert!(said(&second).contains(&first.pid().to_string()), "{}", said(&second));
    expect_exit(&ended(first).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
    issuing.results_are_true("cards.results.csv");
}

/// A holder that was killed holds nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_free() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(60).await;
    let program = issuing.program();
    let first = issue(&program, &RATE.to_string(), &[]);
    issuing.until("some cards", |sandbox| sandbox.counts().cards > 5).await;
    first.killed().await;
    expect_exit(&ended(issue(&program, "200", &["--no-wait"])).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
}

/// The same file to both, and to each one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_issue_each_row_once_within_the_limit() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let issuing = limited_to_the_rate().await;
    let mut expected = issuing.manifest(60).await;
    for name in ["first", "second"] {
        let rows = (0..10).map(|row| format!("r{row},ich_{name}{row},virtual,eur\n"));
        let text = "row_id,cardholder,type,currency\n".to_owned() + &rows.collect::<String>();
        std::fs::write(issuing.path(&format!("{name}.csv")), text).unwrap();
        expected.extend((0..10).map(|row| (format!("{name}/r{row}"), None)));
    }
    let program = issuing.program();
    let [first, second] = [(); 2].map(|()| Served::start(&program, &["--rate", &RATE.to_string()]));
    for (served, own) in [(&first, "first.csv"), (&second, "second.csv")] {
        served.upload_file(&issuing.path("cards.csv")).await.expect(202);
        served.upload_file(&issuing.path(own)).await.expect(202);
    }
    for (served, own) in [(&first, "first"), (&second, "second")] {
        for (batch, rows) in [("cards", 60), (own, 10)] {
            let view = served.until_ended(batch).await;
            let counts = (&view["state"], &view["issued"], &view["refused"]);
            assert_eq!(counts, (&json!("finished"), &json!(rows), &json!(0)), "{own}: {view}");
        }
        let refused = served.get("/v1/batches/cards/rows?outcome=refused").await.expect(200).json();
        assert_eq!(refused["rows"], json!([]), "{refused}");
    }
    one_card_each(&issuing.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_worker_takes_over_within_ten_seconds_and_within_the_limit() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with(Options { latency: Duration::from_millis(50), ..Options::default() }).await;
    let expected = scene.manifest(300).await;
    let first = scene.worker(&RATE.to_string());
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    scene.cards(60).await;
    let second = scene.worker(&RATE.to_string());
    scene.cards(100).await;
    first.killed().await;
    let made = scene.sandbox.account().cards.len();
    let killed = Instant::now();
    scene.cards(made + 10).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "taken over after {:?}", killed.elapsed());
    scene.cards(300).await;
    one_card_each(&scene.sandbox.account(), &expected);
    let arrivals = scene.sandbox.account().arrivals;
    let in_second =
        |from: usize| arrivals[from..].iter().take_while(|at| **at < arrivals[from] + 1.0).count();
    let fullest = (0..arrivals.len()).map(in_second).max().unwrap();
    // One more than the rate: calls that left evenly need not arrive so on a busy machine.
    assert!(fullest <= RATE + 1, "{fullest} calls in a second, across the hand-over");
    second.signal(rustix::process::Signal::TERM);
    expect_exit(&second.ended().await, 0);
}

/// The session that holds an account's lease, and the lock's number.
async fn holder_of_the_lease(database: &mut PgConnection) -> (i32, i64) {
    let began = Instant::now();
    loop {
        let found: Option<(i32, i64)> = sqlx::query_as(
            "SELECT pid, classid::bigint << 32 | objid::bigint FROM pg_locks
             WHERE locktype = 'advisory' AND granted AND objsubid = 1",
        )
        .fetch_optional(&mut *database)
        .await
        .unwrap();
        if let Some(found) = found {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "nobody holds it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn end_session(database: &mut PgConnection, pid: i32) {
    let ended: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1)")
        .bind(pid)
        .fetch_one(&mut *database)
        .await
        .unwrap();
    assert!(ended);
}

/// The lock is a session's of PostgreSQL. It may end without its process.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_the_lease_calls_no_more_until_it_has_it_anew() {
    let _alone = ONE_AT_A_TIME.lock().await;
    /// How long another process waits that takes the lease of one that did not say when it called last.
    const CALLS_COUNT: Duration = Duration::from_millis(1250);
    let postgres = Postgres::start();
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(200).await;
    let running = issue(&issuing.program().with("EMBOSSER__LEDGER__URL", &postgres.url()), "40", &[]);
    issuing.until("some cards", |sandbox| sandbox.counts().cards > 20).await;
    let mut database = PgConnection::connect(&postgres.url()).await.unwrap();
    let (pid, number) = holder_of_the_lease(&mut database).await;
    // Whoever waits for the lock has it the moment that the session ends.
    let mut other = PgConnection::connect(&postgres.url()).await.unwrap();
    let waiting = tokio::spawn(async move {
        sqlx::query("SELECT pg_advisory_lock($1)").bind(number).execute(&mut other).await.unwrap();
        other
    });
    let began = Instant::now();
    loop {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)",
        )
        .fetch_one(&mut database)
        .await
        .unwrap();
        if waits {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    end_session(&mut database, pid).await;
    let other = waiting.await.unwrap();
    tokio::time::sleep(CALLS_COUNT).await;
    let creates = issuing.sandbox.counts().creates;
    assert!(creates < 200, "it was to be in the middle");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(issuing.sandbox.counts().creates, creates, "it calls though somebody else has the lease");
    other.close().await.unwrap();
    let output = ended(running).await;
    expect_exit(&output, 0);
    assert!(said(&output).contains("lease was lost"), "{}", said(&output));
    one_card_each(&issuing.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_let_no_two_processes_call_at_once() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let postgres = Postgres::start();
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(200).await;
    let program = issuing.program().with("EMBOSSER__LEDGER__URL", &postgres.url());
    let first = issue(&program, &RATE.to_string(), &[]);
    let second = issue(&program, &RATE.to_string(), &["--results", "second.results.csv"]);
    let mut database = PgConnection::connect(&postgres.url()).await.unwrap();
    for cards in [30, 70, 110] {
        issuing.until("more cards", |sandbox| sandbox.counts().cards > cards).await;
        let (pid, _) = holder_of_the_lease(&mut database).await;
        end_session(&mut database, pid).await;
    }
    let (first, second) = tokio::join!(ended(first), ended(second));
    expect_exit(&first, 0);
    expect_exit(&second, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
    issuing.results_are_true("cards.results.csv");
    issuing.results_are_true("second.results.csv");
    the_limit_was_kept(&issuing);
}
