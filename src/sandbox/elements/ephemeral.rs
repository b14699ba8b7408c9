//! Nonces and ephemeral keys: who may see one card's details in a browser, and for how long.
//!
//! A nonce is a pair. The page hands its public half to its server, which makes the key with it; the private half stays with
//! Stripe.js in that page. A key shows its card only together with the private half, in as many elements of that page as it
//! has, and a nonce makes one key.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng as _;
use rand::distr::Alphanumeric;

use crate::sandbox::response::Fault;

/// Every nonce and key that was made.
#[derive(Default)]
pub(in crate::sandbox) struct EphemeralKeys {
    /// By the public half.
    nonces: HashMap<String, Nonce>,
    /// By their secrets.
    keys: HashMap<String, Key>,
}

struct Nonce {
    account: String,
    private: String,
    /// The card that it was made for.
    card: Option<String>,
    used: bool,
}

struct Key {
    id: String,
    account: String,
    card: String,
    private_nonce: String,
    expires: Duration,
}

/// Why a key shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum NoUse {
    UnknownKey,
    Expired,
    OtherCard,
    OtherNonce,
}

impl EphemeralKeys {
    /// A new nonce's public and private halves.
    pub(in crate::sandbox) fn nonce(&mut self, account: &str, card: Option<String>) -> (String, String) {
        let (public, private) = (format!("ephkn_pub_{}", random(24)), format!("ephkn_priv_{}", random(24)));
        let nonce = Nonce { account: account.to_owned(), private: private.clone(), card, used: false };
        self.nonces.insert(public.clone(), nonce);
        (public, private)
    }

    /// Whether a key may be made for this card with this nonce.
    pub(in crate::sandbox) fn may_make(&self, account: &str, card: &str, nonce: &str) -> Result<(), Fault> {
        let refused = |message: &str| Err(Fault::invalid(None, "nonce", message));
        match self.nonces.get(nonce).filter(|nonce| nonce.account == account) {
            None => refused("No such nonce; it is made in the browser by stripe.createEphemeralKeyNonce."),
            Some(Nonce { used: true, .. }) => refused("This nonce was used before; a nonce is used once."),
            Some(Nonce { card: Some(of), .. }) if of != card => refused("This nonce is another card's."),
            Some(_) => Ok(()),
        }
    }

    /// Makes a key; answers its id and its secret.
    pub(in crate::sandbox) fn make(
        &mut self,
        (account, card): (&str, &str),
        nonce: &str,
        expires: Duration,
        livemode: bool,
    ) -> Result<(String, String), Fault> {
        self.may_make(account, card, nonce)?;
        let nonce = self.nonces.get_mut(nonce).expect("a nonce with which a key may be made is there");
        nonce.used = true;
        let id = format!("ephkey_sandbox{:08}", self.keys.len() + 1);
        let secret = format!("ek_{}_{}", if livemode { "live" } else { "test" }, random(48));
        let key = Key {
            id: id.clone(),
            account: account.to_owned(),
            card: card.to_owned(),
            private_nonce: nonce.private.clone(),
            expires,
        };
        self.keys.insert(secret.clone(), key);
        Ok((id, secret))
    }

    /// The account in which a key may show this card.
    pub(in crate::sandbox) fn account_of(
        &self,
        secret: &str,
        card: &str,
        private_nonce: &str,
        now: Duration,
    ) -> Result<&str, NoUse> {
        let key = self.keys.get(secret).ok_or(NoUse::UnknownKey)?;
        if now >= key.expires {
            Err(NoUse::Expired)
        } else if key.card != card {
            Err(NoUse::OtherCard)
        } else if key.private_nonce != private_nonce {
            Err(NoUse::OtherNonce)
        } else {
            Ok(&key.account)
        }
    }

    /// Ends a key at once; whether there was one of that id.
    pub(in crate::sandbox) fn end(&mut self, account: &str, id: &str, now: Duration) -> bool {
        let key = self.keys.values_mut().find(|key| key.id == id && key.account == account);
        key.map(|key| key.expires = key.expires.min(now)).is_some()
    }
}

impl NoUse {
    /// As the API answers it.
    pub(in crate::sandbox) fn fault(self) -> Fault {
        let kind = "invalid_request_error";
        match self {
            Self::UnknownKey => Fault::of(401, kind, None, "Invalid API Key provided"),
            Self::Expired => Fault::of(401, kind, Some("api_key_expired"), "Expired API Key provided"),
            Self::OtherCard => {
                Fault::of(403, kind, None, "This ephemeral key does not have access to this card.")
            }
            Self::OtherNonce => {
                let message = "This ephemeral key was made with another nonce.";
                Fault::invalid(None, "ephemeral_key_private_nonce", message)
            }
        }
    }
}

/// From the system's randomness, not from the seeded dice: these are secrets, and the dice's draws are the faults'.
fn random(letters: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(letters).map(char::from).collect()
}
