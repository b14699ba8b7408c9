//! The one table of card-create parameters: a manifest's columns, a job's JSON, its JSON Schema and the form body
//! all follow from it. A test holds it against Stripe's own schema.

use std::borrow::Cow;

use super::FieldProblem;
use super::categories::CATEGORIES;
use super::kind::{Kind, nearest};

/// Stripe's limit for a metadata key, in characters.
pub(super) const METADATA_KEY_MAX: usize = 40;
/// The metadata keys by which embosser finds its cards again.
pub(super) const METADATA_RESERVED: [&str; 2] = ["embosser_batch", "embosser_job"];
/// Entries of metadata that are the user's: Stripe's 50 less embosser's own.
pub(crate) const METADATA_ENTRIES_MAX: usize = 50 - METADATA_RESERVED.len();
/// Stripe's limit for any text without a tighter one, in characters.
const TEXT_MAX: usize = 5000;
/// What fits on a card's second line, in characters (the parameter's description; its schema says 5000).
const SECOND_LINE_MAX: usize = 24;
/// Digits of an index: no list of Stripe's has a use for a thousand entries.
const INDEX_DIGITS_MAX: usize = 3;

const INTERVALS: &[&str] = &["all_time", "daily", "monthly", "per_authorization", "weekly", "yearly"];
const PRESENCES: &[&str] = &["not_present", "present"];

/// Every parameter of `POST /v1/issuing/cards`; `[0]` stands for any index, `[*]` for any metadata key.
pub(super) const PARAMETERS: &[(&str, Kind)] = &[
    ("cardholder", Kind::Text(TEXT_MAX)),
    ("currency", Kind::Currency),
    ("exp_month", Kind::Integer { min: 1, max: 12 }),
    ("exp_year", Kind::Integer { min: 2000, max: 9999 }),
    ("expand[0]", Kind::Text(TEXT_MAX)),
    ("financial_account", Kind::Text(TEXT_MAX)),
    ("lifecycle_controls[cancel_after][payment_count]", Kind::Integer { min: 1, max: i64::MAX }),
    ("metadata[*]", Kind::Metadata { of_pin: false }),
    ("personalization_design", Kind::Text(TEXT_MAX)),
    ("pin[encrypted_number]", Kind::Pin),
    ("replacement_for", Kind::Text(TEXT_MAX)),
    ("replacement_reason", Kind::OneOf(&["damaged", "expired", "lost", "stolen"])),
    ("second_line", Kind::Text(SECOND_LINE_MAX)),
    ("shipping[address][city]", Kind::Text(TEXT_MAX)),
    ("shipping[address][country]", Kind::Country),
    ("shipping[address][line1]", Kind::Text(TEXT_MAX)),
    ("shipping[address][line2]", Kind::Text(TEXT_MAX)),
    ("shipping[address][postal_code]", Kind::Text(TEXT_MAX)),
    ("shipping[address][state]", Kind::Text(TEXT_MAX)),
    (
        "shipping[address_validation][mode]",
        Kind::OneOf(&["disabled", "normalization_only", "validation_and_normalization"]),
    ),
    ("shipping[business_name]", Kind::Text(50)),
    ("shipping[customs][eori_number]", Kind::Text(TEXT_MAX)),
    ("shipping[name]", Kind::Text(TEXT_MAX)),
    ("shipping[phone_number]", Kind::Text(TEXT_MAX)),
    ("shipping[require_signature]", Kind::Boolean),
    ("shipping[service]", Kind::OneOf(&["express", "priority", "standard"])),
    ("shipping[type]", Kind::OneOf(&["bulk", "individual"])),
    ("spending_controls[allowed_card_presences][0]", Kind::OneOf(PRESENCES)),
    ("spending_controls[allowed_categories][0]", Kind::OneOf(&CATEGORIES)),
    ("spending_controls[allowed_merchant_countries][0]", Kind::Country),
    ("spending_controls[blocked_card_presences][0]", Kind::OneOf(PRESENCES)),
    ("spending_controls[blocked_categories][0]", Kind::OneOf(&CATEGORIES)),
    ("spending_controls[blocked_merchant_countries][0]", Kind::Country),
    ("spending_controls[spending_limits][0][amount]", Kind::Amount),
    ("spending_controls[spending_limits][0][categories][0]", Kind::OneOf(&CATEGORIES)),
    ("spending_controls[spending_limits][0][interval]", Kind::OneOf(INTERVALS)),
    ("status", Kind::OneOf(&["active", "inactive"])),
    ("type", Kind::OneOf(&["physical", "virtual"])),
];

/// Parts that are demanded once anything under their parent is given; "" for always, `[0]` for each index.
pub(crate) const REQUIRED: &[(&str, &[&str])] = &[
    ("", &["currency", "type"]),
    ("lifecycle_controls", &["[cancel_after][payment_count]"]),
    (
        "shipping",
        &["[address][city]", "[address][country]", "[address][line1]", "[address][postal_code]", "[name]"],
    ),
    ("shipping[address_validation]", &["[mode]"]),
    ("spending_controls[spending_limits][0]", &["[amount]", "[interval]"]),
];

