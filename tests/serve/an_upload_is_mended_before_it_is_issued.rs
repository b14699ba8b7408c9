//! Promise: over HTTP an upload is seen as a table, its columns are named and its cells are mended on the way, and what is issued
//! is exactly what was checked so. No PIN is in any answer. Rows with problems can be left out, if that is asked for.

use crate::support;

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};
use support::serve::{Answer, Served};
use support::{Program, write_manifest};

/// A staff list as a person keeps it: a wrong word, and a postal code without its zero.
const STAFF: &str = "Staff no;Full name;Mail;Street;Town;Post code;Land;Kind;Wage\n\
    E1;Ana Lopez;ana@example.com;Main St 1;Boston;2138;US;virtual;100\n\
    \n\
    E2;Eva Roe;eva@example.com;Main St 2;Boston;02139;US;plastic;200\n\
    E3;Ida Poe;ida@example.com;Main St 3;Boston;02140;US;virtual;300\n";

const COLUMNS: &str = r#"
[columns]
"Staff no" = "row_id"
"Full name" = "cardholder[name]"
"Mail" = "cardholder[email]"
"Street" = "cardholder[billing][address][line1]"
"Town" = "cardholder[billing][address][city]"
"Post code" = "cardholder[billing][address][postal_code]"
"Land" = "cardholder[billing][address][country]"
"Kind" = "type"
"Wage" = ""
[defaults]
currency = "usd"
"#;

fn edit(line: u64, column: usize, value: &str) -> Value {
    json!({ "line": line, "column": column, "value": value })
}

/// A form with these fields, and then the file.
async fn send(served: &Served, path: &str, fields: &[(&str, &str)], file: &[u8]) -> Answer {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(
            format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .into_bytes(),
        );
    }
    body.extend(
        b"--edge\r\nContent-Disposition: form-data; name=\"manifest\"; filename=\"staff.csv\"\r\n\r\n"
            .as_slice(),
    );
    body.extend(file);
    body.extend(b"\r\n--edge--\r\n");
    served.ask(Method::POST, path, &[("Content-Type", "multipart/form-data; boundary=edge")], body).await
}

