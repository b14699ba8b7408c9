//! Promise: whoever decides about a batch sees what it would do, row by row and without a PIN; what was done to it and to its
//! cards since stands with it; and why rows were refused, and whose they are, is told to whoever has their file.

use crate::support;

use embosser::sandbox::{Options, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};
use support::Program;
use support::serve::{Answer, Served};
use support::tokens::{People, people};
use support::verdict::jwe;

struct Office {
    _directory: tempfile::TempDir,
    sandbox: Sandbox,
    people: People,
}

impl Office {
    async fn new(options: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let mut program = Program::new(directory.path(), &sandbox);
        for (name, value) in options {
            program = program.with(name, value);
        }
        let who: [(&str, &[&str]); 3] = [
            ("clerk", &["submit", "read"]),
            ("boss", &["approve", "read"]),
            ("ops", &["operate", "read", "submit"]),
        ];
        let people = people(program, &who).await;
        Self { _directory: directory, sandbox, people }
    }

    async fn upload(&self, served: &Served, query: &str, csv: &str) -> Answer {
        self.people.upload(served, "clerk", &format!("/v1/batches?name=staff{query}"), csv.as_bytes()).await
    }

    async fn get(&self, served: &Served, path: &str) -> Value {
        self.people.get(served, "boss", path).await.expect(200).json()
    }

