//! Whether bytes are of base64url's alphabet: 16 or 32 at a time where the processor can, else as the compiler
//! makes it.
//!
//! The portable way is written so that compilers vectorise it for what every processor of the target has (SSE2,
//! NEON). The other two know the alphabet by two table look-ups: one by a byte's upper four bits, one by its lower;
//! a byte is of the alphabet if the two entries have a bit in common.

#![allow(
    unsafe_code,
    reason = "vector loads take pointers, and code for an optional instruction set can only be called where the \
              set was found: both are checked here, and Scan's field is private so that nothing else can do it"
)]

/// How the alphabet is checked: made only for what this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan(Way);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Ssse3,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Scan {
    /// The fastest way that this processor has.
    #[must_use]
    pub fn detect() -> Self {
        Self::all().last().copied().unwrap_or(Self::PORTABLE)
    }

    /// The way that needs nothing of the processor.
    pub const PORTABLE: Self = Self(Way::Portable);

    /// Every way that this processor has, slowest first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "nothing to add"))]
        let mut all = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("ssse3") {
                all.push(Self(Way::Ssse3));
            }
            if is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("avx2") {
                all.push(Self(Way::Avx2));
            }
        }
        all
    }

    /// Whether every byte of every slice is a letter, a digit, `-` or `_`.
    #[must_use]
    #[inline]
    pub fn is_base64url<const N: usize>(self, slices: [&[u8]; N]) -> bool {
        match self.0 {
            Way::Portable => slices.into_iter().all(portable),
            // SAFETY: a Scan of this way is made in `all` alone, once the processor was found to have it.
            #[cfg(target_arch = "x86_64")]
            Way::Ssse3 => unsafe { x86::ssse3(&slices) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx2 => unsafe { x86::avx2(&slices) },
        }
    }
}

