//! Promise: a row is known by what it asks for as well as by its id: under another file name, under row ids that a spreadsheet
//! changed, with a row put in above it, it keeps the card it has and says so. Second cards are made where they are asked for.

mod misread;
use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use embosser::sandbox::Options;
use rustix::process::Signal;
use serde_json::json;
use support::issuing::{Issuing, ended, said};
use support::scene::Scene;
use support::serve::Served;
use support::{expect_exit, write_manifest};

/// People of a manifest.
const PEOPLE: usize = 30;

/// How a file spells its row ids.
#[derive(Clone, Copy, PartialEq)]
enum RowIds {
    /// `00012`, as it was written.
    Padded,
    /// `12`, as a spreadsheet saves it; it does the same to the other column of numbers.
    Bare,
    /// There is no such column.
    None,
}

/// One person's row.
fn row(ids: RowIds, person: usize, department: &str) -> String {
    let rest = format!("ich_{person:03},virtual,eur,{department}");
    match ids {
        RowIds::Padded => format!("{person:05},{rest},{person:06}\n"),
        RowIds::Bare => format!("{person},{rest},{person}\n"),
        RowIds::None => format!("{rest},{person:06}\n"),
    }
}

fn manifest(ids: RowIds, people: impl IntoIterator<Item = usize>) -> String {
    let columns = "cardholder,type,currency,metadata[department],metadata[employee]\n";
    let header = if ids == RowIds::None { columns.to_owned() } else { format!("row_id,{columns}") };
    header + &people.into_iter().map(|person| row(ids, person, "sales")).collect::<String>()
}

/// A copy of everybody's file in which one row is mended and one is added.
fn mended_copy() -> String {
    let copy = manifest(RowIds::Bare, 1..=PEOPLE + 1);
    copy.replace(&row(RowIds::Bare, 3, "sales"), &row(RowIds::Bare, 3, "law"))
}

/// A line of a results file.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    job: String,
    outcome: String,
    card: String,
    note: String,
}

fn told_in(csv: &str) -> Vec<Told> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        let of = |name: &str| row[header.iter().position(|column| column == name).unwrap()].to_owned();
        Told { job: of("job_id"), outcome: of("outcome"), card: of("card_id"), note: of("note") }
    });
    rows.collect()
}

struct Office {
    issuing: Issuing,
}

impl Office {
    async fn new() -> Self {
        Self { issuing: Issuing::with(Options::default()).await }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.issuing.path(name), text).unwrap();
    }

    /// `embosser issue`, which must end so; answers what it said.
    async fn issue(&self, arguments: &[&str], code: i32) -> String {
        let run = self.issuing.program().spawn(&[&["issue", "--rate", "300"], arguments].concat());
        let output = ended(run).await;
        expect_exit(&output, code);
        said(&output)
    }

    fn told(&self, results: &str) -> Vec<Told> {
        told_in(&std::fs::read_to_string(self.issuing.path(results)).unwrap())
    }

    fn cards(&self) -> usize {
        self.issuing.sandbox.counts().cards
    }

    /// Fails unless each of these has so many cards, and nobody else has one.
    fn cards_of(&self, people: impl IntoIterator<Item = usize>, each: usize) {
        let mut made: BTreeMap<String, usize> = BTreeMap::new();
        for card in self.issuing.sandbox.account().cards {
            *made.entry(card.cardholder.unwrap()).or_default() += 1;
        }
        let wanted: BTreeMap<_, _> =
            people.into_iter().map(|person| (format!("ich_{person:03}"), each)).collect();
        assert_eq!(made, wanted, "left: cards made, right: cards wanted");
    }

    fn serve(&self) -> Served {
        Served::start(&self.issuing.program(), &["--rate", "300"])
    }
}

