//! Promise: a PIN that breaks a rule is refused by that rule's code, and Stripe sees no call for its card. The key
//! is fetched for each, since the rules are held against the key of that moment.

use crate::forge;
use crate::support;

use std::collections::BTreeSet;

use embosser::clock::Clock;
use embosser::job::{Batch, Job, JobId};
use embosser::jwe::PinKey;
use embosser::line::{LookFirst, Options as Carry};
use embosser::operation::{Operation, Request};
use embosser::pin::PinJwe;
use embosser::sandbox::{Options, Sandbox};
use forge::broken::{CODES, broken};
use support::line::{issued, job, line_in, refused};
use support::{Program, client_of, expect_exit};

fn job_with(id: &str, compact: String) -> Job {
    let pairs = [("cardholder", "ich_1"), ("currency", "eur"), ("type", "virtual")];
    let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned()));
    let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
    Job::new(JobId::new(id).unwrap(), Batch::new("batch").unwrap(), None, card, Some(PinJwe::new(compact)))
}

async fn current_key(sandbox: &Sandbox) -> PinKey {
    PinKey::parse(&client_of(sandbox).pin_key().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_told_by_its_code_and_costs_a_key_fetch_and_no_call() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let line = line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await;
    let key = current_key(&sandbox).await;
    let cases = broken(key.kid(), &key.modulus());
    let fetched_before = sandbox.account().key_fetches;
    let mut told = BTreeSet::new();
    for (number, (code, compact)) in cases.iter().enumerate() {
        let ended = line
            .carry(job_with(&format!("batch/{number}"), compact.clone()), Carry::default())
            .await
            .unwrap();
        assert_eq!(refused(&ended).code, *code, "{compact:.300}");
        assert_eq!((ended.attempts, ended.request_id), (0, None), "{code}");
        told.insert(*code);
        let account = sandbox.account();
        assert_eq!((account.creates, account.cards.len()), (0, 0), "{code}");
        assert_eq!(account.key_fetches, fetched_before + number as u64 + 1, "{code}");
    }
    assert_eq!(told.len(), CODES);
    // And the line works on: the same sandbox makes the card of a PIN that is in order.
    let good = job(&sandbox, "batch/good", "eur", Some("1234")).await;
    let card = issued(&line.carry(good, Carry::default()).await.unwrap()).id.clone();
    let cards = sandbox.account().cards;
    assert_eq!((&cards[0].id, cards[0].pin.as_deref()), (&card, Some("1234")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_rotates_between_encryption_and_call_makes_the_pin_stale() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let line = line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await;
    let first = job(&sandbox, "batch/first", "eur", Some("1111")).await;
    issued(&line.carry(first, Carry::default()).await.unwrap());
    // Its header is known by now; the key it names is not the current one any more.
    let stale = job(&sandbox, "batch/stale", "eur", Some("2222")).await;
    sandbox.rotate_key();
    let ended = line.carry(stale, Carry::default()).await.unwrap();
    assert_eq!(refused(&ended).code, "stale_key");
    assert!(refused(&ended).message.contains("encrypt again"), "{:?}", ended.outcome);
    assert_eq!(sandbox.account().creates, 1);
    // Encrypted again, the same job gets its card.
    let again = job(&sandbox, "batch/stale", "eur", Some("2222")).await;
    issued(&line.carry(again, Carry::default()).await.unwrap());
    let pins: Vec<_> = sandbox.account().cards.into_iter().map(|card| card.pin.unwrap()).collect();
    assert_eq!(pins, ["1111", "2222"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_pin_fetches_no_key() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let line = line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await;
    issued(&line.carry(job(&sandbox, "batch/a", "eur", None).await, Carry::default()).await.unwrap());
    let account = sandbox.account();
    assert_eq!((account.creates, account.key_fetches), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_with_broken_pins_is_refused_row_by_row_without_any_request() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let key = current_key(&sandbox).await;
    let fetched_before = sandbox.account().key_fetches;
    // What needs the key is not found offline.
    let offline =
        |code: &str| !["stale_key", "jwe_encrypted_key_range", "jwe_encrypted_key_length"].contains(&code);
    let mut cases = broken(key.kid(), &key.modulus());
    // An empty cell is no PIN at all, and white space around a cell may be the spreadsheet's.
    cases.retain(|(code, compact)| offline(code) && !compact.is_empty() && compact.trim() == compact);
    let mut text = "row_id,type,currency,pin[encrypted_number]\n".to_owned();
    for (row, (_, compact)) in cases.iter().enumerate() {
        text += &format!("r{row},virtual,eur,\"{compact}\"\n");
    }
    std::fs::write(directory.path().join("m.csv"), text).unwrap();
    let program = Program::new(directory.path(), &sandbox);
    expect_exit(&program.run(&["issue", "m.csv"]).await, 2);
    let output = program.run(&["issue", "m.csv", "--skip-invalid"]).await;
    expect_exit(&output, 1);
    let results = std::fs::read_to_string(directory.path().join("m.results.csv")).unwrap();
    let mut results = csv::Reader::from_reader(results.as_bytes());
    let headers = results.headers().unwrap().clone();
    let column = |name: &str| headers.iter().position(|header| header == name).unwrap();
    let (row_id, code) = (column("row_id"), column("error_code"));
    let told: Vec<_> = results.records().map(|row| row.unwrap()).collect();
    assert_eq!(told.len(), cases.len());
    for (row, (expected, _)) in told.iter().zip(&cases) {
        assert_eq!(&row[code], *expected, "{}", &row[row_id]);
    }
    let account = sandbox.account();
    assert_eq!((account.creates, account.key_fetches), (0, fetched_before));
}
