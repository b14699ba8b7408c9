//! base64url's alphabet (RFC 4648, section 5): which bytes are of it, and what they stand for.

/// The six bits of each character of the alphabet; all eight for every other byte.
pub(super) const SEXTETS: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut table = [0xFF; 256];
    let mut bits = 0;
    while bits < 64 {
        table[alphabet[bits as usize] as usize] = bits;
        bits += 1;
    }
    table
};

/// How many bytes are no letter, no digit, not `-` and not `_`. No branch and no table in the loop: compilers turn it
/// into vector code for what every processor of the target has (SSE2, NEON).
pub(super) fn count_outside(bytes: &[u8]) -> usize {
    const LANE: usize = 32;
    /// So many lanes are counted in a byte.
    const LANES_MAX: usize = u8::MAX as usize;
    let is_outside = |byte: u8| {
        let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
        let digit = byte.wrapping_sub(b'0') < 10;
        u8::from(!(letter | digit | (byte == b'-') | (byte == b'_')))
    };
    let (lanes, rest) = bytes.as_chunks::<LANE>();
    let of_lanes = lanes.chunks(LANES_MAX).map(|lanes| {
        let mut counts = [0; LANE];
        for lane in lanes {
            for (count, byte) in counts.iter_mut().zip(lane) {
                *count += is_outside(*byte);
            }
        }
        counts.into_iter().map(usize::from).sum::<usize>()
    });
    of_lanes.sum::<usize>() + rest.iter().map(|byte| usize::from(is_outside(*byte))).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    #[test]
    fn every_byte_at_every_place_of_every_length_is_judged_alike() {
        for length in (0..=66).chain(126..=130) {
            let mut bytes: Vec<u8> = (0..length).map(|at| ALPHABET[at % 64]).collect();
            assert_eq!(count_outside(&bytes), 0, "{length}");
            for at in 0..length {
                let kept = bytes[at];
                for byte in 0..=255 {
                    bytes[at] = byte;
                    let expected = usize::from(!ALPHABET.contains(&byte));
                    assert_eq!(count_outside(&bytes), expected, "{length} {at} {byte}");
                    assert_eq!(expected, usize::from(SEXTETS[usize::from(byte)] == 0xFF));
                }
                bytes[at] = kept;
            }
            bytes.fill(b'.');
            assert_eq!(count_outside(&bytes), length, "{length}");
        }
    }

    #[test]
    fn more_lanes_than_a_byte_counts_are_counted() {
        let bytes = vec![b'.'; 32 * 300 + 7];
        assert_eq!(count_outside(&bytes), bytes.len());
    }
}
