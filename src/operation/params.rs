//! An operation's table of parameters, asked: a manifest's columns, a job's JSON, its JSON Schema and the form body all
//! follow from it. A test holds each table against Stripe's own schema.

use std::borrow::Cow;

use super::kind::{Kind, nearest};
use super::pin_words::speaks_of_pin;
use super::{Declaration, FieldProblem, METADATA_RESERVED};

/// Stripe's limit for a metadata key, in characters.
pub(super) const METADATA_KEY_MAX: usize = 40;
/// Digits of an index: no list of Stripe's has a use for a thousand entries.
const INDEX_DIGITS_MAX: usize = 3;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A value.
    Leaf(Kind),
    /// A list.
    Array,
    /// Parts with names.
    Object,
    /// Nothing that Stripe knows.
    Unknown,
}

impl Declaration {
    /// What stands at a path, whatever its indices.
    pub(super) fn shape_at(&self, path: &str) -> Shape {
        if path.is_empty() || path == "metadata" {
            return Shape::Object;
        }
        let general = general(path);
        if let Some(kind) = self.kind_of_general(&general, path) {
            return Shape::Leaf(kind);
        }
        match self.parameters.iter().find(|(name, _)| below(name, &general)) {
            Some((name, _)) if name[general.len()..].starts_with("[0]") => Shape::Array,
            Some(_) => Shape::Object,
            None => Shape::Unknown,
        }
    }

    fn kind_of_general(&self, general: &str, path: &str) -> Option<Kind> {
        let at = self.parameters.binary_search_by(|(name, _)| (*name).cmp(general)).ok()?;
        match self.parameters[at].1 {
            Kind::Metadata { .. } => {
                Some(Kind::Metadata { of_pin: metadata_key(path).is_some_and(speaks_of_pin) })
            }
            kind => Some(kind),
        }
    }

    /// What the parameter may hold.
    ///
    /// # Errors
    /// That there is no such parameter, with a near match where there is one; or that it is one that embosser refuses.
    pub(crate) fn kind_of(&self, path: &str) -> Result<Kind, FieldProblem> {
        if let Some(kind) = self.kind_of_general(&general(path), path) {
            return metadata_problem(path).map_or(Ok(kind), Err);
        }
        if path.starts_with("metadata[") {
            let reason = "is no entry of metadata: metadata[key], and the key has no brackets";
            return Err(FieldProblem::new(path, "metadata_key", reason));
        }
        if speaks_of_pin(path) {
            return Err(pin_problem(path));
        }
        let suggestion = self.near_parameter(path);
        Err(FieldProblem {
            suggestion,
            ..FieldProblem::new(path, "unknown_parameter", "is no parameter of Stripe's")
        })
    }

    /// Whether there is such a parameter.
    ///
    /// # Errors
    /// As for a value of it: unknown, reserved, or a PIN in the clear.
    pub fn known(&self, path: &str) -> Result<(), FieldProblem> {
        self.kind_of(path).map(|_| ())
    }

    /// The parameter's name most like the one given, with the indices that were given.
    fn near_parameter(&self, path: &str) -> Option<String> {
        let names = self.parameters.iter().map(|(name, _)| *name).filter(|name| *name != "metadata[*]");
        let near = nearest(&general(path), names)?;
        let mut indices = path.split(['[', ']']).filter(|part| is_index(part));
        let mut parts = near.split("[0]");
        let first = parts.next().unwrap_or_default().to_owned();
        Some(parts.fold(first, |name, part| format!("{name}[{}]{part}", indices.next().unwrap_or("0"))))
    }

    /// That there are more entries of metadata than Stripe has room for.
    pub(super) fn too_much_metadata(&self) -> FieldProblem {
        let max = self.metadata_entries_max();
        let reason = format!("at most {max} entries (embosser adds {} to make Stripe's 50)", 50 - max);
        FieldProblem::new("metadata", "metadata_entries", reason)
    }
}

/// Whether a path lies under a parent.
pub(super) fn below(path: &str, parent: &str) -> bool {
    parent.is_empty() || path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('['))
}

/// The key, if the path is an entry of metadata.
pub(crate) fn metadata_key(path: &str) -> Option<&str> {
    path.strip_prefix("metadata[")?.strip_suffix(']')
}

/// Whether a part of a path is an index: canonical digits in brackets.
pub(super) fn is_index(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= INDEX_DIGITS_MAX
        && name.bytes().all(|byte| byte.is_ascii_digit())
        && (name.len() == 1 || !name.starts_with('0'))
}

