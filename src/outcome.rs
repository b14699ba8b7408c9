//! How a job ended.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A link by which a cardholder chooses a PIN: a whole address. Whoever has it may use it, so it is shown only where it is
/// given out.
#[derive(Clone, PartialEq, Eq)]
pub struct PinLink(Zeroizing<String>);

impl PinLink {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The address, for whoever sends it to the cardholder.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for PinLink {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PinLink {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for PinLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PinLink(redacted)")
    }
}

/// What a job yielded at Stripe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A new card.
    Issued(Card),
    /// A card that was changed, as it is now.
    Updated(Card),
    /// A new cardholder.
    Created(Cardholder),
}

impl Output {
    /// The word in results, events and metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Issued(_) => "issued",
            Self::Updated(_) => "updated",
            Self::Created(_) => "created",
        }
    }

    /// Stripe's id of what was made or changed.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Issued(card) | Self::Updated(card) => &card.id,
            Self::Created(cardholder) => &cardholder.id,
        }
    }

    /// Stripe's id of the cardholder that it is, or whose card it is, if that is known.
    #[must_use]
    pub fn cardholder(&self) -> Option<&str> {
        match self {
            Self::Issued(card) | Self::Updated(card) => card.cardholder.as_deref(),
            Self::Created(cardholder) => Some(&cardholder.id),
        }
    }

    /// The card, if it is one.
    #[must_use]
    pub fn card(&self) -> Option<&Card> {
        match self {
            Self::Issued(card) | Self::Updated(card) => Some(card),
            Self::Created(_) => None,
        }
    }
}

/// A cardholder that Stripe made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ResultCardholder")]
pub struct Cardholder {
    /// Stripe's id, `ich_…`.
    pub id: String,
    /// `active` or `inactive`.
    pub status: Option<String>,
    /// What Stripe still needs to know before a card can be active, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<String>,
}

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
    /// Whose it is, `ich_…`; none if that was not kept, as by versions before the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cardholder: Option<String>,
    /// What a change of it asked for, by its parameters' names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// Why a job has no effect, as its sender should read it.
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

    /// Whether somebody cancelled it before it had begun: neither Stripe nor embosser refused it then.
    #[must_use]
    pub fn is_cancellation(&self) -> bool {
        self.code == "cancelled"
    }

    /// Its code as a metric's label: embosser's own as they are, and one word for Stripe's, which are many and not ours.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self.code {
            Cow::Borrowed(own) => own,
            Cow::Owned(_) => "stripe",
        }
    }
}

/// What became of a job, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The job had its effect, exactly once: this.
    Done(Output),
    /// The job has no effect.
    Refused(Refusal),
    /// Whether it had its effect is not known yet; the job must be run again.
    Unresolved(Refusal),
    /// It has no effect yet: its cardholder is to choose the PIN. The link for that, where it was made just now.
    AwaitingPin(Option<PinLink>),
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
            Self::Done(output) => output.word(),
            Self::Refused(_) => "refused",
            Self::Unresolved(_) => "unresolved",
            Self::AwaitingPin(_) => "awaiting_pin",
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
