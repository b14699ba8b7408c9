//! Promise: where the columns file says so, a physical card whose row does not say where it is sent goes to its person's own name and
//! address, as if these had been written out; every other row stays as it is.

use crate::support;

use std::path::{Path, PathBuf};

use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use support::verdict::{run, run_json, run_json_with, told};
use support::{Program, expect_exit};

const COLUMNS: &str = r#"
[columns]
"Nr" = "row_id"
"Name" = "cardholder[name]"
"PLZ" = "cardholder[billing][address][postal_code]"
"Ort" = "cardholder[billing][address][city]"
"Land" = "cardholder[billing][address][country]"
"Karte" = "type"
"An" = "shipping[name]"
"Wohin" = "shipping[address][line1]"
"Wohin PLZ" = "shipping[address][postal_code]"
"Wohin Ort" = "shipping[address][city]"
"Versand" = "shipping[service]"
[joined]
"cardholder[billing][address][line1]" = ["Straße", "Hausnr"]
[defaults]
currency = "eur"
"cardholder[billing][address][country]" = "DE"
[values.type]
"Plastik" = "physical"
[shipping]
to = "own address"
"#;

/// The first is sent home, the second says where, and the third is virtual.
const THEIRS: &str = "Nr,Name,Straße,Hausnr,PLZ,Ort,Land,Karte,An,Wohin,Wohin PLZ,Wohin Ort,Versand,shipping[address][country]\n\
    E1,Ada Byron,Lange Str.,5,10115,Berlin,,Plastik,,,,,standard,\n\
    E2,Eva Roe,Weg,2,1010,Wien,AT,Plastik,Empfang,Ring 1,1020,Wien,,AT\n\
    E3,Bob Roe,Weg,3,1010,Wien,AT,virtual,,,,,,\n";
const MEANT: &str = "row_id,cardholder[name],cardholder[billing][address][line1],cardholder[billing][address][postal_code],\
    cardholder[billing][address][city],cardholder[billing][address][country],type,currency,shipping[name],shipping[address][line1],\
    shipping[address][postal_code],shipping[address][city],shipping[address][country],shipping[service]\n\
    E1,Ada Byron,Lange Str. 5,10115,Berlin,DE,physical,eur,Ada Byron,Lange Str. 5,10115,Berlin,DE,standard\n\
    E2,Eva Roe,Weg 2,1010,Wien,AT,physical,eur,Empfang,Ring 1,1020,Wien,AT,\n\
    E3,Bob Roe,Weg 3,1010,Wien,AT,virtual,eur,,,,,,\n";

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn check(manifest: &str, columns: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let columns = write(directory.path(), "columns.toml", columns);
    let manifest = write(directory.path(), "staff.csv", manifest);
    run_json_with(&manifest, &["--columns", columns.to_str().unwrap()]).0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_is_the_one_that_has_the_address_written_out() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    write(directory.path(), "staff.csv", THEIRS);
    write(directory.path(), "plain.csv", MEANT);
    write(directory.path(), "columns.toml", COLUMNS);
    let output = run(
        &directory.path().join("staff.csv"),
        &["--columns", directory.path().join("columns.toml").to_str().unwrap()],
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 card is sent to its person's own address"), "{said}");
    assert!(said.contains("it is sent to: Ada Byron, Lange Str. 5, 10115, Berlin, DE."), "{said}");
    expect_exit(&program.run(&["issue", "staff.csv", "--columns", "columns.toml"]).await, 0);
    let list = support::http_client().get(format!("{}/v1/issuing/cards", sandbox.api_url()));
    let list: Value = list.bearer_auth("rk_test_1").send().await.unwrap().json().await.unwrap();
    let of = |card: &Value| {
        let shipping = &card["shipping"];
        json!([
            shipping["name"],
            shipping["address"]["line1"],
            shipping["address"]["country"],
            shipping["service"]
        ])
    };
    let mut sent: Vec<String> =
        list["data"].as_array().unwrap().iter().map(|card| of(card).to_string()).collect();
    sent.sort();
    assert_eq!(
        sent,
        [
            r#"["Ada Byron","Lange Str. 5","DE","standard"]"#,
            r#"["Empfang","Ring 1","AT","standard"]"#,
            "[null,null,null,null]"
        ]
    );
    // The same people, by what they ask for: nobody gets a second card.
    let output = program.run(&["issue", "plain.csv"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() != Some(0) && said.contains("issued before"), "{said}");
    assert_eq!(sandbox.account().cards.len(), 3);
}

#[test]
fn a_card_without_an_address_is_told_of_with_the_way_out() {
    let people = "cardholder[name],cardholder[billing][address][line1],cardholder[billing][address][city],\
        cardholder[billing][address][postal_code],cardholder[billing][address][country],type,currency,cardholder\n";
    let rows = format!("{people}Ada,Weg 1,Berlin,10115,DE,physical,eur,\n,,,,,physical,eur,ich_1\n");
    let directory = tempfile::tempdir().unwrap();
    let (verdict, _) = run_json(&write(directory.path(), "staff.csv", &rows));
    assert_eq!(told(&verdict), ["warning 2 type no_shipping", "warning 3 type no_shipping"], "{verdict}");
    let reason = |at: usize| verdict["warnings"][at]["reason"].as_str().unwrap();
    assert!(
        reason(0).contains(r#"write [shipping] with to = "own address" into the columns file"#),
        "{}",
        reason(0)
    );
    // Of a cardholder who exists nobody knows the address here.
    assert!(!reason(1).contains("own address"), "{}", reason(1));
    let verdict = check(&rows, "[shipping]\nto = 'own address'\n");
    assert_eq!(told(&verdict), ["warning 3 type no_shipping"], "{verdict}");
    assert!(verdict["notes"].to_string().contains("1 card is sent to its person's own address"), "{verdict}");
}

#[test]
fn what_is_wrong_with_an_address_is_told_once_and_in_the_files_own_headings() {
    let wrong = THEIRS
        .replace("10115,Berlin,,", "10115,,,")
        .replace("1010,Wien,AT,virtual", "1010,Wien,AT,Plastik")
        .replace("Bob Roe,Weg,3", "#N/A,Weg,3");
    let verdict = check(&wrong, COLUMNS);
    assert_eq!(verdict["problems"][0]["reason"], json!("is required"), "{verdict}");
    assert_eq!(
        told(&verdict),
        ["problem 2 Ort missing", "problem 4 Name formula_failed", "warning 4 Name printed_name"]
    );
    // That nothing is sent there is told of what is sent alone.
    let nowhere = THEIRS.replace("10115,Berlin,,", "10115,Lagos,NG,");
    assert_eq!(told(&check(&nowhere, COLUMNS)), ["problem 2 Land not_shipped_to"]);
    // A part of an address is one that somebody began to write.
    let half = THEIRS.replace("Plastik,,,,,standard", "Plastik,Empfang,,,,standard");
    let half = told(&check(&half, COLUMNS));
    assert!(half.contains(&"problem 2 Wohin missing".to_owned()), "{half:?}");
}

#[test]
fn it_is_said_where_nobody_has_an_own_address() {
    for file in ["cardholder,type,currency\nich_1,physical,eur\n", "card,status\nic_1,active\n"] {
        let verdict = check(file, "[shipping]\nto = 'own address'\n");
        assert_eq!(told(&verdict)[0], "problem 1  no_own_address", "{verdict}");
    }
}
