//! Promise: the cards that a batch's own jobs made are cancelled once each, and no other card, whatever is lost or killed on the
//! way; and only after somebody said how many they are.

use crate::support;

use std::collections::BTreeSet;

use embosser::sandbox::{Faults, Options, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};
use support::expect_exit;
use support::issuing::{Issuing, ended, said};
use support::serve::Served;
use support::time::A_DAY;
use support::tokens::{People, people};

/// A tenth of the calls goes wrong, mostly after it had its effect.
const FAULTS: Faults = Faults {
    error_after: 0.04,
    drop_after: 0.03,
    drop_before: 0.03,
    error_before: 0.0,
    conflict: 0.0,
    lock_timeout: 0.0,
    rotate: 0.0,
    html: 0.0,
    delay: 0.0,
    half_body: 0.0,
    empty: 0.0,
    list_error: 0.0,
    empty_page: 0.0,
};

/// A manifest of these people, each asking for something of their own, under names with this before them.
fn csv(prefix: &str, people: std::ops::Range<usize>) -> String {
    let rows = people.map(|person| format!("{prefix}{person},ich_1,virtual,eur,{person}\n"));
    format!("row_id,cardholder,type,currency,metadata[employee]\n{}", rows.collect::<String>())
}

/// Ids of the cards that a batch's jobs made, by the sandbox's account.
fn cards_of(sandbox: &Sandbox, batch: &str) -> BTreeSet<String> {
    let cards = sandbox.account().cards.into_iter();
    let of_batch = cards.filter(|card| card.job.as_deref().unwrap().starts_with(&format!("{batch}/")));
    of_batch.map(|card| card.id).collect()
}

