//! Promise: a worker for several Stripe accounts makes each job's card once, in that job's account, at each account's own limit,
//! used in full; and what befalls one account holds up no other.

use crate::support;

use std::path::Path;
use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::{Calls, Forced, Options};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::issuing::{ended, said};
use support::scene::{ONE_AT_A_TIME, Scene};
use support::{
    Expected, Program, Running, expect_exit, free_port, http_client, one_card_each, write_manifest,
};

const RATE: usize = 30;
/// Longer than anything here may take to come.
const COME_MAX: Duration = Duration::from_secs(60);

/// Two customers of a platform, whose key acts for both.
const OF_A_PLATFORM: &str =
    "[accounts]\nlist = [{ id = \"acct_A\", mode = \"test\" }, { id = \"acct_B\" }]\n";

/// A scene with several accounts.
struct Fleet {
    scene: Scene,
    health: String,
}

impl Fleet {
    async fn of(accounts: &str, options: Options) -> Self {
        let scene = Scene::with(options).await;
        std::fs::write(scene.directory.path().join("accounts.toml"), accounts).unwrap();
        Self { scene, health: format!("127.0.0.1:{}", free_port()) }
    }

    fn program(&self) -> Program {
        self.scene.program().with("EMBOSSER__WORKER__LISTEN", &self.health)
    }

    /// The worker for all accounts; each has the same limits.
    fn worker(&self) -> Running {
        let rate = RATE.to_string();
        self.program().spawn(&["--config", "accounts.toml", "worker", "--rate", &rate])
    }

    async fn run(&self, arguments: &[&str]) -> std::process::Output {
        ended(self.program().spawn(&[&["--config", "accounts.toml"], arguments].concat())).await
    }

    /// Publishes so many rows for an account, in a batch of its name.
    async fn submit(&self, account: &str, rows: usize) -> Expected {
        let file = format!("{account}.csv");
        let expected = write_manifest(&self.path(&file), &self.scene.sandbox, rows).await;
        expect_exit(&self.run(&["submit", &file, "--account", account]).await, 0);
        expected
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        let directory: &Path = self.scene.directory.path();
        directory.join(name)
    }

    /// Cards that were made in an account.
    fn cards(&self, account: &str) -> usize {
        self.scene.sandbox.account().cards.iter().filter(|card| card.account == account).count()
    }

    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !holds().await {
            let made = self.scene.sandbox.account().cards.len();
            assert!(began.elapsed() < COME_MAX, "never came: {what}; {made} cards");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_cards(&self, account: &str, count: usize) {
        self.until(&format!("{count} cards of {account}"), async || self.cards(account) >= count).await;
    }

    /// One card for each row of each account, in that account.
    fn one_card_each(&self, expected: &[(&str, &Expected)]) {
        for (account, expected) in expected {
            let mut made = self.scene.sandbox.account();
            made.cards.retain(|card| card.account == *account);
            one_card_each(&made, expected);
        }
        let all: usize = expected.iter().map(|(_, expected)| expected.len()).sum();
        assert_eq!(self.scene.sandbox.counts().cards, all, "and none in another account");
    }

    /// What `/readyz` says; none while nobody answers.
    async fn readiness(&self) -> Option<Value> {
        let url = format!("http://{}/readyz", self.health);
        http_client().get(url).send().await.ok()?.json().await.ok()
    }

    async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.health);
        http_client().get(url).send().await.unwrap().text().await.unwrap()
    }

    fn broker(&self, account: &str) -> Broker {
        let (url, prefix) = (self.scene.rabbit.url().as_str().into(), format!("embosser.{account}"));
        Broker::new(&RabbitmqConfig { url, prefix, ..RabbitmqConfig::default() }).unwrap()
    }

    /// Publishes to an account's queue, whatever the message says.
    async fn publish(&self, account: &str, body: &Value) {
        self.publish_with(account, body, BasicProperties::default()).await;
    }

    async fn publish_with(&self, account: &str, body: &Value, properties: BasicProperties) {
        let broker = self.broker(account);
        let key = broker.topology.jobs.clone();
        let publisher = Publisher::new(broker, "test");
        let body = body.to_string();
        publisher
            .publish(&Message { exchange: "", key: &key, body: body.as_bytes(), properties })
            .await
            .unwrap();
        publisher.close().await;
    }

    /// Fails unless each account's calls stayed within its limit. One may be turned away of each: calls that left evenly need not
    /// arrive so on a busy machine.
    fn the_limits_were_kept(&self) {
        let limited = self.scene.sandbox.counts().limited;
        assert!(limited <= 2, "{limited} turned away: {:?}", self.scene.sandbox.account().limited_by);
    }
}

