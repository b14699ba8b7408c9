//! Promise: whatever goes wrong while a PIN is chosen, the cardholder is told that it was taken only if it may be the card's, and
//! a link that came to nothing stays good.

use crate::support;

use std::time::{Duration, Instant};

use embosser::clock::Clock;
use embosser::config::PinPageConfig;
use embosser::ledger::{Ledger, Scope};
use embosser::pin_links::{LinksWhen, PinLinks, Standing};
use embosser::sandbox::{Faults, Forced, KeyEndpoint, Options, Sandbox};
use serde_json::{Value, json};
use support::choosing::{Stage, ask, choose, encrypted, links_of, look, one_that_waits, pins_of, stage};
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

/// How often a list of cards was asked for.
async fn looks(sandbox: &Sandbox) -> usize {
    let seen = http_client().get(format!("{}/_sandbox/requests", sandbox.api_url())).send().await.unwrap();
    let seen: Vec<Value> = seen.json().await.unwrap();
    seen.iter().filter(|one| one["method"] == "GET" && one["path"] == "/v1/issuing/cards").count()
}

/// Asks for the job until it is so.
async fn until_state(served: &Served, state: &str) -> Value {
    let began = Instant::now();
    loop {
        let view = served.get("/v1/jobs/staff%2Fa").await.expect(200).json();
        if view["state"] == state {
            return view;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "never {state}: {view}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
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
    // The line has stopped, which is nothing that a cardholder is told.
    let again = choose(&served, &link, &jwe).await.expect(503);
    assert_eq!(again.json()["code"], "not_now");
    assert!(!again.text.contains("API"), "{}", again.text);
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

/// Every call has its effect, and every answer is lost: the page is told that the PIN was taken, and nobody does anything
/// more.
#[tokio::test(flavor = "multi_thread")]
async fn how_a_call_with_a_chosen_pin_ended_is_found_out_by_itself() {
    let stage = stage().await;
    let few = stage.program.clone().with("EMBOSSER__RETRY__ATTEMPTS_MAX", "1");
    let served = Served::start(&few, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    stage.sandbox.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    stage.sandbox.set_faults(Faults::default());
    let view = until_state(&served, "issued").await;
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())], "{view}");
    assert!(served.get("/v1/pin-links").await.expect(200).json()["waiting"].as_array().unwrap().is_empty());
}

/// The same where the call never came to Stripe: its job waits again, for a new link.
#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_may_have_been_taken_and_was_not_is_asked_for_again_with_a_new_link() {
    let stage = stage().await;
    let few = stage.program.clone().with("EMBOSSER__RETRY__ATTEMPTS_MAX", "1");
    let served = Served::start(&few, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    stage.sandbox.set_faults(Faults { drop_before: 1.0, ..Faults::default() });
    choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    assert!(links_of(&served, "staff").await.is_empty(), "no link while the call may yet have its effect");
    stage.sandbox.set_faults(Faults::default());
    until_state(&served, "awaiting_pin").await;
    let new = links_of(&served, "staff").await.remove("a").unwrap();
    is_taken_now(&stage, &served, &new, &encrypted(&stage.sandbox, "4711").await).await;
}

/// A backup of the ledger is put in place of it, and by then Stripe has forgotten the keys of the calls. Whoever runs embosser with
/// `--reconcile-first` has all jobs looked for: those that wait for their PIN, too, when that comes, days later and in another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waited_in_a_ledger_from_a_backup_is_looked_for_when_its_pin_comes() {
    /// The run that is told of the backup.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Told {
        Issue,
        Server,
    }
    for told in [Told::Issue, Told::Server] {
        let stage = stage().await;
        let (ledger, backup) =
            (stage.directory.path().join("ledger.db"), stage.directory.path().join("backup.db"));
        let program = stage.program.clone().with("EMBOSSER__LEDGER__URL", &support::sqlite(&ledger));
        let served = Served::start(&program, &["--rate", "100"]);
        let link = one_that_waits(&served, "staff").await;
        assert_eq!(served.stopped().await.0, Some(0));
        std::fs::copy(&ledger, &backup).unwrap();
        let served = Served::start(&program, &["--rate", "100"]);
        choose(&served, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
        assert_eq!(served.stopped().await.0, Some(0));
        stage.sandbox.advance(Duration::from_secs(25 * 3600));
        std::fs::copy(&backup, &ledger).unwrap();

        if told == Told::Issue {
            std::fs::write(stage.directory.path().join("staff.csv"), support::choosing::ONE).unwrap();
            let run = program.run(&["issue", "staff.csv", "--reconcile-first"]).await;
            support::expect_exit(&run, 0);
        } else {
            let served = Served::start(&program, &["--rate", "100", "--reconcile-first"]);
            served.get("/healthz").await.expect(200);
            assert_eq!(served.stopped().await.0, Some(0));
        }
        let served = Served::start(&program, &["--rate", "100"]);
        let chosen = choose(&served, &link, &encrypted(&stage.sandbox, "1379").await).await;
        assert_eq!(chosen.expect(409).json()["code"], "card_refused", "{told:?}: the card keeps its PIN");
        assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())], "{told:?}");
        until_state(&served, "issued").await;
        // One that begins to wait now is known by this ledger, and is looked for by nobody. It is the sixth of its batch: with
        // each of the first five a look is made whether that was issued before.
        let more = ["d", "e", "f"].map(|row| format!("{row},ich_9{row},virtual,eur,\n")).concat();
        let others = support::choosing::ONE.replace("ich_", "ich_9") + &more;
        served.upload("/v1/batches?name=later", others.into()).await.expect(202);
        served.until_ended("later").await;
        let link = links_of(&served, "later").await.remove("a").unwrap();
        let looks = looks(&stage.sandbox).await;
        choose(&served, &link, &encrypted(&stage.sandbox, "2580").await).await.expect(200);
        assert_eq!(pins_of(&stage.sandbox, "later/a"), [Some("2580".to_owned())], "{told:?}");
        assert_eq!(self::looks(&stage.sandbox).await, looks, "{told:?}");
    }
}

