//! What can be said of a body that is not read as a job: in which encoding it seems to be, and whose it is.

use std::cell::RefCell;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use crate::job::{Batch, JobId};

/// How a body is encoded that should be JSON in UTF-8 and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Compressed.
    Gzip,
    /// UTF-8 with a byte order mark before it.
    ByteOrderMark,
    /// UTF-16, with its mark or without.
    Utf16,
}

impl Encoding {
    /// What its first bytes show.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        match body {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0xef, 0xbb, 0xbf, ..] => Some(Self::ByteOrderMark),
            // JSON begins with an ASCII character, of which one byte is 0 in UTF-16.
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..] => Some(Self::Utf16),
            _ => None,
        }
    }

    /// What it is, and what to do, for whoever sent it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Gzip => "it is compressed with gzip; send it as it is",
            Self::ByteOrderMark => "it begins with a byte order mark; send UTF-8 without one",
            Self::Utf16 => "it is in UTF-16; send UTF-8",
        }
    }
}

/// How far into a body that is too big its name is looked for: a job's names stand at its beginning, or it is not worth reading.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// The job's id and its batch, as far as they stand in the first part of a body that is not read as a whole.
#[must_use]
pub fn names_at_head(body: &[u8]) -> (Option<String>, Option<String>) {
    let head = &body[..body.len().min(HEAD_BYTES_MAX)];
    let found = RefCell::default();
    // It is cut off, so that it ends with an error; what was found before that counts.
    let _ = serde_json::Deserializer::from_slice(head).deserialize_map(Head(&found));
    let (id, batch): (Option<String>, Option<String>) = found.into_inner();
    (
        id.filter(|id| JobId::new(id.as_str()).is_ok()),
        batch.filter(|batch| Batch::new(batch.as_str()).is_ok()),
    )
}

struct Head<'f>(&'f RefCell<(Option<String>, Option<String>)>);

impl<'de> Visitor<'de> for Head<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a job")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<(), M::Error> {
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                "id" => self.0.borrow_mut().0 = Some(members.next_value()?),
                "batch" => self.0.borrow_mut().1 = Some(members.next_value()?),
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_told_by_its_first_bytes_and_a_job_has_none() {
        let utf16 = |units: Vec<[u8; 2]>| units.concat();
        let text = r#"{"id": "a"}"#;
        for (body, encoding) in [
            (text.as_bytes().to_vec(), None),
            (b"".to_vec(), None),
            (b"{".to_vec(), None),
            (vec![0x1f, 0x8b, 8, 0], Some(Encoding::Gzip)),
            ([b"\xef\xbb\xbf", text.as_bytes()].concat(), Some(Encoding::ByteOrderMark)),
            (utf16(text.encode_utf16().map(u16::to_le_bytes).collect()), Some(Encoding::Utf16)),
            (utf16(text.encode_utf16().map(u16::to_be_bytes).collect()), Some(Encoding::Utf16)),
            (b"\xff\xfe{\0".to_vec(), Some(Encoding::Utf16)),
        ] {
            assert_eq!(Encoding::of(&body), encoding, "{body:?}");
        }
    }

    #[test]
    fn a_body_that_is_too_big_is_named_by_what_stands_at_its_head() {
        let body =
            format!(r#"{{"id": "a", "card": {{"x": [1]}}, "batch": "b", "pin": "{}"}}"#, "4".repeat(1 << 20));
        assert_eq!(names_at_head(body.as_bytes()), (Some("a".into()), Some("b".into())));
        let late = format!(r#"{{"batch": "b", "pin": "{}", "id": "a"}}"#, "4".repeat(1 << 20));
        assert_eq!(names_at_head(late.as_bytes()), (None, Some("b".into())));
        for none in ["", "[]", r#"{"id": 4711}"#, r#"{"id": ""}"#] {
            assert_eq!(names_at_head(none.as_bytes()), (None, None), "{none}");
        }
    }
}
