//! Promise: once the ledger says a row is written it survives, an issued row never changes, and what is not a ledger of
//! ours is left alone. The same for SQLite and PostgreSQL.

mod files;
use crate::support;
mod waiting;

use embosser::clock::{Clock, Time};
use embosser::job::{Batch, Generation, Job, JobId, Step};
use embosser::ledger::{
    BatchCounts, BatchRow, Begin, Conclude, Kind, Leased, Ledger, Only, Row, Scope, State, Version,
};
use embosser::operation::{Operation, Request};
use embosser::outcome::{Card, Output, Refusal};
use embosser::sandbox::{Options, Sandbox};
use support::postgres::Postgres;
use support::{Program, expect_exit, sqlite, write_manifest};

fn scope() -> Scope {
    Scope::new("test", "ledger.test", None)
}

fn row(id: &str, state: State) -> Row {
    let pairs = [("type", "virtual"), ("currency", "eur")].map(|(path, value)| (path.into(), value.into()));
    let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
    let job = Job::new(JobId::new(id).unwrap(), Batch::new("b").unwrap(), None, card, None);
    let mut row = Row::of(&scope(), &job, state, Time::from_unix_ms(1_700_000_000_123));
    row.generation = Generation(3);
    row.key_began = Some(Time::from_unix_ms(1_700_000_000_001));
    row.attempted = Some(Time::from_unix_ms(1_700_000_000_002));
    row.attempts = 4;
    row.row = Some(17);
    row.row_id = Some("Ünïcode, \"quoted\" \\ 'id'".into());
    row.request_id = Some("req_1".into());
    row
}

fn issued() -> State {
    State::Done(Output::Issued(Card {
        id: "ic_1".into(),
        last4: "0042".into(),
        exp_month: 12,
        exp_year: 2031,
        cardholder: Some("ich_7".into()),
        changed: Vec::new(),
    }))
}

fn refused() -> State {
    State::Refused(Refusal::own("stale_key", "encrypt again; \u{2028}'; DROP TABLE jobs; --"))
}

async fn found(ledger: &Ledger, id: &str) -> Option<Row> {
    ledger.look_up(&scope(), &JobId::new(id).unwrap()).await.unwrap()
}

/// Writes a row over what is there, whatever that is; as it is then.
async fn write(ledger: &Ledger, row: Row) -> Row {
    let known = ledger.look_up(&row.scope, &row.id).await.unwrap();
    match ledger.conclude(row, known.as_ref()).await.unwrap() {
        Conclude::Written(row) => *row,
        Conclude::Changed(found) => panic!("nobody else writes: {found:?}"),
    }
}

async fn keeps_what_it_was_told(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    for (id, state) in [("begun", State::Begun), ("issued", issued()), ("refused", refused())] {
        let row = write(&ledger, row(id, state)).await;
        assert_eq!(row.version, Version(1));
        assert_eq!(found(&ledger, id).await, Some(row));
    }
    assert_eq!(found(&ledger, "never heard of").await, None);
    // Several in one question are answered in its order.
    let ids = ["refused", "never heard of", "begun", "refused"];
    let asked = ids.map(|id| (JobId::new(id).unwrap(), Step::Last(Operation::CreateCard))).into();
    let together = ledger.look_up_all(&scope(), asked).await.unwrap();
    let states: Vec<_> = together.into_iter().map(|row| row.map(|row| row.state)).collect();
    assert_eq!(states, [Some(refused()), None, Some(State::Begun), Some(refused())]);
    assert_eq!(ledger.look_up_all(&scope(), Vec::new()).await.unwrap(), []);
    // What is not issued may change, and an end about another place than the row that is there is written whole.
    let mut moved = write(&ledger, row("begun again", State::Begun)).await;
    moved.batch = Batch::new("another").unwrap();
    (moved.row, moved.row_id) = (Some(3), None);
    moved.state = refused();
    moved.note = Some("seen".into());
    let moved = write(&ledger, moved).await;
    assert_eq!((found(&ledger, "begun again").await, moved.version), (Some(moved.clone()), Version(2)));
    let page = ledger.batch_page(&scope(), &moved.batch, None, Only::default(), 10).await.unwrap();
    assert_eq!(page, [moved]);
    // Another account's row of the same name is another row.
    let elsewhere = Scope::new("live", "ledger.test", Some("acct_1"));
    assert_eq!(ledger.look_up(&elsewhere, &JobId::new("issued").unwrap()).await.unwrap(), None);
    ledger.close().await;
    // As after a restart.
    let ledger = Ledger::open(url).await.unwrap();
    let again = found(&ledger, "begun").await.unwrap();
    assert_eq!(again, Row { version: Version(1), ..row("begun", State::Begun) });
    let counts = ledger.counts().await.unwrap();
    let all = counts.iter().fold((0, 0, 0), |(issued, refused, unresolved), batch| {
        (issued + batch.issued, refused + batch.refused, unresolved + batch.unresolved)
    });
    assert_eq!(all, (1, 2, 1));
    ledger.close().await;
}

