//! Promise: a spreadsheet has the verdict that the CSV has which its program would save, and what cannot be read of it is
//! said with the way out.

use crate::support;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use embosser::sandbox::{Options, Sandbox};
use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook, Worksheet};
use serde_json::{Value, json};
use support::Program;
use support::office::converted;
use support::serve::Served;
use support::verdict::{run, run_json};
use zip::write::SimpleFileOptions;

const XLSX: &str = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";

/// Rows of a manifest, every cell a text.
fn texts(sheet: &mut Worksheet, rows: &[&[&str]]) {
    for (row, cells) in (0..).zip(rows) {
        for (column, cell) in (0..).zip(*cells) {
            sheet.write_string(row, column, *cell).unwrap();
        }
    }
}

fn saved(directory: &Path, name: &str, fill: impl FnOnce(&mut Workbook)) -> PathBuf {
    let mut workbook = Workbook::new();
    fill(&mut workbook);
    let path = directory.join(name);
    workbook.save(&path).unwrap();
    path
}

/// An archive of these parts.
fn archive(path: &Path, parts: &[(&str, &[u8])]) {
    let mut archive = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, bytes) in parts {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap();
}

/// What is said of a file that cannot be read.
fn refused(path: &Path) -> String {
    let output = run(path, &[]);
    assert_eq!(output.status.code(), Some(2), "{path:?}");
    String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap()
}

const HEADER: &[&str] = &["row_id", "cardholder", "type", "currency", "metadata[x]"];

#[test]
fn cells_are_what_they_show_and_texts_stay_texts() {
    let directory = tempfile::tempdir().unwrap();
    let of_sheet = saved(directory.path(), "cards.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        texts(sheet, &[HEADER]);
        let zeros = Format::new().set_num_format("00000");
        let day = Format::new().set_num_format("yyyy-mm-dd");
        sheet.write_number_with_format(1, 0, 2138.0, &zeros).unwrap();
        sheet.write_string(2, 0, "0042").unwrap();
        sheet.write_number(3, 0, 491_711_234_567.0).unwrap();
        // Row 5 is blank, and so is a cell with nothing but a format.
        sheet.write_blank(4, 0, &zeros).unwrap();
        sheet.write_number(5, 0, 1.5).unwrap();
        for row in [1, 2, 3, 5] {
            for (column, text) in [(1, "ich_1"), (2, "virtual"), (3, "eur")] {
                sheet.write_string(row, column, text).unwrap();
            }
        }
        let date = ExcelDateTime::from_ymd(2026, 3, 1).unwrap();
        sheet.write_datetime_with_format(1, 4, &date, &day).unwrap();
        sheet.write_boolean(2, 4, true).unwrap();
        sheet.write_string(3, 4, "two\nlines").unwrap();
        sheet.write_formula(5, 4, Formula::new("=1+1").set_result("2")).unwrap();
    });
    let csv = directory.path().join("same.csv");
    let text = "row_id,cardholder,type,currency,metadata[x]\n02138,ich_1,virtual,eur,2026-03-01\n\
                0042,ich_1,virtual,eur,true\n491711234567,ich_1,virtual,eur,two lines\n,\n1.5,ich_1,virtual,eur,2\n";
    std::fs::write(&csv, text).unwrap();
    let rows = |path: &Path| {
        let snapshot = embosser::manifest::snapshot::Snapshot::of(path, &Default::default()).unwrap();
        let manifest = embosser::manifest::Manifest::open_held(snapshot, &Default::default()).unwrap();
        let rows = manifest.rows().unwrap().map(|row| row.unwrap());
        rows.map(|row| (row.line, row.row_id.clone(), row.request.to_json())).collect::<Vec<_>>()
    };
    assert_eq!(rows(&of_sheet), rows(&csv));
    assert_eq!(rows(&csv).len(), 4);
    // As LibreOffice saves the same for older programs and its own.
    for ending in ["xls", "ods"] {
        let saved = converted(directory.path(), &of_sheet, "", ending);
        assert_eq!(rows(&saved), rows(&csv), "{ending}");
    }
}

