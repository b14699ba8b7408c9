//! Promise: a limit above the accounts' is never exceeded in any second, is used in full, and goes to the accounts in turn, so
//! that none with many jobs keeps one with few waiting.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embosser::config::PaceConfig;
use embosser::pace::{Answered, Endpoint, Pace, Pacer, Waited};
use tokio::task::JoinSet;

/// Each account's own limit.
const EACH: f64 = 100.0;
/// Waited beyond it, somebody was forgotten.
const HANGS: Duration = Duration::from_secs(60);

/// When calls left (after this, and before that), and of which account.
type Left = Arc<Mutex<Vec<(Instant, Instant, usize)>>>;

fn paces(accounts: usize, together: f64) -> Vec<Pace> {
    let pacer = Pacer::below(Some(together));
    let config = PaceConfig { endpoint_per_second: EACH, account_per_second: EACH, concurrency: 0 };
    (0..accounts).map(|_| Pace::with(&config, &pacer)).collect()
}

/// One call, prepared in some milliseconds as with a key that is fetched.
async fn call(pace: &Pace, account: usize, left: &Left) {
    call_of(Endpoint::CreateCard, pace, account, left).await;
}

async fn call_of(endpoint: Endpoint, pace: &Pace, account: usize, left: &Left) {
    loop {
        let turn = pace.turn(endpoint).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        let before = Instant::now();
        permit.departure().left();
        left.lock().unwrap().push((before, Instant::now(), account));
        permit.answered(Answered::Accepted);
        return;
    }
}

/// Makes so many calls of each account, all of them wanted at once; answers them in order.
async fn calls_of(paces: &[Pace], calls: &[usize]) -> Vec<(Instant, Instant, usize)> {
    let left = Left::default();
    let mut jobs = JoinSet::new();
    for (account, (pace, calls)) in paces.iter().zip(calls).enumerate() {
        for _ in 0..*calls {
            let (pace, left) = (pace.clone(), left.clone());
            jobs.spawn(async move { call(&pace, account, &left).await });
        }
    }
    tokio::time::timeout(HANGS, jobs.join_all()).await.expect("somebody waits for ever");
    let mut left = std::mem::take(&mut *left.lock().unwrap());
    left.sort();
    left
}

fn of(left: &[(Instant, Instant, usize)], account: usize) -> usize {
    left.iter().filter(|(_, _, of)| *of == account).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_kept_and_used_in_full_whoever_has_jobs() {
    const TOGETHER: usize = 60;
    // Ten with jobs for as long as this takes, and one alone: no more than its own limit is the limit then.
    for (accounts, each) in [(10, 40), (1, 300)] {
        let left = calls_of(&paces(accounts, TOGETHER as f64), &vec![each; accounts]).await;
        for (first, after) in left.iter().zip(&left[TOGETHER..]) {
            assert!(after.1 - first.0 >= Duration::from_secs(1), "{:?}", after.1 - first.0);
        }
        let took = left[left.len() - 1].0 - left[0].0;
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let used = (left.len() - 1) as f64 / took.as_secs_f64() / TOGETHER as f64;
        // The first wait a moment so that preparing runs ahead; a busy machine loses some.
        assert!(used > 0.85, "{accounts} accounts: {used} of it in {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_with_many_jobs_keeps_none_with_few_waiting() {
    const ACCOUNTS: usize = 8;
    // One has as many jobs as would fill the limit for 10 s.
    let mut calls = [20; ACCOUNTS];
    calls[0] = 500;
    let left = calls_of(&paces(ACCOUNTS, 50.0), &calls).await;
    // While all have jobs, each has its share.
    let all_have = &left[..ACCOUNTS * 15];
    for account in 0..ACCOUNTS {
        let of = of(all_have, account);
        assert!((13..=17).contains(&of), "account {account}: {of} of {}", all_have.len());
    }
    let last_of_few = left.iter().rposition(|(_, _, account)| *account != 0).unwrap();
    assert!(last_of_few < ACCOUNTS * 20 + 20, "the last of the few went as number {last_of_few}");
}

/// Within an account endpoints take turns as well: a cardholder or a look does not wait until all cards are made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_with_many_jobs_keeps_no_other_waiting() {
    let paces = paces(4, 40.0);
    let left = Left::default();
    let mut jobs = JoinSet::new();
    for number in 0..400_usize {
        let (pace, left) = (paces[number % 4].clone(), left.clone());
        jobs.spawn(async move { call(&pace, number % 4, &left).await });
    }
    while left.lock().unwrap().len() < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let other = Left::default();
    let asking = async {
        tokio::join!(
            call_of(Endpoint::CreateCardholder, &paces[0], 0, &other),
            call_of(Endpoint::ListCards, &paces[0], 0, &other)
        )
    };
    let before = left.lock().unwrap().len();
    tokio::time::timeout(HANGS, asking).await.expect("an endpoint waits for ever");
    let meanwhile = left.lock().unwrap().len() - before;
    // What was prepared by then, and some rounds of the four accounts: of 400 that wait.
    assert!(meanwhile < 120, "{meanwhile} cards were made meanwhile");
    jobs.abort_all();
}

/// An account whose calls hang takes nothing of the limit that it cannot use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_calls_hang_keeps_no_other_waiting() {
    let pacer = Pacer::below(Some(50.0));
    let config = PaceConfig { endpoint_per_second: EACH, account_per_second: EACH, concurrency: 4 };
    let paces: Vec<Pace> = (0..2).map(|_| Pace::with(&config, &pacer)).collect();
    let mut hanging = JoinSet::new();
    for _ in 0..200 {
        let pace = paces[0].clone();
        hanging.spawn(async move {
            loop {
                let turn = pace.turn(Endpoint::CreateCard).await.unwrap();
                let Waited::Permit(mut permit) = turn.permit().await else { continue };
                permit.departure().left();
                // Never answered.
                std::future::pending::<()>().await;
                drop(permit);
            }
        });
    }
    while paces[0].health().in_flight < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    let left = calls_of(&paces[1..], &[100]).await;
    assert_eq!(left.len(), 100);
    // 2 s at the limit. Were the other's jobs prepared for nothing, they would have taken most of it.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    hanging.abort_all();
}

/// Jobs that stop waiting half-way, hold nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_stops_waiting_costs_the_others_nothing() {
    let paces = paces(20, 400.0);
    let left = Left::default();
    let mut jobs = JoinSet::new();
    for number in 0..1000_usize {
        let (pace, left, account) = (paces[number % 20].clone(), left.clone(), number % 20);
        jobs.spawn(async move {
            let patience = Duration::from_millis(number as u64 % 50);
            match number % 5 {
                0 => drop(tokio::time::timeout(patience, call(&pace, account, &left)).await),
                1 => drop(pace.turn(Endpoint::CreateCard).await),
                2 => pace.turn(Endpoint::CreateCard).await.unwrap().failed(),
                3 => drop(pace.turn(Endpoint::CreateCard).await.unwrap().permit().await),
                _ => call(&pace, account, &left).await,
            }
        });
    }
    tokio::time::timeout(HANGS, jobs.join_all()).await.expect("somebody waits for ever");
    let left = calls_of(&paces, &[3; 20]).await;
    assert_eq!(left.len(), 60);
    for pace in &paces {
        let health = pace.health();
        assert_eq!((health.in_flight, health.preparing, health.waiting), (0, 0, 0), "{health:?}");
    }
}
