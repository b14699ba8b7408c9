//! A result as an event: what became of a job, for whoever listens. No PIN is in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::{Batch, Job, Place};
use crate::ledger::Row;
use crate::outcome::{Card, Cardholder, Ended, Outcome, Output, PinLink, Refusal};

/// What became of a job. Published at least once for each job; a repeated one says the same. After *awaiting PIN* another one comes,
/// with its end. Whoever reads it leaves members
/// aside that it does not know: a newer worker may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultEvent {
    /// The job's id; absent if the message had none that could be read.
    pub id: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
    /// What became of it.
    pub outcome: ResultOutcome,
    /// The card, if one was issued or updated.
    pub card: Option<Card>,
    /// The cardholder, if that is what the job created. Absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cardholder: Option<Cardholder>,
    /// Why not, if refused.
    pub error: Option<Refusal>,
    /// Calls made for it.
    pub attempts: u32,
    /// Stripe's id of the request that decided it.
    pub request_id: Option<String>,
    /// The manifest's row it came from.
    pub row: Option<u64>,
    /// That row's own id.
    pub row_id: Option<String>,
    /// What a reader must know beside the outcome: that the card was made with something else than is asked for now, for
    /// instance. Absent if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The link by which its cardholder chooses the PIN, where it was made for this very event. Whoever has it may use it: it is
    /// for the cardholder alone. Absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub pin_link: Option<PinLink>,
}

/// How a job can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultOutcome {
    /// There is exactly one card.
    Issued,
    /// The card was changed.
    Updated,
    /// There is exactly one cardholder.
    Created,
    /// The job has no effect.
    Refused,
    /// It has none yet: its cardholder is to choose the PIN.
    AwaitingPin,
}

impl ResultOutcome {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Issued, Self::Updated, Self::Created, Self::Refused, Self::AwaitingPin];

    /// The word, as it stands in an event and in its routing key.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Updated => "updated",
            Self::Created => "created",
            Self::Refused => "refused",
            Self::AwaitingPin => "awaiting_pin",
        }
    }
}

/// What names a job in its event, kept while the job itself goes down the line.
#[derive(Debug, Clone, Default)]
pub struct Named {
    /// The job's id.
    pub id: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
    /// Its row.
    pub place: Option<Place>,
}

impl Named {
    /// A job's names.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self { id: Some(job.id.to_string()), batch: Some(job.batch.to_string()), place: job.place.clone() }
    }

    /// Those of the job that this row is of.
    #[must_use]
    pub fn of_row(row: &Row) -> Self {
        let place = row.row.map(|number| Place { row: number, row_id: row.row_id.clone() });
        Self { id: Some(row.id.to_string()), batch: Some(row.batch.to_string()), place }
    }

    /// The event of its end; none while that is not known.
    #[must_use]
    pub fn ended(self, ended: &Ended) -> Option<ResultEvent> {
        let (mut cardholder, mut pin_link) = (None, None);
        let (outcome, card, error) = match &ended.outcome {
            Outcome::Done(Output::Issued(card)) => (ResultOutcome::Issued, Some(card.clone()), None),
            Outcome::Done(Output::Updated(card)) => (ResultOutcome::Updated, Some(card.clone()), None),
            Outcome::Done(Output::Created(made)) => {
                cardholder = Some(made.clone());
                (ResultOutcome::Created, None, None)
            }
            Outcome::Refused(refusal) => (ResultOutcome::Refused, None, Some(refusal.clone())),
            Outcome::AwaitingPin(link) => {
                pin_link.clone_from(link);
                (ResultOutcome::AwaitingPin, None, None)
            }
            Outcome::Unresolved(_) => return None,
        };
        let (row, row_id) = self.place.map_or((None, None), |place| (Some(place.row), place.row_id));
        Some(ResultEvent {
            id: self.id,
            batch: self.batch,
            outcome,
            card,
            cardholder,
            error,
            attempts: ended.attempts,
            request_id: ended.request_id.clone(),
            row,
            row_id,
            note: ended.note.clone(),
            pin_link,
        })
    }
}

impl ResultEvent {
    /// `OUTCOME.BATCH`.
    #[must_use]
    pub fn routing_key(&self) -> String {
        routing_key(self.outcome, self.batch.as_deref().unwrap_or("unknown"))
    }

    /// The keys of all events of a batch.
    #[must_use]
    pub fn routing_keys_of(batch: &Batch) -> [String; 5] {
        ResultOutcome::ALL.map(|outcome| routing_key(outcome, batch.as_str()))
    }

    /// As the line would have told it.
    #[must_use]
    pub fn into_ended(self) -> Ended {
        let output = match (self.outcome, self.card, self.cardholder) {
            (ResultOutcome::Issued, Some(card), _) => Some(Output::Issued(card)),
            (ResultOutcome::Updated, Some(card), _) => Some(Output::Updated(card)),
            (ResultOutcome::Created, _, Some(cardholder)) => Some(Output::Created(cardholder)),
            _ => None,
        };
        let outcome = match (output, self.error) {
            _ if self.outcome == ResultOutcome::AwaitingPin => Outcome::AwaitingPin(self.pin_link),
            (Some(output), _) => Outcome::Done(output),
            (None, Some(refusal)) => Outcome::Refused(refusal),
            (None, None) => Outcome::Refused(Refusal::own("unknown", "the event gives no reason")),
        };
        Ended {
            outcome,
            attempts: self.attempts,
            request_id: self.request_id,
            recorded_before: false,
            note: self.note,
        }
    }
}

/// A routing key has at most 255 bytes, so a long batch's name is cut.
fn routing_key(outcome: ResultOutcome, batch: &str) -> String {
    const BATCH_BYTES_MAX: usize = 240;
    format!("{}.{}", outcome.word(), &batch[..batch.floor_char_boundary(BATCH_BYTES_MAX)])
}
