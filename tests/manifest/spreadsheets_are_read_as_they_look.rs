//! Promise: what is read of a spreadsheet is what whoever opens it sees: money as money, numbers in their form. What is not seen,
//! hidden rows and other sheets, is told.

use crate::support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use rust_xlsxwriter::{Format, Workbook, Worksheet};
use serde_json::{Value, json};
use support::office::converted;
use support::verdict::{peak_of, run, run_json, run_json_with};

const HEADER: [&str; 7] = [
    "row_id",
    "cardholder",
    "type",
    "currency",
    "metadata[code]",
    "spending_controls[spending_limits][0][amount]",
    "spending_controls[spending_limits][0][interval]",
];

/// The headings, and so many rows below them; the code and the amount are left to others.
fn rows(sheet: &mut Worksheet, count: u32) {
    texts(sheet, 0, &HEADER);
    for row in 1..=count {
        texts(sheet, row, &[&format!("E{row}"), &format!("ich_{row}"), "virtual", "eur"]);
    }
}

fn texts(sheet: &mut Worksheet, row: u32, cells: &[&str]) {
    for (column, text) in (0..).zip(cells) {
        sheet.write_string(row, column, *text).unwrap();
    }
}

fn saved(directory: &Path, name: &str, fill: impl FnOnce(&mut Workbook)) -> PathBuf {
    let mut workbook = Workbook::new();
    fill(&mut workbook);
    let path = directory.join(name);
    workbook.save(&path).unwrap();
    path
}

/// The same file as XLSX, XLS and ODS.
fn in_all_kinds(directory: &Path, file: &Path) -> [PathBuf; 3] {
    [file.to_owned(), converted(directory, file, "", "xls"), converted(directory, file, "", "ods")]
}

fn said(path: &Path, arguments: &[&str]) -> String {
    let output = run(path, arguments);
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

/// Line, column and code of all that is told.
fn told(verdict: &Value, list: &str) -> Vec<(u64, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let problems = verdict[list].as_array().unwrap().iter();
    problems
        .map(|problem| (problem["line"].as_u64().unwrap(), text(&problem["column"]), text(&problem["code"])))
        .collect()
}

#[test]
fn an_amount_that_is_shown_as_money_is_never_taken_for_cents() {
    let directory = tempfile::tempdir().unwrap();
    let formats = ["#,##0.00 \"€\"", "0.00", "[$$-409]#,##0.00", "#,##0\\ [$€-407]", "#,##0", "General"];
    let file = saved(directory.path(), "limits.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        rows(sheet, 6);
        for (row, format) in (1..).zip(formats) {
            let format = Format::new().set_num_format(format);
            sheet.write_number_with_format(row, 5, 500.0, &format).unwrap();
            sheet.write_string(row, 6, "monthly").unwrap();
        }
    });
    for path in in_all_kinds(directory.path(), &file) {
        let (verdict, code) = run_json(&path);
        let problems: Vec<_> =
            told(&verdict, "problems").into_iter().map(|(line, _, code)| (line, code)).collect();
        let wrong = |line| (line, "not_an_integer".to_owned());
        assert_eq!((problems, code), (vec![wrong(2), wrong(3), wrong(4), wrong(5)], 2), "{path:?}");
        for (at, found) in [(0, "500.00 €"), (1, "500.00")] {
            let problem = &verdict["problems"][at];
            assert_eq!((&problem["found"], &problem["suggestion"]), (&json!(found), &json!("50000")));
        }
        // The last two are whole numbers, and everybody is told what they come to.
        assert!(verdict["notes"].to_string().contains("The limits in this file are 5.00 EUR."), "{verdict}");
    }
}

#[test]
fn numbers_have_the_form_that_their_cells_show() {
    let directory = tempfile::tempdir().unwrap();
    let forms = [
        ("\"P\"00000", 7.0, "P00007"),
        ("00-000", 950.0, "00-950"),
        ("000-0000", 600_001.0, "060-0001"),
        ("00000-0000", 21_381_234.0, "02138-1234"),
        ("00000;@", 1067.0, "01067"),
        ("[<=99999]00000;00000\\-0000", 2138.0, "02138"),
        ("0.00", 1234.5, "1234.50"),
        ("#,##0", 50_000.0, "50000"),
    ];
    let file = saved(directory.path(), "codes.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        rows(sheet, u32::try_from(forms.len()).unwrap());
        for (row, (format, number, _)) in (1..).zip(forms) {
            let format = Format::new().set_num_format(format);
            sheet.write_number_with_format(row, 4, number, &format).unwrap();
        }
    });
    for path in in_all_kinds(directory.path(), &file) {
        let snapshot = embosser::manifest::snapshot::Snapshot::of(&path, &Default::default()).unwrap();
        let manifest = embosser::manifest::Manifest::open_held(snapshot, &Default::default()).unwrap();
        let codes: Vec<String> = manifest
            .rows()
            .unwrap()
            .map(|row| row.unwrap().request.value("metadata[code]").unwrap().to_owned())
            .collect();
        assert_eq!(codes, forms.map(|(.., shown)| shown), "{path:?}");
    }
}

