//! An end is told of the run's own rows, to whoever is there to be told, and not more often than it helps.

use std::path::Path;
use std::time::{Duration, Instant};

use embosser::ledger::Ledger;
use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};

use super::support::receiver::{Receiver, configuration};
use super::support::scene::Scene;
use super::support::serve::Served;
use super::support::{Program, expect_exit, sqlite, write_manifest};
use super::{WAIT_MAX, kinds, stderr};

const CARDS: &str =
    "row_id,cardholder,type,currency\n1,ich_1,virtual,eur\n2,ich_1,virtual,eur\n3,ich_1,virtual,eur\n";
const CHANGES: &str = "row_id,card,status\n1,ic_of_nobody,inactive\n2,ic_of_no_one,inactive\n";
const CSV: [(&str, &str); 1] = [("content-type", "text/csv")];

/// Makes the ledger refuse what is told here: `BEFORE … ON … WHEN …`.
fn refuse(ledger: &Path, what: &str) {
    let trigger = format!("CREATE TRIGGER refuses {what} BEGIN SELECT RAISE(ABORT, 'the test says no'); END");
    rusqlite::Connection::open(ledger).unwrap().execute_batch(&trigger).unwrap();
}

/// What was told of a batch's end.
async fn end_of(receiver: &Receiver, batch: &str) -> Value {
    let is_it = |told: &super::Delivery| {
        told.batch()["batch"] == batch && ["batch.finished", "batch.stopped"].contains(&&*told.kind())
    };
    let told = receiver.until(|told| told.iter().any(is_it)).await;
    told.into_iter().find(is_it).unwrap().event()
}

/// Until all of a batch's jobs are in the queue, and the ledger says so.
pub(crate) async fn until_handed_to_worker(folder: &Path) {
    let ledger = Ledger::open(&sqlite(&folder.join("embosser/embosser.db"))).await.unwrap();
    let began = Instant::now();
    loop {
        let runs = ledger.metadata_page("batch_run:", "", 9).await.unwrap();
        if runs.iter().any(|(_, run)| run.contains("\"carrier\":\"worker\"")) {
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "{runs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ledger.close().await;
}

/// Two batches of a server that is killed, and one that the next could not begin. None has finished, whatever the ledger has of
/// their names; and the endpoint has another address by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_had_before_a_run_finishes_it_not() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let (former, receiver) = (Receiver::start().await, Receiver::start().await);
    former.answers(500);
    let program = Program::new(directory.path(), &sandbox);
    for (file, text, code) in [("staff.csv", CARDS, 0), ("changes.csv", CHANGES, 1)] {
        std::fs::write(directory.path().join(file), text).unwrap();
        expect_exit(&program.run(&["issue", file]).await, code);
    }
    let config = configuration(directory.path(), &[(&former, &[])], "");
    let killed = program.clone().with("EMBOSSER_KILL_AT", "batch_written:1");
    let served = Served::start(&killed, &["--config", &config]);
    let start = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)).to_string();
    // One more row than were issued under this name, which waits.
    let more = format!("{CARDS}4,ich_1,virtual,eur\n");
    served.upload(&format!("/v1/batches?name=staff&start={start}"), more.into_bytes()).await.expect(202);
    // All of its rows were refused, and are about to be tried again.
    let _ = served.try_ask(Method::POST, "/v1/batches?name=changes", &CSV, CHANGES.into()).await;
    let (code, log) = served.ended().await;
    assert_eq!(code, None, "it was killed: {log}");

    let config = configuration(directory.path(), &[(&receiver, &[])], "");
    let served = Served::start(&program, &["--config", &config]);
    // One that cannot be told as checked does not begin, and is not kept alive by the server that lives on.
    let ledger = directory.path().join("embosser/embosser.db");
    refuse(&ledger, "BEFORE INSERT ON metadata WHEN NEW.name LIKE 'webhook:%'");
    let csv = b"row_id,cardholder,type,currency\n1,ich_9,virtual,eur\n".to_vec();
    assert!(served.upload("/v1/batches?name=never", csv).await.status.is_server_error());
    rusqlite::Connection::open(&ledger).unwrap().execute_batch("DROP TRIGGER refuses").unwrap();

    for (batch, issued, waiting, reason) in
        [("staff", 3, 1, "it never began"), ("changes", 0, 2, "is gone"), ("never", 0, 1, "it never began")]
    {
        let event = end_of(&receiver, batch).await;
        let told = &event["data"]["object"];
        assert_eq!(
            (&event["type"], &told["state"]),
            (&json!("batch.stopped"), &json!("interrupted")),
            "{told}"
        );
        assert_eq!(
            (&told["issued"], &told["refused"], &told["waiting"]),
            (&json!(issued), &json!(0), &json!(waiting)),
            "{told}"
        );
        assert!(told["reason"].as_str().unwrap().contains(reason), "{told}");
    }
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(receiver.told().len(), 3, "{:?}", kinds(&receiver.told()));

    // What the former address is still owed is told, as it was not delivered.
    let delivered = program.run(&["webhooks", "--deliver", "--config", &config]).await;
    expect_exit(&delivered, 3);
    let said = stderr(&delivered);
    assert!(said.contains("does not have the address any more (127.0.0.1:"), "{said}");
    assert!(!said.contains("of_the_address"), "{said}");
}

