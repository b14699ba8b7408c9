//! A sandbox, a ledger, a clock, and `embosser issue` on them as processes of their own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};

use super::time::WallClock;
use super::{Expected, Program, Running, write_manifest};

/// Longer than a run here may take.
pub const RUN_MAX: Duration = Duration::from_secs(45);

/// The setting of a test.
pub struct Issuing {
    pub sandbox: Sandbox,
    pub directory: tempfile::TempDir,
    pub clock: WallClock,
}

impl Issuing {
    pub async fn with(options: Options) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let clock = WallClock::in_directory(directory.path());
        Self { sandbox, directory, clock }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The address of a ledger in the test's directory.
    pub fn ledger(&self, name: &str) -> String {
        format!("sqlite://{}", self.path(name).display())
    }

    /// The program on the test's ledger and clock. The sandbox's calls and lists are as quick as it says, so that a
    /// look need not wait as long as with Stripe: tests with slow ones say so.
    pub fn program(&self) -> Program {
        let program = Program::new(self.directory.path(), &self.sandbox)
            .with("EMBOSSER__LEDGER__URL", &self.ledger("ledger.db"))
            .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "0.5")
            .with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "0.5")
            .with("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "0.5");
        self.clock.of(program)
    }

    /// `cards.csv` with so many rows, their PINs encrypted now.
    pub async fn manifest(&self, rows: usize) -> Expected {
        write_manifest(&self.path("cards.csv"), &self.sandbox, rows).await
    }

    /// Time passes, at Stripe and by the clock of every process, on top of what the clock was set to.
    pub fn pass(&self, time: Duration, clock_after_seconds: i64) {
        self.sandbox.advance(time);
        self.clock.set(clock_after_seconds);
    }

    /// Waits until it holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Sandbox) -> bool) {
        let began = Instant::now();
        while !holds(&self.sandbox) {
            assert!(began.elapsed() < RUN_MAX, "never came: {what}; {:?}", self.sandbox.counts());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lists that were asked for.
    pub fn lists(&self) -> usize {
        let requests = self.sandbox.requests();
        requests.iter().filter(|seen| seen.method == "GET" && seen.path == "/v1/issuing/cards").count()
    }

    /// Rows of the results file: outcome and card by job.
    pub fn results(&self, name: &str) -> BTreeMap<String, (String, String)> {
        let mut reader = csv::Reader::from_path(self.path(name)).unwrap();
        let mut rows = BTreeMap::new();
        for row in reader.records() {
            let row = row.unwrap();
            let before = rows.insert(row[2].to_owned(), (row[3].to_owned(), row[4].to_owned()));
            assert!(before.is_none(), "{} is listed twice", &row[2]);
        }
        rows
    }

    /// Fails unless the results file has a line for each card that was made, with that card's id, and no other.
    pub fn results_are_true(&self, name: &str) {
        let told = self.results(name);
        let made = self.sandbox.account().cards;
        let made: BTreeMap<_, _> =
            made.into_iter().map(|card| (card.job.unwrap(), ("issued".to_owned(), card.id))).collect();
        assert_eq!(told, made, "left: the results file, right: the cards that were made");
    }
}

/// `embosser issue cards.csv --rate N`
pub fn issue(program: &Program, rate: &str, more: &[&str]) -> Running {
    program.spawn(&[&["issue", "cards.csv", "--rate", rate], more].concat())
}

/// Waits for a run's end, within bounds.
pub async fn ended(running: Running) -> Output {
    ended_within(running, RUN_MAX).await
}

/// Waits for a run's end; one that does not end by itself is killed and fails the test.
pub async fn ended_within(running: Running, time: Duration) -> Output {
    let pid = rustix::process::Pid::from_raw(i32::try_from(running.pid()).unwrap()).unwrap();
    let waited = running.ended();
    tokio::pin!(waited);
    match tokio::time::timeout(time, &mut waited).await {
        Ok(output) => output,
        Err(_) => {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("it does not end within {time:?}: {}", said(&waited.await));
        }
    }
}

/// What a run printed.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until a process was stopped by a signal.
pub async fn stopped(running: &Running) {
    let began = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
        let state = stat.rsplit(')').next().unwrap().trim_start().chars().next();
        if state == Some('T') {
            return;
        }
        assert!(began.elapsed() < RUN_MAX, "it was never stopped: {stat}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
