//! Promise: who sent a job by the queue whose cardholder chooses the PIN is told that it waits, and by one more event how it ended;
//! whoever is killed in between.

use crate::support;

use std::time::{Duration, Instant};

use embosser::ledger::{Ledger, Scope};
use embosser::pin_links::Outbox;
use embosser::queue::event::{ResultEvent, ResultOutcome};
use embosser::sandbox::{Faults, Options};
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::BasicAckOptions;
use serde_json::json;
use sha2::Digest as _;
use support::choosing::{ask, choose, encrypted, pins_of, token_of};
use support::scene::{Listener, Scene};
use support::serve::Served;
use support::{Program, Running, expect_exit, was_killed};

/// One event, and what its sender tells answers apart by.
async fn told(listener: &mut Listener) -> (ResultEvent, Option<String>) {
    let delivery = tokio::time::timeout(Duration::from_secs(60), listener.consumer.next()).await;
    let delivery = delivery.expect("an event comes").unwrap().unwrap();
    delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
    let correlation = delivery.properties.correlation_id().as_ref().map(ToString::to_string);
    (serde_json::from_slice(&delivery.data).unwrap(), correlation)
}

/// A worker and a server with the pages share a ledger.
struct Stage {
    scene: Scene,
    program: Program,
    listener: Listener,
}

impl Stage {
    async fn new() -> Self {
        let scene = Scene::with(Options::default()).await;
        let listener = scene.listen().await;
        let program = scene.program().with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com/");
        Self { scene, program, listener }
    }

    fn serve(&self) -> Served {
        Served::start(&self.program, &["--rate", "100"])
    }

    async fn publish(&self, id: &str, pin: bool) {
        let mut card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
        if pin {
            card["pin"] = json!({"choose": true});
        }
        let properties = BasicProperties::default().with_correlation_id(format!("of {id}").as_str().into());
        let job = json!({"id": id, "batch": "queue", "card": card}).to_string();
        self.scene.publish(job.as_bytes(), properties).await;
    }

    /// Publishes a job whose cardholder chooses the PIN; its link, from the event that says that it waits.
    async fn one_that_waits(&mut self, id: &str) -> String {
        self.publish(id, true).await;
        let (event, correlation) = told(&mut self.listener).await;
        assert_eq!(event.outcome, ResultOutcome::AwaitingPin, "{event:?}");
        assert_eq!((event.id.as_deref(), correlation), (Some(id), Some(format!("of {id}"))));
        event.pin_link.unwrap().expose().to_owned()
    }

    /// The next event is this job's end, with its card; answers how the event was told.
    async fn is_issued(&mut self, id: &str) {
        let (event, correlation) = told(&mut self.listener).await;
        assert_eq!(event.outcome, ResultOutcome::Issued, "{event:?}");
        assert_eq!((event.id.as_deref(), event.batch.as_deref()), (Some(id), Some("queue")), "{event:?}");
        assert_eq!(correlation, Some(format!("of {id}")));
        assert!(event.card.is_some() && event.pin_link.is_none() && event.attempts == 1, "{event:?}");
        assert_eq!(pins_of(&self.scene.sandbox, id), [Some("4711".to_owned())]);
    }

    async fn until_no_event_is_owed(&self) {
        let directory = self.scene.directory.path().join("embosser/embosser.db");
        let ledger = Ledger::open_existing(&support::sqlite(&directory)).await.unwrap();
        let host = self.scene.sandbox.address();
        let accounts = ledger.accounts("test", &host.to_string()).await.unwrap();
        let scope = Scope::new("test", &host.to_string(), accounts.first().map(String::as_str));
        let outbox = Outbox::of(&ledger, &scope);
        let began = Instant::now();
        while !outbox.page("").await.unwrap().0.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(40), "an event stays owed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ledger.close().await;
    }

    /// No event is owed any more, and none comes but of a job that is sent now.
    async fn nothing_more_is_told(&mut self) {
        self.until_no_event_is_owed().await;
        self.publish("the last one", false).await;
        let (event, _) = told(&mut self.listener).await;
        assert_eq!(event.id.as_deref(), Some("the last one"), "{event:?}");
    }
}

