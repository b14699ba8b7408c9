//! Promise: an upload is issued whole or not at all, once, and can be watched, paused, resumed and cancelled.

use crate::support;

use calamine::{Reader as _, Xlsx, open_workbook_from_rs};
use embosser::sandbox::{Options, Sandbox};
use serde_json::json;
use support::serve::Served;
use support::{Expected, Program, one_card_each, write_manifest};

pub(super) struct Stage {
    directory: tempfile::TempDir,
    pub(super) sandbox: Sandbox,
    pub program: Program,
}

pub(super) async fn stage(options: Options) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(options).await.unwrap();
    let program = Program::new(directory.path(), &sandbox);
    Stage { directory, sandbox, program }
}

impl Stage {
    pub(super) async fn manifest(&self, name: &str, rows: usize) -> (std::path::PathBuf, Expected) {
        let path = self.directory.path().join(format!("{name}.csv"));
        let expected = write_manifest(&path, &self.sandbox, rows).await;
        (path, expected)
    }
}

/// The cells of a spreadsheet's two sheets, as it is downloaded.
async fn workbook(served: &Served, path: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let answer = support::http_client().get(format!("{}{path}", served.url)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let name = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(name.contains("staff.") && name.ends_with(".xlsx"), "{name}");
    let bytes = answer.bytes().await.unwrap();
    let mut workbook: Xlsx<_> = open_workbook_from_rs(std::io::Cursor::new(bytes)).unwrap();
    let [results, summary] = ["Results", "Summary"].map(|sheet| {
        let sheet = workbook.worksheet_range(sheet).unwrap();
        sheet.rows().map(|row| row.iter().map(ToString::to_string).collect()).collect()
    });
    (results, summary)
}

/// The cells of results as CSV.
fn cells_of(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn every_row_of_an_upload_has_one_card_however_often_it_comes() {
    let stage = stage(Options::default()).await;
    let (file, expected) = stage.manifest("staff", 60).await;
    let served = Served::start(&stage.program, &["--rate", "200"]);
    // Twice at once, then again under way, then again when it has ended.
    let (one, other) = tokio::join!(served.upload_file(&file), served.upload_file(&file));
    assert_eq!(one.headers["location"], "/v1/batches/staff");
    let (one, other) = (one.expect(202).json(), other.expect(202).json());
    assert_eq!((&one["rows"], &one["pins"]), (&json!(60), &json!(48)));
    assert_eq!(one["began_ms"], other["began_ms"], "both are the same batch");
    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!(
        (&view["state"], &view["issued"], &view["waiting"]),
        (&json!("finished"), &json!(60), &json!(0))
    );
    assert_eq!(view["oldest_pin_age_seconds"], json!(null));
    one_card_each(&stage.sandbox.account(), &expected);

    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["issued"], &view["recorded_before"]), (&json!(60), &json!(60)));
    // Under another name these rows would all be new jobs.
    let csv = std::fs::read(&file).unwrap();
    let refused = served.upload("/v1/batches?name=staff2", csv.clone()).await.expect(409).json();
    assert_eq!(refused["type"], "urn:embosser:problem:issued_before");
    one_card_each(&stage.sandbox.account(), &expected);
    served.upload("/v1/batches?name=staff2&second_cards=true", csv).await.expect(202);
    served.until_ended("staff2").await;
    assert_eq!(stage.sandbox.account().cards.len(), 120);

    let results = served.get("/v1/batches/staff/results.csv").await.expect(200);
    assert!(results.headers["content-disposition"].to_str().unwrap().contains("staff.results.csv"));
    assert_eq!(results.text.lines().count(), 61);
    assert!(results.text.lines().skip(1).all(|line| line.contains(",issued,ic_")));
    let (sheet, summary) = workbook(&served, "/v1/batches/staff/results.xlsx").await;
    assert_eq!(sheet, cells_of(&results.text));
    for (name, value) in [("Batch", "staff"), ("Rows", "60"), ("Issued", "60"), ("Refused", "0")] {
        assert!(summary.contains(&vec![name.to_owned(), value.to_owned()]), "{summary:?}");
    }
    let (refused, _) = workbook(&served, "/v1/batches/staff/results.xlsx?outcome=refused").await;
    assert_eq!(refused.len(), 1, "headings alone");
    served.get("/v1/batches/nobody/results.xlsx").await.expect(404);
    // Both say which cards were cancelled since.
    served.post("/v1/batches/staff/cancel-cards?yes_cancel=60").await.expect(202);
    served.until_ended("staff.cancel").await;
    let results = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert_eq!(results.matches("staff.cancel/").count(), 60, "{results}");
    assert_eq!(workbook(&served, "/v1/batches/staff/results.xlsx").await.0, cells_of(&results));
    let (code, _) = served.stopped().await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn an_upload_cancels_cards_only_if_their_number_was_said() {
    let stage = stage(Options::default()).await;
    let (file, _) = stage.manifest("staff", 6).await;
    let served = Served::start(&stage.program, &["--rate", "200"]);
    served.upload_file(&file).await.expect(202);
    served.until_ended("staff").await;
    let mut leavers = "row_id,card,status\n".to_owned();
    for (number, card) in stage.sandbox.account().cards.iter().enumerate() {
        leavers += &format!("{number},{},{}\n", card.id, if number < 4 { "canceled" } else { "inactive" });
    }
    let checked = served.upload("/v1/checks?name=leavers", leavers.clone().into()).await.expect(200).json();
    assert_eq!((&checked["changes"], &checked["cancels"]), (&json!(6), &json!(4)));
    for said in ["", "&yes_cancel=6"] {
        let address = format!("/v1/batches?name=leavers{said}");
        let refused = served.upload(&address, leavers.clone().into()).await.expect(409).json();
        assert_eq!(refused["type"], "urn:embosser:problem:cancels_unsaid");
        assert_eq!(refused["cancels"], json!(4));
        assert_eq!(stage.sandbox.account().changes.len(), 0);
    }
    served.upload("/v1/batches?name=leavers&yes_cancel=4", leavers.into()).await.expect(202);
    let view = served.until_ended("leavers").await;
    assert_eq!(view["issued"], json!(6));
    assert_eq!(stage.sandbox.account().changes.len(), 6);
    served.stopped().await;
}

#[tokio::test]
async fn one_bad_row_and_nothing_is_issued_and_every_problem_is_told() {
    let stage = stage(Options::default()).await;
    let (file, _) = stage.manifest("staff", 5).await;
    let served = Served::start(&stage.program, &["--rate", "200"]);
    let mut csv = std::fs::read(&file).unwrap();
    csv.extend_from_slice(b"r6,ich_1,virtuel,eur,,\nr6,ich_1,virtual,euro,,1234\n");
    for path in ["/v1/batches?name=staff", "/v1/checks"] {
        let problem = served.upload(path, csv.clone()).await.expect(422);
        assert_eq!(problem.headers["content-type"], "application/problem+json");
        let problem = problem.json();
        assert_eq!((&problem["rows"], &problem["invalid_rows"]), (&json!(7), &json!(2)));
        let found: Vec<_> = problem["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|problem| (problem["line"].as_u64().unwrap(), problem["code"].as_str().unwrap().to_owned()))
            .collect();
        let expected = [(7, "not_allowed"), (8, "currency"), (8, "pin_in_clear"), (8, "duplicate_row_id")];
        assert_eq!(found, expected.map(|(line, code)| (line, code.to_owned())), "{problem}");
    }
    served.get("/v1/batches/staff").await.expect(404);
    let header =
        served.upload("/v1/batches?name=a", b"row_id,pin\n1,1234\n".to_vec()).await.expect(422).json();
    assert_eq!(header["problems"][0]["code"], "pin_in_clear");
    assert!(header["detail"].as_str().unwrap().starts_with("the header is wrong"), "{header}");
    for (csv, said) in [("", "empty"), ("a;b\n1;2\n", "names no column"), ("type,currency\n", "no row")] {
        let problem = served.upload("/v1/batches?name=a", csv.as_bytes().to_vec()).await.expect(422).json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(said) && !detail.contains("upload:"), "{detail}");
    }
    assert_eq!(stage.sandbox.account().creates, 0);
    // A check issues nothing even where nothing is wrong.
    let view = served.upload("/v1/checks", std::fs::read(&file).unwrap()).await.expect(200).json();
    assert_eq!((&view["rows"], &view["pins"], &view["virtual"]), (&json!(5), &json!(4), &json!(5)));
    assert_eq!(stage.sandbox.account().creates, 0);
}

#[tokio::test]
async fn a_form_is_taken_and_its_file_names_the_batch() {
    let stage = stage(Options::default()).await;
    let (file, expected) = stage.manifest("staff", 10).await;
    let served = Served::start(&stage.program, &["--rate", "200"]);
    let csv = std::fs::read(&file).unwrap();
    let mut body = b"--line\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--line\r\n\
        Content-Disposition: form-data; name=\"manifest\"; filename=\"staff.csv\"\r\n\
        Content-Type: application/vnd.ms-excel\r\n\r\n"
        .to_vec();
    body.extend_from_slice(&csv);
    body.extend_from_slice(b"\r\n--line--\r\n");
    let form = [("content-type", "multipart/form-data; boundary=line")];
    let view = served.ask(reqwest::Method::POST, "/v1/batches", &form, body.clone()).await.expect(202).json();
    assert_eq!(view["batch"], "staff");
    served.until_ended("staff").await;
    one_card_each(&stage.sandbox.account(), &expected);
    // Cut off in the middle, it is no upload.
    body.truncate(body.len() / 2);
    served.ask(reqwest::Method::POST, "/v1/batches?name=b", &form, body).await.expect(400);
    served.get("/v1/batches/b").await.expect(404);
    served.ask(reqwest::Method::POST, "/v1/batches", &[("content-type", "text/csv")], csv).await.expect(400);
    let html = [("content-type", "text/html")];
    served.ask(reqwest::Method::POST, "/v1/batches?name=b", &html, b"<p>".to_vec()).await.expect(415);
}

#[tokio::test]
async fn a_paused_batch_begins_nothing_and_a_resumed_one_ends() {
    let stage = stage(Options::default()).await;
    let (file, expected) = stage.manifest("staff", 80).await;
    let served = Served::start(&stage.program, &["--rate", "50"]);
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(5)).await;
    let view = served.post("/v1/batches/staff/pause").await.expect(200).json();
    assert_eq!((&view["state"], &view["eta_seconds"]), (&json!("paused"), &json!(null)));
    // What had begun ends; then nothing moves, for longer than the rest would take.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let creates = stage.sandbox.account().creates;
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(stage.sandbox.account().creates, creates);
    assert!(creates < 80);
    assert!(served.get("/v1/batches/staff").await.json()["oldest_pin_age_seconds"].as_f64() > Some(2.0));
    served.post("/v1/batches/staff/pause").await.expect(200);
    served.post("/v1/batches/staff/resume").await.expect(200);
    let view = served.until_ended("staff").await;
    assert_eq!(view["state"], "finished");
    one_card_each(&stage.sandbox.account(), &expected);
    served.post("/v1/batches/staff/resume").await.expect(409);
    served.post("/v1/batches/nobody/pause").await.expect(404);
}

