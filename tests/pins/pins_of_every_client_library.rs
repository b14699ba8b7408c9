//! Promise: what any client library makes as docs/pins.md shows it, and in every other header shape it can produce, is taken
//! by embosser and is the right PIN at Stripe; and what clients get wrong is refused with a reason that tells.
//!
//! The tests write the tables of docs/pins.md (`EMBOSSER_WRITE_DOCS=1`), or fail where these have become untrue.

#[path = "../clients/mod.rs"]
mod clients;
use crate::support;

use std::fmt::Write as _;

use clients::pages::{Row, comparable, hold, matrix, snippet, writes};
use clients::wrong::mistakes;
use clients::{Client, LIBRARIES, Made, SHAPES};
use embosser::clock::Clock;
use embosser::job::{Batch, Job, JobId};
use embosser::jwe::{self, PinKey};
use embosser::line::{LookFirst, Options as Carry};
use embosser::operation::{Operation, Request};
use embosser::pin::PinJwe;
use embosser::sandbox::{Options, Sandbox};
use support::line::{line_in, refused};
use support::{Expected, Program, client_of, expect_exit, http_client, one_card_each};

/// Libraries that could not be tried here; their snippets are in docs/pins.md all the same.
const NOT_RUN: [&str; 4] =
    ["not-run/ruby-jose.rb", "not-run/JOSESwift.swift", "not-run/jose4j.java", "not-run/jose-jwt.cs"];

/// Those that are there. Which are not is told, and fails a run in CI.
fn prepared(directory: &std::path::Path) -> (Vec<Client>, Vec<&'static str>) {
    let (mut clients, mut missing) = (Vec::new(), Vec::new());
    for library in &LIBRARIES {
        match library.prepare(directory) {
            Ok(client) => clients.push(client),
            Err(reason) => {
                eprintln!("!! {} is left out, ./tests/run installs it: {reason}", library.name);
                missing.push(library.name);
            }
        }
    }
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "missing: {missing:?}");
    (clients, missing)
}

/// The n-th PIN: all are different, leading zeros among them.
fn pin(number: usize) -> String {
    format!("{:04}", number * 61 % 10_000)
}

/// Every client encrypts under the key of a sandbox; what they made is issued, and each card has its PIN.
async fn all_are_taken(clients: &[Client], bits: u32, rows: &mut [Row]) {
    let sandbox = Sandbox::start(Options { key_bits: bits, ..Options::default() }).await.unwrap();
    let key = PinKey::parse(&client_of(&sandbox).pin_key().await.unwrap()).unwrap();
    assert_eq!(key.modulus().len() * 8, bits as usize);
    let url = sandbox.key_url();
    let fetched_before = sandbox.counts().key_fetches;
    let works = clients.iter().enumerate().map(|(at, client)| {
        let pins: Vec<String> = (0..SHAPES.len()).map(|shape| pin(at * SHAPES.len() + shape)).collect();
        let url = &url;
        async move { client.make(&pins, url).await }
    });
    let made: Vec<Vec<Made>> = futures_util::future::join_all(works).await;
    let jwes = made.iter().flatten().filter(|made| made.jwe.is_some()).count() as u64;
    assert!(sandbox.counts().key_fetches >= fetched_before + jwes, "a client keeps the key");

    let directory = tempfile::tempdir().unwrap();
    let mut manifest = "row_id,cardholder,type,currency,pin[encrypted_number]\n".to_owned();
    let mut expected = Expected::new();
    for (at, (row, made)) in rows.iter_mut().zip(&made).enumerate() {
        for made in made {
            let Some(jwe) = &made.jwe else { continue };
            let whose = format!("{}, {}, {bits} bits: {jwe}", row.library.name, SHAPES[made.shape].0);
            assert_eq!((jwe::inspect(jwe), jwe::verify(jwe, &key)), (Ok(()), Ok(())), "{whose}");
            writeln!(manifest, "{at}-{},ich_1,virtual,eur,{jwe}", made.shape).unwrap();
            expected.insert(format!("pins/{at}-{}", made.shape), Some(made.pin.clone()));
        }
        row.note(bits, made, key.kid());
    }
    std::fs::write(directory.path().join("pins.csv"), manifest).unwrap();
    let output = Program::new(directory.path(), &sandbox).run(&["issue", "pins.csv", "--rate", "200"]).await;
    expect_exit(&output, 0);
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_librarys_pins_are_taken_and_are_the_right_ones() {
    // josekit's program asks for the key as docs/pins.md shows it, with the client that this sets up.
    let _ = http_client();
    let directory = tempfile::tempdir().unwrap();
    let (clients, missing) = prepared(directory.path());
    let mut rows: Vec<Row> = clients.iter().map(|client| Row::new(client.library, &client.version)).collect();
    for bits in [2048, 4096] {
        all_are_taken(&clients, bits, &mut rows).await;
    }
    assert!(missing.is_empty() || !writes(), "the matrix is written where all libraries are: {missing:?}");
    hold("matrix", &matrix(&rows), |text| comparable(text, &missing));
}

#[test]
fn the_page_shows_the_programs_that_were_run() {
    let run = LIBRARIES.iter().map(|library| library.program);
    for program in run.chain(NOT_RUN) {
        hold(program, &snippet(program), str::to_owned);
    }
}

fn job_with(number: usize, pin: String) -> Job {
    let pairs = [("cardholder", "ich_1"), ("currency", "eur"), ("type", "virtual")];
    let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned()));
    let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
    let id = JobId::new(format!("batch/{number}")).unwrap();
    Job::new(id, Batch::new("batch").unwrap(), None, card, Some(PinJwe::new(pin)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_get_wrong_is_refused_with_a_reason_that_tells() {
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let line = line_in(directory.path(), &sandbox, &Clock::system(), LookFirst::No).await;
    let before = client_of(&sandbox).pin_key().await.unwrap();
    sandbox.rotate_key();
    let current = client_of(&sandbox).pin_key().await.unwrap();
    let key = PinKey::parse(&current).unwrap();
    let mut table =
        "| What the client did | Found by | Code | Reason |\n| --- | --- | --- | --- |\n".to_owned();
    for (number, mistake) in mistakes(&current, &before).into_iter().enumerate() {
        let (offline, online) = (jwe::inspect(&mistake.pin), jwe::verify(&mistake.pin, &key));
        let ended = line.carry(job_with(number, mistake.pin), Carry::default()).await.unwrap();
        let refused = refused(&ended);
        let found_by = match (offline, online) {
            (Err(found), _) => {
                assert_eq!((&*refused.code, &refused.message), (found.code(), &found.to_string()));
                "`check`"
            }
            (Ok(()), Err(found)) => {
                assert_eq!(refused.code, found.code());
                "embosser, before the call"
            }
            (Ok(()), Ok(())) => {
                assert!(ended.request_id.is_some(), "{}: {:?}", mistake.what, ended.outcome);
                "Stripe"
            }
        };
        writeln!(table, "| {} | {found_by} | `{}` | {} |", mistake.what, refused.code, refused.message)
            .unwrap();
    }
    assert_eq!(sandbox.account().cards.len(), 0);
    hold("mistakes", &table, str::to_owned);
}
