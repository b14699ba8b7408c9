//! The checks, on the text itself: lengths, alphabet and the comparison with the modulus need no decoding.
//!
//! The header alone is decoded and parsed, and not even that if it was accepted before. That the verdict is the one of
//! decoded segments is tested in `tests/pins/jwe_agreement.rs`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::alphabet::{SEXTETS, count_outside};
use super::known::Known;
use super::{CIPHERTEXT_BYTES, ENCRYPTED_KEY_BYTES, IV_BYTES, PinKey, Refusal, TAG_BYTES, header};
use crate::pin::{JWE_CHARACTERS_MAX, PIN_DIGITS};

/// Tells whether a JWE can be the encrypted PIN that Stripe expects, and remembers the headers it accepted.
///
/// For one thread; [`super::verify`] and [`super::inspect`] keep one for each.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Of the key that was verified against last.
    of_key: Known,
    /// Of any key, for [`Self::inspect`].
    of_any: Known,
}

impl Verifier {
    /// One that knows no header yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { of_key: Known::new(), of_any: Known::new() }
    }

    /// As [`super::verify`].
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(&mut self, compact: &str, key: &PinKey) -> Result<(), Refusal> {
        let segments = Segments::split(compact)?;
        if !self.of_key.knows(key.kid(), segments.header) {
            accept_header(segments.header, |kid| kid == key.kid())?;
            self.of_key.learn(segments.header);
        }
        let modulus = key.modulus_text().as_bytes();
        if segments.encrypted_key.len() != modulus.len() {
            return Err(Refusal::EncryptedKeyLength);
        }
        if !is_below(segments.encrypted_key, modulus) {
            return Err(Refusal::EncryptedKeyRange);
        }
        segments.fixed_lengths()
    }

    /// As [`super::inspect`].
    ///
    /// # Errors
    /// The first check that fails.
    pub fn inspect(&mut self, compact: &str) -> Result<(), Refusal> {
        let segments = Segments::split(compact)?;
        if !self.of_any.knows("", segments.header) {
            accept_header(segments.header, |_| true)?;
            self.of_any.learn(segments.header);
        }
        if !ENCRYPTED_KEY_BYTES.contains(&bytes(segments.encrypted_key)) {
            return Err(Refusal::EncryptedKeyLength);
        }
        segments.fixed_lengths()
    }
}

#[cold]
fn accept_header(header: &[u8], kid_fits: impl FnOnce(&str) -> bool) -> Result<(), Refusal> {
    let json = URL_SAFE_NO_PAD.decode(header).map_err(|_| Refusal::NotCanonical)?;
    if kid_fits(&header::read(&json)?) { Ok(()) } else { Err(Refusal::StaleKey) }
}

/// The five segments, each canonical base64url without padding (RFC 7515, section 2; RFC 4648, section 3.5).
struct Segments<'c> {
    header: &'c [u8],
    encrypted_key: &'c [u8],
    iv: &'c [u8],
    ciphertext: &'c [u8],
    tag: &'c [u8],
}

impl<'c> Segments<'c> {
    fn split(compact: &'c str) -> Result<Self, Refusal> {
        const DOTS: usize = 4;
        if is_pin_in_clear(compact) {
            return Err(Refusal::PinInClear);
        }
        if compact.len() > JWE_CHARACTERS_MAX {
            return Err(Refusal::TooLong);
        }
        let compact = compact.as_bytes();
        let mut start = 0;
        let mut segments = [&compact[..0]; DOTS + 1];
        let mut dots = memchr::memchr_iter(b'.', compact);
        for segment in &mut segments[..DOTS] {
            let dot = dots.next().ok_or(Refusal::NotCompact)?;
            *segment = &compact[start..dot];
            start = dot + 1;
        }
        segments[DOTS] = &compact[start..];
        // With the four dots all else is of the alphabet, or something is wrong.
        if count_outside(compact) != DOTS {
            return Err(outside(&segments));
        }
        if !segments.iter().all(|segment| is_canonical(segment)) {
            return Err(Refusal::NotCanonical);
        }
        let [header, encrypted_key, iv, ciphertext, tag] = segments;
        Ok(Self { header, encrypted_key, iv, ciphertext, tag })
    }

    fn fixed_lengths(&self) -> Result<(), Refusal> {
        if bytes(self.iv) != IV_BYTES {
            return Err(Refusal::IvLength);
        }
        if bytes(self.ciphertext) != CIPHERTEXT_BYTES {
            return Err(Refusal::CiphertextLength);
        }
        if bytes(self.tag) != TAG_BYTES {
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

/// What is wrong where a character is not of the alphabet.
#[cold]
fn outside(segments: &[&[u8]]) -> Refusal {
    if segments.iter().any(|segment| segment.contains(&b'.')) {
        return Refusal::NotCompact;
    }
    let first = segments.iter().find(|segment| count_outside(segment) > 0);
    if first.is_some_and(|segment| segment.ends_with(b"=")) {
        Refusal::Padding
    } else {
        Refusal::NotBase64url
    }
}

/// How many bytes a canonical segment stands for.
fn bytes(segment: &[u8]) -> usize {
    segment.len() * 3 / 4
}

/// Whether the last character's bits beyond the last byte are zero, and the length is one that bytes encode to.
fn is_canonical(segment: &[u8]) -> bool {
    let beyond = match segment.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b11,
        _ => return false,
    };
    segment.last().is_none_or(|last| SEXTETS[usize::from(*last)] & beyond == 0)
}

/// Whether a number is below the modulus. Both texts are equally long and canonical, so the first character that
/// differs decides, by its six bits; with an encrypted key that is usually the first.
fn is_below(text: &[u8], modulus: &[u8]) -> bool {
    let differing = text.iter().zip(modulus).find(|(left, right)| left != right);
    differing.is_some_and(|(left, right)| SEXTETS[usize::from(*left)] < SEXTETS[usize::from(*right)])
}
