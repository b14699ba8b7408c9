//! A whole scene: a sandbox, a private broker, workers, and somebody who listens to the results.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use embosser::config::RabbitmqConfig;
use embosser::queue::Broker;
use embosser::queue::event::ResultEvent;
use embosser::queue::publisher::{Message, Publisher};
use embosser::sandbox::{Options, Sandbox};
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, Consumer};

use super::rabbit::Rabbit;
use super::{Expected, Program, Running, write_manifest};

/// For tests that judge times, or are heavy: one at a time.
pub static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A sandbox, a broker, and a directory for a ledger and manifests.
pub struct Scene {
    pub rabbit: Rabbit,
    pub sandbox: Sandbox,
    pub directory: tempfile::TempDir,
}

impl Scene {
    /// On the node that the tests of this process share.
    pub async fn with(options: Options) -> Self {
        Self::on(Rabbit::shared().await, options).await
    }

    /// On a node of its own, which may be killed and set otherwise.
    pub async fn with_own_node(options: Options) -> Self {
        Self::on(Rabbit::start().await, options).await
    }

    pub async fn with_tls(options: Options) -> Self {
        Self::on(Rabbit::start_with_tls().await, options).await
    }

    async fn on(rabbit: Rabbit, options: Options) -> Self {
        let sandbox = Sandbox::start(options).await.unwrap();
        Self { rabbit, sandbox, directory: tempfile::tempdir().unwrap() }
    }

    pub fn program(&self) -> Program {
        Program::new(self.directory.path(), &self.sandbox).with("EMBOSSER__RABBITMQ__URL", &self.rabbit.url())
    }

    pub fn worker(&self, rate: &str) -> Running {
        self.program().spawn(&["worker", "--rate", rate])
    }

    pub async fn manifest(&self, rows: usize) -> Expected {
        write_manifest(&self.directory.path().join("cards.csv"), &self.sandbox, rows).await
    }

    pub fn broker(&self) -> Broker {
        Broker::new(&RabbitmqConfig { url: self.rabbit.url().as_str().into(), ..RabbitmqConfig::default() })
            .unwrap()
    }

    pub async fn cards(&self, at_least: usize) {
        let began = Instant::now();
        while self.sandbox.account().cards.len() < at_least {
            assert!(
                began.elapsed() < Duration::from_secs(90),
                "{} cards",
                self.sandbox.account().cards.len()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Messages in every queue, once those in hand had time to be acknowledged.
    pub async fn left_in_queues(&self) -> BTreeMap<String, u32> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let broker = self.broker();
        let connection = broker.connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let mut left = BTreeMap::new();
        for queue in broker.topology.queues() {
            let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
            let state = channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await;
            let messages = state.unwrap().message_count();
            if messages > 0 {
                left.insert(queue, messages);
            }
        }
        connection.close(200, "done".into()).await.unwrap();
        left
    }

    /// Publishes a job, or something else, to the jobs queue.
    pub async fn publish(&self, body: &[u8], properties: BasicProperties) {
        let broker = self.broker();
        let key = broker.topology.jobs.clone();
        let publisher = Publisher::new(broker, "test");
        publisher.publish(&Message { exchange: "", key: &key, body, properties }).await.unwrap();
        publisher.close().await;
    }

    /// Listens to every result from now on.
    pub async fn listen(&self) -> Listener {
        self.listen_to("#").await
    }

    /// Listens to the results under these routing keys from now on.
    pub async fn listen_to(&self, keys: &str) -> Listener {
        let broker = self.broker();
        let publisher = Publisher::new(broker.clone(), "test");
        publisher.connect().await.unwrap();
        publisher.close().await;
        let connection = broker.connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { exclusive: true, ..Default::default() };
        channel.queue_declare("listener".into(), options, FieldTable::default()).await.unwrap();
        let results = broker.topology.results.as_str().into();
        let bound = QueueBindOptions::default();
        channel
            .queue_bind("listener".into(), results, keys.into(), bound, FieldTable::default())
            .await
            .unwrap();
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume("listener".into(), "".into(), options, FieldTable::default())
            .await
            .unwrap();
        Listener { consumer, _connection: connection }
    }

    /// Messages in a queue; none if there is no such queue.
    pub async fn messages(&self, queue: &str) -> Option<u32> {
        let connection = self.broker().connect("test").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let state = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        let _ = connection.close(200, "done".into()).await;
        state.ok().map(|state| state.message_count())
    }
}

/// Somebody who listens.
pub struct Listener {
    pub consumer: Consumer,
    _connection: Connection,
}

impl Listener {
    /// The next result, as it was published.
    pub async fn raw(&mut self) -> Vec<u8> {
        let delivery = tokio::time::timeout(Duration::from_secs(60), self.consumer.next()).await;
        let delivery = delivery.expect("a job is answered").unwrap().unwrap();
        delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        delivery.data
    }

    /// The next result.
    pub async fn event(&mut self) -> ResultEvent {
        serde_json::from_slice(&self.raw().await).unwrap()
    }

    /// The next result is a refusal with this code.
    pub async fn refused(&mut self) -> String {
        let event = self.event().await;
        assert!(event.card.is_none(), "{event:?}");
        event.error.unwrap().code.into_owned()
    }
}
