//! Requests to the sandbox: what is asked, of which endpoint, by whom.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::designs::DESIGNS;
use super::memory::Parameters;

/// Where cards are made.
pub(super) const CARDS: &str = "/v1/issuing/cards";
/// Where cardholders are made.
pub(super) const CARDHOLDERS: &str = "/v1/issuing/cardholders";

/// A request, read.
pub(super) struct ApiRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) version: Option<String>,
    pub(super) account: String,
    pub(super) body: Bytes,
}

impl ApiRequest {
    /// The endpoint as limiters know it: with a card's id made general, and the account before it.
    pub(super) fn endpoint(&self) -> String {
        let path = if is_one_of(CARDS, &self.path) {
            "/v1/issuing/cards/{card}"
        } else if is_one_of(CARDHOLDERS, &self.path) {
            "/v1/issuing/cardholders/{cardholder}"
        } else if is_one_of(DESIGNS, &self.path) {
            "/v1/issuing/personalization_designs/{personalization_design}"
        } else {
            &self.path
        };
        format!("{} {} {path}", self.account, self.method)
    }

    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The request as the memory compares it: what is asked of whom, in whatever order.
    pub(super) fn parameters(&self) -> Parameters {
        let mut pairs = self.pairs();
        pairs.sort_unstable();
        let mut digest = Sha256::new();
        for text in [&self.path].into_iter().chain(pairs.iter().flat_map(|(path, value)| [path, value])) {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        }
        digest.finalize().into()
    }
}

/// Whether a path is that of one object under a list's.
pub(super) fn is_one_of(list: &str, path: &str) -> bool {
    path.strip_prefix(list)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

pub(super) fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or("")
}

pub(super) fn livemode(request: &ApiRequest) -> bool {
    request.authorization.as_deref().and_then(api_key_of).is_some_and(|key| key.contains("_live_"))
}

/// The key of `Bearer KEY`, or of `Basic`, where it is the user.
pub(super) fn api_key_of(authorization: &str) -> Option<String> {
    use base64::Engine as _;
    if let Some(key) = authorization.strip_prefix("Bearer ") {
        return Some(key.trim().to_owned());
    }
    let encoded = authorization.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split(':').next().map(str::to_owned)
}