/// The parts that every request has.
pub(crate) fn always_required() -> &'static [&'static str] {
    REQUIRED.iter().find(|(parent, _)| parent.is_empty()).map_or(&[], |(_, parts)| *parts)
}

/// Lists of which Stripe takes one ("Cannot be set with …", their descriptions say).
pub(crate) const EXCLUSIVE: &[(&str, &str)] = &[
    ("spending_controls[allowed_card_presences]", "spending_controls[blocked_card_presences]"),
    ("spending_controls[allowed_categories]", "spending_controls[blocked_categories]"),
    ("spending_controls[allowed_merchant_countries]", "spending_controls[blocked_merchant_countries]"),
];

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

/// What stands at a path, whatever its indices.
pub(super) fn shape_at(path: &str) -> Shape {
    if path.is_empty() || path == "metadata" {
        return Shape::Object;
    }
    let general = general(path);
    if let Some(kind) = kind_of_general(&general, path) {
        return Shape::Leaf(kind);
    }
    match PARAMETERS.iter().find(|(name, _)| below(name, &general)) {
        Some((name, _)) if name[general.len()..].starts_with("[0]") => Shape::Array,
        Some(_) => Shape::Object,
        None => Shape::Unknown,
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

/// A path with its indices and metadata key made general: what [`PARAMETERS`] is asked for.
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

fn kind_of_general(general: &str, path: &str) -> Option<Kind> {
    let at = PARAMETERS.binary_search_by(|(name, _)| (*name).cmp(general)).ok()?;
    match PARAMETERS[at].1 {
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
pub(crate) fn kind_of(path: &str) -> Result<Kind, FieldProblem> {
    if let Some(kind) = kind_of_general(&general(path), path) {
        return metadata_problem(path).map_or(Ok(kind), Err);
    }
    if path.starts_with("metadata[") {
        let reason = "is no entry of metadata: metadata[key], and the key has no brackets";
        return Err(FieldProblem::new(path, "metadata_key", reason));
    }
    if speaks_of_pin(path) {
        return Err(pin_problem(path));
    }
    let suggestion = near_parameter(path);
    Err(FieldProblem {
        suggestion,
        ..FieldProblem::new(path, "unknown_parameter", "is no parameter of Stripe's")
    })
}

/// Whether there is such a parameter.
///
/// # Errors
/// As for a value of it: unknown, reserved, or a PIN in the clear.
pub fn known(path: &str) -> Result<(), FieldProblem> {
    kind_of(path).map(|_| ())
}

/// The parameter's name most like the one given, with the indices that were given.
fn near_parameter(path: &str) -> Option<String> {
    let names = PARAMETERS.iter().map(|(name, _)| *name).filter(|name| *name != "metadata[*]");
    let near = nearest(&general(path), names)?;
    let mut indices = path.split(['[', ']']).filter(|part| is_index(part));
    let mut parts = near.split("[0]");
    let first = parts.next().unwrap_or_default().to_owned();
    Some(parts.fold(first, |name, part| format!("{name}[{}]{part}", indices.next().unwrap_or("0"))))
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

/// That there are more entries of metadata than Stripe has room for.
pub(super) fn too_much_metadata() -> FieldProblem {
    let own = METADATA_RESERVED.len();
    let reason = format!("at most {METADATA_ENTRIES_MAX} entries (embosser adds {own} to make Stripe's 50)");
    FieldProblem::new("metadata", "metadata_entries", reason)
}

/// Whether a name has a word for a PIN in it.
fn speaks_of_pin(name: &str) -> bool {
    const WORDS: [&str; 10] = [
        "pin",
        "pins",
        "pincode",
        "pincodes",
        "pinnumber",
        "pinno",
        "cardpin",
        "newpin",
        "plainpin",
        "clearpin",
    ];
    name.to_lowercase()
        .split(|letter: char| !letter.is_alphanumeric())
        .any(|word| WORDS.contains(&word.trim_end_matches(|letter: char| letter.is_ascii_digit())))
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

    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(PARAMETERS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(CATEGORIES.is_sorted());
    }

    #[test]
    fn shapes_are_told_at_any_depth() {
        let limits = "spending_controls[spending_limits]";
        assert_eq!(shape_at(limits), Shape::Array);
        assert_eq!(shape_at(&format!("{limits}[7]")), Shape::Object);
        assert_eq!(shape_at(&format!("{limits}[7][categories]")), Shape::Array);
        assert_eq!(shape_at(&format!("{limits}[7][amount]")), Shape::Leaf(Kind::Amount));
        assert_eq!(shape_at("shipping[addres]"), Shape::Unknown);
        assert_eq!(shape_at("shipping[address]"), Shape::Object);
        assert_eq!(shape_at("expand"), Shape::Array);
    }

    #[test]
    fn every_parameter_of_the_schema_is_in_the_table_and_no_other() {
        let Some(body) = crate::card::stripe_schema() else { return };
        let mut leaves = Vec::new();
        walk(String::new(), &body, &mut leaves);
        leaves.sort();
        let table: Vec<String> = PARAMETERS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(leaves, table);
    }

    fn walk(path: String, schema: &serde_json::Value, leaves: &mut Vec<String>) {
        let child = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}[{name}]") };
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
