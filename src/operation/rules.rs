//! What a request must have as a whole: required parts, lists that exclude each other, how much metadata.

use std::collections::{BTreeMap, BTreeSet};

use super::params::{self, below};
use super::{Declaration, FieldProblem, PIN, PIN_CHOICE};

/// Every problem of a request. `given` are the objects that were given even if nothing stands in them.
pub(super) fn check(of: &Declaration, pairs: &[(String, String)], given: &[String]) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut seen = BTreeMap::new();
    for (path, value) in pairs {
        if seen.insert(path.as_str(), value.as_str()).is_some() {
            problems.push(FieldProblem::new(path, "duplicate", "is given twice"));
        }
        match of.kind_of(path) {
            Err(problem) => problems.push(problem),
            Ok(kind) if kind.accepts(value) => {}
            Ok(kind) => problems.push(FieldProblem::of(path, kind.explain(value))),
        }
    }
    let seen: BTreeSet<&str> = seen.into_keys().collect();
    problems.extend(missing(of, &seen, given));
    problems.extend(exclusive(of, &seen));
    if seen.contains(PIN) && seen.contains(PIN_CHOICE) {
        let reason = "cannot be set with pin[encrypted_number]: the PIN is chosen already";
        problems.push(FieldProblem::new(PIN_CHOICE, "exclusive", reason));
    }
    if seen.iter().filter(|path| path.starts_with("metadata[")).count() > of.metadata_entries_max() {
        problems.push(of.too_much_metadata());
    }
    problems
}

fn missing(of: &Declaration, seen: &BTreeSet<&str>, given: &[String]) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut demand = |parent: &str, parts: &[&str]| {
        let touched = parent.is_empty()
            || given.iter().any(|object| object == parent || below(object, parent))
            || seen.iter().any(|path| below(path, parent));
        if !touched {
            return;
        }
        for part in parts {
            if !seen.iter().any(|path| path.strip_prefix(parent) == Some(*part)) {
                let path = format!("{parent}{part}");
                let reason = if parent.is_empty() {
                    "is required".to_owned()
                } else {
                    format!("is required when any other part of {parent} is given")
                };
                problems.push(FieldProblem::new(&path, "missing", reason));
            }
        }
    };
    for (parent, parts) in of.required {
        match parent.strip_suffix("[0]") {
            None => demand(parent, parts),
            Some(list) => {
                for index in indices(seen, given, list) {
                    demand(&format!("{list}[{index}]"), parts);
                }
            }
        }
    }
    problems
}

/// The indices at which a list has anything.
fn indices<'p>(seen: &BTreeSet<&'p str>, given: &'p [String], list: &str) -> BTreeSet<&'p str> {
    seen.iter()
        .copied()
        .chain(given.iter().map(String::as_str))
        .filter_map(|path| path.strip_prefix(list)?.strip_prefix('[')?.split(']').next())
        .filter(|index| params::is_index(index))
        .collect()
}

fn exclusive(of: &Declaration, seen: &BTreeSet<&str>) -> Vec<FieldProblem> {
    let has = |list: &str| seen.iter().any(|path| below(path, list));
    of.exclusive
        .iter()
        .filter(|(one, other)| has(one) && has(other))
        .map(|(one, other)| FieldProblem::new(other, "exclusive", format!("cannot be set with {one}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Operation;

    fn codes(pairs: &[(&str, &str)]) -> Vec<(String, &'static str)> {
        let pairs: Vec<_> = pairs.iter().map(|(path, value)| ((*path).into(), (*value).into())).collect();
        check(Operation::CreateCard.declaration(), &pairs, &[])
            .into_iter()
            .map(|problem| (problem.path, problem.code))
            .collect()
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
    fn each_limit_needs_its_own_amount_and_interval() {
        let limit = |index: u32, part: &str| format!("spending_controls[spending_limits][{index}][{part}]");
        let (amount, interval, category) =
            (limit(0, "amount"), limit(1, "interval"), limit(3, "categories][0"));
        let found = codes(&[
            ("type", "virtual"),
            ("currency", "eur"),
            (&amount, "1"),
            (&interval, "daily"),
            (&category, "airlines_air_carriers"),
        ]);
        let expected = [limit(0, "interval"), limit(1, "amount"), limit(3, "amount"), limit(3, "interval")];
        assert_eq!(found, expected.map(|path| (path, "missing")));
    }

    #[test]
    fn lists_that_exclude_each_other_are_not_both_given() {
        let found = codes(&[
            ("type", "virtual"),
            ("currency", "eur"),
            ("spending_controls[allowed_merchant_countries][0]", "IE"),
            ("spending_controls[blocked_merchant_countries][2]", "FR"),
        ]);
        assert_eq!(found, [("spending_controls[blocked_merchant_countries]".to_owned(), "exclusive")]);
    }
}