#[tokio::test]
async fn a_cancelled_batch_refuses_what_has_not_begun_and_the_same_upload_issues_it() {
    let stage = stage(Options::default()).await;
    let (file, expected) = stage.manifest("staff", 400).await;
    let served = Served::start(&stage.program, &["--rate", "50"]);
    served.upload_file(&file).await.expect(202);
    served.until("staff", |view| view["issued"].as_u64() > Some(5)).await;
    served.post("/v1/batches/staff/pause").await.expect(200);
    served.post("/v1/batches/staff/cancel").await.expect(200);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["state"], &view["waiting"]), (&json!("cancelled"), &json!(0)));
    let (issued, refused) = (view["issued"].as_u64().unwrap(), view["refused"].as_u64().unwrap());
    assert_eq!(issued + refused, 400);
    // They stand apart from those that Stripe or embosser refused; as the ledger has them, too.
    assert_eq!(view["cancelled_rows"], refused, "{view}");
    assert_eq!(stage.sandbox.account().cards.len() as u64, issued, "what had begun ended with its card");
    // Page by page, every refused row says why.
    let (mut seen, mut after) = (0, String::new());
    loop {
        let path = format!("/v1/batches/staff/rows?outcome=refused&limit=100{after}");
        let page = served.get(&path).await.expect(200).json();
        let rows = page["rows"].as_array().unwrap();
        assert!(rows.iter().all(|row| row["code"] == "cancelled" && row["outcome"] == "refused"));
        seen += rows.len() as u64;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, refused);
    let csv = served.get("/v1/batches/staff/results.csv?outcome=refused").await.expect(200).text;
    assert_eq!(csv.lines().count() as u64, refused + 1);
    served.killed();

    let served = Served::start(&stage.program, &["--rate", "400"]);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!((&view["refused"], &view["cancelled_rows"]), (&json!(refused), &json!(refused)), "{view}");
    let status = async |format: &str| {
        let told = stage.program.run(&["status", "staff", "--format", format]).await;
        String::from_utf8(told.stdout).unwrap()
    };
    let told: serde_json::Value = serde_json::from_str(&status("json").await).unwrap();
    assert_eq!(
        (&told[0]["refused"], &told[0]["cancelled_rows"]),
        (&json!(refused), &json!(refused)),
        "{told}"
    );
    let told = status("text").await;
    assert!(
        told.contains(&format!(" {refused} refused ({refused} of them cancelled), 0 unresolved")),
        "{told}"
    );
    served.upload_file(&file).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(400)));
    assert_eq!(view["cancelled_rows"], 0, "{view}");
    one_card_each(&stage.sandbox.account(), &expected);
}

