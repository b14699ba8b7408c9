//! Promise: once the ledger says a row is written it survives, an issued row never changes, and what is not a ledger of
//! ours is left alone. The same for SQLite and PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;

use embosser::clock::{Clock, Time};
use embosser::config::PinPageConfig;
use embosser::job::{Batch, Generation, Job, JobId, Step};
use embosser::ledger::{
    BatchCounts, BatchRow, Begin, Conclude, Kind, Leased, Ledger, LedgerError, Only, Row, Scope, State,
    Version,
};
use embosser::operation::{Operation, Request};
use embosser::outcome::{Card, Output, Refusal};
use embosser::pin_links::{LinksWhen, Made, PinLinks, Standing};
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

/// A value changes hands once, whoever tries at the same moment, and is found by the beginning of its name.
async fn a_names_value_is_swapped_once(url: &str) {
    let (ledger, other) = (Ledger::open(url).await.unwrap(), Ledger::open(url).await.unwrap());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ledger.swap_metadata("swap:%_a", text("x"), text("y")).await.unwrap(), Err(None));
    assert_eq!(ledger.swap_metadata("swap:%_a", None, text("0")).await.unwrap(), Ok(()));
    assert_eq!(ledger.swap_metadata("swap:%_a", None, text("1")).await.unwrap(), Err(text("0")));
    for round in 0..20 {
        let (from, one, two) = (format!("{round}"), format!("{}", round + 1), "other".to_owned());
        let (one, two) = tokio::join!(
            ledger.swap_metadata("swap:%_a", text(&from), Some(one)),
            other.swap_metadata("swap:%_a", text(&from), Some(two)),
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        if two.is_ok() {
            let next = format!("{}", round + 1);
            ledger.swap_metadata("swap:%_a", text("other"), Some(next)).await.unwrap().unwrap();
        }
    }
    for name in ["swap:%_b", "swap:%_c", "swap:xxa"] {
        ledger.set_metadata(name, "v").await.unwrap();
    }
    let names = |page: Vec<(String, String)>| page.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let page = ledger.metadata_page("swap:%_", "", 2).await.unwrap();
    assert_eq!(names(page), ["swap:%_a", "swap:%_b"]);
    assert_eq!(names(ledger.metadata_page("swap:%_", "swap:%_b", 2).await.unwrap()), ["swap:%_c"]);
    assert_eq!(ledger.swap_metadata("swap:%_a", text("20"), None).await.unwrap(), Ok(()));
    assert_eq!(ledger.metadata("swap:%_a").await.unwrap(), None);
    other.close().await;
    ledger.close().await;
}

/// A row that waits for its cardholder's PIN is neither refused nor forgotten.
async fn a_row_that_waits_is_told_from_a_refused_one(url: &str) {
    let ledger = Ledger::open(url).await.unwrap();
    let batch = Batch::new("waits").unwrap();
    for (id, state) in [("waits/1", State::AwaitingPin), ("waits/2", refused()), ("waits/3", issued())] {
        write(&ledger, Row { batch: batch.clone(), ..row(id, state) }).await;
    }
    assert_eq!(found(&ledger, "waits/1").await.unwrap().state, State::AwaitingPin);
    let counts = ledger.counts_of(&scope(), &batch).await.unwrap().unwrap();
    assert_eq!((counts.issued, counts.refused, counts.unresolved, counts.awaiting_pin), (1, 1, 0, 1));
    for (kind, id) in [(Kind::AwaitingPin, "waits/1"), (Kind::Refused, "waits/2"), (Kind::Done, "waits/3")] {
        let page = ledger.batch_page(&scope(), &batch, None, Only::of(kind), 9).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), [id]);
    }
    // They are found by what names them and by their card, and a text means itself.
    for (text, ids) in
        [("AITS/3", vec!["waits/3"]), ("ic_", vec!["waits/3"]), ("%", vec![]), ("waits_3", vec![])]
    {
        let only = Only { with: Some(text.into()), ..Only::default() };
        let page = ledger.batch_page(&scope(), &batch, None, only, 9).await.unwrap();
        assert_eq!(page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ids, "{text}");
    }
    let content = row("any", State::Begun).content;
    let same = ledger.same_content(&scope(), vec![content]).await.unwrap();
    assert!(same.iter().any(|same| same.id.as_str() == "waits/1"), "it may come to have a card");
    assert!(!same.iter().any(|same| same.id.as_str() == "waits/2"));
    // When the PIN has come it begins like any other.
    let known = found(&ledger, "waits/1").await;
    let begun = Row { batch, ..row("waits/1", State::Begun) };
    assert!(matches!(ledger.begin(begun, known.as_ref()).await.unwrap(), Begin::Recorded(_)));
    ledger.close().await;
}

