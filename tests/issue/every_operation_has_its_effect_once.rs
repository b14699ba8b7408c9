//! Promise: a cardholder, a card with its cardholder, a change of a card: each job has its effect exactly once, whatever
//! Stripe answers and whoever is killed; and of two changes of a card the later one stays.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embosser::encrypt::encrypt_pin;
use embosser::queue::event::{ResultEvent, ResultOutcome};
use embosser::sandbox::{Account, Faults, Options};
use lapin::BasicProperties;
use serde_json::{Value, json};
use support::scene::{Listener, Scene};
use support::{expect_exit, http_client};

/// Jobs of each kind.
const JOBS: usize = 40;
const WORKERS_KILLED: usize = 4;

fn person(number: usize) -> Value {
    let mut person = json!({
        "type": "individual", "name": format!("Person {number}"),
        "billing": {"address": {"line1": "1 Street", "city": "Cork", "country": "IE", "postal_code": "T12"}},
    });
    // Found again by e-mail, by phone, or among all.
    match number % 3 {
        0 => person["email"] = format!("p{number}@example.com").into(),
        1 => person["phone_number"] = format!("+35312300{number:02}").into(),
        _ => {}
    }
    person
}

async fn encrypted(scene: &Scene, pin: &str) -> Value {
    let document = http_client().get(scene.sandbox.key_url()).send().await.unwrap().bytes().await.unwrap();
    json!({ "encrypted_number": encrypt_pin(pin, &document).unwrap() })
}

async fn publish(scene: &Scene, job: &Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    scene.publish(job.to_string().as_bytes(), BasicProperties::default().with_timestamp(now)).await;
}

/// The first event of each of a batch's jobs. Those of an earlier batch may be told again, if their worker was killed.
async fn events(listener: &mut Listener, batch: &str, jobs: usize) -> BTreeMap<String, ResultEvent> {
    let mut events: BTreeMap<String, ResultEvent> = BTreeMap::new();
    while events.len() < jobs {
        let event = listener.event().await;
        if event.batch.as_deref() != Some(batch) {
            continue;
        }
        let id = event.id.clone().unwrap();
        if let Some(known) = events.get(&id) {
            assert_eq!((&known.card, &known.cardholder), (&event.card, &event.cardholder), "{id}");
        }
        events.entry(id).or_insert(event);
    }
    events
}