/// Fails unless these cards were changed, and each once.
fn each_once(sandbox: &Sandbox, cards: &BTreeSet<String>) {
    let changes = sandbox.account().changes;
    let changed: BTreeSet<_> = changes.iter().map(|change| change.card.clone()).collect();
    assert_eq!(&changed, cards, "left: changed, right: to be cancelled");
    assert_eq!(changes.len(), cards.len(), "each was cancelled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_cancel_goes_on_and_touches_only_its_batch() {
    const CARDS: usize = 60;
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    std::fs::write(issuing.path("staff.csv"), csv("r", 0..CARDS)).unwrap();
    std::fs::write(issuing.path("others.csv"), csv("o", 100..110)).unwrap();
    // Five people of the first batch under other names, and three new ones.
    let again = csv("again", 0..5) + csv("new", 200..203).split_once('\n').unwrap().1;
    std::fs::write(issuing.path("again.csv"), again).unwrap();
    for file in ["staff.csv", "others.csv", "again.csv"] {
        expect_exit(&program.run(&["issue", file, "--rate", "500"]).await, 0);
    }
    let [staff, others, again] = ["staff", "others", "again"].map(|batch| cards_of(&issuing.sandbox, batch));
    assert_eq!((staff.len(), others.len(), again.len()), (CARDS, 10, 3));

    // Not without the right number.
    for more in [&[][..], &["--yes-cancel", "59"], &["--yes-cancel", "63"]] {
        let refused = program.run(&[&["cancel", "staff"], more].concat()).await;
        expect_exit(&refused, 2);
        let said = said(&refused);
        assert!(said.contains("60 cards would be cancelled") && said.contains("--yes-cancel 60"), "{said}");
        assert!(
            said.contains("Not printed yet: 60 cards") || said.contains("Too late to save printing"),
            "{said}"
        );
        assert!(said.contains("Which of the cards are physical is not recorded here"), "{said}");
    }
    each_once(&issuing.sandbox, &BTreeSet::new());

    issuing.sandbox.set_faults(FAULTS);
    let cancel = ["cancel", "staff", "--yes-cancel", "60"];
    for part in [15, 40] {
        let running = program.spawn(&[&cancel[..], &["--rate", "40"]].concat());
        issuing.until("some are cancelled", |sandbox| sandbox.account().changes.len() >= part).await;
        assert!(support::was_killed(&running.killed().await), "it was killed on the way");
    }
    assert!(issuing.sandbox.account().changes.len() < CARDS);
    let last = ended(program.spawn(&[&cancel[..], &["--rate", "200"]].concat())).await;
    expect_exit(&last, 0);
    each_once(&issuing.sandbox, &staff);
    let before = issuing.results("staff.cancel.results.csv");
    assert_eq!(before.len(), CARDS);
    assert!(before.iter().all(|(job, (outcome, card))| {
        job.starts_with("staff.cancel/r") && outcome == "updated" && staff.contains(card)
    }));
    // Once more, there is nothing to do.
    expect_exit(&program.run(&cancel).await, 0);
    each_once(&issuing.sandbox, &staff);
    assert_eq!(issuing.results("staff.cancel.results.csv"), before);
    let told = program.run(&["results", "staff.cancel"]).await;
    assert_eq!(said(&told).lines().filter(|line| line.contains("updated")).count(), CARDS);

    // A card that another batch made stays.
    expect_exit(&ended(program.spawn(&["cancel", "again", "--yes-cancel", "3"])).await, 0);
    each_once(&issuing.sandbox, &staff.union(&again).cloned().collect());
}

#[tokio::test]
async fn what_it_saves_is_told_and_what_has_no_cards_is_refused() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    std::fs::write(issuing.path("staff.csv"), csv("r", 0..3)).unwrap();
    let cancel = ["cancel", "staff", "--yes-cancel", "3"];
    let none = program.run(&cancel).await;
    expect_exit(&none, 2);
    assert!(said(&none).contains("there is no ledger at"), "{}", said(&none));
    expect_exit(&program.run(&["issue", "staff.csv"]).await, 0);
    let unknown = program.run(&["cancel", "stuff", "--yes-cancel", "3"]).await;
    expect_exit(&unknown, 2);
    assert!(said(&unknown).contains("the ledger has no batch \"stuff\""), "{}", said(&unknown));
    // A key of another account cancels nothing.
    let other = program.clone().with("STRIPE_API_KEY", "sk_test_acct_B_1");
    let refused = other.run(&cancel).await;
    expect_exit(&refused, 2);
    let told = said(&refused);
    assert!(told.contains("is of another account than the API key") && told.contains("acct_B"), "{told}");
    // Two print runs later they are printed.
    issuing.pass(2 * A_DAY, i64::try_from(2 * A_DAY.as_secs()).unwrap());
    let late = program.run(&["cancel", "staff"]).await;
    expect_exit(&late, 2);
    let told = said(&late);
    assert!(
        told.contains("Too late to save printing: 3 cards") && !told.contains("Not printed yet"),
        "{told}"
    );
    each_once(&issuing.sandbox, &BTreeSet::new());
    // More cards than were said: their number is another by now.
    std::fs::write(issuing.path("staff.csv"), csv("r", 0..4)).unwrap();
    expect_exit(&program.run(&["issue", "staff.csv"]).await, 0);
    let more = program.run(&cancel).await;
    expect_exit(&more, 2);
    assert!(said(&more).contains("Not printed yet: 1 card,"), "{}", said(&more));
    expect_exit(&program.run(&["cancel", "staff", "--yes-cancel", "4"]).await, 0);
    each_once(&issuing.sandbox, &cards_of(&issuing.sandbox, "staff"));
    // A batch of changes has no cards of its own.
    let changes = program.run(&["cancel", "staff.cancel", "--yes-cancel", "4"]).await;
    expect_exit(&changes, 2);
    assert!(said(&changes).contains("has no cards"), "{}", said(&changes));
    let done = program.run(&["cancel", "staff"]).await;
    assert!(said(&done).contains("4 of them are already."), "{}", said(&done));
}

/// Somebody has issued files of his own under the name of the batch that cancels another one's cards, with its rows' names.
#[tokio::test(flavor = "multi_thread")]
async fn cards_are_cancelled_whatever_else_has_their_rows_names() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    issuing.sandbox.stock("ich_1", 2);
    std::fs::write(issuing.path("staff.csv"), csv("r", 0..4)).unwrap();
    let changes = "row_id,card,status\nr0,ic_sandbox00000001,canceled\nr1,ic_sandbox00000002,inactive\n";
    std::fs::write(issuing.path("staff.cancel.csv"), changes).unwrap();
    expect_exit(&program.run(&["issue", "staff.csv"]).await, 0);
    expect_exit(&program.run(&["issue", "staff.cancel.csv", "--yes-cancel", "1"]).await, 0);
    let planned = program.run(&["cancel", "staff"]).await;
    let told = said(&planned);
    assert!(told.contains("4 cards would be cancelled") && !told.contains("already"), "{told}");
    expect_exit(&program.run(&["cancel", "staff", "--yes-cancel", "4"]).await, 0);
    let staff = cards_of(&issuing.sandbox, "staff");
    let others = ["ic_sandbox00000001", "ic_sandbox00000002"].map(str::to_owned).into();
    each_once(&issuing.sandbox, &staff.union(&others).cloned().collect());
    let done = program.run(&["cancel", "staff"]).await;
    assert!(said(&done).contains("4 of them are already."), "{}", said(&done));
    each_once(&issuing.sandbox, &staff.union(&others).cloned().collect());
}