fn limited() -> Options {
    Options { endpoint_per_second: Some(RATE), ..Options::default() }
}

fn only_for(account: &str, forced: Forced) -> Option<Forced> {
    Some(Forced { account: Some(account.to_owned()), calls: Calls::All, ..forced })
}

async fn stopped(worker: Running) {
    worker.signal(Signal::TERM);
    expect_exit(&ended(worker).await, 0);
}

/// Two accounts at one limit take as long as one account alone: each uses its own, and neither passes it.
#[tokio::test(flavor = "multi_thread")]
async fn each_account_uses_its_own_limit_in_full_and_keeps_it() {
    const ROWS: usize = 120;
    let _alone = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::of(OF_A_PLATFORM, limited()).await;
    let (of_a, of_b) = (fleet.submit("acct_A", ROWS).await, fleet.submit("acct_B", ROWS).await);
    let worker = fleet.worker();
    fleet.until_cards("acct_A", ROWS).await;
    fleet.until_cards("acct_B", ROWS).await;
    fleet.one_card_each(&[("acct_A", &of_a), ("acct_B", &of_b)]);
    fleet.the_limits_were_kept();
    let arrivals = fleet.scene.sandbox.account().arrivals;
    let took = arrivals.last().unwrap() - arrivals.first().unwrap();
    // 4 s at the limit; 8 if the two shared it.
    assert!(took < 6.0, "{took} s for {ROWS} cards at {RATE}/s in each of two accounts");
    let ready = fleet.readiness().await.unwrap();
    assert_eq!(
        (&ready["ready"], &ready["accounts"]["acct_B"]["consumer"]),
        (&true.into(), &true.into()),
        "{ready}"
    );
    stopped(worker).await;
}

/// A worker that works for one account keeps no other process from another account.
#[tokio::test(flavor = "multi_thread")]
async fn each_account_has_a_lease_of_its_own() {
    const ROWS: usize = 480;
    let _alone = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::of(OF_A_PLATFORM, limited()).await;
    let of_a = fleet.submit("acct_A", ROWS).await;
    let worker = fleet.worker();
    fleet.until_cards("acct_A", 1).await;
    let of_b = write_manifest(&fleet.path("own.csv"), &fleet.scene.sandbox, 5).await;
    let issue = ["issue", "own.csv", "--no-wait", "--account"];
    let other = fleet.run(&[&issue[..], &["acct_B"]].concat()).await;
    expect_exit(&other, 0);
    let same = fleet.run(&[&issue[..], &["acct_A"]].concat()).await;
    expect_exit(&same, 2);
    assert!(said(&same).contains(&format!("process {}", worker.pid())), "{}", said(&same));
    assert!(fleet.cards("acct_A") < ROWS, "it was to be asked while the worker calls");
    fleet.until_cards("acct_A", ROWS).await;
    fleet.one_card_each(&[("acct_A", &of_a), ("acct_B", &of_b)]);
    fleet.the_limits_were_kept();
    stopped(worker).await;
}

/// One account's Stripe answers nothing but errors: the other's jobs take no longer for that, and its own are made once when it
/// answers again.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_stripe_is_down_slows_no_other() {
    const ROWS: usize = 90;
    let _alone = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::of(OF_A_PLATFORM, limited()).await;
    fleet.scene.sandbox.force(only_for("acct_A", Forced { status: 503, ..Forced::default() }));
    let of_a = fleet.submit("acct_A", 20).await;
    let worker = fleet.worker();
    fleet
        .until("the outage is known", async || {
            let ready = fleet.readiness().await.unwrap_or_default();
            ready["accounts"]["acct_A"]["waits_for"] == "Stripe does not answer"
        })
        .await;
    let of_b = fleet.submit("acct_B", ROWS).await;
    fleet.until_cards("acct_B", 1).await;
    let began = Instant::now();
    fleet.until_cards("acct_B", ROWS).await;
    // 3 s at the limit.
    assert!(began.elapsed() < Duration::from_millis(4500), "{ROWS} cards took {:?}", began.elapsed());
    assert_eq!(fleet.cards("acct_A"), 0);
    let metrics = fleet.metrics().await;
    for (account, down) in [("acct_A", 1), ("acct_B", 0)] {
        let gauge = format!("embosser_stripe_down{{account=\"{account}\"}} {down}");
        assert!(metrics.contains(&gauge), "no {gauge} in:\n{metrics}");
    }
    fleet.scene.sandbox.force(None);
    fleet.until_cards("acct_A", 20).await;
    fleet.one_card_each(&[("acct_A", &of_a), ("acct_B", &of_b)]);
    stopped(worker).await;
}

