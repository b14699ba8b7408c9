//! Where a CSV's commas, quotes and line feeds stand: 64 bytes at a time where the processor can.
//!
//! A block's marks are found in one pass and kept as places, so that splitting it into cells looks at no other byte.

#![allow(
    unsafe_code,
    reason = "vector loads take pointers, and code for an optional instruction set can only be called where the \
              set was found: both are checked here"
)]

/// The places of all commas, quotes and line feeds of one block, in order. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Room for the places; what is behind the last one means nothing.
    room: Vec<u32>,
    count: usize,
    has_returns: bool,
}

impl Marks {
    /// Finds those of a block, which has fewer than 2^32 bytes.
    pub(super) fn find(&mut self, bytes: &[u8]) {
        (self.count, self.has_returns) = (0, false);
        let (lanes, rest) = bytes.as_chunks::<LANE>();
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("popcnt")
        {
            // SAFETY: the processor was just found to have all three.
            unsafe { x86::find(lanes, self) };
            self.find_plainly(lanes.len() * LANE, rest);
            return;
        }
        self.find_plainly(0, bytes);
    }

    /// The places.
    pub(super) fn places(&self) -> &[u32] {
        &self.room[..self.count]
    }

    /// Whether there is a carriage return anywhere.
    pub(super) fn has_returns(&self) -> bool {
        self.has_returns
    }

    /// Those of the bytes from this place on.
    fn find_plainly(&mut self, from: usize, bytes: &[u8]) {
        for at in memchr::memchr3_iter(b',', b'"', b'\n', bytes) {
            self.room_of_lane()[0] = place(from + at);
            self.count += 1;
        }
        self.has_returns |= memchr::memchr(b'\r', bytes).is_some();
    }

    /// Room behind the last place for all that one lane may hold.
    #[inline]
    fn room_of_lane(&mut self) -> &mut [u32; LANE] {
        if self.room.len() < self.count + LANE {
            self.room.resize((self.room.len() * 2).max(ROOM_MIN), 0);
        }
        self.room[self.count..].first_chunk_mut().expect("it was made longer than that")
    }
}

/// Room for the marks of most blocks.
const ROOM_MIN: usize = 16 << 10;
/// Bytes whose marks make one word.
const LANE: usize = 64;

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a block has fewer than 2^32 bytes")
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANE, Marks, place};

    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the reference is to 32 readable bytes, and this load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// A bit for each of 32 bytes that is a mark; and a highest bit set where a carriage return is.
    #[target_feature(enable = "avx2")]
    fn marks_of(bytes: &[u8; 32]) -> (u64, __m256i) {
        let bytes = load(bytes);
        let is = |mark: u8| _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(mark.cast_signed()));
        let any = _mm256_or_si256(_mm256_or_si256(is(b','), is(b'"')), is(b'\n'));
        (u64::from(_mm256_movemask_epi8(any).cast_unsigned()), is(b'\r'))
    }

    #[target_feature(enable = "avx2,bmi1,popcnt")]
    pub(super) fn find(lanes: &[[u8; LANE]], all: &mut Marks) {
        /// So many are written without a look whether they are there: a branch less, and most lanes have no more.
        const WRITTEN: usize = 4;
        let mut first = 0;
        let mut returns = _mm256_setzero_si256();
        for lane in lanes {
            let ([one, other], []) = lane.as_chunks::<32>() else { unreachable!("a lane is two of 32") };
            let ((one, one_returns), (other, other_returns)) = (marks_of(one), marks_of(other));
            returns = _mm256_or_si256(returns, _mm256_or_si256(one_returns, other_returns));
            let mut marks = one | (other << 32);
            if marks != 0 {
                let count = marks.count_ones() as usize;
                let room = all.room_of_lane();
                let mut write = |at: &mut u32| {
                    *at = first + marks.trailing_zeros();
                    marks &= marks.wrapping_sub(1);
                };
                room[..WRITTEN].iter_mut().for_each(&mut write);
                if count > WRITTEN {
                    room[WRITTEN..count].iter_mut().for_each(write);
                }
                all.count += count;
            }
            first += place(LANE);
        }
        all.has_returns = _mm256_movemask_epi8(returns) != 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_found_at_each_place() {
        let mut marks = Marks::default();
        for length in (0..70).chain(120..140) {
            for at in 0..length {
                for byte in [b',', b'"', b'\n', b'\r', b';', 0x2d, 0x80 | b',', 0] {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    marks.find(&bytes);
                    let found = [place(at)];
                    let expected = if b",\"\n".contains(&byte) { &found[..] } else { &[] };
                    assert_eq!(marks.places(), expected, "{byte} at {at} of {length}");
                    assert_eq!(marks.has_returns(), byte == b'\r', "{byte} at {at} of {length}");
                }
            }
            marks.find(&vec![b','; length]);
            assert_eq!(marks.places().len(), length);
        }
    }
}
