//! Promise: who has first and last names in columns of their own gets the columns file that says so, and each person the whole name; and
//! a row that is nobody's is told.

use crate::support;

use std::path::{Path, PathBuf};
use std::process::Command;

use embosser::sandbox::{Options, Sandbox};
use serde_json::{Value, json};
use support::verdict::{run_json, run_json_with, told};
use support::{Program, expect_exit};

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn proposed(manifest: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_embosser")).arg("columns").arg(manifest).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const FAMILY: &str = "Vorname,Name,Straße,Hausnr,Ort,PLZ,Land\nAda,Byron,Lange Str.,5,Berlin,10115,DE\n\
    Allegra,Byron,Lange Str.,5,Berlin,10115,DE\n, Noel ,Lange Str.,,Berlin,10115,DE\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_for_names_in_two_columns_gives_each_person_the_whole_name() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let manifest = write(directory.path(), "family.csv", FAMILY);
    let columns = proposed(&manifest);
    for line in [
        "\"Name\" = \"cardholder[individual][last_name]\"",
        "\"Vorname\" = \"cardholder[individual][first_name]\"",
        "\"cardholder[name]\" = [\"Vorname\", \"Name\"]",
        "\"Straße\" = \"\" # joined below",
        "\"cardholder[billing][address][line1]\" = [\"Straße\", \"Hausnr\"]",
    ] {
        assert!(columns.contains(line), "{line}: {columns}");
    }
    // Stripe takes a first name and a last name together.
    let columns = columns
        .replace("# type = \"physical\"", "type = \"virtual\"")
        .replace("# currency", "currency")
        .replace("\"cardholder[individual][first_name]\"", "\"\"")
        .replace("\"cardholder[individual][last_name]\"", "\"\"");
    write(directory.path(), "columns.toml", &columns);
    expect_exit(&program.run(&["issue", "family.csv", "--columns", "columns.toml"]).await, 0);
    let list = support::http_client().get(format!("{}/v1/issuing/cardholders", sandbox.api_url()));
    let list: Value = list.bearer_auth("rk_test_1").send().await.unwrap().json().await.unwrap();
    let of = |made: &Value| (made["name"].clone(), made["billing"]["address"]["line1"].clone());
    let mut made: Vec<_> = list["data"].as_array().unwrap().iter().map(of).collect();
    made.sort_by_key(|(name, _)| name.to_string());
    let expected = [("Ada Byron", "Lange Str. 5"), ("Allegra Byron", "Lange Str. 5"), ("Noel", "Lange Str.")];
    assert_eq!(made, expected.map(|(name, street)| (json!(name), json!(street))));
    assert_eq!(sandbox.account().cards.len(), 3);
}

#[test]
fn in_each_language_the_halves_of_a_name_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    for (headings, first, last) in [
        ("Nom,Prénom", "Prénom", "Nom"),
        ("Name,Vorname", "Vorname", "Name"),
        ("Cognome,Nome", "Nome", "Cognome"),
        ("Nombre,Primer apellido", "Nombre", "Primer apellido"),
        ("Imię,Nazwisko", "Imię", "Nazwisko"),
        ("First Name,Last Name", "First Name", "Last Name"),
    ] {
        let text = proposed(&write(directory.path(), "staff.csv", &format!("{headings}\nA,B\n")));
        let joined = format!("\"cardholder[name]\" = [\"{first}\", \"{last}\"]");
        assert!(text.contains(&joined), "{headings}: {text}");
        assert!(!text.contains("= \"cardholder[name]\""), "{headings}: {text}");
    }
}

