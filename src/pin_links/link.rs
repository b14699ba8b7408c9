//! One link: its text, its digest, and what the ledger keeps of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::clock::Time;
use crate::content::hex;
use crate::ledger::Scope;

/// Random bytes of a link: nobody guesses one.
const TOKEN_BYTES: usize = 32;
/// Characters of its text.
pub const TOKEN_CHARACTERS: usize = 43;

/// A new link's text without its address, and its digest.
pub(super) fn new_token() -> (Zeroizing<String>, String) {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    openssl::rand::rand_bytes(&mut *bytes).expect("OpenSSL draws from the system's randomness");
    let token = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    let hash = hex(&Sha256::digest(token.as_bytes()));
    (token, hash)
}

/// The digest by which a link's text is known; none if it cannot be one.
#[must_use]
pub fn digest_of(token: &str) -> Option<String> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (token.len() == TOKEN_CHARACTERS && token.bytes().all(fine))
        .then(|| hex(&Sha256::digest(token.as_bytes())))
}

/// What a link is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To choose a job's PIN.
    Choose {
        /// The job.
        job: String,
    },
    /// To look at a card's PIN.
    View {
        /// The card.
        card: String,
        /// What is shown.
        shows: Vec<Show>,
    },
}

/// What of a card is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// Its PIN.
    Pin,
    /// Its number.
    Number,
    /// Its expiry.
    Expiry,
    /// Its CVC.
    Cvc,
}

/// How a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It can be used.
    Usable,
    /// It was used.
    Used,
    /// It was revoked, or another was made in its place.
    Revoked,
    /// Its time is over.
    Expired,
}

/// What the ledger keeps of it, under its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    #[serde(rename = "for")]
    pub(super) purpose: Purpose,
    pub(super) made_ms: i64,
    pub(super) expires_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used_ms: Option<i64>,
    /// Of what it was used with, told by the beginning of a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used_with: Option<String>,
    /// Which use it was, at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) revoked_ms: Option<i64>,
}

impl Link {
    pub(super) fn of_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialise")
    }

    pub(super) fn standing(&self, now: Time) -> Standing {
        if self.revoked_ms.is_some() {
            Standing::Revoked
        } else if self.used_ms.is_some() {
            Standing::Used
        // A clock that was set back to before it was made proves nothing: it counts as too old.
        } else if now.unix_ms() >= self.expires_ms || now.unix_ms() < self.made_ms - CLOCKS_DIFFER_MS {
            Standing::Expired
        } else {
            Standing::Usable
        }
    }
}

/// By how much the clocks of two machines that share a ledger may differ.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;

/// What the names of a kind of entries begin with, in the ledger's metadata.
pub(super) fn under(kind: &str, scope: &Scope) -> String {
    // No scope has this in it, so that of two of which one begins like the other each has its own.
    format!("{kind}:{}|", scope.as_str())
}

/// The name of a link's entry.
pub(super) fn name_of(scope: &Scope, hash: &str) -> String {
    format!("{}{hash}", under("pin_link", scope))
}
