//! What is told to the broker about a delivery: decided here, in one place, and done in one order.
//!
//! The order is always: result event confirmed, or the retry confirmed, and then the acknowledgement. A crash in between
//! repeats an event or a delivery, and loses none.

use std::time::Duration;

use lapin::Acker;
use lapin::BasicProperties;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::Worker;
use super::event::{Named, ResultEvent};
use crate::broker::publisher::{Message, Route};
use crate::metrics;
use crate::outcome::{Ended, Outcome};

/// How often a job has waited on the ladder.
pub(super) const WAITS_HEADER: &str = "embosser-waits";
/// Before when it need not be tried again, in milliseconds since the Unix epoch.
pub(super) const NOT_BEFORE_HEADER: &str = "embosser-not-before";
/// The manifest's row that a job came from, and that row's own id.
pub(crate) const ROW_HEADER: &str = "embosser-row";
/// See [`ROW_HEADER`].
pub(crate) const ROW_ID_HEADER: &str = "embosser-row-id";
/// Between two tries to publish what the broker does not take: somebody's results queue is full.
const NOT_TAKEN_WAIT: Duration = Duration::from_secs(1);

/// What becomes of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// Its job has ended: the event, and then the message is done with.
    Answer(Box<ResultEvent>),
    /// Its end is not known yet: again after a wait on the ladder.
    Retry,
    /// It was never begun: the next worker takes it.
    HandBack,
}

/// Decides it from how the job ended; `None` if the line stopped before it began.
pub(super) fn settlement(named: Named, ended: Option<&Ended>) -> Settlement {
    let Some(ended) = ended else { return Settlement::HandBack };
    match &ended.outcome {
        Outcome::Issued(_) | Outcome::Refused(_) => {
            named.ended(ended).map_or(Settlement::Retry, |event| Settlement::Answer(Box::new(event)))
        }
        Outcome::Unresolved(_) => Settlement::Retry,
    }
}

/// A message, as it must be published again for a retry.
pub(super) struct Original<'m> {
    pub(super) body: &'m [u8],
    pub(super) properties: &'m BasicProperties,
}

impl Worker {
    /// Does it.
    pub(super) async fn settle(&self, settlement: Settlement, original: Original<'_>, acker: &Acker) {
        match settlement {
            Settlement::Answer(event) => {
                self.tell(&event).await;
                metrics::settled("answered");
                ack(acker).await;
            }
            Settlement::Retry => match self.retry(original).await {
                Ok(()) => {
                    metrics::settled("retried");
                    ack(acker).await;
                }
                Err(()) => hand_back(acker).await,
            },
            Settlement::HandBack => hand_back(acker).await,
        }
    }

    /// Publishes the event until the broker has it.
    pub(super) async fn tell(&self, event: &ResultEvent) {
        let body = serde_json::to_vec(event).expect("an event is plain strings and numbers");
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id(event.id.as_deref().unwrap_or_default().into());
        let key = event.routing_key();
        let message = Message {
            exchange: &self.broker.topology.results,
            key: &key,
            route: Route::Anybody,
            body: &body,
            properties,
        };
        while let Err(reason) = self.publisher.publish(&message).await {
            tracing::warn!(%reason, "a result event is not taken; trying again");
            tokio::time::sleep(NOT_TAKEN_WAIT).await;
        }
    }

    /// Puts the job on the next rung of the ladder.
    async fn retry(&self, original: Original<'_>) -> Result<(), ()> {
        let mut headers = original.properties.headers().clone().unwrap_or_default();
        let waits = number(&headers, WAITS_HEADER).unwrap_or(0);
        let (queue, time) = self.broker.topology.rung(usize::try_from(waits).unwrap_or(0));
        let not_before = self.line.parts().clock.now().plus(time).unix_ms();
        headers.insert(WAITS_HEADER.into(), AMQPValue::LongLongInt(waits.saturating_add(1)));
        headers.insert(NOT_BEFORE_HEADER.into(), AMQPValue::LongLongInt(not_before));
        let message = Message {
            exchange: "",
            key: &queue,
            route: Route::Mandatory,
            body: original.body,
            properties: original.properties.clone().with_headers(headers),
        };
        let taken = self.publisher.publish(&message).await;
        if let Err(reason) = taken {
            tracing::warn!(%reason, queue, "a retry is not taken; the job goes back to its queue");
            // Not at once: what is handed back comes again within a millisecond.
            tokio::time::sleep(NOT_TAKEN_WAIT).await;
            return Err(());
        }
        Ok(())
    }
}

/// A whole number in a message's headers.
pub(super) fn number(headers: &FieldTable, name: &str) -> Option<i64> {
    match headers.inner().get(name)? {
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        _ => None,
    }
}

/// A text in a message's headers.
pub(super) fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// One that comes too late is no error: the message comes again, and its job is recognised.
pub(super) async fn ack(acker: &Acker) {
    if !matches!(acker.ack(BasicAckOptions::default()).await, Ok(true)) {
        metrics::ack_lost();
    }
}

async fn hand_back(acker: &Acker) {
    metrics::settled("handed_back");
    let options = BasicNackOptions { requeue: true, ..Default::default() };
    let _ = acker.nack(options).await;
}