/// What another process cancels while the key is fetched has no card.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_cancelled_while_its_pin_came_gets_no_card() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    let other = Served::start(&stage.program, &["--rate", "100"]);
    let jwe = encrypted(&stage.sandbox, "4711").await;
    stage.sandbox.set_key_endpoint(KeyEndpoint::Silent);
    let cancel = async {
        // Its job has been looked up by then, and waits for the key.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let cancelled =
            ask(&other, "/v1/pin-links/cancel", &json!({"job": "staff/a"})).await.expect(200).json();
        stage.sandbox.set_key_endpoint(KeyEndpoint::Up);
        cancelled
    };
    let (chosen, cancelled) = tokio::join!(choose(&served, &link, &jwe), cancel);
    assert_eq!(cancelled["cancelled"], json!(1), "{cancelled}");
    assert_eq!(chosen.expect(404).json()["code"], "link_unusable");
    assert!(pins_of(&stage.sandbox, "staff/a").is_empty(), "a card was made for a job that was cancelled");
    assert_eq!(served.get("/v1/jobs/staff%2Fa").await.expect(200).json()["state"], "refused");
}

/// A server was killed with a call begun; whoever cancels its job goes away before its card can have been looked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_call_is_open_is_cancelled_though_nobody_waits_for_the_answer() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    drop(served);
    let killer = stage.program.clone().with("EMBOSSER_KILL_AT", "begun:1");
    let served = Served::start(&killer, &["--rate", "100"]);
    let body =
        json!({"link": support::choosing::token_of(&link), "pin": encrypted(&stage.sandbox, "4711").await});
    let json = [("content-type", "application/json")];
    let body = body.to_string().into_bytes();
    let cut = served.try_ask(reqwest::Method::POST, "/v1/pin-links/choose", &json, body).await;
    assert!(cut.is_err(), "{cut:?}");
    drop(served);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let cancelling = json!({"job": "staff/a"});
    let cancelling = ask(&served, "/v1/pin-links/cancel", &cancelling);
    assert!(tokio::time::timeout(Duration::from_secs(1), cancelling).await.is_err(), "it was not open");
    let view = until_state(&served, "refused").await;
    assert_eq!(view["code"], "cancelled", "{view}");
    assert!(pins_of(&stage.sandbox, "staff/a").is_empty());
}

