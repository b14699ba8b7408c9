//! Promise: of a PIN's ciphertext nothing is answered, logged or stored, whatever is sent and however it goes wrong.

use crate::support;

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use serde_json::json;
use support::serve::Served;
use support::{Program, write_manifest};

/// So much of a JWE in a row is a leak: no other text has it by chance.
const TELLTALE: usize = 24;

/// Pieces of every JWE in a manifest: of its encrypted key and of its tag.
fn telltales(csv: &str) -> Vec<String> {
    csv.lines()
        .filter_map(|line| line.rsplit(',').next())
        .filter(|cell| cell.matches('.').count() == 4)
        .flat_map(|jwe| {
            let key = jwe.split('.').nth(1).unwrap();
            [key[100..100 + TELLTALE].to_owned(), jwe[jwe.len() - 22..].to_owned()]
        })
        .collect()
}

#[tokio::test]
async fn no_ciphertext_is_answered_logged_or_stored() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 40).await;
    let csv = std::fs::read_to_string(&file).unwrap();
    let telltales = telltales(&csv);
    assert_eq!(telltales.len(), 64);
    std::fs::remove_file(&file).unwrap();

    let program = Program::new(directory.path(), &sandbox).with("RUST_LOG", "trace");
    let served = Served::start(&program, &["--rate", "100"]);
    let mut told = Vec::new();
    let jwe = csv.lines().nth(1).unwrap().rsplit(',').next().unwrap();
    let upload = |path: &'static str, csv: String| served.upload(path, csv.into_bytes());
    // Well; with a row that is wrong; with its JWEs where they do not belong, or damaged; cut off; as no CSV at all.
    told.push(upload("/v1/batches?name=staff", csv.clone()).await);
    let mut wrong = csv.clone() + "r41,ich_1,virtuel,eur,,\n";
    told.push(upload("/v1/batches?name=wrong", wrong.clone()).await);
    wrong = csv.replacen("metadata[department],pin[encrypted_number]", "pin[encrypted_number],currency", 1);
    told.push(upload("/v1/checks", wrong).await);
    told.push(upload("/v1/checks", csv.replace("virtual,eur", "virtual,\"eur")).await);
    told.push(upload("/v1/checks", csv.replacen("\"a, b\",", "", 3)).await);
    told.push(upload("/v1/checks", csv.replace('.', "=.")).await);
    told.push(upload("/v1/checks", csv.lines().skip(1).collect::<Vec<_>>().join("\n")).await);
    told.push(upload("/v1/checks", csv.replacen("pin[encrypted_number]", jwe, 1)).await);
    for job in [
        json!({"id": "1", "card": {"type": "virtual", "currency": "eur", "pin": {"encrypted_number": jwe}}}),
        json!({"id": "2", "card": {"type": "virtual", "currency": jwe, "pin": {"encrypted_number": [jwe]}}}),
        json!({"id": "3", "deadline": jwe, "card": {"type": jwe, "pin": jwe, "second_line": jwe}}),
        json!({"id": 4, "card": [jwe]}),
    ] {
        let headers = [("content-type", "application/json")];
        told.push(served.ask(Method::POST, "/v1/jobs", &headers, job.to_string().into_bytes()).await);
    }
    let half = format!("{{\"id\": \"5\", \"card\": {{\"pin\": {{\"encrypted_number\": \"{jwe}");
    let headers = [("content-type", "application/json")];
    told.push(served.ask(Method::POST, "/v1/jobs", &headers, half.into_bytes()).await);
    served.until_ended("staff").await;
    for path in [
        "/v1/batches",
        "/v1/batches/staff",
        "/v1/batches/staff/rows",
        "/v1/batches/staff/results.csv",
        "/v1/batches/staff/results.xlsx",
        "/v1/jobs/1",
    ] {
        told.push(served.get(path).await.expect(200));
    }
    assert_eq!(told.iter().filter(|answer| answer.status.as_u16() == 202).count(), 2, "{told:#?}");
    let none_in = |place: &str, text: &str| {
        let found = telltales.iter().find(|telltale| text.contains(telltale.as_str()));
        assert!(found.is_none(), "ciphertext in {place}");
    };
    for answer in &told {
        none_in(&format!("an answer: {:.300}", answer.text), &format!("{answer:?}"));
    }
    // Nothing that it has open is a file, but for the ledger.
    for entry in std::fs::read_dir(format!("/proc/{}/fd", served.pid())).unwrap() {
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        let known = ["socket:", "pipe:", "anon_inode:", "/dev/", "/proc/"]
            .iter()
            .any(|kind| target.starts_with(kind));
        assert!(known || target.contains("embosser.db"), "{target} is open");
    }
    let (_, log) = served.stopped().await;
    assert!(log.len() > 10_000, "it logged: {}", log.len());
    none_in("the log", &log);
    let mut folders = vec![directory.path().to_owned()];
    while let Some(entry) = folders.pop() {
        if entry.is_dir() {
            folders.extend(std::fs::read_dir(entry).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read(&entry).unwrap();
        none_in(&entry.to_string_lossy(), &String::from_utf8_lossy(&text));
    }
}
