//! Promise: whatever somebody does over HTTP that changes something or shows a secret stands in the audit log, with who it
//! was, before it takes effect where it moves money; no entry is ever changed or deleted, and none holds a secret.

use crate::support;

use std::time::{Duration, Instant};

use embosser::clock::Time;
use embosser::ledger::{AuditEntry, AuditQuery, Ledger, Order, Scope};
use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;
use support::choosing::{choose, encrypted, stage};
use support::postgres::Postgres;
use support::serve::Served;
use support::tokens::{Deed, people};
use support::{Program, expect_exit, sqlite, write_manifest};

/// Who there is, with which roles.
const PEOPLE: [(&str, &[&str]); 4] = [
    ("clerk", &["submit", "read"]),
    ("ops", &["operate", "read"]),
    ("boss", &["approve", "read"]),
    ("desk", &["pin", "operate"]),
];

/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn deeds(wanted: &[[&str; 3]]) -> Vec<Deed> {
    wanted.iter().map(|deed| (deed[0].into(), deed[1].into(), deed[2].into())).collect()
}

#[tokio::test]
async fn each_deed_has_its_entry_with_who_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let people = people(Program::new(directory.path(), &sandbox), &PEOPLE).await;
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 30).await;
    let csv = std::fs::read(&file).unwrap();
    let served = Served::start(&people.program, &["--rate", "2"]);
    people.upload(&served, "clerk", "/v1/checks", &csv).await.expect(200);
    people.upload(&served, "clerk", "/v1/checks?name=staff", b"row_id,type\n1,plastic\n").await.expect(422);
    people.upload(&served, "clerk", "/v1/batches?name=%3D1%2B1", &csv).await.expect(202);
    // The same again begins nothing, and what is refused is not done.
    people.upload(&served, "clerk", "/v1/batches?name=%3D1%2B1", &csv).await.expect(202);
    people.upload(&served, "ops", "/v1/batches?name=other", &csv).await.expect(403);
    people.post(&served, "clerk", "/v1/batches/%3D1%2B1/pause", Value::Null).await.expect(403);
    for steer in ["pause", "resume", "cancel"] {
        people.post(&served, "ops", &format!("/v1/batches/%3D1%2B1/{steer}"), Value::Null).await.expect(200);
    }
    people.post(&served, "ops", "/v1/batches/%3D1%2B1/resume", Value::Null).await.expect(409);
    let job =
        json!({"id": "payroll/1", "card": {"cardholder": "ich_9", "type": "virtual", "currency": "eur"}});
    people.post(&served, "clerk", "/v1/jobs", job.clone()).await.expect(202);
    people.post(&served, "ops", "/v1/jobs", job).await.expect(403);
    let wanted = deeds(&[
        ["clerk", "submit", "manifest_checked"],
        ["clerk", "submit", "manifest_checked"],
        ["clerk", "submit", "batch_begun"],
        ["ops", "operate", "batch_paused"],
        ["ops", "operate", "batch_resumed"],
        ["ops", "operate", "batch_cancelled"],
        ["clerk", "submit", "job_sent"],
    ]);
    assert_eq!(people.deeds(&served).await, wanted);
    // The tokens are read anew.
    std::fs::write(directory.path().join("tokens"), format!("{}# a line more\n", people.lines)).unwrap();
    let began = Instant::now();
    while people.deeds(&served).await.len() == wanted.len() {
        assert!(began.elapsed() < WAIT_MAX, "nobody reads the tokens");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let all = people.get(&served, "ops", "/v1/audit").await.expect(200).json();
    let entries = all["entries"].as_array().unwrap();
    assert_eq!((&entries[0]["who"], &entries[0]["action"]), (&json!("this server"), &json!("tokens_read")));
    let begun = entries.iter().find(|entry| entry["action"] == "batch_begun").unwrap();
    let digest: String = Sha256::digest(&csv).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        (&begun["rows"], &begun["digest"], &begun["batch"]),
        (&json!(30), &json!(digest), &json!("=1+1"))
    );
    assert!(entries.iter().any(|entry| entry["job"] == "payroll/1"));
    assert!(entries.iter().any(|entry| entry["detail"] == "refused: invalid_manifest"));

    // Page by page it is the same, and each filter leaves out the rest.
    let (mut paged, mut path) = (Vec::new(), "/v1/audit?limit=3".to_owned());
    for _ in 0..entries.len() {
        let page = people.get(&served, "boss", &path).await.expect(200).json();
        paged.extend(page["entries"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/audit?limit=3&after={next}");
    }
    assert_eq!(&paged, entries);
    for (filter, count) in [
        ("batch=%3D1%2B1", 4),
        ("who=ops", 3),
        ("who=ops&batch=%3D1%2B1", 3),
        ("who=nobody", 0),
        ("since=2026-01-01", 8),
        ("since=9000-01-01T05:00Z", 0),
    ] {
        let found = people.get(&served, "boss", &format!("/v1/audit?{filter}")).await.expect(200).json();
        assert_eq!(found["entries"].as_array().unwrap().len(), count, "{filter}: {found}");
    }
    for wrong in ["since=soon", "after=x", "limit=0", "limit=1001", "what=x"] {
        people.get(&served, "boss", &format!("/v1/audit?{wrong}")).await.expect(400);
    }
    for method in [Method::DELETE, Method::PUT, Method::PATCH, Method::POST] {
        people.ask(&served, "ops", method, "/v1/audit", Value::Null).await.expect(405);
    }
    // As CSV, in which nothing is a formula; the same by the command line.
    let over_http = people.get(&served, "boss", "/v1/audit.csv").await.expect(200);
    assert!(over_http.text.contains(",'=1+1,") && !over_http.text.contains(",=1+1,"), "{}", over_http.text);
    assert_eq!(over_http.text.lines().count(), 1 + entries.len());
    let printed = people.program.run(&["audit"]).await;
    expect_exit(&printed, 0);
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), over_http.text);
    let of_ops =
        people.program.run(&["audit", "--who", "ops", "--batch", "=1+1", "--since", "2026-01-01"]).await;
    assert_eq!(String::from_utf8(of_ops.stdout).unwrap().lines().count(), 4);
    for secret in people.tokens.values() {
        assert!(!over_http.text.contains(secret.as_str()));
    }
    assert!(!over_http.text.contains("eyJ"), "a ciphertext: {}", over_http.text);
}

