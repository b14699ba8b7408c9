//! Promise: a batch that is to start at a time begins then, by itself and not before, over HTTP and on the command line; never
//! with PINs that would be too old by then, which is told at once.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::json;
use support::serve::Served;
use support::tokens::people;
use support::{Program, expect_exit, one_card_each, write_manifest};

/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A time that is so far away, as people and addresses write it.
fn in_seconds(seconds: i64) -> (Timestamp, String) {
    let time = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    (time, time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn csv(rows: &[&str]) -> Vec<u8> {
    let lines = rows.iter().map(|row| format!("{row},ich_{row},virtual,eur\n"));
    format!("row_id,cardholder,type,currency\n{}", lines.collect::<String>()).into_bytes()
}

/// Waits until so many cards were asked for; none may be before that time.
async fn cards_not_before(sandbox: &Sandbox, start: Timestamp, wanted: u64) {
    let began = Instant::now();
    while sandbox.account().creates < wanted {
        let (made, now) = (sandbox.account().creates, Timestamp::now());
        // To the second, as the time was written.
        assert!(made == 0 || now.as_second() >= start.as_second(), "{made} cards at {now}, before {start}");
        assert!(began.elapsed() < WAIT_MAX, "it never starts");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_start_that_cannot_be_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__PIN__MAX_AGE_SECONDS", "600");
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 6).await;
    let with_pins = std::fs::read(&file).unwrap();
    std::fs::write(directory.path().join("plain.csv"), csv(&["a"])).unwrap();
    let served = Served::start(&program, &["--rate", "200"]);
    for (start, said) in [
        (in_seconds(-60).1, "is past"),
        (in_seconds(8 * 24 * 3600).1, "more than 7 days"),
        ("tomorrow".to_owned(), "is not a time"),
        ("2026-12-01T05:00+01:00".to_owned(), "%2B"),
    ] {
        let path = format!("/v1/batches?name=plain&start={start}");
        let refused = served.upload(&path, csv(&["a"])).await.expect(400);
        assert!(refused.text.contains(said), "{start}: {}", refused.text);
        let start = start.replace('+', " ");
        let output = program.run(&["issue", "plain.csv", "--start", &start]).await;
        expect_exit(&output, 2);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert!(printed.contains("--start") && printed.contains(said), "{start}: {printed}");
    }
    let (_, too_late) = in_seconds(3600);
    let path = format!("/v1/batches?name=staff&start={too_late}");
    let refused = served.upload(&path, with_pins.clone()).await.expect(422).json();
    assert_eq!(refused["code"], "pins_too_old");
    assert!(refused["detail"].as_str().unwrap().contains("10 minutes"), "{refused}");
    let output = program.run(&["issue", "staff.csv", "--start", &too_late]).await;
    expect_exit(&output, 2);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(printed.contains("it must start by 20") && printed.contains("nothing was issued"), "{printed}");
    served.get("/v1/batches/staff").await.expect(404);
    assert_eq!(sandbox.account().creates, 0);
    // Soon enough.
    let (_, soon) = in_seconds(300);
    served.upload(&format!("/v1/batches?name=staff&start={soon}"), with_pins).await.expect(202);
    assert_eq!(served.get("/v1/batches/staff").await.json()["state"], "scheduled");
}

#[tokio::test]
async fn an_upload_starts_by_itself_at_its_time_and_not_before() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let file = directory.path().join("staff.csv");
    let expected = write_manifest(&file, &sandbox, 12).await;
    let served = Served::start(&program, &["--rate", "200"]);
    let (start, text) = in_seconds(4);
    let path = format!("/v1/batches?name=staff&start={text}");
    let view = served.upload(&path, std::fs::read(&file).unwrap()).await.expect(202).json();
    assert_eq!(
        (&view["state"], &view["held"]["start_ms"]),
        (&json!("scheduled"), &json!(start.as_second() * 1000))
    );
    assert_eq!(view["held"]["submitter"], "this machine");
    cards_not_before(&sandbox, start, 12).await;
    let view = served.until_ended("staff").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(12)));
    one_card_each(&sandbox.account(), &expected);
    let audit = served.get("/v1/audit").await.expect(200).json();
    let deeds: Vec<_> =
        audit["entries"].as_array().unwrap().iter().map(|entry| (&entry["who"], &entry["action"])).collect();
    let wanted =
        [(json!("this server"), json!("batch_begun")), (json!("this machine"), json!("batch_scheduled"))];
    assert_eq!(deeds, wanted.iter().map(|(who, action)| (who, action)).collect::<Vec<_>>());

    // One that is called off never starts; one that is uploaded again without a start begins at once, and only once.
    for (name, row) in [("off", "x"), ("now", "y")] {
        let (_, text) = in_seconds(4);
        served.upload(&format!("/v1/batches?name={name}&start={text}"), csv(&[row])).await.expect(202);
    }
    let off = served.post("/v1/batches/off/cancel").await.expect(200).json();
    assert_eq!(off["state"], "cancelled");
    served.upload("/v1/batches?name=now", csv(&["y"])).await.expect(202);
    assert_eq!(served.until_ended("now").await["issued"], 1);
    let (lost, text) = in_seconds(4);
    served.upload(&format!("/v1/batches?name=lost&start={text}"), csv(&["z"])).await.expect(202);
    served.killed();
    let served = Served::start(&program, &["--rate", "200"]);
    while Timestamp::now() <= lost {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(sandbox.account().creates, 13, "nothing of what was called off, replaced or lost");
    let view = served.get("/v1/batches/lost").await.expect(200).json();
    assert_eq!(view["state"], "interrupted");
    assert!(view["reason"].as_str().unwrap().contains("it waited for its start"), "{view}");
    assert_eq!(served.get("/v1/batches/now").await.expect(200).json()["state"], "finished");
    assert_eq!(served.get("/v1/batches/off").await.expect(200).json()["state"], "cancelled");
}