/// A ledger that can be read and takes no note of a try is asked again after a while, and not at once.
#[tokio::test]
async fn a_ledger_that_takes_no_note_is_not_asked_without_a_pause() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    let program = Program::new(directory.path(), &sandbox);
    std::fs::write(directory.path().join("staff.csv"), CARDS).unwrap();
    expect_exit(&program.run(&["issue", "staff.csv"]).await, 0);
    let ledger = directory.path().join("embosser/embosser.db");
    refuse(&ledger, "BEFORE UPDATE ON metadata WHEN NEW.name LIKE 'webhook:%'");
    let config = configuration(directory.path(), &[(&receiver, &["batch.finished"])], "");
    let output = program.run(&["issue", "staff.csv", "--config", &config]).await;
    expect_exit(&output, 0);
    let said = stderr(&output);
    assert!(said.contains("1 event could not be told to webhooks yet"), "{said}");
    // It tries for ten seconds.
    let tries = said.matches("cannot be written down").count();
    assert!((2..=20).contains(&tries), "{tries} tries");
    assert_eq!(receiver.tries().len(), 0, "nothing is posted that nobody has claimed");
}

/// What is in the queue is the worker's, also where its batch was let go as there was none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_let_go_is_told_as_finished_once_it_is() {
    let scene = Scene::with(Options::default()).await;
    let receiver = Receiver::start().await;
    let config =
        configuration(scene.directory.path(), &[(&receiver, &["batch.finished", "batch.stopped"])], "");
    scene.manifest(10).await;
    let server = scene.program().with("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test").with("STRIPE_API_KEY", "");
    let served = Served::start(&server, &["--config", &config]);
    served.upload_file(&scene.directory.path().join("cards.csv")).await.expect(202);
    // Cancelled before, it would be called off.
    until_handed_to_worker(scene.directory.path()).await;
    served.post("/v1/batches/cards/cancel").await.expect(200);
    served.until("cards", |view| view["state"] == "interrupted").await;
    let worker = scene.worker("100");
    let finished = receiver.has("batch.finished").await.batch();
    assert_eq!((&finished["issued"], &finished["waiting"]), (&json!(10), &json!(0)), "{finished}");
    assert_eq!(kinds(&receiver.told()), ["batch.finished"]);
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// What had not begun of a batch that is cancelled was refused by nobody, and is told apart.
#[tokio::test]
async fn a_batch_that_is_cancelled_is_told_with_how_many_rows_that_were() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let receiver = Receiver::start().await;
    let config = configuration(directory.path(), &[(&receiver, &["batch.finished"])], "");
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 100).await;
    let served =
        Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "20", "--config", &config]);
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(3)).await;
    served.post("/v1/batches/staff/cancel").await.expect(200);
    let view = served.until_ended("staff").await;
    let told = receiver.has("batch.finished").await.batch();
    assert_eq!((&told["state"], &told["rows"]), (&json!("cancelled"), &json!(100)), "{told}");
    assert!(told["cancelled_rows"].as_u64() > Some(0), "{told}");
    for count in ["issued", "refused", "cancelled_rows", "waiting"] {
        assert_eq!(told[count], view[count], "{count}: {told} {view}");
    }
}
