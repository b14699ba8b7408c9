//! Promise: whoever has whole numbers of cents and money in one column is told so, with one of each and how both are read.

use crate::support;

use std::path::Path;

use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use support::Program;
use support::serve::Served;
use support::verdict::{run_json, run_json_with};

const AMOUNT: &str = "spending_controls[spending_limits][0][amount]";

/// Cards with these currencies and limits.
fn cards(limits: &[(&str, &str)]) -> String {
    let rows = (1..)
        .zip(limits)
        .map(|(at, (currency, limit))| format!("E{at},ich_{at},virtual,{currency},\"{limit}\",monthly\n"));
    format!(
        "row_id,cardholder,type,currency,{AMOUNT},spending_controls[spending_limits][0][interval]\n{}",
        rows.collect::<String>()
    )
}

fn check(text: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.csv");
    std::fs::write(&path, text).unwrap();
    run_json(&path).0
}

/// What is told of amounts of two kinds.
fn told(verdict: &Value) -> Vec<&Value> {
    let warnings = verdict["warnings"].as_array().unwrap().iter();
    warnings.filter(|warning| warning["code"] == "mixed_amounts").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_each_kind_is_shown_with_what_it_is_read_as() {
    let mixed =
        cards(&[("eur", "0"), ("eur", "1500"), ("eur", "700"), ("EUR", "1 500,00 €"), ("eur", "2.000,00 €")]);
    let verdict = check(&mixed);
    let told_of = told(&verdict);
    assert_eq!(told_of.len(), 1, "{verdict}");
    let warning = told_of[0];
    assert_eq!(
        (&warning["line"], &warning["row"], &warning["column"]),
        (&json!(1), &json!(0), &json!(AMOUNT)),
        "{warning}"
    );
    let said = "has amounts of two kinds: on line 3 (E2) stands a whole number, which counts the currency's smallest unit and is read as \
        15.00 EUR, and on line 5 (E4) \"1 500,00 €\", written as money, which would be 1,500.00 EUR. If both are meant as money, write whole numbers of \
        the smallest unit everywhere: 150000 for 1,500.00 EUR";
    assert_eq!(warning["reason"], json!(said), "{warning}");
    // An upload is told the same, whether its rows are a table or not.
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    for path in ["/v1/checks", "/v1/checks?table=10"] {
        let answer = served.upload(path, mixed.clone().into()).await.expect(422).json();
        let all = answer["problems"].as_array().unwrap();
        assert!(
            all.iter().any(|one| one["code"] == "mixed_amounts" && one["reason"] == said),
            "{path}: {answer}"
        );
    }
}

#[test]
fn amounts_of_one_kind_are_not_told() {
    for limits in [
        [("eur", "1500"), ("eur", "150000"), ("eur", "0")],
        [("eur", "1 500,00 €"), ("eur", "500 €"), ("eur", "0")],
        // What is no amount at all is a problem of its own.
        [("eur", "1500"), ("eur", "unknown"), ("eur", "-")],
    ] {
        let verdict = check(&cards(&limits));
        assert!(told(&verdict).is_empty(), "{limits:?}: {verdict}");
    }
    // In a column each they are told of nothing but themselves.
    let two = "cardholder,type,currency,spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval],\
        spending_controls[spending_limits][1][amount],spending_controls[spending_limits][1][interval]\n\
        ich_1,virtual,eur,1500,daily,\"1 500,00 €\",monthly\n";
    assert!(told(&check(two)).is_empty());
}

#[test]
fn each_currency_is_read_as_its_own_and_the_files_heading_is_named() {
    let yen = check(&cards(&[("jpy", "1500"), ("jpy", "1 500,00 ¥")]));
    let reason = told(&yen)[0]["reason"].as_str().unwrap();
    assert!(reason.contains("is read as 1,500 JPY") && reason.ends_with("1500 for 1,500 JPY"), "{reason}");
    // Money of which nobody knows whether it is thousands is shown, and not read.
    let open = check(&cards(&[("eur", "1500"), ("eur", "1.500 €")]));
    let reason = told(&open)[0]["reason"].as_str().unwrap();
    assert!(reason.contains("\"1.500 €\", written as money. If both"), "{reason}");
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let columns = write("columns.toml", &format!("[columns]\nLimit = '{AMOUNT}'\n"));
    let file =
        write("limits.csv", &cards(&[("eur", "1500"), ("eur", "1 500,00 €")]).replace(AMOUNT, "Limit"));
    let (verdict, _) = run_json_with(Path::new(&file), &["--columns", columns.to_str().unwrap()]);
    assert_eq!(told(&verdict)[0]["column"], json!("Limit"), "{verdict}");
}
