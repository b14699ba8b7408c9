//! Promise: whatever moment the process is killed at, running it again makes exactly one card per row.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options, Sandbox};
use serde_json::json;
use support::serve::Served;
use support::{Program, expect_exit, one_card_each, was_killed, write_manifest};

/// Every boundary between two stages, as `src/line` passes them.
const PLACES: [&str; 5] = ["paced", "verified", "begun", "answered", "recorded"];

const ISSUE: [&str; 4] = ["issue", "cards.csv", "--rate", "400"];

/// Kills the process at a boundary, in the first, a middle and the last job; then runs it to its end.
async fn killed_at(place: &str) {
    const ROWS: usize = 24;
    for pass_number in [1, ROWS / 2, ROWS - ROWS / 5] {
        let sandbox = Sandbox::start(Options { latency: Duration::from_millis(5), ..Options::default() });
        let sandbox = sandbox.await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, ROWS).await;
        let program = Program::new(directory.path(), &sandbox);
        let killer = Program::new(directory.path(), &sandbox)
            .with("EMBOSSER_KILL_AT", &format!("{place}:{pass_number}"));
        let killed = killer.run(&ISSUE).await;
        assert!(was_killed(&killed), "{place}:{pass_number} was not passed: {killed:?}");
        assert!(sandbox.account().cards.len() < ROWS || place != "paced");
        // Killed a second time, resuming, at the same boundary: recovery is a crash's favourite moment.
        let again = Program::new(directory.path(), &sandbox).with("EMBOSSER_KILL_AT", &format!("{place}:1"));
        again.run(&ISSUE).await;
        expect_exit(&program.run(&ISSUE).await, 0);
        one_card_each(&sandbox.account(), &expected);
        // A finished manifest makes no call at all.
        let creates = sandbox.account().creates;
        expect_exit(&program.run(&ISSUE).await, 0);
        assert_eq!(sandbox.account().creates, creates, "a finished manifest was called for again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_with_a_permits_turn_in_hand() {
    killed_at(PLACES[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_pin_was_verified() {
    killed_at(PLACES[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_attempt_was_recorded() {
    killed_at(PLACES[2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_answer_came() {
    killed_at(PLACES[3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_outcome_was_recorded() {
    killed_at(PLACES[4]).await;
}

/// Every fault at once, kills at random moments, and PINs encrypted anew before each run, so that no retry can
/// be told from another request by its body.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_under_every_fault_with_pins_encrypted_anew() {
    const ROWS: usize = 60;
    let faults = Faults {
        error_before: 0.2,
        error_after: 0.2,
        drop_before: 0.2,
        drop_after: 0.2,
        conflict: 0.2,
        html: 0.2,
        lock_timeout: 0.2,
        half_body: 0.2,
        empty: 0.2,
        delay: 0.2,
        // The key's own fault has tests of its own: it makes PINs stale, which are then rightly refused.
        rotate: 0.0,
        // Lists have a test of their own, too.
        ..Faults::default()
    };
    let latency = Duration::from_millis(30);
    let sandbox = Sandbox::start(Options {
        latency,
        faults,
        seed: 7,
        delay: Duration::from_millis(300),
        ..Options::default()
    })
    .await
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let manifest = directory.path().join("cards.csv");
    let program = Program::new(directory.path(), &sandbox);
    for run in 0..6_u64 {
        write_manifest(&manifest, &sandbox, ROWS).await;
        let running = program.spawn(&["issue", "cards.csv", "--rate", "100"]);
        tokio::time::sleep(Duration::from_millis(250 + 170 * run)).await;
        running.killed().await;
    }
    let expected = write_manifest(&manifest, &sandbox, ROWS).await;
    let mut runs = 0;
    loop {
        let output = program.run(&["issue", "cards.csv", "--rate", "100"]).await;
        runs += 1;
        if output.status.code() == Some(0) {
            break;
        }
        assert!(output.status.code() == Some(3) && runs < 5, "{output:?}");
        write_manifest(&manifest, &sandbox, ROWS).await;
    }
    one_card_each(&sandbox.account(), &expected);
}

/// Whoever has only the ledger learns how each row ended that was cut off: what is at Stripe is told, and of the rest it becomes
/// certain that nothing is there. Nothing is made by that, and the file gives the others their cards.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_file_a_command_finds_out_how_rows_ended_that_were_cut_off() {
    let sandbox = Sandbox::start(Options { latency: Duration::from_millis(50), ..Options::default() });
    let sandbox = sandbox.await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let accounts =
        "[accounts]\nlist = [{ id = \"acct_A\", mode = \"test\" }, { id = \"acct_B\", mode = \"test\" }]\n";
    std::fs::write(directory.path().join("accounts.toml"), accounts).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let of_a = async |program: &Program, arguments: &[&str]| {
        let account = ["--config", "accounts.toml"];
        program.run(&[&account, arguments, &["--account", "acct_A"]].concat()).await
    };
    // A call that was answered and not recorded has its card; a row that was recorded and not called for has none.
    let mut expected = std::collections::BTreeMap::new();
    for (batch, place) in [("found", "answered:15"), ("absent", "begun:15")] {
        let file = format!("{batch}.csv");
        let path = directory.path().join(&file);
        let rows = write_manifest(&path, &sandbox, 60).await;
        // Other people in each, so that none is known from before.
        let text = std::fs::read_to_string(&path).unwrap().replace(",ich_", &format!(",ich_{batch}_"));
        std::fs::write(&path, text).unwrap();
        expected.extend(rows);
        let killer = program.clone().with("EMBOSSER_KILL_AT", place);
        let issue = ["issue", &file, "--rate", "300"];
        assert!(was_killed(&of_a(&killer, &issue).await), "{place}");
        let made = sandbox.account().creates;
        let settled = of_a(&program, &["settle", batch]).await;
        // All have ended, some perhaps without a card.
        let said = String::from_utf8_lossy(&settled.stdout).into_owned();
        let (found, rest) = said.split_once(" found at Stripe, ").unwrap_or_else(|| panic!("{settled:?}"));
        let (absent, rest) = rest.split_once(" of which Stripe has nothing, ").unwrap();
        assert!(rest.starts_with("0 not known yet"), "{said}");
        let (found, absent): (u64, u64) = (found.parse().unwrap(), absent.parse().unwrap());
        assert!(if batch == "found" { found > 0 } else { absent > 0 }, "{said}");
        expect_exit(&settled, i32::from(absent > 0));
        assert_eq!(sandbox.account().creates, made, "looking makes nothing");
        // The ledger tells the same: each card that is at Stripe, and each row without one.
        let status = program.run(&["status", batch, "--format", "json"]).await;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let cards = sandbox.account().cards;
        let cards = cards.iter().filter(|card| card.job.as_ref().is_some_and(|job| job.starts_with(batch)));
        let counts = ["issued", "refused", "unresolved"].map(|count| status[0][count].as_u64().unwrap());
        assert_eq!(counts, [cards.count() as u64, absent, 0], "{status}");
        // There is nothing left to find out.
        let again = of_a(&program, &["settle", batch]).await;
        expect_exit(&again, 0);
        assert!(String::from_utf8_lossy(&again.stdout).contains("is known"), "{again:?}");
    }

    // It is the batch of one account, and of no other.
    let config = ["--config", "accounts.toml", "settle", "found"];
    let refused = [
        (program.run(&config).await, "say which one with --account: acct_A, acct_B"),
        (program.run(&[&config[..], &["--account", "acct_B"]].concat()).await, "is of another account"),
        (of_a(&program, &["settle", "nowhere"]).await, "the ledger has no batch \"nowhere\""),
    ];
    for (output, reason) in refused {
        expect_exit(&output, 2);
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
    }

    // Jobs that came one by one are left to whoever sent them.
    let served = Served::start(&program, &[]);
    let job = json!({"id": "single", "batch": "single", "card": {"cardholder": "ich_single", "type": "virtual", "currency": "eur"}});
    let headers = [("content-type", "application/json")];
    served.ask(reqwest::Method::POST, "/v1/jobs", &headers, job.to_string().into()).await.expect(202);
    served.until_job("single").await;
    assert_eq!(served.stopped().await.0, Some(0));
    let single = program.run(&["settle", "single"]).await;
    expect_exit(&single, 2);
    assert!(String::from_utf8_lossy(&single.stderr).contains("come again by themselves"), "{single:?}");
    expected.insert("single".to_owned(), None);

    for batch in ["found", "absent"] {
        expect_exit(&of_a(&program, &["issue", &format!("{batch}.csv"), "--rate", "300"]).await, 0);
    }
    one_card_each(&sandbox.account(), &expected);
}