#[tokio::test]
async fn events_tell_the_way_to_the_end_and_then_end() {
    let stage = stage(Options::default()).await;
    let (file, _) = stage.manifest("staff", 60).await;
    let served = Served::start(&stage.program, &["--rate", "30"]);
    served.upload_file(&file).await.expect(202);
    let stream = served.get("/v1/batches/staff/events").await.expect(200);
    assert_eq!(stream.headers["content-type"], "text/event-stream");
    let views: Vec<serde_json::Value> = stream
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert!(views.len() >= 3, "{}", stream.text);
    assert!(views.is_sorted_by_key(|view| view["issued"].as_u64()));
    assert_eq!(views.last().unwrap()["state"], "finished");
    assert_eq!(stream.text.matches("event: ended").count(), 1);
    let rate = views[views.len() - 2]["rate_per_second"].as_f64().unwrap();
    assert!((15.0..=31.0).contains(&rate), "{rate}");
    served.get("/v1/batches/nobody/events").await.expect(404);
}

#[tokio::test]
async fn a_job_that_is_sent_twice_has_one_card_and_another_one_under_its_id_is_refused() {
    let stage = stage(Options::default()).await;
    let served = Served::start(&stage.program, &["--rate", "100"]);
    let key = support::client_of(&stage.sandbox).pin_key().await.unwrap();
    let jwe = embosser::encrypt::encrypt_pin("4711", &key).unwrap();
    let job = |currency: &str| {
        json!({"id": "payroll/1", "batch": "payroll", "deadline": "2099-01-01T00:00:00Z",
            "card": {"cardholder": "ich_1", "type": "virtual", "currency": currency, "pin": {"encrypted_number": jwe}}})
        .to_string()
        .into_bytes()
    };
    let post = async |body: Vec<u8>| {
        let headers = [("content-type", "application/json")];
        served.ask(reqwest::Method::POST, "/v1/jobs", &headers, body).await
    };
    let (one, other) = tokio::join!(post(job("eur")), post(job("eur")));
    assert_eq!(one.headers["location"], "/v1/jobs/payroll%2F1");
    assert!(one.status.is_success() && other.status.is_success());
    let view = loop {
        let view = served.get("/v1/jobs/payroll%2F1").await.expect(200).json();
        if view["state"] != "waiting" {
            break view;
        }
    };
    assert_eq!(view["state"], "issued", "{view}");
    assert_eq!(post(job("eur")).await.expect(200).json()["card_id"], view["card_id"]);
    assert_eq!(post(job("usd")).await.expect(409).json()["type"], "urn:embosser:problem:conflict");
    let cards = stage.sandbox.account().cards;
    assert_eq!(cards.len(), 1);
    assert_eq!(cards[0].pin.as_deref(), Some("4711"));
    served.get("/v1/jobs/nobody").await.expect(404);
    let problem =
        post(br#"{"id": "2", "card": {"type": "virtuel"}, "more": 1}"#.to_vec()).await.expect(422).json();
    assert_eq!(problem["problem_count"], 3, "{problem}");
    post(b"{".to_vec()).await.expect(400);
    // Jobs that are sent one by one make a batch without an end.
    let view = served.get("/v1/batches/payroll").await.expect(200).json();
    assert_eq!((&view["state"], &view["issued"]), (&json!("open"), &json!(1)));
    served.post("/v1/batches/payroll/settle").await.expect(409);
}

#[tokio::test]
async fn a_row_that_changed_after_its_card_was_made_keeps_it_and_says_so() {
    let stage = stage(Options::default()).await;
    let (file, expected) = stage.manifest("staff", 10).await;
    let served = Served::start(&stage.program, &["--rate", "200"]);
    served.upload_file(&file).await.expect(202);
    served.until_ended("staff").await;
    let changed =
        std::fs::read_to_string(&file).unwrap().replacen("r3,ich_03,virtual,eur", "r3,ich_03,virtual,usd", 1);
    served.upload("/v1/batches?name=staff", changed.into_bytes()).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["issued"], &view["refused"]), (&json!(10), &json!(0)), "the card's truth stands");
    let rows = served.get("/v1/batches/staff/rows").await.expect(200).json();
    let noted: Vec<_> =
        rows["rows"].as_array().unwrap().iter().filter(|row| !row["note"].is_null()).collect();
    assert_eq!((noted.len(), &noted[0]["row_id"], &noted[0]["outcome"]), (1, &json!("r3"), &json!("issued")));
    assert!(noted[0]["note"].as_str().unwrap().contains("update_card"), "{noted:?}");
    let csv = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert_eq!((csv.matches(",issued,").count(), csv.matches("was not applied").count()), (10, 1), "{csv}");
    one_card_each(&stage.sandbox.account(), &expected);
}