fn effects(account: &Account) -> usize {
    account.cards.len() + account.cardholders.len() + account.changes.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_has_one_effect_under_faults_and_kills() {
    let faults = Faults {
        error_before: 0.1,
        error_after: 0.1,
        drop_before: 0.1,
        drop_after: 0.1,
        conflict: 0.1,
        half_body: 0.1,
        empty: 0.1,
        ..Faults::default()
    };
    let latency = Duration::from_millis(20);
    let scene = Scene::with(Options { latency, ..Options::default() }).await;
    let mut listener = scene.listen().await;
    // What is found out by looking does not wait minutes here: the sandbox ends its calls and shows its lists at once.
    let program = scene
        .program()
        .with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "3")
        .with("EMBOSSER__STRIPE__TOTAL_TIMEOUT_SECONDS", "3")
        .with("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "0.1");
    // Cards that exist, to be changed.
    let worker = program.spawn(&["worker", "--rate", "300"]);
    for number in 0..JOBS {
        let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
        publish(&scene, &json!({"id": format!("old{number}"), "batch": "old", "card": card})).await;
    }
    let old = events(&mut listener, "old", JOBS).await;
    worker.killed().await;
    scene.sandbox.set_faults(faults);
    let mut pins = BTreeMap::new();
    for number in 0..JOBS {
        let pin = format!("{:04}", 1000 + number * 37);
        let card = json!({"type": "virtual", "currency": "eur", "pin": encrypted(&scene, &pin).await});
        pins.insert(format!("both{number}"), pin);
        let both = json!({"id": format!("both{number}"), "batch": "new", "cardholder": person(number), "card": card});
        publish(&scene, &both).await;
        let alone = person(1000 + number);
        publish(
            &scene,
            &json!({"id": format!("person{number}"), "batch": "new", "operation": "create_cardholder", "cardholder": alone}),
        )
        .await;
        let pin = format!("{:04}", 2000 + number * 41);
        let change = json!({"status": "active", "pin": encrypted(&scene, &pin).await});
        pins.insert(format!("change{number}"), pin);
        let card_id = &old[&format!("old{number}")].card.as_ref().unwrap().id;
        publish(
            &scene,
            &json!({"id": format!("change{number}"), "batch": "new", "operation": "update_card",
                "card_id": card_id, "card": change}),
        )
        .await;
    }
    let began = Instant::now();
    for _ in 0..WORKERS_KILLED {
        let worker = program.spawn(&["worker", "--rate", "100"]);
        let before = effects(&scene.sandbox.account());
        let all = 5 * JOBS;
        while effects(&scene.sandbox.account()) < (before + 15).min(all) {
            assert!(began.elapsed() < Duration::from_secs(120), "{}", effects(&scene.sandbox.account()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        worker.killed().await;
    }
    let worker = program.spawn(&["worker", "--rate", "100"]);
    let events = events(&mut listener, "new", 3 * JOBS).await;
    let account = scene.sandbox.account();
    for number in 0..JOBS {
        // A cardholder and then their card, once each.
        let id = format!("both{number}");
        let event = &events[&id];
        assert_eq!(event.outcome, ResultOutcome::Issued, "{event:?}");
        let made: Vec<_> =
            account.cardholders.iter().filter(|made| made.job.as_deref() == Some(&id)).collect();
        let cards: Vec<_> = account.cards.iter().filter(|card| card.job.as_deref() == Some(&id)).collect();
        assert_eq!((made.len(), cards.len()), (1, 1), "{id}");
        assert_eq!(cards[0].cardholder.as_ref(), Some(&made[0].id));
        assert_eq!(event.card.as_ref().unwrap().id, cards[0].id);
        assert_eq!(cards[0].pin.as_ref(), pins.get(&id));
        // A cardholder alone.
        let id = format!("person{number}");
        let event = &events[&id];
        assert_eq!(event.outcome, ResultOutcome::Created, "{event:?}");
        let made: Vec<_> =
            account.cardholders.iter().filter(|made| made.job.as_deref() == Some(&id)).collect();
        assert_eq!(made.len(), 1, "{id}");
        assert_eq!(event.cardholder.as_ref().unwrap().id, made[0].id);
        // A change: what was called again did nothing again, as its key or a look told.
        let id = format!("change{number}");
        let event = &events[&id];
        assert_eq!(event.outcome, ResultOutcome::Updated, "{event:?}");
        let changes: Vec<_> =
            account.changes.iter().filter(|change| change.job.as_deref() == Some(&id)).collect();
        let keys: BTreeSet<_> = changes.iter().map(|change| &change.idempotency_key).collect();
        assert_eq!(changes.len(), keys.len(), "one effect under each key");
        assert_eq!(changes.len(), 1, "{id}: {changes:?}");
        assert_eq!(event.card.as_ref().unwrap().id, changes[0].card);
        let card = account.cards.iter().find(|card| card.id == changes[0].card).unwrap();
        assert_eq!(card.pin.as_ref(), pins.get(&id));
    }
    assert_eq!(account.cardholders.len(), 2 * JOBS);
    assert_eq!(account.cards.len(), 2 * JOBS);
    assert!(scene.left_in_queues().await.is_empty());
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_cards_changes_the_latest_stays_and_an_earlier_one_is_not_sent_again() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let program = scene
        .program()
        .with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "3")
        .with("EMBOSSER__STRIPE__TOTAL_TIMEOUT_SECONDS", "3")
        .with("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "0.1");
    let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
    publish(&scene, &json!({"id": "old", "batch": "old", "card": card})).await;
    let worker = program.spawn(&["worker", "--rate", "50"]);
    let card_id = listener.event().await.card.unwrap().id;
    // The first change is killed with its call cut off before Stripe had it.
    scene.sandbox.set_faults(Faults { drop_before: 1.0, ..Faults::default() });
    let change = |id: &str, status: &str| json!({"id": id, "batch": "b", "operation": "update_card", "card_id": card_id, "card": {"status": status}});
    publish(&scene, &change("first", "inactive")).await;
    let posts = || scene.sandbox.requests().iter().filter(|seen| seen.method == "POST").count();
    let began = Instant::now();
    while posts() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.killed().await;
    scene.sandbox.set_faults(Faults::default());
    // Somebody else makes a later change of the same card meanwhile, over HTTP or another queue on the same ledger.
    let other = program.with("EMBOSSER__RABBITMQ__PREFIX", "other");
    let worker = other.spawn(&["worker", "--rate", "50"]);
    let broker_of_other = "other.jobs";
    let publisher = embosser::queue::publisher::Publisher::new(scene.broker(), "test");
    let body = change("later", "active").to_string();
    let began = Instant::now();
    loop {
        let message = embosser::queue::publisher::Message {
            exchange: "",
            key: broker_of_other,
            body: body.as_bytes(),
            properties: BasicProperties::default(),
        };
        // Until the worker has declared its queue.
        if publisher.publish(&message).await.is_ok() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    publisher.close().await;
    let began = Instant::now();
    while !scene.sandbox.account().changes.iter().any(|change| change.job.as_deref() == Some("later")) {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
    let worker = scene.program().spawn(&["worker", "--rate", "50"]);
    let event = listener.event().await;
    assert_eq!(event.id.as_deref(), Some("first"));
    assert_eq!(event.error.unwrap().code, "superseded");
    let account = scene.sandbox.account();
    let jobs: Vec<_> = account.changes.iter().map(|change| change.job.as_deref()).collect();
    assert_eq!(jobs, [Some("later")], "the earlier change did not undo the later one");
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// Its whole document, without a place for what is asked for.
fn with(mut job: Value, asked: Value) -> Value {
    job.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
    job
}

#[test]
fn the_schema_and_the_reader_of_jobs_agree_on_each_operation() {
    let schema = jsonschema::validator_for(&embosser::intake::document::json_schema()).unwrap();
    let (cardholder, card) = (person(0), json!({"type": "virtual", "currency": "eur"}));
    let change = json!({"status": "active"});
    let (create, update) = (json!({"operation": "create_cardholder"}), json!({"operation": "update_card"}));
    for (asked, good) in [
        (json!({"card": card}), true),
        (json!({"card": card, "cardholder": cardholder}), true),
        (with(create.clone(), json!({"cardholder": cardholder})), true),
        (with(update.clone(), json!({"card_id": "ic_1", "card": change})), true),
        (json!({"card": change}), false),
        (json!({"card": card, "card_id": "ic_1"}), false),
        (create.clone(), false),
        (with(create.clone(), json!({"cardholder": {"name": "A"}})), false),
        (with(create, json!({"cardholder": cardholder, "card": card})), false),
        (with(update.clone(), json!({"card": change})), false),
        (with(update, json!({"card_id": "ic_1", "card": card})), false),
    ] {
        let job = with(json!({"id": "a"}), asked);
        assert_eq!(schema.is_valid(&job), good, "{job}");
        let read = embosser::intake::document::decode(job.to_string().as_bytes(), None);
        assert_eq!(read.is_ok(), good, "{job}: {read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_to_be_chosen_is_answered_with_its_link_once_and_cancelling_must_be_said() {
    let scene = Scene::with(Options::default()).await;
    scene.sandbox.stock("ich_1", 1);
    let mut listener = scene.listen().await;
    let program = scene.program().with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com");
    let worker = program.spawn(&["worker", "--rate", "50"]);
    let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur", "pin": {"choose": true}});
    let job = json!({"id": "chosen", "batch": "b", "card": card});
    publish(&scene, &job).await;
    let event = listener.event().await;
    assert_eq!(event.outcome, ResultOutcome::AwaitingPin, "{event:?}");
    assert!(event.pin_link.unwrap().expose().starts_with("https://pins.example.com/pin#"));
    assert!(event.card.is_none() && event.error.is_none());
    publish(&scene, &job).await;
    let again = listener.event().await;
    assert_eq!((again.outcome, again.pin_link), (ResultOutcome::AwaitingPin, None), "it has been told");
    assert!(scene.sandbox.account().cards.is_empty());

    std::fs::write(program.directory.join("cancel.csv"), "card,status\nic_sandbox00000001,canceled\n")
        .unwrap();
    let unsaid = program.run(&["submit", "cancel.csv", "--wait"]).await;
    expect_exit(&unsaid, 2);
    assert!(String::from_utf8_lossy(&unsaid.stderr).contains("--yes-cancel 1"), "{unsaid:?}");
    assert!(scene.sandbox.account().changes.is_empty());
    expect_exit(&program.run(&["submit", "cancel.csv", "--wait", "--yes-cancel", "1"]).await, 0);
    assert_eq!(scene.sandbox.account().changes.len(), 1);
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}