/// A link is used once, by whichever of two processes comes first, until it expires; a clock that was set back does not
/// make it younger.
async fn a_link_is_used_once_and_not_for_ever(url: &str) {
    let (ledger, other) = (Ledger::open(url).await.unwrap(), Ledger::open(url).await.unwrap());
    let config = PinPageConfig { url: Some("https://pins.example.com".into()), ..PinPageConfig::default() };
    let clock = Clock::system();
    let links =
        |ledger: &Ledger| PinLinks::of(&config, LinksWhen::AtOnce, (ledger, &scope(), &clock)).unwrap();
    let (here, there) = (links(&ledger), links(&other));
    let job = |id: &str| {
        let pairs = [("type", "virtual"), ("currency", "eur"), ("pin[choose]", "true")];
        let pairs = pairs.map(|(path, value)| (path.into(), value.into()));
        let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
        Job::new(JobId::new(id).unwrap(), Batch::new("links").unwrap(), None, card, None)
    };
    let token = |made: &Made| made.link.expose().split_once('#').unwrap().1.to_owned();
    let made = here.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    let second = there.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Revoked))
    );
    let made = second;
    here.mark_delivered(&JobId::new("links/1").unwrap()).await.unwrap();
    assert!(there.await_pin(&job("links/1"), None).await.unwrap().is_none(), "it has one that was told");
    let usable = here.find(&token(&made)).await.unwrap().unwrap();
    let (one, two) = tokio::join!(here.claim(&usable, None), there.claim(&usable, None));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert!(one.is_some() != two.is_some(), "{one:?} {two:?}");
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Used))
    );
    here.give_back(one.or(two).unwrap()).await.unwrap();
    assert!(here.find(&token(&made)).await.unwrap().is_ok());
    let waits = there.waits(&JobId::new("links/1").unwrap(), &usable).await.unwrap().unwrap();
    assert_eq!(waits.into_job(None).content(), job("links/1").content());
    clock.set(-3_600_000);
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Expired)),
        "set back"
    );
    clock.set(3_600_000);
    clock.advance(std::time::Duration::from_secs(7 * 24 * 3600));
    assert_eq!(
        here.find(&token(&made)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Expired))
    );
    assert_eq!(here.waiting_by_age().await.unwrap(), [0, 0, 0, 1]);
    let again = there.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    assert!(here.find(&token(&again)).await.unwrap().is_ok(), "who waits for longer gets another");
    // The account becomes known: what waits is found under its new name, and one whose name begins like it is another's.
    let renamed = Scope::new("test", "ledger.test", Some("acct_1"));
    assert_eq!(
        PinLinks::of(&config, LinksWhen::Asked, (&ledger, &renamed, &clock))
            .unwrap()
            .waiting_by_age()
            .await
            .unwrap(),
        [0; 4]
    );
    ledger.rename_scope(&scope(), &renamed).await.unwrap();
    let moved = PinLinks::of(&config, LinksWhen::Asked, (&ledger, &renamed, &clock)).unwrap();
    assert!(moved.find(&token(&again)).await.unwrap().is_ok());
    ledger.rename_scope(&renamed, &scope()).await.unwrap();
    clock.advance(std::time::Duration::from_secs(60 * 24 * 3600));
    assert!(here.forget_old().await.unwrap() >= 2, "links that were of no use for a month");
    assert_eq!(here.find(&token(&again)).await.unwrap().err().map(|link| link.standing), Some(None));
    let again = there.await_pin(&job("links/1"), None).await.unwrap().unwrap();
    here.ended(&JobId::new("links/1").unwrap(), None).await.unwrap();
    assert_eq!(
        here.find(&token(&again)).await.unwrap().err().map(|link| link.standing),
        Some(Some(Standing::Revoked))
    );
    assert_eq!(here.waiting_by_age().await.unwrap(), [0; 4]);
    assert_eq!(here.find("x").await.unwrap().err().map(|link| link.standing), Some(None));
    other.close().await;
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
        (counts.is_manifests, counts.rows_at_least())
    };
    assert_eq!([of("one"), of("two"), of("three")], [(true, Some(7)), (true, Some(3)), (false, Some(7))]);
    let expected = [("one".to_owned(), Some(7)), ("three".to_owned(), Some(7)), ("two".to_owned(), Some(3))];
    let (former, scope) = (batch("one", 1).scope, Scope::new("test", "manifests", Some("acct_1")));
    assert_eq!(rows_of(&former).await, expected);
    ledger.rename_scope(&former, &scope).await.unwrap();
    assert_eq!((rows_of(&former).await, rows_of(&scope).await), (vec![], expected.to_vec()));
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
    a_names_value_is_swapped_once(url).await;
    a_row_that_waits_is_told_from_a_refused_one(url).await;
    a_link_is_used_once_and_not_for_ever(url).await;
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

