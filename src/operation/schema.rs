//! An operation's JSON as a JSON Schema (draft 2020-12), made from its table of parameters.
//!
//! Guarantees: what [`super::Request::from_json`] takes is valid under it. What only a program can tell (a JWE's
//! inside, digits in metadata that speaks of a PIN) is left to the program.

use serde_json::{Map, Value, json};

use super::kind::{Kind, METADATA_VALUE_MAX, TEXT_MAX};
use super::params::METADATA_KEY_MAX;
use super::{Declaration, METADATA_RESERVED};
use crate::pin::JWE_CHARACTERS_MAX;

/// Whether an object must have a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Required,
    Optional,
}

impl Declaration {
    /// The schema of its parameters, nested as in Stripe's documentation.
    #[must_use]
    pub fn json_schema(&self) -> Value {
        let required: Vec<String> = self
            .required
            .iter()
            .flat_map(|(parent, parts)| parts.iter().map(move |part| format!("{parent}{part}")))
            .collect();
        let mut schema = self.object("", &required);
        let members = schema.as_object_mut().expect("the schema of the whole is an object's");
        members.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        members.insert("title".into(), self.title.into());
        schema
    }

    /// What stands directly under a path: names, each once, in the table's order.
    fn parts(&self, path: &str) -> Vec<&'static str> {
        let mut parts = Vec::new();
        for (name, _) in self.parameters {
            let rest = if path.is_empty() {
                Some(*name)
            } else {
                name.strip_prefix(path).and_then(|rest| rest.strip_prefix('['))
            };
            if let Some(part) = rest.and_then(|rest| rest.split(['[', ']']).next())
                && !parts.contains(&part)
            {
                parts.push(part);
            }
        }
        parts
    }

    fn at(&self, path: &str, need: Need, required: &[String]) -> Value {
        if let Ok(index) = self.parameters.binary_search_by(|(name, _)| (*name).cmp(path)) {
            return leaf(self.parameters[index].1, need);
        }
        match self.parts(path).as_slice() {
            ["0"] => json!({
                "type": nullable("array", need),
                "items": self.at(&format!("{path}[0]"), Need::Required, required),
                "maxItems": 1000,
            }),
            ["*"] => self.metadata(),
            _ => {
                let mut schema = self.object(path, required);
                schema["type"] = nullable("object", need);
                schema
            }
        }
    }

    fn object(&self, path: &str, required: &[String]) -> Value {
        let child = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}[{part}]") };
        let (mut properties, mut needed) = (Map::new(), Vec::new());
        for part in self.parts(path) {
            let child = child(part);
            let is_required = required.iter().any(|name| {
                // `shipping[address]` is required because its parts are: of `shipping`, not of themselves alone.
                name.strip_prefix(child.as_str()).is_some_and(|rest| {
                    rest.is_empty() || (rest.starts_with('[') && self.demanded_by(path, name))
                })
            });
            let need = if is_required { Need::Required } else { Need::Optional };
            if is_required {
                needed.push(part);
            }
            properties.insert(part.to_owned(), self.at(&child, need, required));
        }
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !needed.is_empty() {
            schema["required"] = json!(needed);
        }
        let exclusive: Vec<Value> = self.exclusive.iter().filter_map(|pair| not_both(path, *pair)).collect();
        if !exclusive.is_empty() {
            schema["allOf"] = exclusive.into();
        }
        if path.is_empty() && self.parameters.iter().any(|(name, _)| *name == "replacement_for") {
            let all = schema["allOf"].as_array().cloned().unwrap_or_default();
            schema["allOf"] = all.into_iter().chain(replacement()).collect();
        }
        if path == "pin" {
            // The PIN, or that it is to be chosen.
            let both = json!({ "choose": { "type": "boolean" }, "encrypted_number": { "type": "string" } });
            schema["not"] = json!({ "required": ["choose", "encrypted_number"], "properties": both });
        }
        schema
    }

    /// Whether it is this object's being given that demands the part.
    fn demanded_by(&self, path: &str, name: &str) -> bool {
        self.required.iter().any(|(parent, parts)| {
            *parent == path && name.strip_prefix(parent).is_some_and(|part| parts.contains(&part))
        })
    }

    fn metadata(&self) -> Value {
        json!({
            "type": ["object", "null"],
            "maxProperties": self.metadata_entries_max(),
            "propertyNames": {
                "minLength": 1,
                "maxLength": METADATA_KEY_MAX,
                "pattern": "^[^\\[\\]]*$",
                "not": { "enum": METADATA_RESERVED },
            },
            "additionalProperties": leaf(Kind::Metadata { of_pin: false }, Need::Optional),
        })
    }
}

