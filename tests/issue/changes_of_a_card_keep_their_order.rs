//! Promise: changes of one card go one at a time, and one that waited is not sent after another that was begun meanwhile,
//! by whichever process.

use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use embosser::clock::{Clock, Time};
use embosser::job::{Batch, Job, JobId, Place};
use embosser::ledger::Ledger;
use embosser::line::decision::Rules;
use embosser::line::gate::{Gate, Standing};
use embosser::line::{Line, LookFirst, Options as Way};
use embosser::operation::{Operation, Request};
use embosser::outcome::{Ended, Outcome, Output};
use embosser::sandbox::{Faults, Options, Sandbox};
use sqlx::{Connection as _, PgConnection};
use support::line::{line_by, line_in, parts_in, refused};
use support::postgres::Postgres;
use tokio_util::sync::CancellationToken;

/// The sandbox's first card.
const CARD: &str = "ic_sandbox00000001";

async fn sandbox_with_a_card(options: Options) -> Sandbox {
    let sandbox = Sandbox::start(options).await.unwrap();
    sandbox.stock("ich_1", 1);
    sandbox
}

fn change(id: &str, status: &str) -> Job {
    let pairs = vec![("status".to_owned(), status.to_owned())];
    let request = Request::from_pairs(Operation::UpdateCard, pairs).unwrap().with_target(CARD.to_owned());
    Job::new(JobId::new(id).unwrap(), Batch::new("batch").unwrap(), None, request, None)
}

fn is_updated(ended: &Ended) -> bool {
    matches!(&ended.outcome, Outcome::Done(Output::Updated(card)) if card.id == CARD)
}

