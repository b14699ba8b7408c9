//! Promise: with a retry only those of a batch's refused rows are called for again that need no change, one card each whatever is
//! killed on the way; those that need mending or a new PIN stay refused, are counted so, and nothing is called for them.

use crate::support;

use std::collections::BTreeSet;
use std::path::PathBuf;

use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use support::issuing::said;
use support::rabbit::Rabbit;
use support::serve::Served;
use support::tokens::people;
use support::verdict::jwe;
use support::{Program, expect_exit};

/// Rows that name a cardholder whom Stripe does not have, rows whose PIN is encrypted under a key that is no more, and rows that
/// are well; in this order.
const NOBODYS: usize = 3;
const STALE: usize = 3;
const WELL: usize = 60;

struct Stage {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    program: Program,
}

/// What was called for so far, by which rows that must be mended and rows with old PINs would be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Called {
    creates_refused: usize,
    keys: u64,
}

impl Stage {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cardholders = Some(["ich_1".to_owned()].into());
        let sandbox = Sandbox::start(Options { cardholders, ..Options::default() }).await.unwrap();
        let program = Program::new(directory.path(), &sandbox);
        let mut file =
            "row_id,cardholder,type,currency,metadata[employee],pin[encrypted_number]\n".to_owned();
        let stale = jwe();
        for row in 0..NOBODYS + STALE + WELL {
            let cardholder = if row < NOBODYS { "ich_nobody" } else { "ich_1" };
            let pin = if (NOBODYS..NOBODYS + STALE).contains(&row) { stale.as_str() } else { "" };
            file += &format!("r{row},{cardholder},virtual,eur,{row},{pin}\n");
        }
        std::fs::write(directory.path().join("staff.csv"), file).unwrap();
        Self { directory, sandbox, program }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("staff.csv")
    }

    fn csv(&self) -> Vec<u8> {
        std::fs::read(self.file()).unwrap()
    }

    fn called(&self) -> Called {
        let creates = self.sandbox.requests().into_iter();
        let refused = creates.filter(|seen| {
            seen.method == "POST"
                && seen.path == "/v1/issuing/cards"
                && seen.status.is_some_and(|status| (400..410).contains(&status))
        });
        Called { creates_refused: refused.count(), keys: self.sandbox.account().key_fetches }
    }

    /// The batch is issued and called off half way; answers how many cards it made.
    async fn called_off(&self) -> u64 {
        // Slow enough that most of it is left when it is called off, however busy the machine is.
        let served = Served::start(&self.program, &["--rate", "10"]);
        served.upload_file(&self.file()).await.expect(202);
        let is_half_way = |view: &Value| view["issued"].as_u64() > Some(5) && view["refused"] == 6;
        served.until("staff", is_half_way).await;
        served.post("/v1/batches/staff/cancel").await.expect(200);
        let view = served.until_ended("staff").await;
        let (issued, cancelled) =
            (view["issued"].as_u64().unwrap(), view["cancelled_rows"].as_u64().unwrap());
        assert_eq!(issued + cancelled, WELL as u64, "{view}");
        assert!(cancelled > 15, "too few are left to be tried again: {view}");
        assert_eq!(self.called().creates_refused, NOBODYS);
        served.stopped().await;
        issued
    }

    /// Fails unless every row that is well has one card, and no other row has one.
    fn one_card_for_each_that_is_well(&self) {
        let cards = self.sandbox.account().cards;
        let jobs: BTreeSet<_> = cards.iter().map(|card| card.job.clone().unwrap()).collect();
        let well = (NOBODYS + STALE..NOBODYS + STALE + WELL).map(|row| format!("staff/r{row}"));
        assert_eq!(jobs, well.collect(), "left: rows with a card, right: rows that are well");
        assert_eq!(cards.len(), WELL, "a row has two cards");
    }
}

