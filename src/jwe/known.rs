//! Headers that were read and accepted before, to be known again by their bytes.
//!
//! A header says the same each time it is read, and all the PINs that one client library encrypts under one key
//! have the same header. A few are kept, since libraries order and space the members differently.

/// Headers kept: more than the client libraries that one issuer has in use.
const HEADERS_MAX: usize = 4;
/// Longest header kept, in characters: the three members, a generous `kid`, `typ` and `cty` take about 250.
pub(super) const HEADER_CHARACTERS_MAX: usize = 512;

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

    /// From now on the headers are of this key; those of another are forgotten.
    #[cold]
    fn of_key(&mut self, kid: &str) {
        if self.kid != kid {
            kid.clone_into(&mut self.kid);
            self.headers.clear();
        }
    }

    /// How long the header segment is, if it is a known one of this key. It ends at the first dot, since none has one
    /// inside.
    #[inline]
    pub(super) fn find(&mut self, kid: &str, compact: &[u8]) -> Option<usize> {
        // Nearly always it is the first, of the same key.
        if let Some(header) = self.headers.first()
            && compact.get(header.len()) == Some(&b'.')
            && self.kid == kid
            && compact.starts_with(header)
        {
            return Some(header.len());
        }
        self.of_key(kid);
        self.find_further(compact)
    }

    #[cold]
    fn find_further(&mut self, compact: &[u8]) -> Option<usize> {
        let is_of = |header: &[u8]| compact.get(header.len()) == Some(&b'.') && compact.starts_with(header);
        let place = self.headers.iter().position(|header| is_of(header))?;
        let length = self.headers[place].len();
        if place > 0 {
            self.headers.swap(place - 1, place);
        }
        Some(length)
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

    fn find(known: &mut Known, compact: &[u8]) -> Option<usize> {
        known.find("", compact)
    }

    #[test]
    fn a_known_header_is_found_only_up_to_its_dot() {
        let mut known = Known::new();
        known.learn(b"abc");
        assert_eq!(find(&mut known, b"abc.rest"), Some(3));
        for other in [&b"abcd.rest"[..], b"ab.rest", b"abc", b"", b".abc"] {
            assert_eq!(find(&mut known, other), None);
        }
    }

    #[test]
    fn a_flood_of_new_headers_does_not_push_out_those_in_use() {
        let mut known = Known::new();
        known.learn(b"mine");
        for number in 0..1000 {
            known.learn(format!("hostile{number}").as_bytes());
            assert!(find(&mut known, b"mine.").is_some(), "after {number}");
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
        assert!(known.find("one", b"abc.").is_none());
        known.learn(b"abc");
        assert!(known.find("one", b"abc.").is_some());
        assert!(known.find("two", b"abc.").is_none());
        assert!(known.find("one", b"abc.").is_none());
    }
}
