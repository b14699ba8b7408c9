//! Promise: of a PIN's ciphertext, the API key and the broker's password nothing is logged or stored by `submit` and
//! `worker`, at any log level, whatever is published and however it ends; and RabbitMQ's disk forgets it.

use crate::support;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::{Faults, Options, Sandbox};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use rustix::process::Signal;
use serde_json::json;
use support::rabbit::{PASSWORD, Rabbit};
use support::secrets::Secrets;
use support::write_manifest;

const API_KEY: &str = "sk_test_TellingKeyThatNobodyMayRead4711";
/// Messages without a secret that turn the broker's log over: enough of them for a snapshot of their queue, too.
const NOISE: usize = 150;
/// Size of each.
const NOISE_BYTES: usize = 40_000;
/// Rows of the manifest; four in five have a PIN.
const ROWS: usize = 30;
/// Rows of the manifest whose queue goes away: more than are published before it does.
const ROWS_BACK: usize = 3000;
/// Longest that anything here may take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// The program, its log in a file: a pipe that nobody empties would stop it.
struct Logging {
    child: Child,
    name: &'static str,
}

impl Logging {
    fn start(scene: &Scene, name: &'static str, arguments: &[&str]) -> Self {
        Self::start_with(scene, name, arguments, &[])
    }

    fn start_with(
        scene: &Scene,
        name: &'static str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let log = |kind: &str| File::create(scene.directory.path().join(format!("{name}.{kind}"))).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_embosser"))
            .args(arguments)
            .current_dir(scene.directory.path())
            .envs([
                ("EMBOSSER__STRIPE__API_URL", scene.sandbox.api_url()),
                ("EMBOSSER__STRIPE__KEY_URL", scene.sandbox.key_url()),
                ("EMBOSSER__RABBITMQ__URL", scene.rabbit.url()),
                ("EMBOSSER__WORKER__LISTEN", format!("127.0.0.1:{}", scene.listen)),
                // Beside all else that is searched.
                ("EMBOSSER__LEDGER__URL", "sqlite://embosser.db".into()),
                ("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.02".into()),
                // The sandbox's calls and lists are quick, so that a look need not wait as long as with Stripe.
                ("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "0.5".into()),
                ("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "0.5".into()),
                ("STRIPE_API_KEY", API_KEY.into()),
                ("RUST_LOG", "trace".into()),
            ])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log("stdout"))
            .stderr(log("stderr"))
            .spawn()
            .unwrap();
        Self { child, name }
    }

    async fn ended(mut self) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < WAIT_MAX, "{} hangs", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(status.success(), "{}: {status}", self.name);
    }

