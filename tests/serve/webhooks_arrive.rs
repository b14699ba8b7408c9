//! Promise: whoever wants to know is told when a batch was checked, waits for its approval, has finished, or was stopped: signed so
//! that Stripe's own library verifies it, over an outage, whatever is killed, and twice only under the same id.

use crate::support;

mod ends;
mod outage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use embosser::ledger::Ledger;
use embosser::sandbox::{Forced, Options, Sandbox};
use serde_json::{Value, json};
use support::postgres::Postgres;
use support::receiver::{Delivery, Receiver, SECRET, configuration};
use support::scene::Scene;
use support::serve::Served;
use support::tokens::people;
use support::{Program, expect_exit, sqlite, write_manifest};

/// Longer than anything here may take: also until a process that was killed is taken for gone, which is 20 s.
const WAIT_MAX: Duration = Duration::from_secs(90);

fn kinds(told: &[Delivery]) -> Vec<String> {
    told.iter().map(Delivery::kind).collect()
}

/// The ids that each type of event came under.
fn ids(told: &[Delivery]) -> BTreeMap<String, BTreeSet<String>> {
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for delivery in told {
        ids.entry(delivery.kind()).or_default().insert(delivery.id());
    }
    ids
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The Python that has Stripe's library.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/python/bin/python");

/// Fails unless Stripe's own library takes it, and takes nothing else under its signature.
fn stripes_library_takes(delivery: &Delivery) {
    if !std::path::Path::new(PYTHON).exists() && std::env::var_os("CI").is_none() {
        return eprintln!("!! Stripe's library for Python is left out, ./tests/run installs it");
    }
    let said = verified(&delivery.body, &delivery.signature, SECRET).unwrap();
    assert_eq!(said, format!("{} batch.finished staff 1 20", delivery.id()));
    let tampered = delivery.body.replace("\"issued\":20", "\"issued\":21");
    assert_ne!(tampered, delivery.body);
    for (body, secret) in [(&tampered, SECRET), (&delivery.body, "whsec_another_0123456789abcdef")] {
        let refused = verified(body, &delivery.signature, secret).unwrap_err();
        assert!(refused.contains("SignatureVerificationError"), "{refused}");
    }
}

/// What Stripe's library for Python says of a delivery, by the code that docs/webhooks.md gives.
fn verified(body: &str, signature: &str, secret: &str) -> Result<String, String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let document = std::fs::read_to_string(format!("{root}/docs/webhooks.md")).unwrap();
    let (_, code) = document.split_once("```python\n").unwrap();
    let (code, _) = code.split_once("```").unwrap();
    let driver = "import os, sys\n\
                  event = verified(os.environ['BODY'].encode(), os.environ['SIGNATURE'], os.environ['SECRET'])\n\
                  print(event.id, event.type, event.data.object.batch, event.data.object.issued)\n";
    let mut command = std::process::Command::new(PYTHON);
    command.args(["-c", &format!("{code}\n{driver}")]);
    let output = command.env("BODY", body).env("SIGNATURE", signature).env("SECRET", secret).output();
    let output = output.expect("Python and its libraries are installed (tests/run does it)");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned()),
        false => Err(stderr(&output).lines().last().unwrap_or_default().to_owned()),
    }
}

