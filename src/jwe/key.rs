//! Stripe's PIN key as its endpoint answers it: `{key_id, jwk, pkcs8}`.

use base64::Engine as _;
use openssl::pkey::PKey;
use serde::Deserialize;

/// Shortest modulus: 2048 bits.
const MODULUS_BYTES_MIN: usize = 256;
/// Longest modulus: 4096 bits.
const MODULUS_BYTES_MAX: usize = 512;

/// The public key of this moment. Fetched for every PIN operation; nothing keeps one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinKey {
    kid: String,
    modulus: Vec<u8>,
}

/// Why the key endpoint's answer is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the expected JSON.
    #[error("the key endpoint's answer is not {{key_id, jwk or pkcs8}}")]
    Shape,
    /// Not a usable RSA key.
    #[error("the key endpoint's answer holds no RSA key of 2048 to 4096 bits")]
    NotRsa,
}

#[derive(Deserialize)]
struct Document {
    key_id: String,
    jwk: Option<Jwk>,
    pkcs8: Option<String>,
}

/// Stripe gives an object; a string that holds one is understood too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Jwk {
    Object { n: String },
    Text(String),
}

#[derive(Deserialize)]
struct Numbers {
    n: String,
}

impl PinKey {
    /// Reads the endpoint's document.
    ///
    /// # Errors
    /// If it holds no key that a PIN can be encrypted under.
    pub fn parse(document: &[u8]) -> Result<Self, KeyError> {
        let document: Document = serde_json::from_slice(document).map_err(|_| KeyError::Shape)?;
        if document.key_id.is_empty() {
            return Err(KeyError::Shape);
        }
        let modulus = match (document.jwk, document.pkcs8) {
            (Some(Jwk::Object { n }), _) => modulus_of_jwk(&n)?,
            (Some(Jwk::Text(text)), _) => {
                let numbers: Numbers = serde_json::from_str(&text).map_err(|_| KeyError::NotRsa)?;
                modulus_of_jwk(&numbers.n)?
            }
            (None, Some(pem)) => modulus_of_pem(&pem)?,
            (None, None) => return Err(KeyError::Shape),
        };
        if !(MODULUS_BYTES_MIN..=MODULUS_BYTES_MAX).contains(&modulus.len()) {
            return Err(KeyError::NotRsa);
        }
        Ok(Self { kid: document.key_id, modulus })
    }

    /// The key's id, which a JWE's `kid` must equal.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The modulus, big-endian, without leading zeros.
    #[must_use]
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }
}

fn modulus_of_jwk(n: &str) -> Result<Vec<u8>, KeyError> {
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(n.trim_end_matches('='))
        .map_err(|_| KeyError::NotRsa)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}

fn modulus_of_pem(text: &str) -> Result<Vec<u8>, KeyError> {
    let key = if text.contains("-----BEGIN") {
        PKey::public_key_from_pem(text.as_bytes())
    } else {
        let packed: String = text.split_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| KeyError::NotRsa)?;
        PKey::public_key_from_der(&der)
    };
    let rsa = key.and_then(|key| key.rsa()).map_err(|_| KeyError::NotRsa)?;
    Ok(rsa.n().to_vec())
}