    async fn until_finished(&self, served: &Served, batch: &str) -> Value {
        let began = std::time::Instant::now();
        loop {
            let view = self.get(served, &format!("/v1/batches/{batch}")).await;
            if view["state"] == "finished" {
                return view;
            }
            assert!(began.elapsed() < support::issuing::RUN_MAX, "never ended: {view}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// A form with an upload and what goes before it.
fn form(fields: &[(&str, &str)], file: &str) -> (Vec<u8>, &'static str) {
    let fields = fields.iter().map(|(name, text)| {
        format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n")
    });
    let file = format!(
        "--edge\r\nContent-Disposition: form-data; name=\"manifest\"; filename=\"staff.csv\"\r\n\r\n{file}\r\n--edge--\r\n"
    );
    ((fields.collect::<String>() + &file).into_bytes(), "multipart/form-data; boundary=edge")
}

const APPROVAL: [(&str, &str); 1] = [("EMBOSSER__APPROVAL__REQUIRED", "true")];
const HEADER: &str = "row_id,cardholder[name],cardholder[email],cardholder[billing][address][line1],\
    cardholder[billing][address][city],cardholder[billing][address][postal_code],cardholder[billing][address][country],type,currency,\
    pin[encrypted_number],shipping[name],shipping[address][line1],shipping[address][city],shipping[address][postal_code],\
    shipping[address][country],spending_controls[spending_limits][0][amount],spending_controls[spending_limits][0][interval]";

/// A row of somebody who is to get a card, sent home or not at all.
fn person(number: usize, name: &str, physical: bool, pin: &str) -> String {
    let (kind, currency) = if physical { ("physical", "jpy") } else { ("virtual", "eur") };
    let home = if physical { format!("{name},Lane {number},Dublin,D02 X285,IE") } else { ",,,,".to_owned() };
    format!(
        "E{number},{name},p{number}@example.com,High Street 1,Dublin,D02 X285,IE,{kind},{currency},{pin},{home},50000,monthly\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_wait_are_read_page_by_page_and_hold_no_pin() {
    let office = Office::new(&APPROVAL).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let pin = jwe();
    let mut file = format!("{HEADER}\n");
    for number in 1..=120 {
        file += &match number {
            7 => person(7, "Zoë Physical", true, &pin),
            50 => person(50, "Bob Bad", false, "").replace("virtual", "plastic"),
            90 => {
                person(90, "Ann Twice", false, "").replace("p90@", "p89@").replace("Ann Twice", "Person 89")
            }
            _ => person(number, &format!("Person {number}"), false, ""),
        };
    }
    office.upload(&served, "&skip_invalid=true", &file).await.expect(202);
    let view = office.get(&served, "/v1/batches/staff").await;
    let held = &view["held"];
    assert_eq!((&held["left_out"], &held["plan"]["rows"]), (&json!(1), &json!(119)), "{held}");
    assert_eq!(held["changes"], json!(["1 row with problems left out"]));

    // Page by page, in the file's order.
    let (mut rows, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer =
            office.people.get(&served, "boss", &format!("/v1/batches/staff/held-rows?limit=50{after}")).await;
        let answer = answer.expect(200);
        assert!(!answer.text.contains("eyJ") && !answer.text.contains(&pin), "a PIN's ciphertext came back");
        let page = answer.json();
        assert_eq!(page["digest"], held["digest"]);
        rows.extend(page["rows"].as_array().unwrap().clone());
        pages += 1;
        match page["next"].as_u64() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((rows.len(), pages), (120, 3));
    assert!(
        rows.iter()
            .zip(1..)
            .all(|(row, number)| row["row"] == number && row["row_id"] == format!("E{number}"))
    );
    let zoe = &rows[6];
    assert_eq!(
        (&zoe["person"], &zoe["makes"], &zoe["destination"], &zoe["pin"]),
        (
            &json!("Zoë Physical"),
            &json!("physical_card"),
            &json!("Lane 7, D02 X285, Dublin, IE"),
            &json!("file")
        ),
        "{zoe}"
    );
    assert_eq!(zoe["amounts"], json!([{"amount": "50,000 JPY", "interval": "monthly"}]));
    let first = &rows[0];
    assert_eq!(
        (&first["makes"], &first["destination"], &first["pin"]),
        (&json!("virtual_card"), &Value::Null, &Value::Null)
    );
    assert_eq!(first["amounts"], json!([{"amount": "500.00 EUR", "interval": "monthly"}]));
    let bad = &rows[49];
    assert_eq!((&bad["left_out"], &bad["makes"]), (&json!(true), &Value::Null));
    assert_eq!(
        (&bad["problems"][0]["column"], &bad["problems"][0]["found"]),
        (&json!("type"), &json!("plastic"))
    );
    // What is only seen beside other rows is told with the row, too.
    assert!(!rows[89]["warnings"].as_array().unwrap().is_empty(), "{}", rows[89]);

    let some = async |query: &str| {
        let page = office.get(&served, &format!("/v1/batches/staff/held-rows?{query}")).await;
        let ids =
            page["rows"].as_array().unwrap().iter().map(|row| row["row_id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(some("only=left_out").await, ["E50"]);
    assert_eq!(some("q=zo%C3%AB").await, ["E7"]);
    assert_eq!(some("q=lane%207").await, ["E7"]);
    assert!(some("only=warned&limit=500").await.contains(&"E90".to_owned()));
    for wrong in ["limit=0", "limit=501", "only=all", "after=x"] {
        office.people.get(&served, "boss", &format!("/v1/batches/staff/held-rows?{wrong}")).await.expect(400);
    }
    // Not for everybody, and not for longer than they wait.
    office.people.get(&served, "clerk", "/v1/batches/staff/held-rows").await.expect(403);
    office.people.get(&served, "boss", "/v1/batches/nobody/held-rows").await.expect(404);
    let digest = json!({"digest": held["digest"]});
    office.people.post(&served, "boss", "/v1/batches/staff/approve", digest).await.expect(200);
    let view = office.until_finished(&served, "staff").await;
    // One PIN is encrypted under another key than the sandbox's.
    assert_eq!((&view["issued"], &view["refused"]), (&json!(118), &json!(1)), "{view}");
    office.people.get(&served, "boss", "/v1/batches/staff/held-rows").await.expect(409);
}

const CARDS: &str =
    "row_id,cardholder,type,currency\na,ich_1,virtual,eur\nb,ich_2,virtual,eur\nc,ich_3,virtual,eur\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_took_the_place_of_another_is_told_and_how_it_differs_from_its_file() {
    let office = Office::new(&APPROVAL).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let first = office.upload(&served, "", CARDS).await.expect(202).json();
    assert_eq!(first["replaced"], Value::Null);
    let seen = first["held"]["digest"].clone();
    // The same file again is the same batch; with a mended cell it is another.
    assert_eq!(office.upload(&served, "", CARDS).await.expect(202).json()["replaced"], Value::Null);
    let (body, kind) = form(&[("edits", r#"[{"line":3,"column":2,"value":"ich_9"}]"#)], CARDS);
    let bearer = format!("Bearer {}", office.people.tokens["clerk"]);
    let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
    let path = "/v1/batches?name=staff&second_cards=true";
    let second = served.ask(Method::POST, path, &headers, body).await.expect(202).json();
    let replaced = second["replaced"].as_str().unwrap();
    assert!(replaced.contains("sent by clerk, waited for its approval and is dropped"), "{replaced}");
    assert_eq!(second["held"]["changes"], json!(["1 cell mended on the way", "with second cards"]));
    // Who had looked at the first is told so, and approves nothing that they did not see.
    let approve = async |digest: &Value| {
        let path = "/v1/batches/staff/approve";
        office.people.post(&served, "boss", path, json!({"digest": digest})).await
    };
    let refused = approve(&seen).await.expect(409);
    assert!(refused.text.contains("the file was replaced"), "{}", refused.text);
    assert_eq!(office.sandbox.account().creates, 0);
    let rows = office.get(&served, "/v1/batches/staff/held-rows?q=ich_9").await;
    assert_eq!(rows["rows"][0]["row_id"], "b", "what was mended is what is seen");
    approve(&second["held"]["digest"]).await.expect(200);
    office.until_finished(&served, "staff").await;
    let log = office.get(&served, "/v1/audit?batch=staff").await;
    let told =
        log["entries"].as_array().unwrap().iter().find(|entry| entry["action"] == "batch_held").unwrap();
    assert_eq!(told["detail"], "1 cell mended on the way, with second cards");
}

/// A column of names that no card gets still tells whoever approves whose each card is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_no_card_gets_are_told_to_whoever_approves() {
    let office = Office::new(&APPROVAL).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let columns = "[columns]\n\"Staff no\" = \"row_id\"\nName = \"\"\nHolder = \"cardholder\"\n[defaults]\ntype = \"virtual\"\ncurrency = \"eur\"\n";
    let file = "Staff no,Name,Holder\n7,Ada Lovelace,ich_1\n8,,ich_2\n9,eyJhbGci.x,ich_3\n";
    let (body, kind) = form(&[("columns", columns)], file);
    let bearer = format!("Bearer {}", office.people.tokens["clerk"]);
    let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
    served.ask(Method::POST, "/v1/batches?name=staff", &headers, body).await.expect(202);
    let rows = office.get(&served, "/v1/batches/staff/held-rows").await["rows"].clone();
    let persons: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["person"].clone()).collect();
    // Without a name it is the cardholder; what may be a PIN is never told.
    assert_eq!(persons, ["Ada Lovelace", "ich_2", "ich_3"], "{rows}");
    let found = office.get(&served, "/v1/batches/staff/held-rows?q=lovelace").await;
    assert_eq!(found["rows"].as_array().unwrap().len(), 1, "{found}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_begins_before_its_time_says_that_it_waited() {
    let office = Office::new(&[]).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let start = jiff::Timestamp::now() + std::time::Duration::from_secs(3600);
    let waits = office.upload(&served, &format!("&start={start}"), CARDS).await.expect(202).json();
    assert_eq!(waits["state"], "scheduled");
    let begun = office.upload(&served, "", CARDS).await.expect(202).json();
    let replaced = begun["replaced"].as_str().unwrap();
    assert!(replaced.contains("waited for its start at") && replaced.contains("at once"), "{replaced}");
    let view = office.until_finished(&served, "staff").await;
    assert_eq!((&view["issued"], &view["replaced"]), (&json!(3), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cards_that_were_cancelled_since_say_so_in_their_own_batch() {
    let office = Office::new(&[]).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    office.upload(&served, "", CARDS).await.expect(202);
    office.until_finished(&served, "staff").await;
    let rows = async || office.get(&served, "/v1/batches/staff/rows").await["rows"].clone();
    let made = rows().await;
    assert!(made.as_array().unwrap().iter().all(|row| row["cancelled_by"].is_null()), "{made}");
    // Somebody left, by a file of its own; another one's card is only blocked.
    let (a, b) = (made[0]["card_id"].as_str().unwrap(), made[1]["card_id"].as_str().unwrap());
    let left = format!("row_id,card,status,cancellation_reason\nx,{a},canceled,lost\ny,{b},inactive,\n");
    let path = "/v1/batches?name=left&yes_cancel=1";
    office.people.upload(&served, "clerk", path, left.as_bytes()).await.expect(202);
    office.until_finished(&served, "left").await;
    let by = |rows: &Value| {
        rows.as_array().unwrap().iter().map(|row| row["cancelled_by"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(by(&rows().await), [json!("left/x"), Value::Null, Value::Null]);
    // Then the whole batch is undone, but for that one.
    let path = "/v1/batches/staff/cancel-cards?yes_cancel=2";
    office.people.post(&served, "ops", path, Value::Null).await.expect(202);
    office.until_finished(&served, "staff.cancel").await;
    let now = rows().await;
    assert!(by(&now).iter().all(|job| !job.is_null()), "{now}");
    assert_eq!(by(&now)[1], "staff.cancel/b");
    let outcomes: Vec<_> = now.as_array().unwrap().iter().map(|row| row["outcome"].clone()).collect();
    assert_eq!(outcomes, ["issued", "issued", "issued"], "what a row did is not written anew");
    // Its own undo has cancelled two.
    let view = office.get(&served, "/v1/batches/staff").await;
    assert_eq!((&view["issued"], &view["cancelled_cards"]), (&json!(3), &json!(2)));
    let list = office.get(&served, "/v1/batches").await;
    let listed = list["batches"].as_array().unwrap().iter().find(|batch| batch["batch"] == "staff").unwrap();
    assert_eq!(listed["cancelled_cards"], 2);
    let path = "/v1/batches/staff/results.csv";
    let results = office.people.get(&served, "boss", path).await.expect(200).text;
    assert!(results.lines().next().unwrap().ends_with(",eta,cancelled_by"), "{results}");
    assert_eq!(results.lines().filter(|line| line.contains(",issued,")).count(), 3);
    assert!(results.lines().any(|line| line.ends_with(",staff.cancel/c")), "{results}");
    // The same file again makes no card in the place of one that was cancelled.
    office.upload(&served, "", CARDS).await.expect(202);
    office.until_finished(&served, "staff").await;
    assert_eq!(office.sandbox.account().creates, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_rows_were_refused_and_whose_they_are_is_told() {
    let office = Office::new(&[]).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let old = support::verdict::jwe();
    office.sandbox.rotate_key();
    let file =
        format!("{HEADER}\n{}{}", person(1, "Ada Lovelace", false, ""), person(2, "Bob Stale", false, &old));
    office.upload(&served, "", &file).await.expect(202);
    office.until_finished(&served, "staff").await;
    let reasons = office.get(&served, "/v1/batches/staff/refusals").await;
    let reason = &reasons["reasons"][0];
    assert_eq!((&reason["rows"], &reason["takes"]), (&json!(1), &json!("new_pin")), "{reasons}");
    let names =
        office.people.upload(&served, "clerk", "/v1/batches/staff/names", file.as_bytes()).await.expect(200);
    assert!(!names.text.contains("eyJ"), "{}", names.text);
    let names = names.json();
    let mut bob = names["names"][1].clone();
    assert!(
        bob["message"].take().as_str().is_some_and(|message| message.contains("encrypt again")),
        "{names}"
    );
    let refused = json!({"row": 2, "line": 3, "row_id": "E2", "person": "Bob Stale", "outcome": "refused", "code": "stale_key", "message": null});
    assert_eq!((&bob, &names["names"][0]["outcome"]), (&refused, &json!("issued")), "{names}");
    assert_eq!(names["is_the_file"], true, "{names}");
    // Whoever may look at the batch may know it by names; of the file nothing is kept.
    let seen = office.people.upload(&served, "boss", "/v1/batches/staff/names", file.as_bytes()).await;
    assert_eq!(seen.expect(200).json()["names"], names["names"]);
    // Somebody of whom the batch knows nothing, as of a row that was left out of it.
    let more = format!("{file}{}", person(3, "Cyd New", false, ""));
    let seen = office.people.upload(&served, "boss", "/v1/batches/staff/names", more.as_bytes()).await;
    let seen = seen.expect(200).json();
    assert_eq!(
        (&seen["names"][2]["person"], &seen["names"][2]["outcome"]),
        (&json!("Cyd New"), &json!(null))
    );
    assert_eq!((&seen["names"][1]["outcome"], &seen["is_the_file"]), (&json!("refused"), &json!(false)));
    // A staff number that stands there twice: whose of the two the batch's row is cannot be known.
    let twice = format!("{file}{}", person(1, "Eve Twice", false, ""));
    let seen = office.people.upload(&served, "boss", "/v1/batches/staff/names", twice.as_bytes()).await;
    let seen = seen.expect(200).json();
    assert_eq!((&seen["ambiguous"], &seen["names"][0]["person"]), (&json!(["E1"]), &json!("Bob Stale")));
    assert_eq!(seen["names"].as_array().unwrap().len(), 1, "{seen}");
    // The very file, of which only whoever uploaded it knows which column has the staff numbers: its rows are known all the same.
    let short =
        "Kürzel,Full name,cardholder,type,currency\nK1,Ada,ich_1,virtual,eur\nK2,Bob,ich_2,virtual,eur\n";
    let boundary = "----of-the-test";
    let columns = "[columns]\n\"Kürzel\" = \"row_id\"\n\"Full name\" = \"\"\n";
    let form = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"columns\"\r\n\r\n{columns}\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"manifest\"; filename=\"short.csv\"\r\nContent-Type: text/csv\r\n\r\n{short}\r\n--{boundary}--\r\n"
    );
    let bearer = format!("Bearer {}", office.people.tokens["clerk"]);
    let kind = format!("multipart/form-data; boundary={boundary}");
    let headers = [("authorization", bearer.as_str()), ("content-type", kind.as_str())];
    served.ask(Method::POST, "/v1/batches?name=short", &headers, form.into_bytes()).await.expect(202);
    office.until_finished(&served, "short").await;
    let seen = office.people.upload(&served, "clerk", "/v1/batches/short/names", short.as_bytes()).await;
    let seen = seen.expect(200).json();
    let told = |row: &Value| (row["row_id"].clone(), row["person"].clone(), row["outcome"].clone());
    let told: Vec<_> = seen["names"].as_array().unwrap().iter().map(told).collect();
    let issued = |person: &str| (json!(null), json!(person), json!("issued"));
    assert_eq!(told, [issued("Ada"), issued("Bob")], "{seen}");
    // Of a file that has nothing to do with the batch nothing is told.
    let other = format!("{HEADER}\n{}", person(77, "Dan Other", false, ""));
    let seen = office.people.upload(&served, "boss", "/v1/batches/staff/names", other.as_bytes()).await;
    assert_eq!(seen.expect(200).json()["is_known"], false);
    office.people.upload(&served, "clerk", "/v1/batches/staff/names", CARDS.as_bytes()).await.expect(422);
    office.people.upload(&served, "clerk", "/v1/batches/nobody/names", file.as_bytes()).await.expect(404);
    // A batch that a command began, which the log does not have: from which file its rows came is not known, whatever came since.
    let folder = tempfile::tempdir().unwrap();
    let (path, rows) =
        (folder.path().join("old.csv"), format!("{HEADER}\n{}", person(7, "Cyd Early", false, "")));
    std::fs::write(&path, &rows).unwrap();
    support::expect_exit(&office.people.program.run(&["issue", path.to_str().unwrap()]).await, 0);
    office.people.upload(&served, "clerk", "/v1/batches?name=old", rows.as_bytes()).await.expect(202);
    office.until_finished(&served, "old").await;
    let names =
        office.people.upload(&served, "clerk", "/v1/batches/old/names", rows.as_bytes()).await.expect(200);
    let names = names.json();
    assert_eq!(
        (&names["is_the_file"], &names["names"][0]["person"]),
        (&json!(false), &json!("Cyd Early")),
        "{names}"
    );
}

#[tokio::test]
async fn what_is_done_is_written_down_before_it_takes_effect_and_is_found_by_a_part_of_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let office = Office::new(&[("EMBOSSER__HTTP__COLUMNS_DIRECTORY", folder.path().to_str().unwrap())]).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let keep = async |text: &str| {
        let bearer = format!("Bearer {}", office.people.tokens["clerk"]);
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/toml")];
        served.ask(Method::PUT, "/v1/columns/payroll", &headers, text.as_bytes().to_vec()).await
    };
    keep("[columns]\nName = \"cardholder[name]\"\n").await.expect(200);
    // The second is refused, and that it was tried stands there: it was written before.
    keep("[columns]\nName = \"\"\n").await.expect(409);
    keep(&"#".repeat((512 << 10) + 1)).await.expect(413);
    let found = async |query: &str| {
        let log = office.get(&served, &format!("/v1/audit?{query}")).await;
        log["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["action"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(found("q=PAYR").await, ["columns_kept", "columns_kept"]);
    assert!(
        std::fs::read_to_string(folder.path().join("payroll.toml")).unwrap().contains("cardholder[name]")
    );
    office.upload(&served, "", CARDS).await.expect(202);
    assert_eq!(found("q=taf").await, ["batch_begun"]);
    assert_eq!(found("q=Clerk&batch=staff").await, ["batch_begun"]);
    assert!(found("q=nobody%25").await.is_empty());
    let long = format!("/v1/audit?q={}", "x".repeat(256));
    office.people.get(&served, "boss", &long).await.expect(400);
}

/// A file that is sent once more says what is left of it, and a card that is cancelled says whose row made it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_to_do_and_whose_cards_are_changed_is_told() {
    let office = Office::new(&APPROVAL).await;
    let served = Served::start(&office.people.program, &["--rate", "200"]);
    let approved = async |batch: &str| {
        let held = office.get(&served, &format!("/v1/batches/{batch}")).await["held"].take();
        let digest = json!({"digest": held["digest"]});
        office
            .people
            .post(&served, "boss", &format!("/v1/batches/{batch}/approve"), digest)
            .await
            .expect(200);
        office.until_finished(&served, batch).await;
        held
    };
    let rows: String =
        (1..=3).map(|number| person(number, &format!("Person {number}"), number == 1, "")).collect();
    let file = format!("{HEADER}\n{rows}");
    office.upload(&served, "", &file).await.expect(202);
    let first = approved("staff").await;
    let work = |of: &Value| {
        ["rows", "physical", "virtual", "cardholders", "cancels"].map(|name| of[name].as_u64().unwrap())
    };
    assert_eq!(work(&first["plan"]["to_do"]), [3, 1, 2, 3, 0], "{first}");
    // The second card of one of them, and somebody new.
    let second_card = person(2, "Person 2", false, "").replace("E2,", "E4,");
    let more = format!("{file}{second_card}{}", person(5, "Person 5", true, ""));
    office.upload(&served, "", &more).await.expect(202);
    let held = office.get(&served, "/v1/batches/staff/held-rows?after=1").await["rows"].take();
    let done: Vec<_> = held.as_array().unwrap().iter().map(|row| row["done"].clone()).collect();
    assert_eq!(done, [true, true, false, false], "{held}");
    let second = approved("staff").await;
    let plan = &second["plan"];
    assert_eq!((&plan["rows"], &plan["done_before"]), (&json!(5), &json!(3)), "{plan}");
    assert_eq!(work(&plan["to_do"]), [2, 1, 1, 1, 0], "{plan}");
    assert_eq!(office.sandbox.account().cardholders.len(), 4);
    // Under another name there is nothing to do but second cards.
    let check = async |name: &str| {
        let path = format!("/v1/checks?name={name}");
        office.people.upload(&served, "clerk", &path, more.as_bytes()).await.expect(200).json()
    };
    let other = check("other").await;
    assert_eq!((work(&other["to_do"]), work(&other["second_cards"])), ([0; 5], [5, 2, 3, 0, 0]), "{other}");
    assert_eq!((&other["issued_as"], &check("staff").await["issued_as"]), (&json!("staff"), &Value::Null));

    let made = office.get(&served, "/v1/batches/staff/rows").await["rows"].take();
    let card = |row: usize| made[row]["card_id"].as_str().unwrap();
    let left = format!("card,status\n{},canceled\n{},canceled\nic_unknown,canceled\n", card(0), card(4));
    let path = "/v1/batches?name=left&yes_cancel=3";
    office.people.upload(&served, "clerk", path, left.as_bytes()).await.expect(202);
    let held = office.get(&served, "/v1/batches/left/held-rows").await["rows"].take();
    let by = |row: usize| ["batch", "row_id", "last4"].map(|name| held[row]["made_by"][name].clone());
    assert_eq!(by(0), [json!("staff"), json!("E1"), made[0]["last4"].clone()], "{held}");
    assert_eq!(by(1)[1], json!("E5"));
    assert_eq!(held[2]["made_by"], Value::Null);
    let undo = "/v1/batches/staff/cancel-cards?yes_cancel=5";
    office.people.post(&served, "ops", undo, Value::Null).await.expect(202);
    let held = office.get(&served, "/v1/batches/staff.cancel/held-rows").await["rows"].take();
    assert_eq!(held[4]["made_by"]["row_id"], json!("E5"), "{held}");
    let waits = office.get(&served, "/v1/batches/staff.cancel").await["held"].take();
    assert_eq!(work(&waits["plan"]["to_do"]), [5, 0, 0, 0, 5], "{waits}");
}
