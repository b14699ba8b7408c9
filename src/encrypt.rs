//! Encrypting a PIN as a cardholder's device would.
//!
//! For trials, tests and tooling only: a server that encrypts PINs has seen them in the clear, which is what the
//! whole arrangement is there to avoid.

use josekit::jwe::{JweHeader, RSA_OAEP};
use josekit::jwk::Jwk;
use serde::Deserialize;

/// Why a PIN could not be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// Not a PIN.
    #[error("a PIN is four to twelve digits")]
    NotAPin,
    /// Not a key.
    #[error("the key endpoint's answer holds no usable key: {0}")]
    Key(String),
}

#[derive(Deserialize)]
struct Document {
    key_id: String,
    jwk: serde_json::Map<String, serde_json::Value>,
}

/// Encrypts a PIN under the key in the endpoint's document; answers the compact JWE.
///
/// # Errors
/// If it is no PIN or the document holds no key.
pub fn encrypt_pin(pin: &str, key_document: &[u8]) -> Result<String, EncryptError> {
    if !(4..=12).contains(&pin.len()) || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EncryptError::NotAPin);
    }
    let unusable = |error: String| EncryptError::Key(error);
    let document: Document =
        serde_json::from_slice(key_document).map_err(|error| unusable(error.to_string()))?;
    let mut members = document.jwk;
    // josekit holds the key's own alg and use against the algorithm asked for; Stripe's are not always josekit's.
    for member in ["alg", "use", "key_ops"] {
        members.remove(member);
    }
    let jwk = Jwk::from_map(members).map_err(|error| unusable(error.to_string()))?;
    let encrypter = RSA_OAEP.encrypter_from_jwk(&jwk).map_err(|error| unusable(error.to_string()))?;
    let mut header = JweHeader::new();
    header.set_content_encryption("A128CBC-HS256");
    header.set_key_id(document.key_id);
    josekit::jwe::serialize_compact(pin.as_bytes(), &header, &encrypter)
        .map_err(|error| unusable(error.to_string()))
}
