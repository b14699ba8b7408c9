//! Promise: a PIN's life is not lengthened by what a message says of its time, or does not say; and what was answered is not
//! answered otherwise by a copy of it.

use crate::support;

use std::collections::BTreeMap;
use std::time::Duration;

use embosser::sandbox::Options;
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use support::expect_exit;
use support::scene::Scene;

/// Seconds in the year 2100.
const FAR: i64 = 4_102_444_800;

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn stamped(timestamp: u64) -> BasicProperties {
    BasicProperties::default().with_timestamp(timestamp)
}

fn not_before(properties: BasicProperties, seconds: i64) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("embosser-not-before".into(), AMQPValue::LongLongInt(seconds * 1000));
    properties.with_headers(headers)
}

/// A job with a PIN under the sandbox's key, or without one.
async fn job(scene: &Scene, id: &str, pin: bool) -> Vec<u8> {
    let mut card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
    if pin {
        let key = support::client_of(&scene.sandbox).pin_key().await.unwrap();
        let jwe = embosser::encrypt::encrypt_pin("4711", &key).unwrap();
        card["pin"] = json!({ "encrypted_number": jwe });
    }
    let job: Value = json!({"id": id, "batch": "b", "card": card});
    job.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_grows_old_whatever_its_message_says() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let now = now();
    for (id, properties) in [
        ("microseconds", stamped(now * 1_000_000)),
        ("nanoseconds", stamped(now * 1_000_000_000)),
        ("an hour ahead", stamped(now + 3600)),
        ("none", BasicProperties::default()),
        ("put away", not_before(stamped(now), FAR)),
    ] {
        scene.publish(&job(&scene, id, true).await, properties).await;
    }
    // They wait for a worker, and grow too old for it.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let worker = scene.program().with("EMBOSSER__PIN__MAX_AGE_SECONDS", "5").spawn(&["worker"]);
    let mut refused = BTreeMap::new();
    for _ in 0..5 {
        let event = listener.event().await;
        let error = event.error.unwrap_or_else(|| panic!("{:?} was issued", event.id));
        assert_eq!(error.code, "expired");
        refused.insert(event.id.unwrap(), error.message);
    }
    for (id, unknown) in [("none", true), ("an hour ahead", true), ("microseconds", false)] {
        assert_eq!(refused[id].contains("timestamp"), unknown, "{id}: {}", refused[id]);
    }
    assert_eq!(scene.sandbox.counts().creates, 0);
    // Its queue is empty: what comes now is young, whatever it says.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (id, properties) in [("young", BasicProperties::default()), ("ahead", stamped(now + 3600))] {
        scene.publish(&job(&scene, id, true).await, properties).await;
        assert!(listener.event().await.card.is_some(), "{id}");
    }
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// Takes the only job of the queue and gives it back until the broker gives up on it.
async fn given_up(scene: &Scene) {
    let broker = scene.broker();
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let jobs = broker.topology.jobs.as_str();
    let mut consumer = channel.basic_consume(jobs.into(), "".into(), options, arguments).await.unwrap();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(3), consumer.next()).await {
        let options = BasicNackOptions { requeue: true, ..Default::default() };
        delivery.unwrap().acker.nack(options).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_as_poison_gets_no_card_from_another_copy_of_it() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let body = job(&scene, "twice", false).await;
    let published = now();
    scene.publish(&body, stamped(published)).await;
    given_up(&scene).await;
    let worker = scene.worker("100");
    assert_eq!(listener.refused().await, "poison");
    // A copy of it that lay somewhere: told the same. With no time of its own it may be as old.
    scene.publish(&body, stamped(published)).await;
    assert_eq!(listener.refused().await, "poison");
    assert_eq!(scene.sandbox.counts().creates, 0);
    // Its sender sends it again, having been told.
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.publish(&body, stamped(now())).await;
    assert!(listener.event().await.card.is_some());
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}
