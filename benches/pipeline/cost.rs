//! What a run cost: time, CPU of the whole process, allocations.
#![allow(unsafe_code, reason = "an allocator that counts can only be written with it")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mimalloc::MiMalloc;

/// mimalloc, as in the program, and a count.
struct Counting;

/// A count on a cache line of its own.
#[repr(align(128))]
struct Count(AtomicU64);

/// Counts, each for some threads: one that all of them write would be a cost of the bench's own, and more of it for who has more
/// threads.
static COUNTS: [Count; 16] = [const { Count(AtomicU64::new(0)) }; 16];

thread_local! {
    /// This thread's place among them; none yet if it is beyond them.
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn count() {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    if PLACE.get() == usize::MAX {
        PLACE.set(THREADS.fetch_add(1, Ordering::Relaxed) % COUNTS.len());
    }
    COUNTS[PLACE.get()].0.fetch_add(1, Ordering::Relaxed);
}

fn allocations() -> u64 {
    COUNTS.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed on as it came to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's own promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's own promise.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's own promise.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}

/// What a run cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) jobs_per_second: f64,
    pub(crate) cpu_us_per_job: f64,
    pub(crate) allocations_per_job: f64,
}

/// The process's CPU time, of all its threads.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
pub(crate) async fn measured(jobs: usize, run: impl Future<Output = ()>) -> Cost {
    let (cpu_before, allocations_before) = (cpu(), allocations());
    let began = Instant::now();
    run.await;
    let took = began.elapsed();
    Cost {
        jobs_per_second: jobs as f64 / took.as_secs_f64(),
        cpu_us_per_job: (cpu() - cpu_before).as_secs_f64() * 1e6 / jobs as f64,
        allocations_per_job: (allocations() - allocations_before) as f64 / jobs as f64,
    }
}

/// The one in the middle; none if nothing was measured.
pub(crate) fn median(mut costs: Vec<Cost>) -> Option<Cost> {
    costs.sort_unstable_by(|one, other| one.jobs_per_second.total_cmp(&other.jobs_per_second));
    costs.get(costs.len() / 2).copied()
}

/// A line for what was measured, beside the reference if there is one.
pub(crate) fn print(what: &str, cost: Option<Cost>, reference: Option<Cost>) {
    let Some(cost) = cost else { return };
    let reference = reference.unwrap_or(cost);
    println!(
        "{what:<28} {:>7.0} jobs/s ({:.2}x)  {:>6.1} us CPU a job ({:.2}x)  {:>5.0} allocations a job ({:.2}x)",
        cost.jobs_per_second,
        cost.jobs_per_second / reference.jobs_per_second,
        cost.cpu_us_per_job,
        cost.cpu_us_per_job / reference.cpu_us_per_job,
        cost.allocations_per_job,
        cost.allocations_per_job / reference.allocations_per_job
    );
}
