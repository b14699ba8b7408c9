//! Promise: the worker killed ten times and the broker twice, under every fault, and still one card per job, every
//! job answered, and nothing left behind.

use crate::support;

use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::sandbox::{Faults, Options, Sandbox};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use support::rabbit::Rabbit;
use support::{Program, one_card_each, write_manifest};

const JOBS: usize = 2_000;
const WORKERS_KILLED: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_jobs_ten_killed_workers_two_killed_brokers() {
    let faults = Faults {
        error_before: 0.1,
        error_after: 0.1,
        drop_before: 0.1,
        drop_after: 0.1,
        conflict: 0.1,
        html: 0.1,
        lock_timeout: 0.1,
        half_body: 0.1,
        empty: 0.1,
        delay: 0.1,
        // It would make PINs stale, which are then rightly refused.
        rotate: 0.0,
        ..Faults::default()
    };
    let latency = Duration::from_millis(20);
    let sandbox =
        Sandbox::start(Options { faults, latency, delay: Duration::from_millis(300), ..Options::default() })
            .await
            .unwrap();
    let mut rabbit = Rabbit::start().await;
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, JOBS).await;
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__RABBITMQ__URL", &rabbit.url());
    let following = program.spawn(&["submit", "cards.csv", "--wait"]);
    let began = Instant::now();
    for killed in 0..WORKERS_KILLED {
        let worker = program.spawn(&["worker", "--rate", "300"]);
        let made = sandbox.account().cards.len();
        // Killed once it has worked a while, wherever it is then.
        while sandbox.account().cards.len() < made + 60 && sandbox.account().cards.len() < JOBS {
            assert!(
                began.elapsed() < Duration::from_secs(240),
                "stuck at {} cards",
                sandbox.account().cards.len()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if killed == 3 || killed == 7 {
            // A broker that is killed within moments of a declaration may forget it; this one is older.
            rabbit.kill();
            tokio::time::sleep(Duration::from_millis(500)).await;
            rabbit.start_again().await;
        }
        worker.killed().await;
    }
    let worker = program.spawn(&["worker", "--rate", "300"]);
    let output = following.ended().await;
    support::expect_exit(&output, 0);
    one_card_each(&sandbox.account(), &expected);
    let told = std::fs::read_to_string(directory.path().join("cards.results.csv")).unwrap();
    assert_eq!(told.matches(",issued,ic_").count(), JOBS, "every job's event came");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let broker =
        Broker::new(&RabbitmqConfig { url: rabbit.url().as_str().into(), ..RabbitmqConfig::default() })
            .unwrap();
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    for queue in broker.topology.queues() {
        let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let state =
            channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
        assert_eq!(state.message_count(), 0, "{queue} is not empty");
    }
    connection.close(200, "done".into()).await.unwrap();
    worker.signal(rustix::process::Signal::TERM);
    support::expect_exit(&worker.ended().await, 0);
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "csv") || path.ends_with("cards.results.csv")
        {
            let bytes = std::fs::read(&path).unwrap();
            // Every JWE of the manifest begins with its header, base64url of an object.
            assert!(!bytes.windows(4).any(|window| window == b"eyJl"), "{} holds a JWE", path.display());
        }
    }
}
