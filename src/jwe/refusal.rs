//! Why an encrypted PIN is refused: one variant and one code for each rule.
//!
//! Never: a byte of the refused text in a message, not even of its header.

use super::{CIPHERTEXT_BYTES, IV_BYTES, TAG_BYTES};
use crate::pin::JWE_CHARACTERS_MAX;

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
