//! Promise: where an approval is required, nothing of an upload is called at Stripe before the holder of another token has
//! approved that very upload; it begins once, whoever approves it, and what was known when it was checked is looked at again.

use crate::support;

use std::time::{Duration, Instant};

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};
use support::postgres::Postgres;
use support::serve::{Answer, Served};
use support::tokens::{People, people};
use support::{Expected, Program, expect_exit, one_card_each, write_manifest};

/// Longer than anything here may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A server that wants approvals, and who is there.
struct Office {
    directory: tempfile::TempDir,
    sandbox: Sandbox,
    people: People,
}

impl Office {
    async fn new(options: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let mut program =
            Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
        for (name, value) in options {
            program = program.with(name, value);
        }
        let who: [(&str, &[&str]); 4] = [
            ("clerk", &["submit", "read", "approve"]),
            ("boss", &["approve", "read", "submit"]),
            ("chief", &["approve", "read"]),
            ("ops", &["operate", "read"]),
        ];
        let people = people(program, &who).await;
        Self { directory, sandbox, people }
    }

    fn serve(&self, arguments: &[&str]) -> Served {
        Served::start(&self.people.program, arguments)
    }

    /// A manifest of so many rows, and what it asks for.
    async fn manifest(&self, rows: usize) -> (Vec<u8>, Expected) {
        let file = self.directory.path().join("staff.csv");
        let expected = write_manifest(&file, &self.sandbox, rows).await;
        (std::fs::read(&file).unwrap(), expected)
    }

    async fn upload(&self, served: &Served, who: &str, name: &str, csv: &[u8]) -> Answer {
        self.people.upload(served, who, &format!("/v1/batches?name={name}"), csv).await
    }

    async fn view(&self, served: &Served, batch: &str) -> Value {
        self.people.get(served, "boss", &format!("/v1/batches/{batch}")).await.expect(200).json()
    }

    async fn approve(&self, served: &Served, who: &str, batch: &str, digest: &str) -> Answer {
        let path = format!("/v1/batches/{batch}/approve");
        self.people.post(served, who, &path, json!({"digest": digest})).await
    }

