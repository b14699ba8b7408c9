//! Promise: a message that the AMQP library cannot read kills the connection that it is delivered to, and nothing else: the
//! broker moves it away, good jobs go on meanwhile, and none of them is given up on with it.

use crate::support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embosser::sandbox::Options;
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, LongString};
use serde_json::json;
use support::scene::Scene;
use support::{expect_exit, free_port, http_client, raw_amqp};

/// "grün" as latin1, which is not UTF-8.
const UNREADABLE: &[u8] = b"gr\xfcn";

fn job(id: &str) -> Vec<u8> {
    let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
    json!({"id": id, "batch": "b", "card": card}).to_string().into_bytes()
}

async fn publish_jobs(scene: &Scene, name: &str, count: usize) {
    for number in 0..count {
        scene.publish(&job(&format!("{name}{number}")), BasicProperties::default()).await;
    }
}

async fn publish_unreadable(scene: &Scene) {
    let queue = scene.broker().topology.jobs;
    raw_amqp::publish(&scene.rabbit, &queue, UNREADABLE, &job("unreadable")).await;
}

/// Waits until so many messages are in the queue.
async fn until_messages(scene: &Scene, queue: &str, count: u32, at_most: Duration) {
    let began = Instant::now();
    while scene.messages(queue).await != Some(count) {
        assert!(began.elapsed() < at_most, "{queue}: {:?}", scene.messages(queue).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_go_on_within_a_minute_and_the_message_is_parked() {
    let scene = Scene::with(Options { latency: Duration::from_millis(50), ..Options::default() }).await;
    let mut listener = scene.listen().await;
    publish_jobs(&scene, "before", 15).await;
    publish_unreadable(&scene).await;
    publish_jobs(&scene, "after", 15).await;
    let began = Instant::now();
    let listen = free_port();
    let program = scene.program().with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{listen}"));
    let workers = [program.spawn(&["worker", "--rate", "50"]), scene.worker("50")];
    let mut issued = BTreeMap::new();
    while issued.len() < 30 {
        let event = listener.event().await;
        assert!(event.card.is_some(), "a good job was given up on: {event:?}");
        issued.insert(event.id.unwrap(), ());
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(scene.sandbox.account().cards.len(), 30);
    let topology = scene.broker().topology;
    until_messages(&scene, &topology.parked, 1, Duration::from_secs(60)).await;
    assert_eq!(scene.left_in_queues().await, BTreeMap::from([(topology.parked.clone(), 1)]));
    // Who looks after the workers is told; each of them looks now and then.
    let began = Instant::now();
    loop {
        let metrics = http_client().get(format!("http://127.0.0.1:{listen}/metrics")).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        if metrics.lines().any(|line| line == "embosser_parked_messages 1") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{metrics}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Whoever comes next is not bothered by it.
    publish_jobs(&scene, "next", 5).await;
    scene.cards(35).await;
    for worker in workers {
        worker.signal(rustix::process::Signal::TERM);
        let output = worker.ended().await;
        expect_exit(&output, 0);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("cannot read"), "the cause is told: {said}");
    }
}

/// An earlier embosser declared the dead letters' queue without a bound on deliveries; the broker lets nobody change that.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_dead_letters_of_an_earlier_version_jobs_go_on_all_the_same() {
    let scene = Scene::with(Options::default()).await;
    let broker = scene.broker();
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("quorum")));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(broker.topology.dead.as_str().into(), durable, arguments).await.unwrap();
    let worker = scene.worker("50");
    publish_jobs(&scene, "before", 5).await;
    scene.cards(5).await;
    publish_unreadable(&scene).await;
    publish_jobs(&scene, "after", 5).await;
    scene.cards(10).await;
    until_messages(&scene, &broker.topology.jobs, 0, Duration::from_secs(30)).await;
    publish_jobs(&scene, "next", 5).await;
    scene.cards(15).await;
    connection.close(200, "done".into()).await.unwrap();
    worker.signal(rustix::process::Signal::TERM);
    let output = worker.ended().await;
    expect_exit(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no delivery limit"), "what to do is told: {said}");
}

/// Whoever listens to one batch alone hears of a body that cannot be read, if its headers name the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_answered_where_its_header_says() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen_to("*.rollout").await;
    let worker = scene.worker("50");
    let with_batch = |batch: &str| {
        let mut headers = FieldTable::default();
        headers.insert("embosser-batch".into(), AMQPValue::LongString(LongString::from(batch)));
        BasicProperties::default()
            .with_headers(headers)
            .with_correlation_id(format!("sent as {batch}").into())
    };
    // Of one without a header, and of one whose header can be no batch's name, only `refused.unknown` is told.
    scene.publish(b"not json", BasicProperties::default()).await;
    scene.publish(b"not json", with_batch("a/b\n")).await;
    scene.publish(b"not json", with_batch("rollout")).await;
    let told = tokio::time::timeout(Duration::from_secs(60), listener.consumer.next()).await;
    let told = told.expect("it is answered").unwrap().unwrap();
    assert_eq!(told.routing_key.as_str(), "refused.rollout");
    let correlation = told.properties.correlation_id().as_ref().map(ToString::to_string);
    assert_eq!(correlation.as_deref(), Some("sent as rollout"));
    let event: serde_json::Value = serde_json::from_slice(&told.data).unwrap();
    assert_eq!(
        (&event["batch"], &event["error"]["code"]),
        (&json!("rollout"), &json!("message_not_json")),
        "{event}"
    );
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}
