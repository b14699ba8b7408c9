//! Promise: a job that waited (a paused batch, a circuit that is open, a process that was stopped) is decided anew by
//! what is known when its turn comes. Another process may have ended it, and a key may have grown too old.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Calls, Faults, Forced, Options};
use rustix::process::Signal;
use serde_json::json;
use support::issuing::{Issuing, ended, issue, stopped};
use support::serve::Served;
use support::time::A_DAY;
use support::{expect_exit, one_card_each};

const DAY_SECONDS: i64 = 25 * 3600;

/// `serve` pauses, another process ends the batch on the same ledger, the keys grow old, `serve` resumes.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_batch_that_another_process_ended_gets_no_second_cards() {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(60).await;
    let program = issuing.program();
    let served = Served::start(&program, &["--rate", "20"]);
    served.upload_file(&issuing.path("cards.csv")).await.expect(202);
    served.until("cards", |view| view["issued"].as_u64() > Some(5)).await;
    served.post("/v1/batches/cards/pause").await.expect(200);
    let output = ended(issue(&program, "200", &[])).await;
    expect_exit(&output, 0);
    issuing.pass(A_DAY, DAY_SECONDS);
    served.post("/v1/batches/cards/resume").await.expect(200);
    let view = served.until_ended("cards").await;
    one_card_each(&issuing.sandbox.account(), &expected);
    assert_eq!((&view["issued"], &view["refused"]), (&json!(60), &json!(0)), "{view}");
}

/// `issue` is killed with answers lost, and `serve`, which never began those rows, cancels them.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_row_whose_card_exists_is_not_refused() {
    let issuing = Issuing::with(Options { delay: Duration::from_secs(75), ..Options::default() }).await;
    let expected = issuing.manifest(60).await;
    let program = issuing.program();
    let served = Served::start(&program, &["--rate", "20"]);
    served.upload_file(&issuing.path("cards.csv")).await.expect(202);
    served.until("cards", |view| view["issued"].as_u64() > Some(5)).await;
    served.post("/v1/batches/cards/pause").await.expect(200);
    issuing.until("calls of serve to end", |sandbox| sandbox.executing() == 0).await;
    issuing.sandbox.set_faults(Faults { delay: 1.0, ..Faults::default() });
    let running = issue(&program, "100", &[]);
    issuing.until("ten calls under way", |sandbox| sandbox.executing() >= 10).await;
    running.killed().await;
    issuing.sandbox.set_faults(Faults::default());
    issuing.sandbox.advance(Duration::from_secs(75));
    issuing.until("the calls' ends", |sandbox| sandbox.executing() == 0).await;
    served.post("/v1/batches/cards/cancel").await.expect(200);
    served.until_ended("cards").await;
    let made = issuing.sandbox.account().cards;
    let results = served.get("/v1/batches/cards/results.csv").await.expect(200).text;
    for card in &made {
        let job = card.job.as_deref().unwrap();
        let row = results.lines().find(|line| line.contains(&format!(",{job},")));
        assert!(!row.is_some_and(|row| row.contains(",refused,")), "{job} has {}: {row:?}", card.id);
    }
    drop(served);
    // Beyond the keys' window, what was begun is found and what was not begun is issued.
    issuing.pass(A_DAY, DAY_SECONDS);
    expect_exit(&ended(issue(&program, "200", &[])).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
    issuing.results_are_true("cards.results.csv");
}

/// Ten calls whose answers are lost, and then a Stripe that fails at everything, so that their repetitions wait for the
/// circuit; two days go by meanwhile, with the process awake or stopped.
async fn two_days_go_by(stop: bool) {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(10).await;
    issuing.sandbox.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    let program = issuing
        .program()
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "1.5")
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "3");
    let running = issue(&program, "100", &[]);
    issuing.until("ten cards", |sandbox| sandbox.counts().cards == 10).await;
    issuing.sandbox.force(Some(Forced { status: 503, calls: Calls::All, ..Forced::default() }));
    let creates = issuing.sandbox.counts().creates;
    issuing.until("repetitions that fail", |sandbox| sandbox.counts().creates >= creates + 2).await;
    // The others come to their turn meanwhile, and wait there: the circuit opens without a sign to be seen from outside.
    tokio::time::sleep(Duration::from_secs(3)).await;
    if stop {
        running.signal(Signal::STOP);
        stopped(&running).await;
    }
    issuing.pass(2 * A_DAY, 2 * DAY_SECONDS);
    issuing.sandbox.set_faults(Faults::default());
    issuing.sandbox.force(None);
    running.signal(Signal::CONT);
    let output = ended(running).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
    issuing.results_are_true("cards.results.csv");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_days_with_an_open_circuit_make_no_second_card() {
    two_days_go_by(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_for_two_days_makes_no_second_card() {
    two_days_go_by(true).await;
}

/// Stopped after a repetition was recorded and before it left: by the time that it goes on, its key is too old.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_slept_between_its_record_and_its_departure_does_not_leave() {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(1).await;
    issuing.sandbox.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    let program = issuing.program().with("EMBOSSER_STOP_AT", "begun:2");
    let running = issue(&program, "100", &[]);
    stopped(&running).await;
    assert_eq!(issuing.sandbox.counts().cards, 1, "the first call was made");
    issuing.pass(A_DAY, DAY_SECONDS);
    issuing.sandbox.set_faults(Faults::default());
    // It really sleeps as well: longer than a recorded call may take to leave, by the clock that cannot be set.
    tokio::time::sleep(Duration::from_millis(5500)).await;
    running.signal(Signal::CONT);
    let output = ended(running).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
}
