//! A worker for many accounts, on a real RabbitMQ and against the sandbox: what accounts cost that have no jobs, and whether those
//! that have use their limits.
//!
//! `cargo bench --bench fleet -- idle 100 60` (accounts, seconds), `… -- busy 1000 5 30` (accounts, calls a second of each, seconds).
//! The worker is a process of its own; broker and sandbox share the machine with it, and their CPU is told apart. Anything else (CI)
//! runs each for a moment.
#![allow(missing_docs, reason = "a program of its own")]
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

mod process;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::Options;
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use serde_json::{Value, json};

use process::Spent;
use support::scene::Scene;
use support::{Running, expect_exit, free_port, http_client};

/// Longest that so many accounts may take to be ready.
const READY_MAX: Duration = Duration::from_secs(600);
/// After it the worker looks at queues without jobs as seldom as it does.
const IDLE_AFTER: Duration = Duration::from_secs(65);
/// After it every account has begun.
const BUSY_AFTER: Duration = Duration::from_secs(5);
/// Jobs that are left when the measuring ends, in seconds of the limit: nobody is to run out of them.
const LEFT: usize = 8;
/// Messages on their way to the broker at once.
const PUBLISHED_AT_ONCE: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_bench = std::env::args().any(|word| word == "--bench");
    let number =
        |at: usize, usual: usize| arguments.get(at).map_or(usual, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match (arguments.first().map(String::as_str), is_bench) {
        (Some("idle"), _) => runtime.block_on(idle(number(1, 100), IDLE_AFTER, number(2, 60))),
        (Some("busy"), _) => runtime.block_on(busy(number(1, 100), number(2, 5), number(3, 30))),
        (_, true) => {
            runtime.block_on(idle(100, IDLE_AFTER, 60));
            runtime.block_on(busy(100, 5, 30));
        }
        (_, false) => {
            runtime.block_on(idle(3, Duration::ZERO, 1));
            runtime.block_on(busy(3, 5, 1));
        }
    }
}

/// Accounts, a broker, a sandbox.
struct Fleet {
    scene: Scene,
    health: String,
    accounts: usize,
}

/// What was measured of the worker, the broker and the rest.
struct Measured {
    worker: Spent,
    broker: Spent,
    rest: Spent,
}

impl Fleet {
    async fn of(accounts: usize, options: Options, per_second: Option<usize>) -> Self {
        let scene = Scene::with_own_node(options).await;
        // RabbitMQ sets file handles aside for quorum queues, far more than it opens: a shell's usual limit would end this early.
        let _ = scene.rabbit.control(&["eval", "file_handle_cache:set_limit(100000)."]).await;
        let mut text = "[accounts]\nlist = [\n".to_owned();
        for number in 0..accounts {
            let _ = writeln!(text, "{{ id = \"{}\" }},", id(number));
        }
        text += "]\n";
        if let Some(limit) = per_second {
            let _ = writeln!(text, "[pace]\nendpoint_per_second = {limit}.0\naccount_per_second = {limit}.0");
        }
        std::fs::write(scene.directory.path().join("accounts.toml"), text).unwrap();
        Self { scene, health: format!("127.0.0.1:{}", free_port()), accounts }
    }

