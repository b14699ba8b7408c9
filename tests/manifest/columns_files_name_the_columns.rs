//! Promise: with a columns file, a manifest with headings of its own is the manifest that Stripe's names would make it, and
//! whatever is wrong is told in the headings of its file.

use crate::support;

use std::path::{Path, PathBuf};

use embosser::sandbox::{Options, Sandbox};
use serde_json::Value;
use support::serve::Served;
use support::verdict::{jwe, run, run_json_with};
use support::{Program, expect_exit};

const COLUMNS: &str = r#"
[columns]
"Personal-Nr." = "row_id"
"Name" = "cardholder[name]"
"E-Mail" = "cardholder[email]"
"Straße" = "cardholder[billing][address][line1]"
"PLZ" = "cardholder[billing][address][postal_code]"
"Ort" = "cardholder[billing][address][city]"
"Land" = "cardholder[billing][address][country]"
"Karte" = "type"
"Abteilung" = "metadata[department]"
"Gehalt" = ""

[defaults]
currency = "eur"
status = "active"
"spending_controls[spending_limits][0][amount]" = 50000
"spending_controls[spending_limits][0][interval]" = "monthly"
"cardholder[billing][address][country]" = "DE"

[values.type]
"Plastik" = "physical"
"nur online" = "virtual"

[values."metadata[department]"]
"Vertrieb" = "Sales"

[values."cardholder[billing][address][country]"]
"Österreich" = "AT"
"#;

/// As people write it, and what it means.
const THEIRS: &str = "Personal-Nr.;Name;E-Mail;Straße;PLZ;Ort;Land;Karte;Abteilung;Gehalt;\n\
    E1;Jürgen Weiß;j@example.com;Weg 1;10115;Berlin;;Nur Online;Vertrieb;5000;\n\
    ;;;;;;;;;;\n\
    E2;Eva Süß;e@example.com;Gasse 2;1010;Wien;österreich;virtual;Einkauf;;\n";
const MEANT: &str = "row_id,cardholder[name],cardholder[email],cardholder[billing][address][line1],\
    cardholder[billing][address][postal_code],cardholder[billing][address][city],\
    cardholder[billing][address][country],type,metadata[department],currency,status,\
    spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval]\n\
    E1,Jürgen Weiß,j@example.com,Weg 1,10115,Berlin,DE,virtual,Sales,eur,active,50000,monthly\n\
    E2,Eva Süß,e@example.com,Gasse 2,1010,Wien,AT,virtual,Einkauf,eur,active,50000,monthly\n";

fn windows_1252(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for letter in text.chars() {
        bytes.push(u8::try_from(u32::from(letter)).unwrap());
    }
    bytes
}

fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Line, column and code of each problem.
fn told(verdict: &Value, kind: &str) -> Vec<(u64, String, String)> {
    let text = |problem: &Value, member: &str| problem[member].as_str().unwrap().to_owned();
    let told = verdict[kind].as_array().unwrap().iter();
    told.map(|found| (found["line"].as_u64().unwrap(), text(found, "column"), text(found, "code"))).collect()
}

