//! What Stripe can be asked to do, one operation a file: its parameters, what it needs as a whole, where it is sent, how its
//! answer reads, and how an unknown end is found out.
//!
//! One flat list of (parameter, value) pairs in Stripe's bracket form carries a [`Request`] from either intake: a
//! manifest's columns are pairs already, and a job's nested JSON is flattened into them ([`json`]). A [`Declaration`]'s
//! table says what each parameter may hold; [`rules`] what a request needs as a whole; [`schema`] says both as a JSON
//! Schema; [`form`] is the request body. Never: a value in a problem. A new operation is a file here, and its line in
//! [`Operation::declaration`].

mod categories;
mod countries;
mod create_card;
mod create_cardholder;
pub mod currency;
mod form;
mod found;
mod json;
pub(crate) mod kind;
pub mod params;
mod person;
pub(crate) mod pin_words;
mod problem;
mod request;
mod rules;
pub mod schema;
mod update_card;

pub use found::Found;
pub(crate) use person::Individual;
pub(crate) use person::{ADDRESS, Details, plain};
pub use person::{By, Key, Person};
pub use problem::FieldProblem;
pub(crate) use request::may_leave_gaps;
pub use request::{CANCEL_REPLACED, OWN, PIN, PIN_CHOICE, REPLACED_OF_NOBODY, REUSE, Request};
pub use update_card::{CARD_ID, is_card_id};

use kind::Kind;

/// One thing that Stripe can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `POST /v1/issuing/cardholders`
    CreateCardholder,
    /// `POST /v1/issuing/cards`
    CreateCard,
    /// `POST /v1/issuing/cards/{card}`
    UpdateCard,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::CreateCardholder, Self::CreateCard, Self::UpdateCard];

    /// What embosser knows of it.
    #[must_use]
    pub const fn declaration(self) -> &'static Declaration {
        match self {
            Self::CreateCardholder => &create_cardholder::DECLARATION,
            Self::CreateCard => &create_card::DECLARATION,
            Self::UpdateCard => &update_card::DECLARATION,
        }
    }

    /// The word in the ledger, messages and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.declaration().word
    }

    /// What is said of a job whose effect it had: the word in results, events and metrics.
    #[must_use]
    pub const fn done(self) -> &'static str {
        match self {
            Self::CreateCardholder => "created",
            Self::CreateCard => "issued",
            Self::UpdateCard => "updated",
        }
    }

    /// The operation of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.word() == word)
    }
}

/// What embosser knows of an operation.
#[derive(Debug)]
pub struct Declaration {
    /// Its word.
    pub word: &'static str,
    /// What its JSON Schema is called.
    title: &'static str,
    /// What its answer's id begins with.
    pub id_prefix: &'static str,
    /// Every parameter, sorted; `[0]` stands for any index, `[*]` for any metadata key.
    parameters: &'static [(&'static str, Kind)],
    /// Parts that are demanded once anything under their parent is given; "" for always, `[0]` for each index.
    pub(crate) required: &'static [(&'static str, &'static [&'static str])],
    /// Lists of which Stripe takes one ("Cannot be set with …", their descriptions say).
    pub(crate) exclusive: &'static [(&'static str, &'static str)],
    /// The metadata by which its effect is found again: the entry that gets the job's id, and the one for the batch.
    own_metadata: OwnMetadata,
    /// Where it is sent.
    path: fn(&Request) -> String,
    /// Where its effect is looked for while its end is unknown: the narrowest place first, then all there is.
    look: fn(&Request) -> [Place; 2],
    /// Parameters that what was found must share with the request to be its effect.
    shared: &'static [(&'static str, OfFound)],
}

/// A parameter's value, as it was found.
type OfFound = fn(&Found) -> Option<&str>;

/// Entries of metadata that embosser gives itself: their keys, as the body has them.
#[derive(Debug)]
struct OwnMetadata {
    job: &'static str,
    batch: Option<&'static str>,
}

/// Every key of metadata that embosser gives: its users may give none of them.
const METADATA_RESERVED: [&str; 3] = ["embosser_batch", "embosser_change", "embosser_job"];

/// Where an operation's effect can be looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// The cards of a cardholder.
    CardsOf(String),
    /// The account's cards.
    Cards,
    /// One card.
    Card(String),
    /// The cardholders with an e-mail address.
    CardholdersByEmail(String),
    /// The cardholders with a phone number.
    CardholdersByPhone(String),
    /// The account's cardholders.
    Cardholders,
}

impl Declaration {
    /// Entries of metadata that are the user's: Stripe's 50 less embosser's own.
    pub(crate) const fn metadata_entries_max(&self) -> usize {
        let own = if self.own_metadata.batch.is_some() { 2 } else { 1 };
        50 - own
    }

    /// The parts that every request has.
    pub(crate) fn always_required(&self) -> &'static [&'static str] {
        self.required.iter().find(|(parent, _)| parent.is_empty()).map_or(&[], |(_, parts)| *parts)
    }

    /// Whether it can carry a PIN.
    #[must_use]
    pub fn takes_pin(&self) -> bool {
        self.parameters.iter().any(|(name, _)| *name == PIN)
    }
}