fn problems(answer: &Value) -> Vec<(u64, &str)> {
    let list = answer["problems"].as_array().unwrap();
    list.iter().map(|one| (one["line"].as_u64().unwrap(), one["code"].as_str().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mended_is_what_is_issued() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);

    // As it is: its headings are told, and what each may be.
    let seen = send(&served, "/v1/checks?table=10", &[], STAFF.as_bytes()).await.expect(422).json();
    let headings = seen["table"]["headings"].as_array().unwrap();
    let proposed: Vec<&str> =
        headings.iter().map(|heading| heading["proposal"].as_str().unwrap_or("")).collect();
    assert_eq!(proposed[..3], ["row_id", "cardholder[name]", "cardholder[email]"], "{headings:?}");
    assert_eq!(seen["table"]["rows"][0]["cells"][1], "Ana Lopez");

    // With its columns named.
    let mapped = [("columns", COLUMNS)];
    let told = send(&served, "/v1/checks?table=10", &mapped, STAFF.as_bytes()).await.expect(422).json();
    assert_eq!(problems(&told), [(2, "zeros_lost"), (4, "not_allowed")], "{told}");
    let lines: Vec<u64> =
        told["table"]["rows"].as_array().unwrap().iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 4, 5]);
    assert_eq!(told["table"]["headings"][8]["left_out"], true);

    // With its cells mended: right, and so it is issued.
    let edits =
        json!([edit(2, 6, "02138"), edit(4, 8, "virtual"), edit(4, 3, "roe@example.com")]).to_string();
    let whole = [("columns", COLUMNS), ("edits", edits.as_str())];
    let right = send(&served, "/v1/checks?table=10", &whole, STAFF.as_bytes()).await.expect(200).json();
    assert_eq!((&right["rows"], &right["cardholders"]), (&json!(3), &json!(3)));
    assert_eq!(right["table"]["rows"][1]["cells"][2], "roe@example.com");
    assert_eq!(sandbox.account().creates, 0);
    send(&served, "/v1/batches", &whole, STAFF.as_bytes()).await.expect(202);
    assert_eq!(served.until_ended("staff").await["issued"], 3);
    let account = sandbox.account();
    let emails: Vec<&str> = account.cardholders.iter().filter_map(|made| made.email.as_deref()).collect();
    assert_eq!((account.cards.len(), emails.len()), (3, 3));
    assert!(emails.contains(&"roe@example.com") && !emails.contains(&"eva@example.com"), "{emails:?}");

    // The same again is the same batch: nobody gets a second card.
    send(&served, "/v1/batches", &whole, STAFF.as_bytes()).await.expect(202);
    assert_eq!(served.until_ended("staff").await["issued"], 3);
    assert_eq!(sandbox.account().cards.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_and_nothing_is_issued() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    let long = "x".repeat(600 << 10);
    let nowhere = json!([edit(3, 1, "E9")]).to_string();
    let beyond = json!([edit(90, 1, "E9")]).to_string();
    let outside = json!([edit(2, 30, "E9")]).to_string();
    for (fields, status, said) in [
        (vec![("edits", "[{}]")], 400, "a JSON list"),
        (vec![("columns", "[columns]\nA = 1\n")], 400, "line 2: here belongs a text"),
        (vec![("columns", COLUMNS), ("columns", COLUMNS)], 400, "twice"),
        (vec![("edits", long.as_str())], 413, "at most 512 KiB"),
        // A blank line, and one that is not there: nothing of them would be seen again.
        (vec![("columns", COLUMNS), ("edits", nowhere.as_str())], 422, "on which no row of this file begins"),
        (vec![("columns", COLUMNS), ("edits", beyond.as_str())], 422, "on which no row of this file begins"),
        (vec![("columns", COLUMNS), ("edits", outside.as_str())], 422, "cell_count"),
    ] {
        for path in ["/v1/checks", "/v1/batches"] {
            let answer = send(&served, path, &fields, STAFF.as_bytes()).await.expect(status);
            assert!(answer.text.contains(said), "{path} {said}: {}", answer.text);
        }
    }
    send(&served, "/v1/checks?table=501", &[], STAFF.as_bytes()).await.expect(400);
    assert_eq!(served.get("/v1/batches").await.expect(200).json()["total"], 0);
    assert_eq!(sandbox.account().creates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_shows_a_pin_and_a_large_file_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    let file = directory.path().join("cards.csv");
    write_manifest(&file, &sandbox, 30).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let report = send(&served, "/v1/checks?table=500", &[], text.as_bytes()).await.expect(200);
    assert!(!report.text.contains("eyJ"), "a ciphertext was answered");
    let table = &report.json()["table"];
    assert_eq!(table["rows"].as_array().unwrap().len(), 30);
    let at =
        text.lines().next().unwrap().split(',').position(|name| name == "pin[encrypted_number]").unwrap();
    assert_eq!(table["headings"][at]["holds_pins"], true);
    assert!(table["rows"].as_array().unwrap().iter().all(|row| row["cells"][at].is_null()));
    // A ciphertext that slipped into another column, and PINs in the clear.
    let (header, rows) = text.split_once('\n').unwrap();
    let slipped = format!("{header}\n{}", rows.replacen("eyJ", "virtual,eyJ", 1));
    let answer = send(&served, "/v1/checks?table=500", &[], slipped.as_bytes()).await.expect(422);
    assert!(!answer.text.contains("eyJ"), "a ciphertext was answered");
    let clear = "row_id,type,currency,PIN\nE1,virtual,eur,4821\n";
    let answer = send(&served, "/v1/checks?table=500", &[], clear.as_bytes()).await.expect(422);
    assert!(!answer.text.contains("4821") && answer.text.contains("pin_in_clear"), "{}", answer.text);

    let mut large = "row_id,cardholder,type,currency,metadata[note]\n".to_owned();
    let note = "x".repeat(400);
    for row in 0..12_000 {
        large += &format!("E{row},ich_{row},virtual,eur,{note}\n");
    }
    let report = send(&served, "/v1/checks?table=500", &[], large.as_bytes()).await.expect(200).json();
    assert_eq!((&report["rows"], report.get("table")), (&json!(12_000), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_problems_are_left_out_if_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &[]);
    let mut text = "row_id,cardholder,type,currency\n".to_owned();
    for row in 0..20 {
        let kind = if row % 5 == 3 { "virtuel" } else { "virtual" };
        text += &format!("E{row},ich_{row},{kind},eur\n");
    }
    served.upload("/v1/batches?name=a", text.clone().into()).await.expect(422);
    let begun =
        served.upload("/v1/batches?name=a&skip_invalid=true", text.clone().into()).await.expect(202).json();
    assert_eq!(begun["rows"], 16);
    let ended = served.until_ended("a").await;
    assert_eq!(
        (&ended["state"], &ended["issued"], &ended["waiting"]),
        (&json!("finished"), &json!(16), &json!(0))
    );
    assert_eq!(sandbox.account().cards.len(), 16);
    // Mended and sent whole, the batch grows by what was left out.
    served.upload("/v1/batches?name=a", text.replace("virtuel", "virtual").into()).await.expect(202);
    assert_eq!(served.until_ended("a").await["issued"], 20);
    assert_eq!(sandbox.account().cards.len(), 20);
    // One whose name is too long together with the batch's costs only itself, when it is issued as when it is checked.
    let (long, name) = ("b".repeat(80), "r".repeat(190));
    let text = format!(
        "row_id,cardholder,type,currency\nA,ich_a1,virtual,eur\n{name},ich_a2,virtual,eur\nC,ich_a3,virtual,eur\n"
    );
    served.upload(&format!("/v1/batches?name={long}&skip_invalid=true"), text.into()).await.expect(202);
    let ended = served.until_ended(&long).await;
    assert_eq!((&ended["state"], &ended["issued"]), (&json!("finished"), &json!(2)), "{ended}");
    // Which of two is meant nobody but their writer knows; and a file of nothing right is not issued at all.
    let text = "row_id,cardholder,type,currency\nE1,ich_70,virtual,eur\nE2,ich_71,virtuel,eur\n";
    let twice = format!("{text}E1,ich_77,virtual,usd\n");
    let answer =
        served.upload("/v1/batches?name=b&skip_invalid=true", twice.clone().into()).await.expect(422);
    assert!(answer.text.contains("duplicate_row_id"), "{}", answer.text);
    // The check says so before, and offers nothing for the rows that are right.
    let told = served.upload("/v1/checks?name=b", twice.into()).await.expect(422).json();
    let beside = json!([{"line": 4, "first_line": 2, "code": "duplicate_row_id"}]);
    assert_eq!((&told["contradictions"], told.get("plan")), (&beside, None), "{told}");
    let wrong = "row_id,cardholder,type,currency\nE1,ich_1,virtuel,eur\n";
    served.upload("/v1/batches?name=c&skip_invalid=true", wrong.into()).await.expect(422);
    assert_eq!(sandbox.account().cards.len(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_kept_under_a_name_and_templates_are_filled_in() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let folder = directory.path().join("columns");
    std::fs::create_dir(&folder).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    let put = async |served: &Served, path: &str, text: &str| {
        served.ask(Method::PUT, path, &[("Content-Type", "application/toml")], text.into()).await
    };
    let without = Served::start(&program, &[]);
    let answer = put(&without, "/v1/columns/staff", COLUMNS).await.expect(409);
    assert!(answer.text.contains("http.columns_directory"), "{}", answer.text);
    assert_eq!(without.get("/v1/server").await.expect(200).json()["keeps_columns"], false);
    drop(without);
    let program = program.with("EMBOSSER__HTTP__COLUMNS_DIRECTORY", folder.to_str().unwrap());
    let served = Served::start(&program, &[]);
    assert_eq!(served.get("/v1/server").await.expect(200).json()["keeps_columns"], true);
    put(&served, "/v1/columns/staff", COLUMNS).await.expect(200);
    let kept = served.get("/v1/columns/staff").await.expect(200).json();
    assert_eq!((&kept["columns"]["Wage"], &kept["columns"]["Kind"]), (&json!(""), &json!("type")));
    // Nobody's is overwritten unawares, nothing wrong is kept, and nothing leaves the folder.
    put(&served, "/v1/columns/staff", "[columns]\n").await.expect(409);
    put(&served, "/v1/columns/staff?replace=true", &COLUMNS.replace("usd", "eur")).await.expect(200);
    assert_eq!(served.get("/v1/columns/staff").await.expect(200).json()["defaults"]["currency"], "eur");
    put(&served, "/v1/columns/wrong", "[columns]\nA = 1\n").await.expect(400);
    for name in ["..%2Fstaff", ".hidden", "a%2Fb", "a%20b"] {
        put(&served, &format!("/v1/columns/{name}"), COLUMNS).await.expect(400);
    }
    put(&served, "/v1/columns/long", &"#".repeat(600 << 10)).await.expect(413);
    let kept: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(kept, ["staff.toml"]);

    // A template is right as it comes, but for its example, which is nobody's.
    for what in ["cards", "people", "updates"] {
        let text = served.get(&format!("/v1/template?for={what}&format=csv")).await.expect(200).text;
        let report = served.upload("/v1/checks", text.into()).await.expect(422).json();
        assert_eq!((&report["rows"], &report["problem_count"]), (&json!(1), &json!(1)), "{what}");
        assert_eq!(report["problems"][0]["code"], "example", "{what}");
    }
    // Where there is no page to choose a PIN on, none asks for that.
    let answer = served.get("/v1/template?for=pins").await.expect(409);
    assert!(answer.text.contains("pin_page.url"), "{}", answer.text);
    let sheet = served.get("/v1/template?for=people").await.expect(200);
    assert!(sheet.text.starts_with("PK"), "no XLSX");
    served.get("/v1/template?for=money").await.expect(400);
}

/// Whoever sends a batch's file again is told what of it is done, and which rows ask for something else now.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_of_the_batch_is_done_and_what_asks_for_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let served = Served::start(&Program::new(directory.path(), &sandbox), &["--rate", "100"]);
    const HEADER: &str = "row_id,cardholder,type,currency";
    let before = format!("{HEADER}\na,ich_a,virtual,eur\nb,ich_b,virtual,eur\n");
    let known = async |name: &str, text: &str| {
        let view = served.upload(&format!("/v1/checks?name={name}"), text.into()).await.expect(200).json();
        ["rows", "done_before", "changed_since", "first_changed", "known_before"].map(|key| view[key].clone())
    };
    assert_eq!(known("team", &before).await, [json!(2), json!(0), json!(0), json!([]), json!(0)]);
    served.upload("/v1/batches?name=team", before.clone().into()).await.expect(202);
    served.until_ended("team").await;
    assert_eq!(known("team", &before).await, [json!(2), json!(2), json!(0), json!([]), json!(0)]);
    let after = before.replace("ich_b,virtual,eur", "ich_b,virtual,usd") + "c,ich_c,virtual,eur\n";
    assert_eq!(known("team", &after).await, [json!(3), json!(2), json!(1), json!(["b"]), json!(0)]);
    // Under another name one of them has its card from that batch.
    assert_eq!(known("others", &after).await, [json!(3), json!(0), json!(0), json!([]), json!(1)]);
    // What is done is done, whatever else is wrong in the file, and so many warnings are told as there are.
    let wrong: String = (0..1200).map(|row| format!("“x{row}”,ich_x,virtual,euro\n")).collect();
    let told = served.upload("/v1/checks?name=team", (after + &wrong).into()).await.expect(422).json();
    let counts = ["problem_count", "warning_count"].map(|count| told[count].as_u64().unwrap());
    assert_eq!((counts, &told["plan"]["done_before"]), ([1200, 1200], &json!(2)), "{}", told["detail"]);
}