/// Two workers are there, as one of them may go.
#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_pin_and_a_cancelled_job_are_told_once_more() {
    let mut stage = Stage::new().await;
    let workers = [stage.program.spawn(&["worker"]), stage.program.spawn(&["worker"])];
    let served = stage.serve();
    let link = stage.one_that_waits("chosen").await;
    choose(&served, &link, &encrypted(&stage.scene.sandbox, "4711").await).await.expect(200);
    stage.is_issued("chosen").await;
    // The same message again is answered once, with what the ledger says.
    stage.publish("chosen", true).await;
    stage.is_issued("chosen").await;

    let link = stage.one_that_waits("cancelled").await;
    // A copy of it is one more message, and has no other end.
    stage.publish("cancelled", true).await;
    let (event, _) = told(&mut stage.listener).await;
    assert!(event.outcome == ResultOutcome::AwaitingPin && event.pin_link.is_none(), "{event:?}");
    let cancelled = ask(&served, "/v1/pin-links/cancel", &json!({"job": "cancelled"})).await.expect(200);
    assert_eq!(cancelled.json()["cancelled"], json!(1), "{}", cancelled.text);
    let (event, correlation) = told(&mut stage.listener).await;
    assert_eq!(event.error.unwrap().code, "cancelled");
    assert_eq!(correlation.as_deref(), Some("of cancelled"));
    ask(&served, "/v1/pin-links/look", &json!({"link": token_of(&link)})).await.expect(404);

    // A PIN that comes by the queue itself ends the waiting, and is told as its message's answer.
    stage.one_that_waits("sent after all").await;
    let jwe = encrypted(&stage.scene.sandbox, "4711").await;
    let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur", "pin": {"encrypted_number": jwe}});
    let job = json!({"id": "sent after all", "batch": "queue", "card": card}).to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let properties = BasicProperties::default().with_correlation_id("of sent after all".into());
    stage.scene.publish(job.as_bytes(), properties.with_timestamp(now)).await;
    stage.is_issued("sent after all").await;
    stage.nothing_more_is_told().await;
    drop(workers);
}

