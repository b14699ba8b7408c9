//! Promise: files as people have them get the verdict that they deserve, from the program, over HTTP and as spreadsheets alike.

use crate::support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embosser::sandbox::{Options, Sandbox};
use rust_xlsxwriter::Workbook;
use serde_json::Value;
use support::Program;
use support::serve::Served;
use support::verdict::run_json;

/// Each file, and what is to be said of it.
fn files() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let verdicts = std::fs::read_to_string(folder.join("verdicts.txt")).unwrap();
    let mut expected: BTreeMap<&str, &str> =
        verdicts.lines().map(|line| line.split_once(" | ").unwrap()).collect();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !matches!(name.as_str(), "verdicts.txt" | "README.md") {
            let verdict = expected.remove(name.as_str()).unwrap_or_else(|| panic!("no verdict on {name}"));
            files.push((folder.join(&name), verdict.to_owned()));
        }
    }
    assert!(expected.is_empty(), "files are missing: {expected:?}");
    assert!(files.len() >= 60, "{}", files.len());
    files
}

/// A list of problems and warnings as a verdict has them.
fn rendered<'v>(problems: impl IntoIterator<Item = &'v Value>) -> Vec<String> {
    let render = |problem: &Value| {
        let mark = if problem["severity"] == "warning" { "?" } else { "" };
        let [column, code] = ["column", "code"].map(|part| problem[part].as_str().unwrap());
        format!("{mark}{}:{column}:{code}", problem["line"])
    };
    problems.into_iter().map(render).collect()
}

/// What the program says of a file.
fn verdict(path: &Path) -> String {
    let (json, code) = run_json(path);
    assert_eq!(json["valid"] == true, code == 0, "{path:?}");
    let word = if code == 0 { "good" } else { "bad" };
    let problems = rendered(["problems", "warnings"].iter().flat_map(|list| json[list].as_array().unwrap()));
    [vec![format!("{word} {}", json["rows"])], problems].concat().join(" ")
}

#[test]
fn the_program_says_what_is_wrong_with_each() {
    for (path, expected) in files() {
        assert_eq!(verdict(&path), expected, "{path:?}");
    }
}

#[tokio::test]
async fn over_http_the_same_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    for (path, expected) in files() {
        let answer = served.upload("/v1/checks", std::fs::read(&path).unwrap()).await;
        let good = expected.starts_with("good");
        assert_eq!(answer.status.as_u16(), if good { 200 } else { 422 }, "{path:?}: {}", answer.text);
        let json = answer.json();
        let lists = ["problems", "warnings"].map(|list| json[list].as_array().cloned().unwrap_or_default());
        let mut said = rendered(lists.iter().flatten());
        let mut wanted: Vec<String> = expected.split(' ').skip(2).map(str::to_owned).collect();
        // Columns have blanks in their names.
        (said, wanted) = ([said.join(" ")].into(), [wanted.join(" ")].into());
        if wanted[0].contains("not_a_manifest") {
            // What is no table at all has no line: it is told in the answer's own words.
            assert!(!json["detail"].as_str().unwrap().is_empty() && said[0].is_empty(), "{path:?}");
        } else {
            let sorted = |text: &str| {
                let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
                words.sort();
                words
            };
            assert_eq!(sorted(&said[0]), sorted(&wanted[0]), "{path:?}");
        }
    }
}

/// What can be wrong with a text and not with a sheet.
const OF_TEXT: [&str; 6] = ["quote_open", "quote_astray", "not_utf8", "cut off", "empty.csv", "a picture"];

#[test]
fn as_a_spreadsheet_each_has_the_verdict_that_it_has_as_text() {
    let directory = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for (path, expected) in files() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let of_text = OF_TEXT.iter().any(|what| expected.contains(what) || name.contains(what));
        if path.extension().is_none_or(|extension| extension != "csv") || of_text {
            continue;
        }
        let Ok(text) = String::from_utf8(std::fs::read(&path).unwrap()) else { continue };
        let Some(rows) = rows_of(&text) else { continue };
        let mut workbook = Workbook::new();
        let sheet = workbook.add_worksheet();
        for (line, cells) in rows {
            for (column, cell) in (0..).zip(cells) {
                sheet.write_string(line - 1, column, cell).unwrap();
            }
        }
        let as_sheet = directory.path().join("a.xlsx");
        workbook.save(&as_sheet).unwrap();
        assert_eq!(verdict(&as_sheet), expected, "{name}");
        compared += 1;
    }
    assert!(compared >= 45, "{compared}");
}

/// The cells of a text with commas, each row with its line; none if it is of another kind.
fn rows_of(text: &str) -> Option<Vec<(u32, Vec<String>)>> {
    // The csv crate counts the lines of LF alone.
    let text = &text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    if text.contains("sep=") || text.lines().take(4).any(|line| line.contains([';', '|', '\t'])) {
        return None;
    }
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let line = u32::try_from(row.position().unwrap().line()).unwrap();
        (line, row.iter().map(str::to_owned).collect())
    });
    Some(rows.collect())
}
