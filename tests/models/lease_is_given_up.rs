//! An account's lease is one process's at a time, is had by whoever may call, and is given up with the last job that needs it.

use std::sync::Arc;
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;
use tokio_util::sync::CancellationToken;

use super::lease::LineLease;
use crate::checker::{Model, Weakness};
use crate::clock::Clock;
use crate::config::PaceConfig;
use crate::ledger::{Ledger, Scope, Table};
use crate::pace::Pace;

pub(crate) const AT_ONCE: Model = Model {
    claim: "an account's lease is one process's at a time, and is given up with its last job",
    run: || jobs(Duration::ZERO),
    weakness: Weakness::LockIsTaken,
};
pub(crate) const WHEN_IDLE: Model = Model {
    claim: "the same where it is kept for a while after the last job",
    run: || jobs(Duration::from_secs(2)),
    weakness: Weakness::NeverWoken,
};

/// Jobs of each process.
const JOBS: [usize; 2] = [2, 1];

fn jobs(idle: Duration) {
    let (table, stop) = (Table::default(), CancellationToken::new());
    let lines: Vec<LineLease> = (1..).take(JOBS.len()).map(|process| line(&table, process, idle)).collect();
    let mut threads = Vec::new();
    for (line, (process, jobs)) in lines.iter().zip((1..).zip(JOBS)) {
        for _ in 0..jobs {
            let (line, table, stop) = (line.clone(), table.clone(), stop.clone());
            threads.push(thread::spawn(move || {
                let used = block_on(line.take(&stop)).expect("nothing stops it");
                for _ in 0..2 {
                    if line.is_surely_ours() {
                        assert_eq!(*table.lock().unwrap(), Some(process), "another process has it");
                    }
                    thread::yield_now();
                    block_on(line.assure(&stop)).expect("nothing stops it");
                    assert_eq!(*table.lock().unwrap(), Some(process), "another process has it");
                }
                drop(used);
            }));
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // Kept for a while at most.
    block_on(crate::time::sleep(3 * idle));
    assert_eq!(*table.lock().unwrap(), None, "nobody needs it, and it is held");
}

fn line(table: &Table, process: u32, idle: Duration) -> LineLease {
    let ledger = Ledger { table: Arc::clone(table), process };
    let scope = Scope::new("test", "model", None);
    let pace = Pace::start(&PaceConfig::default());
    LineLease::new(ledger, scope, Clock::default(), pace, idle)
}
