//! What is told to the broker about a delivery: decided here, in one place, and done in one order.
//!
//! The order is always: result event confirmed, or the job confirmed on the ladder, and then the acknowledgement. A
//! crash in between repeats an event or a delivery, and loses none. Never: a PIN in an event.

use std::ops::ControlFlow;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::{Acker, BasicProperties};
use zeroize::Zeroizing;

use super::Worker;
use super::in_flight::{Back, InFlight};
use crate::intake::document;
use crate::job::JobId;
use crate::killpoint;
use crate::metrics;
use crate::outcome::Ended;
use crate::queue::bounded;
use crate::queue::delivery::{Delivery, GivenUp};
use crate::queue::event::{Named, ResultEvent};
use crate::queue::publisher::{Message, NotTaken};
use crate::queue::topology::{RUNG_PARKED, RUNGS};

/// What becomes of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// Its job has ended: the event, and then the message is done with.
    Answer(Box<ResultEvent>),
    /// Its end is not known yet: again, after the next wait of the ladder.
    Retry,
    /// Nobody can do anything for it now: again, after a long wait that is no step of the ladder.
    Park,
    /// It came before its time: again, once this has passed.
    Early(Duration),
    /// It will not be called for any more, but must be looked for at Stripe: by the active worker, without its PIN.
    GiveUp(GivenUp),
    /// The next worker takes it.
    HandBack,
}

/// Decides it from how the job ended, `None` if it had not begun; `back` if it was recalled.
pub(super) fn settlement(named: Named, ended: Option<&Ended>, back: Option<Back>) -> Settlement {
    match (ended.and_then(|ended| named.ended(ended)), ended, back) {
        (Some(event), _, _) => Settlement::Answer(Box::new(event)),
        (None, Some(_), None) => Settlement::Retry,
        (None, _, Some(Back::Ladder)) => Settlement::Park,
        // Without a recall the line stopped by itself; the session ends with it.
        (None, _, Some(Back::Queue)) | (None, None, None) => Settlement::HandBack,
    }
}

impl Worker {
    /// Does it, unless the connection is lost meanwhile: then the message comes again, and its job is known.
    pub(super) async fn settle(&self, in_flight: &InFlight, settlement: Settlement, delivery: Delivery) {
        let _settling = self.ready.unsettled.begin();
        tokio::select! {
            biased;
            () = in_flight.lost.cancelled() => metrics::ack_lost(),
            settled = self.settle_now(settlement, delivery) => {
                // The session begins anew, and with it the queue that was missing is declared.
                if settled.is_err() {
                    in_flight.failed.cancel();
                }
            }
        }
    }

    async fn settle_now(&self, settlement: Settlement, delivery: Delivery) -> Result<(), NotTaken> {
        let now = self.line.parts().clock.now();
        let (word, published) = match settlement {
            Settlement::Answer(event) => {
                if self.publish_event(&event, delivery.correlation().as_deref()).await.is_ok() {
                    self.mark_link_delivered(&event).await;
                }
                ("answered", Ok(()))
            }
            Settlement::Retry => {
                let waits = delivery.waits();
                let properties = delivery.again(waits + 1, now.plus(self.rung(waits).1), now, None);
                ("retried", self.put_on_ladder(waits, &delivery.body, properties).await)
            }
            Settlement::Park => {
                let properties = delivery.again(delivery.waits(), now, now, None);
                ("parked", self.put_on_ladder(RUNG_PARKED, &delivery.body, properties).await)
            }
            Settlement::Early(rest) => {
                let rung = RUNGS.iter().rposition(|(_, wait)| *wait <= rest).unwrap_or(0);
                let properties = delivery.again(delivery.waits(), now.plus(rest), now, None);
                ("early", self.put_on_ladder(rung, &delivery.body, properties).await)
            }
            Settlement::GiveUp(given_up) => {
                let properties = delivery.again(0, now, now, Some(given_up));
                // It was read as a job a moment ago.
                let body = document::without_pin(&delivery.body).unwrap_or_default();
                ("given_up", self.put_on_ladder(0, &body, properties).await)
            }
            Settlement::HandBack => {
                hand_back(&delivery.acker).await;
                return Ok(());
            }
        };
        published?;
        metrics::settled(word);
        killpoint::pass("told");
        ack(&delivery.acker).await;
        killpoint::pass("acknowledged");
        Ok(())
    }

