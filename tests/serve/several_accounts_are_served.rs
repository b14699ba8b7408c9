//! Promise: one `serve` takes batches for all accounts that are configured, each at a path of its own; a card is made in the account whose
//! path its batch came by, a token opens no other account than those that it is for, and what befalls one account holds up no other.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::{Forced, Options, Sandbox};
use serde_json::{Value, json};
use support::rabbit::Rabbit;
use support::serve::Served;
use support::tokens::people;
use support::{Expected, Program, one_card_each, write_manifest};

/// Longer than anything here may take to come.
const COME_MAX: Duration = Duration::from_secs(60);
/// Two customers of a platform, whose key acts for both.
const TWO: &str = "[accounts]\nlist = [{ id = \"acct_A\", mode = \"test\" }, { id = \"acct_B\" }]\n";

struct Stage {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    program: Program,
}

impl Stage {
    async fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let program = Program::new(directory.path(), &sandbox);
        std::fs::write(directory.path().join("accounts.toml"), config).unwrap();
        Self { directory, sandbox, program }
    }

    fn serve(&self, program: &Program, rate: &str) -> Served {
        Served::start(program, &["--config", "accounts.toml", "--rate", rate])
    }

    async fn manifest(&self, name: &str, rows: usize) -> (Vec<u8>, Expected) {
        let path = self.directory.path().join(name);
        let expected = write_manifest(&path, &self.sandbox, rows).await;
        (std::fs::read(path).unwrap(), expected)
    }

    /// One card for each row of each account, in that account, and none in another.
    fn one_card_each(&self, expected: &[(&str, &Expected)]) {
        for (account, expected) in expected {
            let mut made = self.sandbox.account();
            made.cards.retain(|card| card.account == *account);
            one_card_each(&made, expected);
        }
        let all: usize = expected.iter().map(|(_, expected)| expected.len()).sum();
        assert_eq!(self.sandbox.counts().cards, all);
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < COME_MAX, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once an account's path answers.
async fn is_served(served: &Served, account: &str) {
    let path = format!("/accounts/{account}/readyz");
    until(&path, async || served.get(&path).await.status.is_success()).await;
}

/// Whoever comes before it is known whose key it is comes again; so all accounts are there.
async fn are_served(served: &Served) {
    for account in ["acct_A", "acct_B"] {
        is_served(served, account).await;
    }
}

async fn ended(served: &Served, account: &str, batch: &str) -> Value {
    let path = format!("/accounts/{account}/v1/batches/{batch}");
    let view = async || served.get(&path).await.expect(200).json();
    until(&path, async || view().await["state"] == "finished").await;
    view().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_account_has_its_own_batches_and_cards() {
    let stage = Stage::with(TWO).await;
    let (of_a, cards_of_a) = stage.manifest("staff.csv", 40).await;
    let (of_b, cards_of_b) = stage.manifest("staff.csv", 25).await;
    let served = stage.serve(&stage.program, "100");
    are_served(&served).await;
    // The same name is another account's batch, and its rows are none that were issued before.
    served.upload("/accounts/acct_A/v1/batches?name=staff", of_a.clone()).await.expect(202);
    served.upload("/accounts/acct_B/v1/batches?name=staff", of_b).await.expect(202);
    assert_eq!(ended(&served, "acct_A", "staff").await["issued"], 40);
    assert_eq!(ended(&served, "acct_B", "staff").await["issued"], 25);
    stage.one_card_each(&[("acct_A", &cards_of_a), ("acct_B", &cards_of_b)]);
    // Again: each knows its own.
    served.upload("/accounts/acct_A/v1/batches?name=staff", of_a).await.expect(202);
    assert_eq!(ended(&served, "acct_A", "staff").await["recorded_before"], 40);
    assert_eq!(stage.sandbox.counts().cards, 65);

    let list = served.get("/v1/accounts").await.expect(200).json();
    let told: Vec<_> = list["accounts"].as_array().unwrap().iter().map(|account| &account["id"]).collect();
    assert_eq!(told, ["acct_A", "acct_B"]);
    assert_eq!(list["accounts"][0]["path"], "/accounts/acct_A");
    assert_eq!(
        (&list["accounts"][0]["state"], &list["accounts"][0]["mode"]),
        (&json!("serving"), &json!("test"))
    );
    assert_eq!(served.get("/v1/me").await.expect(200).json()["several_accounts"], true);
    let me = served.get("/accounts/acct_B/v1/me").await.expect(200).json();
    assert_eq!((&me["account"], &me["several_accounts"]), (&json!("acct_B"), &json!(true)));
    // What is of one account is at no other address.
    for path in
        ["/v1/batches", "/v1/batches/staff", "/v1/jobs/a", "/accounts/acct_C/v1/batches", "/accounts/"]
    {
        let answer = served.get(path).await.expect(404);
        assert_eq!(
            answer.headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'",
            "{path}"
        );
    }
    for path in ["/", "/accounts/acct_A/", "/accounts/acct_A"] {
        assert!(served.get(path).await.expect(200).text.contains("<title>embosser</title>"), "{path}");
    }
    let ready = served.get("/readyz").await.expect(200).json();
    assert_eq!(ready, json!({"ready": true, "reason": null, "accounts": 2, "accounts_served": 2}));
    let metrics = served.get("/metrics").await.expect(200).text;
    for account in ["acct_A", "acct_B"] {
        let line = format!("embosser_pace_configured_per_second{{account=\"{account}\"}} 100");
        assert!(metrics.contains(&line), "{line}");
    }
    // The second upload's rows ended as issued, too.
    for (account, issued) in [("acct_A", 80), ("acct_B", 25)] {
        let line =
            format!("embosser_jobs_total{{outcome=\"issued\",code=\"\",account=\"{account}\"}} {issued}");
        let jobs: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("embosser_jobs_total{outcome=\"issued\""))
            .collect();
        assert!(metrics.contains(&line), "{line}: {jobs:?}");
    }
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
}

/// Killed in the middle of a batch of each; both go on when their files come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_a_batch_of_each_account_under_way_no_card_is_made_twice() {
    let stage = Stage::with(TWO).await;
    let (of_a, cards_of_a) = stage.manifest("a.csv", 60).await;
    let (of_b, cards_of_b) = stage.manifest("b.csv", 60).await;
    let paths =
        [("/accounts/acct_A/v1/batches?name=a", &of_a), ("/accounts/acct_B/v1/batches?name=b", &of_b)];
    let served = stage.serve(&stage.program, "40");
    are_served(&served).await;
    for (path, file) in paths {
        served.upload(path, file.clone()).await.expect(202);
    }
    until("some cards", async || stage.sandbox.counts().cards > 30).await;
    served.killed();
    assert!(stage.sandbox.counts().cards < 120, "it was to be killed in the middle");
    let served = stage.serve(&stage.program, "100");
    are_served(&served).await;
    for (path, file) in paths {
        served.upload(path, file.clone()).await.expect(202);
    }
    ended(&served, "acct_A", "a").await;
    ended(&served, "acct_B", "b").await;
    stage.one_card_each(&[("acct_A", &cards_of_a), ("acct_B", &cards_of_b)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_the_accounts_that_it_is_for() {
    let stage = Stage::with(TWO).await;
    let (file, _) = stage.manifest("a.csv", 3).await;
    let people =
        people(stage.program, &[("all", &["read", "submit"]), ("some", &["read", "submit", "operate"])])
            .await;
    let tokens = people.program.directory.join("tokens");
    let lines: Vec<&str> = people.lines.lines().collect();
    std::fs::write(&tokens, format!("{}\n{} accounts=acct_A\n", lines[0], lines[1])).unwrap();
    let served = Served::start(&people.program, &["--config", "accounts.toml", "--rate", "50"]);
    are_served(&served).await;

    let seen = async |who: &str| {
        let list = people.get(&served, who, "/v1/accounts").await.expect(200).json();
        list["accounts"].as_array().unwrap().iter().map(|account| account["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(seen("some").await, ["acct_A"]);
    assert_eq!(seen("all").await, ["acct_A", "acct_B"]);
    people.upload(&served, "some", "/accounts/acct_A/v1/batches?name=a", &file).await.expect(202);
    people.upload(&served, "some", "/accounts/acct_B/v1/batches?name=b", &file).await.expect(403);
    people.get(&served, "some", "/accounts/acct_B/v1/batches").await.expect(403);
    people.get(&served, "some", "/accounts/acct_B/v1/me").await.expect(403);
    // Metrics are of all.
    people.get(&served, "some", "/metrics").await.expect(403);
    people.get(&served, "all", "/metrics").await.expect(200);
    for path in ["/v1/accounts", "/v1/me", "/metrics", "/accounts/acct_A/v1/batches"] {
        served.get(path).await.expect(401);
    }
    // Read anew, the file opens another one; and what was done to the tokens stands in the log of each.
    std::fs::write(&tokens, format!("{}\n{} accounts=acct_B\n", lines[0], lines[1])).unwrap();
    until("the token is for B", async || seen("some").await == ["acct_B"]).await;
    people.get(&served, "some", "/accounts/acct_A/v1/batches").await.expect(403);
    until("it stands in the log", async || {
        let log = people.get(&served, "some", "/accounts/acct_B/v1/audit").await.expect(200).json();
        log["entries"][0]["action"] == "tokens_read"
    })
    .await;
}

/// One account's key is refused, another one comes, and one goes, while batches of others are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_come_change_and_go_while_others_batches_go_on() {
    let stage = Stage::with("[accounts]\ndirectory = \"accounts\"\n").await;
    let at = |name: &str| stage.directory.path().join(name);
    std::fs::create_dir(at("accounts")).unwrap();
    std::fs::write(at("accounts/a.toml"), "id = \"acct_A\"\n").unwrap();
    // Its key is one of another account.
    std::fs::write(at("key_of_b"), "sk_test_acct_A_1").unwrap();
    std::fs::write(at("accounts/b.toml"), "id = \"acct_B\"\napi_key_file = \"key_of_b\"\n").unwrap();
    let (of_a, cards_of_a) = stage.manifest("a.csv", 400).await;
    let (of_b, cards_of_b) = stage.manifest("b.csv", 20).await;
    let served = Served::start(&stage.program, &["--config", "accounts.toml"]);
    is_served(&served, "acct_A").await;
    served.upload("/accounts/acct_A/v1/batches?name=a", of_a).await.expect(202);
    let of = async |account: &str| {
        let list = served.get("/v1/accounts").await.expect(200).json();
        list["accounts"].as_array().unwrap().iter().find(|view| view["id"] == account).cloned()
    };
    until("B has stopped", async || {
        of("acct_B").await.is_some_and(|view| {
            view["state"] == "stopped"
                && view["reason"]
                    .as_str()
                    .is_some_and(|reason| reason.contains("its API key is one of acct_A"))
        })
    })
    .await;
    let answer = served.upload("/accounts/acct_B/v1/batches?name=b", of_b.clone()).await.expect(503);
    assert!(answer.text.contains("/v1/accounts tells why"), "{answer:?}");
    served.get("/readyz").await.expect(200);

    std::fs::write(at("key_of_b"), "sk_test_acct_B_1").unwrap();
    is_served(&served, "acct_B").await;
    served.upload("/accounts/acct_B/v1/batches?name=b", of_b).await.expect(202);
    ended(&served, "acct_B", "b").await;
    // One comes, and nobody says so; B goes.
    std::fs::write(at("accounts/c.toml"), "id = \"acct_C\"\n").unwrap();
    std::fs::remove_file(at("accounts/b.toml")).unwrap();
    is_served(&served, "acct_C").await;
    until("B is gone", async || of("acct_B").await.is_none()).await;
    served.get("/accounts/acct_B/v1/batches").await.expect(404);
    // All the while A's batch went on, and nothing of it was begun twice.
    let view = ended(&served, "acct_A", "a").await;
    assert_eq!(view["issued"], 400);
    stage.one_card_each(&[("acct_A", &cards_of_a), ("acct_B", &cards_of_b)]);
}

/// Stripe refuses the key of all for a while: what stopped is begun anew at SIGHUP, though no file has changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_has_halted_is_begun_anew_at_a_hang_up() {
    let stage = Stage::with(TWO).await;
    let (file, cards) = stage.manifest("a.csv", 10).await;
    let served = stage.serve(&stage.program, "50");
    are_served(&served).await;
    stage.sandbox.force(Some(Forced::error(401, "invalid_request_error", None, "Invalid API Key provided.")));
    served.upload("/accounts/acct_A/v1/batches?name=a", file.clone()).await.expect(202);
    let state = async |account: &str| {
        let list = served.get("/v1/accounts").await.expect(200).json();
        list["accounts"].as_array().unwrap().iter().find(|view| view["id"] == account).unwrap()["state"]
            .clone()
    };
    until("A has stopped", async || state("acct_A").await == "stopped").await;
    // Its batches can be looked at all the same, and the other one takes work.
    served.get("/accounts/acct_A/v1/batches/a").await.expect(200);
    assert_eq!(state("acct_B").await, "serving");
    stage.sandbox.force(None);
    let pid = rustix::process::Pid::from_raw(i32::try_from(served.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    is_served(&served, "acct_A").await;
    served.upload("/accounts/acct_A/v1/batches?name=a", file).await.expect(202);
    ended(&served, "acct_A", "a").await;
    stage.one_card_each(&[("acct_A", &cards)]);
}

/// What Stripe tells a platform goes to the account that it is about; cardholders' links lead to their account's page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_links_find_their_account() {
    let stage = Stage::with(TWO).await;
    let program = stage
        .program
        .clone()
        .with("STRIPE_WEBHOOK_SECRET", "whsec_several")
        .with("EMBOSSER__PIN_PAGE__URL", "https://cards.example");
    let csv = b"row_id,cardholder,type,currency,pin[choose]\np,ich_1,virtual,eur,true\n".to_vec();
    let served = stage.serve(&program, "50");
    are_served(&served).await;
    served.upload("/accounts/acct_B/v1/batches?name=pins", csv).await.expect(202);
    let path = "/accounts/acct_B/v1/pin-links";
    let json = [("content-type", "application/json")];
    ended(&served, "acct_B", "pins").await;
    let body = json!({"batch": "pins"}).to_string().into_bytes();
    let made = served.ask(reqwest::Method::POST, path, &json, body).await.expect(200).json();
    let link = made["links"][0]["pin_link"].as_str().unwrap().to_owned();
    assert!(link.starts_with("https://cards.example/accounts/acct_B/pin#"), "{link}");
    for file in ["pin", "pin/assets/choose.js"] {
        served.get(&format!("/accounts/acct_B/{file}")).await.expect(200);
    }
    let event = |account: &str| {
        json!({"id": "evt_1", "type": "issuing_card.created", "created": 1, "livemode": false, "account": account,
            "data": {"object": {"id": "ic_1", "type": "virtual"}}})
        .to_string()
        .into_bytes()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let send = async |body: Vec<u8>| {
        let at = i64::try_from(now).unwrap();
        let header = super::cards_are_tracked_after_printing::signed("whsec_several", &body, at);
        let headers = [("content-type", "application/json"), ("stripe-signature", header.as_str())];
        served.ask(reqwest::Method::POST, "/v1/stripe-events", &headers, body).await
    };
    assert_eq!(send(event("acct_A")).await.expect(200).json()["kept"], false);
    send(event("acct_X")).await.expect(404);
    send(json!({"id": "evt_2", "type": "x", "data": {}}).to_string().into_bytes()).await.expect(400);
    let unsigned = served.ask(reqwest::Method::POST, "/v1/stripe-events", &json, event("acct_A")).await;
    unsigned.expect(400);
}

/// Over RabbitMQ, to a worker for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_of_several_accounts_are_published_to_their_workers() {
    let (stage, rabbit) = (Stage::with(TWO).await, Rabbit::shared().await);
    let (of_a, cards_of_a) = stage.manifest("staff.csv", 30).await;
    let (of_b, cards_of_b) = stage.manifest("staff.csv", 20).await;
    let program = stage.program.clone().with("EMBOSSER__RABBITMQ__URL", &rabbit.url());
    let worker = program.spawn(&["--config", "accounts.toml", "worker", "--rate", "100"]);
    let server = program.clone().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test").with("STRIPE_API_KEY", "");
    let served = stage.serve(&server, "100");
    are_served(&served).await;
    served.upload("/accounts/acct_A/v1/batches?name=staff", of_a).await.expect(202);
    served.upload("/accounts/acct_B/v1/batches?name=staff", of_b).await.expect(202);
    assert_eq!(ended(&served, "acct_A", "staff").await["issued"], 30);
    assert_eq!(ended(&served, "acct_B", "staff").await["issued"], 20);
    stage.one_card_each(&[("acct_A", &cards_of_a), ("acct_B", &cards_of_b)]);
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    worker.signal(rustix::process::Signal::TERM);
    support::expect_exit(&support::issuing::ended(worker).await, 0);
}

/// With one account its own server answers at the path that it would have beside others, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_account_alone_is_at_its_path_too() {
    let stage = Stage::with("[accounts]\nlist = [{ id = \"acct_A\" }]\n").await;
    let (file, cards) = stage.manifest("a.csv", 5).await;
    let served = stage.serve(&stage.program, "50");
    is_served(&served, "acct_A").await;
    served.upload("/accounts/acct_A/v1/batches?name=a", file).await.expect(202);
    served.until_ended("a").await;
    ended(&served, "acct_A", "a").await;
    stage.one_card_each(&[("acct_A", &cards)]);
    let list = served.get("/v1/accounts").await.expect(200).json();
    assert_eq!(list["accounts"][0]["path"], "/accounts/acct_A");
    assert_eq!(served.get("/v1/me").await.expect(200).json()["several_accounts"], false);
}