#[tokio::test]
async fn the_approval_comes_first_and_then_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let people = people(program, &[("clerk", &["submit", "read"]), ("boss", &["approve", "read"])]).await;
    let served = Served::start(&people.program, &["--rate", "200"]);
    let approve = async |name: &str| {
        let view = people.get(&served, "boss", &format!("/v1/batches/{name}")).await.expect(200).json();
        assert_eq!(view["state"], "awaiting_approval");
        let body = json!({"digest": view["held"]["digest"]});
        people.post(&served, "boss", &format!("/v1/batches/{name}/approve"), body).await.expect(200).json()
    };
    let (start, text) = in_seconds(5);
    for (name, row) in [("early", "a"), ("late", "b")] {
        let path = format!("/v1/batches?name={name}&start={text}");
        people.upload(&served, "clerk", &path, &csv(&[row])).await.expect(202);
    }
    let view = approve("early").await;
    assert_eq!((&view["state"], &view["held"]["approved_by"]), (&json!("scheduled"), &json!("boss")));
    cards_not_before(&sandbox, start, 1).await;
    // The other one was not approved by then, and begins once it is.
    let late = people.get(&served, "boss", "/v1/batches/late").await.expect(200).json();
    assert_eq!(late["state"], "awaiting_approval");
    assert_eq!(sandbox.account().creates, 1);
    approve("late").await;
    cards_not_before(&sandbox, start, 2).await;
    let deeds: Vec<_> =
        people.deeds(&served).await.into_iter().map(|(who, _, what)| format!("{who} {what}")).collect();
    let wanted = [
        "clerk batch_held",
        "clerk batch_held",
        "boss batch_approved",
        "this server batch_begun",
        "boss batch_approved",
    ];
    assert_eq!(deeds, wanted);
}

#[tokio::test]
async fn a_run_waits_for_its_start_and_can_be_stopped_before() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let file = directory.path().join("cards.csv");
    let expected = write_manifest(&file, &sandbox, 10).await;
    let (_, far) = in_seconds(600);
    // Told to stop as soon as it says that it waits.
    let waiting = program.spawn(&["issue", "cards.csv", "--start", &far]);
    let began = Instant::now();
    while !has_handler(waiting.pid(), Signal::INT) {
        assert!(began.elapsed() < WAIT_MAX, "it never waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waiting.signal(Signal::INT);
    let output = waiting.ended().await;
    expect_exit(&output, 3);
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(printed.contains("waiting until") && printed.contains("nothing was issued"), "{printed}");
    assert_eq!(sandbox.account().creates, 0);
    let (start, text) = in_seconds(4);
    let run = program.spawn(&["issue", "cards.csv", "--rate", "200", "--start", &text]);
    cards_not_before(&sandbox, start, 10).await;
    expect_exit(&run.ended().await, 0);
    one_card_each(&sandbox.account(), &expected);
}

/// Whether the process listens for a signal, so that it does not just end by it.
fn has_handler(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (signal.as_raw() - 1)) != 0
}