/// What is in a file and not in its rows is told, and where.
#[test]
fn what_a_sheet_has_beside_its_rows_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let row: &[&str] = &["1", "ich_1", "virtual", "eur", "a"];
    let notes = |path: &Path| {
        let output = run(path, &[]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let titled = saved(directory.path(), "titled.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        sheet.merge_range(0, 0, 0, 4, "Card rollout 2026", &Format::new()).unwrap();
        texts(sheet, &[&["Card rollout 2026"], &[], HEADER, row, &["2", "ich_1", "virtual", "eur", ""]]);
        sheet.merge_range(4, 4, 4, 5, "", &Format::new()).unwrap();
    });
    for path in [
        titled.clone(),
        converted(directory.path(), &titled, "", "xls"),
        converted(directory.path(), &titled, "", "ods"),
    ] {
        let said = notes(&path);
        assert!(said.starts_with("2 rows: "), "{said}");
        assert!(said.contains("headings on line 3, and what stands above them left out"), "{said}");
        assert!(said.contains("merged cells E5:F5, of which E5 alone has what is in them"), "{said}");
        assert!(!said.contains("macros"), "{said}");
    }

    let macros = directory.path().join("macros.xlsm");
    rewrite_adding(&titled, &macros, Some("xl/vbaProject.bin"), "", |part| part);
    assert!(notes(&macros).contains("its macros were not run"), "{}", notes(&macros));

    let full = saved(directory.path(), "full.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        texts(sheet, &[HEADER, row]);
        let last = ["2", "ich_1", "virtuel", "eur"];
        (0..).zip(last).for_each(|(column, cell)| {
            sheet.write_string(1_048_575, column, cell).unwrap();
        });
    });
    let (verdict, code) = run_json(&full);
    assert_eq!((code, &verdict["rows"], &verdict["problems"][0]["line"]), (2, &json!(2), &json!(1_048_576)));
    let said = verdict["notes"].to_string();
    assert!(
        said.contains("1048573 blank rows left out")
            && said.contains("row 1048576 is the last that a sheet can have"),
        "{said}"
    );
}

#[test]
fn problems_stand_on_the_sheets_own_lines() {
    let directory = tempfile::tempdir().unwrap();
    let rows: &[&[&str]] = &[
        &[],
        HEADER,
        &["1", "ich_1", "virtual", "eur", ""],
        &[],
        &["1", "ich_1", "virtual", "eur", ""],
        &["3", "ich_1", "virtuel", "euro", "a,\"b\";c"],
    ];
    let of_sheet = saved(directory.path(), "a.xlsx", |workbook| texts(workbook.add_worksheet(), rows));
    let csv = directory.path().join("a.csv");
    let mut writer = csv::WriterBuilder::new().flexible(true).from_path(&csv).unwrap();
    for row in rows {
        writer.write_record(if row.is_empty() { &["", "", "", "", ""] } else { *row }).unwrap();
    }
    drop(writer);
    let verdict_of = |path: &Path| {
        let (verdict, code) = run_json(path);
        (verdict["problems"].clone(), verdict["rows"].clone(), verdict["invalid_rows"].clone(), code)
    };
    let lines: Vec<_> =
        verdict_of(&csv).0.as_array().unwrap().iter().map(|problem| problem["line"].clone()).collect();
    // What rows are beside each other is found once all of them were read.
    assert_eq!(lines, [json!(6), json!(6), json!(5)]);
    assert_eq!(verdict_of(&of_sheet), verdict_of(&csv));
}

