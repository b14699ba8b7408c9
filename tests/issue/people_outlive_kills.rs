//! Promise: two thousand people get a cardholder and a card each with the PIN that each chose, and nobody two, however often the
//! run is killed and whatever Stripe's answers come to.

use crate::support;

use std::collections::BTreeSet;
use std::time::Duration;

use embosser::sandbox::Faults;
use support::issuing::said;
use support::people::{issuing_with, jwes, people_header, person, results};
use support::{expect_exit, was_killed};

const PEOPLE: usize = 2000;
/// Made so far when the run is killed.
const KILLED_AT: [usize; 5] = [150, 500, 900, 1300, 1800];

fn pin(number: usize) -> String {
    format!("{:04}", 1000 + number)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_forgotten_or_made_twice() {
    // A tenth of all calls goes wrong: before and after they had their effect, and without an answer.
    let faults = Faults { error_after: 0.03, drop_after: 0.03, error_before: 0.04, ..Faults::default() };
    let (issuing, program) = issuing_with(faults).await;
    let mut text = format!("row_id,type,currency,pin[encrypted_number],{}\n", people_header());
    for (number, jwe) in jwes(&issuing, (0..PEOPLE).map(pin)).await.into_iter().enumerate() {
        text += &format!("E{number},virtual,eur,{jwe},{}\n", person(number));
    }
    std::fs::write(issuing.path("people.csv"), &text).unwrap();
    let arguments = ["issue", "people.csv", "--rate", "400"];
    for made in KILLED_AT {
        let run = program.spawn(&arguments);
        while issuing.sandbox.account().cards.len() < made {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(was_killed(&run.killed().await), "the run ended before {made} cards were made");
    }
    // What the kills left unknown is settled by the runs after them.
    expect_exit(&program.run(&arguments).await, 0);
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (PEOPLE, PEOPLE));
    let emails: BTreeSet<_> = account.cardholders.iter().map(|made| made.email.clone()).collect();
    assert_eq!(emails.len(), PEOPLE, "a person was made twice");
    let results = results(&issuing, "people.results.csv");
    assert_eq!(results.len(), PEOPLE);
    for (row, [outcome, card, cardholder]) in results {
        assert_eq!(outcome, "issued", "{row}");
        let number: usize = row[1..].parse().unwrap();
        let card = account.cards.iter().find(|made| made.id == card).unwrap();
        assert_eq!(
            (card.pin.clone(), &card.cardholder),
            (Some(pin(number)), &Some(cardholder.clone())),
            "{row}"
        );
        let whose = account.cardholders.iter().find(|made| made.id == cardholder).unwrap();
        assert_eq!(whose.email, Some(format!("p{number}@example.com")), "{row}");
    }
    // The same people from a file of another name.
    std::fs::copy(issuing.path("people.csv"), issuing.path("again.csv")).unwrap();
    let again = program.run(&["issue", "again.csv", "--rate", "400"]).await;
    assert!(said(&again).contains("issued before as batch \"people\""), "{}", said(&again));
    let account = issuing.sandbox.account();
    assert_eq!((account.cardholders.len(), account.cards.len()), (PEOPLE, PEOPLE));
}
