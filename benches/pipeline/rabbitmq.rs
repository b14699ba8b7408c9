//! The same jobs from a real RabbitMQ: consumed, issued, their results published, acknowledged.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use embosser::config::{RabbitmqConfig, WorkerConfig};
use embosser::job::Job;
use embosser::pin_links::Owing;
use embosser::queue::Broker;
use embosser::queue::message::Terms;
use embosser::queue::publisher::Publisher;
use embosser::queue::send::Outgoing;
use embosser::worker::Worker;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cost::{Cost, measured, print};
use crate::loopback::Server;
use crate::support::rabbit::Rabbit;
use crate::{UNLIMITED, job, line};

/// Messages on their way to the broker at once.
const PUBLISHED_AT_ONCE: usize = 256;
/// No run takes this long.
const RUN_MAX: Duration = Duration::from_secs(120);

/// Prints what a job costs by way of the broker, whose own CPU is not in it but shares the machine.
pub(crate) async fn cost(server: &Server, jobs: usize, jwe: &str, reference: Option<Cost>) {
    let rabbit = Rabbit::start().await;
    let config = RabbitmqConfig { url: rabbit.url().as_str().into(), ..RabbitmqConfig::default() };
    let broker = Broker::new(&config).unwrap();
    publish(&broker, (0..jobs).map(|number| job("queue", number, jwe)).collect()).await;

    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let line = line(server, directory.path(), UNLIMITED).await;
    let terms = Terms {
        account: None,
        mode: None,
        pin_age_max: Duration::from_secs(3600),
        message_bytes_max: 64 << 10,
    };
    let owing = Owing::by(&line.parts().ledger);
    let worker = Worker::new(line, broker, terms, &WorkerConfig::default(), owing);
    let before = server.creates.load(Ordering::Relaxed);
    let created = || server.creates.load(Ordering::Relaxed) - before;
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    // A worker waits a moment before its first call, whatever the pace; that is not what a job costs.
    let all = tokio::time::timeout(RUN_MAX, async {
        while created() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        measured(jobs, async {
            while created() < jobs {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
            running.await.unwrap().unwrap();
        })
        .await
    });
    print("worker, real RabbitMQ", Some(all.await.expect("it ends in time")), reference);
    assert_eq!(created(), jobs, "one call for each job");
}

async fn publish(broker: &Broker, jobs: Vec<Job>) {
    let publisher = Arc::new(Publisher::new(broker.clone(), "bench"));
    let mut publishing = JoinSet::new();
    for job in jobs {
        if publishing.len() == PUBLISHED_AT_ONCE {
            publishing.join_next().await.unwrap().unwrap();
        }
        let publisher = publisher.clone();
        publishing.spawn(async move {
            Outgoing::of(job).publish(&publisher, || std::ops::ControlFlow::Continue(())).await.unwrap()
        });
    }
    publishing.join_all().await;
    publisher.close().await;
}