#[test]
fn rows_and_columns_that_are_hidden_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = saved(directory.path(), "filtered.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        rows(sheet, 4);
        sheet.autofilter(0, 0, 4, 6).unwrap();
        for row in [2, 4, 900] {
            sheet.set_row_hidden(row).unwrap();
        }
        sheet.set_column_hidden(1).unwrap();
    });
    for path in in_all_kinds(directory.path(), &file) {
        let (verdict, code) = run_json(&path);
        assert_eq!((code, &verdict["rows"]), (0, &json!(4)), "{path:?}");
        assert_eq!(told(&verdict, "warnings"), [(3, String::new(), "hidden_rows".to_owned())], "{path:?}");
        let reason = verdict["warnings"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("2 rows are hidden in the spreadsheet (lines 3, 5)"), "{reason}");
        assert!(verdict["notes"].to_string().contains("column B is hidden, and is read, too"), "{verdict}");
        assert_eq!(run_json_with(&path, &["--strict"]).1, 2);
    }
}

#[test]
fn the_sheet_with_the_table_is_read_and_tables_that_are_not_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let instructions = saved(directory.path(), "instructions.xlsx", |workbook| {
        let notes = workbook.add_worksheet().set_name("Anleitung").unwrap();
        texts(notes, 0, &["So füllen Sie die Liste aus"]);
        texts(notes, 2, &["1. Namen eintragen", "bitte"]);
        rows(workbook.add_worksheet().set_name("Mitarbeiter").unwrap(), 2);
        texts(workbook.add_worksheet().set_name("Länder").unwrap(), 0, &["DE", "FR"]);
    });
    let offices = saved(directory.path(), "offices.xlsx", |workbook| {
        rows(workbook.add_worksheet().set_name("Berlin").unwrap(), 2);
        rows(workbook.add_worksheet().set_name("Hamburg").unwrap(), 1);
        rows(workbook.add_worksheet().set_name("Archiv").unwrap().set_hidden(true), 1);
    });
    let none = saved(directory.path(), "none.xlsx", |workbook| {
        texts(workbook.add_worksheet().set_name("A").unwrap(), 0, &["nothing"]);
        texts(workbook.add_worksheet().set_name("B b").unwrap(), 0, &["known"]);
    });
    for path in in_all_kinds(directory.path(), &instructions) {
        let said = said(&path, &[]);
        assert!(said.starts_with("2 rows: "), "{said}");
        assert!(said.contains("sheet \"Mitarbeiter\", not the first one, \"Anleitung\""), "{said}");
        assert!(!said.contains("warning"), "{said}");
    }
    for path in in_all_kinds(directory.path(), &offices) {
        let (verdict, code) = run_json(&path);
        assert_eq!((code, &verdict["rows"]), (0, &json!(2)));
        assert_eq!(told(&verdict, "warnings"), [(1, String::new(), "other_sheets".to_owned())], "{path:?}");
        let reason = verdict["warnings"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("sheet \"Hamburg\" has rows, too") && reason.contains("--sheet"), "{reason}");
        // Who names a sheet knows of the others, and need not spell it as the file does.
        let named = said(&path, &["--sheet", " hamburg"]);
        assert!(named.starts_with("1 row: ") && !named.contains("warning"), "{named}");
    }
    for path in in_all_kinds(directory.path(), &none) {
        let said = said(&path, &[]);
        assert!(said.contains("this is \"A\" of the spreadsheet, which has sheet \"B b\", too"), "{said}");
    }
}

/// A blank far away makes a sheet as large as its place, to the programs that write it.
#[test]
fn a_blank_in_the_far_corner_costs_nothing() {
    const PEAK_BYTES_MAX: u64 = 128 << 20;
    let directory = tempfile::tempdir().unwrap();
    let file = saved(directory.path(), "corner.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        rows(sheet, 2);
        sheet.write_string(0, 16_383, " ").unwrap();
        sheet.write_string(1_048_575, 16_383, "\u{a0}").unwrap();
        sheet.write_string(1_048_575, 0, " ").unwrap();
    });
    let begin = Instant::now();
    let (peak, said_of_it) = peak_of(&file);
    assert!(said_of_it.starts_with("2 rows: "), "{said_of_it}");
    assert!(peak < PEAK_BYTES_MAX && begin.elapsed().as_secs() < 10, "{peak} bytes, {:?}", begin.elapsed());
    for (text, said) in [(" ", "2 rows: "), ("x", "cell IV65536 stands far away from all others")] {
        let narrow = saved(directory.path(), "narrow.xlsx", |workbook| {
            let sheet = workbook.add_worksheet();
            rows(sheet, 2);
            sheet.write_string(65_535, 255, text).unwrap();
        });
        let old = converted(directory.path(), &narrow, "", "xls");
        let (peak, said_of_it) = peak_of(&old);
        assert!(said_of_it.contains(said), "{said_of_it}");
        assert!(peak < PEAK_BYTES_MAX, "{peak} bytes");
    }
}