async fn many_share_a_commit_and_come_back_in_order(url: &str) {
    const ROWS: u64 = 2_000;
    let ledger = Ledger::open(url).await.unwrap();
    let writes = (1..=ROWS).rev().map(|number| {
        let mut row = row(&format!("many/{number}"), State::Begun);
        row.batch = Batch::new("many").unwrap();
        row.row = Some(number);
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.begin(row, None).await })
    });
    for write in writes.collect::<Vec<_>>() {
        assert!(matches!(write.await.unwrap().unwrap(), Begin::Recorded(_)));
    }
    let commits = ledger.commits().commits.load(std::sync::atomic::Ordering::Relaxed);
    assert!(commits < ROWS / 4, "{commits} commits for {ROWS} rows");
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = ledger
            .batch_page(&scope(), &Batch::new("many").unwrap(), after, Only::default(), 300)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some((last.row.unwrap(), last.id.clone()));
        seen.extend(page.iter().map(|row| row.row.unwrap()));
    }
    assert_eq!(seen, (1..=ROWS).collect::<Vec<_>>());
    ledger.close().await;
}

/// Of many who know the same of a row and write at once, one is heard, and the others are told what it wrote.
async fn one_of_many_who_know_the_same_is_heard(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let other = Ledger::open(url).await.unwrap();
    let mut known = None;
    for round in 1..=3_u32 {
        let writes = (0..50_u32).map(|number| {
            let (ledger, known) = (if number % 2 == 0 { &ledger } else { &other }, known.as_ref());
            let row = Row { attempts: 100 * round + number, ..row("twice", State::Begun) };
            async move { ledger.begin(row, known).await.unwrap() }
        });
        let (mut recorded, mut changed) = (Vec::new(), Vec::new());
        for begun in futures_util::future::join_all(writes).await {
            match begun {
                Begin::Recorded(receipt) => recorded.push(*receipt.into_row()),
                Begin::Changed(found) => changed.push(*found.expect("somebody was heard")),
            }
        }
        assert_eq!((recorded.len(), changed.len()), (1, 49));
        assert!(changed.iter().all(|row| *row == recorded[0]), "{changed:?}");
        assert_eq!(recorded[0].version, Version(u64::from(round)));
        known = recorded.pop();
    }
    // A row that is there already is not one's own, though it is the same: somebody else called for it.
    let again = Row { version: Version::NONE, ..known.clone().unwrap() };
    let before = Row { version: Version(2), ..known.clone().unwrap() };
    let begun = ledger.begin(again, Some(&before)).await.unwrap();
    assert!(matches!(begun, Begin::Changed(Some(found)) if Some(&*found) == known.as_ref()));
    // An issued row is final, whoever knows its version.
    let done = Row { state: issued(), ..known.clone().unwrap() };
    let Conclude::Written(done) = ledger.conclude(done, known.as_ref()).await.unwrap() else {
        panic!("written")
    };
    for state in [State::Begun, refused()] {
        let over = ledger.conclude(Row { state, ..(*done).clone() }, Some(&done)).await.unwrap();
        assert!(matches!(over, Conclude::Changed(Some(found)) if found == done));
    }
    // A row that was taken away is no row.
    let never = ledger.begin(row("never", State::Begun), known.as_ref()).await.unwrap();
    assert!(matches!(never, Begin::Changed(None)));
    // A note stands beside it.
    ledger
        .annotate(&scope(), &done.id, Step::Last(Operation::CreateCard), Some("a note".into()))
        .await
        .unwrap();
    assert_eq!(found(&ledger, "twice").await.unwrap().note.as_deref(), Some("a note"));
    ledger.close().await;
    other.close().await;
}