#[tokio::test]
async fn a_batch_that_comes_in_several_files_is_counted_whole() {
    let stage = stage(Options::default()).await;
    let rows = |from: usize, to: usize| {
        let rows = (from..=to).map(|row| format!("r{row},ich_{row},virtual,eur\n"));
        ("row_id,cardholder,type,currency\n".to_owned() + &rows.collect::<String>()).into_bytes()
    };
    let counts = |view: &serde_json::Value| {
        ["rows", "issued", "refused", "waiting"].map(|count| view[count].as_u64().unwrap())
    };
    let served = Served::start(&stage.program, &["--rate", "200"]);
    served.upload("/v1/batches?name=staff", rows(1, 30)).await.expect(202);
    assert_eq!(counts(&served.until_ended("staff").await), [30, 30, 0, 0]);
    let view = served.upload("/v1/batches?name=staff", rows(31, 40)).await.expect(202).json();
    assert_eq!((&view["rows"], &view["recorded_before"]), (&json!(40), &json!(30)), "{view}");
    assert_eq!(counts(&served.until_ended("staff").await), [40, 40, 0, 0]);
    // A file that has some of both is of the same 40 and two more.
    served.upload("/v1/batches?name=staff", rows(21, 42)).await.expect(202);
    assert_eq!(counts(&served.until_ended("staff").await), [42, 42, 0, 0]);
    let (code, _) = served.stopped().await;
    assert_eq!(code, Some(0));
    let served = Served::start(&stage.program, &["--rate", "200"]);
    let view = served.get("/v1/batches/staff").await.expect(200).json();
    assert_eq!((counts(&view), &view["state"]), ([42, 42, 0, 0], &json!("finished")), "{view}");
    let list = served.get("/v1/batches").await.expect(200).json();
    assert_eq!(counts(&list["batches"][0]), [42, 42, 0, 0], "{list}");
    served.upload("/v1/batches?name=staff", rows(31, 40)).await.expect(202);
    assert_eq!(counts(&served.until_ended("staff").await), [42, 42, 0, 0]);
    assert_eq!(stage.sandbox.counts().cards, 42);
}