#[test]
fn the_first_sheet_that_is_shown_is_read_or_the_one_that_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(directory.path(), "a.xlsx", |workbook| {
        texts(workbook.add_worksheet().set_name("Notes").unwrap().set_hidden(true), &[&["nothing"]]);
        texts(
            workbook.add_worksheet().set_name("Cards").unwrap().set_active(true),
            &[HEADER, &["1", "ich_1", "virtual", "eur", ""]],
        );
        texts(
            workbook.add_worksheet().set_name("Zwei").unwrap(),
            &[HEADER, &["1", "ich_1", "virtual", "eur", ""], &["2", "ich_2", "virtual", "eur", ""]],
        );
    });
    let said = |arguments: &[&str]| {
        let output = run(&path, arguments);
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&[]).contains("\n1 row: ") && said(&[]).contains("sheet \"Cards\""), "{}", said(&[]));
    assert!(said(&["--sheet", "Zwei"]).starts_with("2 rows: "));
    assert!(said(&["--sheet", "Drei"]).contains("no sheet \"Drei\", but \"Notes\", \"Cards\", \"Zwei\""));
}

#[test]
fn what_cannot_be_read_is_said_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let row: &[&str] = &["1", "ich_1", "virtual", "eur", ""];
    let formula = saved(directory.path(), "formula.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        texts(sheet, &[HEADER, row]);
        sheet.write_formula(1, 4, Formula::new("=A2")).unwrap();
    });
    // As programs save a formula that they did not calculate.
    let uncalculated = directory.path().join("uncalculated.xlsx");
    rewrite(&formula, &uncalculated, "xl/worksheets/sheet1.xml", |part| {
        part.replace("<f>A2</f><v>0</v>", "<f>A2</f>")
    });
    assert!(refused(&uncalculated).contains("cell E2 holds a formula that was never calculated"));

    // One that comes to no text at all is calculated, and its cell is empty.
    let nothing = directory.path().join("nothing.xlsx");
    rewrite(&formula, &nothing, "xl/worksheets/sheet1.xml", |part| {
        part.replace("<c r=\"E2\"><f>A2</f><v>0</v>", "<c r=\"E2\" t=\"str\"><f>A2</f><v></v>")
    });
    assert_eq!(run_json(&nothing).1, 0);

    let merged = saved(directory.path(), "merged.xlsx", |workbook| {
        let sheet = workbook.add_worksheet();
        texts(sheet, &[HEADER, row, row]);
        sheet.merge_range(1, 3, 2, 3, "eur", &Format::new()).unwrap();
    });
    for path in [
        merged.clone(),
        converted(directory.path(), &merged, "", "xls"),
        converted(directory.path(), &merged, "", "ods"),
    ] {
        assert!(refused(&path).contains("the cells D2:D3 are merged"), "{}", refused(&path));
    }
    let of_ods = converted(directory.path(), &formula, "", "ods");
    let uncalculated = directory.path().join("uncalculated.ods");
    rewrite(&of_ods, &uncalculated, "content.xml", |part| {
        let (before, cell) = part.split_once("table:formula=").unwrap();
        let (formula, rest) =
            (&cell[..=cell[1..].find('"').unwrap() + 1], &cell[cell.find("</table:table-cell>").unwrap()..]);
        format!("{before}table:formula={formula}>{rest}")
    });
    assert!(
        refused(&uncalculated).contains("cell E2 holds a formula that was never calculated"),
        "{}",
        refused(&uncalculated)
    );

    let cut = directory.path().join("cut.xlsx");
    let bytes = std::fs::read(&merged).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refused(&cut).contains("damaged"), "{}", refused(&cut));

    let other = directory.path().join("pictures.zip");
    archive(&other, &[("a.txt", b"a")]);
    assert!(refused(&other).contains("archive and no spreadsheet"));
    // Whatever their names say, people are told what their files are.
    for (name, part, content, said) in [
        ("letter.xlsx", "word/document.xml", &b"a"[..], "is a Word document and no spreadsheet"),
        ("slides.xlsx", "ppt/presentation.xml", b"a", "is a presentation and no spreadsheet"),
        ("sheet.xlsx", "Index/Document.iwa", b"a", "File, Export To, Excel"),
    ] {
        let other = directory.path().join(name);
        archive(&other, &[(part, content)]);
        assert!(refused(&other).contains(said), "{}", refused(&other));
    }
    let letter = directory.path().join("letter.ods");
    archive(&letter, &[("mimetype", b"application/vnd.oasis.opendocument.text"), ("content.xml", b"a")]);
    assert!(refused(&letter).contains("is a text document and no spreadsheet"), "{}", refused(&letter));
    let printed = directory.path().join("printed.xlsx");
    std::fs::write(&printed, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n").unwrap();
    assert!(refused(&printed).contains("is a PDF and no spreadsheet"), "{}", refused(&printed));
    let binary = directory.path().join("b.xlsb");
    archive(&binary, &[("xl/workbook.bin", b"a")]);
    assert!(refused(&binary).contains("save it as .xlsx"));

    let locked = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/xlsx with a password.xlsx");
    assert!(refused(&locked).contains("has a password"), "{}", refused(&locked));
}