/// A key that Stripe refuses, and one that is another account's: only these accounts stop, each with its reason, and make no card.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_key_is_wrong_stops_alone() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let accounts =
        ["A", "B", "C"].map(|name| format!("{{ id = \"acct_{name}\", api_key_variable = \"KEY_{name}\" }}"));
    let accounts = format!("[accounts]\nlist = [{}]\n[metrics]\naccounts_max = 1\n", accounts.join(", "));
    let fleet = Fleet::of(&accounts, Options::default()).await;
    // Mixed up: C was given one of B.
    let with_keys = |program: Program| {
        let keys =
            [("KEY_A", "sk_test_acct_A_1"), ("KEY_B", "sk_test_acct_B_1"), ("KEY_C", "sk_test_acct_B_2")];
        keys.iter().fold(program, |program, (name, key)| program.with(name, key))
    };
    let worker = with_keys(fleet.program()).spawn(&["--config", "accounts.toml", "worker"]);
    let reason = async |account: &str| {
        let ready = fleet.readiness().await.unwrap_or_default();
        ready["accounts"][account]["reason"].as_str().unwrap_or_default().to_owned()
    };
    fleet.until("C stops", async || reason("acct_C").await.contains("its API key is one of acct_B")).await;
    let of_b = fleet.submit("acct_B", 5).await;
    fleet.until_cards("acct_B", 5).await;
    // A's is withdrawn while it works.
    let refused = Forced::error(401, "invalid_request_error", None, "Invalid API Key provided");
    fleet.scene.sandbox.force(only_for("acct_A", refused));
    fleet.submit("acct_A", 5).await;
    fleet.submit("acct_C", 5).await;
    fleet.until("A stops", async || reason("acct_A").await.contains("Stripe refuses the API key")).await;
    let more = json!({"id": "more", "card": {"type": "virtual", "currency": "eur", "cardholder": "ich_1"}});
    fleet.publish("acct_B", &more).await;
    fleet.until_cards("acct_B", 6).await;
    assert_eq!((fleet.cards("acct_A"), fleet.cards("acct_C"), of_b.len()), (0, 0, 5));
    // A card is there before its job has ended.
    let six = "embosser_jobs_total{outcome=\"issued\",code=\"\",account=\"other\"} 6";
    fleet.until("six jobs are counted", async || fleet.metrics().await.contains(six)).await;
    let metrics = fleet.metrics().await;
    let none = "embosser_jobs_total{outcome=\"issued\",code=\"\",account=\"acct_A\"} 0";
    assert!(metrics.contains(none), "no {none} in:\n{metrics}");
    assert!(!metrics.contains("account=\"acct_B\""), "only one account may be named:\n{metrics}");
    stopped(worker).await;
}

/// A job in one account's queue that is meant for another one, known or not, is refused; it makes no card anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_another_account_than_its_queues_is_refused() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::of(OF_A_PLATFORM, Options::default()).await;
    let worker = fleet.worker();
    fleet
        .until("the worker is ready", async || fleet.readiness().await.unwrap_or_default()["ready"] == true)
        .await;
    let job = |id: &str, account: &str| {
        let card = json!({"type": "virtual", "currency": "eur", "cardholder": "ich_1"});
        json!({"id": id, "stripe_account": account, "card": card})
    };
    for (id, account) in [("unknown", "acct_nobody"), ("other", "acct_B"), ("own", "acct_A")] {
        fleet.publish("acct_A", &job(id, account)).await;
    }
    fleet.until_cards("acct_A", 1).await;
    let refused = "embosser_jobs_total{outcome=\"refused\",code=\"wrong_account\",account=\"acct_A\"} 2";
    fleet.until("two are refused", async || fleet.metrics().await.contains(refused)).await;
    fleet.one_card_each(&[("acct_A", &Expected::from([("own".to_owned(), None)]))]);
    stopped(worker).await;
}