    async fn until(&self, served: &Served, batch: &str, state: &str) -> Value {
        let began = Instant::now();
        loop {
            let view = self.view(served, batch).await;
            if view["state"] == state {
                return view;
            }
            assert!(began.elapsed() < WAIT_MAX, "never {state}: {view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How often Stripe was asked for a card.
    fn creates(&self) -> u64 {
        self.sandbox.account().creates
    }
}

fn digest_of(view: &Value) -> String {
    view["held"]["digest"].as_str().unwrap_or_else(|| panic!("it does not wait: {view}")).to_owned()
}

fn csv(rows: &[(&str, &str)]) -> Vec<u8> {
    let lines = rows.iter().map(|(row, cardholder)| format!("{row},{cardholder},virtual,eur\n"));
    format!("row_id,cardholder,type,currency\n{}", lines.collect::<String>()).into_bytes()
}

#[tokio::test]
async fn somebody_else_approves_it_and_then_it_is_issued() {
    let office = Office::new(&[]).await;
    let (rows, expected) = office.manifest(20).await;
    let served = office.serve(&["--rate", "200"]);
    let held = office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    assert_eq!(held.headers["location"], "/v1/batches/staff");
    let view = office.view(&served, "staff").await;
    assert_eq!(view["state"], "awaiting_approval");
    let digest = digest_of(&view);
    let waits = &view["held"];
    assert_eq!(
        (&waits["submitter"], &waits["diff"], &waits["start_ms"]),
        (&json!("clerk"), &Value::Null, &Value::Null)
    );
    let plan = &waits["plan"];
    assert_eq!((&plan["rows"], &plan["pins"], &plan["cancels"]), (&json!(20), &view["pins"], &json!(0)));
    assert_eq!(plan["physical"].as_u64().unwrap() + plan["virtual"].as_u64().unwrap(), 20);
    let left = waits["approve_until_ms"].as_i64().unwrap() - view["began_ms"].as_i64().unwrap();
    assert_eq!(left, 8 * 3600 * 1000);
    assert!(view["oldest_pin_age_seconds"].as_f64().unwrap() < 60.0, "{view}");
    // The same again is held once.
    office.upload(&served, "boss", "staff", &rows).await.expect(202);
    assert_eq!(digest_of(&office.view(&served, "staff").await), digest);

    let own = office.approve(&served, "clerk", "staff", &digest).await.expect(403).json();
    assert_eq!(own["code"], "own_approval");
    office.approve(&served, "ops", "staff", &digest).await.expect(403);
    office.approve(&served, "boss", "staff", "another").await.expect(409);
    office.approve(&served, "boss", "nobody", &digest).await.expect(404);
    office.people.post(&served, "ops", "/v1/batches/staff/pause", Value::Null).await.expect(409);
    assert_eq!(office.creates(), 0, "nothing is called before it is approved");
    let list = office.people.get(&served, "boss", "/v1/batches").await.expect(200).json();
    assert_eq!((&list["batches"][0]["state"], &list["total"]), (&json!("awaiting_approval"), &json!(1)));

    let answer = office.approve(&served, "boss", "staff", &digest).await.expect(200).json();
    assert_ne!(answer["state"], "awaiting_approval");
    let view = office.until(&served, "staff", "finished").await;
    assert_eq!((&view["issued"], &view["held"]), (&json!(20), &Value::Null));
    one_card_each(&office.sandbox.account(), &expected);
    // Who has approved it may lose the answer and ask again; somebody else is told who was first.
    office.approve(&served, "boss", "staff", &digest).await.expect(200);
    let late = office.approve(&served, "chief", "staff", &digest).await.expect(409);
    assert!(late.text.contains("boss has approved it already"), "{}", late.text);
    let done = office.people.deeds(&served).await;
    let wanted = [("clerk", "submit", "batch_held"), ("boss", "approve", "batch_approved")];
    let wanted: Vec<_> =
        wanted.map(|(who, role, what)| (who.to_owned(), role.to_owned(), what.to_owned())).into();
    assert_eq!(done, wanted);
    let (_, log) = served.stopped().await;
    assert!(!log.contains("failed by a bug"), "{log}");
}

#[tokio::test]
async fn what_is_rejected_or_called_off_is_not_issued() {
    let office = Office::new(&[]).await;
    let (rows, expected) = office.manifest(5).await;
    let served = office.serve(&["--rate", "200"]);
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let digest = digest_of(&office.view(&served, "staff").await);
    let reject = async |reason: &str| {
        office.people.post(&served, "boss", "/v1/batches/staff/reject", json!({"reason": reason})).await
    };
    reject(" ").await.expect(400);
    reject(&"x".repeat(501)).await.expect(400);
    reject("two too many").await.expect(200);
    let view = office.view(&served, "staff").await;
    assert_eq!(
        (&view["state"], &view["reason"]),
        (&json!("rejected"), &json!("boss rejected it: two too many"))
    );
    reject("again").await.expect(409);
    office.approve(&served, "boss", "staff", &digest).await.expect(409);
    // Called off by whoever operates.
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    office.people.post(&served, "ops", "/v1/batches/staff/cancel", Value::Null).await.expect(200);
    assert_eq!(office.view(&served, "staff").await["state"], "cancelled");
    office.approve(&served, "boss", "staff", &digest).await.expect(409);
    assert_eq!(office.creates(), 0, "nothing was called");
    // A server that knows of it by the ledger alone says the same.
    let (_, log) = served.stopped().await;
    assert!(log.contains("a batch that waited was ended"), "{log}");
    let served = office.serve(&["--rate", "200"]);
    let view = office.view(&served, "staff").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("cancelled"), &json!(0)));
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let digest = digest_of(&office.view(&served, "staff").await);
    office.approve(&served, "chief", "staff", &digest).await.expect(200);
    office.until(&served, "staff", "finished").await;
    one_card_each(&office.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_approve_at_once_one_has_an_effect() {
    let office = Office::new(&[]).await;
    let (rows, expected) = office.manifest(30).await;
    let served = office.serve(&["--rate", "500"]);
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let digest = digest_of(&office.view(&served, "staff").await);
    let (one, other) = tokio::join!(
        office.approve(&served, "boss", "staff", &digest),
        office.approve(&served, "chief", "staff", &digest),
    );
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{one:?} {other:?}");
    office.until(&served, "staff", "finished").await;
    one_card_each(&office.sandbox.account(), &expected);
    let approved = office.people.deeds(&served).await;
    assert_eq!(approved.iter().filter(|(.., what)| what == "batch_approved").count(), 1, "{approved:?}");
}

#[tokio::test]
async fn what_took_its_place_must_be_looked_at_anew() {
    let office = Office::new(&[]).await;
    let served = office.serve(&["--rate", "200"]);
    let first = csv(&[("a", "ich_1"), ("b", "ich_2"), ("c", "ich_3")]);
    office.upload(&served, "clerk", "staff", &first).await.expect(202);
    let seen = digest_of(&office.view(&served, "staff").await);
    // Another file; and the same one, to be issued otherwise.
    let second = csv(&[("a", "ich_1"), ("b", "ich_9")]);
    office.upload(&served, "clerk", "staff", &second).await.expect(202);
    let refused = office.approve(&served, "boss", "staff", &seen).await.expect(409);
    assert!(refused.text.contains("was replaced"), "{}", refused.text);
    let seen_second = digest_of(&office.view(&served, "staff").await);
    let path = "/v1/batches?name=staff&second_cards=true";
    office.people.upload(&served, "boss", path, &second).await.expect(202);
    let view = office.view(&served, "staff").await;
    assert_eq!((&view["held"]["submitter"], &view["held"]["second_cards"]), (&json!("boss"), &json!(true)));
    office.approve(&served, "chief", "staff", &seen_second).await.expect(409);
    // Whoever put it there cannot approve it either.
    office.approve(&served, "boss", "staff", &digest_of(&view)).await.expect(403);
    assert_eq!(office.creates(), 0);
    office.approve(&served, "clerk", "staff", &digest_of(&view)).await.expect(200);
    let view = office.until(&served, "staff", "finished").await;
    assert_eq!((&view["rows"], &view["issued"], office.creates()), (&json!(2), &json!(2), 2));

    // The next one of this name is held against it.
    let third = csv(&[("a", "ich_1"), ("b", "ich_2"), ("d", "ich_4"), ("e", "ich_5")]);
    office.upload(&served, "clerk", "staff", &third).await.expect(202);
    let view = office.view(&served, "staff").await;
    let wanted = json!({"same": 1, "same_done": 1, "changed": 1, "first_changed": ["b"], "new": 2,
        "first_new": ["d", "e"], "gone": 0, "first_gone": []});
    assert_eq!(view["held"]["diff"], wanted);
    let fourth = csv(&[("b", "ich_9")]);
    office.upload(&served, "clerk", "staff", &fourth).await.expect(202);
    let view = office.view(&served, "staff").await;
    let wanted = json!({"same": 1, "same_done": 1, "changed": 0, "first_changed": [], "new": 0,
        "first_new": [], "gone": 1, "first_gone": ["a"]});
    assert_eq!(view["held"]["diff"], wanted);
    // A batch that was issued before stays what it is when a later upload is rejected.
    let reject = office.people.post(&served, "boss", "/v1/batches/staff/reject", json!({"reason": "no"}));
    let view = reject.await.expect(200).json();
    assert_eq!((&view["state"], &view["issued"], &view["rows"]), (&json!("rejected"), &json!(2), &json!(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_lost_with_its_server_and_that_is_told() {
    is_lost_and_told(&[]).await;
    let postgres = Postgres::start();
    is_lost_and_told(&[("EMBOSSER__LEDGER__URL", &postgres.url())]).await;
}

async fn is_lost_and_told(options: &[(&str, &str)]) {
    let office = Office::new(options).await;
    let (rows, expected) = office.manifest(8).await;
    let served = office.serve(&["--rate", "200"]);
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let digest = digest_of(&office.view(&served, "staff").await);
    served.killed();
    let served = office.serve(&["--rate", "200"]);
    let view = office.view(&served, "staff").await;
    assert_eq!(
        (&view["state"], &view["rows"], &view["issued"]),
        (&json!("interrupted"), &json!(8), &json!(0))
    );
    assert!(view["reason"].as_str().unwrap().ends_with("Upload the file again"), "{view}");
    let list = office.people.get(&served, "boss", "/v1/batches").await.expect(200).json();
    assert_eq!(list["batches"][0]["state"], "interrupted");
    let refused = office.approve(&served, "boss", "staff", &digest).await.expect(409);
    assert!(refused.text.contains("Upload the file again"), "{}", refused.text);
    assert_eq!(office.creates(), 0);
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let again = digest_of(&office.view(&served, "staff").await);
    assert_eq!(again, digest, "the same file, and the same options");
    office.approve(&served, "boss", "staff", &again).await.expect(200);
    office.until(&served, "staff", "finished").await;
    one_card_each(&office.sandbox.account(), &expected);
    served.killed();
    let served = office.serve(&["--rate", "200"]);
    assert_eq!(office.view(&served, "staff").await["state"], "finished", "nothing says that it still waits");
}

#[tokio::test]
async fn a_server_that_is_killed_while_it_lets_a_batch_begin_issues_it_once() {
    for place in ["batch_recorded", "batch_written", "begun"] {
        let office = Office::new(&[]).await;
        let (rows, expected) = office.manifest(6).await;
        let mut dying = office.people.program.clone();
        dying = dying.with("EMBOSSER_KILL_AT", &format!("{place}:1"));
        let served = Served::start(&dying, &["--rate", "200"]);
        office.upload(&served, "clerk", "staff", &rows).await.expect(202);
        let digest = digest_of(&office.view(&served, "staff").await);
        let (bearer, body) =
            (format!("Bearer {}", office.people.tokens["boss"]), json!({"digest": digest}).to_string());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        // It may be answered, or the answer be lost.
        let _ = served.try_ask(Method::POST, "/v1/batches/staff/approve", &headers, body.into()).await;
        let (code, _) = served.ended().await;
        assert_eq!(code, None, "{place}: it was killed");
        let served = office.serve(&["--rate", "200"]);
        let view = office.view(&served, "staff").await;
        assert_eq!(view["state"], "interrupted", "{place}: {view}");
        let reason = view["reason"].as_str().unwrap_or("");
        let nothing = reason.contains("nothing of it was issued");
        assert_eq!(nothing, place == "batch_recorded", "{place}: {reason}");
        let deeds = office.people.deeds(&served).await;
        assert!(
            deeds.contains(&("boss".into(), "approve".into(), "batch_approved".into())),
            "{place}: {deeds:?}"
        );
        office.upload(&served, "clerk", "staff", &rows).await.expect(202);
        let digest = digest_of(&office.view(&served, "staff").await);
        office.approve(&served, "boss", "staff", &digest).await.expect(200);
        office.until(&served, "staff", "finished").await;
        one_card_each(&office.sandbox.account(), &expected);
    }
}

#[tokio::test]
async fn nothing_waits_for_longer_than_it_may() {
    // A second and a half.
    let office = Office::new(&[("EMBOSSER__APPROVAL__HOURS", "0.000416")]).await;
    let (rows, _) = office.manifest(4).await;
    let served = office.serve(&["--rate", "200"]);
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let digest = digest_of(&office.view(&served, "staff").await);
    let view = office.until(&served, "staff", "expired").await;
    assert!(view["reason"].as_str().unwrap().contains("approval.hours"), "{view}");
    office.approve(&served, "boss", "staff", &digest).await.expect(409);
    let done = office.people.deeds(&served).await;
    assert!(done.contains(&("this server".into(), String::new(), "batch_expired".into())), "{done:?}");
    assert_eq!(office.creates(), 0);
}

#[tokio::test]
async fn rows_that_were_issued_meanwhile_get_no_second_cards() {
    let office = Office::new(&[]).await;
    let served = office.serve(&["--rate", "4"]);
    let rows: Vec<(String, String)> =
        (1..=8).map(|number| (format!("r{number}"), format!("ich_{number}"))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(row, person)| (row.as_str(), person.as_str())).collect();
    let more = [&rows[..], &[("r9", "ich_9")]].concat();
    for (name, rows) in [("june", &rows[..]), ("again", &rows), ("more", &more)] {
        office.upload(&served, "clerk", name, &csv(rows)).await.expect(202);
    }
    let digests: Vec<String> = {
        let mut digests = Vec::new();
        for name in ["june", "again", "more"] {
            digests.push(digest_of(&office.view(&served, name).await));
        }
        digests
    };
    office.approve(&served, "boss", "june", &digests[0]).await.expect(200);
    // While they are being issued, and once they are.
    let refused = office.approve(&served, "boss", "again", &digests[1]).await.expect(409).json();
    assert_eq!(refused["code"], "issued_before", "{refused}");
    office.until(&served, "june", "finished").await;
    let refused = office.approve(&served, "boss", "again", &digests[1]).await.expect(409).json();
    assert_eq!(refused["code"], "issued_before", "{refused}");
    assert_eq!(office.view(&served, "again").await["state"], "awaiting_approval", "it can be rejected");
    // Of the one with a row more, only that row is new.
    office.approve(&served, "boss", "more", &digests[2]).await.expect(200);
    let view = office.until(&served, "more", "finished").await;
    assert_eq!((&view["issued"], &view["known_before"]), (&json!(9), &json!(8)));
    assert_eq!(office.sandbox.account().cards.len(), 9);
}

#[tokio::test]
async fn what_waits_takes_memory_and_says_so() {
    let office = Office::new(&[("EMBOSSER__HTTP__HELD_MIB_MAX", "1")]).await;
    let (rows, _) = office.manifest(900).await;
    let served = office.serve(&["--rate", "200"]);
    let mut refused = None;
    for number in 0..10 {
        let answer = office.upload(&served, "clerk", &format!("batch-{number}"), &rows).await;
        if answer.status.as_u16() != 202 {
            refused = Some((number, answer.expect(413).text));
            break;
        }
    }
    let (number, said) = refused.expect("ten such batches do not fit into a MiB");
    assert!(said.contains(&format!("{number} batches that wait for their approval")), "{said}");
    office
        .people
        .post(&served, "boss", "/v1/batches/batch-0/reject", json!({"reason": "room"}))
        .await
        .expect(200);
    office.upload(&served, "clerk", "next", &rows).await.expect(202);
    assert_eq!(office.creates(), 0);
}

#[tokio::test]
async fn no_job_passes_by_the_second_look_unless_that_is_set() {
    let job =
        json!({"id": "payroll/1", "card": {"cardholder": "ich_9", "type": "virtual", "currency": "eur"}});
    for (jobs, status) in [("false", 403), ("true", 202)] {
        let office = Office::new(&[("EMBOSSER__APPROVAL__JOBS", jobs)]).await;
        let served = office.serve(&["--rate", "200"]);
        let answer = office.people.post(&served, "clerk", "/v1/jobs", job.clone()).await.expect(status);
        if status == 403 {
            assert_eq!(answer.json()["code"], "approval_required");
            assert_eq!(office.creates(), 0);
        }
        let server = office.people.get(&served, "boss", "/v1/server").await.expect(200).json();
        assert_eq!(server["approval_required"], true);
    }
    // Without tokens nobody could tell who approves what.
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__APPROVAL__REQUIRED", "true");
    let output = program.run(&["serve", "--listen", "127.0.0.1:0"]).await;
    expect_exit(&output, 2);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("approval.required needs tokens"), "{said}");
}

#[tokio::test]
async fn a_stream_follows_a_batch_from_its_wait_to_its_end() {
    let office = Office::new(&[]).await;
    let (rows, _) = office.manifest(6).await;
    let served = office.serve(&["--rate", "200"]);
    office.upload(&served, "clerk", "staff", &rows).await.expect(202);
    let digest = digest_of(&office.view(&served, "staff").await);
    let url = format!("{}/v1/batches/staff/events", served.url);
    let request = support::http_client().get(url).bearer_auth(&office.people.tokens["boss"]);
    let mut stream = request.send().await.unwrap().error_for_status().unwrap();
    let mut text = String::from_utf8(stream.chunk().await.unwrap().unwrap().into()).unwrap();
    office.approve(&served, "boss", "staff", &digest).await.expect(200);
    let rest = async {
        while let Some(more) = stream.chunk().await.unwrap() {
            text += &String::from_utf8(more.into()).unwrap();
        }
    };
    tokio::time::timeout(WAIT_MAX, rest).await.expect("the stream does not end");
    assert!(text.contains("awaiting_approval") && text.contains("event: ended"), "{text}");
    let last = text.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&last["state"], &last["issued"]), (&json!("finished"), &json!(6)));
}
