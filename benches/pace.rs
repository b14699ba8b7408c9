//! The pace by itself: how precise it is at Stripe's rates and far above them, how fair, and how fast if nothing limits.
//!
//! Each rate is asserted: no second holds more than the rate and one, and at least 99.5 % of the rate is used. `cargo
//! bench` measures for some seconds a rate; anything else (CI) runs each for a moment and asserts less of its use.
#![allow(missing_docs, reason = "a program of its own")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embosser::config::PaceConfig;
use embosser::pace::{Answered, Endpoint, Pace, Waited};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Callers that come back for the next permit as soon as their call has ended.
const CALLERS: usize = 64;
/// The first moment, in which turns get ahead of permits, is not judged.
const STARTS: Duration = Duration::from_millis(300);
/// The share of the rate that must be used.
const USED_MIN: f64 = 0.995;
/// Permits in the comparison of speeds.
const SPEED_PERMITS: usize = 200_000;

fn pace(per_second: f64) -> Pace {
    let limits =
        PaceConfig { endpoint_per_second: per_second, account_per_second: per_second, concurrency: 512 };
    Pace::start(&limits)
}

/// One call that is answered at once; when it left, and when it was asked for.
async fn call(pace: &Pace) -> Option<Instant> {
    let turn = pace.turn(Endpoint::CreateCard).await.ok()?;
    let Waited::Permit(mut permit) = turn.permit().await else { return None };
    permit.departure().left();
    let left = Instant::now();
    permit.answered(Answered::Accepted);
    Some(left)
}

/// When each call left, for so long.
async fn departures(per_second: f64, lasts: Duration) -> Vec<Instant> {
    let pace = pace(per_second);
    let all = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (pace, all) = (pace.clone(), all.clone());
        callers.spawn(async move {
            let mut own = Vec::new();
            while began.elapsed() < lasts {
                own.extend(call(&pace).await);
            }
            all.lock().expect("no caller panics").extend(own);
        });
    }
    callers.join_all().await;
    let mut all = std::mem::take(&mut *all.lock().expect("no caller panics"));
    all.retain(|left| *left >= began + STARTS && *left < began + lasts);
    all.sort_unstable();
    all
}

#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
async fn precision(per_second: f64, lasts: Duration, used_min: f64) {
    let left = departures(per_second, lasts).await;
    let within =
        |first: usize| left[first..].partition_point(|at| *at < left[first] + Duration::from_secs(1));
    let fullest = (0..left.len()).map(within).max().unwrap_or(0);
    let span = (left[left.len() - 1] - left[0]).as_secs_f64();
    let used = (left.len() - 1) as f64 / span / per_second;
    let period = 1.0 / per_second;
    let mut off: Vec<f64> =
        left.windows(2).map(|pair| ((pair[1] - pair[0]).as_secs_f64() - period).abs() * 1e3).collect();
    off.sort_unstable_by(f64::total_cmp);
    let percentile = |share: f64| off[((off.len() - 1) as f64 * share) as usize];
    println!(
        "{per_second:>8} /s  fullest second {fullest:>6}  used {:>6.2} %  off the even grid: median {:.3} ms, p99 {:.3} ms",
        used * 100.0,
        percentile(0.5),
        percentile(0.99)
    );
    assert!(fullest as f64 <= per_second + 1.0, "{fullest} in a second at {per_second}/s");
    assert!(used >= used_min, "{used} used at {per_second}/s");
}

/// Jobs that ask one after the other, and how far the order of their calls is from that.
async fn fairness() {
    const JOBS: usize = 5000;
    let pace = pace(5000.0);
    let order = Arc::new(Mutex::new(Vec::with_capacity(JOBS)));
    let mut jobs = JoinSet::new();
    for number in 0..JOBS {
        let (pace, order) = (pace.clone(), order.clone());
        jobs.spawn(async move {
            let turn = pace.turn(Endpoint::CreateCard).await.expect("nobody closes it");
            let Waited::Permit(mut permit) = turn.permit().await else { panic!("nothing pauses") };
            permit.departure().left();
            order.lock().expect("no job panics").push(number);
            permit.answered(Answered::Accepted);
        });
    }
    jobs.join_all().await;
    let order = order.lock().expect("no job panics");
    let apart = order.iter().enumerate().map(|(place, number)| place.abs_diff(*number)).max().unwrap_or(0);
    println!("{JOBS} jobs, first come first served: none more than {apart} places from its own");
    assert!(order.len() == JOBS);
}

/// Permits a second if nothing limits, beside a plain semaphore with as many callers.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
async fn speed(permits: usize) {
    let each = permits / CALLERS;
    let pace = pace(10_000_000.0);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let pace = pace.clone();
        callers.spawn(async move {
            let mut made = 0;
            while made < each {
                made += usize::from(call(&pace).await.is_some());
            }
        });
    }
    callers.join_all().await;
    let paced = (each * CALLERS) as f64 / began.elapsed().as_secs_f64();
    let semaphore = Arc::new(Semaphore::new(8));
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let semaphore = semaphore.clone();
        callers.spawn(async move {
            for _ in 0..each {
                let permit = semaphore.acquire().await.expect("nobody closes it");
                tokio::task::yield_now().await;
                drop(permit);
            }
        });
    }
    callers.join_all().await;
    let plain = (each * CALLERS) as f64 / began.elapsed().as_secs_f64();
    println!(
        "unlimited: {paced:.0} turns and permits a second; a plain semaphore: {plain:.0} ({:.2}x)",
        paced / plain
    );
}

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        for (per_second, seconds) in [(25.0, 21), (100.0, 11), (1000.0, 6), (10_000.0, 6)] {
            // Without optimisation a moment says little about the last half percent.
            let (seconds, used_min) = if whole { (seconds, USED_MIN) } else { (3, 0.8) };
            precision(per_second, Duration::from_secs(seconds), used_min).await;
        }
        fairness().await;
        speed(if whole { SPEED_PERMITS } else { SPEED_PERMITS / 20 }).await;
    });
}
