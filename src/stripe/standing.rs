//! How a card, a design or the account stands at Stripe, for a look before anything is done.

use serde::Deserialize;

use crate::clock::Time;
use crate::operation::Individual;
use crate::shipping::Shipping;

/// How something stands, as Stripe tells it.
pub(super) trait Standing: serde::de::DeserializeOwned {
    /// It was told then, by Stripe's clock.
    fn was_told(&mut self, _at: Option<Time>) {}
}

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
    individual: Option<Individual>,
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

impl Standing for CardStanding {
    fn was_told(&mut self, at: Option<Time>) {
        self.told = at;
    }
}

impl Standing for Design {}
impl Standing for AccountStanding {}

impl CardStanding {
    /// The year in which its cardholder was born, in four digits, if that is told.
    #[must_use]
    pub fn birth_year(&self) -> Option<String> {
        self.cardholder.individual.as_ref()?.birth_year()
    }

    /// Where its cardholder lives, in two capital letters, if that is told.
    #[must_use]
    pub fn country(&self) -> Option<&str> {
        self.cardholder.billing.address.country.as_deref()
    }
}

/// A personalization design, with its physical bundle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Design {
    /// `active`, `inactive`, `rejected` or `review`.
    pub status: String,
    physical_bundle: Bundle,
}

/// As it is expanded, or its id alone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Bundle {
    Whole { features: Features },
    Id(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Features {
    second_line: Option<SecondLine>,
}

/// Whether a card may have a second line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondLine {
    /// It may.
    Optional,
    /// It must.
    Required,
    /// It cannot.
    Unsupported,
    /// What later versions of the API may say.
    #[serde(other)]
    Other,
}

impl Design {
    /// Whether its cards may have a second line, if that is told.
    #[must_use]
    pub fn second_line(&self) -> Option<SecondLine> {
        match &self.physical_bundle {
            Bundle::Whole { features } => features.second_line,
            Bundle::Id(_) => None,
        }
    }
}

/// The account, as far as it issues cards.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccountStanding {
    #[serde(default)]
    capabilities: Capabilities,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Capabilities {
    card_issuing: Option<String>,
}

impl AccountStanding {
    /// `active`, `inactive` or `pending`, if that is told.
    #[must_use]
    pub fn card_issuing(&self) -> Option<&str> {
        self.capabilities.card_issuing.as_deref()
    }
}

/// What asking for one came to.
#[derive(Debug)]
pub enum StandingAnswer<T = CardStanding> {
    /// It is there.
    Found(Box<T>),
    /// This account has none of that id.
    Missing,
    /// It could not be had, and why.
    Failed(String),
}
