//! Promise: a manifest that changes while it is being issued gives nobody another's PIN: rows that were read before are
//! finished and told, nothing after them is issued. What comes from standard input is issued as any file.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use support::scene::Scene;
use support::{Expected, Program, expect_exit, one_card_each, write_manifest};

/// Several pieces of 64 KiB, and more rows than are read ahead.
const ROWS: usize = 600;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The same bytes in place, but for the rows' names, of which each is the next row's now: every PIN is another's.
fn save_over(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let mut lines: Vec<(&str, &str)> = rows.lines().map(|line| line.split_once(',').unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    for (at, line) in lines.iter_mut().enumerate() {
        line.0 = names[(at + 1) % names.len()];
    }
    let rows: Vec<String> = lines.iter().map(|(name, rest)| format!("{name},{rest}\n")).collect();
    std::fs::write(file, format!("{header}\n{}", rows.concat())).unwrap();
}

fn every_card_has_its_own_pin(sandbox: &Sandbox, expected: &Expected) {
    for card in sandbox.account().cards {
        assert_eq!(expected[card.job.as_ref().unwrap()], card.pin, "{:?} has another's PIN", card.job);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_saved_over_while_it_is_issued_gives_nobody_anothers_pin() {
    let (sandbox, directory) =
        (Sandbox::start(Options::default()).await.unwrap(), tempfile::tempdir().unwrap());
    let file = directory.path().join("cards.csv");
    let expected = write_manifest(&file, &sandbox, ROWS).await;
    let checked = std::fs::read(&file).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let running = program.spawn(&["issue", "cards.csv", "--rate", "60"]);
    let began = Instant::now();
    while sandbox.account().cards.len() < 10 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    save_over(&file);
    let output = running.ended().await;
    expect_exit(&output, 3);
    assert!(said(&output).contains("the file changed since it was checked"), "{}", said(&output));
    let made = sandbox.account().cards.len();
    assert!((10..ROWS).contains(&made), "{made} cards");
    every_card_has_its_own_pin(&sandbox, &expected);
    let mut results = csv::Reader::from_path(directory.path().join("cards.results.csv")).unwrap();
    let told: Vec<_> = results.records().map(Result::unwrap).collect();
    assert_eq!(told.len(), made, "what was read is finished and told, and nothing else");
    assert!(told.iter().all(|row| &row[3] == "issued"));
    // The file as it was goes on where it stopped.
    std::fs::write(&file, checked).unwrap();
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "600"]).await, 0);
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_issued_as_a_file_under_the_name_that_it_is_given() {
    let (sandbox, directory) =
        (Sandbox::start(Options::default()).await.unwrap(), tempfile::tempdir().unwrap());
    let file = directory.path().join("cards.csv");
    let expected = write_manifest(&file, &sandbox, 300).await;
    let issue = async |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
        command.args(["issue", "-", "--rate", "600"]).args(more).current_dir(directory.path());
        command.envs(Program::new(directory.path(), &sandbox).environment);
        command.stdin(std::fs::File::open(&file).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
    };
    let nameless = issue(&[]).await;
    expect_exit(&nameless, 2);
    assert!(said(&nameless).contains("--batch NAME"), "{}", said(&nameless));
    expect_exit(&issue(&["--batch", "cards"]).await, 0);
    one_card_each(&sandbox.account(), &expected);
    assert!(directory.path().join("cards.results.csv").exists());
    // And it is the same batch as the file.
    expect_exit(&Program::new(directory.path(), &sandbox).run(&["issue", "cards.csv"]).await, 0);
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_saved_over_while_it_is_published_gives_nobody_anothers_pin() {
    /// So few fit into the queue that the file is not read to its end before it changes.
    const QUEUED_MAX: &str = "50";
    let scene = Scene::with(Options::default()).await;
    let expected = scene.manifest(ROWS).await;
    let file = scene.directory.path().join("cards.csv");
    let program = || scene.program().with("EMBOSSER__RABBITMQ__JOBS_MAX", QUEUED_MAX);
    let submitting = program().spawn(&["submit", "cards.csv", "--wait"]);
    let began = Instant::now();
    while scene.messages("embosser.jobs").await.unwrap_or(0) < 50 {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    save_over(&file);
    let worker = program().spawn(&["worker", "--rate", "300"]);
    let output = submitting.ended().await;
    expect_exit(&output, 3);
    assert!(said(&output).contains("the file changed since it was checked"), "{}", said(&output));
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
    let made = scene.sandbox.account().cards.len();
    assert!((50..ROWS).contains(&made), "{made} cards");
    every_card_has_its_own_pin(&scene.sandbox, &expected);
    let mut results = csv::Reader::from_path(scene.directory.path().join("cards.results.csv")).unwrap();
    assert_eq!(results.records().count(), made, "what was published is followed to its end");
}