#[tokio::test]
async fn a_pin_that_comes_after_the_card_is_noted_beside_its_row() {
    let stage = stage(Options::default()).await;
    let key = support::client_of(&stage.sandbox).pin_key().await.unwrap();
    let csv = |pins: [Option<&str>; 3]| {
        let rows = pins.iter().enumerate().map(|(row, pin)| {
            let jwe = pin.map(|pin| embosser::encrypt::encrypt_pin(pin, &key).unwrap()).unwrap_or_default();
            format!("r{row},ich_{row},virtual,eur,{jwe}\n")
        });
        "row_id,cardholder,type,currency,pin[encrypted_number]\n".to_owned() + &rows.collect::<String>()
    };
    let served = Served::start(&stage.program, &["--rate", "200"]);
    // One without a PIN as before, one that has it now, and one whose PIN was encrypted anew.
    for (pins, noted) in
        [([None, None, Some("1234")], [false; 3]), ([None, Some("5678"), Some("1234")], [false, true, true])]
    {
        served.upload("/v1/batches?name=staff", csv(pins).into_bytes()).await.expect(202);
        let view = served.until_ended("staff").await;
        assert_eq!((&view["issued"], &view["refused"]), (&json!(3), &json!(0)), "{view}");
        let rows = served.get("/v1/batches/staff/rows").await.expect(200).json();
        for (row, noted) in rows["rows"].as_array().unwrap().iter().zip(noted) {
            assert_eq!(row["outcome"], "issued");
            let keeps =
                row["note"].as_str().is_some_and(|note| note.contains("keeps the PIN it was made with"));
            assert_eq!(keeps, noted, "{row}");
        }
    }
    let csv = served.get("/v1/batches/staff/results.csv").await.expect(200).text;
    assert_eq!(csv.matches("keeps the PIN it was made with").count(), 2, "{csv}");
    let expected = [("r0", None), ("r1", None), ("r2", Some("1234"))];
    let expected = expected.map(|(row, pin)| (format!("staff/{row}"), pin.map(str::to_owned)));
    one_card_each(&stage.sandbox.account(), &expected.into());
}

