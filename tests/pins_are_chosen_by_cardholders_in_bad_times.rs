//! Promise: whatever goes wrong while a PIN is chosen, the cardholder is told that it was taken only if it may be the card's, and
//! a link that came to nothing stays good.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use embosser::sandbox::{Forced, Options, Sandbox};
use serde_json::json;
use support::choosing::{Stage, choose, encrypted, look, one_that_waits, pins_of, stage};
use support::http_client;
use support::serve::Served;

/// Calls that the sandbox lets each endpoint have in a second.
async fn limit(sandbox: &Sandbox, endpoint: Option<usize>) {
    let order = http_client().post(format!("{}/_sandbox/rate", sandbox.api_url()));
    let answer = order.body(json!({"endpoint": endpoint}).to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

/// The page is told to try later, and the job waits for its PIN as before.
async fn is_not_taken(served: &Served, link: &str, jwe: &str) {
    assert_eq!(choose(served, link, jwe).await.expect(503).json()["code"], "not_now");
    let job = served.get("/v1/jobs/staff%2Fa").await.expect(200).json();
    assert_eq!(job["state"], "awaiting_pin", "{job}");
}

/// Its link is good, and its card gets the PIN.
async fn is_taken_now(stage: &Stage, served: &Served, link: &str, jwe: &str) {
    look(served, link).await.expect(200);
    choose(served, link, jwe).await.expect(200);
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
}

/// Stripe's limiter turns every call away, so often that the job's tries are used up.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_every_call_was_turned_away_with_is_not_taken_and_can_be_chosen_again() {
    let stage = stage().await;
    let few = stage.program.clone().with("EMBOSSER__RETRY__ATTEMPTS_MAX", "2");
    let served = Served::start(&few, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    limit(&stage.sandbox, Some(0)).await;
    let jwe = encrypted(&stage.sandbox, "4711").await;
    is_not_taken(&served, &link, &jwe).await;
    limit(&stage.sandbox, None).await;
    is_taken_now(&stage, &served, &link, &jwe).await;
}

/// The same for as long as a page waits: then the job is called back.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_was_turned_away_until_its_page_waits_no_more_can_be_chosen_again() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    limit(&stage.sandbox, Some(0)).await;
    let jwe = encrypted(&stage.sandbox, "4711").await;
    is_not_taken(&served, &link, &jwe).await;
    limit(&stage.sandbox, None).await;
    is_taken_now(&stage, &served, &link, &encrypted(&stage.sandbox, "4711").await).await;
}

/// Stripe refuses the key: the line stops, and goes on when it is started again with a good one.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_came_while_the_api_key_was_refused_is_not_taken_and_can_be_chosen_again() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    stage.sandbox.force(Some(Forced::error(401, "invalid_request_error", None, "Invalid API Key")));
    let jwe = encrypted(&stage.sandbox, "4711").await;
    is_not_taken(&served, &link, &jwe).await;
    drop(served);
    stage.sandbox.force(None);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    is_taken_now(&stage, &served, &link, &encrypted(&stage.sandbox, "4711").await).await;
}

/// Nobody listens at Stripe's address, though the key endpoint answers: nothing was sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_was_never_sent_is_not_taken_and_can_be_chosen_again() {
    let Stage { sandbox, program, directory } = stage().await;
    let keys = Sandbox::start(Options::default()).await.unwrap();
    let few =
        program.with("EMBOSSER__RETRY__ATTEMPTS_MAX", "2").with("EMBOSSER__STRIPE__KEY_URL", &keys.key_url());
    let served = Served::start(&few, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    let listen = sandbox.address();
    sandbox.stop().await;
    let jwe = encrypted(&keys, "4711").await;
    is_not_taken(&served, &link, &jwe).await;
    let sandbox = Sandbox::start(Options { listen, ..Options::default() }).await.unwrap();
    is_taken_now(&Stage { sandbox, program: few, directory }, &served, &link, &jwe).await;
}
