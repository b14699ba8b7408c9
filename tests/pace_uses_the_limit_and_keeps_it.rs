//! Promise: the rate limit is used in full and never exceeded, and where Stripe allows less than configured, what it
//! allows is found and used. Judged at Stripe's end, by a sandbox that limits strictly.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use embosser::sandbox::{Account, Options, Sandbox};
use support::{Program, expect_exit, write_manifest};

struct Run {
    rate: usize,
    /// What the sandbox allows an endpoint in any second.
    allowed: usize,
    seconds: usize,
    latency: Duration,
}

impl Run {
    /// Issues as many rows as the allowed rate takes in the time, and a few; answers the sandbox's account.
    async fn account(&self) -> Account {
        let options = Options {
            endpoint_per_second: Some(self.allowed),
            account_per_second: Some(self.allowed),
            latency: self.latency,
            ..Options::default()
        };
        let sandbox = Sandbox::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let rows = self.allowed * self.seconds;
        write_manifest(&directory.path().join("cards.csv"), &sandbox, rows).await;
        let program = Program::new(directory.path(), &sandbox);
        let output = program.run(&["issue", "cards.csv", "--rate", &self.rate.to_string()]).await;
        expect_exit(&output, 0);
        let account = sandbox.account();
        assert_eq!(account.cards.len(), rows);
        account
    }
}

/// Calls let through between `from` and `to` seconds after the first.
fn between(account: &Account, from: f64, to: f64) -> usize {
    let first = account.arrivals.first().copied().unwrap();
    account.arrivals.iter().filter(|at| (from..to).contains(&(**at - first))).count()
}

async fn full(rate: usize, latency_ms: u64) {
    let run = Run { rate, allowed: rate, seconds: 22, latency: Duration::from_millis(latency_ms) };
    let account = run.account().await;
    let used = between(&account, 1.0, 21.0);
    eprintln!("{rate}/s, {latency_ms} ms: {used} of {} used", rate * 20);
    assert_eq!(account.limited, 0, "a call was turned away at {rate}/s, {latency_ms} ms");
    assert!(used * 100 >= rate * 20 * 99, "{used} of {} at {rate}/s, {latency_ms} ms", rate * 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_25_a_second_99_percent_and_nothing_turned_away() {
    full(25, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_100_a_second_99_percent_and_nothing_turned_away() {
    full(100, 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_25_a_second_with_answers_that_take_a_second() {
    full(25, 1000).await;
}

/// The account allows half of what was configured.
#[tokio::test(flavor = "multi_thread")]
async fn half_the_rate_is_found_within_ten_seconds_and_used() {
    let run = Run { rate: 50, allowed: 25, seconds: 40, latency: Duration::from_millis(100) };
    let account = run.account().await;
    let arrived = account.arrivals.len();
    let limited = usize::try_from(account.limited).unwrap();
    assert!(limited * 50 < arrived, "{limited} of {arrived} calls were turned away");
    let used = between(&account, 10.0, 35.0);
    eprintln!(
        "half: {used} of {} used, {limited} of {arrived} turned away, last at {:?}",
        25 * 25,
        account.arrivals.last()
    );
    assert!(used * 100 >= 25 * 25 * 90, "{used} of {} once it should have settled", 25 * 25);
}
