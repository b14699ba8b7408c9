//! Promise: however many rows a person has, in one file or in several, and whoever created the person's cardholder, the person has
//! one. Who it is, is never guessed: where several come into question, or the name is another, somebody has to say which.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use embosser::sandbox::{Faults, Options};
use serde_json::{Value, json};
use support::issuing::{Issuing, said};
use support::people::{ADDRESS, issuing_with, people_header, person, results};
use support::serve::Served;
use support::{expect_exit, http_client, was_killed};

const ISSUE: [&str; 4] = ["issue", "people.csv", "--rate", "400"];

/// A column of a results file, by row.
fn column(issuing: &Issuing, file: &str, name: &str) -> BTreeMap<String, String> {
    let mut reader = csv::Reader::from_path(issuing.path(file)).unwrap();
    let headers = reader.headers().unwrap().clone();
    let at = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (id, of) = (at("row_id"), at(name));
    reader.records().map(|row| row.unwrap()).map(|row| (row[id].to_owned(), row[of].to_owned())).collect()
}

/// The cardholders of each person's cards.
fn cardholders(issuing: &Issuing, file: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut of_person: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (row, [outcome, card, cardholder]) in results(issuing, file) {
        assert_eq!((outcome.as_str(), card.is_empty()), ("issued", false), "{row}");
        of_person.entry(row.split('-').next().unwrap().to_owned()).or_default().insert(cardholder);
    }
    of_person
}

#[tokio::test(flavor = "multi_thread")]
async fn three_cards_of_a_person_are_one_cardholders_through_kills_and_lost_answers() {
    const PEOPLE: usize = 60;
    let faults = Faults { error_after: 0.05, drop_after: 0.05, error_before: 0.05, ..Faults::default() };
    let (issuing, program) = issuing_with(faults).await;
    let mut text = format!("row_id,type,currency,{}\n", people_header());
    for currency in ["eur", "usd", "gbp"] {
        for number in 0..PEOPLE {
            text += &format!("E{number}-{currency},virtual,{currency},{}\n", person(number));
        }
    }
    std::fs::write(issuing.path("people.csv"), &text).unwrap();
    let checked = program.run(&["check", "people.csv"]).await;
    assert!(said(&checked).contains("60 new cardholders"), "{}", said(&checked));
    assert!(said(&checked).contains("120 rows are for people of rows before them"), "{}", said(&checked));
    for made in [20, 90] {
        let run = program.spawn(&ISSUE);
        issuing.until("cards", |sandbox| sandbox.account().cards.len() >= made).await;
        assert!(was_killed(&run.killed().await));
    }
    expect_exit(&program.run(&ISSUE).await, 0);
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (PEOPLE, 3 * PEOPLE));
    let of_person = cardholders(&issuing, "people.results.csv");
    assert_eq!(of_person.len(), PEOPLE);
    assert!(of_person.values().all(|ids| ids.len() == 1), "{of_person:?}");
    // What is told of a cardholder is told of each card.
    let notes = column(&issuing, "people.results.csv", "note");
    assert!(notes.values().all(|note| note.contains("individual.dob.day")), "{notes:?}");
    // Another file, another batch, another card: the same people, some of whom have moved.
    let more: Vec<_> = text.lines().take(1 + PEOPLE).map(|line| line.replace("eur", "chf")).collect();
    let more = more.join("\n").replace(",7 Main Street,", ",7 Side Street,");
    std::fs::write(issuing.path("more.csv"), more).unwrap();
    expect_exit(&program.run(&["issue", "more.csv", "--rate", "400"]).await, 0);
    let notes = column(&issuing, "more.results.csv", "note");
    let moved = |note: &str| note.contains("with other details");
    assert!(notes.iter().all(|(row, note)| moved(note) == (row == "E7-chf")), "{notes:?}");
    for _ in 0..2 {
        expect_exit(&program.run(&["issue", "more.csv", "--rate", "400"]).await, 0);
        assert_eq!(column(&issuing, "more.results.csv", "note"), notes, "what is told stays told");
    }
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (PEOPLE, 4 * PEOPLE));
}

