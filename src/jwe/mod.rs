//! Whether a JWE can be the encrypted PIN that Stripe expects, told without decrypting it (nobody but Stripe can).
//!
//! The order of the checks is fixed: a known plaintext, length, segments, alphabet, header, `kid`, encrypted key,
//! IV, ciphertext, tag. What needs no key is [`inspect`]; [`verify`] adds the checks that do.
//! Never: a byte of the JWE in an error.

mod alphabet;
mod header;
mod key;
mod known;
mod refusal;
mod verifier;

use std::cell::RefCell;
use std::ops::RangeInclusive;

pub use key::{KeyError, KeyReader, PinKey};
pub use refusal::Refusal;
pub use verifier::Verifier;

/// A128CBC's IV is one block (RFC 7518, section 5.2.3).
const IV_BYTES: usize = 16;
/// HMAC-SHA-256 cut to half (same section).
const TAG_BYTES: usize = 16;
/// A PIN of 4 to 12 digits pads to one AES block.
const CIPHERTEXT_BYTES: usize = 16;
/// RSA keys from 2048 to 4096 bits: an encrypted key has one of these lengths whichever key it is for.
const ENCRYPTED_KEY_BYTES: RangeInclusive<usize> = 256..=512;

thread_local! {
    /// Each thread learns the headers for itself: that costs each one parse, and no lock afterwards.
    static VERIFIER: RefCell<Verifier> = const { RefCell::new(Verifier::new()) };
}

/// All that can be told without the key.
///
/// # Errors
/// The first check that fails.
pub fn inspect(compact: &str) -> Result<(), Refusal> {
    VERIFIER.with_borrow_mut(|verifier| verifier.inspect(compact))
}

/// All that can be told with the key that is current at this moment.
///
/// # Errors
/// The first check that fails.
pub fn verify(compact: &str, key: &PinKey) -> Result<(), Refusal> {
    VERIFIER.with_borrow_mut(|verifier| verifier.verify(compact, key))
}
