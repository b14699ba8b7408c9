//! What Stripe's objects tell: a card or a cardholder, and by which job it was made or changed.

use serde::Deserialize;

use super::person::{Billing, Details, Individual, Private};
use super::{Operation, Person};
use crate::outcome::{Card, Cardholder, Output};

/// An object of Stripe's, as far as embosser reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Found {
    /// Its id, `ic_…` or `ich_…`.
    pub id: String,
    #[serde(default, deserialize_with = "or_nothing")]
    last4: String,
    #[serde(default, deserialize_with = "or_nothing")]
    exp_month: u32,
    #[serde(default, deserialize_with = "or_nothing")]
    exp_year: u32,
    /// A card's `type`, `virtual` or `physical`; or a cardholder's.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// A card's currency, in small letters.
    pub currency: Option<String>,
    /// `active`, `inactive` and the like.
    pub status: Option<String>,
    /// A card's cardholder, `ich_…`.
    #[serde(default, deserialize_with = "id_of")]
    pub cardholder: Option<String>,
    /// When it was made, by Stripe's clock, in Unix seconds.
    pub created: Option<i64>,
    /// Embosser's entries of its metadata. Where there is nothing in it there is none of ours.
    #[serde(default, deserialize_with = "or_nothing")]
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "if_readable")]
    name: Option<Private>,
    #[serde(default, deserialize_with = "if_readable")]
    email: Option<Private>,
    #[serde(default, deserialize_with = "if_readable")]
    phone_number: Option<Private>,
    #[serde(default, deserialize_with = "if_readable")]
    billing: Option<Billing>,
    #[serde(default, deserialize_with = "if_readable")]
    requirements: Option<Requirements>,
    #[serde(default, deserialize_with = "if_readable")]
    individual: Option<Individual>,
}

/// What Stripe still needs to know of a cardholder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
struct Requirements {
    #[serde(default)]
    past_due: Option<Vec<String>>,
}

/// Only the entries that are ours are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Metadata {
    /// The job that made it.
    #[serde(rename = "embosser_job")]
    pub job: Option<String>,
    /// The batch of that job.
    #[serde(rename = "embosser_batch")]
    pub batch: Option<String>,
    /// The job of its latest change.
    #[serde(rename = "embosser_change")]
    pub change: Option<String>,
}

impl Found {
    /// The year in which a cardholder was born, in four digits, if that is known.
    #[must_use]
    pub fn birth_year(&self) -> Option<String> {
        self.individual.as_ref()?.birth_year()
    }

    /// The job whose effect it is, of an operation.
    #[must_use]
    pub fn job(&self, operation: Operation) -> Option<&str> {
        match operation {
            Operation::CreateCard | Operation::CreateCardholder => self.metadata.job.as_deref(),
            Operation::UpdateCard => self.metadata.change.as_deref(),
        }
    }

    /// What the operation yielded; `changed`: what a change asked for.
    #[must_use]
    pub fn output(&self, operation: Operation, changed: Vec<String>) -> Output {
        match operation {
            Operation::CreateCardholder => {
                let (id, status) = (self.id.clone(), self.status.clone());
                Output::Created(Cardholder { id, status, needs: self.needs() })
            }
            Operation::CreateCard => Output::Issued(self.card()),
            Operation::UpdateCard => Output::Updated(Card { changed, ..self.card() }),
        }
    }

    /// Who the cardholder is.
    #[must_use]
    pub fn person(&self) -> Person {
        Person::of(&Details {
            name: Private::of(self.name.as_ref()),
            email: Private::of(self.email.as_ref()),
            phone: Private::of(self.phone_number.as_ref()),
            address: self.billing.as_ref().map(Billing::address).unwrap_or_default(),
        })
    }

    /// What a reader must know of a cardholder whose cards cannot be used yet.
    #[must_use]
    pub fn needs(&self) -> Option<String> {
        let past_due = self.requirements.as_ref()?.past_due.as_deref()?;
        (!past_due.is_empty()).then(|| {
            let needed = past_due.join(", ");
            format!("Stripe needs more of the cardholder {} before a card can be active: {needed}", self.id)
        })
    }

    fn card(&self) -> Card {
        let (exp_month, exp_year) = (self.exp_month, self.exp_year);
        let (last4, cardholder) = (self.last4.clone(), self.cardholder.clone());
        Card { id: self.id.clone(), last4, exp_month, exp_year, cardholder, changed: Vec::new() }
    }
}

/// A null is what is not there.
fn or_nothing<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// What an answer may lack, or have otherwise than is known, and still be one.
fn if_readable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    Ok(serde_json::from_value(serde_json::Value::deserialize(deserializer)?).ok())
}

/// Whole, or by its id only.
fn id_of<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Reference {
        Id(String),
        Whole { id: String },
    }
    let reference = Option::<Reference>::deserialize(deserializer)?;
    Ok(reference.map(|reference| match reference {
        Reference::Id(id) | Reference::Whole { id } => id,
    }))
}
