//! Promise: a template is a manifest to fill in, and results are in a spreadsheet what they are: `0042` and `=1+1` too.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

use calamine::{Data, Reader as _, Xlsx, open_workbook};
use embosser::sandbox::{Options, Sandbox};
use serde_json::Value;
use support::verdict::run_json;
use support::{Program, expect_exit};

fn embosser(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embosser"));
    command.args(arguments).current_dir(folder).env_remove("STRIPE_API_KEY").output().unwrap()
}

#[test]
fn a_template_is_a_manifest_with_notes_and_words_to_choose_from() {
    let directory = tempfile::tempdir().unwrap();
    for what in ["cards", "people", "updates", "pins"] {
        let names = ["xlsx", "csv"].map(|ending| format!("{what}.{ending}"));
        for name in &names {
            let made = embosser(&["template", "--for", what, "--output", name], directory.path());
            expect_exit(&made, 0);
            let (verdict, code) = run_json(&directory.path().join(name));
            assert_eq!((code, &verdict["rows"]), (0, &1.into()), "{name}: {verdict}");
            assert_eq!(verdict["problem_count"], 0, "{name}: {verdict}");
            assert_eq!(verdict["warning_count"], 0, "{name}: {verdict}");
            // What was filled in is not written over.
            let again = embosser(&["template", "--for", what, "--output", name], directory.path());
            expect_exit(&again, 2);
        }
        let file = std::fs::File::open(directory.path().join(&names[0])).unwrap();
        let mut archive = zip::ZipArchive::new(file).unwrap();
        let mut part = |name: &str| {
            let mut text = String::new();
            archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        let (sheet, notes) = (part("xl/worksheets/sheet1.xml"), part("xl/comments1.xml"));
        let words = if what == "updates" { "active,canceled,inactive" } else { "true,false" };
        assert!(sheet.contains("<dataValidation ") && sheet.contains(words), "{sheet}");
        let columns = verdict_columns(&directory.path().join(&names[1]));
        assert_eq!(notes.matches("<comment ").count(), columns, "a note for each column");
    }
    expect_exit(&embosser(&["template", "--for", "cards", "--output", "a.doc"], directory.path()), 2);
}

/// How many columns a CSV has.
fn verdict_columns(path: &Path) -> usize {
    csv::Reader::from_path(path).unwrap().headers().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_in_a_spreadsheet_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let text = "row_id,cardholder,type,currency\n0042,ich_1,virtual,eur\n=1+1,ich_2,virtual,eur\n+49,ich_3,virtual,eur\n\
                3-4,ich_none,virtual,xxx\n";
    std::fs::write(directory.path().join("cards.csv"), text).unwrap();
    program.run(&["issue", "cards.csv", "--rate", "100"]).await;
    expect_exit(&program.run(&["results", "cards", "--format", "xlsx", "--output", "r.xlsx"]).await, 0);
    let json = program.run(&["results", "cards", "--format", "json"]).await;
    let rows: Vec<Value> = serde_json::from_slice(&json.stdout).unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row["row_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["0042", "=1+1", "+49", "3-4"], "as they came");

    let mut workbook: Xlsx<_> = open_workbook(directory.path().join("r.xlsx")).unwrap();
    assert_eq!(workbook.sheet_names(), ["Results", "Summary"]);
    let sheet = workbook.worksheet_range("Results").unwrap();
    let mut cells = sheet.rows();
    let names: Vec<String> = cells.next().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(names, embosser::results::COLUMNS);
    for (cells, row) in cells.zip(&rows) {
        for (name, cell) in names.iter().zip(cells) {
            match (&row[name.as_str()], cell) {
                (Value::Null, Data::Empty) => {}
                (Value::Array(changed), Data::Empty) => assert!(changed.is_empty()),
                (Value::String(text), Data::String(cell)) => assert_eq!(cell, text, "{name}"),
                (Value::Number(number), Data::Float(cell)) => {
                    assert_eq!(Some(*cell), number.as_f64(), "{name}")
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    let formulas = workbook.worksheet_formula("Results").unwrap();
    assert!(formulas.is_empty(), "none is run");
    let summary = workbook.worksheet_range("Summary").unwrap();
    let of = |name: &str| {
        let row = summary.rows().find(|row| row[0] == name);
        row.unwrap_or_else(|| panic!("{name}"))[1].to_string()
    };
    assert_eq!([of("Batch"), of("Rows"), of("Issued")], ["cards", "4", &of("Issued")]);
    let counted: u64 = ["Issued", "Refused"].iter().map(|name| of(name).parse::<u64>().unwrap()).sum();
    assert_eq!(counted, 4);
}

#[test]
fn shells_and_man_know_every_command() {
    let directory = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(embosser(&["completions", shell], directory.path()).stdout).unwrap();
        for command in ["issue", "template", "results"] {
            assert!(script.contains(command), "{shell}");
        }
    }
    expect_exit(&embosser(&["man", "--directory", "."], directory.path()), 0);
    for page in ["embosser.1", "embosser-issue.1", "embosser-check.1"] {
        let text = std::fs::read_to_string(directory.path().join(page)).unwrap();
        assert!(text.contains(".TH") && text.len() > 500, "{page}");
    }
}