fn changes_made(sandbox: &Sandbox) -> Vec<String> {
    sandbox.account().changes.into_iter().filter_map(|change| change.job).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn carried(line: &Arc<Line>, job: Job) -> tokio::task::JoinHandle<Option<Ended>> {
    let line = line.clone();
    tokio::spawn(async move { line.carry(job, Way::default()).await })
}

/// The first one's end is looked up, which takes a while, and nobody holds the account meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_waited_for_its_look_is_not_sent_after_another_processs() {
    let sandbox = sandbox_with_a_card(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let rules = Rules {
        call_lasts: Duration::from_millis(300),
        lists_lag: Duration::from_secs(4),
        ..Rules::default()
    };
    let clock = Clock::system();
    let first = Arc::new(line_by(directory.path(), &sandbox, &clock, LookFirst::No, rules).await);
    let other = Arc::new(line_in(directory.path(), &sandbox, &clock, LookFirst::No).await);
    sandbox.set_faults(Faults { error_before: 1.0, ..Faults::default() });
    let waiting = carried(&first, change("first", "inactive"));
    let looks = || sandbox.requests().iter().filter(|seen| seen.method == "GET").count();
    until("a look", || looks() > 0).await;
    sandbox.set_faults(Faults::default());
    assert!(is_updated(&carried(&other, change("later", "active")).await.unwrap().unwrap()));
    assert!(!waiting.is_finished(), "it waited all the while");
    let ended = waiting.await.unwrap().unwrap();
    assert_eq!(refused(&ended).code, "superseded");
    assert_eq!(changes_made(&sandbox), ["later"]);
}

/// A change that is refused before its call is not the latest that was begun.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_came_too_late_keeps_none_from_being_sent_again() {
    let sandbox = sandbox_with_a_card(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let line = Arc::new(line_in(directory.path(), &sandbox, &clock, LookFirst::No).await);
    sandbox.set_faults(Faults { drop_before: 1.0, ..Faults::default() });
    let recall = CancellationToken::new();
    let unknown = {
        let (line, recall) = (line.clone(), recall.clone());
        tokio::spawn(async move {
            let way = Way { recall: Some(&recall), ..Way::default() };
            line.carry(change("first", "inactive"), way).await
        })
    };
    until("a call", || sandbox.requests().iter().any(|seen| seen.method == "POST")).await;
    recall.cancel();
    let unknown = unknown.await.unwrap().unwrap();
    assert!(matches!(unknown.outcome, Outcome::Unresolved(_)), "{:?}", unknown.outcome);
    let mut late = change("late", "active");
    late.deadline = Some(Time::from_unix_ms(clock.now().unix_ms() - 1));
    assert_eq!(refused(&carried(&line, late).await.unwrap().unwrap()).code, "expired");
    sandbox.set_faults(Faults::default());
    let again = carried(&line, change("first", "inactive")).await.unwrap().unwrap();
    assert!(is_updated(&again), "{:?}", again.outcome);
    assert_eq!(changes_made(&sandbox), ["first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_is_under_way() {
    let sandbox =
        sandbox_with_a_card(Options { latency: Duration::from_millis(50), ..Options::default() }).await;
    let directory = tempfile::tempdir().unwrap();
    let line = Arc::new(line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await);
    // One of them has the card's id for its own: names of jobs and of cards do not meet.
    let all: Vec<_> =
        ["a", "b", CARD, "d", "e"].map(|id| carried(&line, change(id, "active"))).into_iter().collect();
    for ended in all {
        assert!(is_updated(&ended.await.unwrap().unwrap()));
    }
    assert_eq!(sandbox.account().at_once_max, 1);
    let mut made = changes_made(&sandbox);
    made.sort();
    assert_eq!(made, ["a", "b", "d", "e", CARD]);
}

/// While its batch is paused another process, whose ledger knows it, makes it, and Stripe forgets the key.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_looked_for_before_its_batch_was_paused_is_looked_for_again() {
    let sandbox = sandbox_with_a_card(Options::default()).await;
    let [directory, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let clock = Clock::system();
    let line = Arc::new(line_in(directory.path(), &sandbox, &clock, LookFirst::Yes).await);
    let gate = Arc::new(Gate::default());
    gate.stand(Standing::Shut);
    let paused = {
        let (line, gate) = (line.clone(), gate.clone());
        tokio::spawn(async move {
            line.carry(change("a", "inactive"), Way { gate: Some(&gate), ..Way::default() }).await
        })
    };
    let looks = || {
        let seen = sandbox.requests().into_iter();
        seen.filter(|seen| seen.method == "GET" && seen.path.ends_with(CARD) && seen.status.is_some()).count()
    };
    until("it was looked for", || looks() == 1).await;
    let other = line_in(other.path(), &sandbox, &clock, LookFirst::No).await;
    assert!(is_updated(&other.carry(change("a", "inactive"), Way::default()).await.unwrap()));
    let before = looks();
    sandbox.advance(Duration::from_secs(25 * 3600));
    gate.stand(Standing::Open);
    assert!(is_updated(&paused.await.unwrap().unwrap()));
    assert_eq!((changes_made(&sandbox), looks()), (vec!["a".to_owned()], before + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_for_another_goes_back_when_it_is_recalled() {
    let sandbox =
        sandbox_with_a_card(Options { latency: Duration::from_secs(3), ..Options::default() }).await;
    let directory = tempfile::tempdir().unwrap();
    let line = Arc::new(line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await);
    let first = carried(&line, change("first", "active"));
    until("a call under way", || sandbox.executing() == 1).await;
    let recall = CancellationToken::new();
    let waits = {
        let (line, recall) = (line.clone(), recall.clone());
        tokio::spawn(async move {
            let way = Way { recall: Some(&recall), ..Way::default() };
            line.carry(change("second", "inactive"), way).await
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished());
    recall.cancel();
    assert!(waits.await.unwrap().is_none(), "nothing was begun for it");
    assert!(!first.is_finished(), "it did not wait for the first one's end");
    assert!(is_updated(&first.await.unwrap().unwrap()));
    assert_eq!(changes_made(&sandbox), ["first"]);
}

/// Two copies of one change, whose tasks run in the other order than that in which they came: neither waits for the other's
/// place at the card.
#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_one_change_do_not_wait_for_each_other() {
    let sandbox = sandbox_with_a_card(Options::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let line = Arc::new(line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await);
    let (first, copy, next) = (
        line.in_order(change("same", "active")),
        line.in_order(change("same", "active")),
        line.in_order(change("next", "inactive")),
    );
    let carried = |admitted| {
        let line = line.clone();
        tokio::spawn(async move { line.carry(admitted, Way::default()).await })
    };
    let (next, copy) = (carried(next), carried(copy));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let first = carried(first);
    let all = async { (first.await, copy.await, next.await) };
    let (first, copy, next) =
        tokio::time::timeout(Duration::from_secs(20), all).await.expect("none waits for ever");
    for ended in [first, copy, next] {
        assert!(is_updated(&ended.unwrap().unwrap()));
    }
    assert_eq!(changes_made(&sandbox), ["same", "next"]);
}

/// The word that a change is the latest waits for its database, and the account's lease is lost meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn one_whose_word_waited_for_its_database_is_not_sent_after_another_processs() {
    let sandbox = sandbox_with_a_card(Options::default()).await;
    let (directory, postgres, clock) = (tempfile::tempdir().unwrap(), Postgres::start(), Clock::system());
    let line = async || {
        let mut parts = parts_in(directory.path(), &sandbox, &clock, LookFirst::No, Rules::default()).await;
        parts.ledger = Ledger::open(&postgres.url()).await.unwrap();
        (parts.ledger.clone(), Arc::new(Line::new(parts)))
    };
    let ((ledger, first), (_, other)) = (line().await, line().await);
    let in_row = |row, mut job: Job| {
        job.place = Some(Place { row, row_id: None });
        job
    };
    let hold = "CREATE TABLE held (value TEXT); INSERT INTO held VALUES ('first');
        CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.value IN (SELECT value FROM held) THEN RAISE EXCEPTION 'held' USING ERRCODE = '40001'; END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER hold BEFORE INSERT OR UPDATE ON metadata FOR EACH ROW EXECUTE FUNCTION hold()";
    let mut database = PgConnection::connect(&postgres.url()).await.unwrap();
    sqlx::raw_sql(hold).execute(&mut database).await.unwrap();
    let waiting = carried(&first, in_row(1, change("first", "inactive")));
    until("its word waits", || ledger.away().is_some()).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    sqlx::raw_sql(end).execute(&mut database).await.unwrap();
    let later = carried(&other, in_row(2, change("later", "active"))).await.unwrap();
    assert!(is_updated(&later.unwrap()));
    assert!(!waiting.is_finished(), "it waited all the while");
    sqlx::raw_sql("DELETE FROM held").execute(&mut database).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it goes on");
    assert_eq!(refused(&ended.unwrap().unwrap()).code, "superseded");
    assert_eq!(changes_made(&sandbox), ["later"]);
}