/// Three people have left, and later the whole batch is undone: Stripe changes no cancelled card.
#[tokio::test(flavor = "multi_thread")]
async fn cards_that_a_file_has_cancelled_are_left_out() {
    let issuing = Issuing::with(Options::default()).await;
    let program = issuing.program();
    std::fs::write(issuing.path("staff.csv"), csv("r", 0..8)).unwrap();
    expect_exit(&program.run(&["issue", "staff.csv"]).await, 0);
    let cards: Vec<String> = cards_of(&issuing.sandbox, "staff").into_iter().collect();
    let left = cards[..3].iter().map(|card| format!("{card},{card},canceled\n")).collect::<String>();
    std::fs::write(issuing.path("left.csv"), format!("row_id,card,status\n{left}")).unwrap();
    expect_exit(&program.run(&["issue", "left.csv", "--yes-cancel", "3"]).await, 0);
    let planned = program.run(&["cancel", "staff"]).await;
    let told = said(&planned);
    assert!(told.contains("5 cards would be cancelled") && told.contains("Left out: 3 cards"), "{told}");
    expect_exit(&program.run(&["cancel", "staff", "--yes-cancel", "5"]).await, 0);
    each_once(&issuing.sandbox, &cards.iter().cloned().collect());
    std::fs::write(issuing.path("others.csv"), csv("o", 20..22)).unwrap();
    expect_exit(&program.run(&["issue", "others.csv"]).await, 0);
    let others = cards_of(&issuing.sandbox, "others");
    let all = others.iter().map(|card| format!("{card},{card},canceled\n")).collect::<String>();
    std::fs::write(issuing.path("left.csv"), format!("row_id,card,status\n{all}")).unwrap();
    expect_exit(&program.run(&["issue", "left.csv", "--batch", "rest", "--yes-cancel", "2"]).await, 0);
    let none = program.run(&["cancel", "others", "--yes-cancel", "2"]).await;
    expect_exit(&none, 2);
    assert!(said(&none).contains("has no card that is not cancelled"), "{}", said(&none));
}

/// Who is there when it is done over HTTP.
async fn office(issuing: &Issuing, options: &[(&str, &str)]) -> People {
    let who: [(&str, &[&str]); 4] = [
        ("clerk", &["submit", "read"]),
        ("boss", &["approve", "read"]),
        ("ops", &["operate", "read"]),
        ("ops2", &["operate", "approve"]),
    ];
    let mut program = issuing.program();
    for (name, value) in options {
        program = program.with(name, value);
    }
    people(program, &who).await
}

const CANCEL: &str = "/v1/batches/staff/cancel-cards";

async fn view(people: &People, served: &Served, batch: &str) -> Value {
    people.get(served, "boss", &format!("/v1/batches/{batch}")).await.expect(200).json()
}

