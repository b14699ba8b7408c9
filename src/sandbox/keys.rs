//! The key that PINs are encrypted under: served, rotated, and used as Stripe would use it.

use base64::Engine as _;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use serde_json::{Value, json};

/// The first key of a sandbox. It protects nothing: it is public, so that example manifests can hold PINs
/// that were encrypted beforehand.
const DEMO_KEY: &str = include_str!("demo_key.pem");

/// How the key endpoint is, while the API works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyEndpoint {
    /// It serves the key.
    #[default]
    Up,
    /// It answers 503.
    Unavailable,
    /// It takes requests and does not answer.
    Silent,
}

/// How long the demo key is, in bits.
pub(super) const DEMO_KEY_BITS: u32 = 2048;

/// The present key.
pub(super) struct Keys {
    number: u32,
    bits: u32,
    key: Rsa<Private>,
}

impl Keys {
    /// Begins with the demo key, or with the key after it if keys are to have another length.
    pub(super) fn new(bits: u32) -> Self {
        let key = Rsa::private_key_from_pem(DEMO_KEY.as_bytes())
            .expect("the demo key is a valid file of the source");
        let mut keys = Self { number: 1, bits, key };
        if bits != DEMO_KEY_BITS {
            keys.rotate();
        }
        keys
    }

    pub(super) fn kid(&self) -> String {
        format!("sandbox-demo-{}", self.number)
    }

    pub(super) fn key(&self) -> Rsa<Private> {
        self.key.clone()
    }

    pub(super) fn rotate(&mut self) {
        self.number += 1;
        self.key = Rsa::generate(self.bits).expect("OpenSSL makes keys as long as it has randomness");
    }

    /// The key endpoint's document.
    pub(super) fn document(&self) -> Value {
        let url_safe = |bytes: Vec<u8>| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let pem = self.key.public_key_to_pem().unwrap_or_default();
        json!({
            "key_id": self.kid(),
            "jwk": {"kty": "RSA", "use": "enc", "kid": self.kid(), "n": url_safe(self.key.n().to_vec()),
                "e": url_safe(self.key.e().to_vec())},
            "pkcs8": String::from_utf8_lossy(&pem),
        })
    }
}

/// Decrypts a PIN, as Stripe would, and checks that it is one; answers what is wrong with it.
pub(super) fn decrypt(jwe: &str, kid: &str, key: &Rsa<Private>) -> Result<String, String> {
    let header = jwe.split('.').next().unwrap_or("");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    let header: Value = serde_json::from_slice(&json).unwrap_or_default();
    if header["kid"] != kid {
        return Err("was not encrypted under the current key".into());
    }
    if header["alg"] != "RSA-OAEP" || header["enc"] != "A128CBC-HS256" {
        return Err("is not encrypted with RSA-OAEP and A128CBC-HS256".into());
    }
    let der = key.private_key_to_der().map_err(|error| error.to_string())?;
    let decrypter = josekit::jwe::RSA_OAEP.decrypter_from_der(der).map_err(|error| error.to_string())?;
    let (pin, _) = josekit::jwe::deserialize_compact(jwe, &decrypter)
        .map_err(|_| "could not be decrypted".to_owned())?;
    let pin = String::from_utf8(pin).map_err(|_| "is not four digits".to_owned())?;
    if pin.len() == 4 && pin.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(pin)
    } else {
        Err("is not four digits".into())
    }
}
