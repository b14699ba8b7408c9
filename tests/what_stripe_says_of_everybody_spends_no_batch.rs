//! Promise: when Stripe answers every call alike, or not at all, a run ends early and by itself, says which sentence
//! stands in the way, and refuses few rows; run again later, it makes every card.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use embosser::sandbox::{Forced, KeyEndpoint, Options};
use support::issuing::{Issuing, ended, ended_within, issue, said};
use support::{Program, expect_exit, free_port, one_card_each};

/// Equal refusals in a row that are needed to see that they are alike (`same_refusals_max`); nobody is refused after them.
const REFUSED_MAX: usize = 10;
/// Creates in all: those, and the calls that were under way at that moment.
const CREATES_MAX: u64 = 60;
/// Lists in all: a few rows of the batch are looked for before the first call, and no refused row is.
const LISTS_MAX: usize = 30;

async fn everybody_is_answered(forced: Forced, sentence: &str) {
    const ROWS: usize = 200;
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(ROWS).await;
    issuing.sandbox.force(Some(forced));
    let program = issuing
        .program()
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "4")
        .with("EMBOSSER__RETRY__ELAPSED_SECONDS_MAX", "5");
    let output = ended(issue(&program, "100", &[])).await;
    expect_exit(&output, 3);
    assert!(said(&output).contains(sentence), "{}", said(&output));
    assert_eq!(issuing.sandbox.counts().cards, 0);
    let told = issuing.results("cards.results.csv");
    let refused = told.values().filter(|(outcome, _)| outcome == "refused").count();
    assert!(refused <= REFUSED_MAX, "{refused} rows are refused");
    let creates = issuing.sandbox.counts().creates;
    assert!(creates <= CREATES_MAX, "{creates} calls");
    assert!(issuing.lists() <= LISTS_MAX, "{} lists", issuing.lists());
    issuing.sandbox.force(None);
    expect_exit(&ended(issue(&issuing.program(), "200", &[])).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_may_not_issue() {
    let message = "Your account is not set up to use Issuing (cardholder {cardholder}, {request}).";
    let forced = Forced::error(400, "invalid_request_error", None, message);
    everybody_is_answered(forced, "not set up to use Issuing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_funds() {
    let message = "The issuing balance is insufficient for {job}.";
    let forced = Forced::error(402, "card_error", Some("insufficient_funds"), message);
    everybody_is_answered(forced, "balance is insufficient").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_design_that_is_not_there() {
    let message = "No such personalization_design: 'ipd_1'";
    let forced = Forced {
        param: Some("personalization_design".into()),
        ..Forced::error(404, "invalid_request_error", Some("resource_missing"), message)
    };
    everybody_is_answered(forced, "No such personalization_design").await;
}

/// An outage is waited out with few calls, and its cause is told; when it ends, the same run makes every card.
async fn an_outage_is_waited_out(forced: Forced, cause: &str) {
    const ROWS: usize = 60;
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(ROWS).await;
    issuing.sandbox.force(Some(forced));
    let running = issue(&issuing.program(), "100", &[]);
    issuing.until("calls that failed", |sandbox| sandbox.counts().creates >= 8).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let creates = issuing.sandbox.counts().creates;
    assert!(creates <= CREATES_MAX, "{creates} calls");
    assert!(issuing.lists() <= LISTS_MAX, "{} lists", issuing.lists());
    assert_eq!(issuing.sandbox.counts().cards, 0);
    issuing.sandbox.force(None);
    let output = ended(running).await;
    expect_exit(&output, 0);
    assert!(said(&output).contains(cause), "{}", said(&output));
    one_card_each(&issuing.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn something_outside_stripe_that_failed() {
    let forced = Forced::error(424, "api_error", None, "An external dependency failed");
    an_outage_is_waited_out(forced, "424").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_of_no_limiter() {
    let forced = Forced::error(429, "invalid_request_error", Some("lock_timeout"), "This object is locked");
    an_outage_is_waited_out(forced, "429").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_with_stripes_error_object() {
    let message = "An unknown error occurred";
    an_outage_is_waited_out(Forced::error(500, "api_error", None, message), "500").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_500_without_an_error_object() {
    an_outage_is_waited_out(Forced { status: 500, ..Forced::default() }, "500").await;
}

/// The key endpoint is another host than the API: jobs without a PIN need nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_endpoint_that_is_down_stops_only_jobs_with_a_pin_and_is_named() {
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(30).await;
    issuing.sandbox.set_key_endpoint(KeyEndpoint::Unavailable);
    let dead = format!("127.0.0.1:{}", free_port());
    let port = issuing.sandbox.address().port();
    let endpoints = [
        (format!("http://localhost:{port}/v1/keys"), format!("localhost:{port}"), "503"),
        (format!("http://{dead}/v1/keys"), dead, "refused"),
    ];
    for (url, host, cause) in endpoints {
        let program = issuing.program().with("EMBOSSER__STRIPE__KEY_URL", &url);
        let running = issue(&program, "200", &[]);
        let without_pin = expected.values().filter(|pin| pin.is_none()).count();
        issuing
            .until("a card for each row without a PIN", |sandbox| sandbox.counts().cards == without_pin)
            .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        running.signal(rustix::process::Signal::INT);
        let output = ended(running).await;
        expect_exit(&output, 3);
        let said = said(&output);
        assert!(said.contains(&host) && said.to_lowercase().contains(cause), "{host}, {cause}: {said}");
        assert_eq!(issuing.sandbox.counts().cards, without_pin, "{said}");
    }
    issuing.sandbox.set_key_endpoint(KeyEndpoint::Up);
    expect_exit(&ended(issue(&issuing.program(), "200", &[])).await, 0);
    one_card_each(&issuing.sandbox.account(), &expected);
}

async fn ends_by_itself(program: Program) {
    let program = program.with("EMBOSSER__RETRY__ELAPSED_SECONDS_MAX", "5");
    let output = ended_within(issue(&program, "100", &[]), Duration::from_secs(60)).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("127.0.0.1"), "which address it was: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_listens_at() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.manifest(20).await;
    let api_url = format!("http://127.0.0.1:{}", free_port());
    ends_by_itself(issuing.program().with("EMBOSSER__STRIPE__API_URL", &api_url)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_takes_calls_and_never_answers() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.manifest(20).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api_url = format!("http://{}", silent.local_addr().unwrap());
    let program = issuing
        .program()
        .with("EMBOSSER__STRIPE__API_URL", &api_url)
        .with("EMBOSSER__STRIPE__TOTAL_TIMEOUT_SECONDS", "1")
        .with("EMBOSSER__STRIPE__CONNECT_TIMEOUT_SECONDS", "1")
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "3");
    ends_by_itself(program).await;
    drop(silent);
}

/// Where the account is told there is nothing to ask for before the first row.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_nobody_listens_at_with_a_configured_account() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.manifest(20).await;
    let api_url = format!("http://127.0.0.1:{}", free_port());
    let program = issuing.program().with("EMBOSSER__STRIPE__API_URL", &api_url);
    ends_by_itself(program.with("EMBOSSER__STRIPE__ACCOUNT_ID", "acct_sandbox")).await;
}
