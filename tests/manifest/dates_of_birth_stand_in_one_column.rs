//! Promise: a date of birth in one column is Stripe's day, month and year however it is written; what can be two dates is read as the
//! columns file says or as the column's other dates show, and never guessed.

use crate::support;

use std::path::{Path, PathBuf};
use std::process::Command;

use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use support::serve::Served;
use support::verdict::{run_json, run_json_with};
use support::{Program, expect_exit};

const HEADER: &str = "row_id,cardholder[name],cardholder[billing][address][line1],cardholder[billing][address][city],\
    cardholder[billing][address][postal_code],cardholder[billing][address][country],type,currency,cardholder[individual][dob]";

/// A file of people with these dates.
fn people(dates: &[&str]) -> String {
    let names = ["Ada Byron", "Eva Roe", "Bob Low", "Ida May", "Tom Fox"];
    let rows = dates.iter().zip(names).enumerate().map(|(at, (date, name))| {
        format!("E{},{name},Weg {at},Berlin,10115,DE,virtual,eur,{date}\n", at + 1)
    });
    format!("{HEADER}\n{}", rows.collect::<String>())
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Line, column and code of each problem.
fn told(verdict: &Value) -> Vec<String> {
    assert_eq!(verdict["warnings"], json!([]), "{verdict}");
    let shown = |problem: &Value| {
        let [column, code] = ["column", "code"].map(|part| problem[part].as_str().unwrap());
        format!("{} {column} {code}", problem["line"])
    };
    verdict["problems"].as_array().unwrap().iter().map(shown).collect()
}

fn check(text: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    run_json(&write(directory.path(), "staff.csv", text)).0
}

fn check_as(text: &str, columns: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let columns = write(directory.path(), "columns.toml", columns);
    run_json_with(&write(directory.path(), "staff.csv", text), &["--columns", columns.to_str().unwrap()]).0
}

/// Names and dates of birth of the cardholders there are, in order.
async fn born(sandbox: &Sandbox) -> Vec<String> {
    let list = support::http_client().get(format!("{}/v1/issuing/cardholders", sandbox.api_url()));
    let list: Value = list.bearer_auth("rk_test_1").send().await.unwrap().json().await.unwrap();
    let of = |made: &Value| {
        let dob = &made["individual"]["dob"];
        format!("{} {}-{}-{}", made["name"].as_str().unwrap(), dob["year"], dob["month"], dob["day"])
    };
    let mut born: Vec<_> = list["data"].as_array().unwrap().iter().map(of).collect();
    born.sort();
    born
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_is_the_one_that_has_day_month_and_year() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let theirs = "Nr;Name;Straße;PLZ;Ort;Land;Geburtsdatum\n\
        E1;Ada Byron;Weg 1;10115;Berlin;DE;10.12.1990\nE2;Eva Roe;Weg 2;10115;Berlin;DE;1. März 1985\n\
        E3;Bob Low;Weg 3;10115;Berlin;DE;1979-02-28\nE4;Ida May;Weg 4;10115;Berlin;DE;\n";
    let manifest = write(directory.path(), "staff.csv", theirs);
    let output = Command::new(env!("CARGO_BIN_EXE_embosser")).arg("columns").arg(&manifest).output().unwrap();
    let proposed = String::from_utf8(output.stdout).unwrap();
    assert!(proposed.contains("\"Geburtsdatum\" = \"cardholder[individual][dob]\"\n"), "{proposed}");
    assert!(proposed.contains("# [dates]\n# order = \"day/month/year\""), "{proposed}");
    let columns =
        proposed.replace("# type = \"physical\"", "type = \"virtual\"").replace("# currency", "currency");
    write(directory.path(), "columns.toml", &columns);
    expect_exit(&program.run(&["issue", "staff.csv", "--columns", "columns.toml"]).await, 0);
    let expected =
        ["Ada Byron 1990-12-10", "Bob Low 1979-2-28", "Eva Roe 1985-3-1", "Ida May null-null-null"];
    let mut expected = expected.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(born(&sandbox).await, expected);
    // With Stripe's three columns they are the same people: nobody gets a second card.
    let parts = ["day", "month", "year"].map(|part| format!("cardholder[individual][dob][{part}]")).join(",");
    let header = HEADER.replace("cardholder[individual][dob]", &parts);
    let plain = format!(
        "{header}\nE1,Ada Byron,Weg 1,Berlin,10115,DE,virtual,eur,10,12,1990\nE2,Eva Roe,Weg 2,Berlin,10115,DE,virtual,eur,1,3,1985\n\
         E3,Bob Low,Weg 3,Berlin,10115,DE,virtual,eur,28,2,1979\nE4,Ida May,Weg 4,Berlin,10115,DE,virtual,eur,,,\n"
    );
    write(directory.path(), "plain.csv", &plain);
    let output = program.run(&["issue", "plain.csv"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() != Some(0) && said.contains("issued before"), "{said}");
    assert_eq!(sandbox.account().cards.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_date_that_can_be_read_in_one_way_only_decides_for_its_column() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    // The one that tells stands behind those that it tells of; as a file, and as an upload, which is read as it comes.
    write(directory.path(), "british.csv", &people(&["01/02/1990", "03/04/1991", "25/12/1992"]));
    expect_exit(&program.run(&["issue", "british.csv"]).await, 0);
    assert_eq!(born(&sandbox).await, ["Ada Byron 1990-2-1", "Bob Low 1992-12-25", "Eva Roe 1991-4-3"]);
    let served = Served::start(&program, &[]);
    let american =
        people(&["01/02/1990", "03/04/1991", "12/25/1992"]).replace("Weg", "Road").replace(" Roe", " Doe");
    served.upload("/v1/checks", american.clone().into()).await.expect(200);
    served.upload("/v1/checks?table=10", american.clone().into()).await.expect(200);
    served.upload("/v1/batches?name=american", american.into()).await.expect(202);
    assert_eq!(served.until_ended("american").await["issued"], 3);
    let born = born(&sandbox).await;
    assert!(born.contains(&"Eva Doe 1991-3-4".to_owned()), "{born:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_two_dates_is_a_problem_with_its_way_out() {
    let column = "cardholder[individual][dob]";
    let either = people(&["01/02/1990", "03/03/1990"]);
    let verdict = check(&either);
    assert_eq!(told(&verdict), [format!("2 {column} ambiguous_date")]);
    let problem = &verdict["problems"][0];
    let reason = problem["reason"].as_str().unwrap();
    assert!(reason.starts_with("may be 1 February 1990 or 2 January 1990"), "{reason}");
    assert!(reason.ends_with(r#"under [dates], order = "day/month/year" or "month/day/year""#), "{reason}");
    assert_eq!((&problem["found"], &problem["row_id"]), (&json!("01/02/1990"), &json!("E1")), "{problem}");
    // Dates of both kinds in one column show nothing: those that can be one only are that.
    let both = people(&["25/12/1990", "12/25/1990", "01/02/1990"]);
    assert_eq!(told(&check(&both)), [format!("4 {column} ambiguous_date")]);
    for order in ["day/month/year", "month/day/year"] {
        let said = format!("[dates]\norder = '{order}'\n");
        assert!(told(&check_as(&either, &said)).is_empty(), "{order}");
        let told = told(&check_as(&both, &said));
        let wrong = if order.starts_with("day") { 3 } else { 2 };
        assert_eq!(told, [format!("{wrong} {column} no_such_day")], "{order}");
    }
    // An upload is told the same.
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    let answer = served.upload("/v1/checks?table=10", both.into()).await.expect(422).json();
    assert_eq!(
        (&answer["problem_count"], &answer["problems"][0]["code"]),
        (&json!(1), &json!("ambiguous_date")),
        "{answer}"
    );
    assert_eq!(answer["table"]["rows"].as_array().unwrap().len(), 3, "{answer}");
}

#[test]
fn what_is_no_date_is_told_once_with_what_was_found_under_its_own_heading() {
    let dates = ["01.02.90", "31.02.1990", "unknown", "32905", "01.02.2990"];
    let theirs = people(&dates).replace("cardholder[individual][dob]", "Geb.-Datum");
    let verdict = check_as(&theirs, "[columns]\n'Geb.-Datum' = 'cardholder[individual][dob]'\n");
    assert_eq!(
        told(&verdict),
        [
            "2 Geb.-Datum two_digit_year",
            "3 Geb.-Datum no_such_day",
            "4 Geb.-Datum no_date",
            "5 Geb.-Datum no_date",
            "6 Geb.-Datum not_born_yet"
        ]
    );
    assert_eq!(verdict["problems"][0]["found"], json!("01.02.90"), "{verdict}");
    // A number may be a PIN in the wrong column.
    assert_eq!(verdict["problems"][3]["found"], json!(null), "{verdict}");
    // It is nobody's column of a file without people, and stands there once.
    let of_cards = check(
        "cardholder,type,currency,cardholder[individual][dob][day],cardholder[individual][dob]\nich_1,virtual,eur,1,\n",
    );
    assert_eq!(told(&of_cards)[0], "1 cardholder[individual][dob][day] duplicate_column", "{of_cards}");
    let changes = check("card,status,cardholder[individual][dob]\nic_1,active,01.02.1990\n");
    assert_eq!(told(&changes)[0], "1 cardholder[individual][dob] unknown_parameter", "{changes}");
}
