//! Promise: of many messages that are published at once, each is told what became of itself: what the broker took is in
//! its queue, and what it rejected or had no queue for is never taken for published.

use crate::support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::queue::publisher::{Message, NotTaken, Publisher};
use futures_util::StreamExt as _;
use lapin::BasicProperties;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use support::rabbit::Rabbit;

const MESSAGES: usize = 6000;
/// Publishers at once, as many as `submit` has.
const AT_ONCE: usize = 256;
/// What the jobs queue takes, and then rejects.
const JOBS_MAX: u32 = 10;

/// Where a message goes: by turns to a queue that is full, to one that never is, and to none.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Full,
    Open,
    Nowhere,
}

fn to(number: usize) -> To {
    [To::Full, To::Open, To::Nowhere][number % 3]
}

/// Publishes every message once, many at once, and on every thread of the runtime, as it is in the program.
async fn publish_all(publisher: &Arc<Publisher>) -> Vec<Result<(), NotTaken>> {
    let publish = async |number: usize| {
        let publisher = publisher.clone();
        let publishing = tokio::spawn(async move {
            let topology = publisher.topology();
            let key = match to(number) {
                To::Full => &topology.jobs,
                To::Open => &topology.dead,
                To::Nowhere => "no.such.queue",
            };
            let (body, properties) = (number.to_string(), BasicProperties::default());
            publisher.publish(&Message { exchange: "", key, body: body.as_bytes(), properties }).await
        });
        publishing.await.unwrap()
    };
    futures_util::stream::iter(0..MESSAGES).map(publish).buffered(AT_ONCE).collect().await
}

/// What is in a queue.
async fn read(broker: &Broker, queue: &str) -> Vec<usize> {
    let connection = broker.connect("test").await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, arguments).await.unwrap();
    let mut read = Vec::new();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(2), consumer.next()).await {
        read.push(String::from_utf8(delivery.unwrap().data).unwrap().parse().unwrap());
    }
    connection.close(200, "done".into()).await.unwrap();
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_many_messages_is_told_its_own_end() {
    let rabbit = Rabbit::start().await;
    let url = rabbit.url().as_str().into();
    let broker = Broker::new(&RabbitmqConfig { url, jobs_max: JOBS_MAX, ..Default::default() }).unwrap();
    let publisher = Arc::new(Publisher::new(broker.clone(), "test"));
    let told = publish_all(&publisher).await;
    publisher.close().await;
    let of = |to_: To, told_: Result<(), NotTaken>| {
        (0..MESSAGES).filter(|number| to(*number) == to_ && told[*number] == told_).collect::<BTreeSet<_>>()
    };
    let all = |to_: To| (0..MESSAGES).filter(|number| to(*number) == to_).collect::<BTreeSet<_>>();
    let wrong = |told: &BTreeSet<usize>, is: &BTreeSet<usize>| {
        let wrong: Vec<_> = told.symmetric_difference(is).copied().collect();
        (wrong.len(), wrong.into_iter().take(10).collect::<Vec<_>>())
    };
    // As if each were the only one.
    assert_eq!(wrong(&of(To::Nowhere, Err(NotTaken::Unroutable)), &all(To::Nowhere)), (0, vec![]), "nowhere");
    assert_eq!(wrong(&of(To::Open, Ok(())), &all(To::Open)), (0, vec![]), "to the open queue");
    let (taken, rejected) = (of(To::Full, Ok(())), of(To::Full, Err(NotTaken::Full)));
    assert_eq!(taken.len() + rejected.len(), all(To::Full).len(), "to the full queue");
    assert!(taken.len() >= JOBS_MAX as usize && rejected.len() > 1000, "{} taken", taken.len());
    // And it is so.
    for (queue, told) in [(&broker.topology.dead, all(To::Open)), (&broker.topology.jobs, taken)] {
        let read = read(&broker, queue).await;
        let once: BTreeSet<_> = read.iter().copied().collect();
        assert_eq!(wrong(&told, &once), (0, vec![]), "{queue}");
        assert_eq!(read.len(), once.len(), "{queue}: a message is there twice");
    }
}