/// A path with its indices and metadata key made general: what a table is asked for.
pub(super) fn general(path: &str) -> Cow<'_, str> {
    if metadata_key(path).is_some_and(|key| !key.contains(['[', ']'])) {
        return "metadata[*]".into();
    }
    let is_index_above_0 = |name: &str| name != "0" && is_index(name);
    // Most paths go through no list, or to its first place.
    if !path.split('[').skip(1).any(|part| part.strip_suffix(']').is_some_and(is_index_above_0)) {
        return path.into();
    }
    let mut general = String::with_capacity(path.len());
    for (index, part) in path.split('[').enumerate() {
        if index == 0 {
            general.push_str(part);
            continue;
        }
        general.push('[');
        match part.strip_suffix(']') {
            Some(name) if is_index(name) => general.push_str("0]"),
            _ => general.push_str(part),
        }
    }
    general.into()
}

fn metadata_problem(path: &str) -> Option<FieldProblem> {
    let key = metadata_key(path)?;
    if METADATA_RESERVED.contains(&key) {
        let reason = "is embosser's own: cards are found again by it";
        return Some(FieldProblem::new(path, "metadata_reserved", reason));
    }
    let characters = key.chars().count();
    (characters == 0 || characters > METADATA_KEY_MAX).then(|| {
        let reason = format!("a metadata key has 1 to {METADATA_KEY_MAX} characters");
        FieldProblem::new(path, "metadata_key", reason)
    })
}

/// A name that speaks of a PIN and is not the one parameter for it.
fn pin_problem(path: &str) -> FieldProblem {
    let name = path.to_lowercase();
    if ["encrypt", "jwe", "cipher"].iter().any(|word| name.contains(word)) {
        let suggestion = Some(super::PIN.to_owned());
        return FieldProblem {
            suggestion,
            ..FieldProblem::new(path, "unknown_parameter", "is no parameter of Stripe's")
        };
    }
    FieldProblem::new(
        path,
        "pin_in_clear",
        "a PIN in the clear is refused; encrypt it on the cardholder's device and give pin[encrypted_number]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;
    use crate::operation::categories::CATEGORIES;

    #[test]
    fn the_tables_are_sorted_for_their_search() {
        for operation in Operation::ALL {
            let parameters = operation.declaration().parameters;
            assert!(parameters.is_sorted_by(|one, other| one.0 < other.0), "{operation:?}");
        }
        assert!(CATEGORIES.is_sorted());
        assert!(METADATA_RESERVED.is_sorted());
    }

    #[test]
    fn shapes_are_told_at_any_depth() {
        let limits = "spending_controls[spending_limits]";
        let shape_at = |path: &str| Operation::CreateCard.declaration().shape_at(path);
        assert_eq!(shape_at(limits), Shape::Array);
        assert_eq!(shape_at(&format!("{limits}[7]")), Shape::Object);
        assert_eq!(shape_at(&format!("{limits}[7][categories]")), Shape::Array);
        assert_eq!(shape_at(&format!("{limits}[7][amount]")), Shape::Leaf(Kind::Amount));
        assert_eq!(shape_at("shipping[addres]"), Shape::Unknown);
        assert_eq!(shape_at("shipping[address]"), Shape::Object);
        assert_eq!(shape_at("expand"), Shape::Array);
    }

    #[test]
    fn every_parameter_of_stripes_schemas_is_in_its_table_and_no_other() {
        for operation in Operation::ALL {
            let Some(body) = crate::operation::request::stripe_schema(operation) else { return };
            let mut leaves = Vec::new();
            walk(String::new(), &body, &mut leaves);
            leaves.sort();
            let parameters = operation.declaration().parameters;
            let of_stripe = parameters.iter().filter(|(name, _)| !crate::operation::OWN.contains(name));
            let table: Vec<String> = of_stripe.map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(leaves, table, "{operation:?}");
        }
    }

    fn walk(path: String, schema: &serde_json::Value, leaves: &mut Vec<String>) {
        let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}[{name}]") };
        // Metadata can be unset as a whole, by an empty text; that is no parameter of its own.
        let whole = schema["anyOf"].as_array().into_iter().flatten().find(|one| one["type"] == "object");
        let schema = whole.unwrap_or(schema);
        if let Some(properties) = schema["properties"].as_object() {
            properties.iter().for_each(|(name, schema)| walk(child(name), schema, leaves));
        } else if schema["items"].is_object() {
            walk(child("0"), &schema["items"], leaves);
        } else if schema["additionalProperties"].is_object() {
            leaves.push(child("*"));
        } else {
            leaves.push(path);
        }
    }
}
