//! Promise: of several processes on one ledger one at a time calls for an account: the account's limit holds across them,
//! and each results file has one writer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use embosser::sandbox::Options;
use support::issuing::{Issuing, ended, issue, said};
use support::{expect_exit, one_card_each};

const RATE: usize = 40;

async fn limited_to_the_rate() -> Issuing {
    let limit = Some(RATE);
    Issuing::with(Options { endpoint_per_second: limit, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_waits_and_both_results_are_right_and_the_limit_is_kept() {
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
    assert_eq!(issuing.sandbox.counts().limited, 0, "{:?}", issuing.sandbox.account().limited_by);
    assert!(said(&second).contains(&holder.to_string()), "who is waited for: {}", said(&second));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_may_write_the_same_results_file() {
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
    assert_eq!(issuing.sandbox.counts().limited, 0, "{:?}", issuing.sandbox.account().limited_by);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_wait_the_second_ends_and_names_the_holder() {
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
    let issuing = limited_to_the_rate().await;
    let expected = issuing.manifest(60).await;
    let program = issuing.program();
    let first = issue(&program, &RATE.to_string(), &[]);
    issuing.until("some cards", |sandbox| sandbox.counts().cards > 5).await;
    first.killed().await;
    expect_exit(&ended(issue(&program, "200", &["--no-wait"])).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
}
