//! Promise: a broker that takes no messages, whose queues are other ones than are asked for, or of which a node is gone, costs no
//! job, and is told of where somebody looks: in readiness, metrics, progress and one sentence that says what to do.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::Options;
use serde_json::{Value, json};
use support::scene::Scene;
use support::serve::Served;
use support::{Program, Running, expect_exit, free_port, http_client, one_card_each};

/// A broker node is a heavy thing: one at a time.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const LONGEST: Duration = Duration::from_secs(40);

async fn get(port: u16, path: &str) -> Option<String> {
    http_client().get(format!("http://127.0.0.1:{port}/{path}")).send().await.ok()?.text().await.ok()
}

/// Waits until a worker's readiness is so.
async fn until_ready_is(port: u16, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let parts = get(port, "readyz").await.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        match parts {
            Some(parts) if wanted(&parts) => return parts,
            parts => assert!(began.elapsed() < LONGEST, "{parts:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The value of a metric without labels.
async fn metric(port: u16, name: &str) -> f64 {
    let text = get(port, "metrics").await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not measured")).parse().unwrap()
}

fn worker_on(program: &Program, port: u16, rate: &str) -> Running {
    let program = program.clone().with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{port}"));
    program.spawn(&["worker", "--rate", rate])
}

async fn stopped(worker: Running) {
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until so many jobs are in their queue.
async fn until_published(scene: &Scene, jobs: u32) {
    let began = Instant::now();
    while scene.messages("embosser.jobs").await.is_none_or(|messages| messages < jobs) {
        assert!(began.elapsed() < LONGEST, "not everything is published");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An alarm while jobs are under way: the worker cannot tell their ends, nothing can be published, and all of it goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn while_rabbitmq_has_an_alarm_everybody_says_so_and_then_all_goes_on() {
    let _room = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with_own_node(Options::default()).await;
    let server = scene
        .program()
        .with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test")
        .with("EMBOSSER__HTTP__IDLE_SECONDS_MAX", "2")
        .with("STRIPE_API_KEY", "");
    let served = Served::start(&server, &[]);
    let expected = scene.manifest(60).await;
    let following = scene.program().spawn(&["submit", "cards.csv", "--wait"]);
    until_published(&scene, 60).await;
    scene.rabbit.control(&["set_vm_memory_high_watermark", "absolute", "1"]).await;
    let port = free_port();
    let worker = worker_on(&scene.program(), port, "50");
    let parts = until_ready_is(port, |parts| parts["ready"] == false && parts["consumer"] == true).await;
    assert_eq!((&parts["broker"], &parts["consumer"]), (&json!(true), &json!(true)), "{parts}");
    assert!(parts["reason"].as_str().unwrap().contains("memory"), "{parts}");
    assert_eq!(metric(port, "embosser_amqp_blocked").await, 1.0);
    let began = Instant::now();
    while metric(port, "embosser_deliveries_unsettled").await < 2.0
        || metric(port, "embosser_delivery_unsettled_oldest_seconds").await < 1.0
    {
        assert!(began.elapsed() < LONGEST, "every delivery is settled");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The server learns of it by its first job.
    let job = json!({"id": "alone", "card": {"cardholder": "ich_1", "type": "virtual", "currency": "eur"}});
    let headers = [("content-type", "application/json")];
    let answer = served.ask(reqwest::Method::POST, "/v1/jobs", &headers, job.to_string().into()).await;
    assert!(answer.expect(503).text.contains("memory"));
    assert!(served.get("/readyz").await.expect(503).text.contains("memory"));
    served
        .upload("/v1/batches?name=other", b"row_id,cardholder,type,currency\n1,ich_1,virtual,eur\n".into())
        .await
        .expect(503);
    // And so does whoever publishes a manifest.
    let publishing = scene.program().spawn(&["submit", "cards.csv", "--batch", "more", "--second-cards"]);
    let began = Instant::now();
    while scene.rabbit.control(&["list_connections", "state"]).await.matches("blocked").count() < 3 {
        assert!(began.elapsed() < LONGEST, "worker, server and publisher are not all blocked");
    }
    scene.rabbit.control(&["set_vm_memory_high_watermark", "0.4"]).await;
    until_ready_is(port, |parts| parts["ready"] == true).await;
    assert_eq!(metric(port, "embosser_amqp_blocked").await, 0.0);
    expect_exit(&following.ended().await, 0);
    let output = publishing.ended().await;
    expect_exit(&output, 0);
    assert!(said(&output).contains("RabbitMQ takes no messages"), "{}", said(&output));
    assert_eq!(served.get("/readyz").await.status, 200);
    let made: Vec<_> = scene.sandbox.account().cards.iter().filter_map(|card| card.job.clone()).collect();
    for job in expected.keys() {
        assert_eq!(made.iter().filter(|made| *made == job).count(), 1, "{job}");
    }
    assert_eq!(metric(port, "embosser_deliveries_unsettled").await, 0.0);
    served.stopped().await;
    stopped(worker).await;
}

/// In one scene, as a broker takes long to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_a_lost_queue_and_queues_of_others_cost_no_job() {
    let _room = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with_own_node(Options::default()).await;
    another_node_is_tried_and_all_who_wait_for_a_batch_hear_its_end(&scene).await;
    queues_of_another_account_are_left_alone_and_changed_arguments_are_told(&scene).await;
}

/// Rows that others publish as the batch `cards`.
const OTHERS: u32 = 9;

fn jobs_of_others() -> impl Iterator<Item = (String, Option<String>)> {
    (0..OTHERS).map(|row| (format!("cards/other{row}"), None))
}

/// One node of two is gone; others publish rows of their own under the batch's name, and their jobs come first; two wait for the
/// batch, the queue of one of them is deleted, and so is the manifest.
async fn another_node_is_tried_and_all_who_wait_for_a_batch_hear_its_end(scene: &Scene) {
    const ROWS: usize = 60;
    let nodes = format!("{},{}", scene.rabbit.url_by(free_port()), scene.rabbit.url());
    let program = scene.program().with("EMBOSSER__RABBITMQ__URLS", &nodes);
    let mut expected = scene.manifest(ROWS).await;
    let file = |name: &str| scene.directory.path().join(name);
    expected.extend(jobs_of_others());
    let header = "row_id,cardholder,type,currency\n".to_owned();
    let others = (0..OTHERS).fold(header, |text, row| text + &format!("other{row},ich_5{row},virtual,eur\n"));
    std::fs::write(file("others.csv"), others).unwrap();
    expect_exit(&program.run(&["submit", "others.csv", "--batch", "cards"]).await, 0);
    let wait = |results: &str| program.spawn(&["submit", "cards.csv", "--wait", "--results", results]);
    let waiting = [("one.csv", wait("one.csv")), ("other.csv", wait("other.csv"))];
    until_published(scene, OTHERS + 2 * u32::try_from(ROWS).unwrap()).await;
    let queues = scene.rabbit.queues().await;
    let following: Vec<_> = queues.iter().filter(|name| name.contains(".following.cards-")).collect();
    assert_eq!(following.len(), 2, "{queues:?}");
    let manifest = std::fs::read(file("cards.csv")).unwrap();
    std::fs::remove_file(file("cards.csv")).unwrap();
    scene.rabbit.control(&["delete_queue", following[0]]).await;
    let worker = worker_on(&program, free_port(), "50");
    let results = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let mut lost = 0;
    for (name, waiting) in waiting {
        let output = waiting.ended().await;
        let (text, told) = (results(name), said(&output));
        assert!(text.contains("row,row_id,job_id,") && !text.contains("other"), "{name}: {text}");
        if output.status.code() == Some(3) {
            lost += 1;
            let unheard = ROWS + 1 - text.lines().count();
            assert!(told.contains(&format!("the ends of {unheard} of {ROWS} rows were not heard")), "{told}");
            assert!(told.contains("Run the same command again"), "{told}");
        } else {
            expect_exit(&output, 0);
            assert_eq!(text.lines().count(), 1 + ROWS, "{name}");
        }
    }
    assert_eq!(lost, 1, "whose queue was lost says so, and the other one hears all");
    std::fs::write(file("cards.csv"), manifest).unwrap();
    expect_exit(&wait("again.csv").ended().await, 0);
    assert_eq!(results("again.csv").lines().count(), 1 + ROWS);
    one_card_each(&scene.sandbox.account(), &expected);
    let left = scene.rabbit.queues().await;
    assert!(!left.iter().any(|name| name.contains(".following.")), "{left:?}");
    stopped(worker).await;
}

/// Queues that are somebody else's, or have other arguments; and a worker that stands by.
async fn queues_of_another_account_are_left_alone_and_changed_arguments_are_told(scene: &Scene) {
    let (first, second, foreign) = (free_port(), free_port(), free_port());
    let worker = worker_on(&scene.program(), first, "20");
    until_ready_is(first, |parts| parts["ready"] == true).await;
    // Another account on the same prefix takes nothing, and says why.
    let other = worker_on(&scene.program().with("STRIPE_API_KEY", "sk_test_acct_B_1"), foreign, "20");
    let parts = until_ready_is(foreign, |parts| parts["reason"].is_string()).await;
    let reason = parts["reason"].as_str().unwrap();
    assert!(reason.contains("acct_sandbox (test)") && reason.contains("acct_B (test)"), "{reason}");
    assert!(reason.contains("rabbitmq.prefix"), "{reason}");
    assert_eq!(parts["consumer"], false);
    // One of the same account stands by: while jobs wait it keeps its connection.
    let standby = worker_on(&scene.program().with("EMBOSSER__WORKER__WATCHDOG_SECONDS", "1"), second, "20");
    until_ready_is(second, |parts| parts["ready"] == true).await;
    let reconnects = metric(second, "embosser_amqp_reconnects_total").await;
    let mut expected = scene.manifest(120).await;
    expected.extend(jobs_of_others());
    let following = scene.program().spawn(&["submit", "cards.csv", "--wait"]);
    // Arguments that differ: which queue, which argument, both values, what to do.
    let fewer = scene.program().with("EMBOSSER__RABBITMQ__JOBS_MAX", "7");
    let output = fewer.run(&["submit", "cards.csv"]).await;
    expect_exit(&output, 2);
    for words in ["embosser.jobs", "x-max-length 100000", "7 is asked for", "rabbitmq.jobs_max = 100000"] {
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    // Unless others decide about them.
    let passive = fewer.with("EMBOSSER__RABBITMQ__DECLARE", "passive");
    expect_exit(&passive.run(&["submit", "cards.csv"]).await, 0);
    scene.cards(100).await;
    assert_eq!(
        metric(second, "embosser_amqp_reconnects_total").await,
        reconnects,
        "the standby was left in peace"
    );
    expect_exit(&following.ended().await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    // And it is there when it is needed.
    stopped(worker).await;
    expect_exit(&scene.program().run(&["submit", "cards.csv", "--wait"]).await, 0);
    stopped(standby).await;
    other.signal(rustix::process::Signal::TERM);
    expect_exit(&other.ended().await, 0);
}
