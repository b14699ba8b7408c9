//! The checks one after the other, on decoded segments: what the fast way must agree with, and what names the
//! reason whenever the fast way does not say yes.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{CIPHERTEXT_BYTES, ENCRYPTED_KEY_BYTES, IV_BYTES, PinKey, Refusal, TAG_BYTES, header};
use crate::pin::{JWE_CHARACTERS_MAX, PIN_DIGITS};

/// base64url without padding, canonical trailing bits demanded (RFC 7515, section 2; RFC 4648, section 3.5).
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// As [`super::inspect`], plainly.
///
/// # Errors
/// The first check that fails.
pub fn inspect(compact: &str) -> Result<(), Refusal> {
    let parts = Parts::split(compact)?;
    header::read(&parts.header)?;
    if !ENCRYPTED_KEY_BYTES.contains(&parts.encrypted_key.len()) {
        return Err(Refusal::EncryptedKeyLength);
    }
    parts.fixed_lengths()
}

/// As [`super::verify`], plainly.
///
/// # Errors
/// The first check that fails.
pub fn verify(compact: &str, key: &PinKey) -> Result<(), Refusal> {
    let parts = Parts::split(compact)?;
    if header::read(&parts.header)? != key.kid() {
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
        if self.iv_bytes != IV_BYTES {
            return Err(Refusal::IvLength);
        }
        if self.ciphertext_bytes != CIPHERTEXT_BYTES {
            return Err(Refusal::CiphertextLength);
        }
        if self.tag_bytes != TAG_BYTES {
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
pub(super) fn decode(segment: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL.decode(segment).map_err(|_| Refusal::NotCanonical)
}