/// Ends a worker whose messages are all settled then: one that was killed may leave some to be told of once more.
async fn stopped(worker: Running) {
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// How a link stands in the ledger is made older there: nobody waits for a week.
fn age(stage: &Stage, link: &str, what: &str) {
    let file = stage.scene.directory.path().join("embosser/embosser.db");
    let digest: String =
        sha2::Sha256::digest(token_of(link)).iter().map(|byte| format!("{byte:02x}")).collect();
    let set = format!("UPDATE metadata SET value = json_set(value, '$.{what}', json_extract(value, '$.{what}') - 30 * 86400000)
        WHERE name LIKE 'pin_link:%{digest}'");
    let changed = rusqlite::Connection::open(file).unwrap().execute(&set, []).unwrap();
    assert_eq!(changed, 1, "the link is in the ledger");
}

/// A link expires, another is used for a call that has no effect, a third is revoked: two jobs get new ones, told as the first were.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_can_be_used_no_more_is_made_anew_by_itself_if_the_policy_says_so() {
    let mut stage = Stage::new().await;
    let worker = stage.program.spawn(&["worker"]);
    let few = stage.program.clone().with("EMBOSSER__RETRY__ATTEMPTS_MAX", "1");
    let served = Served::start(&few, &["--rate", "100"]);
    let mut old = std::collections::BTreeMap::new();
    for id in ["expired", "in vain", "revoked"] {
        old.insert(id, stage.one_that_waits(id).await);
    }
    stage.until_no_event_is_owed().await;
    stopped(worker).await;
    age(&stage, &old["expired"], "expires_ms");
    ask(&served, "/v1/pin-links/revoke", &json!({"job": "revoked"})).await.expect(204);
    stage.scene.sandbox.set_faults(Faults { drop_before: 1.0, ..Faults::default() });
    choose(&served, &old["in vain"], &encrypted(&stage.scene.sandbox, "4711").await).await.expect(200);
    stage.scene.sandbox.set_faults(Faults::default());
    let began = Instant::now();
    while served.get("/v1/jobs/in%20vain").await.expect(200).json()["state"] != "awaiting_pin" {
        assert!(began.elapsed() < Duration::from_secs(40), "it does not wait again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    age(&stage, &old["in vain"], "used_ms");

    // Not without that policy.
    let worker = stage.program.spawn(&["worker"]);
    stage.publish("one before", false).await;
    assert_eq!(told(&mut stage.listener).await.0.id.as_deref(), Some("one before"));
    stopped(worker).await;
    let program = stage.program.clone().with("EMBOSSER__PIN_PAGE__NEW_LINKS", "true");
    let _workers = [program.spawn(&["worker"]), program.spawn(&["worker"])];
    let mut new = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let (event, correlation) = told(&mut stage.listener).await;
        let id = event.id.clone().unwrap();
        assert_eq!(event.outcome, ResultOutcome::AwaitingPin, "{event:?}");
        assert_eq!(correlation, Some(format!("of {id}")));
        new.insert(id, event.pin_link.unwrap().expose().to_owned());
    }
    assert_eq!(new.keys().collect::<Vec<_>>(), ["expired", "in vain"]);
    for (id, link) in &new {
        ask(&served, "/v1/pin-links/look", &json!({"link": token_of(&old[&**id])})).await.expect(404);
        choose(&served, link, &encrypted(&stage.scene.sandbox, "4711").await).await.expect(200);
    }
    let mut ended = [told(&mut stage.listener).await.0, told(&mut stage.listener).await.0];
    ended.sort_by(|one, other| one.id.cmp(&other.id));
    for (event, id) in ended.iter().zip(["expired", "in vain"]) {
        assert_eq!((event.id.as_deref(), event.outcome), (Some(id), ResultOutcome::Issued), "{event:?}");
        assert_eq!(pins_of(&stage.scene.sandbox, id), [Some("4711".to_owned())]);
    }
    stage.nothing_more_is_told().await;
}

/// Whoever is killed between the end and its event: the event comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_though_the_server_or_the_worker_was_killed_before_it() {
    let mut stage = Stage::new().await;
    let worker = stage.program.spawn(&["worker"]);
    let link = stage.one_that_waits("server").await;
    let killer = stage.program.clone().with("EMBOSSER_KILL_AT", "recorded:1");
    let served = Served::start(&killer, &["--rate", "100"]);
    let body = json!({"link": token_of(&link), "pin": encrypted(&stage.scene.sandbox, "4711").await});
    let json = [("content-type", "application/json")];
    let body = body.to_string().into_bytes();
    let cut = served.try_ask(reqwest::Method::POST, "/v1/pin-links/choose", &json, body).await;
    assert!(cut.is_err(), "{cut:?}");
    drop(served);
    // It finds the end when it is there again.
    let served = stage.serve();
    stage.is_issued("server").await;
    stage.until_no_event_is_owed().await;
    stopped(worker).await;

    for (place, id) in [("event_claimed:1", "claimed"), ("event_published:1", "published")] {
        let worker = stage.program.clone().with("EMBOSSER_KILL_AT", place).spawn(&["worker"]);
        let link = stage.one_that_waits(id).await;
        choose(&served, &link, &encrypted(&stage.scene.sandbox, "4711").await).await.expect(200);
        assert!(was_killed(&worker.ended().await), "it was to be killed at {place}");
        if id == "published" {
            stage.is_issued(id).await;
        }
        let worker = stage.program.spawn(&["worker"]);
        // Of one that was killed nobody knows whether the broker had its event, so that it comes again.
        stage.is_issued(id).await;
        stage.until_no_event_is_owed().await;
        stopped(worker).await;
    }
    let _worker = stage.program.spawn(&["worker"]);
    stage.nothing_more_is_told().await;
}
