//! Promise: a PIN key endpoint that does not answer holds up jobs with a PIN and no others, and whatever host does not
//! answer, the log names it and says why.

use crate::support;

use std::path::Path;
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use rustix::process::Signal;
use support::{Program, write_manifest};

/// Longest that anything here may take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(90);

/// Few enough that all are taken at once: rows wait behind those in hand, whatever these wait for.
const ROWS: usize = 40;

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < WAIT_MAX, "not within {WAIT_MAX:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `embosser issue` with its log in a file.
fn issue(program: &Program, log: &Path) -> std::process::Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_embosser"))
        .args(["issue", "sent.csv", "--rate", "50"])
        .current_dir(&program.directory)
        .env_remove("RUST_LOG")
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(log).unwrap())
        .spawn()
        .unwrap()
}

async fn interrupted(mut child: std::process::Child) {
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    until("its end", || child.try_wait().unwrap().is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_key_endpoint_holds_up_only_jobs_with_a_pin() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("sent.csv"), &sandbox, ROWS).await;
    let host = format!("127.0.0.1:{}", support::free_port());
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__STRIPE__KEY_URL", &format!("http://{host}/v1/keys"))
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.02");
    let log = directory.path().join("log");
    let child = issue(&program, &log);
    let without_pin = expected.values().filter(|pin| pin.is_none()).count();
    until("a card for each job without a PIN", || sandbox.account().cards.len() >= without_pin).await;
    let said = || std::fs::read_to_string(&log).unwrap();
    let named = format!("Stripe's PIN key endpoint {host} does not answer: cannot connect: ");
    until("host and cause in the log", || said().contains(&named)).await;
    assert!(said().contains("jobs with a PIN wait"), "{}", said());
    interrupted(child).await;
    assert_eq!(sandbox.account().cards.len(), without_pin);
    let api = sandbox.api_url();
    let api = api.trim_start_matches("http://");
    assert!(!said().contains(&format!("\"{api} does not answer")), "Stripe's API does: {}", said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_api_is_named_with_its_cause() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_manifest(&directory.path().join("sent.csv"), &sandbox, 50).await;
    let host = format!("127.0.0.1:{}", support::free_port());
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__STRIPE__API_URL", &format!("http://{host}"))
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.02");
    let log = directory.path().join("log");
    let child = issue(&program, &log);
    let said = || std::fs::read_to_string(&log).unwrap();
    let named = format!("\"{host} does not answer: cannot connect: ");
    until("host and cause in the log", || said().contains(&named)).await;
    interrupted(child).await;
    assert!(!said().contains("PIN key endpoint"), "the key endpoint does answer: {}", said());
}
