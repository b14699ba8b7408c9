//! The use of a link, which is one person's at a time, and how it is given back.

use super::link::{Link, new_token};
use super::{PinLinks, Usable};
use crate::job::PinDigest;
use crate::ledger::LedgerError;

/// The use of a link: nobody else uses it now.
#[derive(Debug)]
#[must_use]
pub struct Claimed {
    name: String,
    /// The ledger's entry as it was, and as it is.
    before: String,
    used: String,
}

impl PinLinks {
    /// Uses a link up, with this ciphertext if it is to choose. None if somebody else did, or it can be used no more.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn claim(
        &self,
        usable: &Usable,
        with: Option<PinDigest>,
    ) -> Result<Option<Claimed>, LedgerError> {
        // Of two who claim it in the same millisecond, with the same ciphertext, each knows its own claim.
        let (_, claim) = new_token();
        let used = Link {
            used_ms: Some(self.clock.now().unix_ms()),
            used_with: with.map(PinDigest::to_hex),
            claim: Some(claim),
            ..usable.link.clone()
        };
        let (name, before, used) = (usable.name.clone(), usable.value.clone(), used.to_json());
        let swapped = self.ledger.swap_metadata(&*name, Some(before.clone()), Some(used.clone())).await?;
        Ok(swapped.is_ok().then_some(Claimed { name, before, used }))
    }

    /// Gives a link back, to be used again: what it was used for had no effect. One that was revoked meanwhile stays so.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn give_back(&self, claimed: Claimed) -> Result<(), LedgerError> {
        let Claimed { name, before, used } = claimed;
        let _ = self.ledger.swap_metadata(name, Some(used), Some(before)).await?;
        Ok(())
    }
}