fn of_cards(told: &[Told]) -> BTreeSet<&str> {
    told.iter().map(|row| row.card.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn issue_knows_a_renamed_file_whose_row_ids_a_spreadsheet_changed() {
    let office = Office::new().await;
    office.write("staff.csv", &manifest(RowIds::Padded, 1..=PEOPLE));
    office.issue(&["staff.csv"], 0).await;
    office.write("staff (1).csv", &manifest(RowIds::Bare, 1..=PEOPLE));
    let refused = office.issue(&["staff (1).csv"], 2).await;
    assert!(refused.contains("--batch \"staff\"") && refused.contains("--second-cards"), "{refused}");
    office.cards_of(1..=PEOPLE, 1);
    // Gone on with as it says, each row has its card, and a note under which name.
    let gone_on = office.issue(&["staff (1).csv", "--batch", "staff"], 0).await;
    assert!(gone_on.contains("30 of 30 rows are known under other names"), "{gone_on}");
    assert!(gone_on.contains("row 1 (1): issued before as 00001 of batch staff"), "{gone_on}");
    office.cards_of(1..=PEOPLE, 1);
    let (first, copy) = (office.told("staff.results.csv"), office.told("staff (1).results.csv"));
    assert_eq!(copy.len(), PEOPLE);
    for (first, copy) in first.iter().zip(&copy) {
        assert_eq!((&copy.job, &copy.outcome, &copy.card), (&first.job, &first.outcome, &first.card));
        assert!(copy.note.contains("no second card was made"), "{copy:?}");
    }
    let wanted = office.issue(&["staff (1).csv", "--second-cards"], 0).await;
    assert!(wanted.contains("30 issued (0 of them before)"), "{wanted}");
    office.cards_of(1..=PEOPLE, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn issue_makes_only_what_was_added_to_or_mended_in_a_copy() {
    let office = Office::new().await;
    office.write("staff.csv", &manifest(RowIds::Padded, 1..=PEOPLE));
    office.issue(&["staff.csv"], 0).await;
    let before = office.told("staff.results.csv");
    office.write("copy.csv", &mended_copy());
    let said = office.issue(&["copy.csv"], 0).await;
    assert!(said.contains("29 of 31 rows are known under other names"), "{said}");
    assert!(said.contains("31 issued (29 of them before)"), "{said}");
    assert_eq!(office.cards(), PEOPLE + 2, "the mended row and the added one");
    let told = office.told("copy.results.csv");
    let new: Vec<&str> = told.iter().filter(|row| row.note.is_empty()).map(|row| row.job.as_str()).collect();
    assert_eq!(new, ["copy/3", "copy/31"]);
    assert_eq!(of_cards(&told).intersection(&of_cards(&before)).count(), 29, "the others keep their cards");
    // Once more: now each row is known, two of them under their own ids.
    office.issue(&["copy.csv"], 0).await;
    assert_eq!(office.cards(), PEOPLE + 2);
    office.issue(&["copy.csv", "--second-cards"], 0).await;
    assert_eq!(office.cards(), PEOPLE + 2 + 29, "a second card for each that has no row of this name");
}

/// What `check` says of the rows of a file that were issued before, and how it ends.
#[tokio::test(flavor = "multi_thread")]
async fn check_says_which_rows_were_issued_before_and_which_names_only_look_new() {
    let office = Office::new().await;
    let program = office.issuing.program();
    let check = async |file: &str, options: &[&str], exit: i32| {
        let checked = program.run(&[&["check", file], options].concat()).await;
        expect_exit(&checked, exit);
        said(&checked)
    };
    office.write("staff.csv", &manifest(RowIds::Padded, 1..=PEOPLE));
    let before = check("staff.csv", &[], 0).await;
    assert!(!before.contains("before") && !before.contains("known"), "nothing was issued: {before}");
    office.issue(&["staff.csv"], 0).await;
    let same = check("staff.csv", &[], 0).await;
    assert!(
        same.contains("30 rows are in batch staff already: what was issued is not issued again."),
        "{same}"
    );
    office.write("copy.csv", &manifest(RowIds::Bare, 1..=PEOPLE));
    let copy = check("copy.csv", &[], 0).await;
    assert!(
        copy.contains("Nothing of it would be issued: these rows were issued before as batch \"staff\""),
        "{copy}"
    );
    office.write("more.csv", &mended_copy());
    let more = check("more.csv", &[], 0).await;
    assert!(more.contains("29 rows are known under other names and would get no second card"), "{more}");

    // Under the same name its spreadsheet took the zeros, and what one row asks for was mended: that would be a second card.
    let known = check("more.csv", &["--batch", "staff"], 0).await;
    assert!(
        known.contains(
            "warning: line 4 (3), column row_id: differs in blanks, capitals or zeros alone from \"00003\""
        ),
        "{known}"
    );
    assert!(known.contains("1 warning"), "those that keep their cards are no warnings: {known}");
    check("more.csv", &["--batch", "staff", "--strict"], 2).await;
    let json = program.run(&["check", "more.csv", "--batch", "staff", "--format", "json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json["warning_count"], &json["warnings"][0]["code"]),
        (&json!(1), &json!("near_known_row_id"))
    );
    let cards = office.cards();
    let strict = office.issue(&["more.csv", "--batch", "staff", "--strict"], 2).await;
    assert!(strict.contains("which --strict takes for problems") && office.cards() == cards, "{strict}");
    let issued = office.issue(&["more.csv", "--batch", "staff"], 0).await;
    assert!(issued.contains("warning: line 4 (3), column row_id"), "{issued}");
    assert_eq!(office.cards(), cards + 2);
    // An upload is told the same.
    let served = Served::start(&program, &["--rate", "200"]);
    office.write(
        "again.csv",
        &mended_copy().replace("3,ich_003,virtual,eur,law", "003,ich_003,virtual,eur,tax"),
    );
    let again = std::fs::read(office.issuing.path("again.csv")).unwrap();
    let told = served.upload("/v1/checks?name=staff", again).await.expect(200).json();
    let codes: Vec<_> = told["warnings"].as_array().unwrap().iter().map(|found| &found["code"]).collect();
    assert!(codes.contains(&&json!("near_known_row_id")), "{told}");
}

/// `EUR` and `eur`, `ie` and `IE` ask for the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_currency_and_a_country_are_the_same_however_they_are_spelt() {
    let office = Office::new().await;
    let rows = |currency: &str, country: &str, first: &str| {
        format!(
            "row_id,cardholder,type,currency,shipping[name],shipping[address][line1],shipping[address][city],\
             shipping[address][postal_code],shipping[address][country]\n{first}1,ich_1,physical,{currency},Ana,1 High \
             Street,Cork,T12,{country}\n"
        )
    };
    office.write("cards.csv", &rows("eur", "IE", "E"));
    office.issue(&["cards.csv"], 0).await;
    office.write("cards.csv", &rows("EUR", "ie", "E"));
    office.issue(&["cards.csv"], 0).await;
    let told = office.told("cards.results.csv");
    assert_eq!(
        (office.cards(), told[0].note.as_str()),
        (1, ""),
        "the same row, and no change of it: {told:?}"
    );
    office.write("other.csv", &rows("Eur", "iE", "F"));
    let other = office.issue(&["other.csv"], 2).await;
    assert!(other.contains("issued before as batch"), "{other}");
    // Beside each other, too.
    let twice = rows("eur", "IE", "E") + rows("EUR", "ie", "F").lines().nth(1).unwrap() + "\n";
    office.write("twice.csv", &twice);
    let checked = said(&office.issuing.program().run(&["check", "twice.csv"]).await);
    assert!(checked.contains("asks for the same as line 2, for the same person"), "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn issue_makes_one_card_for_a_row_put_in_at_the_top_of_a_file_without_row_ids() {
    let office = Office::new().await;
    office.write("staff.csv", &manifest(RowIds::None, 1..=PEOPLE));
    office.issue(&["staff.csv"], 0).await;
    let before = office.told("staff.results.csv");
    office.write("staff.csv", &manifest(RowIds::None, std::iter::once(77).chain(1..=PEOPLE)));
    let said = office.issue(&["staff.csv"], 0).await;
    assert!(said.contains("31 issued (30 of them before)"), "{said}");
    office.cards_of(std::iter::once(77).chain(1..=PEOPLE), 1);
    let told = office.told("staff.results.csv");
    let kept: Vec<&Told> = told.iter().skip(1).collect();
    assert_eq!(kept, before.iter().collect::<Vec<_>>(), "the others are as they were");
    // Under another name too, and there it can be wanted.
    office.write("all.csv", &manifest(RowIds::None, [77, 78].into_iter().chain(1..=PEOPLE)));
    office.issue(&["all.csv"], 0).await;
    office.cards_of([77, 78].into_iter().chain(1..=PEOPLE), 1);
    office.write("again.csv", &manifest(RowIds::None, [77, 78].into_iter().chain(1..=PEOPLE)));
    office.issue(&["again.csv", "--second-cards"], 0).await;
    office.cards_of([77, 78].into_iter().chain(1..=PEOPLE), 2);
}

/// Nothing was issued under the first name, and so the second was given; the first is used again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_refused_under_one_name_and_issued_under_another_are_known_under_both() {
    let office = Office::new().await;
    let sandbox = &office.issuing.sandbox;
    let write = async |name: &str| write_manifest(&office.issuing.path(name), sandbox, 6).await;
    write("staff.csv").await;
    sandbox.rotate_key();
    office.issue(&["staff.csv"], 1).await;
    assert_eq!(office.cards(), 1, "the row without a PIN");
    let mended = write("mended.csv").await;
    office.issue(&["mended.csv"], 0).await;
    assert_eq!(office.cards(), mended.len());
    write("staff.csv").await;
    let refused = office.issue(&["staff.csv"], 0).await;
    assert!(refused.contains("5 of 6 rows are known under other names"), "{refused}");
    assert_eq!(office.cards(), mended.len());
    let served = office.serve();
    served.upload_file(&office.issuing.path("staff.csv")).await.expect(202);
    let view = served.until_ended("staff").await;
    assert_eq!((&view["rows"], &view["issued"]), (&json!(6), &json!(6)), "{view}");
    assert_eq!(office.cards(), mended.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_knows_a_renamed_file_whose_row_ids_a_spreadsheet_changed() {
    let office = Office::new().await;
    let served = office.serve();
    let upload = async |path: &str, text: String| served.upload(path, text.into_bytes()).await;
    upload("/v1/batches?name=staff", manifest(RowIds::Padded, 1..=PEOPLE)).await.expect(202);
    served.until_ended("staff").await;
    let bare = || manifest(RowIds::Bare, 1..=PEOPLE);
    let refused = upload("/v1/batches?name=copy", bare()).await.expect(409).json();
    assert_eq!(refused["type"], "urn:embosser:problem:issued_before");
    assert!(refused["detail"].as_str().unwrap().contains("batch \"staff\""), "{refused}");
    served.get("/v1/batches/copy").await.expect(404);
    // Under the name that it was issued under it is that batch, each row of it counted once.
    upload("/v1/batches?name=staff", bare()).await.expect(202);
    let view = served.until_ended("staff").await;
    office.cards_of(1..=PEOPLE, 1);
    let counts = (&view["rows"], &view["issued"], &view["known_before"], &view["recorded_before"]);
    assert_eq!(counts, (&json!(30), &json!(30), &json!(30), &json!(30)), "{view}");
    upload("/v1/batches?name=copy&second_cards=true", bare()).await.expect(202);
    served.until_ended("copy").await;
    office.cards_of(1..=PEOPLE, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_makes_only_what_was_added_to_or_mended_in_a_copy() {
    let office = Office::new().await;
    let served = office.serve();
    let upload = async |path: &str, text: String| served.upload(path, text.into_bytes()).await;
    upload("/v1/batches?name=staff", manifest(RowIds::Padded, 1..=PEOPLE)).await.expect(202);
    served.until_ended("staff").await;
    upload("/v1/batches?name=copy", mended_copy()).await.expect(202);
    let view = served.until_ended("copy").await;
    assert_eq!(office.cards(), PEOPLE + 2, "the mended row and the added one");
    let counts = (&view["rows"], &view["issued"], &view["known_before"]);
    assert_eq!(counts, (&json!(31), &json!(31), &json!(29)), "{view}");
    let results = served.get("/v1/batches/copy/results.csv").await.expect(200).text;
    let mut new: Vec<String> = told_in(&results).into_iter().map(|row| row.job).collect();
    new.sort();
    assert_eq!(new, ["copy/3", "copy/31"], "the others are rows of the batch that they are known in");
    upload("/v1/batches?name=more&second_cards=true", mended_copy()).await.expect(202);
    served.until_ended("more").await;
    assert_eq!(office.cards(), PEOPLE + 2 + PEOPLE + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_makes_one_card_for_a_row_put_in_at_the_top_of_a_file_without_row_ids() {
    let office = Office::new().await;
    let served = office.serve();
    let upload = async |path: &str, text: String| served.upload(path, text.into_bytes()).await;
    upload("/v1/batches?name=staff", manifest(RowIds::None, 1..=PEOPLE)).await.expect(202);
    served.until_ended("staff").await;
    let people = || std::iter::once(77).chain(1..=PEOPLE);
    upload("/v1/batches?name=staff", manifest(RowIds::None, people())).await.expect(202);
    let view = served.until_ended("staff").await;
    office.cards_of(people(), 1);
    let counts = (&view["rows"], &view["issued"], &view["known_before"], &view["recorded_before"]);
    assert_eq!(counts, (&json!(31), &json!(31), &json!(0), &json!(30)), "{view}");
    upload("/v1/batches?name=again&second_cards=true", manifest(RowIds::None, people())).await.expect(202);
    served.until_ended("again").await;
    office.cards_of(people(), 2);
}

/// Neither is in the ledger when the other comes.
#[tokio::test(flavor = "multi_thread")]
async fn one_file_uploaded_under_two_names_at_once_is_one_card_each() {
    let office = Office::new().await;
    let served = Served::start(&office.issuing.program(), &["--rate", "20"]);
    let upload = |name: &'static str, ids| {
        let csv = manifest(ids, 1..=PEOPLE).into_bytes();
        let served = &served;
        async move { served.upload(&format!("/v1/batches?name={name}"), csv).await }
    };
    let (one, other) = tokio::join!(upload("one", RowIds::Padded), upload("other", RowIds::Bare));
    let (begun, refused) = if one.status == 202 { ("one", other) } else { ("other", one) };
    let problem = refused.expect(409).json();
    assert_eq!(problem["type"], "urn:embosser:problem:issued_before");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("being issued just now as batch {begun:?}")), "{detail}");
    // Some of it is in the ledger by now, and the rest is not.
    served.until(begun, |view| view["issued"].as_u64() > Some(3)).await;
    let third =
        served.upload("/v1/batches?name=third", manifest(RowIds::None, 1..=PEOPLE).into_bytes()).await;
    assert_eq!(third.expect(409).json()["type"], "urn:embosser:problem:issued_before");
    served.until_ended(begun).await;
    office.cards_of(1..=PEOPLE, 1);
}

/// What a slow upload was compared with was issued, and ended, before it came to its own end.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_issued_while_another_upload_of_it_still_comes_is_one_card_each() {
    /// More than is asked about in one question.
    const MANY: usize = 600;
    let office = Office::new().await;
    let served = Served::start(&office.issuing.program(), &["--rate", "600"]);
    let csv = manifest(RowIds::Padded, 1..=MANY);
    let mut slow = TcpStream::connect(served.address()).unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "POST /v1/batches?name=slow HTTP/1.1\r\nHost: {}\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        served.address(),
        csv.len()
    );
    let (begin, end) = csv.split_at(csv.len() - 500);
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(begin.as_bytes()).unwrap();
    served.upload("/v1/batches?name=quick", manifest(RowIds::Bare, 1..=MANY).into_bytes()).await.expect(202);
    served.until_ended("quick").await;
    slow.write_all(end.as_bytes()).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 409") && answer.contains("issued_before"), "{answer}");
    assert!(answer.contains("batch \\\"quick\\\""), "{answer}");
    served.upload("/v1/batches?name=quick", csv.into_bytes()).await.expect(202);
    served.until_ended("quick").await;
    office.cards_of(1..=MANY, 1);
}

/// A worker issues what `submit` publishes, both on one ledger.
#[tokio::test(flavor = "multi_thread")]
async fn submit_with_the_workers_ledger_knows_a_renamed_file_too() {
    let scene = Scene::with(Options::default()).await;
    let write = |name: &str, ids| {
        std::fs::write(scene.directory.path().join(name), manifest(ids, 1..=PEOPLE)).unwrap();
    };
    let cards = || scene.sandbox.counts().cards;
    let submit = async |arguments: &[&str], code: i32| {
        let output = scene.program().run(&[&["submit"], arguments].concat()).await;
        expect_exit(&output, code);
        said(&output)
    };
    let worker = scene.worker("300");
    write("staff.csv", RowIds::Padded);
    submit(&["staff.csv", "--wait"], 0).await;
    write("staff (1).csv", RowIds::Bare);
    let refused = submit(&["staff (1).csv", "--wait"], 2).await;
    assert!(refused.contains("--batch \"staff\"") && refused.contains("--second-cards"), "{refused}");
    let gone_on = submit(&["staff (1).csv", "--batch", "staff", "--wait"], 0).await;
    assert!(gone_on.contains("30 of 30 rows are known under other names"), "{gone_on}");
    assert_eq!(cards(), PEOPLE);
    let read = |name: &str| std::fs::read_to_string(scene.directory.path().join(name)).unwrap();
    let (first, copy) = (told_in(&read("staff.results.csv")), told_in(&read("staff (1).results.csv")));
    assert_eq!((copy.len(), of_cards(&first)), (PEOPLE, of_cards(&copy)));
    submit(&["staff (1).csv", "--second-cards", "--wait"], 0).await;
    assert_eq!(cards(), 2 * PEOPLE);
    worker.signal(Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}

/// The worker's first ledger is there as a file, and its tables are not yet: nothing was issued before.
#[tokio::test(flavor = "multi_thread")]
async fn submit_publishes_while_the_worker_still_makes_its_first_ledger() {
    let scene = Scene::with(Options::default()).await;
    let ledger = scene.directory.path().join("ledger.db");
    let program = scene.program().with("EMBOSSER__LEDGER__URL", &format!("sqlite://{}", ledger.display()));
    let stages: [fn(&std::path::Path); 2] = [
        |file| std::fs::write(file, b"").unwrap(),
        |file| {
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.pragma_update(None, "journal_mode", "wal").unwrap();
        },
    ];
    for (name, make) in ["one.csv", "two.csv"].into_iter().zip(stages) {
        make(&ledger);
        std::fs::write(scene.directory.path().join(name), manifest(RowIds::Padded, 1..=5)).unwrap();
        let output = program.run(&["submit", name]).await;
        expect_exit(&output, 0);
        let said = said(&output);
        assert!(said.contains("5 of 5 rows published") && said.contains("cannot be told here"), "{said}");
    }
    let worker = program.spawn(&["worker", "--rate", "300"]);
    scene.cards(10).await;
    worker.signal(Signal::TERM);
    expect_exit(&worker.ended().await, 0);
}
