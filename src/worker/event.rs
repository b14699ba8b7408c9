//! A result as an event: what became of a job, for whoever listens. No PIN is in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::job::{Job, Place};
use crate::outcome::{Card, Cardholder, Ended, Outcome, Output, Refusal};

/// What became of a job. Published at least once for each job; a repeated one says the same. Whoever reads it leaves members
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
    pub card: Option<ResultCard>,
    /// The cardholder, if that is what the job created. Absent else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cardholder: Option<ResultCardholder>,
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
    /// The card was changed.
    Updated,
    /// There is exactly one cardholder.
    Created,
    /// The job has no effect.
    Refused,
}

impl ResultOutcome {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Issued, Self::Updated, Self::Created, Self::Refused];

    /// The word, as it stands in an event and in its routing key.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Updated => "updated",
            Self::Created => "created",
            Self::Refused => "refused",
        }
    }
}

/// A cardholder that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultCardholder {
    /// Stripe's id.
    pub id: String,
    /// `active` or `inactive`.
    pub status: Option<String>,
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
            cardholder: None,
            error: None,
            attempts: 0,
            request_id: None,
            row,
            row_id,
            note: None,
        }
    }

    /// The event of what was done.
    #[must_use]
    pub fn done(self, output: &Output, ended: &Ended) -> ResultEvent {
        let mut event = self.event(match output {
            Output::Issued(_) => ResultOutcome::Issued,
            Output::Updated(_) => ResultOutcome::Updated,
            Output::Created(_) => ResultOutcome::Created,
        });
        match output {
            Output::Issued(card) | Output::Updated(card) => {
                event.card = Some(ResultCard {
                    id: card.id.clone(),
                    last4: card.last4.clone(),
                    exp_month: card.exp_month,
                    exp_year: card.exp_year,
                });
            }
            Output::Created(Cardholder { id, status }) => {
                event.cardholder = Some(ResultCardholder { id: id.clone(), status: status.clone() });
            }
        }
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
        let batch = batch.unwrap_or("unknown");
        format!("{}.{}", outcome.word(), &batch[..batch.floor_char_boundary(BATCH_BYTES_MAX)])
    }

    /// As the line would have told it.
    #[must_use]
    pub fn into_ended(self) -> Ended {
        let card = self.card.map(|card| Card {
            id: card.id,
            last4: card.last4,
            exp_month: card.exp_month,
            exp_year: card.exp_year,
        });
        let output = match (self.outcome, card, self.cardholder) {
            (ResultOutcome::Issued, Some(card), _) => Some(Output::Issued(card)),
            (ResultOutcome::Updated, Some(card), _) => Some(Output::Updated(card)),
            (ResultOutcome::Created, _, Some(ResultCardholder { id, status })) => {
                Some(Output::Created(Cardholder { id, status }))
            }
            _ => None,
        };
        let outcome = match (output, self.error) {
            (Some(output), _) => Outcome::Done(output),
            (None, Some(error)) => {
                Outcome::Refused(Refusal { code: error.code.into(), message: error.message })
            }
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
