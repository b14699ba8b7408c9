//! Encrypting a PIN as a cardholder's device would.
//!
//! For trials, tests and tooling only: a server that encrypts PINs has seen them in the clear, which is what the
//! whole arrangement is there to avoid.

use josekit::jwe::{JweHeader, RSA_OAEP};
use josekit::jwk::Jwk;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::pin::PIN_DIGITS;

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
    #[serde(default)]
    jwk: Value,
    pkcs8: Option<String>,
}

/// Encrypts a PIN under the key in the endpoint's document; answers the compact JWE.
///
/// # Errors
/// If it is no PIN or the document holds no key.
pub fn encrypt_pin(pin: &str, key_document: &[u8]) -> Result<String, EncryptError> {
    if !PIN_DIGITS.contains(&pin.len()) || !pin.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EncryptError::NotAPin);
    }
    let document: Document = serde_json::from_slice(key_document).map_err(|error| unusable(&error))?;
    let encrypter = match (members_of(document.jwk)?, document.pkcs8) {
        (Some(members), _) => {
            let jwk = Jwk::from_map(members).map_err(|error| unusable(&error))?;
            RSA_OAEP.encrypter_from_jwk(&jwk)
        }
        (None, Some(pem)) => RSA_OAEP.encrypter_from_pem(pem),
        (None, None) => return Err(EncryptError::Key("it has neither jwk nor pkcs8".into())),
    };
    let mut header = JweHeader::new();
    header.set_content_encryption("A128CBC-HS256");
    header.set_key_id(document.key_id);
    encrypter
        .and_then(|encrypter| josekit::jwe::serialize_compact(pin.as_bytes(), &header, &encrypter))
        .map_err(|error| unusable(&error))
}

/// The jwk's members, whether it came as an object or as a text that holds one.
fn members_of(jwk: Value) -> Result<Option<Map<String, Value>>, EncryptError> {
    let mut members = match jwk {
        Value::Null => return Ok(None),
        Value::String(text) => serde_json::from_str(&text).map_err(|error| unusable(&error))?,
        Value::Object(members) => members,
        _ => return Err(EncryptError::Key("its jwk is not an object".into())),
    };
    // josekit holds the key's own alg and use against the algorithm asked for; Stripe's are not always josekit's.
    for member in ["alg", "use", "key_ops"] {
        members.remove(member);
    }
    Ok(Some(members))
}

fn unusable(error: &dyn std::error::Error) -> EncryptError {
    EncryptError::Key(error.to_string())
}
