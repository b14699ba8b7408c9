//! The request body: `application/x-www-form-urlencoded` (url.spec.whatwg.org), as Stripe's API takes it.
//!
//! Brackets are kept, as Stripe's own clients keep them. Never allocates beyond the buffer it is given.

use super::params::metadata_key;

/// Bytes that stand for themselves in a value.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        plain[byte] =
            letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.' | b'*' | b'[' | b']');
        byte += 1;
    }
    plain
};

/// Appends a pair whose path is a known parameter.
pub(super) fn pair(body: &mut Vec<u8>, path: &str, value: &str) {
    if metadata_key(path).is_some() {
        start(body);
        escape(body, path);
    } else {
        plain_path(body, path);
    }
    body.push(b'=');
    escape(body, value);
}

/// Appends a pair of which nothing needs escaping.
pub(super) fn plain_pair(body: &mut Vec<u8>, path: &str, value: &str) {
    plain_path(body, path);
    body.push(b'=');
    body.extend_from_slice(value.as_bytes());
}

fn start(body: &mut Vec<u8>) {
    if !body.is_empty() {
        body.push(b'&');
    }
}

/// A path of the table has letters, `_`, digits and brackets only.
fn plain_path(body: &mut Vec<u8>, path: &str) {
    debug_assert!(path.bytes().all(|byte| PLAIN[usize::from(byte)]), "paths of the table need no escaping");
    start(body);
    body.extend_from_slice(path.as_bytes());
}

/// Copies the runs that stand for themselves, whole, and escapes what is between them.
fn escape(body: &mut Vec<u8>, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| !PLAIN[usize::from(*byte)]) {
        body.extend_from_slice(&rest[..at]);
        match rest[at] {
            b' ' => body.push(b'+'),
            byte => body.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
        rest = &rest[at + 1..];
    }
    body.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_value_comes_back_from_the_body(key in "[^\\[\\]]{1,12}", value in any::<String>()) {
            let path = format!("metadata[{key}]");
            let mut body = Vec::new();
            pair(&mut body, "cardholder", &value);
            pair(&mut body, &path, &value);
            let back: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
            prop_assert_eq!(back, vec![("cardholder".to_owned(), value.clone()), (path, value)]);
        }
    }
}