#[tokio::test]
async fn each_is_told_by_itself_and_stripes_library_verifies_it() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (up, down) = (Receiver::start().await, Receiver::start().await);
    down.answers(503);
    let config = configuration(directory.path(), &[(&up, &[]), (&down, &["batch.finished"])], "");
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let people = people(program, &[("clerk", &["submit", "read"]), ("boss", &["approve", "read"])]).await;
    let file = directory.path().join("staff.csv");
    let expected = write_manifest(&file, &sandbox, 20).await;
    let csv = std::fs::read(&file).unwrap();
    let served = Served::start(&people.program, &["--config", &config, "--rate", "200"]);
    people.upload(&served, "clerk", "/v1/batches?name=staff%201", &csv).await.expect(202);
    let waits = up.has("batch.awaiting_approval").await.batch();
    assert_eq!((&waits["state"], &waits["waiting"]), (&json!("awaiting_approval"), &json!(20)), "{waits}");
    // The same again is held once, and told once.
    people.upload(&served, "clerk", "/v1/batches?name=staff%201", &csv).await.expect(202);
    let view = people.get(&served, "boss", "/v1/batches/staff%201").await.expect(200).json();
    let digest = json!({"digest": view["held"]["digest"]});
    people.post(&served, "boss", "/v1/batches/staff%201/approve", digest).await.expect(200);
    let finished = up.has("batch.finished").await;
    let told = up.told();
    assert_eq!(kinds(&told), ["batch.checked", "batch.awaiting_approval", "batch.finished"]);
    let pins = expected.values().flatten().count();
    let batch = finished.batch();
    let event = finished.event();
    assert_eq!((&event["livemode"], &event["object"]), (&json!(false), &json!("event")), "{event}");
    assert!(event["account"].as_str().unwrap().starts_with("acct_"), "{event}");
    for (name, value) in [
        ("batch", json!("staff 1")),
        ("state", json!("finished")),
        ("reason", Value::Null),
        ("rows", json!(20)),
        ("issued", json!(20)),
        ("refused", json!(0)),
        ("waiting", json!(0)),
        ("pins", json!(pins)),
        ("url", json!("https://cards.example.com/#/batches/staff%201")),
    ] {
        assert_eq!(batch[name], value, "{name}: {batch}");
    }
    assert_eq!(
        told.iter().map(|told| told.batch()["run"].clone()).collect::<Vec<_>>(),
        vec![batch["run"].clone(); 3]
    );

    // Whoever was down is told once it is up, of what it wants, and what the other had long since.
    down.until_tries(|tries| tries.len() >= 3).await;
    assert_eq!(down.told().len(), 0);
    // A redirect is no answer, and is not followed.
    down.answers(302);
    let before = down.tries().len();
    down.until_tries(|tries| tries.len() > before + 1).await;
    down.answers(200);
    let late = down.has("batch.finished").await;
    assert_eq!((late.id(), &late.body), (finished.id(), &finished.body), "the same event");
    assert!(down.tries().iter().all(|tried| tried.id() == finished.id()), "it wants nothing else");

    stripes_library_takes(&late);

    // Each is as its schema says.
    let schema = people.program.run(&["schema", "event"]).await;
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for told in &told {
        let event = told.event();
        assert!(schema.is_valid(&event), "{event}");
    }

    // Nothing secret is told or logged: no row's text, PIN, secret or token of an address.
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("a webhook could not be delivered"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains("of_the_address"), "{log}");
    for told in up.tries() {
        assert!(!told.body.contains("eyJ") && !told.body.contains("ich_") && !told.body.contains(SECRET));
    }
    assert_eq!(up.told().len(), 3, "each came once");
    assert_eq!(down.told().len(), 1);
}

