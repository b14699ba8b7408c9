//! A job on its way to the queue: what those who publish jobs have in common.
//!
//! Its body holds a PIN's ciphertext: it is wiped when it is dropped.

use std::ops::ControlFlow;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use tracing::Instrument as _;
use zeroize::Zeroizing;

use super::delivery::{ACCOUNT_HEADER, MODE_HEADER, ROW_HEADER, ROW_ID_HEADER, ROWS_HEADER};
use super::publisher::{Message, NotTaken, Publisher};
use crate::intake::document::{JobDocument, RequestJson};
use crate::job::{Job, JobId};
use crate::operation::{Operation, Request};
use crate::trace;

/// A job as it is published.
pub struct Outgoing {
    id: JobId,
    headers: FieldTable,
    body: Zeroizing<Vec<u8>>,
}

impl Outgoing {
    /// Writes the job down.
    #[must_use]
    pub fn of(mut job: Job) -> Self {
        let mut headers = FieldTable::default();
        if let Some(place) = &job.place {
            let number = i64::try_from(place.row).unwrap_or(i64::MAX);
            headers.insert(ROW_HEADER.into(), AMQPValue::LongLongInt(number));
            if let Some(row_id) = &place.row_id {
                let row_id = AMQPValue::LongString(LongString::from(row_id.as_str()));
                headers.insert(ROW_ID_HEADER.into(), row_id);
            }
        }
        let pin = job.pin.take().or_else(|| job.request.take_pin());
        let mut request = job.request.to_json();
        if let Some(pin) = &pin {
            request["pin"] = serde_json::json!({ "encrypted_number": pin.expose() });
        }
        let operation = job.request.operation();
        let (card, cardholder) = match operation {
            Operation::CreateCardholder => (None, Some(request)),
            Operation::CreateCard | Operation::UpdateCard => {
                (Some(request), job.cardholder.as_deref().map(Request::to_json))
            }
        };
        let deadline = job.deadline.and_then(|time| jiff::Timestamp::from_millisecond(time.unix_ms()).ok());
        let document = JobDocument {
            id: job.id.to_string(),
            batch: Some(job.batch.to_string()),
            operation: Some(operation.into()),
            deadline: deadline.map(|time| time.to_string()),
            stripe_account: None,
            card: card.map(RequestJson::from),
            cardholder: cardholder.map(RequestJson::from),
            card_id: job.request.target.clone(),
        };
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        serde_json::to_writer(&mut *body, &document).expect("a job is plain strings and numbers");
        Self { id: job.id, headers, body }
    }

    /// Says how many rows of its manifest are published, for whoever looks how far they have come.
    #[must_use]
    pub fn among(mut self, rows: u64) -> Self {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.headers.insert(ROWS_HEADER.into(), AMQPValue::LongLongInt(rows));
        self
    }

    /// Says which account it is for and whether for `live` or `test` cards, as far as that is known: a worker of another one
    /// refuses it.
    #[must_use]
    pub fn meant_for(mut self, account: Option<&str>, mode: Option<&str>) -> Self {
        for (name, value) in [(ACCOUNT_HEADER, account), (MODE_HEADER, mode)] {
            if let Some(value) = value {
                self.headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
            }
        }
        self
    }

    /// Publishes it, trying again for as long as the broker is away, or the queue is full: `while_full` is called each
    /// time, and may give up.
    ///
    /// # Errors
    /// If no queue takes it, or it was given up.
    pub async fn publish(
        &self,
        publisher: &Publisher,
        while_full: impl FnMut() -> ControlFlow<()>,
    ) -> Result<(), NotTaken> {
        let key = publisher.topology().jobs.as_str();
        let mut headers = self.headers.clone();
        let span = trace::sending(publisher.broker().server(), key, &mut headers, self.body.len());
        let message = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_message_id(self.id.as_str().into())
                .with_timestamp(now.as_secs())
                .with_headers(headers.clone());
            Message { exchange: "", key, body: &self.body, properties }
        };
        publisher.publish_until_taken(message, while_full).instrument(span).await
    }
}

/// What is said where there is no queue of jobs.
#[must_use]
pub fn no_queue(publisher: &Publisher) -> String {
    let name = &publisher.topology().jobs;
    format!("there is no queue {name}; start a worker, or let rabbitmq.declare be true")
}
