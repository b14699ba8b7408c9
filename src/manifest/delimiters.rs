//! Where a CSV's commas, quotes and line feeds stand.
//!
//! A block's delimiters are found in one pass and kept as places, so that splitting it into cells looks at no other byte.

/// The places of all commas, quotes and line feeds of one block, in order. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Delimiters {
    places: Vec<u32>,
    has_returns: bool,
}

impl Delimiters {
    /// Finds those of a block, which has fewer than 2^32 bytes.
    pub(super) fn find(&mut self, bytes: &[u8]) {
        self.places.clear();
        self.places.extend(memchr::memchr3_iter(b',', b'"', b'\n', bytes).map(place));
        self.has_returns = memchr::memchr(b'\r', bytes).is_some();
    }

    /// The places.
    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }

    /// Whether there is a carriage return anywhere.
    pub(super) fn has_returns(&self) -> bool {
        self.has_returns
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).expect("a block has fewer than 2^32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_delimiter_is_found_at_each_place() {
        let mut delimiters = Delimiters::default();
        for length in (0..70).chain(120..140) {
            for at in 0..length {
                for byte in [b',', b'"', b'\n', b'\r', b';', 0x2d, 0x80 | b',', 0] {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    delimiters.find(&bytes);
                    let found = [place(at)];
                    let expected = if b",\"\n".contains(&byte) { &found[..] } else { &[] };
                    assert_eq!(delimiters.places(), expected, "{byte} at {at} of {length}");
                    assert_eq!(delimiters.has_returns(), byte == b'\r', "{byte} at {at} of {length}");
                }
            }
            delimiters.find(&vec![b','; length]);
            assert_eq!(delimiters.places().len(), length);
        }
    }
}
