//! Promise: turns and permits are given in order of arrival, and whoever stops waiting takes nothing along.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embosser::config::PaceConfig;
use embosser::pace::{Answered, CircuitState, Endpoint, Pace, Permit, Waited};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

fn pace(per_second: f64, concurrency: usize) -> Pace {
    Pace::start(&PaceConfig { endpoint_per_second: per_second, account_per_second: per_second, concurrency })
}

async fn permit(pace: &Pace) -> Permit {
    loop {
        if let Waited::Permit(permit) = pace.turn(Endpoint::CreateCard).await.unwrap().permit().await {
            return permit;
        }
    }
}

/// Makes a call that is let through.
async fn call(pace: &Pace) {
    let mut permit = permit(pace).await;
    permit.departure().left();
    permit.answered(Answered::Accepted);
}

#[tokio::test]
async fn turns_and_permits_come_in_order_of_arrival() {
    let pace = pace(400.0, 0);
    let order = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    // One task polls them all, in the order in which they are woken, and so in the order in which the pace lets them go:
    // tasks of their own may run in another one, where a machine was late and several are let go at once.
    let mut jobs = FuturesUnordered::new();
    for number in 0..1000_usize {
        let (pace, order) = (pace.clone(), order.clone());
        jobs.push(async move {
            let turn = pace.turn(Endpoint::CreateCard).await.unwrap();
            order.lock().unwrap().0.push(number);
            let Waited::Permit(mut permit) = turn.permit().await else { panic!("nothing pauses") };
            order.lock().unwrap().1.push(number);
            permit.departure().left();
            permit.answered(Answered::Accepted);
        });
    }
    while jobs.next().await.is_some() {}
    let order = order.lock().unwrap();
    assert!(order.0.is_sorted() && order.0.len() == 1000, "turns: {:?}", order.0);
    assert!(order.1.is_sorted() && order.1.len() == 1000, "permits: {:?}", order.1);
}

/// Every way to stop half-way, a thousand times, on several threads: nothing is lost and nobody hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_stops_waiting_takes_nothing_along() {
    let pace = pace(1000.0, 8);
    let mut jobs = JoinSet::new();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..1500 {
        let (of_job, way) = (pace.clone(), random.random_range(0..7));
        let patience = Duration::from_micros(random.random_range(0..20_000));
        jobs.spawn(async move {
            match way {
                // Gives up waiting for its turn, or for its permit, whichever it is by then.
                0 | 1 => drop(tokio::time::timeout(patience, call(&of_job)).await),
                2 => drop(of_job.turn(Endpoint::CreateCard).await),
                3 => of_job.turn(Endpoint::CreateCard).await.unwrap().failed(),
                // Has its permit, and does not send.
                4 => drop(permit(&of_job).await),
                // Sends, and never learns how it ended.
                5 => permit(&of_job).await.departure().left(),
                _ => call(&of_job).await,
            }
        });
        if way == 6 {
            // Beside them calls go on as ever: a key endpoint that fails says nothing of Stripe's API.
            call(&pace).await;
        }
    }
    tokio::time::timeout(Duration::from_secs(60), jobs.join_all()).await.expect("somebody waits for ever");
    call(&pace).await;
    let health = pace.health();
    assert_eq!((health.in_flight, health.preparing, health.waiting), (0, 0, 0), "{health:?}");
    assert_eq!(health.circuit, CircuitState::Closed);
    assert_eq!(health.concurrency, 8);
}

#[tokio::test]
async fn what_is_not_used_is_handed_on_at_once() {
    let pace = pace(1.0, 0);
    let began = Instant::now();
    drop(permit(&pace).await);
    call(&pace).await;
    assert!(began.elapsed() < Duration::from_millis(500), "the first one's moment was the second one's");
    call(&pace).await;
    assert!(began.elapsed() > Duration::from_millis(900));
}

#[tokio::test]
async fn closing_tells_who_waits_for_a_turn_and_serves_who_has_one() {
    let pace = pace(2.0, 0);
    call(&pace).await;
    let turn = pace.turn(Endpoint::CreateCard).await.unwrap();
    let waiting = tokio::spawn({
        let pace = pace.clone();
        async move { pace.turn(Endpoint::CreateCard).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    pace.close();
    assert!(waiting.await.unwrap().is_err());
    assert!(pace.turn(Endpoint::CreateCard).await.is_err());
    assert!(matches!(turn.permit().await, Waited::Permit(_)));
}