/// Kills the server at a place, starts it again, and answers what the receiver was told, once it knows of an end.
async fn killed_at(place: &str, ends_with: &str) -> BTreeMap<String, BTreeSet<String>> {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    let config = configuration(directory.path(), &[(&receiver, &[])], "");
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 10).await;
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(
        &program.clone().with("EMBOSSER_KILL_AT", place),
        &["--config", &config, "--rate", "100"],
    );
    // It may be killed before it has answered.
    let headers = [("content-type", "text/csv")];
    let csv = std::fs::read(&file).unwrap();
    let _ = served.try_ask(reqwest::Method::POST, "/v1/batches?name=staff", &headers, csv).await;
    let (code, log) = served.ended().await;
    assert_eq!(code, None, "{place}: it was killed: {log}");
    let served = Served::start(&program, &["--config", &config]);
    receiver.has(ends_with).await;
    // Until nothing is owed any more: no end, and no delivery.
    let ledger = Ledger::open(&sqlite(&directory.path().join("embosser/embosser.db"))).await.unwrap();
    let began = Instant::now();
    loop {
        let runs = ledger.metadata_page("batch_run:", "", 9).await.unwrap();
        let events = ledger.metadata_page("webhook:", "", 9).await.unwrap();
        if runs.is_empty() && events.is_empty() {
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "{place}: {runs:?} {events:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ledger.close().await;
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    ids(&receiver.told())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_killed_each_end_is_told_under_one_id() {
    const STOPPED: &str = "batch.stopped";
    const FINISHED: &str = "batch.finished";
    let places: [(&str, &str, &[&str]); 7] = [
        // Its upload was never answered, and nothing was told of it but that it does not go on.
        ("run_recorded:1", STOPPED, &[STOPPED]),
        ("batch_written:1", STOPPED, &["batch.checked", STOPPED]),
        ("recorded:5", STOPPED, &["batch.checked", STOPPED]),
        // Between the end of the batch and that it is told.
        ("end_recorded:1", FINISHED, &["batch.checked", FINISHED]),
        ("event_recorded:2", FINISHED, &["batch.checked", FINISHED]),
        // Around a delivery: that of the end.
        ("webhook_claimed:2", FINISHED, &["batch.checked", FINISHED]),
        ("webhook_posted:2", FINISHED, &["batch.checked", FINISHED]),
    ];
    let mut running = tokio::task::JoinSet::new();
    for (place, ends_with, wanted) in places {
        running.spawn(async move { (place, wanted, killed_at(place, ends_with).await) });
    }
    while let Some(ended) = running.join_next().await {
        let (place, wanted, ids) = ended.unwrap();
        assert_eq!(ids.keys().map(String::as_str).collect::<Vec<_>>(), wanted, "{place}");
        assert!(ids.values().all(|ids| ids.len() == 1), "{place}: one id each: {ids:?}");
    }
}

#[tokio::test]
async fn issue_tells_its_end_and_what_is_left_is_told_by_whoever_comes_next() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(500);
    let config = configuration(directory.path(), &[(&receiver, &["batch.finished", "batch.stopped"])], "");
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 10).await;
    let program = Program::new(directory.path(), &sandbox);
    let issue = ["issue", "staff.csv", "--rate", "100", "--config", &config];
    // Killed in the middle, it leaves an end to tell; the next run tells it with its own.
    let killed = program.clone().with("EMBOSSER_KILL_AT", "recorded:3").run(&issue).await;
    assert!(support::was_killed(&killed), "{}", stderr(&killed));
    let output = program.run(&issue).await;
    expect_exit(&output, 0);
    let said = stderr(&output);
    assert!(said.contains("2 events could not be told to webhooks yet"), "{said}");
    assert!(!said.contains(SECRET) && !said.contains("of_the_address"), "{said}");
    let listed = program.run(&["webhooks", "--config", &config]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(
        listed.contains("batch.stopped of batch \"staff\"") && listed.contains("it answered 500"),
        "{listed}"
    );
    let test = program.run(&["webhooks", "--test", "--config", &config]).await;
    expect_exit(&test, 3);
    let left = program.run(&["webhooks", "--config", &config]).await;
    assert_eq!(String::from_utf8(left.stdout).unwrap().lines().count(), 2, "a test is kept by nobody");

    receiver.answers(200);
    expect_exit(&program.run(&["webhooks", "--deliver", "--config", &config]).await, 0);
    let told = receiver.told();
    assert_eq!(kinds(&told), ["batch.stopped", "batch.finished"]);
    let (first, second) = (told[0].batch(), told[1].batch());
    assert!(
        first["issued"].as_u64().unwrap() < 10 && first["reason"].as_str().unwrap().contains("is gone"),
        "{first}"
    );
    assert_eq!((&second["issued"], &second["state"]), (&json!(10), &json!("finished")), "{second}");
    assert_ne!(first["run"], second["run"]);
    expect_exit(&program.run(&["webhooks", "--test", "--config", &config]).await, 0);
    assert_eq!(receiver.told().last().unwrap().kind(), "webhook.test");
}

#[tokio::test]
async fn a_batch_that_is_stopped_is_told_with_why() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox =
        Sandbox::start(Options { latency: Duration::from_millis(50), ..Options::default() }).await.unwrap();
    let receiver = Receiver::start().await;
    let config = configuration(directory.path(), &[(&receiver, &["batch.stopped"])], "");
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 100).await;
    let program = Program::new(directory.path(), &sandbox);
    // Stripe refuses all alike.
    let message = "Your Issuing balance is insufficient.";
    sandbox.force(Some(Forced::error(402, "card_error", Some("insufficient_funds"), message)));
    let issue = ["issue", "staff.csv", "--batch", "refused", "--rate", "100", "--config", &config];
    expect_exit(&program.run(&issue).await, 3);
    let refused = receiver.has("batch.stopped").await.batch();
    assert!(refused["reason"].as_str().unwrap().contains("refuses every card alike"), "{refused}");
    assert_eq!((&refused["state"], &refused["issued"]), (&json!("interrupted"), &json!(0)), "{refused}");
    sandbox.force(None);
    // The server is stopped, with one batch under way and one that waits for its start.
    let served = Served::start(&program, &["--rate", "20", "--config", &config]);
    let csv = std::fs::read(&file).unwrap();
    served.upload("/v1/batches?name=cut", csv).await.expect(202);
    let later = b"row_id,cardholder,type,currency\n1,ich_8,virtual,eur\n".to_vec();
    let start = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).to_string();
    served.upload(&format!("/v1/batches?name=later&start={start}"), later).await.expect(202);
    served.until("cut", |view| view["issued"].as_u64() > Some(3)).await;
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    // That was told before the process ended.
    let told: BTreeMap<String, Value> = receiver
        .told()
        .iter()
        .map(|told| (told.batch()["batch"].as_str().unwrap().to_owned(), told.batch()))
        .collect();
    assert_eq!(told.keys().map(String::as_str).collect::<Vec<_>>(), ["cut", "later", "refused"]);
    let (cut, later) = (&told["cut"], &told["later"]);
    assert!(cut["issued"].as_u64() > Some(3) && cut["waiting"].as_u64() > Some(0), "{cut}");
    assert!(cut["reason"].as_str().unwrap().contains("the server was stopped"), "{cut}");
    assert_eq!((&later["waiting"], &later["issued"]), (&json!(1), &json!(0)), "{later}");
    assert!(later["reason"].as_str().unwrap().contains("Upload the file again"), "{later}");
}