/// Creates a cardholder by hand.
async fn at_stripe(issuing: &Issuing, name: &str, email: &str, phone: &str, street: &str) -> String {
    let address = |part: &str| format!("billing[address][{part}]");
    let mut form = vec![
        ("name".to_owned(), name),
        ("type".to_owned(), "individual"),
        (address("line1"), street),
        (address("city"), "Cork"),
        (address("postal_code"), "T12"),
        (address("country"), "IE"),
    ];
    form.extend([("email", email), ("phone_number", phone)].map(|(path, value)| (path.to_owned(), value)));
    form.retain(|(_, value)| !value.is_empty());
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let post = http_client().post(format!("{}/v1/issuing/cardholders", issuing.sandbox.api_url()));
    let post =
        post.bearer_auth("sk_test_by_hand").header("Content-Type", "application/x-www-form-urlencoded");
    let made: Value =
        serde_json::from_str(&post.body(body.finish()).send().await.unwrap().text().await.unwrap()).unwrap();
    made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_cardholder_keeps_it_and_who_might_be_somebody_else_is_asked_for() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    let by_email = at_stripe(&issuing, "Ana Berg", "Ana.Berg@Example.com", "+353211", "1 High Street").await;
    let by_phone = at_stripe(&issuing, "Max Hill", "", "+353 21 222", "2 High Street").await;
    let by_address = at_stripe(&issuing, "Eva Hall", "", "", "3 High Street").await;
    let mailbox = at_stripe(&issuing, "Tom Moor", "office@example.com", "", "4 High Street").await;
    let twins = [
        at_stripe(&issuing, "Jo Lake", "jo@example.com", "", "5 High Street").await,
        at_stripe(&issuing, "Jo Lake", "jo@example.com", "", "6 High Street").await,
    ];
    let mut text = format!(
        "row_id,type,currency,cardholder[name],cardholder[email],cardholder[phone_number],{ADDRESS}[line1],{ADDRESS}[city],\
         {ADDRESS}[postal_code],{ADDRESS}[country],cardholder[reuse]\n"
    );
    for (row, person) in [
        ("email", "Ana Maria Berg,ana.berg@example.com,,9 New Street,Cork,T12,IE,"),
        ("phone", "Max Hill,max@example.com,0035321222,9 New Street,Cork,T12,IE,"),
        ("address", "eva  HALL,,,3 high street,Cork,T 12,IE,"),
        ("mailbox", "Ida Vale,office@example.com,,4 High Street,Cork,T12,IE,"),
        ("twin", "Jo Lake,jo@example.com,,5 High Street,Cork,T12,IE,"),
        ("new", "Eva Hall,other.eva@example.com,,8 High Street,Cork,T12,IE,"),
        ("another", "Lea Ford,,+353 21 222,2 High Street,Cork,T12,IE,"),
        ("wanted", "Jo Lake,jo@example.com,,7 High Street,Cork,T12,IE,false"),
    ] {
        text += &format!("{row},virtual,eur,{person}\n");
    }
    std::fs::write(issuing.path("people.csv"), &text).unwrap();
    let online = program.run(&["check", "people.csv", "--online"]).await;
    expect_exit(&online, 2);
    let told = String::from_utf8(online.stdout.clone()).unwrap();
    for part in [
        "line 2, column cardholder[name]: Stripe needs more of the cardholder ich_",
        &format!(
            "line 5, column cardholder[name]: the cardholder who has this e-mail address at Stripe, {mailbox}, has"
        ),
        "line 6, column cardholder[name]: 2 cardholders at Stripe have this e-mail address",
        "7 rows of people looked at: 5 problems.",
        "3 rows are for people who have a cardholder already and keep it.",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("line 7,") && !told.contains("line 9,"), "{told}");
    assert!(
        said(&online).contains("Looking at Stripe: 1 read, and a read for each hundred cardholders"),
        "{}",
        said(&online)
    );
    let there = issuing.sandbox.account().cardholders.len();
    let run = program.run(&ISSUE).await;
    expect_exit(&run, 1);
    let results = results(&issuing, "people.results.csv");
    let (notes, messages) = (
        column(&issuing, "people.results.csv", "note"),
        column(&issuing, "people.results.csv", "error_message"),
    );
    let codes = column(&issuing, "people.results.csv", "error_code");
    for (row, cardholder, by) in [
        ("email", &by_email, "e-mail address"),
        ("phone", &by_phone, "name and phone number"),
        ("address", &by_address, "name and address"),
    ] {
        assert_eq!(results[row][2], *cardholder, "{row}");
        assert!(
            notes[row].contains(&format!("no cardholder was created: one has this {by}")),
            "{}",
            notes[row]
        );
    }
    for row in ["new", "another", "wanted"] {
        assert_eq!(results[row][0], "issued", "{row}");
        assert!(!notes[row].contains("no cardholder was created"), "{row}");
    }
    assert_eq!(issuing.sandbox.account().cardholders.len(), there + 3);
    assert_eq!(
        (codes["mailbox"].as_str(), codes["twin"].as_str()),
        ("cardholder_has_other_name", "several_cardholders")
    );
    assert!(messages["mailbox"].contains(&mailbox), "{}", messages["mailbox"]);
    assert!(twins.iter().all(|twin| messages["twin"].contains(twin)), "{}", messages["twin"]);
    for row in ["email", "phone", "address", "new"] {
        let needs = "before a card can be active: individual.dob.day";
        assert!(notes[row].contains(needs), "{row}: {}", notes[row]);
    }
    // What the messages say to do is done: one row names its cardholder, the other asks for a new one.
    let mended = text
        .replace(
            "mailbox,virtual,eur,Ida Vale,office@example.com,,4 High Street,Cork,T12,IE,\n",
            "mailbox,virtual,eur,Ida Vale,office@example.com,,4 High Street,Cork,T12,IE,false\n",
        )
        .replace("currency,cardholder[name]", "currency,cardholder,cardholder[name]")
        .replace(",virtual,eur,", ",virtual,eur,,")
        .replace(
            "twin,virtual,eur,,Jo Lake,jo@example.com,,5 High Street,Cork,T12,IE,",
            &format!("twin,virtual,eur,{},,,,,,,,", twins[0]),
        );
    std::fs::write(issuing.path("people.csv"), &mended).unwrap();
    let run = program.run(&ISSUE).await;
    expect_exit(&run, 0);
    let results = support::people::results(&issuing, "people.results.csv");
    assert_eq!(results["twin"][2], twins[0]);
    assert_ne!(results["mailbox"][2], mailbox);
    assert_eq!(issuing.sandbox.account().cardholders.len(), there + 4);
    assert_eq!(issuing.sandbox.account().cards.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn cardholders_that_rows_name_are_looked_at_before_anything_is_issued() {
    let there = ["ich_there".to_owned()].into_iter().collect();
    let issuing = Issuing::with(Options { cardholders: Some(there), ..Options::default() }).await;
    let program = issuing.program();
    let incomplete = at_stripe(&issuing, "Ana Berg", "", "", "1 High Street").await;
    let rows = |named: &[&str]| {
        let rows: String = named.iter().map(|id| format!("{id},virtual,eur\n")).collect();
        std::fs::write(issuing.path("cards.csv"), format!("cardholder,type,currency\n{rows}")).unwrap();
    };
    let asked = || {
        let of_cardholders = |path: &str| path.starts_with("/v1/issuing/cardholders");
        let requests = issuing.sandbox.requests();
        requests.iter().filter(|seen| seen.method == "GET" && of_cardholders(&seen.path)).count()
    };
    rows(&["ich_there", "ich_gone", &incomplete, "ich_there", "ich_gone"]);
    let online = program.run(&["check", "cards.csv", "--online"]).await;
    expect_exit(&online, 2);
    assert_eq!(asked(), 3, "each is asked for once");
    let told = String::from_utf8(online.stdout).unwrap();
    for part in [
        "line 3, column cardholder: ich_gone is no cardholder of this account",
        "line 6, column cardholder: ich_gone is no",
        &format!(
            "line 4, column cardholder: Stripe needs more of the cardholder {incomplete} before a card can be active"
        ),
        "3 cardholders looked at: 3 problems.",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    rows(&["ich_there"]);
    let online = program.run(&["check", "cards.csv", "--online"]).await;
    expect_exit(&online, 0);
    assert!(
        said(&online).contains("1 cardholder looked at: all as the rows need them."),
        "{}",
        said(&online)
    );
    assert!(issuing.sandbox.account().cards.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_paused_keeps_nobody_from_another() {
    const PEOPLE: usize = 60;
    let issuing = Issuing::with(Options::default()).await;
    let served = Served::start(&issuing.program(), &["--rate", "40"]);
    let file = |currency: &str| {
        let rows: String =
            (0..PEOPLE).map(|number| format!("E{number},virtual,{currency},{}\n", person(number))).collect();
        format!("row_id,type,currency,{}\n{rows}", people_header()).into_bytes()
    };
    served.upload("/v1/batches?name=held", file("eur")).await.expect(202);
    served.until("held", |view| view["issued"].as_u64() > Some(5)).await;
    served.post("/v1/batches/held/pause").await.expect(200);
    served.upload("/v1/batches?name=free", file("usd")).await.expect(202);
    let view = served.until_ended("free").await;
    assert_eq!((&view["state"], &view["issued"]), (&json!("finished"), &json!(PEOPLE)), "{view}");
    let view = served.get("/v1/batches/held").await.expect(200).json();
    assert_eq!(view["state"], "paused");
    assert!(view["issued"].as_u64() < Some(PEOPLE as u64), "{view}");
    served.post("/v1/batches/held/resume").await.expect(200);
    served.until_ended("held").await;
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (PEOPLE, 2 * PEOPLE));
    let of_person: BTreeSet<_> = account.cards.iter().map(|card| card.cardholder.clone()).collect();
    assert_eq!(of_person.len(), PEOPLE);
}

/// What is known only of rows beside each other keeps a row from its card, too.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_contradict_those_before_them_are_skipped_where_invalid_ones_are() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    let header = full_header();
    let address = "1 High Street,Cork,T12,IE";
    let text = format!(
        "row_id,type,currency,{header}\nA,virtual,eur,Pat Kay,pat@example.com,+35312345670,{address}\n\
         B,virtual,eur,Leo Dot,pat@example.com,+35312345671,{address}\n\
         C,virtual,eur,Pat Kay,other@example.com,+35312345670,{address}\n\
         A,virtual,usd,Eva Hall,eva@example.com,,{address}\nD,virtual,usd,Eva Hall,eva@example.com,,{address}\n"
    );
    std::fs::write(issuing.path("people.csv"), text).unwrap();
    expect_exit(&program.run(&ISSUE).await, 2);
    let skipping = [&ISSUE[..], &["--skip-invalid"]].concat();
    for _ in 0..2 {
        expect_exit(&program.run(&skipping).await, 1);
        let mut told = csv::Reader::from_path(issuing.path("people.results.csv")).unwrap();
        let told: Vec<_> = told.records().map(|row| row.unwrap()).collect();
        let ends: Vec<_> = told.iter().map(|row| [&row[1], &row[3], &row[8]]).collect();
        assert_eq!(
            ends,
            [
                ["A", "issued", ""],
                ["B", "refused", "two_people_one_email"],
                ["C", "refused", "one_person_two_emails"],
                ["A", "refused", "duplicate_row_id"],
                ["D", "issued", ""],
            ]
        );
        assert!(told[1][9].contains("does not go together with line 2"), "{:?}", told[1]);
        let account = issuing.sandbox.account();
        assert_eq!((account.cards.len(), account.cardholders.len()), (2, 2));
    }
}

/// The columns of a person with a phone number, and whose cardholder it is.
fn full_header() -> String {
    format!(
        "cardholder[name],cardholder[email],cardholder[phone_number],{ADDRESS}[line1],{ADDRESS}[city],{ADDRESS}[postal_code],\
         {ADDRESS}[country]"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_one_by_any_sign_and_alone() {
    let issuing = Issuing::with(Options { latency: Duration::from_millis(200), ..Options::default() }).await;
    let program = issuing.program();
    // Half of the rows of each lack the e-mail address, and all are on their way at once.
    let mut text = format!("row_id,type,currency,{}\n", full_header());
    for number in 0..10 {
        let rest = format!("+3531234567{number},{number} High Street,Cork,T12,IE");
        text += &format!("E{number}-1,virtual,eur,Pat Kay,pat{number}@example.com,{rest}\n");
        text += &format!("E{number}-2,virtual,usd,Pat Kay,,{rest}\n");
    }
    // One whose row_id stands twice counts for nothing.
    std::fs::write(
        issuing.path("twice.csv"),
        format!("{text}E1-1,virtual,gbp,Leo Dot,,,1 Low Street,Cork,T12,IE\n"),
    )
    .unwrap();
    std::fs::write(issuing.path("people.csv"), &text).unwrap();
    for file in ["twice.csv", "people.csv"] {
        let checked = program.run(&["check", file]).await;
        assert!(said(&checked).contains("10 new cardholders"), "{}", said(&checked));
    }
    expect_exit(&program.run(&ISSUE).await, 0);
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (10, 20));
    // Beside the looks for the batch (with the first five jobs, the 9th and the 17th) the account is listed once.
    let is_list = |path: &str| path == "/v1/issuing/cardholders";
    let lists =
        issuing.sandbox.requests().iter().filter(|seen| seen.method == "GET" && is_list(&seen.path)).count();
    assert!((1..=8).contains(&lists), "{lists} lists");
    // What is told stays told.
    let notes = column(&issuing, "people.results.csv", "note");
    expect_exit(&program.run(&ISSUE).await, 0);
    assert_eq!(column(&issuing, "people.results.csv", "note"), notes);
    // Cardholders alone, if they want it so.
    let header = format!("row_id,cardholder[reuse],{}\n", full_header());
    let rows: String = (0..3)
        .map(|row| format!("A{row},true,Eva Hall,eva@example.com,,1 High Street,Cork,T12,IE\n"))
        .collect();
    std::fs::write(issuing.path("alone.csv"), format!("{header}{rows}")).unwrap();
    expect_exit(&program.run(&["issue", "alone.csv", "--rate", "400"]).await, 0);
    assert_eq!(issuing.sandbox.account().cardholders.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_not_known_whether_a_person_has_one_nobody_creates_another() {
    let issuing = Issuing::with(Options { list_lag: Duration::from_secs(600), ..Options::default() }).await;
    let program = issuing.program().with("EMBOSSER__RETRY__ATTEMPTS_MAX", "1");
    let header = format!("row_id,type,currency,{}\n", full_header());
    let person =
        |email: &str| format!("E1,virtual,eur,Pat Kay,{email},+35312345678,1 High Street,Cork,T12,IE\n");
    std::fs::write(issuing.path("people.csv"), format!("{header}{}", person("pat@example.com"))).unwrap();
    std::fs::write(issuing.path("others.csv"), format!("{header}{}", person("").replace("eur", "usd")))
        .unwrap();
    // The cardholder is created, and nobody is told of it.
    issuing.sandbox.set_faults(Faults { drop_after: 1.0, ..Faults::default() });
    expect_exit(&program.run(&ISSUE).await, 3);
    assert_eq!(results(&issuing, "people.results.csv")["E1"][0], "unresolved");
    issuing.sandbox.set_faults(Faults::default());
    let others = ["issue", "others.csv", "--rate", "400"];
    expect_exit(&program.run(&others).await, 3);
    assert_eq!(column(&issuing, "others.results.csv", "error_code")["E1"], "other_row");
    assert_eq!(issuing.sandbox.account().cardholders.len(), 1);
    // The one is settled, and the other has the same.
    expect_exit(&program.run(&ISSUE).await, 0);
    expect_exit(&program.run(&others).await, 0);
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_another_process_created_is_found_though_a_list_was_read_before() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    let file = |name: &str, email: &str| {
        format!(
            "row_id,type,currency,{}\nE1,virtual,eur,{name},{email},,1 High Street,Cork,T12,IE\n",
            full_header()
        )
    };
    let served = Served::start(&program, &[]);
    served
        .upload("/v1/batches?name=first", file("Ana Berg", "ana@example.com").into_bytes())
        .await
        .expect(202);
    served.until_ended("first").await;
    std::fs::write(issuing.path("people.csv"), file("Zoe Lang", "zoe@example.com")).unwrap();
    expect_exit(&program.run(&ISSUE).await, 0);
    // Under another name, so that the ledger does not know her by that.
    let again = file("Zoe Ann Lang", "zoe@example.com").replace("eur", "usd");
    served.upload("/v1/batches?name=second", again.into_bytes()).await.expect(202);
    let view = served.until_ended("second").await;
    assert_eq!(view["issued"], 1, "{view}");
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (2, 3));
    assert_eq!(account.cards[1].cardholder, account.cards[2].cardholder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_as_json_says_itself_whether_its_person_may_have_one() {
    let issuing = Issuing::with(Options::default()).await;
    let served = Served::start(&issuing.program(), &[]);
    let json_type = [("Content-Type", "application/json")];
    let job = |id: &str, reuse: Option<bool>| {
        let address =
            json!({"line1": "1 High Street", "city": "Cork", "postal_code": "T12", "country": "IE"});
        let mut person =
            json!({"name": "Ana Berg", "email": "ana@example.com", "billing": {"address": address}});
        if let Some(reuse) = reuse {
            person["reuse"] = reuse.into();
        }
        json!({"id": id, "cardholder": person, "card": {"type": "virtual", "currency": "eur"}}).to_string()
    };
    // Whom the ledger knows is taken, whoever else is at Stripe by then.
    for (id, reuse, cardholders) in [
        ("first", Some(true), 1),
        ("second", Some(true), 1),
        ("third", None, 2),
        ("fourth", Some(false), 3),
        ("fifth", Some(true), 3),
    ] {
        let body = job(id, reuse).into_bytes();
        served.ask(reqwest::Method::POST, "/v1/jobs", &json_type, body).await.expect(202);
        let began = Instant::now();
        loop {
            let view = served.get(&format!("/v1/jobs/{id}")).await.expect(200).json();
            if view["state"] == "issued" {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{view}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(issuing.sandbox.account().cardholders.len(), cardholders, "{id}");
    }
    let account = issuing.sandbox.account();
    let of = |at: usize| account.cards[at].cardholder.clone().unwrap();
    assert_eq!((of(0), of(0)), (of(1), of(4)), "{:?}", account.cards);
}
