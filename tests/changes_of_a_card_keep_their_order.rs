//! Promise: changes of one card go one at a time, and one that waited is not sent after another that was begun meanwhile,
//! by whichever process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use embosser::clock::Clock;
use embosser::job::{Batch, Job, JobId};
use embosser::line::decision::Rules;
use embosser::line::{Line, LookFirst, Options as Way};
use embosser::operation::{Operation, Request};
use embosser::outcome::{Ended, Outcome, Output};
use embosser::sandbox::{Faults, Options, Sandbox};
use support::line::{line_by, line_in, refused};
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
