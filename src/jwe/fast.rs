//! The same verdict without decoding: a known header is compared as bytes, lengths fix the dots, the alphabet is
//! checked in place, and the encrypted key is compared with the modulus as text.
//!
//! It only ever says yes. Whatever it does not say yes to goes through [`super::plain`], which decides and names the
//! reason; that the two agree on every input is tested in `tests/jwe_agreement.rs`.

use super::alphabet::{SEXTETS, count_outside};
use super::known::{HEADER_CHARACTERS_MAX, Known};
use super::{CIPHERTEXT_BYTES, ENCRYPTED_KEY_BYTES, IV_BYTES, PinKey, Refusal, TAG_BYTES, header, plain};
use crate::pin::JWE_CHARACTERS_MAX;

/// Characters of 16 bytes: IV, ciphertext and tag alike.
const SHORT_CHARACTERS: usize = characters(16);
/// `.iv.ciphertext.tag`
const TAIL_CHARACTERS: usize = 3 * (1 + SHORT_CHARACTERS);
/// What a JWE with a known header and the longest key takes is within Stripe's limit, so it needs no check.
const _: () = assert!(
    HEADER_CHARACTERS_MAX + 1 + characters(*ENCRYPTED_KEY_BYTES.end()) + TAIL_CHARACTERS
        <= JWE_CHARACTERS_MAX
);
const _: () = assert!(IV_BYTES == 16 && CIPHERTEXT_BYTES == 16 && TAG_BYTES == 16);

/// How many characters so many bytes take in base64url without padding.
pub(super) const fn characters(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

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
    #[inline]
    pub fn verify(&mut self, compact: &str, key: &PinKey) -> Result<(), Refusal> {
        match self.of_key.find(key.kid(), compact.as_bytes()) {
            Some(header) if is_sound_under(&compact.as_bytes()[header..], key) => Ok(()),
            Some(_) => plain::verify(compact, key),
            None => self.verify_new_header(compact, key),
        }
    }

    /// As [`super::inspect`].
    ///
    /// # Errors
    /// The first check that fails.
    #[inline]
    pub fn inspect(&mut self, compact: &str) -> Result<(), Refusal> {
        match self.of_any.find("", compact.as_bytes()) {
            Some(header) if is_sound(&compact.as_bytes()[header..]) => Ok(()),
            Some(_) => plain::inspect(compact),
            None => self.inspect_new_header(compact),
        }
    }

    /// Whether [`Self::inspect`] finds nothing wrong with these bytes.
    #[inline]
    pub(super) fn finds_sound(&mut self, compact: &[u8]) -> bool {
        let known = self.of_any.find("", compact);
        known.is_some_and(|header| is_sound(&compact[header..]))
            || std::str::from_utf8(compact).is_ok_and(|compact| self.inspect(compact).is_ok())
    }

    #[cold]
    fn verify_new_header(&mut self, compact: &str, key: &PinKey) -> Result<(), Refusal> {
        if let Some((header, rest)) = at_first_dot(compact)
            && is_sound_under(rest, key)
            && accepts(header, |kid| kid == key.kid())
        {
            self.of_key.learn(header.as_bytes());
            return Ok(());
        }
        plain::verify(compact, key)
    }

    #[cold]
    fn inspect_new_header(&mut self, compact: &str) -> Result<(), Refusal> {
        if let Some((header, rest)) = at_first_dot(compact)
            && is_sound(rest)
            && accepts(header, |_| true)
        {
            self.of_any.learn(header.as_bytes());
            return Ok(());
        }
        plain::inspect(compact)
    }
}

fn at_first_dot(compact: &str) -> Option<(&str, &[u8])> {
    let dot = memchr::memchr(b'.', compact.as_bytes()).filter(|_| compact.len() <= JWE_CHARACTERS_MAX)?;
    let (header, rest) = compact.split_at(dot);
    Some((header, rest.as_bytes()))
}

fn accepts(segment: &str, kid_fits: impl FnOnce(&str) -> bool) -> bool {
    plain::decode(segment).is_ok_and(|json| header::read(&json).is_ok_and(|kid| kid_fits(&kid)))
}

/// Whether this is `.encrypted_key.iv.ciphertext.tag`, canonical, and below the key's modulus.
#[inline]
fn is_sound_under(rest: &[u8], key: &PinKey) -> bool {
    let modulus = key.modulus_text();
    rest.len() == 1 + modulus.len() + TAIL_CHARACTERS
        && is_below(&rest[1..=modulus.len()], modulus.as_bytes())
        && is_canonical(rest)
}

/// Whether this is `.encrypted_key.iv.ciphertext.tag`, canonical, the encrypted key as long as some key's modulus.
#[inline]
fn is_sound(rest: &[u8]) -> bool {
    const LENGTHS: std::ops::RangeInclusive<usize> =
        characters(*ENCRYPTED_KEY_BYTES.start())..=characters(*ENCRYPTED_KEY_BYTES.end());
    rest.len().checked_sub(1 + TAIL_CHARACTERS).is_some_and(|length| LENGTHS.contains(&length))
        && is_canonical(rest)
}

/// Whether the dots are where the lengths put them, with base64url between them whose last characters set no bit
/// that no byte has. A dot is not of the alphabet, so with the four that are in their places all else is.
#[inline]
fn is_canonical(rest: &[u8]) -> bool {
    const DOTS: usize = 4;
    let Some((front, tail)) = rest.split_last_chunk::<TAIL_CHARACTERS>() else { return false };
    let Some((b'.', encrypted_key)) = front.split_first() else { return false };
    let (iv, ciphertext, tag) = (&tail[1..23], &tail[24..46], &tail[47..69]);
    let dots = tail[0] == b'.' && tail[23] == b'.' && tail[46] == b'.';
    dots && [encrypted_key, iv, ciphertext, tag].into_iter().all(ends_canonically)
        && count_outside(rest) == DOTS
}

/// Whether the last character's bits beyond the last byte are zero, and the length is one that bytes encode to.
#[inline]
fn ends_canonically(segment: &[u8]) -> bool {
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
#[inline]
fn is_below(text: &[u8], modulus: &[u8]) -> bool {
    let differing = text.iter().zip(modulus).find(|(left, right)| left != right);
    differing.is_some_and(|(left, right)| SEXTETS[usize::from(*left)] < SEXTETS[usize::from(*right)])
}
