//! How a card stands at Stripe, for a look before anything is done.

use serde::Deserialize;

use crate::clock::Time;
use crate::shipping::Shipping;

/// A card, as far as that matters.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CardStanding {
    /// `active`, `inactive` or `canceled`.
    pub status: String,
    /// `virtual` or `physical`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The last four digits of its number.
    #[serde(default)]
    pub last4: String,
    /// The card that replaced it, if one did.
    #[serde(default)]
    pub replaced_by: Option<serde::de::IgnoredAny>,
    /// Where it is on its way, if it is physical.
    #[serde(default)]
    pub shipping: Option<Shipping>,
    /// When it stood so, by Stripe's clock.
    #[serde(skip)]
    pub told: Option<Time>,
    #[serde(default)]
    cardholder: Cardholder,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Cardholder {
    billing: Billing,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Billing {
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
struct Address {
    country: Option<String>,
}

impl CardStanding {
    /// Where its cardholder lives, in two capital letters, if that is told.
    #[must_use]
    pub fn country(&self) -> Option<&str> {
        self.cardholder.billing.address.country.as_deref()
    }
}

/// What asking for one came to.
#[derive(Debug)]
pub enum StandingAnswer {
    /// It is there.
    Found(Box<CardStanding>),
    /// This account has no such card.
    Missing,
    /// It could not be had, and why.
    Failed(String),
}
