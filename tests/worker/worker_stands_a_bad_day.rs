//! Promise: whatever the broker, Stripe or a sender do (a broker that is not there, queues that are deleted or full, a
//! network that is cut, jobs that are too old, jobs that kill their worker, an hour without Stripe), the worker lives,
//! says how it stands, goes on by itself, and answers every job once it can.

use crate::support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embosser::queue::publisher::Publisher;
use embosser::sandbox::{Faults, Options};
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, BasicNackOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};
use support::proxy::Proxy;
use support::scene::Scene;
use support::{Program, Running, expect_exit, free_port, http_client, one_card_each, pin_of};

/// So many tests at a time: they wait more than they work, but brokers that start at once hold each other up.
static ROOM: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(4);

/// How the worker says it stands: live, ready, and the parts of it.
async fn standing(listen: u16) -> Option<(bool, bool, Value)> {
    let get = async |path: &str| http_client().get(format!("http://127.0.0.1:{listen}/{path}")).send().await;
    let live = get("healthz").await.ok()?.status().is_success();
    let ready = get("readyz").await.ok()?;
    Some((live, ready.status().is_success(), ready.json().await.ok()?))
}

/// Waits until it is ready, or is not; in any case it lives.
async fn until_ready(listen: u16, wanted: bool, at_most: Duration) -> Duration {
    let began = Instant::now();
    loop {
        if let Some((live, ready, parts)) = standing(listen).await {
            assert!(live);
            if ready == wanted {
                return began.elapsed();
            }
            assert!(began.elapsed() < at_most, "{parts}");
        }
        assert!(began.elapsed() < at_most, "no answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn worker_on(program: Program, listen: u16) -> Running {
    program
        .with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{listen}"))
        .spawn(&["worker", "--rate", "100"])
}

async fn stopped(worker: Running) {
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

fn job(id: &str, more: Value) -> Vec<u8> {
    let mut job = json!({"id": id, "batch": "b", "operation": "create_card",
        "card": {"cardholder": "ich_1", "type": "virtual", "currency": "eur"}});
    for (name, value) in more.as_object().unwrap() {
        job[name] = value.clone();
    }
    job.to_string().into_bytes()
}

/// A job with a PIN under the sandbox's key.
async fn job_with_pin(scene: &Scene, id: &str) -> Vec<u8> {
    let key = support::client_of(&scene.sandbox).pin_key().await.unwrap();
    let jwe = embosser::encrypt::encrypt_pin("4711", &key).unwrap();
    let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur",
        "pin": {"encrypted_number": jwe}});
    job(id, json!({"card": card}))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_it_lives_is_not_ready_and_begins_when_there_is_one() {
    let _room = ROOM.acquire().await.unwrap();
    let mut scene = Scene::with_own_node(Options::default()).await;
    scene.rabbit.kill();
    let listen = free_port();
    let worker = worker_on(scene.program(), listen);
    until_ready(listen, false, Duration::from_secs(10)).await;
    let (_, _, parts) = standing(listen).await.unwrap();
    assert_eq!((&parts["broker"], &parts["ledger"]), (&json!(false), &json!(true)));
    scene.rabbit.start_again().await;
    until_ready(listen, true, Duration::from_secs(40)).await;
    let expected = scene.manifest(20).await;
    expect_exit(&scene.program().run(&["submit", "cards.csv", "--wait"]).await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    // And again, while it stands idle.
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.rabbit.kill();
    until_ready(listen, false, Duration::from_secs(30)).await;
    scene.rabbit.start_again().await;
    until_ready(listen, true, Duration::from_secs(40)).await;
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_or_dead_network_is_noticed_and_nothing_is_made_twice() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options { latency: Duration::from_millis(50), ..Options::default() }).await;
    let proxy = Proxy::before(scene.rabbit.port()).await;
    let url = scene.rabbit.url_by(proxy.port());
    let listen = free_port();
    let worker = worker_on(scene.program().with("EMBOSSER__RABBITMQ__URL", &url), listen);
    let expected = scene.manifest(400).await;
    let following = scene.program().spawn(&["submit", "cards.csv", "--wait"]);
    for cards in [60, 120, 180] {
        scene.cards(cards).await;
        proxy.cut();
        // Ready again by itself; new connections go through.
        until_ready(listen, true, Duration::from_secs(20)).await;
    }
    // The worst kind: packets vanish, and nobody is told. Heartbeats find out.
    scene.cards(220).await;
    proxy.stall(true);
    let noticed = until_ready(listen, false, Duration::from_secs(45)).await;
    eprintln!("a dead network was noticed after {noticed:?}");
    proxy.stall(false);
    expect_exit(&following.ended().await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    // What was answered on the dead connection comes again, once the broker has noticed as well.
    let began = Instant::now();
    while scene.left_in_queues().await != BTreeMap::new() {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", scene.left_in_queues().await);
    }
    one_card_each(&scene.sandbox.account(), &expected);
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_to_a_broker_that_says_nothing_is_told_so_and_goes_on_once_it_does() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let proxy = Proxy::before(scene.rabbit.port()).await;
    // Dead connections are noticed sooner than with the usual heartbeat of 10 s.
    let url = format!("{}?heartbeat=2", scene.rabbit.url_by(proxy.port()));
    let program = || scene.program().with("EMBOSSER__RABBITMQ__URL", &url);
    let expected = scene.manifest(5000).await;
    let topology = scene.broker().topology;
    // In the middle of it.
    let submitting = program().spawn(&["submit", "cards.csv"]);
    let began = Instant::now();
    while scene.messages(&topology.jobs).await.unwrap_or(0) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.stall(true);
    // From the beginning: there is an end, and it says what was waited for.
    let shown = format!("amqp://127.0.0.1:{}", proxy.port());
    let starting = program().spawn(&["submit", "cards.csv"]);
    let serving = program().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test").spawn(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
    ]);
    let (starting, serving) = tokio::join!(starting.ended(), serving.ended());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    for output in [starting, serving] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(&shown) && said.contains("no answer"),
            "{said}"
        );
    }
    proxy.stall(false);
    let output = submitting.ended().await;
    expect_exit(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("publishing failed; trying again"), "{said}");
    let worker = scene.worker("1000");
    scene.cards(expected.len()).await;
    one_card_each(&scene.sandbox.account(), &expected);
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_made_again_and_consumed() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let listen = free_port();
    let worker = worker_on(scene.program(), listen);
    until_ready(listen, true, Duration::from_secs(20)).await;
    let broker = scene.broker();
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for (number, queue) in [&broker.topology.jobs, &broker.topology.dead].into_iter().enumerate() {
        channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        let began = Instant::now();
        while scene.messages(queue).await.is_none() {
            assert!(began.elapsed() < Duration::from_secs(30), "{queue} is not made again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        until_ready(listen, true, Duration::from_secs(20)).await;
        scene.publish(&job(&format!("j{number}"), json!({})), BasicProperties::default()).await;
        scene.cards(number + 1).await;
    }
    connection.close(200, "done".into()).await.unwrap();
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn told_not_to_declare_it_makes_nothing_and_waits_for_what_is_missing() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let listen = free_port();
    let worker = worker_on(scene.program().with("EMBOSSER__RABBITMQ__DECLARE", "false"), listen);
    until_ready(listen, false, Duration::from_secs(10)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for queue in scene.broker().topology.queues() {
        assert_eq!(scene.messages(&queue).await, None, "{queue} was made");
    }
    // Whoever looks after the broker makes them.
    let publisher = Publisher::new(scene.broker(), "test");
    publisher.connect().await.unwrap();
    publisher.close().await;
    until_ready(listen, true, Duration::from_secs(40)).await;
    scene.publish(&job("a", json!({})), BasicProperties::default()).await;
    scene.cards(1).await;
    worker.signal(rustix::process::Signal::TERM);
    let output = worker.ended().await;
    expect_exit(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("NOT_FOUND"), "what is missing is told: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_makes_the_sender_wait_and_nothing_is_lost() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let expected = scene.manifest(1200).await;
    let program = || scene.program().with("EMBOSSER__RABBITMQ__JOBS_MAX", "10");
    let submitting = program().spawn(&["submit", "cards.csv", "--wait"]);
    submitting.until_it_says("the queue is full").await;
    let waiting = scene.messages(&scene.broker().topology.jobs).await.unwrap();
    // The broker keeps a quorum queue's bound about: what is published at once goes over it.
    assert!((10..600).contains(&waiting), "{waiting} messages in a queue for 10");
    let worker = program().spawn(&["worker", "--rate", "300"]);
    expect_exit(&submitting.ended().await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_deadline_or_with_an_old_pin_is_refused_without_a_call() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let worker = scene.program().with("EMBOSSER__PIN__MAX_AGE_SECONDS", "30").spawn(&["worker"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let old = || BasicProperties::default().with_timestamp(now - 60);
    scene
        .publish(&job("past", json!({"deadline": "2020-01-01T00:00:00Z"})), BasicProperties::default())
        .await;
    assert_eq!(listener.refused().await, "expired");
    scene.publish(&job_with_pin(&scene, "old").await, old()).await;
    assert_eq!(listener.refused().await, "expired");
    assert_eq!(scene.sandbox.counts().creates, 0);
    // Without a PIN nothing grows old, and a young PIN is used.
    scene.publish(&job("no pin", json!({})), old()).await;
    assert!(listener.event().await.card.is_some());
    scene.publish(&job_with_pin(&scene, "young").await, BasicProperties::default().with_timestamp(now)).await;
    assert!(listener.event().await.card.is_some());
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    stopped(worker).await;
}

/// Takes the only job of the queue and gives it back until the broker gives up on it.
async fn given_up(scene: &Scene) {
    let broker = scene.broker();
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let jobs = broker.topology.jobs.as_str();
    let mut consumer = channel.basic_consume(jobs.into(), "".into(), options, arguments).await.unwrap();
    let mut deliveries = 0;
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(3), consumer.next()).await {
        let options = BasicNackOptions { requeue: true, ..Default::default() };
        delivery.unwrap().acker.nack(options).await.unwrap();
        deliveries += 1;
    }
    assert!(deliveries >= 20, "{deliveries} deliveries");
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(scene.messages(&broker.topology.dead).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_broker_gives_up_on_is_refused_or_found_at_stripe() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    // Never attempted: refused.
    scene.publish(&job_with_pin(&scene, "never").await, BasicProperties::default()).await;
    given_up(&scene).await;
    let worker = scene.worker("100");
    assert_eq!(listener.refused().await, "poison");
    assert_eq!(scene.sandbox.counts().creates, 0);
    stopped(worker).await;
    // Begun, and its worker died when Stripe had answered: looked for, and found.
    // It says when it was published: its first worker finds it waiting and could not know otherwise.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    scene.publish(&job_with_pin(&scene, "begun").await, BasicProperties::default().with_timestamp(now)).await;
    let dying = scene.program().with("EMBOSSER_KILL_AT", "answered:1").spawn(&["worker"]);
    assert!(support::was_killed(&dying.ended().await));
    assert_eq!(scene.sandbox.counts().cards, 1);
    given_up(&scene).await;
    let worker = scene.worker("100");
    let event = listener.event().await;
    assert_eq!(event.card.map(|card| card.id), Some(scene.sandbox.account().cards[0].id.clone()));
    assert_eq!((scene.sandbox.counts().creates, scene.sandbox.counts().cards), (1, 1));
    assert_eq!(scene.left_in_queues().await, BTreeMap::new(), "no ciphertext is left behind");
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_stripe_is_down_jobs_stay_in_their_queue_and_a_probe_calls_now_and_then() {
    let _room = ROOM.acquire().await.unwrap();
    let scene =
        Scene::with(Options { faults: Faults { html: 1.0, ..Faults::default() }, ..Options::default() })
            .await;
    let expected = scene.manifest(600).await;
    let worker = scene.worker("50");
    let following = scene.program().spawn(&["submit", "cards.csv", "--wait"]);
    let calls = || scene.sandbox.requests().iter().filter(|seen| seen.method == "POST").count();
    let began = Instant::now();
    while calls() == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "nobody calls");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let calls = calls();
    assert!((8..60).contains(&calls), "{calls} calls in 8 s to a Stripe that is down");
    let topology = scene.broker().topology;
    for wait in 0..5 {
        let (rung, _) = topology.rung(wait);
        assert_eq!(scene.messages(&rung).await, Some(0), "{rung}: jobs march round the ladder");
    }
    assert!(scene.messages(&topology.jobs).await.unwrap() >= 300, "they wait where they are");
    scene.sandbox.set_faults(Faults::default());
    expect_exit(&following.ended().await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_the_job_is_not_lost() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options { latency: Duration::from_secs(4), ..Options::default() }).await;
    let expected = scene.manifest(3).await;
    let worker = scene.worker("100");
    expect_exit(&scene.program().run(&["submit", "cards.csv"]).await, 0);
    while scene.sandbox.counts().creates < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.signal(rustix::process::Signal::TERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 3);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let next = scene.worker("100");
    expect_exit(&scene.program().run(&["submit", "cards.csv", "--wait"]).await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    stopped(next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_a_certificate_of_its_own_authority() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with_tls(Options::default()).await;
    let expected = scene.manifest(20).await;
    let url = scene.rabbit.tls_url();
    let program = || scene.program().with("EMBOSSER__RABBITMQ__URL", &url);
    let trusting = || program().with("EMBOSSER__RABBITMQ__CA_FILE", scene.rabbit.ca_file().to_str().unwrap());
    let listen = free_port();
    let doubting = worker_on(program(), listen);
    until_ready(listen, false, Duration::from_secs(10)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!standing(listen).await.unwrap().1, "a certificate that nobody vouches for is not accepted");
    stopped(doubting).await;
    let worker = trusting().spawn(&["worker", "--rate", "100"]);
    expect_exit(&trusting().run(&["submit", "cards.csv", "--wait"]).await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    stopped(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_and_results_hold_against_the_schemas_that_are_handed_out() {
    let _room = ROOM.acquire().await.unwrap();
    let scene = Scene::with(Options::default()).await;
    let schema = async |of: &str| {
        let output = scene.program().run(&["schema", of]).await;
        expect_exit(&output, 0);
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(jsonschema::meta::is_valid(&schema));
        jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&schema).unwrap()
    };
    let (jobs, results) = (schema("job").await, schema("result").await);
    // What `submit` publishes of a whole example.
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/rollout.csv");
    std::fs::copy(example, scene.directory.path().join("rollout.csv")).unwrap();
    expect_exit(&scene.program().run(&["submit", "rollout.csv"]).await, 0);
    let broker = scene.broker();
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (queue, options) = (broker.topology.jobs.as_str(), BasicConsumeOptions::default());
    let mut consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
    for _ in 0..200 {
        let delivery = consumer.next().await.unwrap().unwrap();
        let job: Value = serde_json::from_slice(&delivery.data).unwrap();
        let wrong: Vec<String> =
            jobs.iter_errors(&job).map(|error| error.instance_path().to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    connection.close(200, "they go back".into()).await.unwrap();
    for bad in [
        json!({"id": "a"}),
        json!({"id": "a", "card": {"type": "virtual"}, "pin": "4711"}),
        json!({"id": "", "card": {"type": "virtual", "currency": "eur"}}),
        json!({"id": "a", "card": {"type": "plastic", "currency": "eur"}}),
    ] {
        assert!(!jobs.is_valid(&bad), "{bad}");
    }
    let mut listener = scene.listen().await;
    scene.publish(b"no job", BasicProperties::default()).await;
    let worker = scene.worker("200");
    let (mut issued, mut refused) = (0, 0);
    for _ in 0..201 {
        let event: Value = serde_json::from_slice(&listener.raw().await).unwrap();
        let wrong: Vec<String> = results.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}\n{event}");
        if event["outcome"] == "issued" { issued += 1 } else { refused += 1 }
    }
    assert_eq!((issued, refused), (200, 1));
    assert!(pin_of(1).is_some());
    stopped(worker).await;
}