/// What stands together where a card replaces another.
fn replacement() -> [Value; 6] {
    let text = json!({ "type": "string", "minLength": 1 });
    let given = |name: &str, value: &Value| json!({ "required": [name], "properties": { name: value } });
    let yes = json!({ "const": true });
    let of = |one: Value, other: Value| json!({ "if": one, "then": other });
    [
        of(given("replacement_for", &text), given("replacement_reason", &text)),
        of(given("replacement_reason", &text), given("replacement_for", &text)),
        of(given("cancel_replaced", &yes), given("replacement_for", &text)),
        json!({ "properties": { "replacement_for": { "pattern": "^(ic_[A-Za-z0-9_]{1,197})?$" } } }),
        not_together(
            ("replacement_reason", json!({ "const": "damaged" })),
            ("type", json!({ "const": "virtual" })),
        ),
        not_together(
            ("cancel_replaced", yes),
            ("replacement_reason", json!({ "enum": ["damaged", "expired"] })),
        ),
    ]
}

fn not_together((one, value): (&str, Value), (other, of_other): (&str, Value)) -> Value {
    json!({ "not": { "required": [one, other], "properties": { one: value, other: of_other } } })
}

fn not_both(path: &str, (one, other): (&str, &str)) -> Option<Value> {
    let name = |list: &str| Some(list.strip_prefix(path)?.strip_prefix('[')?.strip_suffix(']')?.to_owned());
    let (one, other) = (name(one)?, name(other)?);
    let some = json!({ "type": "array", "minItems": 1 });
    Some(json!({ "not": { "required": [one, other], "properties": { one: some, other: some } } }))
}

fn nullable(kind: &str, need: Need) -> Value {
    match need {
        Need::Required => json!(kind),
        Need::Optional => json!([kind, "null"]),
    }
}

fn leaf(kind: Kind, need: Need) -> Value {
    let text = |members: Value| {
        let mut schema = json!({ "type": nullable("string", need) });
        let (Value::Object(schema_members), Value::Object(members)) = (&mut schema, members) else {
            return schema;
        };
        schema_members.extend(members);
        schema
    };
    match kind {
        // An empty text is an absent one.
        Kind::Cardholder => {
            text(json!({ "pattern": "^[^\\s@/]*[^\\s@/!-@\\[-`{-~][^\\s@/]*$", "maxLength": TEXT_MAX }))
        }
        Kind::Text(max) if need == Need::Required => text(json!({ "minLength": 1, "maxLength": max })),
        Kind::Text(max) => text(json!({ "maxLength": max })),
        Kind::OneOf(values) => {
            let null = (need == Need::Optional).then_some(Value::Null);
            json!({ "enum": values.iter().map(|value| json!(value)).chain(null).collect::<Vec<_>>() })
        }
        Kind::Currency => text(json!({ "pattern": "^[A-Za-z]{3}$" })),
        Kind::Country => text(json!({ "pattern": "^[A-Za-z]{2}$" })),
        Kind::Integer { min, max } => {
            json!({ "type": nullable("integer", need), "minimum": min, "maximum": max })
        }
        Kind::Amount => json!({
            "type": nullable("integer", need),
            "minimum": 0,
            "maximum": i64::MAX,
            "description": "In the currency's smallest unit (cents).",
        }),
        Kind::Boolean => json!({ "type": nullable("boolean", need) }),
        Kind::Pin => text(json!({
            "maxLength": JWE_CHARACTERS_MAX,
            "pattern": "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+){4}$",
            "writeOnly": true,
            "description": "The PIN as a compact JWE, encrypted on the cardholder's device under Stripe's current key.",
        })),
        Kind::Expand => text(json!({
            "maxLength": TEXT_MAX,
            "not": { "pattern": "(^|\\.)\\s*(number|cvc)\\s*(\\.|$)" },
        })),
        Kind::Metadata { .. } => text(json!({ "maxLength": METADATA_VALUE_MAX })),
    }
}
