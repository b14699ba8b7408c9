//! The request body: `application/x-www-form-urlencoded` (url.spec.whatwg.org), as Stripe's API takes it.
//!
//! Brackets are kept, as Stripe's own clients keep them. Never allocates beyond the buffer it is given.

/// How each byte is written: up to three bytes, and how many.
const WRITTEN: [[u8; 4]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut written = [[0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        written[byte] = match letter {
            b' ' => [b'+', 0, 0, 1],
            b'-' | b'_' | b'.' | b'*' | b'[' | b']' => [letter, 0, 0, 1],
            _ if letter.is_ascii_alphanumeric() => [letter, 0, 0, 1],
            _ => [b'%', DIGITS[byte >> 4], DIGITS[byte & 15], 3],
        };
        byte += 1;
    }
    written
};

/// Pairs, one after the other, as the body has them but for the values that need escaping: what needs none is copied
/// in runs of many pairs.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// `&path=value&path=value`, nothing escaped.
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
    /// The value may need it. The table's paths never do.
    ValueEscaped,
    /// The key of metadata is anybody's text, too.
    BothEscaped,
}

impl Form {
    /// With room for so many pairs, and so many bytes of paths and values and what joins them.
    pub(super) fn with_capacity(pairs: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), pairs: Vec::with_capacity(pairs) }
    }

    /// Adds a pair at the end.
    pub(super) fn push(&mut self, path: &str, value: &str) {
        // `%` is the one byte that is escaped and yet comes first in what is written for it.
        let plain = |text: &str| text.bytes().all(|byte| WRITTEN[usize::from(byte)] == [byte, 0, 0, 1]);
        let written = match (plain(path), plain(value)) {
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
        self.pairs.iter().map(|pair| self.pair(*pair))
    }

    fn pair(&self, Pair { start, equals, end, .. }: Pair) -> (&str, &str) {
        (&self.text[start + 1..equals], &self.text[equals + 1..end])
    }

    /// Appends the body.
    pub(super) fn encode_into(&self, body: &mut Vec<u8>) {
        let text = self.text.as_bytes();
        body.reserve(text.len());
        // So far the text is in the body; the first pair of a body has no `&`.
        let mut done = usize::from(body.is_empty()).min(text.len());
        for Pair { start, equals, end, written } in &self.pairs {
            match written {
                Written::AsItIs => continue,
                Written::ValueEscaped => body.extend_from_slice(&text[done..=*equals]),
                Written::BothEscaped => {
                    body.extend_from_slice(&text[done..=*start]);
                    escape(body, &text[start + 1..*equals]);
                    body.push(b'=');
                }
            }
            escape(body, &text[equals + 1..*end]);
            done = *end;
        }
        body.extend_from_slice(&text[done..]);
    }
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

/// Escapes what does not stand for itself, without a branch on what it is.
fn escape(body: &mut Vec<u8>, text: &[u8]) {
    /// Escaped at once, on the stack: most values are shorter, and a copy of a few bytes costs more than the bytes.
    const PIECE_BYTES: usize = 32;
    for piece in text.chunks(PIECE_BYTES) {
        // Three bytes are written each time; what of them is not the byte's the next one overwrites.
        let (mut escaped, mut length) = ([0; 3 * PIECE_BYTES], 0);
        for byte in piece {
            let [first, second, third, count] = WRITTEN[usize::from(*byte)];
            escaped[length..length + 3].copy_from_slice(&[first, second, third]);
            length += usize::from(count);
        }
        body.extend_from_slice(&escaped[..length]);
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