/// Waits until a batch is as wanted.
async fn until(people: &People, served: &Served, batch: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let view = view(people, served, batch).await;
        if wanted(&view) {
            return view;
        }
        assert!(began.elapsed() < support::issuing::RUN_MAX, "never came: {view}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_it_is_planned_said_begun_and_recorded() {
    const CARDS: usize = 40;
    let issuing = Issuing::with(Options::default()).await;
    let people = office(&issuing, &[]).await;
    let served = Served::start(&people.program, &["--rate", "20"]);
    let manifest = csv("r", 0..CARDS).into_bytes();
    people.upload(&served, "clerk", "/v1/batches?name=staff", &manifest).await.expect(202);
    people
        .upload(&served, "clerk", "/v1/batches?name=others", csv("o", 100..103).as_bytes())
        .await
        .expect(202);
    // Nothing is cancelled while cards are made.
    let busy = people.post(&served, "ops", CANCEL, Value::Null).await.expect(409);
    assert!(busy.text.contains("pause or cancel it first"), "{}", busy.text);
    until(&people, &served, "staff", |view| view["issued"].as_u64() >= Some(3)).await;
    people.post(&served, "ops", "/v1/batches/staff/pause", Value::Null).await.expect(200);
    let plan = people.get(&served, "boss", CANCEL).await.expect(200).json();
    assert!(plan["cards"].as_u64().unwrap() < CARDS as u64, "{plan}");
    people.post(&served, "ops", "/v1/batches/staff/resume", Value::Null).await.expect(200);
    until(&people, &served, "staff", |view| view["state"] == "finished").await;
    until(&people, &served, "others", |view| view["state"] == "finished").await;
    drop(served);

    issuing.sandbox.set_faults(FAULTS);
    let served = Served::start(&people.program, &["--rate", "30"]);
    let plan = people.get(&served, "boss", CANCEL).await.expect(200).json();
    assert_eq!(
        (&plan["batch"], &plan["cards"], &plan["cancelled"]),
        (&json!("staff.cancel"), &json!(CARDS), &json!(0))
    );
    assert!(
        plan["notes"][0].as_str().unwrap().contains("40 cards of batch \"staff\" will be cancelled"),
        "{plan}"
    );
    assert!(
        plan["until_ms"].as_i64().unwrap() > 0 && plan["not_printed_yet"].as_u64().unwrap() <= 40,
        "{plan}"
    );
    for wrong in [CANCEL.to_owned(), format!("{CANCEL}?yes_cancel=41")] {
        let refused = people.post(&served, "ops", &wrong, Value::Null).await.expect(409).json();
        assert_eq!((&refused["code"], &refused["cancels"]), (&json!("cancels_unsaid"), &json!(40)));
    }
    // A print run that began while somebody thought about it saves less than they were told.
    let print_run = plan["until_ms"].as_i64().unwrap();
    let former = format!("{CANCEL}?yes_cancel=40&until_ms={}", print_run - 86_400_000);
    let refused = people.post(&served, "ops", &former, Value::Null).await.expect(409).text;
    assert!(refused.contains("a print run has begun since"), "{refused}");
    let right = format!("{CANCEL}?yes_cancel=40&until_ms={print_run}");
    people.post(&served, "clerk", &right, Value::Null).await.expect(403);
    people
        .post(&served, "ops", "/v1/batches/nobody/cancel-cards?yes_cancel=1", Value::Null)
        .await
        .expect(404);
    let none = people.post(&served, "ops", "/v1/batches/staff/cancel-cards?yes=1", Value::Null).await;
    none.expect(400);
    each_once(&issuing.sandbox, &BTreeSet::new());
    let begun = people.post(&served, "ops", &right, Value::Null).await.expect(202);
    assert_eq!(begun.headers["location"], "/v1/batches/staff%2Ecancel");
    // The same again is the same batch; and a crash in the middle costs nothing.
    people.post(&served, "ops", &right, Value::Null).await.expect(202);
    issuing.until("some are cancelled", |sandbox| sandbox.account().changes.len() >= 12).await;
    served.killed();
    assert!(issuing.sandbox.account().changes.len() < CARDS);
    let served = Served::start(&people.program, &["--rate", "200"]);
    people.post(&served, "ops", &right, Value::Null).await.expect(202);
    let view = until(&people, &served, "staff.cancel", |view| view["state"] == "finished").await;
    assert_eq!((&view["rows"], &view["issued"], &view["refused"]), (&json!(40), &json!(40), &json!(0)));
    let staff = cards_of(&issuing.sandbox, "staff");
    each_once(&issuing.sandbox, &staff);
    let results = people.get(&served, "boss", "/v1/batches/staff.cancel/results.csv").await.expect(200).text;
    assert_eq!(staff.iter().filter(|card| results.contains(card.as_str())).count(), CARDS);
    let plan = people.get(&served, "boss", CANCEL).await.expect(200).json();
    assert_eq!(
        (&plan["cards"], &plan["cancelled"], &plan["not_printed_yet"]),
        (&json!(40), &json!(40), &json!(0))
    );

    // What a later upload adds is all that a second cancel does.
    people
        .upload(&served, "clerk", "/v1/batches?name=staff", csv("r", 0..CARDS + 2).as_bytes())
        .await
        .expect(202);
    until(&people, &served, "staff", |view| view["state"] == "finished" && view["issued"] == 42).await;
    people.post(&served, "ops", &right, Value::Null).await.expect(409);
    people.post(&served, "ops", &format!("{CANCEL}?yes_cancel=42"), Value::Null).await.expect(202);
    until(&people, &served, "staff.cancel", |view| view["state"] == "finished" && view["issued"] == 42).await;
    each_once(&issuing.sandbox, &cards_of(&issuing.sandbox, "staff"));
    let log = people.get(&served, "ops", "/v1/audit?batch=staff&limit=1000").await.expect(200).json();
    let asked =
        log["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "cards_cancelled");
    let asked: Vec<_> = asked.map(|entry| (entry["who"].clone(), entry["rows"].clone())).collect();
    assert_eq!(asked.first(), Some(&(json!("ops"), json!(42))), "{log}");
    assert_eq!(asked.len(), 4, "{log}");
}

#[tokio::test]
async fn where_an_approval_is_required_nothing_is_cancelled_without_one() {
    let issuing = Issuing::with(Options::default()).await;
    std::fs::write(issuing.path("staff.csv"), csv("r", 0..8)).unwrap();
    expect_exit(&issuing.program().run(&["issue", "staff.csv"]).await, 0);
    let people = office(&issuing, &[("EMBOSSER__APPROVAL__REQUIRED", "true")]).await;
    let served = Served::start(&people.program, &["--rate", "200"]);
    let right = format!("{CANCEL}?yes_cancel=8");
    let held = people.post(&served, "ops2", &right, Value::Null).await.expect(202).json();
    assert_eq!((&held["batch"], &held["state"]), (&json!("staff.cancel"), &json!("awaiting_approval")));
    let waits = &held["held"];
    assert_eq!((&waits["submitter"], &waits["plan"]["cancels"]), (&json!("ops2"), &json!(8)));
    // Nothing is said to be done that is not.
    let log = people.get(&served, "ops", "/v1/audit?batch=staff&limit=1000").await.expect(200).text;
    assert!(log.contains("cards_cancel_sent") && !log.contains("cards_cancelled"), "{log}");
    let digest = json!({"digest": waits["digest"]});
    let approve = async |who: &str| {
        people.ask(&served, who, Method::POST, "/v1/batches/staff.cancel/approve", digest.clone()).await
    };
    approve("ops2").await.expect(403);
    each_once(&issuing.sandbox, &BTreeSet::new());
    approve("boss").await.expect(200);
    until(&people, &served, "staff.cancel", |view| view["state"] == "finished").await;
    each_once(&issuing.sandbox, &cards_of(&issuing.sandbox, "staff"));
}

/// While a worker may still issue jobs of the batch from its queue, their cards would be left out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_cancelled_while_a_worker_may_go_on_issuing_the_batch() {
    const CARDS: usize = 30;
    let issuing = Issuing::with(Options::default()).await;
    let rabbit = support::rabbit::Rabbit::start().await;
    let with_rabbit = issuing.program().with("EMBOSSER__RABBITMQ__URL", &rabbit.url());
    let worker = with_rabbit.spawn(&["worker", "--rate", "10"]);
    let url = rabbit.url();
    let options = [
        ("EMBOSSER__RABBITMQ__URL", url.as_str()),
        ("EMBOSSER__HTTP__JOBS_TO", "rabbitmq_test"),
        ("STRIPE_API_KEY", ""),
    ];
    let people = office(&issuing, &options).await;
    let served = Served::start(&people.program, &["--rate", "100"]);
    let manifest = csv("r", 0..CARDS).into_bytes();
    people.upload(&served, "clerk", "/v1/batches?name=staff", &manifest).await.expect(202);
    issuing.until("some are issued", |sandbox| sandbox.account().cards.len() >= 5).await;
    // Another server knows of the batch only what the ledger does.
    served.killed();
    let served = Served::start(&people.program, &["--rate", "100"]);
    let now = until(&people, &served, "staff", |view| view["issued"].as_u64() >= Some(5)).await;
    assert_eq!(now["state"], "interrupted", "{now}");
    let refused =
        people.post(&served, "ops", &format!("{CANCEL}?yes_cancel=5"), Value::Null).await.expect(409);
    assert!(refused.text.contains("a worker issues them"), "{}", refused.text);
    each_once(&issuing.sandbox, &BTreeSet::new());
    issuing.until("all are issued", |sandbox| sandbox.account().cards.len() == CARDS).await;
    until(&people, &served, "staff", |view| view["issued"] == CARDS && view["unresolved"] == 0).await;
    people.post(&served, "ops", &format!("{CANCEL}?yes_cancel={CARDS}"), Value::Null).await.expect(202);
    until(&people, &served, "staff.cancel", |view| view["issued"] == CARDS).await;
    each_once(&issuing.sandbox, &cards_of(&issuing.sandbox, "staff"));
    worker.killed().await;
}
