//! `embosser-sim`: as many seeds of the simulation as there is time for, on as many threads. It goes on where it was stopped, if it is
//! given the same progress file. See docs/simulation.md.
#![allow(clippy::unwrap_used, reason = "what cannot go on ends")]

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

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use embosser::simulation::Mutation;
use setup::Setup;
use world::{Tell, simulate};

/// As embosser's: a simulation allocates much.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that a thread takes at once.
const PART: u64 = 100;
/// Between two lines of progress.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Simulates embosser under many seeds.
#[derive(Debug, Parser)]
#[command(name = "embosser-sim")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many threads, each with a simulation of its own.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// A file that says which seeds are done: with the same one the next run goes on there.
    #[arg(long)]
    progress: Option<PathBuf>,
    /// Breaks every rule on purpose, one after the other, and says by which seed that was found.
    #[arg(long)]
    mutations: bool,
    /// Of the rules to break this one alone.
    #[arg(long, value_parser = mutation)]
    broken: Option<Mutation>,
    /// One seed alone, told step by step.
    #[arg(long)]
    one: Option<u64>,
}

fn mutation(name: &str) -> Result<Mutation, String> {
    let named = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
    named.ok_or_else(|| format!("no rule; there are {:?}", Mutation::ALL))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.one {
        let setup = Setup::of(seed);
        eprintln!("{setup:#?}");
        let ended = simulate(setup, arguments.broken, Tell::Everything);
        println!("{ended:?}");
        return if ended.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if arguments.mutations { mutations(&arguments) } else { seeds(&arguments) }
}

/// What threads share.
struct Shared {
    next: u64,
    done: BTreeSet<u64>,
    failed: BTreeMap<u64, String>,
    counts: BTreeMap<&'static str, u64>,
    told: Instant,
    /// Of everything that happened: the same for the same seeds.
    trace: u64,
}

fn seeds(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let (done, failed) = earlier(arguments);
    let before = done.len() as u64;
    let last = arguments.from + arguments.seeds;
    let shared = Mutex::new(Shared {
        next: arguments.from,
        done,
        failed,
        counts: BTreeMap::new(),
        told: began,
        trace: 0,
    });
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while let Some(part) = part(&shared, last) {
                    run(arguments, &shared, part, last);
                    tell(arguments, &shared, began, before);
                }
            });
        }
    });
    let shared = shared.into_inner().unwrap();
    println!("{} seeds in {:.0?}, {} failed", arguments.seeds, began.elapsed(), shared.failed.len());
    println!("{:>20x} is the digest of what happened in this run", shared.trace);
    for (what, count) in &shared.counts {
        println!("{count:>12} {what}");
    }
    for (seed, failure) in &shared.failed {
        println!("seed {seed}: {failure}");
    }
    if shared.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The next seeds that are to be run.
fn part(shared: &Mutex<Shared>, last: u64) -> Option<u64> {
    let mut shared = shared.lock().unwrap();
    while shared.done.contains(&shared.next) {
        shared.next += PART;
    }
    let part = shared.next;
    shared.next += PART;
    (part < last).then_some(part)
}

fn run(arguments: &Arguments, shared: &Mutex<Shared>, part: u64, last: u64) {
    let (mut failed, mut counts, mut trace) = (BTreeMap::new(), BTreeMap::<&'static str, u64>::new(), 0_u64);
    for seed in part..(part + PART).min(last) {
        let ended = simulate(Setup::of(seed), None, Tell::Nothing);
        if let Some(failure) = ended.failure {
            println!("seed {seed}: {failure}");
            failed.insert(seed, failure);
        }
        for (what, count) in ended.counts {
            *counts.entry(what).or_default() += count;
        }
        *counts.entry("steps").or_default() += ended.polls;
        trace = trace.wrapping_add(ended.trace);
    }
    let mut shared = shared.lock().unwrap();
    if let Some(progress) = &arguments.progress {
        use std::io::Write as _;
        let mut file = std::fs::File::options().append(true).create(true).open(progress).unwrap();
        let failures: Vec<String> =
            failed.iter().map(|(seed, failure)| format!("{seed}\t{failure}\n")).collect();
        // A part is done once its line is whole; what failed in it stands before.
        writeln!(file, "{}done {part}", failures.concat()).unwrap();
    }
    shared.done.insert(part);
    shared.trace = shared.trace.wrapping_add(trace);
    shared.failed.extend(failed);
    for (what, count) in counts {
        *shared.counts.entry(what).or_default() += count;
    }
}

fn tell(arguments: &Arguments, shared: &Mutex<Shared>, began: Instant, before: u64) {
    let mut shared = shared.lock().unwrap();
    if shared.told.elapsed() >= TOLD_EVERY {
        shared.told = Instant::now();
        let done = shared.done.len() as u64 * PART;
        let per_second = ((shared.done.len() as u64 - before) * PART) as f64 / began.elapsed().as_secs_f64();
        println!("{done} of {} seeds, {per_second:.0}/s, {} failed", arguments.seeds, shared.failed.len());
    }
}

/// Which parts an earlier run has done, and what failed.
fn earlier(arguments: &Arguments) -> (BTreeSet<u64>, BTreeMap<u64, String>) {
    let text =
        arguments.progress.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let done = text.lines().filter_map(|line| line.strip_prefix("done ")?.parse().ok()).collect();
    let failed = text.lines().filter_map(|line| {
        let (seed, failure) = line.split_once('\t')?;
        Some((seed.parse().ok()?, failure.to_owned()))
    });
    (done, failed.collect())
}

fn mutations(arguments: &Arguments) -> ExitCode {
    let is_wanted = |mutation: &Mutation| arguments.broken.is_none_or(|broken| broken == *mutation);
    let next = Mutex::new(Mutation::ALL.into_iter().filter(is_wanted));
    let found = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let Some(mutation) = next.lock().unwrap().next() else { return };
                    let seeds = arguments.from..arguments.from + arguments.seeds;
                    let first = seeds.into_iter().find_map(|seed| {
                        let ended = simulate(Setup::of(seed), Some(mutation), Tell::Nothing);
                        Some((seed, ended.failure?))
                    });
                    let line = match &first {
                        Some((seed, failure)) => format!("| `{mutation:?}` | {seed} | {failure} |"),
                        None => format!("| `{mutation:?}` | | not found |"),
                    };
                    println!("{line}");
                    found.lock().unwrap().insert(format!("{mutation:?}"), first.is_some());
                }
            });
        }
    });
    if found.into_inner().unwrap().values().all(|found| *found) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
