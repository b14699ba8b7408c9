//! The checks of a JWE one after the other, on decoded segments: what `embosser::jwe` is held against.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use embosser::jwe::{PinKey, Refusal};
use embosser::pin::{JWE_CHARACTERS_MAX, PIN_DIGITS};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

/// IV, ciphertext and tag alike.
const SHORT_BYTES: usize = 16;

/// base64url without padding, canonical trailing bits demanded (RFC 7515, section 2; RFC 4648, section 3.5).
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// As [`embosser::jwe::inspect`].
pub(crate) fn inspect(compact: &str) -> Result<(), Refusal> {
    let parts = Parts::split(compact)?;
    kid_of(&parts.header)?;
    if !(256..=512).contains(&parts.encrypted_key.len()) {
        return Err(Refusal::EncryptedKeyLength);
    }
    parts.fixed_lengths()
}

/// As [`embosser::jwe::verify`].
pub(crate) fn verify(compact: &str, key: &PinKey) -> Result<(), Refusal> {
    let parts = Parts::split(compact)?;
    if kid_of(&parts.header)? != key.kid() {
        return Err(Refusal::StaleKey);
    }
    let modulus = key.modulus();
    if parts.encrypted_key.len() != modulus.len() {
        return Err(Refusal::EncryptedKeyLength);
    }
    // Both are big-endian and equally long, so bytes compare as the numbers do.
    if parts.encrypted_key >= modulus {
        return Err(Refusal::EncryptedKeyRange);
    }
    parts.fixed_lengths()
}

/// The five segments, decoded.
struct Parts {
    header: Vec<u8>,
    encrypted_key: Vec<u8>,
    iv_bytes: usize,
    ciphertext_bytes: usize,
    tag_bytes: usize,
}

impl Parts {
    fn split(compact: &str) -> Result<Self, Refusal> {
        if is_pin_in_clear(compact) {
            return Err(Refusal::PinInClear);
        }
        if compact.len() > JWE_CHARACTERS_MAX {
            return Err(Refusal::TooLong);
        }
        let mut segments = compact.split('.');
        let mut next = || segments.next().ok_or(Refusal::NotCompact);
        let five = [next()?, next()?, next()?, next()?, next()?];
        if segments.next().is_some() {
            return Err(Refusal::NotCompact);
        }
        for segment in five {
            alphabet_of(segment)?;
        }
        let [header, encrypted_key, iv, ciphertext, tag] = five;
        Ok(Self {
            header: decode(header)?,
            encrypted_key: decode(encrypted_key)?,
            iv_bytes: decode(iv)?.len(),
            ciphertext_bytes: decode(ciphertext)?.len(),
            tag_bytes: decode(tag)?.len(),
        })
    }

    fn fixed_lengths(&self) -> Result<(), Refusal> {
        if self.iv_bytes != SHORT_BYTES {
            return Err(Refusal::IvLength);
        }
        if self.ciphertext_bytes != SHORT_BYTES {
            return Err(Refusal::CiphertextLength);
        }
        if self.tag_bytes != SHORT_BYTES {
            return Err(Refusal::TagLength);
        }
        Ok(())
    }
}

/// Digits only, as many as a PIN has; a spreadsheet may have put white space around them.
fn is_pin_in_clear(text: &str) -> bool {
    let text = text.trim();
    PIN_DIGITS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn alphabet_of(segment: &str) -> Result<(), Refusal> {
    if segment.ends_with('=') {
        return Err(Refusal::Padding);
    }
    let of_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if segment.bytes().all(of_base64url) { Ok(()) } else { Err(Refusal::NotBase64url) }
}

/// The bytes of a segment.
fn decode(segment: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL.decode(segment).map_err(|_| Refusal::NotCanonical)
}

/// Reads a header and answers its `kid`.
fn kid_of(json: &[u8]) -> Result<String, Refusal> {
    let json = std::str::from_utf8(json).map_err(|_| Refusal::HeaderInvalid)?;
    let Members(members) = serde_json::from_str(json).map_err(|_| Refusal::HeaderInvalid)?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("alg") != Some("RSA-OAEP") {
        return Err(Refusal::Algorithm);
    }
    if text("enc") != Some("A128CBC-HS256") {
        return Err(Refusal::Encryption);
    }
    if members.contains_key("zip") {
        return Err(Refusal::Compressed);
    }
    if members.contains_key("crit") {
        return Err(Refusal::Critical);
    }
    text("kid").filter(|kid| !kid.is_empty()).map(str::to_owned).ok_or(Refusal::KidMissing)
}

/// An object's members, each there once.
struct Members(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
