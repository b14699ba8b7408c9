//! How many bytes are not of base64url's alphabet, and whether texts are the same: 16, 32 or 64 bytes at a time where
//! the processor can, else as the compiler makes it.
//!
//! The portable way is written so that compilers vectorise it for what every processor of the target has (SSE2,
//! NEON). SSSE3 and AVX2 know the alphabet by two table look-ups: one by a byte's upper four bits, one by its lower;
//! a byte is of the alphabet if the two entries have a bit in common. AVX-512 has one look-up for all of ASCII.

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
    #[cfg(target_arch = "x86_64")]
    Avx512,
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
            let counts = is_x86_feature_detected!("popcnt");
            if counts && is_x86_feature_detected!("ssse3") {
                all.push(Self(Way::Ssse3));
            }
            if counts && is_x86_feature_detected!("avx2") {
                all.push(Self(Way::Avx2));
            }
            if counts && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi") {
                all.push(Self(Way::Avx512));
            }
        }
        all
    }

    /// How many bytes are no letter, no digit, not `-` and not `_`.
    #[must_use]
    #[inline]
    pub fn strangers(self, bytes: &[u8]) -> usize {
        match self.0 {
            Way::Portable => portable(bytes),
            // SAFETY: a Scan of this way is made in `all` alone, once the processor was found to have it.
            #[cfg(target_arch = "x86_64")]
            Way::Ssse3 => unsafe { x86::ssse3(bytes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx2 => unsafe { x86::avx2(bytes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => unsafe { x86::avx512(bytes) },
        }
    }

    /// Whether the two of each pair are the same.
    #[must_use]
    #[inline]
    pub fn are_same<const N: usize>(self, pairs: [(&[u8], &[u8]); N]) -> bool {
        match self.0 {
            // SAFETY: as in `strangers`.
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => unsafe { x86::same512(pairs) },
            // What the compiler makes of it is a call for each pair.
            _ => pairs.into_iter().all(|(one, other)| one == other),
        }
    }
}

/// No branch and no table in the loop: compilers turn it into vector code.
fn portable(bytes: &[u8]) -> usize {
    const LANE: usize = 32;
    /// So many lanes are counted in a byte.
    const LANES_MAX: usize = u8::MAX as usize;
    let is_strange = |byte: u8| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        u8::from(!(letter | digit | (byte == b'-') | (byte == b'_')))
    };
    let (lanes, rest) = bytes.as_chunks::<LANE>();
    let of_lanes = lanes.chunks(LANES_MAX).map(|lanes| {
        let mut strangers = [0; LANE];
        for lane in lanes {
            for (strangers, byte) in strangers.iter_mut().zip(lane) {
                *strangers += is_strange(*byte);
            }
        }
        strangers.into_iter().map(usize::from).sum::<usize>()
    });
    of_lanes.sum::<usize>() + rest.iter().map(|byte| usize::from(is_strange(*byte))).sum::<usize>()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    // One bit for each class of bytes with the same upper half and the same rule for the lower.
    const MINUS: u8 = 1;
    const DIGITS: u8 = 2;
    const FIRST_LETTERS: u8 = 4;
    const LAST_CAPITALS: u8 = 8;
    const LAST_SMALL: u8 = 16;

    /// The classes of a byte, by its upper half: `2x` holds `-`, `3x` digits, `4x` and `6x` A-O and a-o,
    /// `5x` P-Z and `_`, `7x` p-z; the others nothing.
    const UPPER: [u8; 16] = [
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
    const LOWER: [u8; 16] = {
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

    /// In each lane a bit if the byte there is of the alphabet. A shuffle looks up by the lower four bits, and
    /// answers 0 where the highest bit is set, so bytes above 127 fall out by themselves.
    #[target_feature(enable = "ssse3")]
    fn classes16(bytes: __m128i) -> __m128i {
        let upper = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(0x0F));
        _mm_and_si128(_mm_shuffle_epi8(load16(&LOWER), bytes), _mm_shuffle_epi8(load16(&UPPER), upper))
    }

    #[target_feature(enable = "avx2")]
    fn classes32(bytes: __m256i) -> __m256i {
        let lower = _mm256_broadcastsi128_si256(load16(&LOWER));
        let by_upper = _mm256_broadcastsi128_si256(load16(&UPPER));
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0F));
        _mm256_and_si256(_mm256_shuffle_epi8(lower, bytes), _mm256_shuffle_epi8(by_upper, upper))
    }

    #[target_feature(enable = "ssse3,popcnt")]
    pub(super) fn ssse3(bytes: &[u8]) -> usize {
        let (lanes, rest) = bytes.as_chunks::<16>();
        let strange = |lane: &[u8; 16]| {
            let mask = _mm_movemask_epi8(_mm_cmpeq_epi8(classes16(load16(lane)), _mm_setzero_si128()));
            mask.cast_unsigned()
        };
        let mut strangers = 0;
        for lane in lanes {
            strangers += strange(lane).count_ones();
        }
        // The last load overlaps the one before it: what that one counted is shifted out.
        strangers as usize
            + match bytes.last_chunk::<16>() {
                Some(last) if !rest.is_empty() => (strange(last) >> (16 - rest.len())).count_ones() as usize,
                _ => super::portable(rest),
            }
    }

    #[target_feature(enable = "avx2,popcnt")]
    pub(super) fn avx2(bytes: &[u8]) -> usize {
        let (lanes, rest) = bytes.as_chunks::<32>();
        let strange = |lane: &[u8; 32]| {
            let none = _mm256_cmpeq_epi8(classes32(load32(lane)), _mm256_setzero_si256());
            _mm256_movemask_epi8(none).cast_unsigned()
        };
        let mut strangers = 0;
        for lane in lanes {
            strangers += strange(lane).count_ones();
        }
        // As above.
        strangers as usize
            + match bytes.last_chunk::<32>() {
                Some(last) if !rest.is_empty() => (strange(last) >> (32 - rest.len())).count_ones() as usize,
                _ => super::portable(rest),
            }
    }

    /// One half of ASCII: the highest bit set for what is not of the alphabet.
    const fn strange_of(first: u8) -> [u8; 64] {
        let mut table = [0x80; 64];
        let mut at = 0;
        while at < 64 {
            let byte = first + at as u8;
            if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
                table[at] = 0;
            }
            at += 1;
        }
        table
    }
    const STRANGE: [[u8; 64]; 2] = [strange_of(0), strange_of(64)];

    #[target_feature(enable = "avx512bw")]
    fn load64(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the reference is to 64 readable bytes, and this load needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// Fewer than 64 bytes, and for the rest those of `else_`.
    #[target_feature(enable = "avx512bw")]
    fn load_rest(bytes: &[u8], else_: __m512i) -> __m512i {
        // The processor takes fifty times as long to read nothing where no memory is, as an empty slice may be.
        if bytes.is_empty() {
            return else_;
        }
        let wanted = (1_u64 << (bytes.len() % 64)) - 1;
        // SAFETY: only the bytes whose bits are set are read, and the slice has that many.
        unsafe { _mm512_mask_loadu_epi8(else_, wanted, bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512bw,avx512vbmi,popcnt")]
    pub(super) fn avx512(bytes: &[u8]) -> usize {
        let (low, high) = (load64(&STRANGE[0]), load64(&STRANGE[1]));
        let strange = |bytes| {
            // The look-up uses a byte's lower seven bits; the eighth is strange by itself.
            let looked_up = _mm512_permutex2var_epi8(low, bytes, high);
            _mm512_movepi8_mask(_mm512_or_si512(looked_up, bytes))
        };
        let (lanes, rest) = bytes.as_chunks::<64>();
        let mut strangers = strange(load_rest(rest, _mm512_set1_epi8(b'A'.cast_signed()))).count_ones();
        for lane in lanes {
            strangers += strange(load64(lane)).count_ones();
        }
        strangers as usize
    }

    #[target_feature(enable = "avx512bw")]
    pub(super) fn same512<const N: usize>(pairs: [(&[u8], &[u8]); N]) -> bool {
        let zero = _mm512_setzero_si512();
        let mut different = 0;
        for (one, other) in pairs {
            if one.len() != other.len() {
                return false;
            }
            let ((one, one_rest), (other, other_rest)) = (one.as_chunks::<64>(), other.as_chunks::<64>());
            for (one, other) in one.iter().zip(other) {
                different |= _mm512_cmpneq_epu8_mask(load64(one), load64(other));
            }
            let (one, other) = (load_rest(one_rest, zero), load_rest(other_rest, zero));
            different |= _mm512_cmpneq_epu8_mask(one, other);
        }
        different == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    #[test]
    fn texts_are_the_same_if_no_byte_differs() {
        let step = if cfg!(miri) { 31 } else { 1 };
        for scan in Scan::all() {
            for length in (0..=200).step_by(step) {
                let one: Box<[u8]> = (0..length).map(|at| ALPHABET[at % 64]).collect();
                let mut other = one.clone();
                assert!(scan.are_same([(&one, &other), (b"a", b"a")]), "{scan:?} {length}");
                assert!(!scan.are_same([(b"a", b"b"), (&one, &other)]), "{scan:?} {length}");
                assert!(!scan.are_same([(&one, &[&other, &b"A"[..]].concat())]), "{scan:?} {length}");
                for at in 0..length {
                    other[at] ^= 0x80;
                    assert!(!scan.are_same([(&one, &other)]), "{scan:?} {length} {at}");
                    other[at] ^= 0x80;
                }
            }
        }
    }

    #[test]
    fn every_byte_at_every_place_of_every_length_is_judged_alike() {
        // Every length natively; under miri, which takes a thousand times longer, those around a lane's end.
        let lengths: Vec<usize> = if cfg!(miri) {
            vec![0, 1, 15, 16, 17, 31, 32, 33, 49]
        } else {
            (0..=66).chain(126..=130).collect()
        };
        let step = if cfg!(miri) { 37 } else { 1 };
        for scan in Scan::all() {
            for &length in &lengths {
                // Boxed anew, so that miri sees a read beyond either end.
                let mut bytes: Box<[u8]> = (0..length).map(|at| ALPHABET[at % 64]).collect();
                assert_eq!(scan.strangers(&bytes), 0, "{scan:?} {length}");
                for at in 0..length {
                    let kept = bytes[at];
                    for byte in (0..=255).step_by(step) {
                        bytes[at] = byte;
                        let expected = usize::from(!ALPHABET.contains(&byte));
                        assert_eq!(scan.strangers(&bytes), expected, "{scan:?} {length} {at} {byte}");
                    }
                    bytes[at] = kept;
                }
                bytes.fill(b'.');
                assert_eq!(scan.strangers(&bytes), length, "{scan:?} {length}");
            }
        }
    }
}
