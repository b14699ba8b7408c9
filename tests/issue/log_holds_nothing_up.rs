//! Promise: whoever reads the log, or does not, it holds no card up.

use crate::support;

use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use support::{one_card_each, write_manifest};

const ROWS: usize = 150;
const PER_SECOND: usize = 50;
/// Longest that the run may take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// A pipe that takes in nothing more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    loop {
        match writer.write(&[b'x'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_log_that_nobody_reads_all_cards_come_at_their_pace() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("sent.csv"), &sandbox, ROWS).await;
    let (_unread, full) = full_pipe();
    let mut child = Command::new(env!("CARGO_BIN_EXE_embosser"))
        .args(["issue", "sent.csv", "--rate", &PER_SECOND.to_string()])
        .current_dir(directory.path())
        .envs([
            ("EMBOSSER__STRIPE__API_URL", sandbox.api_url()),
            ("EMBOSSER__STRIPE__KEY_URL", sandbox.key_url()),
            ("STRIPE_API_KEY", "sk_test_of_the_tests".into()),
            ("RUST_LOG", "trace".into()),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(full)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > WAIT_MAX {
            child.kill().unwrap();
            panic!("it hangs: {} of {ROWS} cards", sandbox.account().cards.len());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success(), "{status}");
    one_card_each(&sandbox.account(), &expected);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let seconds = said.split(" rows in ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let seconds: f64 = seconds.parse().unwrap();
    assert!(seconds < 3.0 * (ROWS / PER_SECOND) as f64, "{said}");
}
