//! Promise: whatever is killed, the same file again gives one card per row.

use crate::support;

use std::io::Write as _;
use std::time::Duration;

use embosser::sandbox::{Options, Sandbox};
use serde_json::json;
use support::serve::Served;
use support::{Program, one_card_each, write_manifest};

#[tokio::test]
async fn killed_in_the_middle_of_an_upload_nothing_was_issued_or_written() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let file = directory.path().join("staff.csv");
    let expected = write_manifest(&file, &sandbox, 200).await;
    let csv = std::fs::read(&file).unwrap();
    let served = Served::start(&program, &["--rate", "400"]);
    let mut connection = std::net::TcpStream::connect(served.address()).unwrap();
    let head = format!(
        "POST /v1/batches?name=staff HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n",
        served.address(),
        csv.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&csv[..csv.len() - 10]).unwrap();
    connection.flush().unwrap();
    // All but its last bytes have come; it waits for them.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(served.get("/v1/batches").await.expect(200).json()["total"], 0);
    served.killed();
    assert_eq!(sandbox.account().creates, 0);
    // There is the manifest, and the folder of the ledger with its database and nothing else.
    let files_of = |folder: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let others =
        files_of(directory.path()).into_iter().filter(|name| name != "staff.csv" && name != "embosser");
    let of_ledger = files_of(&directory.path().join("embosser"));
    let others: Vec<_> =
        others.chain(of_ledger.into_iter().filter(|name| !name.starts_with("embosser.db"))).collect();
    assert!(others.is_empty(), "{others:?}");

    let served = Served::start(&program, &["--rate", "400"]);
    assert_eq!(served.get("/v1/batches").await.expect(200).json()["total"], 0);
    // A connection that is cut, with the length promised, is no upload either.
    let mut connection = std::net::TcpStream::connect(served.address()).unwrap();
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&csv[..csv.len() / 2]).unwrap();
    drop(connection);
    served.upload_file(&file).await.expect(202);
    served.until_ended("staff").await;
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test]
async fn killed_in_the_middle_of_a_batch_it_shows_as_interrupted_and_the_same_file_finishes_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { latency: Duration::from_millis(50), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let file = directory.path().join("staff.csv");
    let mut expected = write_manifest(&file, &sandbox, 150).await;
    // Between every pair of stages, and once from outside.
    for place in ["paced:9", "verified:9", "begun:20", "answered:20", "recorded:20"] {
        let program = Program::new(directory.path(), &sandbox).with("EMBOSSER_KILL_AT", place);
        let served = Served::start(&program, &["--rate", "300"]);
        // The same rows, their PINs encrypted anew, as a sender would after hours.
        expected = write_manifest(&file, &sandbox, 150).await;
        // It may be killed before it has answered.
        let csv = std::fs::read(&file).unwrap();
        let headers = [("content-type", "text/csv")];
        let _ = served.try_ask(reqwest::Method::POST, "/v1/batches?name=staff", &headers, csv).await;
        let (code, log) = served.ended().await;
        assert_eq!(code, None, "{place}: it was killed: {log}");
    }
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(&program, &["--rate", "50"]);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!((&view["state"], &view["rows"]), (&json!("interrupted"), &json!(150)), "{view}");
    assert!((19..150).contains(&view["issued"].as_u64().unwrap()), "{view}");
    let results = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert!(results.lines().count() > 20);
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(60)).await;
    served.killed();

    let served = Served::start(&program, &["--rate", "300"]);
    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(150)), "{view}");
    one_card_each(&sandbox.account(), &expected);
    // Stopped in good order, it says so too.
    let (code, _) = served.stopped().await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn stopped_in_good_order_calls_under_way_end_and_the_rest_is_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { latency: Duration::from_millis(200), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let file = directory.path().join("staff.csv");
    let expected = write_manifest(&file, &sandbox, 100).await;
    let served = Served::start(&program, &["--rate", "50"]);
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(10)).await;
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    let issued = sandbox.account().cards.len();
    assert!(issued < 100, "{issued}");
    let served = Served::start(&program, &["--rate", "300"]);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!(view["state"], "interrupted");
    assert_eq!((&view["issued"], &view["unresolved"]), (&json!(issued), &json!(0)), "all ends were recorded");
    served.upload_file(&file).await.expect(202);
    served.until_ended("staff").await;
    one_card_each(&sandbox.account(), &expected);
}

