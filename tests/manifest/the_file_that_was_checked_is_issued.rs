//! Promise: a manifest that changes while it is being issued gives nobody another's PIN: rows that were read before are
//! finished and told, nothing after them is issued; and none that changed since its check. What comes from standard input is issued as any file.

use crate::support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use support::scene::Scene;
use support::serve::Served;
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

/// Nothing is issued that was not looked at, whatever was saved in the file's place since it was checked.
#[tokio::test]
async fn a_file_that_was_changed_since_its_check_is_not_issued() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "100"]);
    let header = "row_id,cardholder,type,currency\n";
    let (good, more) = (format!("{header}a,ich_a,virtual,eur\n"), "b,ich_b,virtual,eur\n");
    let answer = served.upload("/v1/checks", good.clone().into()).await.expect(200).json();
    let seen = answer["file_sha256"].as_str().unwrap().to_owned();
    let path = format!("/v1/batches?name=staff&file_sha256={seen}");
    let refused = served.upload(&path, format!("{good}{more}").into()).await.expect(409).json();
    assert_eq!(refused["code"], "file_changed", "{refused}");
    served.get("/v1/batches/staff").await.expect(404);
    served.upload(&path.replace(&seen, &seen.to_uppercase()), good.clone().into()).await.expect(202);
    served.until_ended("staff").await;
    // Where rows are left out it is known, too.
    let half = format!("{good}b,ich_b,plastic,eur\n");
    let answer = served.upload("/v1/checks", half.clone().into()).await.expect(422).json();
    let seen = answer["plan"]["file_sha256"].as_str().unwrap();
    let path = format!("/v1/batches?name=half&skip_invalid=true&second_cards=true&file_sha256={seen}");
    served.upload(&path, half.replace("ich_a", "ich_c").into()).await.expect(409);
    served.upload(&path, half.into()).await.expect(202);
    served.until_ended("half").await;
    assert_eq!(sandbox.account().creates, 2);
}