/// A nonce as Stripe.js gets one: what it hands to the page.
async fn nonce(sandbox: &Sandbox, card: &str) -> String {
    let request = support::http_client().post(format!("{}/v1/ephemeral_key_nonces", sandbox.api_url()));
    let made = request.body(format!("key=pk_test_1&issuing_card={card}")).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    made["public_nonce"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_done_with_pins_has_its_entry_and_no_secret_in_it() {
    let stage = stage().await;
    let people = people(stage.program.clone(), &PEOPLE).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let rows = "row_id,cardholder,type,currency,pin[choose]\na,ich_1,virtual,eur,true\nb,ich_2,virtual,eur,true\nc,ich_3,virtual,eur,\n";
    people.upload(&served, "clerk", "/v1/batches?name=staff", rows.as_bytes()).await.expect(202);
    let began = Instant::now();
    let card = loop {
        let view = people.get(&served, "clerk", "/v1/batches/staff/rows").await.expect(200).json();
        let cards: Vec<&str> =
            view["rows"].as_array().unwrap().iter().filter_map(|row| row["card_id"].as_str()).collect();
        if let (Some(card), 3) = (cards.first(), view["rows"].as_array().unwrap().len()) {
            break (*card).to_owned();
        }
        assert!(began.elapsed() < WAIT_MAX, "never came: {view}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    people.get(&served, "ops", "/v1/pin-links?batch=staff").await.expect(200);
    let made = people.post(&served, "ops", "/v1/pin-links", json!({"batch": "staff"})).await.expect(200);
    // A cardholder chooses, and another one's link is revoked.
    let links = made.json()["links"].as_array().unwrap().clone();
    let chosen = links.iter().find(|link| link["job"] == "staff/b").unwrap()["pin_link"].as_str().unwrap();
    choose(&served, chosen, &encrypted(&stage.sandbox, "4715").await).await.expect(200);
    people.post(&served, "ops", "/v1/pin-links/revoke", json!({"job": "staff/a"})).await.expect(204);
    people.post(&served, "ops", "/v1/pin-links/cancel", json!({"job": "staff/a"})).await.expect(200);
    people.post(&served, "ops", "/v1/pin-links", json!({"card": card})).await.expect(403);
    let view = people.post(&served, "desk", "/v1/pin-links", json!({"card": card})).await.expect(200).json();
    let link = view["links"][0]["pin_link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let shown = format!("/v1/cards/{card}/ephemeral-keys");
    let mut secrets = vec![link.clone(), made.json()["links"][0]["pin_link"].as_str().unwrap().to_owned()];
    // By a token, and by a link; what Stripe refuses to show has no entry.
    for link in [None, Some(&link)] {
        let nonce = nonce(&stage.sandbox, &card).await;
        let answer =
            people.post(&served, "desk", &shown, json!({"nonce": nonce, "link": link})).await.expect(200);
        secrets.push(answer.json()["ephemeral_key_secret"].as_str().unwrap().to_owned());
    }
    people.post(&served, "desk", &shown, json!({"nonce": "a nonce that no page made"})).await.expect(409);
    let done = people.deeds(&served).await;
    let wanted = deeds(&[
        ["clerk", "submit", "batch_begun"],
        ["ops", "operate", "pin_links_listed"],
        ["ops", "operate", "pin_links_made"],
        ["a cardholder", "", "pin_chosen"],
        ["ops", "operate", "pin_link_revoked"],
        ["ops", "operate", "pin_jobs_cancelled"],
        ["desk", "pin", "pin_links_made"],
        ["desk", "pin", "pin_shown"],
        ["a cardholder", "", "pin_shown"],
    ]);
    assert_eq!(done, wanted);
    let csv = people.get(&served, "ops", "/v1/audit.csv").await.expect(200).text;
    for secret in secrets {
        let token = secret.rsplit('#').next().unwrap();
        assert!(!csv.contains(token), "{csv}");
    }
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_done() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox)
        .with("EMBOSSER__LEDGER__URL", &sqlite(&directory.path().join("ledger.db")));
    let people = people(program, &PEOPLE).await;
    let file = directory.path().join("staff.csv");
    write_manifest(&file, &sandbox, 5).await;
    let csv = std::fs::read(&file).unwrap();
    let served = Served::start(&people.program, &["--rate", "100"]);
    people.get(&served, "boss", "/v1/audit").await.expect(200);
    let database = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    let refusing = "CREATE TRIGGER no_more BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END";
    database.execute_batch(refusing).unwrap();
    let job =
        json!({"id": "payroll/1", "card": {"cardholder": "ich_9", "type": "virtual", "currency": "eur"}});
    people.upload(&served, "clerk", "/v1/batches?name=staff", &csv).await.expect(503);
    people.post(&served, "clerk", "/v1/jobs", job.clone()).await.expect(503);
    people.get(&served, "clerk", "/v1/batches/staff").await.expect(404);
    people.get(&served, "clerk", "/v1/jobs/payroll%2F1").await.expect(404);
    assert_eq!(sandbox.account().creates, 0, "nothing was called");
    database.execute_batch("DROP TRIGGER no_more").unwrap();
    people.upload(&served, "clerk", "/v1/batches?name=staff", &csv).await.expect(202);
    people.post(&served, "clerk", "/v1/jobs", job).await.expect(202);
    let wanted = [["clerk", "submit", "batch_begun"], ["clerk", "submit", "job_sent"]];
    assert_eq!(people.deeds(&served).await, deeds(&wanted));
}

fn entry(who: &str, number: i64) -> AuditEntry {
    AuditEntry {
        id: 0,
        time: Time::from_unix_ms(1_700_000_000_000 + number),
        scope: Scope::new("test", "ledger.test:8080", Some("acct_1")),
        who: who.to_owned(),
        role: Some("submit".to_owned()),
        action: "batch_begun".to_owned(),
        batch: Some("Ünïcode '; DROP TABLE audit; --".to_owned()),
        job: None,
        rows: Some(7),
        digest: None,
        detail: Some("\u{2028}\"".to_owned()),
    }
}

async fn keeps_entries_in_their_order(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    for number in 0..10 {
        let who = if number % 2 == 0 { "even" } else { "odd" };
        ledger.add_audit_entry(entry(who, number)).await.unwrap();
    }
    let elsewhere = AuditEntry { scope: Scope::new("live", "ledger.test", None), ..entry("even", 10) };
    ledger.add_audit_entry(elsewhere.clone()).await.unwrap();
    ledger.close().await;
    let ledger = Ledger::open_existing(url).await.unwrap();
    let all = ledger.audit_entries(AuditQuery::default(), 100).await.unwrap();
    let times: Vec<i64> = all.iter().map(|entry| entry.time.unix_ms() - 1_700_000_000_000).collect();
    assert_eq!(times, (0..=10).rev().collect::<Vec<_>>());
    assert_eq!(AuditEntry { id: 0, ..all[1].clone() }, entry("odd", 9));
    let scope = entry("", 0).scope;
    assert_eq!(scope.account(), Some("acct_1"));
    let of = |query: AuditQuery| ledger.audit_entries(query, 3);
    let odd = AuditQuery { who: Some("odd".into()), scopes: vec![scope], ..AuditQuery::default() };
    let page = of(odd.clone()).await.unwrap();
    assert_eq!(page.iter().map(|entry| entry.rows).collect::<Vec<_>>(), [Some(7); 3]);
    let page = of(AuditQuery { after: Some(page[2].id), ..odd.clone() }).await.unwrap();
    assert_eq!(page.len(), 2, "{page:?}");
    let since =
        AuditQuery { since: Some(Time::from_unix_ms(1_700_000_000_007)), order: Order::Oldest, ..odd };
    assert_eq!(of(since).await.unwrap().len(), 2);
    let batch = AuditQuery { batch: elsewhere.batch, scopes: vec![elsewhere.scope], ..AuditQuery::default() };
    assert_eq!(of(batch).await.unwrap().len(), 1);
    ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_to_change_or_delete_an_entry() {
    let directory = tempfile::tempdir().unwrap();
    let (file, url) = (directory.path().join("l.db"), sqlite(&directory.path().join("l.db")));
    keeps_entries_in_their_order(&url).await;
    let database = rusqlite::Connection::open(&file).unwrap();
    for change in [
        "UPDATE audit SET who = 'nobody'",
        "DELETE FROM audit WHERE id = 3",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit (id, key, time_ms, scope, who, action) VALUES (3, 'k', 0, '', '', '')",
        "INSERT OR REPLACE INTO audit (key, time_ms, scope, who, action) SELECT key, 0, '', '', '' FROM audit WHERE id = 3",
    ] {
        let refused = database.execute_batch(change).unwrap_err().to_string();
        assert!(refused.contains("only ever added to"), "{change}: {refused}");
    }
    // A ledger of the version before gets the log, and keeps what it has.
    let before = "DROP TABLE audit; INSERT INTO metadata VALUES ('kept', 'yes'); PRAGMA user_version = 2;";
    database.execute_batch(before).unwrap();
    assert!(Ledger::open_existing(&url).await.err().unwrap().to_string().contains("is of version 2"));
    let ledger = Ledger::open(&url).await.unwrap();
    assert_eq!(ledger.metadata("kept").await.unwrap().as_deref(), Some("yes"));
    ledger.close().await;
    keeps_entries_in_their_order(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_refuses_to_change_or_delete_an_entry() {
    let postgres = Postgres::start();
    keeps_entries_in_their_order(&postgres.url()).await;
    let mut database = sqlx::PgConnection::connect(&postgres.url()).await.unwrap();
    for change in [
        "UPDATE audit SET who = 'nobody'",
        "DELETE FROM audit WHERE id = 3",
        "TRUNCATE audit",
        "INSERT INTO audit (key, time_ms, scope, who, action) SELECT key, 0, '', '', '' FROM audit
            ON CONFLICT (key) DO UPDATE SET who = 'nobody'",
    ] {
        let refused = sqlx::query(change).execute(&mut database).await.unwrap_err().to_string();
        assert!(refused.contains("only ever added to"), "{change}: {refused}");
    }
    for before in [
        "DROP TABLE audit",
        "DROP FUNCTION embosser_audit_is_kept",
        "INSERT INTO metadata VALUES ('kept', 'yes')",
        "UPDATE embosser_ledger SET version = 2",
    ] {
        sqlx::query(before).execute(&mut database).await.unwrap();
    }
    assert!(
        Ledger::open_existing(&postgres.url()).await.err().unwrap().to_string().contains("is of version 2")
    );
    let ledger = Ledger::open(&postgres.url()).await.unwrap();
    assert_eq!(ledger.metadata("kept").await.unwrap().as_deref(), Some("yes"));
    ledger.close().await;
    keeps_entries_in_their_order(&postgres.url()).await;
}