#[tokio::test]
async fn what_is_given_up_is_told_and_can_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(410);
    let more = "retry_hours_max = 0.0001";
    let config = configuration(directory.path(), &[(&receiver, &["batch.finished"])], more);
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 5).await;
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(&program, &["--config", &config, "--rate", "100"]);
    served.upload_file(&file).await.expect(202);
    receiver.until_tries(|tries| tries.len() >= 20).await;
    let given_up = "embosser_webhook_deliveries_total{result=\"given_up\"} 1";
    let metrics = async || served.get("/metrics").await.expect(200).text;
    let looking = async {
        while !metrics().await.contains(given_up) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looking).await.expect("it is counted");
    assert!(metrics().await.contains("embosser_webhook_deliveries_total{result=\"failed\"} 20"));
    assert_eq!(served.get("/readyz").await.status, 200, "it issues all the same");
    let (_, log) = served.stopped().await;
    assert!(log.contains("a webhook is given up"), "{log}");
    assert_eq!(receiver.tries().len(), 20, "it was tried no more");
    let listed = program.run(&["webhooks", "--config", &config]).await;
    assert!(String::from_utf8_lossy(&listed.stdout).contains("given up; --deliver tries it again"));
    receiver.answers(200);
    expect_exit(&program.run(&["webhooks", "--deliver", "--config", &config]).await, 0);
    assert_eq!(kinds(&receiver.told()), ["batch.finished"]);
}

#[tokio::test]
async fn two_servers_on_one_ledger_tell_each_event_once() {
    let postgres = Postgres::start();
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    receiver.answers(503);
    let config = configuration(directory.path(), &[(&receiver, &[])], "");
    let program = Program::new(directory.path(), &sandbox);
    let url = postgres.url();
    let arguments = ["--config", &config, "--rate", "100", "--ledger", &url];
    let (one, other) = (Served::start(&program, &arguments), Served::start(&program, &arguments));
    for (name, cardholder) in [("one", "ich_1"), ("two", "ich_2"), ("three", "ich_3")] {
        let csv = format!("row_id,cardholder,type,currency\n1,{cardholder},virtual,eur\n");
        one.upload(&format!("/v1/batches?name={name}"), csv.into_bytes()).await.expect(202);
    }
    // Both have tried.
    receiver.until_tries(|tries| tries.len() >= 12).await;
    receiver.answers(200);
    let told = receiver.until(|told| told.len() >= 6).await;
    let (code, log) = one.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    let (code, log) = other.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(receiver.told().len(), 6, "{:?}", kinds(&told));
    let all: BTreeSet<String> = receiver.told().iter().map(Delivery::id).collect();
    assert_eq!(all.len(), 6, "each came once");
}

