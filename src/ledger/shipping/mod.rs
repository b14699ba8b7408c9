//! Where cards are on their way, in the ledger's metadata: one name for each card of which something was told.

mod postgres;
mod sqlite;

use super::servers::Work;
use std::collections::HashMap;

use super::database::either;
use super::{Ledger, LedgerError, Row, Scope, State};
use crate::shipping::{KnownShipping, Shipping};

/// Under which name it stands.
fn name_of(scope: &Scope, card: &str) -> String {
    format!("shipping:{}|{card}", scope.as_str())
}

impl Row {
    /// The card that it made or changed.
    #[must_use]
    pub fn card(&self) -> Option<&str> {
        match &self.state {
            State::Done(output) => output.card().map(|card| card.id.as_str()),
            State::Begun | State::Refused(_) | State::AwaitingPin => None,
        }
    }
}

impl Ledger {
    /// What is known of these cards' ways, by card; those of which nothing is known are left out.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn shipping_of(
        &self,
        scope: &Scope,
        cards: impl IntoIterator<Item = &str>,
    ) -> Result<HashMap<String, KnownShipping>, LedgerError> {
        let prefix = name_of(scope, "");
        let names: std::sync::Arc<[String]> = cards.into_iter().map(|card| name_of(scope, card)).collect();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let found = self
            .ask(Work::Views, move |store| {
                let names = names.clone();
                Box::pin(async move { either!(store, store => store.metadata_of(&names)) })
            })
            .await?;
        let known = found.into_iter().filter_map(|(name, value)| {
            let card = name.strip_prefix(&prefix)?.to_owned();
            Some((card, serde_json::from_str(&value).ok()?))
        });
        Ok(known.collect())
    }

    /// Where the cards of these rows are, by card, as far as that is known.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn shipping_of_rows(
        &self,
        scope: &Scope,
        rows: &[Row],
    ) -> Result<HashMap<String, Shipping>, LedgerError> {
        let known = self.shipping_of(scope, rows.iter().filter_map(Row::card)).await?;
        Ok(known.into_iter().filter_map(|(card, known)| Some((card, known.shipping?))).collect())
    }

    /// Keeps what was told of a card's way, if it is newer than what is known. Answers whether it was.
    ///
    /// # Errors
    /// If it could not be written, or others write it all the time.
    pub async fn keep_shipping(
        &self,
        scope: &Scope,
        card: &str,
        told: &KnownShipping,
    ) -> Result<bool, LedgerError> {
        /// More often nobody takes the place of what was read.
        const TRIES: u32 = 16;
        let name = name_of(scope, card);
        let text = serde_json::to_string(told).expect("texts and numbers always serialise");
        let mut known = self.metadata(&name).await?;
        for _ in 0..TRIES {
            let before: Option<KnownShipping> =
                known.as_deref().and_then(|known| serde_json::from_str(known).ok());
            if before.is_some_and(|before| !told.is_newer_than(&before)) {
                return Ok(false);
            }
            match self.swap_metadata(name.clone(), known, Some(text.clone())).await? {
                Ok(()) => return Ok(true),
                Err(found) => known = found,
            }
        }
        let reason = format!("what is known of card {card} is written by others all the time");
        Err(LedgerError::Database { ledger: self.name().to_owned(), reason })
    }
}
