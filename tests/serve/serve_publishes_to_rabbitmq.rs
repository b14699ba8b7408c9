//! Promise: with RabbitMQ an upload is published whole or not at all, a worker issues it, one card per row, and it is
//! watched to its end all the same.

use crate::support;

use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::sandbox::{Options, Sandbox};
use lapin::options::QueueDeleteOptions;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::proxy::Proxy;
use support::rabbit::Rabbit;
use support::serve::{Answer, Served};
use support::{Program, Running, one_card_each, write_manifest};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

struct Stage {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    rabbit: Rabbit,
    worker: Program,
    server: Program,
}

async fn stage() -> Stage {
    stage_with(Rabbit::shared().await).await
}

async fn stage_with(rabbit: Rabbit) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = || Program::new(directory.path(), &sandbox).with("EMBOSSER__RABBITMQ__URL", &rabbit.url());
    let worker = program();
    // The server has no key: it is the worker that calls Stripe.
    let server = program().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test").with("STRIPE_API_KEY", "");
    Stage { worker, server, directory, sandbox, rabbit }
}

fn work(stage: &Stage, rate: &str) -> Running {
    stage.worker.spawn(&["worker", "--rate", rate])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_is_published_and_followed_to_its_end() {
    let stage = stage().await;
    let file = stage.directory.path().join("staff.csv");
    let expected = write_manifest(&file, &stage.sandbox, 80).await;
    let served = Served::start(&stage.server, &["--rate", "100"]);
    let mut bad = std::fs::read(&file).unwrap();
    bad.extend_from_slice(b"r81,ich_1,virtuel,eur,,\n");
    served.upload("/v1/batches?name=staff", bad).await.expect(422);
    // No worker yet: it waits in the queue, and is the same batch when it comes again.
    served.upload_file(&file).await.expect(202);
    served.upload_file(&file).await.expect(202);
    let worker = work(&stage, "100");
    let view = served.until_ended("staff").await;
    assert_eq!(
        (&view["state"], &view["issued"], &view["waiting"]),
        (&json!("finished"), &json!(80), &json!(0)),
        "{view}"
    );
    one_card_each(&stage.sandbox.account(), &expected);
    // Again: what is issued is not even published.
    let creates = stage.sandbox.account().creates;
    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["issued"], &view["recorded_before"]), (&json!(80), &json!(80)));
    // A row that changed keeps its card, a new one is issued.
    let mut changed =
        std::fs::read_to_string(&file).unwrap().replacen("r3,ich_03,virtual,eur", "r3,ich_03,virtual,usd", 1);
    changed += "r81,ich_1,virtual,eur,,\n";
    served.upload("/v1/batches?name=staff", changed.into_bytes()).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!(
        (&view["state"], &view["issued"], &view["refused"]),
        (&json!("finished"), &json!(81), &json!(0)),
        "{view}"
    );
    let rows = served.get("/v1/batches/staff/rows").await.expect(200).json();
    let noted: Vec<_> =
        rows["rows"].as_array().unwrap().iter().filter(|row| !row["note"].is_null()).collect();
    assert_eq!((noted.len(), &noted[0]["row_id"]), (1, &json!("r3")), "{noted:?}");
    assert_eq!(stage.sandbox.account().creates, creates + 1);
    let results = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert_eq!(results.matches(",issued,").count(), 81);

    // One job alone.
    let job = json!({"id": "payroll/1", "operation": "create_card", "card": {"type": "virtual", "currency": "eur"}});
    let json_type = [("content-type", "application/json")];
    let post = || served.ask(reqwest::Method::POST, "/v1/jobs", &json_type, job.to_string().into_bytes());
    post().await.expect(202);
    loop {
        let view = served.get("/v1/jobs/payroll%2F1").await.expect(200).json();
        if view["state"] == "issued" {
            break;
        }
        assert_eq!(view["state"], "waiting", "{view}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    post().await.expect(200);
    assert_eq!(stage.sandbox.account().creates, creates + 2);
    let (code, _) = served.stopped().await;
    assert_eq!(code, Some(0));
    worker.killed().await;
    // To a server that calls Stripe itself the first batch looks like one of its own; but what the queue has of it comes again.
    let calling = Served::start(&stage.worker, &["--rate", "100"]);
    let refused = calling.post("/v1/batches/staff/settle").await.expect(409).json();
    assert!(refused["detail"].as_str().unwrap().contains("through a queue"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_both_ends_and_uploaded_again_each_row_has_one_card() {
    let stage = stage().await;
    let file = stage.directory.path().join("staff.csv");
    let expected = write_manifest(&file, &stage.sandbox, 200).await;
    let served = Served::start(&stage.server, &["--rate", "100"]);
    let worker = work(&stage, "60");
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(30)).await;
    // All of it is in the queue: it is too late to call it off.
    served.post("/v1/batches/staff/cancel").await.expect(409);
    served.killed();
    worker.killed().await;
    let served = Served::start(&stage.server, &["--rate", "100"]);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!(view["state"], "interrupted", "{view}");
    let _worker = work(&stage, "150");
    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(200)), "{view}");
    one_card_each(&stage.sandbox.account(), &expected);
}

/// A row that is refused a second time is not written to the ledger again: only its event tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_refused_again_end_their_batch_and_single_jobs_give_back_their_places() {
    let stage = stage().await;
    let file = stage.directory.path().join("staff.csv");
    write_manifest(&file, &stage.sandbox, 10).await;
    let served = Served::start(&stage.server, &["--rate", "100"]);
    let json_type = [("content-type", "application/json")];
    let job = json!({"id": "late", "deadline": "2020-01-01T00:00:00Z",
        "card": {"type": "virtual", "currency": "eur"}});
    for time in ["first", "again"] {
        served.upload_file(&file).await.expect(202);
        served.ask(reqwest::Method::POST, "/v1/jobs", &json_type, job.to_string().into()).await.expect(202);
        // Until its PINs are too old for the worker that comes then.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let worker = stage.worker.clone().with("EMBOSSER__PIN__MAX_AGE_SECONDS", "1").spawn(&["worker"]);
        let view = served.until_ended("staff").await;
        // Every fifth row has no PIN.
        assert_eq!(
            (&view["state"], &view["issued"], &view["refused"]),
            (&json!("finished"), &json!(2), &json!(8)),
            "{time}: {view}"
        );
        let began = Instant::now();
        loop {
            let view = served.get("/v1/jobs/late").await.expect(200).json();
            if view["state"] == "refused" {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{time}: its place is not given back: {view}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        worker.killed().await;
    }
    assert_eq!(served.stopped().await.0, Some(0));
}

fn single_job(id: &str) -> Vec<u8> {
    json!({"id": id, "card": {"type": "virtual", "currency": "eur"}}).to_string().into_bytes()
}

/// Waits until a job that was sent alone gave back its place; how it stands then.
async fn until_its_place_is_free(served: &Served, id: &str) -> Answer {
    let began = Instant::now();
    loop {
        let answer = served.get(&format!("/v1/jobs/{id}")).await;
        if answer.status != 200 || answer.json()["state"] != "waiting" {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(45), "its place is not given back: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn signal(served: &Served, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(served.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

impl Stage {
    fn broker(&self) -> Broker {
        let config = RabbitmqConfig { url: self.rabbit.url().as_str().into(), ..RabbitmqConfig::default() };
        Broker::new(&config).unwrap()
    }

    /// Waits until so many jobs are in their queue.
    async fn until_queued(&self, jobs: u32) {
        let broker = self.broker();
        let connection = broker.connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let began = Instant::now();
        loop {
            let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
            let name = broker.topology.jobs.as_str().into();
            let queue = channel.queue_declare(name, options, Default::default()).await.unwrap();
            if queue.message_count() == jobs {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{} of {jobs}", queue.message_count());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        connection.close(200, "done".into()).await.unwrap();
    }
}

/// The server learns of none of its jobs' ends: its queue of events was deleted, and they were told meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_went_with_their_queue_end_the_batch_and_free_the_place_of_a_job_all_the_same() {
    let stage = stage().await;
    let file = stage.directory.path().join("staff.csv");
    write_manifest(&file, &stage.sandbox, 60).await;
    // Every fifth row has no PIN; the others' are under a key that is no more.
    stage.sandbox.rotate_key();
    let served = Served::start(&stage.server, &["--rate", "100"]);
    served.upload_file(&file).await.expect(202);
    served.ask(reqwest::Method::POST, "/v1/jobs", &JSON, single_job("alone")).await.expect(202);
    stage.until_queued(61).await;
    signal(&served, Signal::STOP);
    let events: Vec<String> =
        stage.rabbit.queues().await.into_iter().filter(|name| name.contains("following")).collect();
    assert_eq!(events.len(), 1, "{events:?}");
    let connection = stage.broker().connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(events[0].as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    let worker = work(&stage, "200");
    let began = Instant::now();
    while stage.sandbox.counts().cards < 13 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", stage.sandbox.counts());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.signal(Signal::TERM);
    support::expect_exit(&worker.ended().await, 0);
    signal(&served, Signal::CONT);
    let view = served.until_ended("staff").await;
    let counts = |view: &Value| {
        [&view["state"], &view["issued"], &view["refused"], &view["waiting"]].map(Value::clone)
    };
    assert_eq!(counts(&view), [json!("finished"), json!(12), json!(48), json!(0)], "{view}");
    let answer = until_its_place_is_free(&served, "alone").await.expect(200);
    assert_eq!(answer.json()["state"], "issued");
    // And what is told from now on is heard.
    served.upload_file(&file).await.expect(202);
    let worker = work(&stage, "200");
    let view = served.until_ended("staff").await;
    assert_eq!(counts(&view), [json!("finished"), json!(12), json!(48), json!(0)], "{view}");
    worker.killed().await;
    assert_eq!(served.stopped().await.0, Some(0));
}

/// What the worker does not even read as a job is in no ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_the_worker_cannot_read_end_their_batch_and_free_the_place_of_a_job() {
    let stage = stage().await;
    let long = "a".repeat(500);
    let rows: String = (1..=20).map(|row| format!("r{row},virtual,eur,{long},{long}\n")).collect();
    let manifest = format!("row_id,type,currency,metadata[one],metadata[two]\n{rows}");
    let served = Served::start(&stage.server, &["--rate", "100"]);
    served.upload("/v1/batches?name=long", manifest.into_bytes()).await.expect(202);
    let metadata = json!({"one": long, "two": long});
    let job = json!({"id": "long", "card": {"type": "virtual", "currency": "eur", "metadata": metadata}});
    served.ask(reqwest::Method::POST, "/v1/jobs", &JSON, job.to_string().into()).await.expect(202);
    let worker = stage.worker.clone().with("EMBOSSER__WORKER__MESSAGE_KIB_MAX", "1").spawn(&["worker"]);
    let view = served.until_ended("long").await;
    assert_eq!((&view["state"], &view["refused"]), (&json!("finished"), &json!(20)), "{view}");
    until_its_place_is_free(&served, "long").await.expect(404);
    assert_eq!(stage.sandbox.counts().creates, 0);
    worker.killed().await;
    assert_eq!(served.stopped().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_worker_a_batch_in_the_queue_can_be_let_go() {
    let stage = stage().await;
    let file = stage.directory.path().join("staff.csv");
    let expected = write_manifest(&file, &stage.sandbox, 30).await;
    let served = Served::start(&stage.server, &["--rate", "100"]);
    served.upload_file(&file).await.expect(202);
    stage.until_queued(30).await;
    served.until("staff", |view| view["state"] == "running").await;
    let cancelled = served.post("/v1/batches/staff/cancel").await.expect(200).json();
    assert!(matches!(cancelled["state"].as_str(), Some("cancelling" | "interrupted")), "{cancelled}");
    let view = served.until_ended("staff").await;
    assert_eq!(view["state"], "interrupted", "{view}");
    assert!(view["reason"].as_str().unwrap().contains("30 rows are in the queue"), "{view}");
    served.post("/v1/batches/staff/cancel").await.expect(409);
    // Its name is free, and what is in the queue is the worker's, once there is one.
    served.upload_file(&file).await.expect(202);
    let worker = work(&stage, "200");
    let view = served.until_ended("staff").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(30)), "{view}");
    one_card_each(&stage.sandbox.account(), &expected);
    worker.killed().await;
    assert_eq!(served.stopped().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_says_nothing_is_not_waited_for_and_a_sender_that_goes_away_leaves_no_place_taken() {
    let stage = stage().await;
    let proxy = Proxy::before(stage.rabbit.port()).await;
    let server = stage
        .server
        .clone()
        .with("EMBOSSER__RABBITMQ__URL", &stage.rabbit.url_by(proxy.port()))
        .with("EMBOSSER__HTTP__IDLE_SECONDS_MAX", "5");
    let served = Served::start(&server, &[]);
    let post = async |id: &str| served.ask(reqwest::Method::POST, "/v1/jobs", &JSON, single_job(id)).await;
    post("before").await.expect(202);
    proxy.stall(true);
    let impatient =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(500)).build().unwrap();
    let request = impatient.post(format!("{}/v1/jobs", served.url)).header(JSON[0].0, JSON[0].1);
    let gone = request.body(single_job("gone")).send();
    let (patient, gone) = tokio::join!(post("patient"), gone);
    assert!(gone.is_err_and(|error| error.is_timeout()));
    assert!(patient.expect(503).text.contains("the broker does not answer"));
    until_its_place_is_free(&served, "gone").await.expect(404);
    until_its_place_is_free(&served, "patient").await.expect(404);
    // What was sent and not confirmed may be lost with its connection.
    proxy.cut();
    proxy.stall(false);
    let began = Instant::now();
    while post("after").await.status != 202 {
        assert!(began.elapsed() < Duration::from_secs(30), "it comes back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let worker = work(&stage, "100");
    for id in ["before", "after"] {
        let view = until_its_place_is_free(&served, id).await.expect(200).json();
        assert_eq!(view["state"], "issued", "{view}");
    }
    worker.killed().await;
    assert_eq!(served.stopped().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_away_it_is_not_ready_and_takes_nothing() {
    let mut stage = stage_with(Rabbit::start().await).await;
    let file = stage.directory.path().join("staff.csv");
    write_manifest(&file, &stage.sandbox, 10).await;
    let served = Served::start(&stage.server, &["--rate", "100"]);
    let ready = async |wanted: u16| {
        let began = Instant::now();
        loop {
            let answer = served.get("/readyz").await;
            if answer.status == wanted {
                return answer.text;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{}", answer.text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    ready(200).await;
    stage.rabbit.kill();
    assert!(ready(503).await.contains("RabbitMQ is away"));
    let began = Instant::now();
    let json_type = [("content-type", "application/json")];
    let job = || json!({"id": "a", "card": {"type": "virtual", "currency": "eur"}}).to_string().into_bytes();
    let post = async || served.ask(reqwest::Method::POST, "/v1/jobs", &json_type, job()).await;
    post().await.expect(503);
    served.upload_file(&file).await.expect(503);
    assert!(began.elapsed() < Duration::from_secs(2), "they are answered at once");
    let view = served.get("/v1/server").await.expect(200).json();
    assert!(view["stopped"].as_str().is_some_and(|why| why.contains("RabbitMQ")), "{view}");
    stage.rabbit.start_again().await;
    ready(200).await;
    post().await.expect(202);
    served.upload_file(&file).await.expect(202);
    let worker = work(&stage, "100");
    assert_eq!(served.until_ended("staff").await["issued"], json!(10));
    worker.killed().await;
    assert_eq!(served.stopped().await.0, Some(0));
}

/// The pages are another server's on the worker's ledger; the links to them are given out here, where the file was uploaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_is_chosen_at_the_server_with_the_pages_and_its_card_is_counted_where_the_file_was_uploaded() {
    use support::choosing::{ONE, ask, choose, encrypted, pins_of};
    let stage = stage().await;
    let paged =
        |program: &Program| program.clone().with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com/");
    let served = Served::start(&paged(&stage.server), &[]);
    let pages = served.get("/pin").await.expect(404).text;
    assert!(pages.contains("http.jobs_to") && pages.contains("https://pins.example.com/"), "{pages}");
    let worker = paged(&stage.worker).spawn(&["worker", "--rate", "100"]);
    served.upload("/v1/batches?name=staff", ONE.into()).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["issued"], &view["awaiting_pin"]), (&json!(2), &json!(1)), "{view}");
    // The worker told one in its event; whoever heard that may have it, and here another is made in its place.
    let renewed =
        ask(&served, "/v1/pin-links", &json!({"batch": "staff", "renew": true})).await.expect(200).json();
    let link = renewed["links"][0]["pin_link"].as_str().unwrap().to_owned();
    let began = Instant::now();
    loop {
        let server = served.get("/v1/server").await.expect(200).json();
        assert_eq!(server["warning"], json!(null), "{server}");
        if server["pins_awaited"]["hour"] == json!(1) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{server}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What calls or ends a job is not this server's.
    let cancel = ask(&served, "/v1/pin-links/cancel", &json!({"batch": "staff"})).await.expect(404);
    assert!(cancel.text.contains("at https://pins.example.com/"), "{}", cancel.text);

    let with_pages = Served::start(&paged(&stage.worker), &["--rate", "100"]);
    choose(&with_pages, &link, &encrypted(&stage.sandbox, "4711").await).await.expect(200);
    assert_eq!(pins_of(&stage.sandbox, "staff/a"), [Some("4711".to_owned())]);
    let view = served.until("staff", |view| view["awaiting_pin"] == json!(0)).await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(3)), "{view}");
    worker.killed().await;
}

/// Nobody could give out the links of what waits there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_another_ledger_is_noticed_and_no_row_is_published_to_wait_there() {
    let stage = stage().await;
    let elsewhere = support::sqlite(&stage.directory.path().join("elsewhere.db"));
    let program = stage.worker.clone().with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com/");
    let worker = program.with("EMBOSSER__LEDGER__URL", &elsewhere).spawn(&["worker"]);
    let served = Served::start(
        &stage.server.clone().with("EMBOSSER__PIN_PAGE__URL", "https://pins.example.com/"),
        &[],
    );
    served.ask(reqwest::Method::POST, "/v1/jobs", &JSON, single_job("first")).await.expect(202);
    let began = Instant::now();
    let warning = loop {
        let server = served.get("/v1/server").await.expect(200).json();
        if let Some(warning) = server["warning"].as_str() {
            break warning.to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nobody notices: {server}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(warning.contains("ledger.url"), "{warning}");
    let refused = served.upload("/v1/batches?name=staff", support::choosing::ONE.into()).await.expect(422);
    assert!(refused.text.contains("ledger.url") && refused.text.contains("no_pin_page"), "{}", refused.text);
    assert_eq!(stage.sandbox.account().cards.len(), 1);
    // Everything else is published as before.
    served.ask(reqwest::Method::POST, "/v1/jobs", &JSON, single_job("second")).await.expect(202);
    let began = Instant::now();
    while stage.sandbox.account().cards.len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    worker.killed().await;
}