/// Small files that unpack to far more than any machine has, or would.
#[test]
fn a_bomb_is_refused_before_it_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let good = saved(directory.path(), "a.xlsx", |workbook| {
        texts(workbook.add_worksheet(), &[HEADER, &["1", "ich_1", "virtual", "eur", "a"]]);
    });
    let strings = directory.path().join("strings.xlsx");
    rewrite(&good, &strings, "xl/sharedStrings.xml", |part| {
        part.replacen("<si>", &format!("<si><t>{}</t></si><si>", " ".repeat(257 << 20)), 1)
    });
    assert!(std::fs::metadata(&strings).unwrap().len() < 1 << 20);
    assert!(refused(&strings).contains("unpacks to more"), "{}", refused(&strings));

    let entities = directory.path().join("entities.xlsx");
    rewrite(&good, &entities, "xl/sharedStrings.xml", |part| {
        let lol: String = (1..10).fold("<!ENTITY e0 \"lollollol\">".to_owned(), |all, level| {
            let ten = format!("&e{};", level - 1).repeat(10);
            format!("{all}<!ENTITY e{level} \"{ten}\">")
        });
        let part = part.replace("?>", &format!("?><!DOCTYPE sst [{lol}]>"));
        part.replacen("virtual", "&e9;", 1)
    });
    // An entity of its own is no value: nothing is put in its place.
    let output = run(&entities, &["--format", "json"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(output.stdout.len() < 10_000 && output.stderr.len() < 10_000);

    let repeated = directory.path().join("repeated.ods");
    let content = r#"<office:document-content xmlns:office="o" xmlns:table="t" xmlns:text="x"><office:body><office:spreadsheet>
        <table:table table:name="A"><table:table-row table:number-rows-repeated="1000000"><table:table-cell
        table:number-columns-repeated="16000" office:value-type="string"><text:p>a</text:p></table:table-cell></table:table-row>
        </table:table></office:spreadsheet></office:body></office:document-content>"#;
    archive(
        &repeated,
        &[
            ("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"),
            ("content.xml", content.as_bytes()),
        ],
    );
    assert!(refused(&repeated).contains("unpacks to more"), "{}", refused(&repeated));
}

/// Whoever reads a table makes room for all that stands before a cell: a few bytes would take a machine's memory.
#[test]
fn a_file_that_claims_more_than_a_sheet_can_have_is_refused_before_there_is_room_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let good = saved(directory.path(), "a.xlsx", |workbook| {
        texts(workbook.add_worksheet(), &[HEADER, &["1", "ich_1", "virtual", "eur", "a"]]);
    });
    let damaged = directory.path().join("damaged.xlsx");
    for (part, from, to, said) in [
        ("xl/worksheets/sheet1.xml", "\"E2\"", "\"ZZZZZZ2\"", "a cell ZZZZZZ2, and no sheet is as large"),
        ("xl/worksheets/sheet1.xml", "\"E2\"", "\"XFE2\"", "a cell XFE2, and no sheet is as large"),
        ("xl/worksheets/sheet1.xml", "<row r=\"2\"", "<row r=\"4294967295\"", "and no sheet is as large"),
        (
            "xl/sharedStrings.xml",
            "uniqueCount=\"10\"",
            "uniqueCount=\"99999999999\"",
            "says that it has 99999999999 texts",
        ),
    ] {
        rewrite(&good, &damaged, part, |part| {
            assert!(part.contains(from), "{part}");
            let part =
                part.replace("r=\"E2\"", if from.contains("row") { "r=\"E4294967295\"" } else { "r=\"E2\"" });
            part.replace(from, to)
        });
        assert!(refused(&damaged).contains(said), "{from}: {}", refused(&damaged));
    }
    // Of the older format: the size that the sheet says it has, and the place of a cell.
    let good = std::fs::read(converted(directory.path(), &good, "", "xls")).unwrap();
    let damaged = directory.path().join("damaged.xls");
    let dimensions = [0, 2, 14, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 5, 0];
    let cell = [0xfd, 0, 10, 0, 1, 0, 4, 0];
    for (record, at, bytes) in [(&dimensions[..], 8, [0xff; 4]), (&cell, 4, [0, 0xff, 0, 0xff])] {
        let found =
            good.windows(record.len()).position(|window| window == record).expect("the record is there");
        let mut file = good.clone();
        file[found + at..found + at + 4].copy_from_slice(&bytes);
        std::fs::write(&damaged, file).unwrap();
        assert!(refused(&damaged).contains("and no sheet is as large"), "{}", refused(&damaged));
    }
    // One whose container cannot be looked through is not looked at any further.
    let mut file = good;
    file[48..52].copy_from_slice(&[0xee; 4]);
    std::fs::write(&damaged, file).unwrap();
    assert!(refused(&damaged).contains("damaged"), "{}", refused(&damaged));
}

