//! The protected header: the members that decide, in any order, among any others.

use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::Refusal;

/// Reads a header and answers its `kid`.
pub(super) fn read(json: &[u8]) -> Result<String, Refusal> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let members = deserializer.deserialize_map(Members).map_err(|_| Refusal::HeaderInvalid)?;
    deserializer.end().map_err(|_| Refusal::HeaderInvalid)?;
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
struct Found {
    alg: Option<String>,
    enc: Option<String>,
    kid: Option<String>,
    zip: bool,
    crit: bool,
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Found;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::default();
        let mut seen: Vec<String> = Vec::with_capacity(8);
        while let Some(member) = map.next_key::<String>()? {
            // Two parsers that disagree on which of two equal members counts would disagree on the key.
            if seen.contains(&member) {
                return Err(A::Error::custom("duplicate member"));
            }
            match member.as_str() {
                "alg" => found.alg = text(map.next_value()?),
                "enc" => found.enc = text(map.next_value()?),
                "kid" => found.kid = text(map.next_value()?),
                "zip" => {
                    map.next_value::<IgnoredAny>()?;
                    found.zip = true;
                }
                "crit" => {
                    map.next_value::<IgnoredAny>()?;
                    found.crit = true;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            seen.push(member);
        }
        Ok(found)
    }
}

fn text(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    }
}
