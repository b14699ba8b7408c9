//! PINs that are encrypted under Stripe's keys as far as anybody can tell who cannot decrypt them: neither embosser nor this model of
//! Stripe can. So they are made without a key, and the same for the same seed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use embosser::pin::PinJwe;
use serde_json::json;

/// How many bytes the key's modulus has: 2048 bits.
const MODULUS_BYTES: usize = 256;

/// A key's name.
pub(crate) fn kid(number: u32) -> String {
    format!("simulated-{number}")
}

/// A key, as its endpoint tells it.
pub(crate) fn document(number: u32) -> Vec<u8> {
    let mut modulus = vec![0xff; MODULUS_BYTES];
    modulus[1..5].copy_from_slice(&number.to_be_bytes());
    json!({"key_id": kid(number), "jwk": {"kty": "RSA", "n": BASE64URL.encode(modulus), "e": "AQAB"}})
        .to_string()
        .into_bytes()
}

/// One of many encryptions of a PIN under a key.
pub(crate) fn encrypted(number: u32, which: u32) -> PinJwe {
    let header = json!({"alg": "RSA-OAEP", "enc": "A128CBC-HS256", "kid": kid(number)}).to_string();
    let mut key = vec![1; MODULUS_BYTES];
    key[4..8].copy_from_slice(&which.to_be_bytes());
    let segments = [header.into_bytes(), key, vec![2; 16], vec![3; 16], vec![4; 16]];
    PinJwe::new(segments.map(|segment| BASE64URL.encode(segment)).join("."))
}