/// Headers larger than a frame of this worker's end its connection, as they are never split. That costs no other message.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_with_large_headers_costs_only_itself() {
    const HEADER_BYTES: usize = 20 << 10;
    let _alone = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::of(OF_A_PLATFORM, Options::default()).await;
    let job =
        |id: &str| json!({"id": id, "card": {"type": "virtual", "currency": "eur", "cardholder": "ich_1"}});
    let mut of_a = fleet.submit("acct_A", 15).await;
    let mut headers = FieldTable::default();
    headers.insert("baggage".into(), AMQPValue::LongString("x".repeat(HEADER_BYTES).into()));
    let large = BasicProperties::default().with_headers(headers);
    fleet.publish_with("acct_A", &job("large"), large).await;
    for number in 0..5 {
        let id = format!("after{number}");
        fleet.publish("acct_A", &job(&id)).await;
        of_a.insert(id, None);
    }
    let worker = fleet.worker();
    fleet.until_cards("acct_A", of_a.len()).await;
    let parked = "embosser_parked_messages{account=\"acct_A\"} 1";
    fleet.until("it is parked", async || fleet.metrics().await.contains(parked)).await;
    fleet.one_card_each(&[("acct_A", &of_a)]);
    let refused = "embosser_jobs_total{outcome=\"refused\",code=\"poison\",account=\"acct_A\"} 0";
    assert!(fleet.metrics().await.contains(refused), "a good job was given up on");
    stopped(worker).await;
}

/// Killed in the middle of both accounts' jobs, and started again: one card each, in its account.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_each_account_has_its_cards_once() {
    const ROWS: usize = 60;
    let _alone = ONE_AT_A_TIME.lock().await;
    let slow = Options { latency: Duration::from_millis(200), ..limited() };
    let fleet = Fleet::of(OF_A_PLATFORM, slow).await;
    let (of_a, of_b) = (fleet.submit("acct_A", ROWS).await, fleet.submit("acct_B", ROWS).await);
    for made in [10, 30] {
        let worker = fleet.worker();
        fleet.until_cards("acct_A", made).await;
        fleet.until_cards("acct_B", made).await;
        worker.killed().await;
    }
    assert!(fleet.scene.sandbox.counts().cards < 2 * ROWS, "it was to be killed in the middle");
    let worker = fleet.worker();
    fleet.until_cards("acct_A", ROWS).await;
    fleet.until_cards("acct_B", ROWS).await;
    let status = async || {
        let status = said(&fleet.run(&["status"]).await);
        status.matches(": 60 rows, 60 issued, 0 refused").count() == 2
    };
    fleet.until("both batches have ended", status).await;
    fleet.one_card_each(&[("acct_A", &of_a), ("acct_B", &of_b)]);
    stopped(worker).await;
}