    async fn told_to_end(self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.ended().await;
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Scene {
    rabbit: Rabbit,
    sandbox: Sandbox,
    listen: u16,
    directory: tempfile::TempDir,
}

impl Scene {
    async fn publish(&self, bodies: &[Vec<u8>]) {
        let config = RabbitmqConfig { url: self.rabbit.url().as_str().into(), ..RabbitmqConfig::default() };
        let broker = Broker::new(&config).unwrap();
        let publisher = Publisher::new(broker.clone(), "test");
        for body in bodies {
            let (exchange, key) = ("", broker.topology.jobs.as_str());
            let properties = lapin::BasicProperties::default();
            let message = Message { exchange, key, body, properties };
            publisher.publish(&message).await.unwrap();
        }
        publisher.close().await;
    }

    /// As docs/messages.md says: what was acknowledged is gone from RabbitMQ's disk once its log turned over.
    async fn until_the_broker_forgot(&self, secrets: &Secrets) {
        let of_raft =
            |path: &PathBuf| path.extension().is_some_and(|kind| kind == "wal" || kind == "segment");
        let (found, _) = secrets.files_with_any(&self.rabbit.data());
        assert!(found.iter().all(of_raft), "{found:?}");
        assert!(!found.is_empty(), "that the broker remembers at first shows that the search finds it");
        // No jobs, refused as they come; together more than the log may grow to.
        let noise = vec![vec![b'x'; NOISE_BYTES]; NOISE];
        self.publish(&noise).await;
        let began = Instant::now();
        loop {
            let (found, _) = secrets.files_with_any(&self.rabbit.data());
            if found.is_empty() {
                return;
            }
            assert!(began.elapsed() < WAIT_MAX, "RabbitMQ did not forget within {WAIT_MAX:?}: {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Its queues are empty; it is stopped and started again, and has nothing on its disk nor in its log.
    async fn nothing_at_the_broker(&mut self, secrets: &Secrets) {
        self.no_message_left().await;
        let nothing = |rabbit: &Rabbit| {
            for folder in [rabbit.data(), rabbit.log()] {
                let (found, searched) = secrets.files_with_any(&folder);
                assert!(searched > 0, "{} is searched", folder.display());
                assert!(found.is_empty(), "{found:?}");
            }
        };
        tokio::task::block_in_place(|| self.rabbit.stop());
        nothing(&self.rabbit);
        self.rabbit.start_again().await;
        self.no_message_left().await;
        nothing(&self.rabbit);
    }

    async fn no_message_left(&self) {
        let config = RabbitmqConfig { url: self.rabbit.url().as_str().into(), ..RabbitmqConfig::default() };
        let broker = Broker::new(&config).unwrap();
        let connection = broker.connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        for queue in broker.topology.queues() {
            let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
            let state = channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
            assert_eq!(state.unwrap().message_count(), 0, "{queue}");
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join(name)).unwrap()).into_owned()
    }
}

/// Messages with a JWE where it belongs and where it does not; none of them is a job.
fn misplaced(jwe: &str) -> Vec<Vec<u8>> {
    let job = |card: serde_json::Value| {
        json!({"id": "bad", "batch": "bad", "operation": "create_card", "card": card})
            .to_string()
            .into_bytes()
    };
    let whole = String::from_utf8(job(json!({"pin": {"encrypted_number": jwe}}))).unwrap();
    vec![
        job(json!({"type": "virtual", "currency": jwe, "pin": {"encrypted_number": [jwe]}})),
        job(json!({"type": jwe, "pin": jwe, "second_line": jwe})),
        job(
            json!({"type": "virtual", "currency": "eur", "pin": {"encrypted_number": jwe.replace('.', "=.")}}),
        ),
        json!({"id": jwe, "batch": jwe, "operation": jwe, "deadline": jwe, "card": [jwe], jwe: jwe})
            .to_string()
            .into_bytes(),
        whole.as_bytes()[..whole.len() - 40].to_vec(),
        jwe.as_bytes().to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn at_trace_level_submit_and_worker_tell_nothing_of_a_pin() {
    let fault = 0.06;
    let faults = Faults {
        error_before: fault,
        error_after: fault,
        drop_before: fault,
        drop_after: fault,
        conflict: fault,
        half_body: fault,
        ..Faults::default()
    };
    let mut scene = Scene {
        rabbit: Rabbit::start_as_deployed().await,
        sandbox: Sandbox::start(Options { faults, ..Options::default() }).await.unwrap(),
        listen: support::free_port(),
        directory: tempfile::tempdir().unwrap(),
    };
    let directory = scene.directory.path();
    // Encrypted under the key before: refused as stale.
    write_manifest(&directory.join("sent.csv"), &scene.sandbox, ROWS).await;
    let stale = std::fs::read_to_string(directory.join("sent.csv")).unwrap();
    let stale = stale.lines().nth(1).unwrap().rsplit(',').next().unwrap().to_owned();
    scene.sandbox.rotate_key();
    write_manifest(&directory.join("sent.csv"), &scene.sandbox, ROWS).await;
    let sent = std::fs::read_to_string(directory.join("sent.csv")).unwrap();
    let cells = sent.lines().filter_map(|line| line.rsplit(',').next());
    let mut jwes: Vec<&str> = cells.filter(|cell| cell.matches('.').count() == 4).collect();
    assert_eq!(jwes.len(), ROWS * 4 / 5);
    jwes.push(&stale);
    let mut secrets = Secrets::default();
    jwes.iter().for_each(|jwe| secrets.add_jwe(jwe));
    assert!(secrets.found_in(sent.as_bytes()).is_some(), "the search finds what is there");
    let printed = format!("{:?}", sent.as_bytes());
    assert!(secrets.found_in(printed.as_bytes()).is_some(), "and in bytes that are printed");
    secrets.add_text(API_KEY.rsplit('_').next().unwrap());
    secrets.add_text(PASSWORD);

    let worker = Logging::start(&scene, "worker", &["worker", "--rate", "50"]);
    Logging::start(&scene, "submit", &["submit", "sent.csv", "--wait"]).ended().await;
    let mut bodies = misplaced(jwes[0]);
    // With a deadline: that its queue was ever empty is perhaps not known yet, and then a PIN without one counts as too old.
    let deadline = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5)).to_string();
    bodies.push(
        json!({"id": "stale", "batch": "bad", "operation": "create_card", "deadline": deadline, "card": {"type": "virtual",
            "currency": "eur", "cardholder": "ich_1", "pin": {"encrypted_number": stale}}})
        .to_string()
        .into_bytes(),
    );
    scene.publish(&bodies).await;
    scene.until("all cards", |scene| scene.sandbox.account().cards.len() == ROWS).await;
    scene.until("a stale PIN", |scene| scene.log("worker.stderr").contains("stale_key")).await;
    let metrics = format!("http://127.0.0.1:{}/metrics", scene.listen);
    let metrics = support::http_client().get(metrics).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("embosser_pin_age_seconds_bucket"));
    std::fs::write(directory.join("metrics.txt"), metrics).unwrap();
    // While the ledger is open its write-ahead log is there, too.
    let searched = secrets.hold(directory, "sent.csv");
    for file in ["embosser.db", "embosser.db-wal", "embosser.db-shm", "sent.results.csv", "metrics.txt"] {
        assert!(searched.iter().any(|name| name == file), "{file} is searched");
    }
    scene.until_the_broker_forgot(&secrets).await;
    worker.told_to_end().await;
    let searched = secrets.hold(directory, "sent.csv");
    for file in ["embosser.db", "worker.stderr", "worker.stdout", "submit.stderr", "submit.stdout"] {
        assert!(searched.iter().any(|name| name == file), "{file} is searched");
    }
    scene.nothing_at_the_broker(&secrets).await;
    // That there was something to be seen, messages that were no jobs among it; and nothing of the libraries' tracing.
    assert!(!scene.log("submit.stderr").is_empty(), "submit says what it does");
    let log = scene.log("worker.stderr");
    for expected in ["message_invalid", "message_not_json", "job ended"] {
        assert!(log.contains(expected), "the log has no {expected}");
    }
    assert!(!log.contains("\"TRACE\"") && !log.contains("hyper::"), "a library's tracing is in the log");
}

/// The AMQP library logs a message that comes back, all of it as numbers, as a warning.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_back_shows_nothing_of_a_pin_at_trace_level() {
    let scene = Scene {
        rabbit: Rabbit::start().await,
        sandbox: Sandbox::start(Options::default()).await.unwrap(),
        listen: support::free_port(),
        directory: tempfile::tempdir().unwrap(),
    };
    let directory = scene.directory.path();
    write_manifest(&directory.join("sent.csv"), &scene.sandbox, ROWS_BACK).await;
    let sent = std::fs::read_to_string(directory.join("sent.csv")).unwrap();
    let mut secrets = Secrets::default();
    let cells = sent.lines().filter_map(|line| line.rsplit(',').next());
    cells.filter(|cell| cell.matches('.').count() == 4).for_each(|jwe| secrets.add_jwe(jwe));
    assert!(secrets.found_in(format!("{:?}", sent.as_bytes()).as_bytes()).is_some());
    let config = RabbitmqConfig { url: scene.rabbit.url().as_str().into(), ..RabbitmqConfig::default() };
    let broker = Broker::new(&config).unwrap();
    let connection = broker.connect("test").await.unwrap();
    // A classic queue in place of the jobs queue: a quorum queue that is deleted under a publisher is an error of the broker's.
    let channel = connection.create_channel().await.unwrap();
    broker.topology.ensure(&connection).await.unwrap();
    let jobs = broker.topology.jobs.as_str();
    channel.queue_delete(jobs.into(), QueueDeleteOptions::default()).await.unwrap();
    let classic = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(jobs.into(), classic, FieldTable::default()).await.unwrap();
    let as_they_are = [("EMBOSSER__RABBITMQ__DECLARE", "false")];
    let mut submit = Logging::start_with(&scene, "submit", &["submit", "sent.csv"], &as_they_are);
    // Once its first messages are in the queue, the queue is gone, so others come back.
    let began = Instant::now();
    let mut deleted = false;
    while submit.child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < WAIT_MAX, "submit hangs");
        tokio::time::sleep(Duration::from_millis(2)).await;
        if deleted {
            continue;
        }
        let look = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = channel.queue_declare(jobs.into(), look, FieldTable::default()).await;
        if queue.is_ok_and(|queue| queue.message_count() > 0) {
            channel.queue_delete(jobs.into(), QueueDeleteOptions::default()).await.unwrap();
            deleted = true;
        }
    }
    connection.close(200, "done".into()).await.unwrap();
    let log = scene.log("submit.stderr");
    assert!(log.contains("there is no queue"), "a message came back: {log}");
    secrets.hold(directory, "sent.csv");
    assert!(!log.contains("returned_messages"), "{log}");
}