/// No branch and no table in the loop: compilers turn it into vector code.
fn portable(bytes: &[u8]) -> bool {
    const LANE: usize = 32;
    let of_alphabet = |byte: u8| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        letter | digit | (byte == b'-') | (byte == b'_')
    };
    let (lanes, rest) = bytes.as_chunks::<LANE>();
    let mut all = [true; LANE];
    for lane in lanes {
        for (all, byte) in all.iter_mut().zip(lane) {
            *all &= of_alphabet(*byte);
        }
    }
    all.into_iter().all(|fine| fine) && rest.iter().all(|byte| of_alphabet(*byte))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    // One bit for each class of bytes with the same upper half and the same rule for the lower.
    const MINUS: i8 = 1;
    const DIGITS: i8 = 2;
    const FIRST_LETTERS: i8 = 4;
    const LAST_CAPITALS: i8 = 8;
    const LAST_SMALL: i8 = 16;

    /// The classes of a byte, by its upper half: `2x` holds `-`, `3x` digits, `4x` and `6x` A-O and a-o,
    /// `5x` P-Z and `_`, `7x` p-z; the others nothing.
    const UPPER: [i8; 16] = [
        0,
        0,
        MINUS,
        DIGITS,
        FIRST_LETTERS,
        LAST_CAPITALS,
        FIRST_LETTERS,
        LAST_SMALL,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];

    /// The classes that have a byte with this lower half.
    const LOWER: [i8; 16] = {
        let mut table = [0; 16];
        let mut low = 0;
        while low < 16 {
            if low == 0xD {
                table[low] |= MINUS;
            }
            if low <= 9 {
                table[low] |= DIGITS;
            }
            if low >= 1 {
                table[low] |= FIRST_LETTERS;
            }
            if low <= 0xA || low == 0xF {
                table[low] |= LAST_CAPITALS;
            }
            if low <= 0xA {
                table[low] |= LAST_SMALL;
            }
            low += 1;
        }
        table
    };

    #[target_feature(enable = "ssse3")]
    fn load16(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the reference is to 16 readable bytes, and this load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn load32(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the reference is to 32 readable bytes, and this load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "ssse3")]
    fn table(entries: &[i8; 16]) -> __m128i {
        load16(&entries.map(i8::cast_unsigned))
    }

    /// In each lane a bit if the byte there is of the alphabet. A shuffle looks up by the lower four bits, and
    /// answers 0 where the highest bit is set, so bytes above 127 fall out by themselves.
    #[target_feature(enable = "ssse3")]
    fn classes16(bytes: __m128i) -> __m128i {
        let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(0x0F));
        _mm_and_si128(_mm_shuffle_epi8(table(&LOWER), bytes), _mm_shuffle_epi8(table(&UPPER), upper))
    }

    #[target_feature(enable = "avx2")]
    fn classes32(bytes: __m256i) -> __m256i {
        let lower = _mm256_broadcastsi128_si256(table(&LOWER));
        let by_upper = _mm256_broadcastsi128_si256(table(&UPPER));
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0F));
        _mm256_and_si256(_mm256_shuffle_epi8(lower, bytes), _mm256_shuffle_epi8(by_upper, upper))
    }

    #[target_feature(enable = "ssse3")]
    pub(super) fn ssse3(slices: &[&[u8]]) -> bool {
        let mut least = _mm_set1_epi8(-1);
        let mut short = true;
        for bytes in slices {
            // The last load overlaps the one before it: looking at a byte twice does no harm.
            let Some(last) = bytes.last_chunk::<16>() else {
                short &= super::portable(bytes);
                continue;
            };
            for lane in bytes.as_chunks::<16>().0 {
                least = _mm_min_epu8(least, classes16(load16(lane)));
            }
            least = _mm_min_epu8(least, classes16(load16(last)));
        }
        short & (_mm_movemask_epi8(_mm_cmpeq_epi8(least, _mm_setzero_si128())) == 0)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(slices: &[&[u8]]) -> bool {
        let mut least = _mm256_set1_epi8(-1);
        let mut least16 = _mm_set1_epi8(-1);
        let mut short = true;
        for bytes in slices {
            let Some(last) = bytes.last_chunk::<32>() else {
                // The three short segments of a JWE come here: two loads of 16 that overlap.
                let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) else {
                    short &= super::portable(bytes);
                    continue;
                };
                least16 = _mm_min_epu8(least16, classes16(load16(first)));
                least16 = _mm_min_epu8(least16, classes16(load16(last)));
                continue;
            };
            for lane in bytes.as_chunks::<32>().0 {
                least = _mm256_min_epu8(least, classes32(load32(lane)));
            }
            least = _mm256_min_epu8(least, classes32(load32(last)));
        }
        least = _mm256_min_epu8(least, _mm256_broadcastsi128_si256(least16));
        short & (_mm256_movemask_epi8(_mm256_cmpeq_epi8(least, _mm256_setzero_si256())) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    #[test]
    fn every_byte_at_every_place_of_every_length_is_judged_alike() {
        // Every length natively; under miri, which takes a thousand times longer, those around a lane's end.
        let lengths: Vec<usize> =
            if cfg!(miri) { vec![0, 1, 15, 16, 17, 31, 32, 33, 49] } else { (0..=100).collect() };
        let step = if cfg!(miri) { 37 } else { 1 };
        for scan in Scan::all() {
            for &length in &lengths {
                // Boxed anew, so that miri sees a read beyond either end.
                let mut bytes: Box<[u8]> = (0..length).map(|at| ALPHABET[at % 64]).collect();
                assert!(scan.is_base64url([&bytes]), "{scan:?} {length}");
                for at in 0..length {
                    let kept = bytes[at];
                    for byte in (0..=255).step_by(step) {
                        bytes[at] = byte;
                        let expected = ALPHABET.contains(&byte);
                        assert_eq!(
                            scan.is_base64url([&bytes, b"A"]),
                            expected,
                            "{scan:?} {length} {at} {byte}"
                        );
                    }
                    bytes[at] = kept;
                }
            }
        }
    }
}