/// Accounts come, change, go and come again, noticed or told by SIGHUP, while jobs are under way: each job's card is made once, within the limit of
/// its account, and a configuration that is wrong changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_change_and_go_without_dropping_work() {
    const ROWS: usize = 600;
    let _alone = ONE_AT_A_TIME.lock().await;
    let config = "[accounts]\ndirectory = \"accounts\"\n[pace]\nendpoint_per_second = 30.0\naccount_per_second = 30.0\n";
    let fleet = Fleet::of(config, limited()).await;
    let file = |name: &str| fleet.path("accounts").join(name);
    std::fs::create_dir(fleet.path("accounts")).unwrap();
    // So slow that all that follows is in the middle of its jobs.
    std::fs::write(file("a.toml"), "id = \"acct_A\"\nendpoint_per_second = 8.0\n").unwrap();
    let worker = fleet.program().spawn(&["--config", "accounts.toml", "worker"]);
    let of_a = fleet.submit("acct_A", ROWS).await;
    fleet.until_cards("acct_A", 10).await;

    // One comes, and nobody says so. Its key is another account's; and is mended.
    std::fs::write(fleet.path("key_of_b"), "sk_test_acct_A_1").unwrap();
    std::fs::write(file("b.toml"), "id = \"acct_B\"\napi_key_file = \"key_of_b\"\n").unwrap();
    let has_stopped = async || {
        let ready = fleet.readiness().await.unwrap_or_default();
        ready["accounts"]["acct_B"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("its API key is one of acct_A"))
    };
    fleet.until("B stops", has_stopped).await;
    std::fs::write(fleet.path("key_of_b"), "sk_test_acct_B_1").unwrap();
    let of_b = fleet.submit("acct_B", 20).await;
    fleet.until_cards("acct_B", 20).await;

    // One that is wrong: nothing changes, and the others go on.
    std::fs::write(file("c.toml"), "id = \"acct_A\"\n").unwrap();
    worker.signal(Signal::HUP);
    worker.until_it_says("the configuration is not taken").await;
    std::fs::write(file("a.toml"), "id = \"acct_A\"\nendpoint_per_second = 7.0\n").unwrap();
    let made = fleet.cards("acct_A");
    fleet.until_cards("acct_A", made + 10).await;
    let pace_of_a =
        |per_second: usize| format!("embosser_pace_configured_per_second{{account=\"acct_A\"}} {per_second}");
    assert!(fleet.metrics().await.contains(&pace_of_a(8)));

    // One changes, in the middle of its jobs.
    std::fs::remove_file(file("c.toml")).unwrap();
    worker.signal(Signal::HUP);
    fleet.until("A is slower", async || fleet.metrics().await.contains(&pace_of_a(7))).await;
    let made = fleet.cards("acct_A");
    assert!(made < ROWS - 20, "it was to change in the middle: {made} cards");
    fleet.until_cards("acct_A", made + 10).await;

    // It goes, and what it has not begun stays in its queue; B works as before.
    std::fs::rename(file("a.toml"), file("a.toml.off")).unwrap();
    fleet
        .until("A is gone", async || {
            let ready = fleet.readiness().await.unwrap_or_default();
            ready["accounts"]["acct_A"].is_null() && ready["ready"] == true
        })
        .await;
    let left = fleet.cards("acct_A");
    assert!(left < ROWS, "it was to go in the middle");
    let gone = "embosser_amqp_consuming{account=\"acct_A\"} NaN";
    assert!(fleet.metrics().await.contains(gone), "no alert waits for it");
    let more = json!({"id": "more", "card": {"type": "virtual", "currency": "eur", "cardholder": "ich_1"}});
    fleet.publish("acct_B", &more).await;
    fleet.until_cards("acct_B", 21).await;
    assert_eq!(fleet.cards("acct_A"), left, "nobody calls for it");

    // And comes again.
    std::fs::remove_file(file("a.toml.off")).unwrap();
    std::fs::write(file("a.toml"), "id = \"acct_A\"\n").unwrap();
    worker.signal(Signal::HUP);
    fleet.until_cards("acct_A", ROWS).await;
    let of_b = of_b.into_iter().chain([("more".to_owned(), None)]).collect();
    fleet.one_card_each(&[("acct_A", &of_a), ("acct_B", &of_b)]);
    fleet.the_limits_were_kept();
    stopped(worker).await;
}

/// Commands for one account are told which; the error lists those that there are.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_one_account_is_told_which() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let fleet = Fleet::of(OF_A_PLATFORM, Options::default()).await;
    let expected = write_manifest(&fleet.path("cards.csv"), &fleet.scene.sandbox, 3).await;
    for (arguments, expected) in [
        (&["issue", "cards.csv"][..], "say which one with --account: acct_A, acct_B"),
        (&["submit", "cards.csv"], "say which one with --account: acct_A, acct_B"),
        (&["check", "cards.csv", "--online"], "say which one with --account: acct_A, acct_B"),
        (&["issue", "cards.csv", "--account", "acct_C"], "not among the configured accounts: acct_A, acct_B"),
    ] {
        let output = fleet.run(arguments).await;
        expect_exit(&output, 2);
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
    expect_exit(&fleet.run(&["check", "cards.csv"]).await, 0);
    expect_exit(&fleet.run(&["check", "cards.csv", "--online", "--account", "acct_B"]).await, 0);
    expect_exit(&fleet.run(&["issue", "cards.csv", "--account", "acct_B"]).await, 0);
    fleet.one_card_each(&[("acct_B", &expected)]);
    // The same file is another account's batch, too: none of its rows is taken for issued.
    expect_exit(&fleet.run(&["issue", "cards.csv", "--account", "acct_A", "--results", "a.csv"]).await, 0);
    fleet.one_card_each(&[("acct_A", &expected), ("acct_B", &expected)]);
}
