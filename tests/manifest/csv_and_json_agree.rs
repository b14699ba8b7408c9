//! Promise: a manifest's row and a job's JSON with the same content come to the same verdict and the same request, and
//! the JSON Schema of a job's card agrees with both.

use crate::support;

use std::collections::BTreeSet;

use embosser::operation::{Operation, PIN, Request};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A value, and how JSON has it.
#[derive(Debug, Clone)]
struct Cell {
    text: String,
    json: Value,
}

fn text(text: impl Into<String>) -> Cell {
    let text = text.into();
    Cell { json: Value::String(text.clone()), text }
}

fn number(number: i64) -> Cell {
    Cell { text: number.to_string(), json: number.into() }
}

/// A path, the parts of it in JSON, and values of which some are right and some are wrong.
fn parameter() -> impl Strategy<Value = (String, Vec<String>, Cell)> {
    let words = prop::sample::select(vec![
        "virtual",
        "physical",
        "eur",
        "EUR",
        "euro",
        "IE",
        "Ireland",
        "active",
        "daily",
        "weekly",
        "express",
        "airlines_air_carriers",
        "present",
        "a, \"b\"\n",
        "Ž",
        "4711",
        "disabled",
        "lost",
        "damaged",
        "ic_1",
        "pin",
    ]);
    let texts = prop_oneof![
        6 => words.prop_map(text),
        1 => (1_usize..60).prop_map(|length| text("é".repeat(length))),
        1 => Just(text("x".repeat(501))),
        1 => Just(text("x".repeat(5001))),
        1 => Just(text(support::verdict::jwe())),
    ];
    let numbers =
        prop_oneof![(-2_i64..40).prop_map(number), (2020_i64..2040).prop_map(number), Just(number(i64::MAX))];
    let flags = any::<bool>().prop_map(|yes| Cell { text: yes.to_string(), json: yes.into() });
    let texts_at = prop::sample::select(vec![
        "type",
        "currency",
        "cardholder",
        "status",
        "second_line",
        "financial_account",
        "replacement_reason",
        "replacement_for",
        "shipping.name",
        "shipping.address.line1",
        "shipping.address.city",
        "shipping.address.postal_code",
        "shipping.address.country",
        "shipping.service",
        "shipping.address_validation.mode",
        "shipping.business_name",
        "spending_controls.allowed_categories.0",
        "spending_controls.blocked_categories.0",
        "spending_controls.allowed_merchant_countries.0",
        "spending_controls.allowed_merchant_countries.1",
        "spending_controls.blocked_card_presences.0",
        "spending_controls.spending_limits.0.interval",
        "spending_controls.spending_limits.0.categories.0",
        "spending_controls.spending_limits.1.interval",
        "pin.encrypted_number",
        "metadata.department",
        "metadata.7",
        "metadata.pin",
        "metadata.embosser_job",
        "colour",
        "shipping.colour",
        "expand.0",
    ]);
    let numbers_at = prop::sample::select(vec![
        "exp_month",
        "exp_year",
        "lifecycle_controls.cancel_after.payment_count",
        "spending_controls.spending_limits.0.amount",
        "spending_controls.spending_limits.1.amount",
    ]);
    let flags_at = prop::sample::select(vec!["shipping.require_signature", "cancel_replaced", "pin.choose"]);
    let pair = |at: &str, cell| {
        let parts: Vec<String> = at.split('.').map(str::to_owned).collect();
        let path = parts[1..].iter().fold(parts[0].clone(), |path, part| format!("{path}[{part}]"));
        (path, parts, cell)
    };
    prop_oneof![
        8 => (texts_at, texts).prop_map(move |(at, cell)| pair(at, cell)),
        3 => (numbers_at, numbers).prop_map(move |(at, cell)| pair(at, cell)),
        1 => (flags_at, flags).prop_map(move |(at, cell)| pair(at, cell)),
    ]
}

/// Puts a value into nested JSON; a list without its first entries gets no gap.
fn put(card: &mut Value, parts: &[String], value: Value) {
    let Some((part, rest)) = parts.split_first() else {
        *card = value;
        return;
    };
    let empty = match rest.first() {
        Some(next) if next.parse::<usize>().is_ok() && part != "metadata" => json!([]),
        _ => json!({}),
    };
    match card {
        Value::Array(items) => {
            items.push(empty);
            put(items.last_mut().unwrap(), rest, value);
        }
        Value::Object(members) => put(members.entry(part).or_insert(empty), rest, value),
        _ => panic!("a part of a value"),
    }
}