/// Whoever has not the file at hand learns how each row ended: what is at Stripe is told, and of the others it becomes certain that
/// nothing is there. Nothing is made by that, and the same file gives the others their cards.
#[tokio::test]
async fn rows_that_were_cut_off_are_found_at_stripe_without_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { latency: Duration::from_millis(50), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    // A call that was answered and not recorded has its card; a row that was recorded and not called for has none.
    let batches = [("found", "answered:15"), ("absent", "begun:15")];
    let mut expected = std::collections::BTreeMap::new();
    for (batch, place) in batches {
        let file = directory.path().join(format!("{batch}.csv"));
        // Other people in each, so that none is known from before.
        let rows = write_manifest(&file, &sandbox, 60).await;
        let text = std::fs::read_to_string(&file).unwrap().replace(",ich_", &format!(",ich_{batch}_"));
        std::fs::write(&file, text).unwrap();
        expected.extend(rows);
        let program = Program::new(directory.path(), &sandbox).with("EMBOSSER_KILL_AT", place);
        let served = Served::start(&program, &["--rate", "300"]);
        let csv = std::fs::read(&file).unwrap();
        let path = format!("/v1/batches?name={batch}");
        let _ = served.try_ask(reqwest::Method::POST, &path, &[("content-type", "text/csv")], csv).await;
        let (code, log) = served.ended().await;
        assert_eq!(code, None, "{place}: it was killed: {log}");
    }
    let program = Program::new(directory.path(), &sandbox);
    let served = Served::start(&program, &["--rate", "300"]);
    for (batch, _) in batches {
        let view = |view: &serde_json::Value| {
            ["issued", "refused", "unresolved"].map(|count| view[count].as_u64().unwrap())
        };
        let before = served.get(&format!("/v1/batches/{batch}")).await.expect(200).json();
        let [issued, refused, unresolved] = view(&before);
        assert!(unresolved > 0 && refused == 0, "{before}");
        let made = sandbox.account().creates;
        let asked = served.post(&format!("/v1/batches/{batch}/settle")).await.expect(202).json();
        assert_eq!((&asked["rows"], &asked["need_file"]), (&json!(unresolved), &json!(0)), "{asked}");
        // One batch at a time. A look that finds everything may be over already.
        if batch == "absent" {
            served.post(&format!("/v1/batches/{batch}/settle")).await.expect(409);
        }
        let after = served.until(batch, |view| view["unresolved"] == 0).await;
        let [found, absent, _] = view(&after);
        assert_eq!(found + absent, issued + unresolved, "{after}");
        assert!(if batch == "found" { found > issued } else { absent > 0 }, "{before} {after}");
        let cards = sandbox.account().cards;
        let of_batch = format!("{batch}/");
        let cards =
            cards.iter().filter(|card| card.job.as_ref().is_some_and(|job| job.starts_with(&of_batch)));
        assert_eq!(cards.count() as u64, found, "each card is told, and no other");
        assert_eq!(sandbox.account().creates, made, "looking makes nothing");
        let refusals = served.get(&format!("/v1/batches/{batch}/refusals")).await.expect(200).json();
        let reasons = refusals["reasons"].as_array().unwrap();
        assert!(reasons.iter().all(|reason| reason["code"] == "cut_off" && reason["takes"] == "nothing"));
        assert_eq!(reasons.is_empty(), absent == 0, "{refusals}");
        // The place is free as soon as its last row is written down.
        let is_free = async || {
            let again = served.post(&format!("/v1/batches/{batch}/settle")).await;
            again.status == 202 && again.json()["rows"] == 0
        };
        for tries in 0.. {
            assert!(tries < 200, "it is never done");
            if is_free().await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let log = served.get("/v1/audit?q=rows_settled").await.expect(200).json();
    assert!(log["entries"].as_array().unwrap().len() >= 2, "{log}");
    for (batch, _) in batches {
        served.upload_file(&directory.path().join(format!("{batch}.csv"))).await.expect(202);
        let view = served.until_ended(batch).await;
        assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(60)), "{view}");
    }
    one_card_each(&sandbox.account(), &expected);
}

/// Whoever watches it learns that it can take nothing before somebody has tried.
#[tokio::test]
async fn a_server_whose_ledger_was_deleted_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let ledger = directory.path().join("cards.db");
    let program =
        Program::new(directory.path(), &sandbox).with("EMBOSSER__LEDGER__URL", &support::sqlite(&ledger));
    let served = Served::start(&program, &[]);
    served.get("/readyz").await.expect(200);
    let away = directory.path().join("away.db");
    std::fs::rename(&ledger, &away).unwrap();
    let answer = served.get("/readyz").await.expect(503);
    assert!(answer.text.contains("was deleted or replaced"), "{}", answer.text);
    std::fs::rename(&away, &ledger).unwrap();
    served.get("/readyz").await.expect(200);
}