/// What a ledger of the first version says after it was opened by this one.
async fn says_what_it_said(ledger: &Ledger, id: &str, refused_id: &str, begun_id: &str) {
    let scope = Scope::new("test", "127.0.0.1:18099", None);
    let row = async |id: &str| {
        ledger.look_up(&scope, &JobId::new(id).unwrap()).await.unwrap().expect("it is there")
    };
    let State::Done(Output::Issued(card)) = row(id).await.state else { panic!("issued") };
    assert!(card.id.starts_with("ic_sandbox") && card.last4.len() == 4 && card.exp_year == 2030, "{card:?}");
    let refused = row(refused_id).await;
    assert!(matches!(&refused.state, State::Refused(refusal) if refusal.code == "stale_key"), "{refused:?}");
    let begun = row(begun_id).await;
    assert_eq!((begun.state.clone(), begun.attempts, begun.version), (State::Begun, 1, Version(1)));
    assert!(begun.key_began.is_some() && begun.attempted.is_some());
    // An attempt goes on from it.
    let again = ledger.begin(Row { attempts: 2, ..begun.clone() }, Some(&begun)).await.unwrap();
    assert!(matches!(again, Begin::Recorded(receipt) if receipt.row().version == Version(2)));
    let same = ledger.same_content(&scope, vec![begun.content]).await.unwrap();
    assert!(same.iter().any(|same| same.id == begun.id), "{same:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_the_first_version_says_what_it_said() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    std::fs::copy(fixtures.join("ledger-v1.db"), &file).unwrap();
    let url = sqlite(&file);
    let (one, other) = tokio::join!(Ledger::open(&url), Ledger::open(&url));
    let (ledger, other) = (one.unwrap(), other.unwrap());
    says_what_it_said(&ledger, "staff/E00001", "more/F00001", "third/E00016").await;
    let counts = ledger.counts().await.unwrap();
    let total = counts.iter().fold((0, 0, 0), |(issued, refused, unresolved), batch| {
        (issued + batch.issued, refused + batch.refused, unresolved + batch.unresolved)
    });
    assert_eq!(total, (11, 9, 1));
    ledger.close().await;
    other.close().await;

    let server = Postgres::start();
    let sql = std::fs::read_to_string(fixtures.join("ledger-v1.sql")).unwrap();
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&server.url()).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let ledger = Ledger::open(&server.url()).await.unwrap();
    says_what_it_said(&ledger, "staff/P00004", "staff/P00001", "third/Q00016").await;
    ledger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_end_the_file_alone_is_the_ledger() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    for round in 0..10 {
        let ledger = Ledger::open(&sqlite(&file)).await.unwrap();
        write(&ledger, row(&format!("row {round}"), issued())).await;
        ledger.close().await;
        assert!(!directory.path().join("ledger.db-wal").exists(), "round {round}");
        let copy = directory.path().join("copy.db");
        std::fs::copy(&file, &copy).unwrap();
        let connection = rusqlite::Connection::open(&copy).unwrap();
        let rows: u32 = connection.query_row("SELECT count(*) FROM steps", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, round + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_is_taken_away_while_it_is_used_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ledger.db");
    for replaced in [false, true] {
        let ledger = Ledger::open(&sqlite(&file)).await.unwrap();
        write(&ledger, row("one", State::Begun)).await;
        std::fs::rename(&file, directory.path().join("elsewhere.db")).unwrap();
        if replaced {
            std::fs::write(&file, b"").unwrap();
        }
        let written = ledger.begin(row("two", State::Begun), None).await;
        assert!(matches!(written, Err(LedgerError::Replaced(_))), "{written:?}");
        let asked = ledger.look_up(&scope(), &JobId::new("one").unwrap()).await;
        assert!(matches!(asked, Err(LedgerError::Replaced(_))), "{asked:?}");
        ledger.close().await;
        let _ = std::fs::remove_file(&file);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_or_foreign_ledger_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let url = sqlite(&directory.path().join("ledger.db"));
    Ledger::open(&url).await.unwrap().close().await;
    let connection = rusqlite::Connection::open(directory.path().join("ledger.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.close().unwrap();
    let newer = Ledger::open(&url).await.err().unwrap();
    assert!(matches!(newer, LedgerError::Newer { found: 99, .. }), "{newer}");
    let foreign = directory.path().join("notes.txt");
    std::fs::write(&foreign, "my notes, which no program should overwrite ".repeat(100)).unwrap();
    let error = Ledger::open(&sqlite(&foreign)).await.err().unwrap().to_string();
    assert!(error.contains("not a database"), "{error}");
    assert!(std::fs::read_to_string(foreign).unwrap().starts_with("my notes"));
}
