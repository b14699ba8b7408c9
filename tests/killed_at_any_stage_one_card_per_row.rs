//! Promise: whatever moment the process is killed at, running it again makes exactly one card per row.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options, Sandbox};
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
