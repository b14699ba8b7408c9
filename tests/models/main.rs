//! Promise: whoever waits for a lock, a turn or a host that is away is woken, in whichever order threads run.
//!
//! The parts of embosser that lock and wake are compiled here a second time, from the same files, with the locks, threads and time of
//! the model checker `shuttle` in place of the machine's; it runs them in many orders, and fails where all wait for each other. Time
//! stands still while anybody can run. That it would find a wake-up that is missed is shown by primitives that miss one on purpose.
//!
//! What has no model, and why, stands in docs/simulation.md.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    dead_code,
    missing_docs,
    unfulfilled_lint_expectations,
    unreachable_pub,
    unused_imports,
    reason = "the files are embosser's: not all of each is used here, and their unit tests run elsewhere"
)]

// Those files say `tokio::time` and `tokio::sync` and find this crate's modules.
extern crate self as tokio;
extern crate tokio as real_tokio;

mod checker;
mod job_locks_hand_on;
mod ledger;
mod line;
mod locks;
mod pace_wakes;
mod simulation;
pub mod sync;
pub mod time;

use embosser::{backoff, clock, config, job};
use line::{lease_is_given_up, refusals_wake};
use real_tokio::{join, select, test};

#[path = "../../src/pace/mod.rs"]
mod pace;

/// Nobody looks at metrics here.
mod metrics {
    pub(crate) struct Pace {
        pub(crate) configured_per_second: f64,
        pub(crate) current_per_second: f64,
        pub(crate) concurrency: usize,
        pub(crate) is_paused: bool,
        pub(crate) is_stripe_down: bool,
        pub(crate) is_key_endpoint_down: bool,
    }

    pub(crate) fn pace(_: &Pace, _: Option<&str>) {}

    pub(crate) fn refused_alike(_: bool, _: Option<&str>) {}

    pub(crate) fn account_waits(_: bool, _: Option<&str>) {}
}

fn main() {
    // What a model that fails on purpose says is no news.
    std::panic::set_hook(Box::new(|_| {}));
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut is_well = true;
    for model in [
        job_locks_hand_on::MODEL,
        refusals_wake::MODEL,
        pace_wakes::BREAKER,
        pace_wakes::PACE,
        pace_wakes::PLATFORM,
        lease_is_given_up::AT_ONCE,
        lease_is_given_up::WHEN_IDLE,
    ] {
        is_well &= !model.claim.contains(&wanted) || model.holds();
    }
    if !is_well {
        std::process::exit(1);
    }
}
