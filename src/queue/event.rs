//! A result as an event: what became of a job, for whoever listens. No PIN is in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::{Job, Place};
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
    pub card: Option<ResultCard>,
    /// Why not, if refused.
    pub error: Option<ResultError>,
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

/// A card that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultCard {
    /// Stripe's id.
    pub id: String,
    /// The last four digits of its number.
    pub last4: String,
    /// Month of expiry.
    pub exp_month: u32,
    /// Year of expiry.
    pub exp_year: u32,
}

/// Why there is no card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultError {
    /// A code to switch on.
    pub code: String,
    /// A sentence for people.
    pub message: String,
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

    fn event(self, outcome: ResultOutcome) -> ResultEvent {
        let (row, row_id) = self.place.map_or((None, None), |place| (Some(place.row), place.row_id));
        ResultEvent {
            id: self.id,
            batch: self.batch,
            outcome,
            card: None,
            error: None,
            attempts: 0,
            request_id: None,
            row,
            row_id,
            note: None,
        }
    }

    /// The event of a card.
    #[must_use]
    pub fn issued(self, card: &Card, ended: &Ended) -> ResultEvent {
        let mut event = self.event(ResultOutcome::Issued);
        event.card = Some(ResultCard {
            id: card.id.clone(),
            last4: card.last4.clone(),
            exp_month: card.exp_month,
            exp_year: card.exp_year,
        });
        event.attempts = ended.attempts;
        event.request_id.clone_from(&ended.request_id);
        event.note.clone_from(&ended.note);
        event
    }

    /// The event of a refusal.
    #[must_use]
    pub fn refused(self, refusal: &Refusal) -> ResultEvent {
        let mut event = self.event(ResultOutcome::Refused);
        event.error = Some(ResultError { code: refusal.code.to_string(), message: refusal.message.clone() });
        event
    }
}

impl ResultEvent {
    /// `OUTCOME.BATCH`. A routing key has at most 255 bytes, so a long batch's name is cut.
    #[must_use]
    pub fn routing_key(&self) -> String {
        Self::routing_key_of(self.outcome, self.batch.as_deref())
    }

    /// The same, for whoever listens for a batch.
    #[must_use]
    pub fn routing_key_of(outcome: ResultOutcome, batch: Option<&str>) -> String {
        const BATCH_BYTES_MAX: usize = 240;
        let outcome = match outcome {
            ResultOutcome::Issued => "issued",
            ResultOutcome::Refused => "refused",
        };
        let batch = batch.unwrap_or("unknown");
        format!("{outcome}.{}", &batch[..batch.floor_char_boundary(BATCH_BYTES_MAX)])
    }

    /// As the line would have told it.
    #[must_use]
    pub fn into_ended(self) -> Ended {
        let outcome = match (self.outcome, self.card, self.error) {
            (ResultOutcome::Issued, Some(card), _) => Outcome::Issued(Card {
                id: card.id,
                last4: card.last4,
                exp_month: card.exp_month,
                exp_year: card.exp_year,
            }),
            (_, _, Some(error)) => {
                Outcome::Refused(Refusal { code: error.code.into(), message: error.message })
            }
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
