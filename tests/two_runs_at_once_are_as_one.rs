//! Promise: of several processes on one ledger one at a time calls for an account: the account's limit holds across them,
//! and each results file has one writer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use embosser::sandbox::Options;
use serde_json::json;
use support::issuing::{Issuing, ended, issue, said};
use support::serve::Served;
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

/// The same file to both, and to each one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_issue_each_row_once_within_the_limit() {
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
    assert_eq!(issuing.sandbox.counts().limited, 0, "{:?}", issuing.sandbox.account().limited_by);
}