/// What has a card, or may have one, is found by what it asks for.
async fn an_id_has_one_last_step(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let card = write(&ledger, row("one id", State::Begun)).await;
    let of_step = |step| Row { step, version: Version(1), ..row("one id", State::Begun) };
    // Whoever knows of none is told of the one that is there, and nothing is written.
    for step in [Step::Last(Operation::UpdateCard), Step::Last(Operation::CreateCardholder)] {
        let begun = ledger.begin(of_step(step), None).await.unwrap();
        let Begin::Changed(Some(known)) = begun else { panic!("a second job of one id: {begun:?}") };
        assert_eq!(*known, card);
        let wanted = vec![(card.id.clone(), step)];
        assert_eq!(ledger.look_up_all(&scope(), wanted).await.unwrap(), [Some(card.clone())]);
    }
    // Its first step is its own.
    let first = Step::First(Operation::CreateCardholder);
    let wanted = || vec![(card.id.clone(), first)];
    assert_eq!(ledger.look_up_all(&scope(), wanted()).await.unwrap(), [None]);
    assert!(matches!(ledger.begin(of_step(first), None).await.unwrap(), Begin::Recorded(_)));
    assert_eq!(ledger.look_up_all(&scope(), wanted()).await.unwrap()[0].as_ref().unwrap().step, first);
    ledger.close().await;
}

async fn equal_content_is_found(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    for (id, state) in [("same/1", State::Begun), ("same/2", issued()), ("same/3", refused())] {
        write(&ledger, row(id, state)).await;
    }
    let content = row("any", State::Begun).content;
    let mut same = ledger.same_content(&scope(), vec![content]).await.unwrap();
    same.retain(|same| same.id.as_str().starts_with("same/"));
    same.sort_by(|one, other| one.id.cmp(&other.id));
    let found: Vec<_> = same.iter().map(|same| (same.id.as_str(), same.kind)).collect();
    assert_eq!(found, [("same/1", Kind::Begun), ("same/2", Kind::Done)]);
    assert!(ledger.same_content(&Scope::new("live", "x", None), vec![content]).await.unwrap().is_empty());
    ledger.mark(&scope(), "seen", Time::from_unix_ms(7)).await.unwrap();
    assert_eq!(ledger.marked(&scope(), "seen").await.unwrap(), Some(Time::from_unix_ms(7)));
    assert_eq!(ledger.marked(&scope(), "other").await.unwrap(), None);
    ledger.close().await;
}