#[tokio::test]
async fn a_command_is_run_at_the_end_and_gets_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 5).await;
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER_WEBHOOK_SECRET", SECRET)
        .with("PGPASSWORD", "of_the_database");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let command = "cat > event.json; env > env.txt; exit 7";
    let issue = ["issue", "staff.csv", "--rate", "100", "--notify-command", command];
    let output = program.run(&issue).await;
    // What it comes to is told, and changes nothing.
    expect_exit(&output, 0);
    assert!(stderr(&output).contains("exit code 7"), "{}", stderr(&output));
    let event: Value = serde_json::from_str(&read("event.json")).unwrap();
    assert_eq!(
        (&event["type"], &event["data"]["object"]["issued"]),
        (&json!("batch.finished"), &json!(5)),
        "{event}"
    );
    let environment = read("env.txt");
    let lines: BTreeSet<&str> = environment.lines().collect();
    assert!(
        lines.contains("EMBOSSER_EVENT=batch.finished") && lines.contains("EMBOSSER_BATCH=staff"),
        "{environment}"
    );
    assert!(lines.iter().any(|line| line.starts_with("PATH=")), "{environment}");
    for secret in [SECRET, "sk_test_of_the_tests", "of_the_database", "EMBOSSER__"] {
        assert!(!environment.contains(secret), "{environment}");
    }
    // A run that comes to nothing is told too, and a command that hangs is killed with what it has started.
    let more = "command_seconds_max = 0.5\ncommand = \"cat > stopped.json; sleep 600 & sleep 600\"";
    let config = configuration(directory.path(), &[], more);
    let unreachable = program.clone().with("STRIPE_API_KEY", "sk_test_of_nobody");
    sandbox.force(Some(Forced::error(401, "invalid_request_error", None, "Invalid API Key provided")));
    let output = unreachable
        .run(&["issue", "staff.csv", "--batch", "again", "--second-cards", "--config", &config])
        .await;
    assert_ne!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("it was killed, as it ran for 0.5 s"), "{said}");
    let event: Value = serde_json::from_str(&read("stopped.json")).unwrap();
    assert_eq!(event["type"], "batch.stopped", "{event}");
    let batch = &event["data"]["object"];
    assert_eq!((&batch["batch"], &batch["issued"]), (&json!("again"), &json!(0)), "{batch}");
}

/// What a worker has in its queue goes on without the server that published it, and its end is told by the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_came_while_no_server_was_there_is_told() {
    let scene = Scene::with(Options::default()).await;
    let receiver = Receiver::start().await;
    let config = configuration(scene.directory.path(), &[(&receiver, &[])], "");
    scene.manifest(10).await;
    let server = scene.program().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test").with("STRIPE_API_KEY", "");
    let served = Served::start(&server, &["--config", &config]);
    served.upload_file(&scene.directory.path().join("cards.csv")).await.expect(202);
    ends::until_handed_to_worker(scene.directory.path()).await;
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(kinds(&receiver.told()), ["batch.checked"], "the worker goes on");
    let worker = scene.worker("100");
    scene.cards(10).await;
    let served = Served::start(&server, &["--config", &config]);
    let finished = receiver.has("batch.finished").await.batch();
    assert_eq!((&finished["issued"], &finished["waiting"]), (&json!(10), &json!(0)), "{finished}");
    assert_eq!(kinds(&receiver.told()), ["batch.checked", "batch.finished"]);
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let path = directory.path().join("embosser.toml");
    let endpoint =
        |more: &str| format!("[[webhooks.endpoints]]\nurl = \"https://example.com/?token=hidden\"\n{more}");
    std::fs::write(directory.path().join("short"), "hidden_too_short").unwrap();
    for (text, told) in [
        (endpoint(""), "endpoint 1 (example.com) has no secret to sign with"),
        (endpoint("secret_file = \"short\""), "a secret has at least 24 letters"),
        (endpoint("secret_file = \"nowhere\""), "its secret_file nowhere: No such file"),
        (endpoint("events = [\"batch.done\"]"), "there is no event \"batch.done\"; there are batch.checked"),
        (endpoint("").replace("https", "http"), "its url must begin with https://"),
        (endpoint("") + &endpoint(""), "endpoint 2 has the same url as one before it"),
        ("[webhooks]\npage_url = \"cards\"".to_owned(), "webhooks.page_url"),
        ("[webhooks]\nretry_hours_max = 0.0".to_owned(), "must be above 0 and up to 720"),
        (String::new(), "there is nobody to tell"),
    ] {
        std::fs::write(&path, &text).unwrap();
        let output = program.run(&["webhooks", "--test", "--config", path.to_str().unwrap()]).await;
        expect_exit(&output, 2);
        let said = stderr(&output);
        assert!(said.contains(told) && !said.contains("hidden"), "{text}: {said}");
    }
}