/// Another process calls for the account, and a job of this one waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_opens_though_jobs_wait_for_another_process() {
    let stage = stage().await;
    stage.sandbox.stock("ich_1", 1);
    let (served, other) = (
        Served::start(&stage.program, &["--rate", "100"]),
        Served::start(&stage.program, &["--rate", "100"]),
    );
    let change = "row_id,card,pin[choose]\na,ic_sandbox00000001,true\n";
    served.upload("/v1/batches?name=change", change.into()).await.expect(202);
    served.until_ended("change").await;
    let link = links_of(&served, "change").await.remove("a").unwrap();
    stage.sandbox.set_delay(Duration::from_secs(30));
    stage.sandbox.set_faults(Faults { delay: 1.0, ..Faults::default() });
    let card =
        |batch: &str| format!("row_id,cardholder,type,currency,metadata[b]\na,ich_1,virtual,eur,{batch}\n");
    other.upload("/v1/batches?name=theirs", card("theirs").into()).await.expect(202);
    tokio::time::sleep(Duration::from_secs(1)).await;
    served.upload("/v1/batches?name=ours", card("ours").into()).await.expect(202);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let seen = look(&served, &link).await.expect(200).json();
    assert_eq!(seen["changes_card"], json!(true), "{seen}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// A page that is closed while Stripe makes calls wait was shown nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_viewing_link_by_which_nothing_was_shown_stays_good() {
    let stage = stage().await;
    stage.sandbox.stock("ich_1", 1);
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let made = json!({"card": "ic_sandbox00000001"});
    let made = ask(&served, "/v1/pin-links", &made).await.expect(200).json();
    let (_, token) = made["links"][0]["pin_link"].as_str().unwrap().split_once('#').unwrap();
    let body = json!({"nonce": "a nonce that no page made", "link": token});
    let path = "/v1/cards/ic_sandbox00000001/ephemeral-keys";
    limit(&stage.sandbox, Some(0)).await;
    for _ in 0..2 {
        assert_eq!(ask(&served, path, &body).await.expect(503).json()["code"], "not_now");
    }
    let closed = tokio::time::timeout(Duration::from_millis(50), ask(&served, path, &body)).await;
    assert!(closed.is_err(), "it did not wait: {closed:?}");
    limit(&stage.sandbox, None).await;
    let began = Instant::now();
    let seen = json!({"link": token});
    while ask(&served, "/v1/pin-links/look", &seen).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(15), "the link was used for nothing");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Mail programs are known to write `#` as `%23`: then the token comes in the address of a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_in_an_address_is_not_logged() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let link = one_that_waits(&served, "staff").await;
    let token = support::choosing::token_of(&link);
    for page in ["pin", "pin/view"] {
        served.get(&format!("/{page}%23{token}")).await.expect(404);
    }
    let (_, log) = served.stopped().await;
    assert!(log.contains("/v1/batches/staff") && log.contains("(none)"), "{log}");
    assert!(!log.contains(token), "{log}");
}

/// Many pages ask this server for the key at once: it asks Stripe once for those that came meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_ask_for_the_key_at_once_share_a_fetch_that_began_after_they_asked() {
    let stage = stage().await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    served.get("/v1/pin-key").await.expect(200);
    let fetches = stage.sandbox.counts().key_fetches;
    stage.sandbox.set_key_endpoint(KeyEndpoint::Silent);
    let ask = futures_util::future::join_all((0..20).map(|_| served.get("/v1/pin-key")));
    let back = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.sandbox.rotate_key();
        stage.sandbox.set_key_endpoint(KeyEndpoint::Up);
    };
    let (answers, ()) = tokio::join!(ask, back);
    let good = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(good >= 19, "{good} of 20 got the key");
    let asked = stage.sandbox.counts().key_fetches - fetches;
    assert!(asked <= 3, "{asked} fetches");
    // Whoever asks after a rotation gets the new key.
    let before = served.get("/v1/pin-key").await.expect(200).json();
    stage.sandbox.rotate_key();
    assert_ne!(served.get("/v1/pin-key").await.expect(200).json(), before);
}

/// Links are used, given back and revoked at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_revoked_while_it_is_used_and_given_back_stays_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
    let ledger = Ledger::open(&url).await.unwrap();
    let (scope, clock) = (Scope::new("test", "sandbox", None), Clock::system());
    let config = PinPageConfig { url: Some("https://pins.example.com".into()), ..PinPageConfig::default() };
    let links = PinLinks::of(&config, LinksWhen::AtOnce, (&ledger, &scope, &clock)).unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let job = support::line::job(&sandbox, "batch/1", "eur", None).await;
    links.await_pin(&job, None).await.unwrap();
    for _ in 0..20 {
        let made = links.renew(&job.id).await.unwrap().unwrap();
        let token = made.link.expose().split_once('#').unwrap().1.to_owned();
        let usable = links.find(&token).await.unwrap().unwrap();
        let using = async {
            while let Some(claimed) = links.claim(&usable, None).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                links.give_back(claimed).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ((), is_revoked) = tokio::join!(using, async { links.revoke(&job.id).await.unwrap() });
        assert!(is_revoked, "it was being used, and stayed good");
        assert_eq!(links.find(&token).await.unwrap().unwrap_err().standing, Some(Standing::Revoked));
    }
    sandbox.stop().await;
}
