//! Promise: whatever times, faults and orders processes meet, each job has its effect once, nobody is told what is not so, no limit is
//! passed, and in the end all jobs have ended. embosser's own line, decision, lease, ledger and pace run here on one thread, by a
//! virtual clock, in an order that a seed decides; Stripe is a model. See docs/simulation.md.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "killpoints")]

mod executor;
mod ledger;
mod oracle;
mod pins;
mod process;
mod setup;
mod stripe;
mod trouble;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use embosser::simulation::Mutation;
use setup::Setup;
use world::{Tell, simulate};

/// One seed alone, told step by step.
const ONE: &str = "EMBOSSER_SIMULATION_SEED";
/// How long new seeds are tried here. The runner `embosser-sim` has no such bound.
const SEEDS_FOR: Duration = Duration::from_secs(120);
/// More than that time is enough for, on any machine.
const SEEDS_MAX: u64 = 100_000;
const DAY_SECONDS: u64 = 24 * 3600;

/// Seeds that once found something, for ever; what it was stands in docs/simulation.md.
const REGRESSIONS: [u64; 24] = [
    51, 280, 282, 287, 471, 606, 1076, 1344, 2701, 16395, 21457, 36845, 41047, 47848, 50223, 53174, 81366,
    103_435, 326_751, 380_075, 691_146, 712_913, 869_982, 994_121,
];

/// Rules broken on purpose, each with a seed that finds it: of the table in docs/simulation.md.
const FOUND: [(Mutation, u64); 18] = [
    (Mutation::SkipCompareAndSet, 1),
    (Mutation::BelieveAbsenceAtOnce, 8),
    (Mutation::NewKeyTooEarly, 0),
    (Mutation::TrustKeyForEver, 1185),
    (Mutation::DepartLate, 373),
    (Mutation::TellBeforeRecord, 0),
    (Mutation::BelieveError, 8),
    (Mutation::RefuseWhileOpen, 56),
    (Mutation::ForgetDeadline, 3),
    (Mutation::KeepLostLease, 41),
    (Mutation::ForgetUnderWay, 88),
    (Mutation::TakeSilenceForNothing, 56),
    (Mutation::ReadFirstPageOnly, 8),
    (Mutation::ForgetLaterChange, 1681),
    (Mutation::SkipVetting, 5),
    (Mutation::GoOnDuringLook, 36),
    (Mutation::SkipReconcile, 2672),
    (Mutation::CallAtOnceAfterTakeover, 29),
];

/// How to see one alone.
fn again(seed: u64, failure: &str) -> String {
    format!(
        "seed {seed}: {failure}\nsee it alone: {ONE}={seed} cargo test --features killpoints --test simulation one_seed -- --nocapture"
    )
}

#[test]
fn one_seed() {
    let Some(seed) = std::env::var(ONE).ok().and_then(|seed| seed.parse().ok()) else { return };
    let setup = Setup::of(seed);
    eprintln!("{setup:#?}");
    let ended = simulate(setup, None, Tell::Everything);
    eprintln!("{ended:?}");
    assert_eq!(ended.failure, None);
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..12 {
        let [first, second] = [0, 1].map(|_| simulate(Setup::of(seed), None, Tell::Nothing));
        assert!(first.failure.is_none(), "{}", again(seed, &first.failure.unwrap()));
        assert_eq!((first.trace, first.polls), (second.trace, second.polls), "seed {seed}");
    }
}

#[test]
fn what_once_found_something_finds_nothing_any_more() {
    for seed in REGRESSIONS {
        let ended = simulate(Setup::of(seed), None, Tell::Nothing);
        assert!(ended.failure.is_none(), "{}", again(seed, &ended.failure.unwrap()));
    }
}

#[test]
fn a_rule_that_is_broken_is_found() {
    for (mutation, seed) in FOUND {
        let whole = simulate(Setup::of(seed), None, Tell::Nothing);
        assert!(whole.failure.is_none(), "{}", again(seed, &whole.failure.unwrap()));
        let ended = simulate(Setup::of(seed), Some(mutation), Tell::Nothing);
        assert!(
            ended.failure.is_some(),
            "{mutation:?} is not found by seed {seed}: find another with embosser-sim --mutations"
        );
    }
}

/// New ones each day.
#[test]
fn todays_seeds_find_nothing() {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / DAY_SECONDS;
    let (began, mut seeds, mut polls) = (Instant::now(), 0, 0);
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    while began.elapsed() < SEEDS_FOR && seeds < SEEDS_MAX {
        let seed = today * SEEDS_MAX + seeds;
        let ended = simulate(Setup::of(seed), None, Tell::Nothing);
        assert!(ended.failure.is_none(), "{}", again(seed, &ended.failure.unwrap()));
        (seeds, polls) = (seeds + 1, polls + ended.polls);
        for (what, count) in ended.counts {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{seeds} seeds, {polls} steps: {counts:?}");
    // Else nothing was tried.
    for what in ["calls", "effects", "done", "refused"] {
        assert!(counts.contains_key(what), "{seeds} seeds and never {what}: {counts:?}");
    }
}