    fn rung(&self, waits: usize) -> (String, Duration) {
        self.broker.topology.rung(waits)
    }

    /// Publishes the event until the broker has it, or somebody would have to listen for that.
    pub(super) async fn publish_event(
        &self,
        event: &ResultEvent,
        correlation: Option<&str>,
    ) -> Result<(), NotTaken> {
        let body = Zeroizing::new(serde_json::to_vec(event).expect("an event is plain strings and numbers"));
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_type("embosser.result".into())
            .with_message_id(event.id.as_deref().unwrap_or_default().into());
        if let Some(correlation) = correlation {
            properties = properties.with_correlation_id(correlation.into());
        }
        let key = event.routing_key();
        let message = Message { exchange: &self.broker.topology.results, key: &key, body: &body, properties };
        // If nobody listens, the ledger has it.
        self.publish(&message).await.inspect_err(|_| metrics::result_unheard())
    }

    /// A link that an event told is not made anew by itself; one that was lost with its connection is.
    async fn mark_link_delivered(&self, event: &ResultEvent) {
        let (Some(_), Some(links)) = (&event.pin_link, &self.line.parts().pin_links) else { return };
        let Some(Ok(id)) = event.id.as_deref().map(JobId::new) else { return };
        if let Err(error) = links.mark_delivered(&id).await {
            tracing::warn!(job = %id, %error, "a link was delivered, and that could not be recorded");
        }
    }

    async fn put_on_ladder(
        &self,
        rung: usize,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), NotTaken> {
        let (queue, _) = self.rung(rung);
        let published = self.publish(&Message { exchange: "", key: &queue, body, properties }).await;
        published.inspect_err(|_| tracing::warn!(queue, "a queue is missing; beginning anew"))
    }

    /// Meanwhile the delivery stays unacknowledged, which is what pushes back on the jobs queue.
    async fn publish(&self, message: &Message<'_>) -> Result<(), NotTaken> {
        self.publisher.publish_until_taken(|| message.clone(), || ControlFlow::Continue(())).await
    }
}

/// One that comes too late is no error: the message comes again, and its job is known.
async fn ack(acker: &Acker) {
    if !matches!(bounded(acker.ack(BasicAckOptions::default())).await, Ok(true)) {
        metrics::ack_lost();
    }
}

async fn hand_back(acker: &Acker) {
    metrics::settled("handed_back");
    let options = BasicNackOptions { requeue: true, ..Default::default() };
    let _ = bounded(acker.nack(options)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Card, Outcome, Output, Refusal};

    fn of(outcome: Outcome, back: Option<Back>) -> Settlement {
        let ended = Ended {
            outcome,
            attempts: 2,
            request_id: Some("req".into()),
            recorded_before: false,
            note: None,
        };
        settlement(Named::default(), Some(&ended), back)
    }

    #[test]
    fn what_has_ended_is_answered_even_if_it_was_recalled() {
        let card = Card {
            id: "ic".into(),
            last4: "1".into(),
            exp_month: 1,
            exp_year: 2030,
            cardholder: None,
            changed: Vec::new(),
        };
        for back in [None, Some(Back::Queue), Some(Back::Ladder)] {
            let issued = of(Outcome::Done(Output::Issued(card.clone())), back);
            assert!(
                matches!(issued, Settlement::Answer(event) if event.attempts == 2 && event.card.is_some())
            );
            let refused = of(Outcome::Refused(Refusal::own("x", "y")), back);
            assert!(
                matches!(refused, Settlement::Answer(event) if event.request_id.as_deref() == Some("req"))
            );
        }
    }

    #[test]
    fn what_has_not_ended_comes_again() {
        let unresolved = || Outcome::Unresolved(Refusal::own("x", "y"));
        assert_eq!(of(unresolved(), None), Settlement::Retry);
        assert_eq!(of(unresolved(), Some(Back::Queue)), Settlement::HandBack);
        assert_eq!(of(unresolved(), Some(Back::Ladder)), Settlement::Park);
        assert_eq!(settlement(Named::default(), None, Some(Back::Ladder)), Settlement::Park);
        assert_eq!(settlement(Named::default(), None, Some(Back::Queue)), Settlement::HandBack);
    }
}
