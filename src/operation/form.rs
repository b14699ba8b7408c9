//! The request body: `application/x-www-form-urlencoded` (url.spec.whatwg.org), as Stripe's API takes it.
//!
//! Brackets of Stripe's own parameters are kept, as Stripe's clients keep them. Never allocates beyond the buffer it is
//! given.

use url::form_urlencoded::byte_serialize;

/// Pairs in order. They stand in one text as the body has them, but not escaped: most need no escaping and are copied.
#[derive(Debug, Default, Clone)]
pub(super) struct Form {
    /// `&path=value&path=value`
    text: String,
    pairs: Vec<Pair>,
}

/// Where a pair stands in the text.
#[derive(Debug, Clone, Copy)]
struct Pair {
    start: usize,
    equals: usize,
    end: usize,
    written: Written,
}

/// How a pair is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Nothing of it needs escaping.
    AsItIs,
    /// The value may need it.
    ValueEscaped,
    /// The path, too: a key of metadata is anybody's text.
    BothEscaped,
}

impl Form {
    /// With room for so many pairs, and so many bytes of paths and values and what joins them.
    pub(super) fn with_capacity(pairs: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), pairs: Vec::with_capacity(pairs) }
    }

    /// Adds a pair at the end.
    pub(super) fn push(&mut self, path: &str, value: &str) {
        let written = match (path.split(['[', ']']).all(is_plain), is_plain(value)) {
            (false, _) => Written::BothEscaped,
            (true, false) => Written::ValueEscaped,
            (true, true) => Written::AsItIs,
        };
        let start = self.text.len();
        let equals = start + 1 + path.len();
        for part in ["&", path, "=", value] {
            self.text.push_str(part);
        }
        self.pairs.push(Pair { start, equals, end: self.text.len(), written });
    }

    /// The pairs, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|Pair { start, equals, end, .. }| {
            (&self.text[start + 1..*equals], &self.text[equals + 1..*end])
        })
    }

    /// Appends the body.
    pub(super) fn encode_into(&self, body: &mut Vec<u8>) {
        let text = self.text.as_bytes();
        body.reserve(text.len());
        for Pair { start, equals, end, written } in &self.pairs {
            // The first pair of a body has no `&`.
            let start = start + usize::from(body.is_empty());
            match written {
                Written::AsItIs => body.extend_from_slice(&text[start..*end]),
                Written::ValueEscaped => {
                    body.extend_from_slice(&text[start..=*equals]);
                    escape(body, &text[equals + 1..*end]);
                }
                Written::BothEscaped => {
                    let path = if body.is_empty() { start } else { start + 1 };
                    body.extend_from_slice(&text[start..path]);
                    escape(body, &text[path..*equals]);
                    body.push(b'=');
                    escape(body, &text[equals + 1..*end]);
                }
            }
        }
    }
}

/// Whether a text is written as it is.
fn is_plain(text: &str) -> bool {
    byte_serialize(text.as_bytes()).next().is_none_or(|first| first == text)
}

/// Appends a pair whose path, given as `&path=`, needs no escaping.
pub(super) fn pair(body: &mut Vec<u8>, path: &str, value: &str) {
    start(body, path);
    escape(body, value.as_bytes());
}

/// Appends a pair of which nothing needs escaping; the path is given as `&path=`.
pub(super) fn plain_pair(body: &mut Vec<u8>, path: &str, value: &str) {
    start(body, path);
    body.extend_from_slice(value.as_bytes());
}

fn start(body: &mut Vec<u8>, path: &str) {
    let ampersand = usize::from(body.is_empty());
    body.extend_from_slice(&path.as_bytes()[ampersand..]);
}

fn escape(body: &mut Vec<u8>, text: &[u8]) {
    for part in byte_serialize(text) {
        body.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_byte_of_ascii_comes_back_alone_from_key_and_value() {
        for letter in (0..128_u8).map(|byte| char::from(byte).to_string()) {
            let mut form = Form::default();
            let mut body = Vec::new();
            let expected = [(letter.clone(), "AA".to_owned()), ("AA".to_owned(), format!("{letter}AA"))];
            for (path, value) in &expected {
                form.push(path, value);
            }
            form.encode_into(&mut body);
            let back: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
            assert_eq!(back, expected);
        }
    }

    proptest! {
        #[test]
        fn any_pairs_come_back_from_the_body(
            entries in prop::collection::vec(("[^\\[\\]]{1,12}", prop_oneof!["[a-z]{0,9}", "[%+&=A-F0-9 ]{0,9}", any::<String>()]), 0..6),
            before in any::<bool>(),
        ) {
            let mut form = Form::default();
            let mut expected = Vec::new();
            let mut body = Vec::new();
            if before {
                plain_pair(&mut body, "&type=", "virtual");
                expected.push(("type".to_owned(), "virtual".to_owned()));
            }
            for (key, value) in &entries {
                for path in [format!("metadata[{key}]"), "cardholder".to_owned()] {
                    form.push(&path, value);
                    expected.push((path, value.clone()));
                }
            }
            form.encode_into(&mut body);
            if !body.is_empty() {
                pair(&mut body, "&metadata[embosser_job]=", "a b/ü");
                expected.push(("metadata[embosser_job]".to_owned(), "a b/ü".to_owned()));
            }
            let back: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
            prop_assert_eq!(back, expected);
        }
    }
}