#[tokio::test]
async fn a_job_whose_deadline_passes_while_it_waits_for_its_turn_is_never_called_for() {
    let stage = stage(Options::default()).await;
    let key = support::client_of(&stage.sandbox).pin_key().await.unwrap();
    let served = Served::start(&stage.program, &["--rate", "2"]);
    let deadline = jiff::Timestamp::now() + std::time::Duration::from_secs(3);
    for number in 0..20 {
        let jwe = embosser::encrypt::encrypt_pin("4711", &key).unwrap();
        let card = json!({"cardholder": "ich_1", "type": "virtual", "currency": "eur", "pin": {"encrypted_number": jwe}});
        let job = json!({"id": format!("job{number}"), "batch": "b", "deadline": deadline.to_string(), "card": card});
        let headers = [("content-type", "application/json")];
        served
            .ask(reqwest::Method::POST, "/v1/jobs", &headers, job.to_string().into_bytes())
            .await
            .expect(202);
    }
    let mut issued = 0;
    for number in 0..20 {
        let view = served.until_job(&format!("job{number}")).await;
        match view["state"].as_str() {
            Some("issued") => issued += 1,
            _ => {
                assert_eq!((&view["state"], &view["code"]), (&json!("refused"), &json!("expired")), "{view}")
            }
        }
    }
    assert!((1..=10).contains(&issued), "{issued} issued, more than the pace lets through in three seconds");
    assert_eq!(stage.sandbox.counts().creates, issued, "the others cost no call");
}
