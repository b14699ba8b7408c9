//! The one table of card-create parameters, and the check of a request against it.

use std::collections::BTreeMap;

use super::FieldProblem;
use super::categories::CATEGORIES;

/// Entries of metadata that are the user's: Stripe's 50 less the two by which embosser finds its cards.
const METADATA_ENTRIES_MAX: usize = 48;
/// Stripe's limit for a metadata key, in characters.
const METADATA_KEY_MAX: usize = 40;
/// Stripe's limit for a metadata value, in characters.
const METADATA_VALUE_MAX: usize = 500;
/// Stripe's limit for any text without a tighter one, in characters.
const TEXT_MAX: usize = 5000;
/// What fits on a card's second line, in characters.
const SECOND_LINE_MAX: usize = 24;

/// What a parameter may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text(usize),
    OneOf(&'static [&'static str]),
    Currency,
    Country,
    Integer { min: i64, max: i64 },
    Boolean,
    Pin,
    MetadataValue,
}

const INTERVALS: &[&str] = &["all_time", "daily", "monthly", "per_authorization", "weekly", "yearly"];
const PRESENCES: &[&str] = &["not_present", "present"];
const COUNT: Kind = Kind::Integer { min: 0, max: i64::MAX };

/// Every parameter of `POST /v1/issuing/cards`; `[0]` stands for any index, `[*]` for any metadata key.
const PARAMETERS: &[(&str, Kind)] = &[
    ("cardholder", Kind::Text(TEXT_MAX)),
    ("currency", Kind::Currency),
    ("exp_month", Kind::Integer { min: 1, max: 12 }),
    ("exp_year", Kind::Integer { min: 2000, max: 9999 }),
    ("expand[0]", Kind::Text(TEXT_MAX)),
    ("financial_account", Kind::Text(TEXT_MAX)),
    ("lifecycle_controls[cancel_after][payment_count]", Kind::Integer { min: 1, max: i64::MAX }),
    ("metadata[*]", Kind::MetadataValue),
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
    ("spending_controls[spending_limits][0][amount]", COUNT),
    ("spending_controls[spending_limits][0][categories][0]", Kind::OneOf(&CATEGORIES)),
    ("spending_controls[spending_limits][0][interval]", Kind::OneOf(INTERVALS)),
    ("status", Kind::OneOf(&["active", "inactive"])),
    ("type", Kind::OneOf(&["physical", "virtual"])),
];

/// Parts that the schema demands once any other part beside them is given; "" for always.
const REQUIRED: &[(&str, &[&str])] = &[
    ("", &["currency", "type"]),
    (
        "shipping",
        &["[address][city]", "[address][country]", "[address][line1]", "[address][postal_code]", "[name]"],
    ),
    ("shipping[address_validation]", &["[mode]"]),
    ("lifecycle_controls", &["[cancel_after][payment_count]"]),
];

/// A path with its indices and metadata key made general: what [`PARAMETERS`] is asked for.
fn general(path: &str) -> String {
    if path.starts_with("metadata[") && path.ends_with(']') && path.matches('[').count() == 1 {
        return "metadata[*]".into();
    }
    let mut general = String::with_capacity(path.len());
    for (index, part) in path.split('[').enumerate() {
        if index > 0 {
            general.push('[');
        }
        let name = part.strip_suffix(']').unwrap_or(part);
        if index > 0 && !name.is_empty() && name.len() <= 3 && name.bytes().all(|byte| byte.is_ascii_digit())
        {
            general.push_str("0]");
        } else {
            general.push_str(part);
        }
    }
    general
}

/// Whether there is such a parameter; if not, the nearest name.
///
/// # Errors
/// The problem, with a near match where there is one.
pub fn known(path: &str) -> Result<(), FieldProblem> {
    let general = general(path);
    if kind_of(&general).is_some() {
        return metadata_key(path);
    }
    if matches!(path.to_ascii_lowercase().trim(), "pin" | "pin[number]" | "pin_number" | "pin[pin]") {
        return Err(problem(
            path,
            "pin_in_clear",
            "a PIN in the clear is refused; encrypt it on the cardholder's device and give pin[encrypted_number]",
        ));
    }
    let nearest = nearest(path, PARAMETERS.iter().map(|(name, _)| *name));
    Err(FieldProblem { suggestion: nearest, ..problem(path, "unknown_parameter", "no such parameter") })
}

fn metadata_key(path: &str) -> Result<(), FieldProblem> {
    let Some(key) = path.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) else {
        return Ok(());
    };
    if matches!(key, "embosser_job" | "embosser_batch") {
        return Err(problem(path, "metadata_reserved", "is embosser's own: cards are found again by it"));
    }
    if key.is_empty() || key.chars().count() > METADATA_KEY_MAX {
        return Err(problem(path, "metadata_key", "a metadata key has 1 to 40 characters"));
    }
    Ok(())
}

fn kind_of(general: &str) -> Option<Kind> {
    PARAMETERS.iter().find(|(name, _)| *name == general).map(|(_, kind)| *kind)
}

fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    /// Names less alike than this (Jaro-Winkler) are not what was meant.
    const ALIKE_MIN: f64 = 0.82;
    names
        .map(|name| (strsim::jaro_winkler(&given.to_lowercase(), name), name))
        .filter(|(alike, _)| *alike >= ALIKE_MIN)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name.to_owned())
}

