//! Promise: whatever is published to the jobs queue is answered, with one card per job, through duplicates, hand-overs,
//! drains and messages that are no jobs.

use crate::support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embosser::queue::event::ResultEvent;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::{Faults, Forced, Options};
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::scene::Scene;
use support::{expect_exit, one_card_each};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_published_again_and_again_is_one_card_and_always_answered() {
    let scene = Scene::with(Options { latency: Duration::from_millis(30), ..Options::default() }).await;
    let expected = scene.manifest(40).await;
    let worker = scene.worker("100");
    // Twice at once.
    let program = scene.program();
    let (one, two) =
        tokio::join!(program.run(&["submit", "cards.csv"]), program.run(&["submit", "cards.csv", "--wait"]));
    expect_exit(&one, 0);
    expect_exit(&two, 0);
    // That the queue in which it follows was not there yet is nobody's trouble.
    let said = String::from_utf8_lossy(&two.stderr);
    assert!(!said.contains("\"level\":\"ERROR\""), "{said}");
    one_card_each(&scene.sandbox.account(), &expected);
    assert!(said_of_status(&scene).await.contains(": 40 rows, 40 issued, 0 refused"));
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

/// What `status` says of the batches: the ledger is told how many rows are published.
async fn said_of_status(scene: &Scene) -> String {
    let status = scene.program().run(&["status"]).await;
    expect_exit(&status, 0);
    String::from_utf8(status.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_attempts_no_job_twice_and_loses_none() {
    let scene = Scene::with(Options { latency: Duration::from_millis(200), ..Options::default() }).await;
    let expected = scene.manifest(150).await;
    let worker = scene.worker("50");
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    scene.cards(40).await;
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
    let made = scene.sandbox.account().cards.len();
    assert!(made < 150, "it was to stop in the middle");
    assert!(
        said_of_status(&scene).await.contains(&format!(": 150 rows, {made} issued")),
        "what is to come is told"
    );
    assert_eq!(scene.sandbox.account().creates, made as u64, "calls in flight were let end");
    let next = scene.worker("50");
    scene.cards(150).await;
    one_card_each(&scene.sandbox.account(), &expected);
    assert_eq!(scene.sandbox.account().creates, 150, "no job was attempted twice");
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    next.signal(rustix::process::Signal::TERM);
    expect_exit(&next.ended().await, 0);
}

/// Another consumer of the jobs queue, which stands by until the worker takes nothing more.
struct Next {
    connection: lapin::Connection,
    consumer: lapin::Consumer,
}

impl Next {
    async fn stand_by(scene: &Scene) -> Self {
        let broker = scene.broker();
        let connection = broker.connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (queue, options) = (broker.topology.jobs.as_str(), BasicConsumeOptions::default());
        let consumer =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
        Self { connection, consumer }
    }

    /// Takes so many jobs, each of which was delivered once before at most; they stay in their queue.
    async fn takes(mut self, jobs: usize, at_most: Duration) {
        let began = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < jobs {
            let left = at_most.saturating_sub(began.elapsed());
            let delivery = tokio::time::timeout(left, self.consumer.next()).await;
            let Ok(delivery) = delivery else { panic!("{} of {jobs} jobs within {at_most:?}", taken.len()) };
            let delivery = delivery.unwrap().unwrap();
            let headers = delivery.properties.headers().clone().unwrap_or_default();
            let before = headers.inner().get("x-delivery-count").cloned();
            assert!(matches!(before, None | Some(AMQPValue::LongLongInt(0 | 1))), "{before:?}");
            taken.push(delivery);
        }
        for delivery in taken {
            let options = BasicNackOptions { requeue: true, ..Default::default() };
            delivery.acker.nack(options).await.unwrap();
        }
        self.connection.close(200, "done".into()).await.unwrap();
    }
}

/// Deliveries that wait in a worker's memory are the next worker's as soon as it stops, not when its last call has ended.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_has_not_begun_is_the_next_ones_at_once() {
    const CALLS: Duration = Duration::from_secs(10);
    let slow = Faults { delay: 1.0, ..Faults::default() };
    let scene = Scene::with(Options { faults: slow, delay: CALLS, ..Options::default() }).await;
    let worker = scene.worker("60");
    let mut expected = scene.manifest(200).await;
    for number in 0..5 {
        let (id, card) = (format!("first{number}"), json!({"type": "virtual", "currency": "usd"}));
        let job = json!({"id": id, "card": card}).to_string();
        scene.publish(job.as_bytes(), BasicProperties::default()).await;
        expected.insert(id, None);
    }
    let began = Instant::now();
    while scene.sandbox.counts().creates < 5 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", scene.sandbox.counts());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let called = Instant::now();
    let next = Next::stand_by(&scene).await;
    // What comes while it stands still is in its hands, and not taken up when it is told to stop.
    worker.signal(Signal::STOP);
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    worker.signal(Signal::TERM);
    worker.signal(Signal::CONT);
    next.takes(200, Duration::from_secs(4)).await;
    assert!(called.elapsed() < CALLS && scene.sandbox.counts().cards == 0, "its calls are under way");
    expect_exit(&worker.ended().await, 0);
    assert_eq!(scene.sandbox.counts().cards, 5);
    scene.sandbox.set_faults(Faults::default());
    let worker = scene.worker("300");
    scene.cards(205).await;
    one_card_each(&scene.sandbox.account(), &expected);
    assert_eq!(scene.sandbox.counts().creates, 205, "no job was attempted twice");
    worker.signal(Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// Looking for cards is many calls: whoever is told to stop does not make them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_looks_through_many_pages_of_cards_hands_its_jobs_back_between_two() {
    const JOBS: u32 = 7;
    let scene = Scene::with(Options::default()).await;
    scene.manifest(JOBS as usize).await;
    for cardholder in 0..JOBS {
        // At this rate these are pages for more than a minute.
        scene.sandbox.stock(&format!("ich_{cardholder:02}"), 5_000);
    }
    let stocked = scene.sandbox.counts().cards;
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    let worker = scene.program().spawn(&["worker", "--rate", "5", "--reconcile-first"]);
    let lists = || scene.sandbox.requests().iter().filter(|seen| seen.path == "/v1/issuing/cards").count();
    let began = Instant::now();
    while lists() < 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} lists", lists());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.signal(Signal::TERM);
    let signalled = Instant::now();
    expect_exit(&worker.ended().await, 0);
    assert!(signalled.elapsed() < Duration::from_secs(5), "{:?}", signalled.elapsed());
    assert_eq!(scene.sandbox.counts().cards, stocked, "what was not looked for to the end is not made");
    assert_eq!(scene.left_in_queues().await, [(scene.broker().topology.jobs, JOBS)].into());
}

/// What was in flight waits on the ladder then; what was not is left to whoever stands by.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_jobs_are_held_up_too_long_leaves_the_queue_to_the_next() {
    const JOBS: u32 = 200;
    const REFUSED: u32 = 10;
    let scene = Scene::with(Options::default()).await;
    scene.sandbox.force(Some(Forced::error(400, "invalid_request_error", None, "Issuing is not set up.")));
    scene.manifest(JOBS as usize).await;
    let worker = scene.program().with("EMBOSSER__WORKER__HELD_SECONDS_MAX", "1");
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    let worker = worker.spawn(&["worker", "--rate", "10"]);
    let began = Instant::now();
    while scene.sandbox.counts().creates == 0 {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let next = Next::stand_by(&scene).await;
    let (ladder, _) = scene.broker().topology.rung(3);
    let began = Instant::now();
    // At 10 calls a second 40 jobs are in flight, and as many have come as were refused meanwhile.
    while scene.messages(&ladder).await.unwrap() < 40 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", scene.messages(&ladder).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let waiting = scene.messages(&ladder).await.unwrap();
    next.takes((JOBS - REFUSED - waiting) as usize, Duration::from_secs(5)).await;
    worker.signal(Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_something_else_than_the_card_that_exists_is_told_so() {
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let worker = scene.worker("100");
    let with = |name: &str, value: Value| {
        let mut card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur"});
        card[name] = value;
        card
    };
    let limit = |amount: u64| {
        with("spending_controls", json!({"spending_limits": [{"amount": amount, "interval": "daily"}]}))
    };
    let key = support::client_of(&scene.sandbox).pin_key().await.unwrap();
    let pin =
        |pin| with("pin", json!({"encrypted_number": embosser::encrypt::encrypt_pin(pin, &key).unwrap()}));
    let mut cards = BTreeMap::new();
    for (id, card, noted) in [
        ("limited", limit(1000), None),
        ("limited", limit(2000), Some("the change was not applied")),
        ("limited", limit(1000), None),
        ("with a PIN", pin("4711"), None),
        ("with a PIN", pin("4712"), Some("keeps the PIN it was made with")),
    ] {
        let job = json!({"id": id, "batch": "b", "card": card}).to_string();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        scene.publish(job.as_bytes(), BasicProperties::default().with_timestamp(now)).await;
        let event = listener.event().await;
        let made = event.card.as_ref().unwrap_or_else(|| panic!("{event:?}")).id.clone();
        assert_eq!(*cards.entry(id).or_insert(made.clone()), made, "it is the same card");
        match (noted, event.note.as_deref()) {
            (None, None) => {}
            (Some(noted), Some(note)) if note.contains(noted) => {}
            _ => panic!("{noted:?} is not in {event:?}"),
        }
    }
    assert_eq!(scene.sandbox.counts().creates, 2);
    worker.signal(Signal::TERM);
    expect_exit(&worker.ended().await, 0);
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
            Some(error) => *codes.entry(error.code.into_owned()).or_default() += 1,
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
