//! Promise: whichever signal tells a command to stop, calls in flight end and the results are complete; and a SIGHUP
//! ends neither a server, which reads its tokens anew, nor a worker.

use crate::support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use support::scene::Scene;
use support::serve::Served;
use support::{Program, expect_exit, one_card_each, write_manifest};

const WAIT_MAX: Duration = Duration::from_secs(60);

async fn cards(sandbox: &Sandbox, at_least: usize) {
    let began = Instant::now();
    while sandbox.account().cards.len() < at_least {
        assert!(began.elapsed() < WAIT_MAX, "{} cards", sandbox.account().cards.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Fails unless the results name every card that was made.
fn every_card_is_told(directory: &Path, sandbox: &Sandbox) {
    let mut reader = csv::Reader::from_path(directory.join("cards.results.csv")).unwrap();
    let told: Vec<String> = reader.records().map(|row| row.unwrap()[4].to_owned()).collect();
    for card in sandbox.account().cards {
        assert!(told.contains(&card.id), "{} is not told", card.id);
    }
    assert!(!std::fs::read_dir(directory).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().ends_with(".partial")
    }));
}

async fn slow_sandbox() -> Sandbox {
    let latency = Duration::from_millis(200);
    Sandbox::start(Options { latency, ..Options::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_signal_stops_issue_its_calls_end_and_its_results_are_complete() {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let (sandbox, directory) = (slow_sandbox().await, tempfile::tempdir().unwrap());
        let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 100).await;
        let program = Program::new(directory.path(), &sandbox);
        // Slow enough that it is far from its end when the signal comes, on a busy machine too.
        let running = program.spawn(&["issue", "cards.csv", "--rate", "15"]);
        cards(&sandbox, 15).await;
        running.signal(signal);
        if signal == Signal::TERM {
            // Whoever ends a session sends this one right after.
            running.signal(Signal::HUP);
        }
        let output = running.ended().await;
        expect_exit(&output, 3);
        assert!(sandbox.account().cards.len() < 100, "{signal:?} stopped nothing");
        every_card_is_told(directory.path(), &sandbox);
        expect_exit(&program.run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
        one_card_each(&sandbox.account(), &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_issue_at_once() {
    let latency = Duration::from_secs(20);
    let sandbox = Sandbox::start(Options { latency, ..Options::default() }).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    // Rows without a PIN: only the create call is slow then.
    let rows: String = (0..20).map(|row| format!("r{row},ich_1,virtual,eur\n")).collect();
    std::fs::write(directory.path().join("cards.csv"), format!("row_id,cardholder,type,currency\n{rows}"))
        .unwrap();
    let running = Program::new(directory.path(), &sandbox).spawn(&["issue", "cards.csv", "--rate", "100"]);
    let began = Instant::now();
    while sandbox.account().creates == 0 {
        assert!(began.elapsed() < WAIT_MAX, "no call");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.signal(Signal::TERM);
    // Signals of one kind that come together are one.
    tokio::time::sleep(Duration::from_millis(200)).await;
    running.signal(Signal::INT);
    let asked = Instant::now();
    expect_exit(&running.ended().await, 3);
    assert!(asked.elapsed() < Duration::from_secs(10), "it waited for its calls");
}

/// A run whose terminal goes away, and nobody reads what it says any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_gone_ends_issue_in_order_and_under_nohup_not_at_all() {
    for (nohup, code) in [(false, 3), (true, 0)] {
        let (sandbox, directory) = (slow_sandbox().await, tempfile::tempdir().unwrap());
        let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 60).await;
        let trap = if nohup { "trap '' HUP; " } else { "" };
        let mut child = Command::new("sh")
            .args(["-c", &format!("{trap}exec \"$0\" issue cards.csv --rate 15")])
            .arg(env!("CARGO_BIN_EXE_embosser"))
            .current_dir(directory.path())
            .envs(Program::new(directory.path(), &sandbox).environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        cards(&sandbox, 10).await;
        drop((child.stdout.take(), child.stderr.take()));
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        expect_exit(&Output { status, stdout: Vec::new(), stderr: Vec::new() }, code);
        every_card_is_told(directory.path(), &sandbox);
        if nohup {
            one_card_each(&sandbox.account(), &expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_results_of_a_run_that_is_stopped_tell_no_less_than_those_before() {
    let (sandbox, directory) = (slow_sandbox().await, tempfile::tempdir().unwrap());
    let manifest = directory.path().join("cards.csv");
    let program = Program::new(directory.path(), &sandbox);
    write_manifest(&manifest, &sandbox, 20).await;
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "100"]).await, 0);
    // Those that have their cards come last now: the second run is stopped before it comes to them.
    let expected = write_manifest(&manifest, &sandbox, 300).await;
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].reverse();
    std::fs::write(&manifest, lines.join("\n")).unwrap();
    let running = program.spawn(&["issue", "cards.csv", "--rate", "100"]);
    cards(&sandbox, 20 + 10).await;
    running.signal(Signal::TERM);
    expect_exit(&running.ended().await, 3);
    assert!(sandbox.account().cards.len() < 250);
    every_card_is_told(directory.path(), &sandbox);
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "1000"]).await, 0);
    every_card_is_told(directory.path(), &sandbox);
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_makes_the_server_read_its_tokens_anew_and_ends_nothing() {
    let (sandbox, directory) = (slow_sandbox().await, tempfile::tempdir().unwrap());
    let program = Program::new(directory.path(), &sandbox);
    let token = async |name: &str| {
        let output = program.run(&["token", name, "--role", "read"]).await;
        let line = String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned();
        (String::from_utf8(output.stdout).unwrap().trim().to_owned(), line)
    };
    let (first, second) = (token("first").await, token("second").await);
    let file = directory.path().join("tokens");
    std::fs::write(&file, &first.1).unwrap();
    let program =
        Program::new(directory.path(), &sandbox).with("EMBOSSER__HTTP__TOKENS_FILE", file.to_str().unwrap());
    let served = Served::start(&program, &[]);
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let answer = served.ask(Method::GET, "/v1/batches", &[("authorization", &bearer)], Vec::new()).await;
        answer.status.as_u16()
    };
    let hang_up = || kill_process(Pid::from_raw(served.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    let until = async |token: &str, wanted: u16| {
        let began = Instant::now();
        while status(token).await != wanted {
            assert!(began.elapsed() < WAIT_MAX, "never {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!((status(&first.0).await, status(&second.0).await), (200, 401));
    std::fs::write(&file, &second.1).unwrap();
    hang_up();
    until(&second.0, 200).await;
    assert_eq!(status(&first.0).await, 401, "a token that was taken out opens nothing");
    // A file that cannot be used changes nothing.
    std::fs::write(&file, "second read\n").unwrap();
    hang_up();
    for _ in 0..20 {
        assert_eq!(status(&second.0).await, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (code, log) = served.stopped().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the tokens stay as they were") && log.contains("line 1"), "{log}");
    assert!(!log.contains(&first.0) && !log.contains(&second.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_up_ends_no_worker() {
    let scene = Scene::with(Options::default()).await;
    let expected = scene.manifest(60).await;
    let worker = scene.worker("50");
    let following = scene.program().spawn(&["submit", "cards.csv", "--wait"]);
    scene.cards(10).await;
    worker.signal(Signal::HUP);
    expect_exit(&following.ended().await, 0);
    one_card_each(&scene.sandbox.account(), &expected);
    worker.signal(Signal::TERM);
    let output = worker.ended().await;
    expect_exit(&output, 0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("SIGHUP"));
}

/// Looking for cards is many calls: it need not come to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_looks_through_many_pages_of_cards_stops_between_two() {
    let (sandbox, directory) =
        (Sandbox::start(Options::default()).await.unwrap(), tempfile::tempdir().unwrap());
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 7).await;
    for cardholder in 0..7 {
        // At this rate these are pages for more than a minute.
        sandbox.stock(&format!("ich_{cardholder:02}"), 5_000);
    }
    let stocked = sandbox.counts().cards;
    let program = Program::new(directory.path(), &sandbox);
    let running = program.spawn(&["issue", "cards.csv", "--rate", "5", "--reconcile-first"]);
    let lists = || sandbox.requests().iter().filter(|seen| seen.path == "/v1/issuing/cards").count();
    let began = Instant::now();
    while lists() < 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} lists", lists());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.signal(Signal::TERM);
    let told = Instant::now();
    let output = running.ended().await;
    expect_exit(&output, 3);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert_eq!(sandbox.counts().cards, stocked, "what was not looked for to the end is not made");
}
