//! Headers that were read and accepted before, to be known again by their bytes.
//!
//! A header says the same each time it is read, and all the PINs that one client library encrypts under one key
//! have the same header. A few are kept, since libraries order and space the members differently.

/// Headers kept: more than the client libraries that one issuer has in use.
const HEADERS_MAX: usize = 4;
/// Longest header kept, in characters: the three members, a generous `kid`, `typ` and `cty` take about 250.
const HEADER_CHARACTERS_MAX: usize = 512;

/// Accepted header segments of one key.
///
/// A new one takes the last place and moves up one place whenever it is met again. So a stream of headers that
/// are all different, hostile or not, can only ever push each other out of the last place.
#[derive(Debug, Default)]
pub(super) struct Known {
    kid: String,
    headers: Vec<Box<[u8]>>,
}

impl Known {
    pub(super) const fn new() -> Self {
        Self { kid: String::new(), headers: Vec::new() }
    }

    /// Whether it is a known header of this key.
    pub(super) fn knows(&mut self, kid: &str, header: &[u8]) -> bool {
        // Two that are empty are the same. To compare them took an eighth of a check's time.
        let is_same = self.kid.len() == kid.len() && (kid.is_empty() || self.kid == kid);
        if !is_same {
            kid.clone_into(&mut self.kid);
            self.headers.clear();
        }
        let place = self.headers.iter().position(|known| **known == *header);
        if let Some(place) = place.filter(|place| *place > 0) {
            self.headers.swap(place - 1, place);
        }
        place.is_some()
    }

    /// Keeps a header that was read and accepted.
    pub(super) fn learn(&mut self, header: &[u8]) {
        if header.len() > HEADER_CHARACTERS_MAX {
            return;
        }
        self.headers.truncate(HEADERS_MAX - 1);
        self.headers.push(header.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_new_headers_does_not_push_out_those_in_use() {
        let mut known = Known::new();
        known.learn(b"mine");
        for number in 0..1000 {
            known.learn(format!("hostile{number}").as_bytes());
            assert!(known.knows("", b"mine"), "after {number}");
        }
        assert_eq!(known.headers.len(), HEADERS_MAX);
    }

    #[test]
    fn a_long_header_is_not_kept() {
        let mut known = Known::new();
        known.learn(&[b'a'; HEADER_CHARACTERS_MAX + 1]);
        assert!(known.headers.is_empty());
    }

    #[test]
    fn another_key_forgets_them() {
        let mut known = Known::new();
        assert!(!known.knows("one", b"abc"));
        known.learn(b"abc");
        assert!(known.knows("one", b"abc"));
        assert!(!known.knows("two", b"abc"));
        assert!(!known.knows("one", b"abc"));
    }
}