/// The pairs in nested JSON: the entries of a list by their index.
fn nested(pairs: &[(String, Vec<String>, Cell)]) -> Value {
    let mut card = json!({});
    let mut sorted: Vec<_> = pairs.iter().collect();
    sorted.sort_by(|one, other| one.1.cmp(&other.1));
    // A limit has several parts: they go into one object of the list.
    let limits: BTreeSet<&String> = sorted
        .iter()
        .filter(|pair| pair.1.get(1).is_some_and(|part| part == "spending_limits"))
        .map(|pair| &pair.1[2])
        .collect();
    for index in limits {
        let mut limit = json!({});
        let prefix = ["spending_controls", "spending_limits", index].map(str::to_owned);
        for (_, parts, cell) in sorted.iter().filter(|pair| pair.1.starts_with(&prefix)) {
            put(&mut limit, &parts[3..], cell.json.clone());
        }
        put(&mut card, &prefix, limit);
    }
    for (_, parts, cell) in
        sorted.iter().filter(|pair| pair.1.get(1).is_none_or(|part| part != "spending_limits"))
    {
        put(&mut card, parts, cell.json.clone());
    }
    card
}

fn validator() -> jsonschema::Validator {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .build(&Operation::CreateCard.declaration().json_schema())
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_row_and_its_json_come_to_one_verdict(
        pairs in prop::collection::vec(parameter(), 0..14),
        needed in any::<bool>(),
    ) {
        let mut pairs = pairs;
        if needed {
            pairs.retain(|(path, _, _)| path != "type" && path != "currency");
            pairs.push(("type".into(), vec!["type".into()], text("virtual")));
            pairs.push(("currency".into(), vec!["currency".into()], text("gbp")));
        }
        let mut seen = BTreeSet::new();
        pairs.retain(|(path, _, _)| seen.insert(path.clone()));
        let flat = pairs.iter().map(|(path, _, cell)| (path.clone(), cell.text.clone())).collect();
        let card = nested(&pairs);
        let (row, job) = (Request::from_pairs(Operation::CreateCard, flat), Request::from_json(Operation::CreateCard, &card));
        let valid = validator().is_valid(&card);
        match (row, job) {
            (Ok(mut row), Ok(mut job)) => {
                prop_assert_eq!(row.fingerprint(), job.fingerprint());
                prop_assert!(valid, "the schema refuses {}", card);
                let mut bodies = [Vec::new(), Vec::new()];
                row.encode_into(&mut bodies[0], None, "job", "batch");
                job.encode_into(&mut bodies[1], None, "job", "batch");
                prop_assert_eq!(&bodies[0], &bodies[1]);
                // And back into JSON, of which the same request is made.
                let again = Request::from_json(Operation::CreateCard, &row.to_json()).unwrap();
                prop_assert_eq!(again.fingerprint(), row.fingerprint());
                prop_assert_eq!(row.take_pin().is_some(), job.take_pin().is_some());
            }
            (Err(row), Err(job)) => {
                let codes = |problems: Vec<embosser::operation::FieldProblem>| {
                    problems.into_iter().map(|problem| problem.code).collect::<BTreeSet<_>>()
                };
                let (row, job) = (codes(row), codes(job));
                prop_assert_eq!(&row, &job);
                // A JWE's inside, and digits under a name that speaks of a PIN, only a program can judge.
                let beyond = |code: &&str| code.starts_with("jwe_") || *code == "pin_in_clear";
                prop_assert!(!valid || row.iter().all(beyond), "the schema takes {} {:?}", card, row);
            }
            (row, job) => prop_assert!(false, "row {:?}, job {:?} of {}", row.err(), job.err(), card),
        }
    }
}

fn good() -> Value {
    json!({
        "type": "physical", "currency": "eur", "cardholder": "ich_1", "exp_month": 7, "exp_year": 2031,
        "second_line": "", "replacement_reason": null,
        "pin": { "encrypted_number": support::verdict::jwe() },
        "lifecycle_controls": { "cancel_after": { "payment_count": 3 } },
        "metadata": { "department": "R&D", "cost centre": "042" },
        "shipping": {
            "name": "Zoë", "address": { "line1": "1", "city": "Dublin", "postal_code": "D02", "country": "IE", "line2": null },
            "address_validation": { "mode": "disabled" }, "require_signature": false,
        },
        "spending_controls": {
            "allowed_categories": ["airlines_air_carriers"], "blocked_categories": [],
            "spending_limits": [
                { "amount": 5, "interval": "daily", "categories": ["airlines_air_carriers"] },
                { "amount": 6, "interval": "weekly" },
            ],
        },
    })
}

/// Every object in the value, by its pointer.
fn objects(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(pointer.to_owned());
            members.iter().for_each(|(name, member)| objects(member, &format!("{pointer}/{name}"), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| objects(item, &format!("{pointer}/{index}"), found));
        }
        _ => {}
    }
}

