//! Promise: that a list could not be had proves nothing of what is in it. One answer that says no, from whatever stands before Stripe,
//! makes no second card beside a lost ledger, and no second cardholder for people who have one.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options};
use support::issuing::Issuing;
use support::people::{issuing_with, people_header, person};
use support::{expect_exit, one_card_each, write_manifest};

/// What Stripe answers to those who may not, to what it does not understand, and to what it does not know.
const NO: [u16; 3] = [403, 400, 404];
/// Which of the lists that follow is answered so.
const PLACES: usize = 6;

fn at(place: usize, status: u16) -> impl Iterator<Item = Option<u16>> {
    std::iter::repeat_n(None, place).chain([Some(status)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledgers_batch_is_found_all_the_same() {
    for status in NO {
        for place in 0..PLACES {
            let issuing = Issuing::with(Options::default()).await;
            let expected = write_manifest(&issuing.path("cards.csv"), &issuing.sandbox, 12).await;
            let run = ["issue", "cards.csv", "--rate", "100"];
            let program = issuing.program();
            expect_exit(&program.run(&[&run[..], &["--ledger", "sqlite://one.db"]].concat()).await, 0);
            // What Stripe remembers of keys is of no help any more.
            issuing.sandbox.advance(Duration::from_secs(25 * 3600));
            std::fs::remove_file(issuing.path("cards.results.csv")).unwrap();
            issuing.sandbox.refuse_lists(at(place, status));
            let again = [&run[..], &["--ledger", "sqlite://other.db"]].concat();
            expect_exit(&program.run(&again).await, 0);
            one_card_each(&issuing.sandbox.account(), &expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_have_a_cardholder_keep_it() {
    const PEOPLE: usize = 12;
    let manifest = |currency: &str| {
        let mut text = format!("row_id,type,currency,{}\n", people_header());
        for number in 0..PEOPLE {
            text += &format!("E{number},virtual,{currency},{}\n", person(number));
        }
        text
    };
    for status in NO {
        for place in 0..PLACES {
            let (issuing, program) = issuing_with(Faults::default()).await;
            std::fs::write(issuing.path("one.csv"), manifest("eur")).unwrap();
            std::fs::write(issuing.path("other.csv"), manifest("usd")).unwrap();
            let issue = |file: &'static str, ledger: &'static str| {
                [["issue", file].as_slice(), &["--rate", "100", "--ledger", ledger]].concat()
            };
            expect_exit(&program.run(&issue("one.csv", "sqlite://one.db")).await, 0);
            issuing.sandbox.refuse_lists(at(place, status));
            expect_exit(&program.run(&issue("other.csv", "sqlite://other.db")).await, 0);
            let account = issuing.sandbox.account();
            assert_eq!(
                (account.cardholders.len(), account.cards.len()),
                (PEOPLE, 2 * PEOPLE),
                "{status} at {place}"
            );
        }
    }
}