/// How many reasons there are of each kind, in rows.
async fn takes(served: &Served) -> Value {
    let refusals = served.get("/v1/batches/staff/refusals").await.expect(200).json();
    let reasons = refusals["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| json!([reason["takes"], reason["rows"]])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_is_killed_goes_on_and_calls_for_no_row_that_needs_a_change() {
    let stage = Stage::new().await;
    let issued = stage.called_off().await;
    let (left, before) = (WELL as u64 - issued, stage.called());
    let served = Served::start(&stage.program, &["--rate", "10"]);
    assert_eq!(takes(&served).await, json!([["nothing", left], ["new_pin", STALE], ["mending", NOBODYS]]));

    // What it would do is told first.
    let checked = served.upload("/v1/checks?name=staff&retry=true", stage.csv()).await.expect(200).json();
    assert_eq!((&checked["stay_refused"], &checked["done_before"]), (&json!(6), &json!(issued)), "{checked}");
    let plain = served.upload("/v1/checks?name=staff", stage.csv()).await.expect(200).json();
    assert_eq!(plain["stay_refused"], 0);
    assert!(plain["eta_seconds"].as_f64() > checked["eta_seconds"].as_f64(), "{plain} {checked}");
    let both = "/v1/batches?name=staff&retry=true&second_cards=true";
    served.upload(both, stage.csv()).await.expect(400);

    let retry = "/v1/batches?name=staff&retry=true";
    served.upload(retry, stage.csv()).await.expect(202);
    served.upload(retry, stage.csv()).await.expect(202);
    // The same file without it would call for more: it is not taken for this one.
    let other = served.upload_file(&stage.file()).await.expect(409).json();
    assert!(other["detail"].as_str().unwrap().contains("only what needs no change"), "{other}");
    served.until("staff", |view| view["issued"].as_u64() > Some(issued + 5)).await;
    served.killed();
    assert!(stage.sandbox.account().cards.len() < WELL);

    let served = Served::start(&stage.program, &["--rate", "200"]);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!(view["state"], "interrupted", "{view}");
    served.upload(retry, stage.csv()).await.expect(202);
    let view = served.until_ended("staff").await;
    let counts =
        ["rows", "issued", "refused", "cancelled_rows", "unresolved", "waiting"].map(|name| &view[name]);
    assert_eq!(counts.map(Value::as_u64).map(Option::unwrap), [66, 60, 6, 0, 0, 0], "{view}");
    assert_eq!(view["state"], "finished");
    stage.one_card_for_each_that_is_well();
    assert_eq!(stage.called(), before, "rows that need a change were called for");
    assert_eq!(takes(&served).await, json!([["new_pin", STALE], ["mending", NOBODYS]]));
    // As another server sees it, too, and in the results.
    let results = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert_eq!((results.matches(",issued,").count(), results.matches(",refused,").count()), (60, 6));

    // Without it they are: that is how a mended file comes.
    served.upload_file(&stage.file()).await.expect(202);
    served.until_ended("staff").await;
    let called = Called { creates_refused: before.creates_refused + NOBODYS, ..before };
    assert_eq!(stage.called().creates_refused, called.creates_refused);
    assert!(stage.called().keys > before.keys);
    stage.one_card_for_each_that_is_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_waits_for_its_approval_says_so_and_is_one_when_it_begins() {
    let stage = Stage::new().await;
    let issued = stage.called_off().await;
    let before = stage.called();
    let who: [(&str, &[&str]); 2] = [("clerk", &["submit", "read"]), ("boss", &["approve", "read"])];
    let program = stage.program.clone().with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let people = people(program, &who).await;
    let served = Served::start(&people.program, &["--rate", "200"]);
    let upload = async |more: &str| {
        let path = format!("/v1/batches?name=staff{more}");
        people.upload(&served, "clerk", &path, &stage.csv()).await.expect(202).json()["held"].clone()
    };
    let plain = upload("").await;
    let held = upload("&retry=true").await;
    assert_ne!(plain["digest"], held["digest"], "who approves one has not approved the other");
    assert_eq!((&plain["retry"], &held["retry"]), (&json!(false), &json!(true)));
    assert_eq!((&plain["plan"]["stay_refused"], &held["plan"]["stay_refused"]), (&json!(0), &json!(6)));
    let changes = held["changes"].as_array().unwrap();
    assert!(changes[0].as_str().unwrap().contains("only those tried again that need no change"), "{held}");
    let approve = "/v1/batches/staff/approve";
    people.post(&served, "boss", approve, json!({"digest": plain["digest"]})).await.expect(409);
    people.post(&served, "boss", approve, json!({"digest": held["digest"]})).await.expect(200);
    let path = "/v1/batches/staff";
    let began = std::time::Instant::now();
    let view = loop {
        let view = people.get(&served, "boss", path).await.expect(200).json();
        if view["state"] == "finished" {
            break view;
        }
        assert!(began.elapsed() < support::issuing::RUN_MAX, "never ended: {view}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!((&view["issued"], &view["refused"]), (&json!(60), &json!(6)), "{view}");
    assert_eq!(view["recorded_before"], json!(issued + 6), "{view}");
    stage.one_card_for_each_that_is_well();
    assert_eq!(stage.called(), before, "rows that need a change were called for");
    // Who sent what is in the log, in words.
    let log = people.get(&served, "boss", "/v1/audit?batch=staff").await.expect(200).text;
    assert_eq!(log.matches("only those tried again that need no change").count(), 2, "sent, approved: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_rabbitmq_only_rows_that_need_no_change_are_published_again() {
    let mut stage = Stage::new().await;
    let rabbit = Rabbit::shared().await;
    stage.program = stage.program.with("EMBOSSER__RABBITMQ__URL", &rabbit.url());
    let issued = stage.called_off().await;
    let before = stage.called();
    let server =
        stage.program.clone().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test").with("STRIPE_API_KEY", "");
    let served = Served::start(&server, &[]);
    let _worker = stage.program.spawn(&["worker", "--rate", "200"]);
    served.upload("/v1/batches?name=staff&retry=true", stage.csv()).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!(
        (&view["state"], &view["issued"], &view["refused"], &view["recorded_before"]),
        (&json!("finished"), &json!(60), &json!(6), &json!(issued + 6)),
        "{view}"
    );
    stage.one_card_for_each_that_is_well();
    assert_eq!(stage.called(), before, "rows that need a change were called for");
    // The worker has nothing of them either: what it is sent it calls for.
    served.upload_file(&stage.file()).await.expect(202);
    served.until_ended("staff").await;
    assert_eq!(stage.called().creates_refused, before.creates_refused + NOBODYS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submit_publishes_only_rows_that_need_no_change_and_tells_the_others_all_the_same() {
    let mut stage = Stage::new().await;
    let rabbit = Rabbit::shared().await;
    stage.program = stage.program.with("EMBOSSER__RABBITMQ__URL", &rabbit.url());
    let submit = ["submit", "staff.csv", "--retry", "--wait"];
    // Nothing is known here of what was refused: then it is not said to be tried again.
    let nowhere = stage.program.run(&submit).await;
    expect_exit(&nowhere, 2);
    assert!(said(&nowhere).contains("pass the worker's ledger as --ledger"), "{}", said(&nowhere));
    let issued = stage.called_off().await;
    let before = stage.called();
    let _worker = stage.program.spawn(&["worker", "--rate", "200"]);
    let submitted = stage.program.run(&submit).await;
    expect_exit(&submitted, 1);
    let told = said(&submitted);
    assert!(told.contains("60 of 66 rows published"), "{told}");
    assert!(told.contains("refused and must be changed first: 6 rows"), "{told}");
    assert!(told.contains("66 rows ended: 60 issued, 6 refused."), "{told}");
    let results = std::fs::read_to_string(stage.directory.path().join("staff.results.csv")).unwrap();
    assert_eq!((results.matches(",issued,").count(), results.matches(",refused,").count()), (60, 6));
    stage.one_card_for_each_that_is_well();
    assert!(issued < WELL as u64);
    assert_eq!(stage.called(), before, "rows that need a change were called for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issue_calls_only_for_rows_that_need_no_change() {
    let stage = Stage::new().await;
    let issued = stage.called_off().await;
    let before = stage.called();
    let issue = ["issue", "staff.csv", "--rate", "200", "--retry"];
    expect_exit(&stage.program.run(&[&issue[..], &["--second-cards"]].concat()).await, 2);
    let run = stage.program.run(&issue).await;
    expect_exit(&run, 1);
    let told = said(&run);
    assert!(told.contains("refused and must be changed first: 6 rows"), "{told}");
    let counts = format!("60 issued ({issued} of them before), 6 refused (6 of them before)");
    assert!(told.contains(&counts), "{told}");
    stage.one_card_for_each_that_is_well();
    assert_eq!(stage.called(), before, "rows that need a change were called for");
    let results = std::fs::read_to_string(stage.directory.path().join("staff.results.csv")).unwrap();
    assert_eq!((results.matches(",issued,").count(), results.matches(",refused,").count()), (60, 6));
}