#[test]
fn an_unknown_member_is_refused_wherever_it_stands() {
    let validator = validator();
    assert!(Request::from_json(Operation::CreateCard, &good()).is_ok() && validator.is_valid(&good()));
    let mut pointers = Vec::new();
    objects(&good(), "", &mut pointers);
    assert_eq!(pointers.len(), 11);
    for pointer in pointers.iter().filter(|pointer| *pointer != "/metadata") {
        for value in [json!("red"), json!(null), json!({ "a": 1 }), json!(["a"])] {
            let mut card = good();
            card.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("colour".into(), value);
            assert!(Request::from_json(Operation::CreateCard, &card).is_err(), "{card}");
            assert!(!validator.is_valid(&card), "{card}");
        }
    }
}

#[test]
fn a_wrong_type_is_refused_by_program_and_schema_alike() {
    let validator = validator();
    for (pointer, value, code) in [
        ("/cardholder", json!(7), "wrong_type"),
        ("/cardholder", json!({ "id": "ich_1" }), "wrong_type"),
        ("/exp_month", json!("7"), "wrong_type"),
        ("/exp_month", json!(7.5), "not_an_integer"),
        ("/exp_month", json!(true), "wrong_type"),
        ("/metadata/department", json!(42), "wrong_type"),
        ("/metadata", json!(["a"]), "wrong_type"),
        ("/metadata/department", json!({ "a": "b" }), "wrong_type"),
        ("/shipping", json!("home"), "wrong_type"),
        ("/shipping", json!({}), "missing"),
        ("/shipping/address", json!(null), "missing"),
        ("/shipping/address/postal_code", json!(1234), "wrong_type"),
        ("/shipping/name", json!(""), "missing"),
        ("/shipping/require_signature", json!("false"), "wrong_type"),
        ("/shipping/address_validation", json!({}), "missing"),
        ("/lifecycle_controls", json!({}), "missing"),
        (
            "/spending_controls/spending_limits",
            json!({ "0": { "amount": 1, "interval": "daily" } }),
            "wrong_type",
        ),
        ("/spending_controls/spending_limits/1", json!({}), "missing"),
        ("/spending_controls/spending_limits/1", json!(null), "wrong_type"),
        ("/spending_controls/spending_limits/1/amount", json!(-1), "out_of_range"),
        (
            "/spending_controls/spending_limits/1/amount",
            json!(9_223_372_036_854_775_808_u64),
            "not_an_integer",
        ),
        ("/spending_controls/blocked_categories", json!(["bakeries"]), "exclusive"),
        ("/spending_controls/allowed_categories/0", json!(""), "wrong_type"),
        ("/pin", json!("4711"), "pin_in_clear"),
        ("/pin", json!(4711), "pin_in_clear"),
        ("/pin/encrypted_number", json!(4711), "wrong_type"),
        ("/pin/encrypted_number", json!("4711"), "pin_in_clear"),
        ("/type", json!(null), "missing"),
        ("/currency", json!(""), "currency"),
    ] {
        let mut card = good();
        *card.pointer_mut(pointer).unwrap() = value;
        let problems = Request::from_json(Operation::CreateCard, &card).unwrap_err();
        assert!(problems.iter().any(|problem| problem.code == code), "{pointer}: {problems:?}");
        assert!(!format!("{problems:?}").contains("4711"));
        assert!(!validator.is_valid(&card), "{pointer}");
    }
    for card in [json!([]), json!("card"), json!(null), json!(7)] {
        assert!(Request::from_json(Operation::CreateCard, &card).is_err() && !validator.is_valid(&card));
    }
    let mut sly = good();
    sly["shipping"].as_object_mut().unwrap().insert("address][state".into(), "D".into());
    assert!(Request::from_json(Operation::CreateCard, &sly).is_err() && !validator.is_valid(&sly));
}

#[test]
fn numbers_are_integers_as_json_schema_has_them() {
    let mut card = good();
    card["exp_month"] = json!(7.0);
    assert!(validator().is_valid(&card));
    let one = Request::from_json(Operation::CreateCard, &card).unwrap();
    assert_eq!(one.fingerprint(), Request::from_json(Operation::CreateCard, &good()).unwrap().fingerprint());
}

/// The schema itself is valid, and where Stripe's is at hand, allows no member that Stripe does not.
#[test]
fn the_schema_is_a_schema() {
    let schema = Operation::CreateCard.declaration().json_schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let names: Vec<&String> = schema["properties"].as_object().map(Map::keys).unwrap().collect();
    assert!(names.iter().any(|name| *name == "spending_controls") && names.iter().all(|name| *name != PIN));
    assert_eq!(schema["required"], json!(["currency", "type"]));
}
