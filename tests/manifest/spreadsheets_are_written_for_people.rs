//! Promise: a template is a manifest to fill in, and results are in a spreadsheet what they are: `0042` and `=1+1` too.

use crate::support;

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Output};

use calamine::{Data, Reader as _, Xlsx, open_workbook};
use embosser::sandbox::{Options, Sandbox};
use serde_json::Value;
use support::office::converted;
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
            // Its example, left in, is nobody's and all that is wrong with it.
            assert_eq!((code, &verdict["rows"]), (2, &1.into()), "{name}: {verdict}");
            assert_eq!(verdict["problem_count"], 1, "{name}: {verdict}");
            assert_eq!(verdict["problems"][0]["code"], "example", "{name}: {verdict}");
            assert_eq!(verdict["warning_count"], 0, "{name}: {verdict}");
            // What was filled in is not written over.
            let again = embosser(&["template", "--for", what, "--output", name], directory.path());
            expect_exit(&again, 2);
        }
        // With somebody's data in it, nothing is.
        let text = std::fs::read_to_string(directory.path().join(&names[1])).unwrap();
        let filled = text
            .replace("ada@example.com", "grace@example.org")
            .replace("c_example", "c_1")
            .replace("ich_example", "ich_1");
        let path = directory.path().join(format!("{what}.filled.csv"));
        std::fs::write(&path, filled).unwrap();
        let (verdict, code) = run_json(&path);
        assert_eq!(
            (code, &verdict["problem_count"], &verdict["warning_count"]),
            (0, &0.into(), &0.into()),
            "{what}: {verdict}"
        );
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

/// What a program that opens the file has in its cells, row by row: LibreOffice makes another file of it.
fn opened(folder: &Path, file: &str, import: &str, into: &str) -> Vec<Vec<String>> {
    let made = converted(folder, &folder.join(file), import, into);
    if into.starts_with("csv") {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(made).unwrap();
        return reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
    }
    let mut workbook: Xlsx<_> = open_workbook(made).unwrap();
    let sheet = workbook.worksheet_range_at(0).unwrap().unwrap();
    sheet.rows().map(|row| row.iter().map(ToString::to_string).collect()).collect()
}

const NAMES: [&str; 4] = ["Zoë \"Zo\" Ångström", "=1+1, GmbH", "Łukasz 3-4", ""];

/// Names are read from the manifest, stand in each form of the results, and are kept nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn results_say_whose_each_row_is_and_an_office_program_opens_them_undamaged() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let mut manifest = csv::Writer::from_path(directory.path().join("cards.csv")).unwrap();
    manifest.write_record(["row_id", "cardholder", "type", "currency", "Vorname", "Nachname"]).unwrap();
    for (row_id, name) in ["0042", "=1+1", "1E5", "03/2030"].iter().zip(NAMES) {
        let (first, last) = name.rsplit_once(' ').unwrap_or_default();
        manifest.write_record([row_id, "ich_1", "virtual", "eur", first, last]).unwrap();
    }
    manifest.write_record(["3-4", "ich_1", "virtuel", "eur", "Eva", "Wrong"]).unwrap();
    manifest.flush().unwrap();
    let columns = "[columns]\nVorname = ''\nNachname = ''\n[results]\nperson = ['vorname', 'Nachname']\n";
    std::fs::write(directory.path().join("columns.toml"), columns).unwrap();
    let columns = ["--columns", "columns.toml"];
    let issue = ["issue", "cards.csv", "--rate", "100", "--skip-invalid"];
    expect_exit(&program.run(&[&issue[..], &columns].concat()).await, 1);
    let results = std::fs::read(directory.path().join("cards.results.csv")).unwrap();
    assert!(results.starts_with("\u{feff}row,row_id,".as_bytes()), "Excel knows it for UTF-8");
    let mut told = csv::Reader::from_reader(results.as_slice());
    let at = told.headers().unwrap().iter().position(|column| column == "person").unwrap();
    let persons: Vec<String> = told.records().map(|row| row.unwrap()[at].to_owned()).collect();
    assert_eq!(persons, [NAMES[0], "'=1+1, GmbH", NAMES[2], "", "Eva Wrong"]);

    // The ledger has no name, so that without the manifest there is none.
    let with = ["results", "cards", "--manifest", "cards.csv", "--columns", "columns.toml", "--format"];
    let json = async |arguments: &[&str]| -> Vec<Value> {
        serde_json::from_slice(&program.run(arguments).await.stdout).unwrap()
    };
    let rows = json(&[&with[..], &["json"]].concat()).await;
    let named: Vec<_> = rows.iter().map(|row| row["person"].as_str().unwrap_or_default()).collect();
    assert_eq!(named, NAMES, "exactly as they came");
    let without = json(&["results", "cards", "--format", "json"]).await;
    assert!(without.iter().all(|row| row["person"].is_null()), "{without:?}");
    for kept in std::fs::read_dir(directory.path().join("embosser")).unwrap() {
        let bytes = std::fs::read(kept.unwrap().path()).unwrap();
        assert!(memchr::memmem::find(&bytes, "Ångström".as_bytes()).is_none(), "no name is in the ledger");
    }
    let refused = program.run(&["results", "cards", "--person", "Nachname"]).await;
    expect_exit(&refused, 2);
    let refused =
        program.run(&["check", "cards.csv", "--columns", "columns.toml", "--person", "Nachnahme"]).await;
    assert!(String::from_utf8_lossy(&refused.stdout).contains("did you mean Nachname?"), "{refused:?}");

    for (form, file) in [("xlsx", "r.xlsx"), ("csv", "r.csv")] {
        expect_exit(&program.run(&[&with[..], &[form, "--output", file]].concat()).await, 0);
    }
    let folder = directory.path().to_owned();
    // A CSV has nothing to tell a text from a number by but its quotes, which LibreOffice goes by if it is told to.
    // What the byte order mark tells people's programs has to be said to one that runs without a window.
    const UTF_8: &str = "CSV:44,34,76,1";
    const QUOTED_AS_TEXT: &str = "CSV:44,34,76,1,,1033,true,false";
    let (of_xlsx, of_csv, as_it_likes) = tokio::task::spawn_blocking(move || {
        let cells_as_shown = "csv:Text - txt - csv (StarCalc):44,34,76,1,,1033,false,true";
        let of_xlsx = opened(&folder, "r.xlsx", "", cells_as_shown);
        (of_xlsx, opened(&folder, "r.csv", QUOTED_AS_TEXT, "xlsx"), opened(&folder, "r.csv", UTF_8, "xlsx"))
    })
    .await
    .unwrap();
    for (cells, is_csv) in [(&of_xlsx, false), (&of_csv, true)] {
        assert_eq!((&cells[0][..], cells.len()), (&embosser::results::COLUMNS.map(str::to_owned)[..], 5));
        for (cells, row) in cells[1..].iter().zip(&rows) {
            for (name, cell) in embosser::results::COLUMNS.iter().zip(cells) {
                let text = match &row[name] {
                    Value::Null | Value::Array(_) => String::new(),
                    Value::String(text) if is_csv && text.starts_with('=') => format!("'{text}"),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                assert_eq!(*cell, text, "{name}, CSV: {is_csv}");
            }
        }
    }
    assert!(rows[0]["last4"].as_str().unwrap().starts_with('0'), "one that a number would lose");
    let at = |name: &str| embosser::results::COLUMNS.iter().position(|column| *column == name).unwrap();
    for name in ["expiry", "person", "card_id"] {
        assert_eq!(as_it_likes[1][at(name)], of_csv[1][at(name)], "{name}: however its quotes are taken");
    }
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