    /// Starts the worker, and waits until it takes jobs of every account.
    async fn worker(&self) -> Running {
        let began = Instant::now();
        let program = self.scene.program().with("EMBOSSER__WORKER__LISTEN", &self.health);
        let worker = program.spawn(&["--config", "accounts.toml", "worker"]);
        loop {
            let url = format!("http://{}/readyz", self.health);
            let answer = http_client().get(url).send().await;
            let ready: Value = match answer {
                Ok(answer) => answer.json().await.unwrap_or_default(),
                Err(_) => Value::Null,
            };
            if ready["ready"] == true {
                break;
            }
            assert!(began.elapsed() < READY_MAX, "not ready: {ready}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("{} accounts are ready after {:.1} s", self.accounts, began.elapsed().as_secs_f64());
        worker
    }

    async fn measured(&self, worker: &Running, time: Duration) -> Measured {
        let broker = self.scene.rabbit.control(&["eval", "os:getpid()."]).await;
        let broker = broker.trim().trim_matches('"').parse().unwrap();
        let processes = [worker.pid(), broker, std::process::id()];
        let before = processes.map(process::cpu);
        tokio::time::sleep(time).await;
        let mut spent = processes.iter().zip(before).map(|(pid, before)| Spent::since(*pid, before, time));
        let mut next = || spent.next().unwrap();
        Measured { worker: next(), broker: next(), rest: next() }
    }
}

impl Measured {
    fn print(&self) {
        for (who, spent) in [("worker", &self.worker), ("broker", &self.broker), ("sandbox", &self.rest)] {
            println!("  {who:<8} {spent}");
        }
    }
}

fn id(account: usize) -> String {
    format!("acct_{account:04}")
}

async fn stopped(worker: Running) {
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// What accounts without jobs cost.
async fn idle(accounts: usize, after: Duration, seconds: usize) {
    let fleet = Fleet::of(accounts, Options::default(), None).await;
    let worker = fleet.worker().await;
    tokio::time::sleep(after).await;
    let measured = fleet.measured(&worker, Duration::from_secs(seconds as u64)).await;
    println!("{accounts} idle accounts, for {seconds} s:");
    measured.print();
    stopped(worker).await;
}

/// Whether accounts that have jobs use their limits.
async fn busy(accounts: usize, per_second: usize, seconds: usize) {
    let options = Options { endpoint_per_second: Some(per_second), ..Options::default() };
    let fleet = Fleet::of(accounts, options, Some(per_second)).await;
    let each = per_second * (seconds + BUSY_AFTER.as_secs() as usize + LEFT);
    publish(&fleet, each).await;
    let worker = fleet.worker().await;
    tokio::time::sleep(BUSY_AFTER).await;
    let made = || {
        let mut made: HashMap<String, usize> = HashMap::new();
        for card in fleet.scene.sandbox.account().cards {
            *made.entry(card.account).or_default() += 1;
        }
        (Instant::now(), made)
    };
    let (began, before) = made();
    let measured = fleet.measured(&worker, Duration::from_secs(seconds as u64)).await;
    let (ended, after) = made();
    let time = (ended - began).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let share = |account: usize| {
        let of = |made: &HashMap<String, usize>| made.get(&id(account)).copied().unwrap_or(0);
        (of(&after) - of(&before)) as f64 / (time * per_second as f64)
    };
    let mut shares: Vec<f64> = (0..accounts).map(share).collect();
    shares.sort_unstable_by(f64::total_cmp);
    let (least, middle) = (shares[0], shares[accounts / 2]);
    let all = shares.iter().sum::<f64>() * per_second as f64;
    let limited = fleet.scene.sandbox.counts().limited;
    println!("{accounts} accounts at {per_second}/s each, for {seconds} s: {all:.0} cards a second");
    println!("  of its limit: least {least:.3}, median {middle:.3}; {limited} calls turned away");
    measured.print();
    stopped(worker).await;
}

/// Declares each account's queues, and publishes jobs to them.
async fn publish(fleet: &Fleet, each: usize) {
    let began = Instant::now();
    let broker_of = |account: usize| {
        let (url, prefix) = (fleet.scene.rabbit.url().as_str().into(), format!("embosser.{}", id(account)));
        Broker::new(&RabbitmqConfig { url, prefix, ..RabbitmqConfig::default() }).unwrap()
    };
    let connection = broker_of(0).connect("bench").await.unwrap();
    for account in 0..fleet.accounts {
        broker_of(account).topology.ensure(&connection).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
    println!("queues of {} accounts took {:.1} s", fleet.accounts, began.elapsed().as_secs_f64());
    let publisher = Arc::new(Publisher::new(broker_of(0), "bench"));
    let jobs = (0..each).flat_map(|number| (0..fleet.accounts).map(move |account| (number, account)));
    let publishing =
        futures_util::stream::iter(jobs).for_each_concurrent(PUBLISHED_AT_ONCE, |(number, account)| {
            let publisher = publisher.clone();
            async move {
                let job = json!({
                    "id": format!("j{number}"), "batch": "fleet",
                    "card": { "type": "virtual", "currency": "eur", "cardholder": "ich_1" },
                });
                let (key, body) = (format!("embosser.{}.jobs", id(account)), job.to_string());
                let message = Message {
                    exchange: "",
                    key: &key,
                    body: body.as_bytes(),
                    properties: BasicProperties::default(),
                };
                publisher.publish(&message).await.unwrap();
            }
        });
    publishing.await;
    publisher.close().await;
}
