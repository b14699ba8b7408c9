//! Promise: whatever others write, nothing that reads it panics, runs on or says what it must not: fuzz/ holds what that means for
//! each reader. On nightly cargo-fuzz looks for days; here all that was ever found is tried again, and something new each time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(unreachable_pub, reason = "the fuzzing crate uses it from outside")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// A target's cases end with this, however slow the machine is.
const TIME_MAX: Duration = Duration::from_secs(1);
/// How many a target has within that.
const CASES: u32 = 400;
/// For a long run: so many seconds for each target, and as many cases as there is time for.
const SECONDS: &str = "EMBOSSER_FUZZ_SECONDS";
/// Longest that is made up: what reads has bounds that are far above it, and corpora are small.
const MADE_UP_BYTES_MAX: usize = 512;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What was found, and examples of what is in order.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = root().join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 2, "a good and a bad example in {}", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn each_target_has_its_program() {
    let names: BTreeSet<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap();
    assert_eq!(programs.iter().map(|bin| bin["name"].as_str().unwrap()).collect::<BTreeSet<_>>(), names);
    for name in names {
        let program = std::fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\"")), "{program}");
        // As the program calls it.
        targets::run(name, b"");
    }
}

#[test]
fn what_was_found_once_stays_mended() {
    for (name, target) in targets::TARGETS {
        for (path, bytes) in corpus(name) {
            let held = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
            assert!(held.is_ok(), "{name} fails on {}", path.display());
        }
    }
}

/// A change of an example: where, what is cut out, and what is put there.
type Change = (prop::sample::Index, usize, Vec<u8>);

fn changed(example: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = example.to_vec();
    for (at, cut, put) in changes {
        let at = at.index(bytes.len() + 1);
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put.iter().copied());
    }
    bytes
}

#[test]
fn examples_that_were_changed_harm_nothing() {
    // Mostly one byte for another, with those that mean something to a format more often than others.
    let telling = prop::sample::select(b"\0\n\r\"',;:{}[]\\=.-_0919AZaz\xff\xfe\xef\x80 \t".to_vec());
    let byte = prop_oneof![telling, any::<u8>()];
    let change = (any::<prop::sample::Index>(), 0..4_usize, prop::collection::vec(byte.clone(), 0..4));
    let changes = prop::collection::vec(change, 1..4);
    let made_up = prop::collection::vec(byte, 0..MADE_UP_BYTES_MAX);
    let inputs = (any::<prop::sample::Index>(), changes, made_up, 0..8_u8);
    let long = std::env::var(SECONDS).ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let time_max = long.unwrap_or(TIME_MAX);
    for (name, target) in targets::TARGETS {
        let examples = corpus(name);
        let (began, tries) = (Instant::now(), Cell::new(0_u64));
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let tried = loop {
            let tried =
                TestRunner::new(config.clone()).run(&inputs, |(example, changes, made_up, choice)| {
                    if began.elapsed() > time_max {
                        return Ok(());
                    }
                    // One in eight is made up whole.
                    let bytes = match choice {
                        0 => made_up,
                        _ => changed(&example.get(&examples).1, &changes),
                    };
                    tries.set(tries.get() + 1);
                    catch_unwind(AssertUnwindSafe(|| target(&bytes))).map_err(|_| {
                        let kept: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                        TestCaseError::fail(format!(
                            "keep it in fuzz/corpus/{name}; in hexadecimal: {kept:.4096}"
                        ))
                    })
                });
            if tried.is_err() || long.is_none() || began.elapsed() > time_max {
                break tried;
            }
        };
        eprintln!("{name}: {} inputs", tries.get());
        if let Err(error) = tried {
            panic!("{name}: {error}");
        }
    }
}
