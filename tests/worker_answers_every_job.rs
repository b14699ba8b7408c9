//! Promise: whatever is published to the jobs queue is answered, with one card per job, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use embosser::sandbox::{Options, Sandbox};
use support::rabbit::Rabbit;
use support::{Program, expect_exit, one_card_each, write_manifest};

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_manifest_is_issued_and_followed_to_its_end() {
    let rabbit = Rabbit::start().await;
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 60).await;
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__RABBITMQ__URL", &rabbit.url())
        .with("EMBOSSER__HTTP__LISTEN", "127.0.0.1:0");
    let worker = program.spawn(&["worker", "--rate", "100"]);
    let submitted = program.run(&["submit", "cards.csv", "--wait"]).await;
    expect_exit(&submitted, 0);
    one_card_each(&sandbox.account(), &expected);
    let told = std::fs::read_to_string(directory.path().join("cards.results.csv")).unwrap();
    assert_eq!(told.lines().count(), 61);
    worker.signal(rustix::process::Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}
