//! Turns and permits come to whoever waits for them, at their time and not later; a host that is away holds nobody up for longer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use shuttle::future::block_on;
use shuttle::thread;

use super::checker::{Model, Weakness};
use super::config::PaceConfig;
use super::pace::{Answered, Breaker, Endpoint, Pace, Pacer, Waited};
use super::time::Instant;

pub(crate) const PACE: Model = Model {
    claim: "turns and permits come to whoever waits for them, at their time",
    run: permits_come,
    weakness: Weakness::WaitsLate,
};
pub(crate) const PLATFORM: Model = Model {
    claim: "a limit above several accounts keeps none of them waiting for longer than it must",
    run: accounts_take_turns,
    weakness: Weakness::WaitsLate,
};
pub(crate) const BREAKER: Model = Model {
    claim: "while a host is away one asks at a time, and all go on once it answers",
    run: one_asks,
    weakness: Weakness::ListensLate,
};

/// Calls of each endpoint in a second.
const PER_SECOND: f64 = 2.0;
const CALLS: usize = 4;
const SECOND: Duration = Duration::from_secs(1);
/// All calls but the first have left by then: they are evenly spaced, and the limiter leaves some of its second unused.
const ALL_LEFT_MAX: Duration = Duration::from_millis(2200);

fn permits_come() {
    let config = PaceConfig {
        endpoint_per_second: PER_SECOND,
        account_per_second: 2.0 * PER_SECOND,
        ..PaceConfig::default()
    };
    let pace = Pace::start(&config);
    let left = Arc::new(Mutex::new(Vec::new()));
    let calls = || {
        let (pace, left) = (pace.clone(), left.clone());
        move || {
            loop {
                let turn = block_on(pace.turn(Endpoint::CreateCard)).expect("the pace is open");
                thread::yield_now();
                let Waited::Permit(mut permit) = block_on(turn.permit()) else { continue };
                permit.departure().left();
                left.lock().unwrap().push(Instant::now());
                permit.answered(Answered::Accepted);
                return;
            }
        }
    };
    let mut threads: Vec<_> = (0..CALLS).map(|_| thread::spawn(calls())).collect();
    let leaves = {
        let pace = pace.clone();
        move || {
            let mut waits = Box::pin(pace.turn(Endpoint::CreateCard));
            let turn = waits.as_mut().now_or_never();
            thread::yield_now();
            // It stops waiting, or has prepared in vain.
            drop((waits, turn));
        }
    };
    threads.push(thread::spawn(leaves));
    drop(pace);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut left = left.lock().unwrap().clone();
    left.sort();
    for (first, after) in left.iter().zip(left.iter().skip(PER_SECOND as usize)) {
        assert!(*after - *first >= SECOND, "more left in one second than may: {left:?}");
    }
    let took = left[CALLS - 1] - Instant::default();
    assert!(took <= ALL_LEFT_MAX, "somebody was woken late: {took:?}");
}

const ACCOUNTS: usize = 2;
/// The limit is half of what each account may; the first permits wait a moment, once.
const TURNS_MAX: Duration = Duration::from_millis(3000);

fn accounts_take_turns() {
    let config = PaceConfig {
        endpoint_per_second: 2.0 * PER_SECOND,
        account_per_second: 2.0 * PER_SECOND,
        ..PaceConfig::default()
    };
    let pacer = Pacer::below(Some(PER_SECOND));
    let left = Arc::new(Mutex::new(Vec::new()));
    let calls = || {
        let (pace, left) = (Pace::with(&config, &pacer), left.clone());
        let call = move |departs: bool| {
            loop {
                let turn = block_on(pace.turn(Endpoint::CreateCard)).expect("the pace is open");
                thread::yield_now();
                let Waited::Permit(mut permit) = block_on(turn.permit()) else { continue };
                if departs {
                    permit.departure().left();
                    left.lock().unwrap().push(Instant::now());
                    permit.answered(Answered::Accepted);
                }
                return;
            }
        };
        move || {
            call(true);
            // It has its permit, and does not send.
            call(false);
            call(true);
        }
    };
    let threads: Vec<_> = (0..ACCOUNTS).map(|_| thread::spawn(calls())).collect();
    drop(pacer);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut left = left.lock().unwrap().clone();
    left.sort();
    for (first, after) in left.iter().zip(left.iter().skip(PER_SECOND as usize)) {
        assert!(*after - *first >= SECOND, "more left in one second than may: {left:?}");
    }
    let took = left[left.len() - 1] - Instant::default();
    assert!(took <= TURNS_MAX, "somebody was asked late: {took:?}");
}

/// More failures in a row than a host is believed in for.
const FAILURES: usize = 20;
const JOBS: usize = 3;

fn one_asks() {
    let breaker = Breaker::new("a host", "some wait");
    for _ in 0..FAILURES {
        let pass = block_on(breaker.ready());
        pass.failed("connection refused");
        if block_on(async { breaker.ready().now_or_never() }).is_none() {
            break;
        }
    }
    let asked = Arc::new(Mutex::new(0));
    let asks = |number: usize| {
        let (breaker, asked) = (breaker.clone(), asked.clone());
        move || {
            loop {
                let pass = block_on(breaker.ready());
                thread::yield_now();
                if !pass.is_good() {
                    continue;
                }
                let before = {
                    let mut asked = asked.lock().unwrap();
                    *asked += 1;
                    *asked - 1
                };
                match before {
                    // It gives up while it asks.
                    0 if number == 0 => drop(pass),
                    0 | 1 => pass.failed("connection refused"),
                    _ => return pass.answered(),
                }
            }
        }
    };
    let threads: Vec<_> = (0..JOBS).map(|number| thread::spawn(asks(number))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
