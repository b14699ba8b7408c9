//! What the ledger keeps of a job that waits for its PIN: what is asked for, without any PIN.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outbox::EventWanted;
use crate::clock::Time;
use crate::job::{Batch, Job, JobId, Place};
use crate::operation::{Operation, Request};
use crate::pin::PinJwe;

/// The job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Awaiting {
    pub(super) batch: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) row: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) row_id: Option<String>,
    operation: String,
    /// Stripe's parameters.
    card: Value,
    /// Those of the cardholder who is created first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cardholder: Option<Value>,
    /// The card that is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<i64>,
    pub(super) since_ms: i64,
    /// Whether its latest link was delivered to whoever sends it to the cardholder.
    #[serde(default)]
    pub(super) is_delivered: bool,
    /// Its latest link's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    /// The latest run with `--reconcile-first` when it began to wait; none if that run itself had it wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reconciled: Option<String>,
    /// Who is told of its end by an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<EventWanted>,
}

/// A job that waits.
#[derive(Debug)]
pub struct Waits {
    id: JobId,
    batch: Batch,
    place: Option<Place>,
    request: Request,
    cardholder: Option<Request>,
    deadline: Option<Time>,
    /// Since when.
    pub since: Time,
    /// The year in which its cardholder was born, where that is known.
    pub birth_year: Option<String>,
}

impl Awaiting {
    pub(super) fn of(job: &Job, since_ms: i64, link: Option<String>, is_delivered: bool) -> Self {
        Self {
            batch: job.batch.to_string(),
            row: job.place.as_ref().map(|place| place.row),
            row_id: job.place.as_ref().and_then(|place| place.row_id.clone()),
            operation: job.request.operation().word().to_owned(),
            card: job.request.to_json(),
            cardholder: job.cardholder.as_ref().map(|first| first.to_json()),
            card_id: job.request.target.clone(),
            deadline_ms: job.deadline.map(Time::unix_ms),
            since_ms,
            is_delivered,
            link,
            reconciled: None,
            event: None,
        }
    }

    pub(super) fn of_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialise")
    }

    /// As a job again; none if this embosser does not understand it.
    pub(super) fn waits(self, id: &JobId) -> Option<Waits> {
        let operation = Operation::of_word(&self.operation)?;
        let birth =
            |person: &Value| person["individual"]["dob"]["year"].as_u64().map(|year| format!("{year:04}"));
        let mut request = Request::from_json(operation, &self.card).ok()?;
        if let Some(card) = self.card_id {
            request = request.with_target(card);
        }
        let first =
            self.cardholder.as_ref().map(|first| Request::from_json(Operation::CreateCardholder, first));
        Some(Waits {
            id: id.clone(),
            batch: Batch::new(self.batch).ok()?,
            place: self.row.map(|row| Place { row, row_id: self.row_id }),
            request,
            birth_year: self.cardholder.as_ref().and_then(birth),
            cardholder: first.transpose().ok()?,
            deadline: self.deadline_ms.map(Time::from_unix_ms),
            since: Time::from_unix_ms(self.since_ms),
        })
    }
}

impl Waits {
    /// Whether it changes a card that exists, and which.
    #[must_use]
    pub fn changes(&self) -> Option<&str> {
        self.request.target.as_deref()
    }

    /// The cardholder of its new card, if that is one whom Stripe knows.
    #[must_use]
    pub fn cardholder(&self) -> Option<&str> {
        self.request.value("cardholder")
    }

    /// The job, with its PIN, or without one to go on waiting.
    #[must_use]
    pub fn into_job(self, pin: Option<PinJwe>) -> Job {
        let mut job = Job::new(self.id, self.batch, self.place, self.request, pin);
        if let Some(cardholder) = self.cardholder {
            job = job.after(cardholder);
        }
        job.deadline = self.deadline;
        job
    }
}
