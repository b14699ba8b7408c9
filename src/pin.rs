//! The encrypted PIN as it travels through embosser.
//!
//! embosser never sees a PIN: it carries the JWE that the cardholder's device made. Even so the ciphertext is
//! treated as a secret: it cannot be printed, it is never cloned by accident, and its memory is wiped on drop.

use std::fmt;

use zeroize::Zeroizing;

/// Stripe's limit for `pin[encrypted_number]`, in characters (its API schema's `maxLength`).
pub const JWE_CHARACTERS_MAX: usize = 5000;

/// How many digits a PIN may have. Stripe's have four; more are understood so that a longer one is known for what
/// it is when it turns up in the clear.
pub const PIN_DIGITS: std::ops::RangeInclusive<usize> = 4..=12;

/// A compact JWE that holds a PIN under Stripe's public key: unverified, wiped on drop, without `Display`.
pub struct PinJwe(Zeroizing<String>);

impl PinJwe {
    /// Takes the text over; the caller's own copies are the caller's to wipe.
    #[must_use]
    pub fn new(compact: String) -> Self {
        Self(Zeroizing::new(compact))
    }

    /// The compact serialisation. For verification and the request body; nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PinJwe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PinJwe(redacted)")
    }
}

impl<'de> serde::Deserialize<'de> for PinJwe {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}