/// Every problem of a request.
#[must_use]
pub fn check(pairs: &[(String, String)]) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut seen = BTreeMap::new();
    for (path, value) in pairs {
        if seen.insert(path.as_str(), value.as_str()).is_some() {
            problems.push(problem(path, "duplicate", "is given twice"));
        }
        match known(path) {
            Err(problem) => problems.push(problem),
            Ok(()) => {
                if let Some(kind) = kind_of(&general(path)) {
                    problems.extend(check_value(path, value, kind));
                }
            }
        }
    }
    problems.extend(missing(&seen));
    if seen.keys().filter(|path| path.starts_with("metadata[")).count() > METADATA_ENTRIES_MAX {
        problems.push(problem(
            "metadata",
            "metadata_entries",
            "at most 48 entries (embosser adds two of Stripe's 50)",
        ));
    }
    problems
}

fn missing(seen: &BTreeMap<&str, &str>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    for (parent, parts) in REQUIRED {
        if !parent.is_empty() && !seen.keys().any(|path| path.starts_with(&format!("{parent}["))) {
            continue;
        }
        for part in *parts {
            let path = format!("{parent}{part}");
            if !seen.contains_key(path.as_str()) {
                problems.push(problem(&path, "missing", "is required"));
            }
        }
    }
    let prefix = "spending_controls[spending_limits][";
    let limits: std::collections::BTreeSet<&str> =
        seen.keys().filter_map(|path| path.strip_prefix(prefix)?.split(']').next()).collect();
    for index in limits {
        for part in ["amount", "interval"] {
            let path = format!("{prefix}{index}][{part}]");
            if !seen.contains_key(path.as_str()) {
                problems.push(problem(&path, "missing", "is required with the other parts of this limit"));
            }
        }
    }
    problems
}

fn check_value(path: &str, value: &str, kind: Kind) -> Option<FieldProblem> {
    let wrong = |code, reason: String| Some(FieldProblem { reason, ..problem(path, code, "") });
    match kind {
        Kind::Text(max) if value.chars().count() > max => {
            wrong("too_long", format!("has at most {max} characters"))
        }
        Kind::MetadataValue if value.chars().count() > METADATA_VALUE_MAX => {
            wrong("too_long", format!("has at most {METADATA_VALUE_MAX} characters"))
        }
        Kind::Text(_) | Kind::MetadataValue => None,
        Kind::OneOf(values) if values.contains(&value) => None,
        Kind::OneOf(values) => {
            let few = if values.len() <= 6 { format!(": {}", values.join(", ")) } else { String::new() };
            let suggestion = nearest(value, values.iter().copied());
            Some(FieldProblem {
                suggestion,
                reason: format!("is not one of Stripe's values{few}"),
                ..problem(path, "not_allowed", "")
            })
        }
        Kind::Currency if value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_lowercase()) => None,
        Kind::Currency => {
            wrong("currency", "is a three-letter currency code in lower case, such as usd".into())
        }
        Kind::Country if value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase()) => None,
        Kind::Country => wrong("country", "is a two-letter country code in capitals, such as US".into()),
        Kind::Integer { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => None,
            Ok(_) if max == i64::MAX => wrong("out_of_range", format!("is at least {min}")),
            Ok(_) => wrong("out_of_range", format!("is from {min} to {max}")),
            Err(_) => {
                wrong("not_an_integer", "is a whole number, amounts in the smallest unit (cents)".into())
            }
        },
        Kind::Boolean if matches!(value, "true" | "false") => None,
        Kind::Boolean => wrong("not_a_boolean", "is true or false".into()),
        Kind::Pin => {
            crate::jwe::inspect(value).err().and_then(|refusal| wrong(refusal.code(), refusal.to_string()))
        }
    }
}

fn problem(path: &str, code: &'static str, reason: &str) -> FieldProblem {
    /// A path is quoted up to here; a header cell can be anything.
    const QUOTED_MAX: usize = 120;
    FieldProblem {
        path: path.chars().take(QUOTED_MAX).collect(),
        code,
        reason: reason.into(),
        suggestion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(pairs: &[(&str, &str)]) -> Vec<(String, &'static str)> {
        let pairs: Vec<_> = pairs.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
        check(&pairs).into_iter().map(|problem| (problem.path, problem.code)).collect()
    }

    #[test]
    fn what_the_schema_forbids_is_found_all_at_once() {
        let found =
            codes(&[("type", "virtuel"), ("shipping[name]", "A"), ("exp_month", "13"), ("colour", "red")]);
        let expected = [
            ("type", "not_allowed"),
            ("exp_month", "out_of_range"),
            ("colour", "unknown_parameter"),
            ("currency", "missing"),
            ("shipping[address][city]", "missing"),
            ("shipping[address][country]", "missing"),
            ("shipping[address][line1]", "missing"),
            ("shipping[address][postal_code]", "missing"),
        ];
        assert_eq!(found, expected.map(|(path, code)| (path.to_owned(), code)));
    }

    #[test]
    fn every_parameter_of_the_schema_is_in_the_table_and_no_other() {
        let folder = std::env::var_os("EMBOSSER_STRIPE_SCHEMAS").map_or_else(
            || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/stripe"),
            std::path::PathBuf::from,
        );
        let Ok(text) = std::fs::read_to_string(folder.join("openapi-issuing.json")) else {
            eprintln!("Stripe's schemas are not here; their comparison was left out");
            return;
        };
        let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        let body = &schema["paths"]["/v1/issuing/cards"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]
            ["schema"];
        let mut leaves = Vec::new();
        walk(String::new(), body, &mut leaves);
        leaves.sort();
        let mut table: Vec<String> = PARAMETERS.iter().map(|(name, _)| (*name).to_owned()).collect();
        table.sort();
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
