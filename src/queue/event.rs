//! A result as an event: what became of a job, for whoever listens. No PIN is in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::{Batch, Job, Place};
use crate::outcome::{Card, Ended, Outcome, Refusal};

/// What became of a job. Published at least once for each job; a repeated one says the same. Whoever reads it leaves members
/// aside that it does not know: a newer worker may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultEvent {
    /// The job's id; absent if the message had none that could be read.
    pub id: Option<String>,
    /// Its batch.
    pub batch: Option<String>,
    /// Whether there is a card.
    pub outcome: ResultOutcome,
    /// The card, if issued.
    pub card: Option<Card>,
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
}

/// How a job can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultOutcome {
    /// There is exactly one card.
    Issued,
    /// There is none.
    Refused,
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

    /// The event of its end; none while that is not known.
    #[must_use]
    pub fn ended(self, ended: &Ended) -> Option<ResultEvent> {
        let (outcome, card, error) = match &ended.outcome {
            Outcome::Issued(card) => (ResultOutcome::Issued, Some(card.clone()), None),
            Outcome::Refused(refusal) => (ResultOutcome::Refused, None, Some(refusal.clone())),
            Outcome::Unresolved(_) => return None,
        };
        let (row, row_id) = self.place.map_or((None, None), |place| (Some(place.row), place.row_id));
        Some(ResultEvent {
            id: self.id,
            batch: self.batch,
            outcome,
            card,
            error,
            attempts: ended.attempts,
            request_id: ended.request_id.clone(),
            row,
            row_id,
            note: ended.note.clone(),
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
    pub fn routing_keys_of(batch: &Batch) -> [String; 2] {
        [ResultOutcome::Issued, ResultOutcome::Refused].map(|outcome| routing_key(outcome, batch.as_str()))
    }

    /// As the line would have told it.
    #[must_use]
    pub fn into_ended(self) -> Ended {
        let outcome = match (self.outcome, self.card, self.error) {
            (ResultOutcome::Issued, Some(card), _) => Outcome::Issued(card),
            (_, _, Some(refusal)) => Outcome::Refused(refusal),
            (_, _, None) => Outcome::Refused(Refusal::own("unknown", "the event gives no reason")),
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
    let outcome = match outcome {
        ResultOutcome::Issued => "issued",
        ResultOutcome::Refused => "refused",
    };
    format!("{outcome}.{}", &batch[..batch.floor_char_boundary(BATCH_BYTES_MAX)])
}
