//! Following a batch to its end by its result events, into a results file.
//!
//! The events wait in a queue of the batch's own, made before its jobs are published, so that none is missed; it outlives
//! a lost connection, and goes away an hour after the last who followed it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, Consumer};

use super::super::Exit;
use crate::broker::{Backoff, Broker};
use crate::job::Batch;
use crate::results::{self, Results};
use crate::worker::event::{ResultEvent, ResultOutcome};

/// How long the queue of events outlives whoever followed it, in milliseconds.
const KEPT_MS: i64 = 3_600_000;
/// Whose cards they are is known to the worker alone.
const SCOPE: &str = "";
/// Between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// How far it has come, for the line of progress.
#[derive(Default)]
struct Counts {
    ended: AtomicU64,
    refused: AtomicU64,
}

async fn show(rows: u64, counts: Arc<Counts>) {
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let (ended, refused) = (counts.ended.load(Ordering::Relaxed), counts.refused.load(Ordering::Relaxed));
        eprintln!("{ended}/{rows} ended, {refused} refused");
    }
}

/// A batch that is followed.
pub(super) struct Following {
    broker: Broker,
    batch: Batch,
    rows: u64,
    results: Results,
    results_path: PathBuf,
    seen: HashSet<String>,
    refused: u64,
    counts: Arc<Counts>,
    consumer: Option<(Connection, Consumer)>,
}

impl Following {
    /// Makes the queue of the batch's events.
    pub(super) async fn begin(
        broker: Broker,
        batch: &Batch,
        rows: u64,
        results_path: &Path,
    ) -> Result<Self, String> {
        let results = Results::create(results_path, SCOPE)
            .map_err(|error| format!("results file {}: {error}", results_path.display()))?;
        let consumer = Some(subscribe(&broker, batch).await?);
        let (batch, results_path) = (batch.clone(), results_path.to_owned());
        Ok(Self {
            broker,
            batch,
            rows,
            results,
            results_path,
            seen: HashSet::new(),
            refused: 0,
            counts: Arc::default(),
            consumer,
        })
    }

    /// Waits until every row that was published has ended.
    pub(super) async fn until_all_ended(mut self, published: u64) -> Result<Exit, String> {
        self.rows = published;
        let shown = tokio::spawn(show(self.rows, self.counts.clone()));
        let followed = tokio::select! {
            // Only the end of all drops this half way: an event that was acknowledged must not be lost.
            followed = self.follow() => Some(followed),
            _ = tokio::signal::ctrl_c() => None,
        };
        shown.abort();
        let Some(followed) = followed else {
            self.results.finish().map_err(|error| format!("{}: {error}", self.results_path.display()))?;
            eprintln!(
                "stopped waiting; the jobs go on. Run the same command again for the results: nothing is issued twice"
            );
            return Ok(Exit::Unfinished);
        };
        followed?;
        let issued = self.seen.len() as u64 - self.refused;
        self.results.finish().map_err(|error| format!("{}: {error}", self.results_path.display()))?;
        if let Some((connection, _)) = self.consumer {
            let _ = connection.close(200, "done".into()).await;
        }
        println!("{} rows ended: {issued} issued, {} refused.", self.rows, self.refused);
        println!("Results: {}", self.results_path.display());
        Ok(if self.refused > 0 { Exit::Refused } else { Exit::Success })
    }

    async fn follow(&mut self) -> Result<(), String> {
        while (self.seen.len() as u64) < self.rows {
            let event = self.next().await;
            self.take(event)?;
            self.counts.ended.store(self.seen.len() as u64, Ordering::Relaxed);
            self.counts.refused.store(self.refused, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next event, over a new connection where the old one was lost.
    async fn next(&mut self) -> ResultEvent {
        let mut backoff = Backoff::default();
        loop {
            if let Some((_, consumer)) = &mut self.consumer {
                if let Some(Ok(delivery)) = consumer.next().await {
                    let event = serde_json::from_slice(&delivery.data);
                    let _ = delivery.acker.ack(BasicAckOptions::default()).await;
                    match event {
                        Ok(event) => return event,
                        Err(_) => continue,
                    }
                }
                self.consumer = None;
            }
            match subscribe(&self.broker, &self.batch).await {
                Ok(consumer) => self.consumer = Some(consumer),
                Err(reason) => {
                    tracing::warn!(reason, "the results cannot be followed; trying again");
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        }
    }

    fn take(&mut self, event: ResultEvent) -> Result<(), String> {
        let (Some(id), Some(row)) = (event.id.clone(), event.row) else { return Ok(()) };
        // A topic's pattern may match more than this batch, and an event may come twice.
        if event.batch.as_deref() != Some(self.batch.as_str()) || !self.seen.insert(id.clone()) {
            return Ok(());
        }
        self.refused += u64::from(event.outcome == ResultOutcome::Refused);
        let row_id = event.row_id.clone();
        let ended = event.into_ended();
        let line = results::Line { row, row_id: row_id.as_deref(), job_id: &id, ended: &ended, scope: SCOPE };
        self.results.append(&line).map_err(|error| format!("{}: {error}", self.results_path.display()))
    }
}

async fn subscribe(broker: &Broker, batch: &Batch) -> Result<(Connection, Consumer), String> {
    let failed = |error: lapin::Error| error.to_string();
    let connection = broker.connect("embosser submit: following").await?;
    let channel = connection.create_channel().await.map_err(failed)?;
    let topology = &broker.topology;
    topology.ensure(&channel).await.map_err(failed)?;
    let queue = topology.following(batch.as_str());
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongLongInt(KEPT_MS));
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.as_str().into(), options, arguments).await.map_err(failed)?;
    for outcome in [ResultOutcome::Issued, ResultOutcome::Refused] {
        let key = ResultEvent::routing_key_of(outcome, Some(batch.as_str()));
        let bound = channel.queue_bind(
            queue.as_str().into(),
            topology.results.as_str().into(),
            key.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.map_err(failed)?;
    }
    let consumer = channel
        .basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(failed)?;
    Ok((connection, consumer))
}
