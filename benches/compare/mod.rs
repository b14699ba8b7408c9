//! One measurement beside another, in the same run: machines differ and drift, ratios less so.
#![allow(dead_code, unreachable_pub, reason = "each bench is a crate of its own and uses a part of this")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was measured, by name: the time of one iteration, for each of Criterion's samples.
#[derive(Default)]
pub struct Compare(RefCell<BTreeMap<&'static str, Vec<Duration>>>);

impl Compare {
    /// Times `iterations` runs, for `Bencher::iter_custom`, and keeps the time of one.
    pub fn time(&self, name: &'static str, iterations: u64, mut run: impl FnMut()) -> Duration {
        let began = Instant::now();
        (0..iterations).for_each(|_| run());
        let took = began.elapsed();
        let one = took / u32::try_from(iterations).unwrap_or(u32::MAX).max(1);
        self.0.borrow_mut().entry(name).or_default().push(one);
        took
    }

    /// Prints how many times faster `name` is than `reference`, by their medians.
    pub fn ratio(&self, name: &str, reference: &str) {
        let measured = self.0.borrow();
        let (Some(ours), Some(theirs)) = (median(measured.get(name)), median(measured.get(reference))) else {
            return;
        };
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        println!("ratio: {name} is {ratio:.2} times {reference} ({ours:.2?} beside {theirs:.2?})");
    }
}

fn median(times: Option<&Vec<Duration>>) -> Option<Duration> {
    let mut times = times?.clone();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}