#[test]
fn a_guess_by_letters_is_left_out_until_somebody_says_yes() {
    let directory = tempfile::tempdir().unwrap();
    let headings =
        "Name,Ship City,Personal Email,Work Email,Card number,Status,Type,Mobile No.,State/Province";
    let text = proposed(&write(directory.path(), "staff.csv", &format!("{headings}\n,,,,,,,,\n")));
    for line in [
        "\"Work Email\" = \"cardholder[email]\"\n",
        "\"Mobile No.\" = \"cardholder[phone_number]\"\n",
        "\"State/Province\" = \"cardholder[billing][address][state]\"\n",
        "\"Type\" = \"type\"\n",
        "\"Ship City\" = \"\" # left out",
        "\"Personal Email\" = \"\" # left out",
        "\"Card number\" = \"\" # left out",
        "\"Status\" = \"\" # left out; a guess by its letters: \"status\"\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn a_column_that_is_joined_is_looked_at_as_any_other() {
    let directory = tempfile::tempdir().unwrap();
    let check = |manifest: &str, columns: &str| {
        let columns = write(directory.path(), "columns.toml", columns);
        let manifest = write(directory.path(), "staff.csv", manifest);
        run_json_with(&manifest, &["--columns", columns.to_str().unwrap()])
    };
    let columns = "[joined]\n'metadata[name]' = ['A', 'B']\n[values.'metadata[name]']\n'Ada Byron' = 'Ada Lovelace'\n\
        [defaults]\n'metadata[name]' = '#N/A'\ntype = 'virtual'\ncurrency = 'eur'\n";
    let (verdict, _) = check("A,B\nAda,Byron\nNULL,\n,\nx,\n,y\n", columns);
    assert_eq!(verdict["rows"], json!(4), "{verdict}");
    assert_eq!(told(&verdict), ["warning 3 A + B says_nothing"], "{verdict}");
    let (verdict, _) = check("A,B,row_id\nAda,Byron,1\n,,2\n", columns);
    assert_eq!(told(&verdict), ["problem 3 A + B formula_failed"], "{verdict}");
    for (columns, said) in [
        ("[joined]\n'metadata[name]' = ['A', 'C']\n", "problem 1 C missing_heading"),
        ("[joined]\n'metadata[name]' = ['A', 'PIN']\n", "problem 1 PIN pin_in_clear"),
        ("[joined]\n'type' = ['A', 'B']\n", "problem 1 type duplicate_column"),
        ("[joined]\n'nonsense' = ['A', 'B']\n", "problem 1 nonsense unknown_parameter"),
    ] {
        let (verdict, code) = check("A,B,PIN,type,currency\nAda,Byron,,virtual,eur\n", columns);
        assert!(code == 2 && told(&verdict).contains(&said.to_owned()), "{said}: {verdict}");
    }
}

#[test]
fn a_row_that_is_nobodys_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let told_of = |text: &str| told(&run_json(&write(directory.path(), "staff.csv", text)).0);
    let header = "row_id,cardholder,type,currency,metadata[note]\n";
    assert_eq!(
        told_of(&format!(
            "{header}E1,,virtual,eur,\nE2,ich_1,virtual,eur,\nE3,,virtual,eur,spare\nTotal:,,virtual,eur,\n"
        )),
        [
            "problem 5 row_id total_row",
            "problem 2 cardholder no_cardholder",
            "warning 4 cardholder no_cardholder",
        ]
    );
    // Where nobody has one, that is how it is meant.
    assert!(told_of(&format!("{header}E1,,virtual,eur,\nE2,,virtual,eur,\n")).is_empty());
    let people = "cardholder[name],cardholder[email],cardholder[billing][address][line1],cardholder[billing][address][city],\
        cardholder[billing][address][postal_code],cardholder[billing][address][country],type,currency\n";
    let rest = "Weg 1,Berlin,10115,DE,virtual,eur\n";
    assert_eq!(
        told_of(&format!(
            "{people}Ada,a@example.com,{rest}GESAMT,,{rest}Razem,r@example.com,{rest}Summer,,{rest}"
        )),
        ["problem 3 cardholder[name] total_row", "warning 4 cardholder[name] total_row"]
    );
}