/// One process calls for an account at a time, and who waits is told by whom.
async fn one_holds_an_accounts_lease(url: &str) {
    let (ledger, other) = (Ledger::open(url).await.unwrap(), Ledger::open(url).await.unwrap());
    let clock = Clock::system();
    let Leased::Ours(lease) = ledger.lease(&scope(), &clock).await.unwrap() else { panic!("nobody has it") };
    assert!(lease.calls_from().is_zero() && lease.is_surely_ours() && lease.is_ours().await);
    let Leased::HeldBy(holder) = other.lease(&scope(), &clock).await.unwrap() else { panic!("it is held") };
    assert_eq!(holder.process, std::process::id());
    let elsewhere = Scope::new("live", "ledger.test", Some("acct_1"));
    assert!(matches!(other.lease(&elsewhere, &clock).await.unwrap(), Leased::Ours(_)), "another account's");
    drop(lease);
    let mut tries = 0;
    let again = loop {
        match other.lease(&scope(), &clock).await.unwrap() {
            Leased::Ours(lease) => break lease,
            Leased::HeldBy(_) if tries < 200 => tries += 1,
            Leased::HeldBy(holder) => panic!("still held: {holder}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(again.calls_from().is_zero(), "one's own calls are known to one's own pace");
    ledger.close().await;
    other.close().await;
}

async fn remembers_a_batchs_manifest(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let batch = |name: &str, rows| BatchRow {
        scope: Scope::new("test", "manifests", None),
        batch: Batch::new(name).unwrap(),
        digest: Some("d1".into()),
        rows,
        began: Time::from_unix_ms(1),
    };
    for (name, rows) in [("one", 5), ("one", 7), ("two", 3)] {
        ledger.write_batch(batch(name, rows)).await.unwrap();
    }
    let rows_of = async |scope: &Scope| {
        let counts = ledger.counts().await.unwrap();
        let mut rows: Vec<_> = counts
            .into_iter()
            .filter(|counts| counts.scope == scope.as_str())
            .map(|counts| (counts.batch, counts.rows))
            .collect();
        rows.sort();
        rows
    };
    // Of a batch that came through a queue there is no digest, and none is lost by that.
    for name in ["one", "three"] {
        ledger.write_batch(BatchRow { digest: None, ..batch(name, 7) }).await.unwrap();
    }
    let counts = ledger.counts().await.unwrap();
    let of = |name: &str| {
        let is_it = |counts: &&BatchCounts| counts.batch == name && counts.scope.contains("manifests");
        let counts = counts.iter().find(is_it).unwrap();
        assert_eq!(counts.began, Some(Time::from_unix_ms(1)));
        (counts.is_manifests, counts.rows_at_least())
    };
    assert_eq!([of("one"), of("two"), of("three")], [(true, Some(7)), (true, Some(3)), (false, Some(7))]);
    let is_queues = async |scope: &Scope| {
        let [one, three] = ["one", "three"].map(|name| Batch::new(name).unwrap());
        [ledger.came_by_queue(scope, &one).await.unwrap(), ledger.came_by_queue(scope, &three).await.unwrap()]
    };
    let expected = [("one".to_owned(), Some(7)), ("three".to_owned(), Some(7)), ("two".to_owned(), Some(3))];
    let (former, scope) = (batch("one", 1).scope, Scope::new("test", "manifests", Some("acct_1")));
    assert_eq!(rows_of(&former).await, expected);
    ledger.note_queue(&former, &batch("three", 7).batch).await.unwrap();
    assert_eq!((is_queues(&former).await, is_queues(&scope).await), ([false, true], [false, false]));
    ledger.rename_scope(&former, &scope).await.unwrap();
    assert_eq!((rows_of(&former).await, rows_of(&scope).await), (vec![], expected.to_vec()));
    assert_eq!((is_queues(&former).await, is_queues(&scope).await), ([false, false], [false, true]));
    ledger.close().await;
}

/// Who only reads makes nothing: no file, and no table.
async fn reading_makes_no_ledger(url: &str) {
    for _ in 0..2 {
        let error = Ledger::open_existing(url).await.err().unwrap();
        assert!(
            error.to_string().contains("no ledger") || error.to_string().contains("unable to open"),
            "{error}"
        );
    }
}

/// Whoever asks whether the ledger can be written to leaves no row behind.
async fn to_try_a_write_changes_nothing(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let before = format!("{:?}", ledger.counts().await.unwrap());
    for _ in 0..2 {
        ledger.probe_write().await.unwrap();
    }
    assert_eq!(format!("{:?}", ledger.counts().await.unwrap()), before);
    ledger.close().await;
}

async fn all_of_it(url: &str) {
    reading_makes_no_ledger(url).await;
    keeps_what_it_was_told(url).await;
    many_share_a_commit_and_come_back_in_order(url).await;
    one_of_many_who_know_the_same_is_heard(url).await;
    equal_content_is_found(url).await;
    an_id_has_one_last_step(url).await;
    waiting::a_names_value_is_swapped_once(url).await;
    waiting::a_row_that_waits_is_told_from_a_refused_one(url).await;
    waiting::a_link_is_used_once_and_not_for_ever(url).await;
    one_holds_an_accounts_lease(url).await;
    remembers_a_batchs_manifest(url).await;
    to_try_a_write_changes_nothing(url).await;
    Ledger::open_existing(url).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_what_it_was_told() {
    let directory = tempfile::tempdir().unwrap();
    all_of_it(&sqlite(&directory.path().join("a b%20c.db"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_keeps_what_it_was_told() {
    let server = Postgres::start();
    all_of_it(&server.url()).await;
}

/// A manifest issued on PostgreSQL, whose server is restarted in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_restarts_costs_no_row() {
    let mut server = Postgres::start();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 150).await;
    let program = Program::new(directory.path(), &sandbox).with("EMBOSSER__LEDGER__URL", &server.url());
    let running = program.spawn(&["issue", "cards.csv", "--rate", "50"]);
    while sandbox.account().cards.len() < 40 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let restarted = tokio::task::spawn_blocking(move || {
        server.stop();
        server.start_again();
        server
    });
    let _server = restarted.await.unwrap();
    let output = running.ended().await;
    expect_exit(&output, 0);
    support::one_card_each(&sandbox.account(), &expected);
}
