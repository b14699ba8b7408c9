//! Promise: while three workers are replaced one after the other, jobs go on being answered within seconds, none is tried twice, and
//! none is given up.

use crate::support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embosser::queue::event::ResultEvent;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::Options;
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::BasicAckOptions;
use rustix::process::Signal;
use serde_json::json;
use support::scene::{ONE_AT_A_TIME, Scene};
use support::{Running, expect_exit, free_port};

const JOBS: usize = 2000;
/// Between two jobs: forty a second, where the workers may call a hundred times.
const JOB_EVERY: Duration = Duration::from_millis(25);
const RESTART_EVERY: Duration = Duration::from_secs(5);
/// From when a job was published until its result was heard, for 99 of 100 jobs.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn worker(scene: &Scene) -> Running {
    let listen = format!("127.0.0.1:{}", free_port());
    scene.program().with("EMBOSSER__WORKER__LISTEN", &listen).spawn(&["worker", "--rate", "100"])
}

/// Publishes a job every so often; answers when each was.
async fn publish(scene: &Scene) -> Vec<Instant> {
    let broker = scene.broker();
    let key = broker.topology.jobs.clone();
    let publisher = Publisher::new(broker, "test");
    let mut published = Vec::new();
    let mut turns = tokio::time::interval(JOB_EVERY);
    for number in 0..JOBS {
        turns.tick().await;
        let card = json!({"cardholder": format!("ich_{number}"), "type": "virtual", "currency": "eur"});
        let body = json!({"id": format!("j{number}"), "batch": "rolling", "card": card}).to_string();
        published.push(Instant::now());
        let properties = BasicProperties::default().with_delivery_mode(2);
        let message = Message { exchange: "", key: &key, body: body.as_bytes(), properties };
        publisher.publish(&message).await.unwrap();
    }
    publisher.close().await;
    published
}

#[tokio::test(flavor = "multi_thread")]
async fn three_workers_are_replaced_in_turn_and_every_job_is_answered_within_seconds() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let scene = Scene::with(Options::default()).await;
    let mut listener = scene.listen().await;
    let mut workers = [worker(&scene), worker(&scene), worker(&scene)];
    let hearing = async {
        let mut heard = BTreeMap::<usize, (Instant, u32)>::new();
        while heard.len() < JOBS {
            let delivery = tokio::time::timeout(WAIT_MAX, listener.consumer.next()).await;
            let delivery = delivery.unwrap_or_else(|_| panic!("{} results were heard", heard.len()));
            let (delivery, at) = (delivery.unwrap().unwrap(), Instant::now());
            delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
            let event: ResultEvent = serde_json::from_slice(&delivery.data).unwrap();
            assert!(event.card.is_some(), "{:?}: {:?}", event.id, event.error);
            let number = event.id.unwrap().strip_prefix('j').unwrap().parse().unwrap();
            // A worker that is ended may tell a result once more.
            heard.entry(number).or_insert((at, event.attempts));
        }
        heard
    };
    let replacing = async {
        for turn in 0.. {
            tokio::time::sleep(RESTART_EVERY).await;
            let ended = std::mem::replace(&mut workers[turn % 3], worker(&scene));
            ended.signal(Signal::TERM);
            expect_exit(&ended.ended().await, 0);
        }
    };
    let working = async { tokio::join!(publish(&scene), hearing) };
    let (published, heard) = tokio::select! {
        worked = working => worked,
        () = replacing => unreachable!("it goes on until all is done"),
    };
    let mut took: Vec<Duration> =
        heard.iter().map(|(number, (at, _))| at.duration_since(published[*number])).collect();
    took.sort_unstable();
    let p99 = took[JOBS * 99 / 100];
    assert!(p99 < ANSWERED_WITHIN, "p99 {p99:?}, median {:?}", took[JOBS / 2]);
    let counts = scene.sandbox.counts();
    let tried_again: Vec<_> = heard
        .iter()
        .filter(|(_, (_, attempts))| *attempts != 1)
        .map(|(number, (_, attempts))| (number, attempts))
        .collect();
    assert!(tried_again.is_empty(), "tried more than once: {tried_again:?}; {counts:?}, p99 {p99:?}");
    assert_eq!((counts.cards, counts.creates, counts.replays), (JOBS, JOBS as u64, 0));
    assert_eq!(scene.left_in_queues().await, BTreeMap::new());
    for worker in workers {
        worker.signal(Signal::TERM);
        expect_exit(&worker.ended().await, 0);
    }
}