/// The same archive with a part changed.
fn rewrite(from: &Path, to: &Path, part: &str, change: impl Fn(String) -> String) {
    rewrite_adding(from, to, None, part, change);
}

/// The same archive with one part more, and another changed.
fn rewrite_adding(from: &Path, to: &Path, more: Option<&str>, part: &str, change: impl Fn(String) -> String) {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(from).unwrap()).unwrap();
    let mut written = zip::ZipWriter::new(std::fs::File::create(to).unwrap());
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if name == part {
            bytes = change(String::from_utf8(bytes).unwrap()).into_bytes();
        }
        written.start_file(&name, SimpleFileOptions::default()).unwrap();
        written.write_all(&bytes).unwrap();
    }
    if let Some(name) = more {
        written.start_file(name, SimpleFileOptions::default()).unwrap();
        written.write_all(b"macros").unwrap();
    }
    written.finish().unwrap();
}

/// Checked, issued and issued again, over HTTP.
#[tokio::test]
async fn a_spreadsheet_is_uploaded_as_a_csv_is() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let file = directory.path().join("staff.csv");
    let expected = support::write_manifest(&file, &sandbox, 40).await;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(&file).unwrap();
    let rows: Vec<Vec<String>> =
        reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
    let of_sheet = saved(directory.path(), "staff.xlsx", |workbook| {
        let rows: Vec<Vec<&str>> = rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
        texts(workbook.add_worksheet(), &rows);
    });
    let bytes = std::fs::read(&of_sheet).unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "200"]);
    let post = async |path: &str, bytes: Vec<u8>| {
        served.ask(reqwest::Method::POST, path, &[("content-type", XLSX)], bytes).await
    };
    let check: Value = post("/v1/checks", bytes.clone()).await.expect(200).json();
    assert_eq!((&check["rows"], &check["virtual"]), (&json!(40), &json!(40)));
    assert!(check["notes"][0].as_str().unwrap().contains("sheet \"Sheet1\""), "{check}");
    for _ in 0..2 {
        post("/v1/batches?name=staff", bytes.clone()).await.expect(202);
        assert_eq!(served.until_ended("staff").await["issued"], json!(40));
    }
    support::one_card_each(&sandbox.account(), &expected);
    let cut = post("/v1/checks", bytes[..bytes.len() / 2].to_vec()).await.expect(422).json();
    assert!(cut["detail"].as_str().unwrap().contains("damaged"), "{cut}");
    post("/v1/checks?sheet=nix", bytes.clone()).await.expect(422);
    post("/v1/checks?delimiter=x", bytes).await.expect(400);
}