fn check(manifest: &str, columns: &str) -> (Value, i32) {
    let directory = tempfile::tempdir().unwrap();
    let columns = write(directory.path(), "columns.toml", columns);
    let manifest = write(directory.path(), "staff.csv", manifest);
    run_json_with(&manifest, &["--columns", columns.to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn people_in_their_own_words_get_the_cards_that_stripes_names_would_give_them() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    write(directory.path(), "staff.csv", windows_1252(THEIRS));
    write(directory.path(), "plain.csv", MEANT);
    write(directory.path(), "columns.toml", COLUMNS);
    let issue = async |file: &str| program.run(&["issue", file, "--columns", "columns.toml"]).await;
    expect_exit(&issue("staff.csv").await, 0);
    let account = sandbox.account();
    let emails: Vec<&str> = account.cardholders.iter().filter_map(|made| made.email.as_deref()).collect();
    assert_eq!((account.cards.len(), account.cardholders.len()), (2, 2), "{emails:?}");
    assert!(emails.contains(&"j@example.com") && emails.contains(&"e@example.com"), "{emails:?}");
    // Again: nothing new. And as Stripe's names have it: the same requests, so that nobody gets a second card.
    expect_exit(&issue("staff.csv").await, 0);
    let output = program.run(&["issue", "plain.csv"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("issued before"), "{said}");
    assert_eq!(sandbox.account().cards.len(), 2);
    let results = std::fs::read_to_string(directory.path().join("staff.results.csv")).unwrap();
    assert!(results.contains("E1,") && results.contains("E2,"), "{results}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_names_a_columns_file_of_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let folder = directory.path().join("columns");
    std::fs::create_dir(&folder).unwrap();
    write(&folder, "staff.toml", COLUMNS);
    write(&folder, "broken.toml", "[columns]\nA = 1\n");
    write(directory.path(), "secret.toml", COLUMNS);
    let program = Program::new(directory.path(), &sandbox);
    let without = Served::start(&program, &[]);
    let answer = without.upload("/v1/checks?columns=staff", THEIRS.into()).await.expect(400);
    assert!(answer.text.contains("columns_directory"), "{}", answer.text);
    assert_eq!(without.get("/v1/server").await.expect(200).json()["columns"], serde_json::json!([]));
    drop(without);
    let program = program.with("EMBOSSER__HTTP__COLUMNS_DIRECTORY", folder.to_str().unwrap());
    // What is no file would be waited for without end.
    let pipe = std::process::Command::new("mkfifo").arg(folder.join("pipe.toml")).status().unwrap();
    assert!(pipe.success());
    let served = Served::start(&program, &[]);
    let names = &served.get("/v1/server").await.expect(200).json()["columns"];
    assert_eq!(*names, serde_json::json!(["broken", "staff"]));
    let report = served.upload("/v1/checks?columns=staff", windows_1252(THEIRS)).await.expect(200).json();
    assert_eq!((&report["rows"], &report["cardholders"]), (&2.into(), &2.into()), "{report}");
    for (name, said) in [
        ("other", "there are: broken, staff"),
        ("..%2Fsecret", "there are: broken, staff"),
        ("", "there are: broken, staff"),
        ("broken", "line 2"),
    ] {
        let answer = served.upload(&format!("/v1/checks?columns={name}"), THEIRS.into()).await.expect(400);
        assert!(answer.text.contains(said), "{name}: {}", answer.text);
    }
    let wrong = THEIRS.replace("Nur Online", "Holz");
    let answer = served.upload("/v1/checks?columns=staff", wrong.into()).await.expect(422).json();
    assert_eq!(told(&answer, "problems"), [(2, "Karte".to_owned(), "not_allowed".to_owned())]);
    let reason = answer["problems"][0]["reason"].as_str().unwrap();
    assert!(reason.ends_with("under [values.\"type\"]"), "{reason}");
    served.upload("/v1/batches?name=staff&columns=staff", windows_1252(THEIRS)).await.expect(202);
    assert_eq!(served.until_ended("staff").await["issued"], 2);
    assert_eq!(sandbox.account().cards.len(), 2);
}

#[test]
fn what_is_wrong_in_rows_is_told_in_the_files_headings() {
    let rows = "Personal-Nr.;Name;E-Mail;Straße;PLZ;Ort;Land;Karte;Abteilung;Gehalt;\n\
        E1;Ana;a@example.com;Weg 1;10115;Berlin;Deutschland;Plastik;x;;\n\
        E1;Eva;e@example.com;#N/A;10115;Berlin;;virtual;;;\n\
        E2;Eva;e@example.com;Weg;10115;Berlin\n\
        E3;Eva;e@example.com;Weg;10115;Berlin;;virtual;;;;x\n\
        e1;Ida;i@example.com;Weg 3;10115;Berlin;;virtual;;;\n";
    let (verdict, exit) = check(rows, COLUMNS);
    assert_eq!(exit, 2);
    let problems = told(&verdict, "problems");
    let expected = [
        (2, "Land", "country"),
        (3, "Straße", "formula_failed"),
        (3, "Personal-Nr.", "duplicate_row_id"),
        (4, "", "cell_count"),
        (5, "", "cell_count"),
    ];
    for (line, column, code) in expected {
        assert!(
            problems.contains(&(line, column.to_owned(), code.to_owned())),
            "{line} {code}: {problems:?}"
        );
    }
    let warnings = told(&verdict, "warnings");
    assert!(warnings.contains(&(6, "Personal-Nr.".to_owned(), "near_row_id".to_owned())), "{warnings:?}");
}

#[test]
fn what_is_wrong_between_the_two_files_is_told_before_any_row() {
    let header = "Nr;Art;Währung;Nebenbei\n1;virtual;eur;x\n";
    let with = |columns: &str| {
        let (verdict, exit) = check(header, columns);
        assert_eq!(exit, 2, "{columns}: {verdict}");
        told(&verdict, "problems")
            .into_iter()
            .map(|(_, column, code)| format!("{column} {code}"))
            .collect::<Vec<_>>()
    };
    let good = "[columns]\nNr = 'row_id'\nArt = 'type'\n'Währung' = 'currency'\nNebenbei = ''\n";
    assert_eq!(check(header, good).1, 0);
    for (columns, expected) in [
        (good.replace("Nebenbei = ''\n", ""), "Nebenbei unknown_parameter"),
        (good.replace("'type'", "'typ'"), "Art unknown_parameter"),
        (good.replace("''", "'metadata[a]'").replace("Nebenbei", "Nebenher"), "Nebenher missing_heading"),
        (good.replace("''", "'metadata[]'"), "Nebenbei metadata_key"),
        (format!("{good}[defaults]\ncolour = 'red'\n"), "colour unknown_parameter"),
        (format!("{good}[defaults]\nstatus = 'on'\n"), "status not_allowed"),
        (format!("{good}[values.type]\nKarte = 'plastic'\n"), "Art not_allowed"),
        (format!("{good}[values.colour]\nrot = 'red'\n"), "colour unknown_column"),
        (good.replace("'currency'", "''"), "currency missing_column"),
    ] {
        let told = with(&columns);
        assert!(told.iter().any(|told| told == expected), "{columns}: {told:?}");
    }
    // One column from a heading of that name, and from another.
    let (verdict, _) = check("type,Art,currency\nvirtual,virtual,eur\n", "[columns]\nArt = 'type'\n");
    assert_eq!(told(&verdict, "problems"), [(1, "Art".to_owned(), "duplicate_column".to_owned())]);
    // A default may be one of the words.
    let words = format!("{good}[defaults]\nstatus = 'An'\n[values.status]\nan = 'active'\n");
    assert_eq!(check(header, &words).1, 0);
    // A default makes a column that is missing.
    assert_eq!(check("type\nvirtual\n", "[defaults]\ncurrency = 'eur'\n").1, 0);
}

#[test]
fn a_columns_file_that_is_wrong_is_told_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = write(directory.path(), "staff.csv", "type,currency\nvirtual,eur\n");
    for (columns, said) in [
        ("[columns]\nA = 1\n", "line 2"),
        ("[column]\nA = 'type'\n", "there are the tables"),
        ("[defaults]\nrow_id = '1'\n", "each row needs its own"),
    ] {
        let columns = write(directory.path(), "columns.toml", columns);
        let output = run(&manifest, &["--columns", columns.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
    let output = run(&manifest, &["--columns", "nowhere.toml"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.toml"));
}

#[test]
fn what_is_left_out_can_hold_anything() {
    let good = "type,Bemerkung,currency\nvirtual,x,eur\n";
    for cell in [&b"a\xff\xc3\xa4"[..], b"M\xc3\x83\xc2\xbcller", b"#N/A", &[b'x'; 30_000]] {
        let manifest = [good.as_bytes(), b"virtual,", cell, b",eur\n"].concat();
        let directory = tempfile::tempdir().unwrap();
        let manifest = write(directory.path(), "staff.csv", manifest);
        let columns = write(directory.path(), "columns.toml", "[columns]\nBemerkung = ''\n");
        let (verdict, exit) = run_json_with(&manifest, &["--columns", columns.to_str().unwrap()]);
        assert_eq!((exit, &verdict["warning_count"]), (0, &0.into()), "{verdict}");
    }
}

/// A default that goes with no row is told for what it is, whether or not the file has the column.
#[test]
fn a_default_that_is_wrong_for_a_row_is_told_as_the_default() {
    let defaults = "[defaults]\n'exp_year' = 2020\n'exp_month' = 5\n";
    for header in ["exp_year", "metadata[a]"] {
        let manifest = format!("row_id,type,currency,{header}\n1,virtual,eur,\n2,virtual,eur,2020\n");
        let (verdict, _) = check(&manifest, defaults);
        let told: Vec<_> = verdict["problems"].as_array().unwrap().iter().collect();
        assert_eq!(told.len(), 2, "{verdict}");
        for (problem, is_default) in told.iter().zip([true, header != "exp_year"]) {
            assert_eq!(problem["column"], "exp_year");
            let reason = problem["reason"].as_str().unwrap();
            assert_eq!(reason.contains("; it is a default of the columns file"), is_default, "{verdict}");
        }
    }
}

/// A letter is the beginning of many names, and no guess at any.
#[test]
fn a_heading_of_one_letter_is_taken_for_no_column() {
    let directory = tempfile::tempdir().unwrap();
    let letters: Vec<String> = ('A'..='Z').map(String::from).collect();
    let manifest = format!("row_id,{}\n1,{}\n", letters.join(","), letters.join(","));
    let manifest = write(directory.path(), "staff.csv", manifest);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_embosser"));
    let proposed = String::from_utf8(command.arg("columns").arg(&manifest).output().unwrap().stdout).unwrap();
    for letter in &letters {
        assert!(proposed.contains(&format!("\"{letter}\" = \"\" # left out")), "{proposed}");
    }
    let (verdict, _) = run_json_with(&manifest, &[]);
    let of_letters =
        told(&verdict, "problems").into_iter().filter(|(_, column, _)| column.len() == 1).count();
    assert_eq!(of_letters, letters.len());
    let suggested =
        verdict["problems"].as_array().unwrap().iter().filter(|problem| !problem["suggestion"].is_null());
    assert_eq!(suggested.count(), 0, "{verdict}");
}

#[test]
fn pins_in_the_clear_get_in_under_no_heading() {
    for (columns, clear) in [
        ("[columns]\nPIN = 'metadata[a]'\n", true),
        ("[columns]\nPIN = ''\n", true),
        ("[columns]\nPIN = 'pin[number]'\n", true),
        ("[columns]\nPIN = 'pin[encrypted_number]'\n", false),
        ("[columns]\nPIN = 'metadata[pin]'\n", true),
        ("[columns]\nPIN = 'pin[choose]'\n", true),
        ("[columns]\nPIN = 'pin[encrypted_number]'\ntype = '4711'\n", true),
        ("[columns]\nPIN = 'pin[encrypted_number]'\n[defaults]\nstatus = '4711'\n", true),
    ] {
        let manifest =
            format!("type,currency,PIN\nvirtual,eur,{}\n", if clear { "4711".to_owned() } else { jwe() });
        let (verdict, exit) = check(&manifest, columns);
        assert_eq!(exit, if clear { 2 } else { 0 }, "{columns}: {verdict}");
        assert!(!verdict.to_string().contains("4711"), "{verdict}");
    }
}

/// A manifest with headings, words and gaps of its own, and the same as Stripe's names have it.
#[test]
fn the_verdict_on_many_rows_is_that_on_what_they_mean() {
    let (mut theirs, mut meant) =
        ("Nr,Art,PIN,Geld\n".to_owned(), "row_id,type,pin[encrypted_number],currency\n".to_owned());
    let jwe = jwe();
    for row in 0..20_000 {
        let (art, kind) =
            [("Karte", "virtual"), ("virtual", "virtual"), ("KARTE ", "virtual"), ("Holz", "Holz")]
                [if row % 4999 == 7 { 3 } else { row % 3 }];
        let (geld, currency) = [("", "eur"), ("usd", "usd")][row % 2];
        let name = if row % 7001 == 9 { 1 } else { row };
        theirs += &format!("{name},{art},{jwe},{geld}\n");
        meant += &format!("{name},{kind},{jwe},{currency}\n");
    }
    let columns = "[columns]\nNr = 'row_id'\nArt = 'type'\nPIN = 'pin[encrypted_number]'\nGeld = 'currency'\n\
        [defaults]\ncurrency = 'eur'\n[values.type]\nKarte = 'virtual'\n";
    let (verdict, exit) = check(&theirs, columns);
    let directory = tempfile::tempdir().unwrap();
    let (plain, plain_exit) = run_json_with(&write(directory.path(), "staff.csv", meant), &[]);
    assert_eq!((exit, plain_exit), (2, 2));
    let place = |found: &(u64, String, String)| (found.0, found.2.clone());
    let [of_theirs, of_meant] = [&verdict, &plain].map(|verdict| told(verdict, "problems"));
    assert_eq!(
        of_theirs.iter().map(place).collect::<Vec<_>>(),
        of_meant.iter().map(place).collect::<Vec<_>>()
    );
    assert!(of_theirs.len() >= 6, "{of_theirs:?}");
    for count in ["rows", "pins", "invalid_rows", "virtual"] {
        assert_eq!(verdict[count], plain[count], "{count}");
    }
}

#[test]
fn a_columns_file_is_proposed_and_fits_once_it_was_looked_through() {
    let directory = tempfile::tempdir().unwrap();
    let manifest = write(directory.path(), "staff.csv", windows_1252(THEIRS));
    let propose = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_embosser"));
        let output = command.arg("columns").arg(&manifest).args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (made, text) = propose(&[]);
    assert!(made, "{text}");
    for line in [
        "\"Personal-Nr.\" = \"row_id\"",
        "\"Name\" = \"cardholder[name]\"",
        "\"E-Mail\" = \"cardholder[email]\"",
        "\"Straße\" = \"cardholder[billing][address][line1]\"",
        "\"PLZ\" = \"cardholder[billing][address][postal_code]\"",
        "\"Ort\" = \"cardholder[billing][address][city]\"",
        "\"Land\" = \"cardholder[billing][address][country]\"",
        "\"Abteilung\" = \"\" # left out; \"metadata[Abteilung]\" keeps it with the card",
        "\"Gehalt\" = \"\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // A person fills in the rest.
    let filled = text
        .replace("\"Karte\" = \"\"", "\"Karte\" = \"type\"")
        .replace("# type = \"physical\"\n", "")
        .replace("# currency", "currency")
        .replace(
            "# [values.type]\n# \"Plastic\" = \"physical\"",
            "[values.type]\n\"nur online\" = \"virtual\"",
        )
        + "[values.\"cardholder[billing][address][country]\"]\n\"Österreich\" = \"AT\"\n";
    let columns = write(
        directory.path(),
        "columns.toml",
        filled.replace("[defaults]\n", "[defaults]\n\"cardholder[billing][address][country]\" = \"DE\"\n"),
    );
    let output = run(&manifest, &["--columns", columns.to_str().unwrap()]);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), filled);
    // It is not written over.
    let (made, said) = propose(&["--output", columns.to_str().unwrap()]);
    assert!(!made && said.contains("exists"), "{said}");
    // Whatever a heading is, what is proposed can be read.
    let odd = "\"Personal\nNr.\",Name,Name,NAME,???,Geheimzahl,\"a\"\"b\"\n1,A,B,C,D,4711,x\n";
    let manifest = write(directory.path(), "staff.csv", odd);
    let (made, text) = propose(&[]);
    assert!(made && !text.contains("4711"), "{text}");
    assert!(text.contains("\"Personal Nr.\" = ") && text.contains("\"Name\" stands twice"), "{text}");
    assert!(text.contains("\"Geheimzahl\" = \"pin[encrypted_number]\""), "{text}");
    let columns = write(directory.path(), "odd.toml", &text);
    let output = run(&manifest, &["--columns", columns.to_str().unwrap()]);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("line 1, column Name: is cardholder[name] by the columns file"), "{said}");
    assert!(!said.contains("4711"), "{said}");
}
