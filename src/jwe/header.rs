//! The protected header: the members that decide, in any order, among any others.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Refusal;

/// Reads a header and answers its `kid`.
pub(super) fn read(json: &[u8]) -> Result<Cow<'_, str>, Refusal> {
    // Checked as a whole, since values that are skipped below are not looked at.
    let json = std::str::from_utf8(json).map_err(|_| Refusal::HeaderInvalid)?;
    let members: Members = serde_json::from_str(json).map_err(|_| Refusal::HeaderInvalid)?;
    if members.alg.as_deref() != Some("RSA-OAEP") {
        return Err(Refusal::Algorithm);
    }
    if members.enc.as_deref() != Some("A128CBC-HS256") {
        return Err(Refusal::Encryption);
    }
    if members.zip {
        return Err(Refusal::Compressed);
    }
    if members.crit {
        return Err(Refusal::Critical);
    }
    members.kid.filter(|kid| !kid.is_empty()).ok_or(Refusal::KidMissing)
}

/// What was found. A member of the wrong type counts as absent, `zip` and `crit` whatever their value: no
/// extension is known here, so any `crit` names an unknown one (RFC 7516, section 4.1.13).
#[derive(Default)]
struct Members<'j> {
    alg: Option<Cow<'j, str>>,
    enc: Option<Cow<'j, str>>,
    kid: Option<Cow<'j, str>>,
    zip: bool,
    crit: bool,
}

impl<'j> Deserialize<'j> for Members<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

struct Object;

impl<'j> Visitor<'j> for Object {
    type Value = Members<'j>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Members<'j>, A::Error> {
        let mut found = Members::default();
        // A set, so that a header of a thousand members costs no thousand comparisons each.
        let mut seen: BTreeSet<Cow<'j, str>> = BTreeSet::new();
        while let Some(name) = map.next_key::<Text<'j>>()? {
            // A name is always a string.
            let name = name.0.unwrap_or_default();
            match &*name {
                "alg" => found.alg = map.next_value::<Text<'j>>()?.0,
                "enc" => found.enc = map.next_value::<Text<'j>>()?.0,
                "kid" => found.kid = map.next_value::<Text<'j>>()?.0,
                other => {
                    found.zip |= other == "zip";
                    found.crit |= other == "crit";
                    map.next_value::<IgnoredAny>()?;
                }
            }
            // Two parsers that disagree on which of two equal members counts would disagree on the key.
            if !seen.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(found)
    }
}

/// A string, borrowed from the header unless it has escapes; none if the value is of another type.
struct Text<'j>(Option<Cow<'j, str>>);

impl<'j> Deserialize<'j> for Text<'j> {
    fn deserialize<D: Deserializer<'j>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'j> Visitor<'j> for AnyValue {
    type Value = Option<Cow<'j, str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'j str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'j>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}
