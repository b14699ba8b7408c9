//! Promise: when Stripe answers every call alike, or not at all, a run ends early and by itself, says which sentence
//! stands in the way, and refuses few rows; run again later, it makes every card.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::{Forced, KeyEndpoint, Options, Sandbox};
use support::issuing::{Issuing, ended, ended_within, issue, said};
use support::scene::Scene;
use support::serve::Served;
use support::{Expected, Program, expect_exit, free_port, one_card_each};

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
    everybody_is_answered(not_set_up(), "not set up to use Issuing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_funds() {
    let message = "The issuing balance is insufficient for {job}.";
    let forced = Forced::error(402, "card_error", Some("insufficient_funds"), message);
    everybody_is_answered(forced, "balance is insufficient").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_not_create_cards() {
    everybody_is_answered(forbidden(), "does not have the required permissions").await;
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

fn not_set_up() -> Forced {
    let message = "Your account is not set up to use Issuing (cardholder {cardholder}, {request}).";
    Forced::error(400, "invalid_request_error", None, message)
}

fn forbidden() -> Forced {
    let message = "The provided key does not have the required permissions for {job}.";
    Forced::error(403, "invalid_request_error", None, message)
}

/// Waits until Stripe has seen so many creates.
async fn until_creates(sandbox: &Sandbox, at_least: u64) -> u64 {
    let began = Instant::now();
    loop {
        let creates = sandbox.counts().creates;
        if creates >= at_least {
            return creates;
        }
        assert!(began.elapsed() < Duration::from_secs(45), "{creates} creates of {at_least}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The jobs in the queue and on the ladder.
async fn kept(scene: &Scene) -> usize {
    scene.left_in_queues().await.values().map(|messages| usize::try_from(*messages).unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_refuses_few_jobs_keeps_the_others_and_issues_them_once_the_account_is_mended() {
    const ROWS: usize = 300;
    let scene = Scene::with(Options::default()).await;
    let mut expected = scene.manifest(ROWS).await;
    let mut listener = scene.listen().await;
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    scene.sandbox.force(Some(not_set_up()));
    // Fewer in flight than there are: what is kept is in the queue and in the worker.
    let mut worker = scene.worker("60");
    let mut refuse = async |expected: &mut Expected| {
        for _ in 0..REFUSED_MAX {
            let event = listener.event().await;
            assert!(event.card.is_none(), "{event:?}");
            expected.remove(event.id.as_deref().unwrap()).expect("each is told once");
        }
    };
    refuse(&mut expected).await;
    let (began, before) = (Instant::now(), scene.sandbox.counts().creates);
    assert!(before <= CREATES_MAX, "{before} calls");
    // Those that were under way, and one that tries for all; it waits some seconds.
    let tried = until_creates(&scene.sandbox, before + 1).await;
    assert!(tried <= CREATES_MAX, "{tried} calls");
    // What is kept is the broker's, whatever becomes of the worker.
    let output = worker.killed().await;
    assert!(said(&output).contains("not set up to use Issuing"), "{}", said(&output));
    assert_eq!(kept(&scene).await, ROWS - REFUSED_MAX, "no job is lost");
    // Another answer for everybody, and then the account is mended while its worker waits.
    scene.sandbox.force(Some(forbidden()));
    worker = scene.worker("60");
    refuse(&mut expected).await;
    scene.sandbox.force(None);
    for _ in 0..ROWS - 2 * REFUSED_MAX {
        let event = listener.event().await;
        assert!(event.card.is_some(), "after {:?}: {event:?}", began.elapsed());
    }
    one_card_each(&scene.sandbox.account(), &expected);
    worker.signal(rustix::process::Signal::TERM);
    let output = worker.ended().await;
    expect_exit(&output, 0);
    assert!(said(&output).contains("does not have the required permissions"), "{}", said(&output));
    assert_eq!(kept(&scene).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_refuses_few_rows_says_why_and_issues_the_others_once_the_account_is_mended() {
    const ROWS: usize = 200;
    let issuing = Issuing::with(Options::default()).await;
    let expected = issuing.manifest(ROWS).await;
    let message = "The issuing balance is insufficient for {job}.";
    issuing.sandbox.force(Some(Forced::error(402, "card_error", Some("insufficient_funds"), message)));
    let served = Served::start(&issuing.program(), &["--rate", "100"]);
    served.upload_file(&issuing.path("cards.csv")).await.expect(202);
    served.until("cards", |view| view["refused"] == REFUSED_MAX).await;
    let before = issuing.sandbox.counts().creates;
    let tried = until_creates(&issuing.sandbox, before + 1).await;
    assert!(tried <= CREATES_MAX, "{tried} calls");
    let server = served.get("/v1/server").await.expect(200).json();
    assert!(
        server["waits_for"].as_str().is_some_and(|why| why.contains("balance is insufficient")),
        "{server}"
    );
    issuing.sandbox.force(None);
    let view = served.until_ended("cards").await;
    assert_eq!(
        (&view["state"], &view["issued"]),
        (&"finished".into(), &(ROWS - REFUSED_MAX).into()),
        "{view}"
    );
    // Those that were refused are issued by the same upload.
    served.upload_file(&issuing.path("cards.csv")).await.expect(202);
    let view = served.until_ended("cards").await;
    assert_eq!((&view["refused"], &view["issued"]), (&0.into(), &ROWS.into()), "{view}");
    one_card_each(&issuing.sandbox.account(), &expected);
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0));
    assert!(log.contains("balance is insufficient"), "{log}");
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

/// A file that is sorted begins with many rows of one cardholder: that Stripe knows none of that id is about these rows, and the
/// others are issued.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_for_one_cardholder_who_is_not_there_keep_no_other_from_its_card() {
    let known = (0..20).map(|number| format!("ich_{number}")).collect();
    let issuing = Issuing::with(Options { cardholders: Some(known), ..Options::default() }).await;
    let mut text = "row_id,cardholder,type,currency\n".to_owned();
    for row in 0..40 {
        text += &format!("gone{row},ich_gone,virtual,eur\n");
    }
    for row in 0..20 {
        text += &format!("r{row},ich_{row},virtual,eur\n");
    }
    std::fs::write(issuing.path("cards.csv"), text).unwrap();
    let output = issuing.program().run(&["issue", "cards.csv", "--rate", "200"]).await;
    expect_exit(&output, 1);
    assert!(said(&output).contains("20 issued (0 of them before), 40 refused"), "{}", said(&output));
    assert_eq!(issuing.sandbox.account().cards.len(), 20);
}
