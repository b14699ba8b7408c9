//! Promise: on a cluster of brokers and a database with a standby, the loss of any one part costs no job: the node that leads the
//! queues, the node that a worker talks to, the network between them, the database, and the workers one after the other. Each job of
//! twenty accounts has its card once and its event, and no account is called faster than it allows.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::queue::event::ResultEvent;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::{Faults, Options, Sandbox};
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rustix::process::Signal;
use serde_json::json;
use support::postgres::Postgres;
use support::proxy::Proxy;
use support::rabbit::Rabbit;
use support::scene::ONE_AT_A_TIME;
use support::{Program, Running, expect_exit, free_port};

const ACCOUNTS: usize = 20;
const JOBS: usize = 200;
/// Calls a second of each account.
const RATE: usize = 10;
/// Longer than any loss may hold the work up on a busy machine: a takeover, a heartbeat that is missed, an election.
const GOES_ON_MAX: Duration = Duration::from_secs(90);

struct Fleet {
    nodes: [Rabbit; 3],
    sandbox: Sandbox,
    directory: tempfile::TempDir,
    ledger: String,
}

fn account(number: usize) -> String {
    format!("acct_{number:02}")
}

impl Fleet {
    fn config(&self, number: usize, urls: &[String]) -> RabbitmqConfig {
        let urls = urls.iter().map(|url| url.as_str().into()).collect();
        RabbitmqConfig { urls, prefix: format!("embosser.{}", account(number)), ..RabbitmqConfig::default() }
    }

    fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Rabbit::url).collect()
    }

    /// A worker for all accounts, which tries these addresses in turn.
    fn worker(&self, urls: &[String]) -> Running {
        let program = Program::new(self.directory.path(), &self.sandbox)
            .with("EMBOSSER__RABBITMQ__URLS", &urls.join(","))
            .with("EMBOSSER__LEDGER__URL", &self.ledger)
            .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "0.5")
            .with("EMBOSSER__WORKER__LISTEN", &format!("127.0.0.1:{}", free_port()));
        program.spawn(&["--config", "accounts.toml", "worker", "--rate", &RATE.to_string()])
    }

    /// Publishes every account's jobs, through the first node: it leads their queues.
    async fn publish(&self) {
        for number in 0..ACCOUNTS {
            let broker = Broker::new(&self.config(number, &self.urls()[..1])).unwrap();
            let key = broker.topology.jobs.clone();
            let publisher = Publisher::new(broker, "test");
            publisher.connect().await.unwrap();
            let bodies: Vec<String> = (0..JOBS)
                .map(|job| {
                    let card = json!({"cardholder": format!("ich_{number}_{job}"), "type": "virtual", "currency": "eur"});
                    json!({"id": format!("{}/{job}", account(number)), "batch": account(number),
                        "stripe_account": account(number), "card": card})
                    .to_string()
                })
                .collect();
            let messages = bodies.iter().map(|body| async {
                let properties = BasicProperties::default().with_delivery_mode(2);
                publisher
                    .publish(&Message { exchange: "", key: &key, body: body.as_bytes(), properties })
                    .await
            });
            let published = futures_util::future::join_all(messages).await;
            assert!(published.iter().all(Result::is_ok), "{published:?}");
            publisher.close().await;
        }
    }

    /// A queue that hears every account's events, on every node.
    async fn hear(&self) {
        let connection = connected(&self.nodes[0]).await;
        let channel = connection.create_channel().await.unwrap();
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare("heard".into(), durable, quorum).await.unwrap();
        for number in 0..ACCOUNTS {
            let exchange = Broker::new(&self.config(number, &self.urls())).unwrap().topology.results;
            let bound = QueueBindOptions::default();
            channel
                .queue_bind(
                    "heard".into(),
                    exchange.as_str().into(),
                    "#".into(),
                    bound,
                    FieldTable::default(),
                )
                .await
                .unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
    }

    fn cards(&self) -> usize {
        self.sandbox.counts().cards
    }

    async fn until_cards(&self, count: usize, while_what: &str) {
        let began = Instant::now();
        while self.cards() < count {
            assert!(began.elapsed() < GOES_ON_MAX, "{} of {count} cards {while_what}", self.cards());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Work goes on by so many cards, whatever was lost.
    async fn goes_on(&self, after_what: &str) {
        self.until_cards((self.cards() + 300).min(ACCOUNTS * JOBS), after_what).await;
    }

    /// What was heard of each job, until every job was heard of.
    async fn heard(&self) -> BTreeMap<String, BTreeSet<String>> {
        let connection = connected(&self.nodes[1]).await;
        let channel = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions::default();
        let mut consumer =
            channel.basic_consume("heard".into(), "".into(), options, FieldTable::default()).await.unwrap();
        let mut heard = BTreeMap::<String, BTreeSet<String>>::new();
        while heard.len() < ACCOUNTS * JOBS {
            let delivery = tokio::time::timeout(GOES_ON_MAX, consumer.next()).await;
            let delivery = delivery.unwrap_or_else(|_| panic!("{} events were heard", heard.len()));
            let delivery = delivery.unwrap().unwrap();
            delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
            let event: ResultEvent = serde_json::from_slice(&delivery.data).unwrap();
            let card = event.card.unwrap_or_else(|| panic!("{:?} has no card: {:?}", event.id, event.error));
            heard.entry(event.id.unwrap()).or_default().insert(card.id);
        }
        heard
    }
}

/// The most calls for cards that came for an account in any second.
fn most_in_a_second(sandbox: &Sandbox, account: &str) -> usize {
    let calls = sandbox.requests();
    let of_account = calls.iter().filter(|call| call.account == account && call.method == "POST");
    let came: Vec<f64> = of_account.map(|call| call.ms).collect();
    let from = |(at, ms): (usize, &f64)| came[at..].iter().take_while(|later| **later < ms + 1000.0).count();
    came.iter().enumerate().map(from).max().unwrap_or_default()
}

async fn connected(node: &Rabbit) -> Connection {
    Connection::connect(&node.url(), ConnectionProperties::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_part_is_lost_each_job_has_its_card_once_and_its_event() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let faults = Faults {
        error_after: 0.02,
        drop_before: 0.02,
        drop_after: 0.02,
        conflict: 0.01,
        ..Faults::default()
    };
    let options = Options { faults, endpoint_per_second: Some(RATE), ..Options::default() };
    let (nodes, sandbox) = tokio::join!(Rabbit::cluster(), async { Sandbox::start(options).await.unwrap() });
    let mut primary = Postgres::start();
    let standby = primary.standby();
    let ledger = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let directory = tempfile::tempdir().unwrap();
    let accounts: Vec<String> =
        (0..ACCOUNTS).map(|number| format!("{{ id = {:?} }}", account(number))).collect();
    let accounts = format!("[accounts]\nlist = [{}]\n", accounts.join(", "));
    std::fs::write(directory.path().join("accounts.toml"), accounts).unwrap();
    let mut fleet = Fleet { nodes, sandbox, directory, ledger };
    fleet.publish().await;
    fleet.hear().await;
    let [first, second, third] = <[String; 3]>::try_from(fleet.urls()).unwrap();
    let network = Proxy::before(fleet.nodes[2].port()).await;
    let by_network = third.replace(&fleet.nodes[2].port().to_string(), &network.port().to_string());
    let one = fleet.worker(&[first.clone(), second.clone(), third.clone()]);
    fleet.until_cards(100, "by the first worker").await;
    let two = fleet.worker(&[second.clone(), third.clone(), first.clone()]);
    let three = fleet.worker(&[by_network, first.clone(), second.clone()]);

    // The node that leads every queue, and that the first worker talks to.
    fleet.nodes[0].kill();
    fleet.goes_on("after the leading node was killed").await;
    fleet.nodes[0].start_again().await;
    // The worker that has the accounts, without a word.
    one.signal(Signal::KILL);
    one.ended().await;
    fleet.goes_on("after the first worker was killed").await;
    // The database, which the standby takes over from.
    primary.stop();
    standby.promote();
    fleet.goes_on("after the database failed over").await;
    // The network between the third worker and its node goes silent, and the node of the second ends.
    network.stall(true);
    fleet.nodes[1].stop();
    fleet.goes_on("after a silent network and a stopped node").await;
    network.stall(false);
    fleet.nodes[1].start_again().await;
    // One more worker, by its service manager.
    let four = fleet.worker(&[first, second, third]);
    two.signal(Signal::TERM);
    expect_exit(&two.ended().await, 0);
    let began = Instant::now();
    while fleet.cards() < ACCOUNTS * JOBS {
        let before = fleet.cards();
        fleet.until_cards(before + 1, "at the end").await;
        assert!(began.elapsed() < 4 * GOES_ON_MAX, "{before} cards");
    }

    let heard = fleet.heard().await;
    let made = fleet.sandbox.account();
    let mut cards = BTreeMap::<String, BTreeSet<String>>::new();
    for card in &made.cards {
        let job = card.job.clone().unwrap();
        assert!(job.starts_with(&format!("{}/", card.account)), "{job} has a card in {}", card.account);
        cards.entry(job).or_default().insert(card.id.clone());
    }
    assert_eq!(made.cards.len(), ACCOUNTS * JOBS, "more than one card for a job");
    assert_eq!(heard, cards, "left: what events told, right: what was made");
    // Two processes that called for one account would come to twice its limit. Calls that left evenly arrive a little less so.
    for number in 0..ACCOUNTS {
        let most = most_in_a_second(&fleet.sandbox, &account(number));
        assert!(most <= RATE * 3 / 2, "{most} calls for {} in a second of at most {RATE}", account(number));
    }
    for worker in [three, four] {
        worker.signal(Signal::TERM);
        expect_exit(&worker.ended().await, 0);
    }
}
