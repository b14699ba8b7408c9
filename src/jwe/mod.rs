//! Whether a JWE can be the encrypted PIN that Stripe expects, told without decrypting it (nobody but Stripe can).
//!
//! The order of the checks is fixed: a known plaintext, length, segments, alphabet, header, `kid`, encrypted key,
//! IV, ciphertext, tag. What needs no key is [`inspect`]; [`verify`] adds the two checks that do.
//! Never: a byte of the JWE in an error.

mod header;
mod key;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::pin::JWE_CHARACTERS_MAX;

pub use key::{KeyError, PinKey};

/// base64url without padding, canonical trailing bits demanded (RFC 7515, section 2; RFC 4648, section 3.5).
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(false),
);

/// A128CBC's IV is one block (RFC 7518, section 5.2.3).
const IV_BYTES: usize = 16;
/// HMAC-SHA-256 cut to half (same section).
const TAG_BYTES: usize = 16;
/// A PIN of 4 to 12 digits pads to one AES block.
const CIPHERTEXT_BYTES: usize = 16;

/// Why a text is not a usable encrypted PIN. Each has its own code; none holds any of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Digits, not a JWE.
    #[error(
        "this is a PIN in the clear; encrypt it on the cardholder's device, and treat this one as compromised"
    )]
    PinInClear,
    /// Longer than Stripe takes.
    #[error("longer than the {JWE_CHARACTERS_MAX} characters that Stripe takes")]
    TooLong,
    /// Not five segments.
    #[error("not a compact JWE: it must have five segments with dots between them")]
    NotCompact,
    /// `=` at a segment's end.
    #[error("a segment has base64 padding ('='); a compact JWE has none")]
    Padding,
    /// A character that is not base64url's.
    #[error("a segment has a character that is not base64url")]
    NotBase64url,
    /// Bits that encode nothing are set, or a length that no bytes encode to.
    #[error("a segment is not canonical base64url")]
    NotCanonical,
    /// Not a JSON object, or a member twice.
    #[error("the protected header is not a JSON object with each member once")]
    HeaderInvalid,
    /// Another `alg`.
    #[error("the header's alg must be RSA-OAEP")]
    Algorithm,
    /// Another `enc`.
    #[error("the header's enc must be A128CBC-HS256")]
    Encryption,
    /// Compressed.
    #[error("the header has zip; a PIN must not be compressed")]
    Compressed,
    /// Critical extensions.
    #[error("the header has crit, and names an extension that is not known here")]
    Critical,
    /// No `kid`.
    #[error("the header has no kid; it must be the key_id of Stripe's current key")]
    KidMissing,
    /// Another key's `kid`.
    #[error("encrypted under a key that is not the current one; fetch the key again and encrypt again")]
    StaleKey,
    /// Not as long as the modulus.
    #[error("the encrypted key is not as long as the key's modulus")]
    EncryptedKeyLength,
    /// A number that RSA cannot have made.
    #[error("the encrypted key is not below the key's modulus")]
    EncryptedKeyRange,
    /// Not 16 bytes.
    #[error("the initialization vector is not {IV_BYTES} bytes")]
    IvLength,
    /// Not one block.
    #[error("the ciphertext is not {CIPHERTEXT_BYTES} bytes, as a PIN's is")]
    CiphertextLength,
    /// Not 16 bytes.
    #[error("the authentication tag is not {TAG_BYTES} bytes")]
    TagLength,
}

impl Refusal {
    /// The code in results, events and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::PinInClear => "pin_in_clear",
            Self::TooLong => "jwe_too_long",
            Self::NotCompact => "jwe_not_compact",
            Self::Padding => "jwe_padding",
            Self::NotBase64url => "jwe_not_base64url",
            Self::NotCanonical => "jwe_not_canonical",
            Self::HeaderInvalid => "jwe_header_invalid",
            Self::Algorithm => "jwe_alg",
            Self::Encryption => "jwe_enc",
            Self::Compressed => "jwe_zip",
            Self::Critical => "jwe_crit",
            Self::KidMissing => "jwe_kid_missing",
            Self::StaleKey => "stale_key",
            Self::EncryptedKeyLength => "jwe_encrypted_key_length",
            Self::EncryptedKeyRange => "jwe_encrypted_key_range",
            Self::IvLength => "jwe_iv_length",
            Self::CiphertextLength => "jwe_ciphertext_length",
            Self::TagLength => "jwe_tag_length",
        }
    }
}

/// RSA keys from 2048 to 4096 bits: an encrypted key has one of these lengths whichever key it is for.
const ENCRYPTED_KEY_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// All that can be told without the key.
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

/// All that can be told with the key that is current at this moment.
///
/// # Errors
/// The first check that fails.
pub fn verify(compact: &str, key: &PinKey) -> Result<(), Refusal> {
    let parts = Parts::split(compact)?;
    if header::read(&parts.header)? != key.kid() {
        return Err(Refusal::StaleKey);
    }
    if parts.encrypted_key.len() != key.modulus().len() {
        return Err(Refusal::EncryptedKeyLength);
    }
    // Both are big-endian and equally long, so bytes compare as the numbers do.
    if parts.encrypted_key.as_slice() >= key.modulus() {
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
        if (4..=12).contains(&compact.len()) && compact.bytes().all(|byte| byte.is_ascii_digit()) {
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

fn alphabet_of(segment: &str) -> Result<(), Refusal> {
    if segment.ends_with('=') {
        return Err(Refusal::Padding);
    }
    let of_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if segment.bytes().all(of_base64url) { Ok(()) } else { Err(Refusal::NotBase64url) }
}

fn decode(segment: &str) -> Result<Vec<u8>, Refusal> {
    BASE64URL.decode(segment).map_err(|_| Refusal::NotCanonical)
}
