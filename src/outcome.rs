//! How a job ended.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A card that Stripe made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResultCard")]
pub struct Card {
    /// Stripe's id, `ic_…`.
    pub id: String,
    /// The last four digits of its number.
    pub last4: String,
    /// Month of expiry, 1 to 12.
    pub exp_month: u32,
    /// Year of expiry.
    pub exp_year: u32,
}

/// Why no card was or will be made for a job, as its sender should read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResultError")]
pub struct Refusal {
    /// A code to switch on: one of embosser's own (listed in the README), or Stripe's.
    pub code: Cow<'static, str>,
    /// A sentence for people.
    pub message: String,
}

impl Refusal {
    /// One of embosser's own refusals.
    #[must_use]
    pub fn own(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), message: message.into() }
    }
}

/// What became of a job, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is exactly one card for the job: this one.
    Issued(Card),
    /// There is no card for the job.
    Refused(Refusal),
    /// Whether there is a card is not known yet; the job must be run again.
    Unresolved(Refusal),
}

impl Ended {
    /// The end of a row or a message that made no job: nothing was called for it.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            outcome: Outcome::Refused(refusal),
            attempts: 0,
            request_id: None,
            recorded_before: false,
            note: None,
        }
    }
}

impl Outcome {
    /// The word in results, events and metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::Refused(_) => "refused",
            Self::Unresolved(_) => "unresolved",
        }
    }
}

/// A job's outcome with what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What became of it.
    pub outcome: Outcome,
    /// Calls made for it in all runs together.
    pub attempts: u32,
    /// Stripe's id of the request that decided it.
    pub request_id: Option<String>,
    /// Whether the ledger already knew, so that nothing was done this time.
    pub recorded_before: bool,
    /// What a reader must know beside it: what was wanted later and not applied, for instance.
    pub note: Option<String>,
}
