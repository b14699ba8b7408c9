//! Promise: whatever is published to the jobs queue is answered, with one card per job, through duplicates, hand-overs,
//! drains and messages that are no jobs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embosser::broker::publisher::{Message, Publisher};
use embosser::sandbox::Options;
use embosser::worker::event::ResultEvent;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use support::scene::{ONE_AT_A_TIME, Scene};
use support::{expect_exit, one_card_each};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_published_again_and_again_is_one_card_and_always_answered() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with(Options { latency: Duration::from_millis(30), ..Options::default() }).await;
    let expected = scene.manifest(40).await;
    let worker = scene.worker("100");
    // Twice at once.
    let program = scene.program();
    let (one, two) =
        tokio::join!(program.run(&["submit", "cards.csv"]), program.run(&["submit", "cards.csv", "--wait"]));
    expect_exit(&one, 0);
    expect_exit(&two, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    // And after completion: answered once more, without a call.
    let creates = scene.sandbox.account().creates;
    expect_exit(&program.run(&["submit", "cards.csv", "--wait", "--results", "again.csv"]).await, 0);
    assert_eq!(scene.sandbox.account().creates, creates);
    let again = std::fs::read_to_string(scene.directory.path().join("again.csv")).unwrap();
    assert_eq!(again.matches(",issued,ic_").count(), 40, "{again}");
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_attempts_no_job_twice_and_loses_none() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with(Options { latency: Duration::from_millis(200), ..Options::default() }).await;
    let expected = scene.manifest(150).await;
    let worker = scene.worker("50");
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    scene.cards(40).await;
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
    let made = scene.sandbox.account().cards.len();
    assert!(made < 150, "it was to stop in the middle");
    assert_eq!(scene.sandbox.account().creates, made as u64, "calls in flight were let end");
    let next = scene.worker("50");
    scene.cards(150).await;
    one_card_each(&scene.sandbox.account(), &expected);
    assert_eq!(scene.sandbox.account().creates, 150, "no job was attempted twice");
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    next.signal(rustix::process::Signal::TERM);
    expect_exit(&next.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_worker_takes_over_within_ten_seconds_and_within_the_limit() {
    const RATE: usize = 40;
    let _alone = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with(Options { latency: Duration::from_millis(50), ..Options::default() }).await;
    let expected = scene.manifest(300).await;
    let first = scene.worker(&RATE.to_string());
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    scene.cards(60).await;
    let second = scene.worker(&RATE.to_string());
    scene.cards(100).await;
    first.killed().await;
    let made = scene.sandbox.account().cards.len();
    let killed = Instant::now();
    scene.cards(made + 10).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "taken over after {:?}", killed.elapsed());
    scene.cards(300).await;
    one_card_each(&scene.sandbox.account(), &expected);
    let arrivals = scene.sandbox.account().arrivals;
    let in_second =
        |from: usize| arrivals[from..].iter().take_while(|at| **at < arrivals[from] + 1.0).count();
    let fullest = (0..arrivals.len()).map(in_second).max().unwrap();
    // One more than the rate: calls that left evenly need not arrive so on a busy machine.
    assert!(fullest <= RATE + 1, "{fullest} calls in a second, across the hand-over");
    second.signal(rustix::process::Signal::TERM);
    expect_exit(&second.ended().await, 0);
}

/// Eleven kinds of messages that are no jobs: a body, and the code it must be refused with.
fn no_jobs() -> [(Vec<u8>, &'static str); 11] {
    let job = |from: &str, to: &str| {
        let good = r#"{"id": "x", "batch": "bad", "operation": "create_card",
            "card": {"type": "virtual", "currency": "eur", "cardholder": "ich_1"}}"#;
        good.replace(from, to).into_bytes()
    };
    [
        (b"not json at all".to_vec(), "message_not_json"),
        (vec![0xff, 0xfe, 0x00], "message_not_json"),
        (Vec::new(), "message_not_json"),
        (b"[1, 2, 3]".to_vec(), "message_invalid"),
        (job("\"id\": \"x\", ", ""), "message_invalid"),
        (job("create_card", "destroy_card"), "message_invalid"),
        (job("\"batch\"", "\"priority\": 1, \"batch\""), "message_invalid"),
        (job("\"cardholder\"", "\"cardholdre\""), "unknown_parameter"),
        (job("\"batch\"", "\"stripe_account\": \"acct_other\", \"batch\""), "wrong_account"),
        (job("\"type\"", "\"pin\": \"4711\", \"pin\": null, \"type\""), "message_invalid"),
        (vec![b' '; 200_000], "message_too_big"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_that_are_no_jobs_are_refused_and_all_good_ones_issued() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with(Options::default()).await;
    let expected = scene.manifest(50).await;
    let broker = scene.broker();
    let publisher = Publisher::new(broker.clone(), "test");
    publisher.connect().await.unwrap();
    // Somebody listens to everything.
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
    channel.queue_declare("listener".into(), options, FieldTable::default()).await.unwrap();
    let results = broker.topology.results.as_str().into();
    let bound = QueueBindOptions::default();
    channel.queue_bind("listener".into(), results, "#".into(), bound, FieldTable::default()).await.unwrap();
    let mut listener = channel
        .basic_consume("listener".into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap();
    let worker = scene.worker("200");
    let submitting = scene.program().spawn(&["submit", "cards.csv"]);
    let kinds = no_jobs();
    for _ in 0..100 {
        for (body, _) in &kinds {
            let message = Message {
                exchange: "",
                key: &broker.topology.jobs,
                body,
                properties: lapin::BasicProperties::default(),
            };
            publisher.publish(&message).await.unwrap();
        }
    }
    expect_exit(&submitting.ended().await, 0);
    let (mut codes, mut issued) = (BTreeMap::<String, usize>::new(), 0);
    for _ in 0..1150 {
        let delivery = tokio::time::timeout(Duration::from_secs(60), listener.next()).await;
        let Ok(delivery) = delivery else {
            worker.signal(rustix::process::Signal::TERM);
            let said = worker.ended().await.stderr;
            let said = String::from_utf8_lossy(&said);
            panic!(
                "not every message was answered: {issued} issued, {codes:?}\n{}",
                &said[said.len().saturating_sub(2000)..]
            );
        };
        let delivery = delivery.unwrap().unwrap();
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        let event: ResultEvent = serde_json::from_slice(&delivery.data).unwrap();
        match event.error {
            Some(error) => *codes.entry(error.code).or_default() += 1,
            None => issued += 1,
        }
    }
    let mut wanted = BTreeMap::<String, usize>::new();
    for (_, code) in kinds {
        *wanted.entry(code.to_owned()).or_default() += 100;
    }
    assert_eq!(codes, wanted);
    assert_eq!(issued, 50);
    one_card_each(&scene.sandbox.account(), &expected);
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
    publisher.close().await;
}
