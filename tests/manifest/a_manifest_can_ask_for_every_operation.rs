//! Promise: a manifest can ask for people with their cards, for people alone, and for changes of cards; each row has its effect
//! once, its results say which, and what cannot be meant is told before anything is done.

use crate::support;

use embosser::sandbox::{Faults, Options};
use support::expect_exit;
use support::issuing::{Issuing, said};
use support::people::{ADDRESS, issuing_with, jwes, people_header, person, results};
use support::verdict::{problems, verdict};

async fn jwe(issuing: &Issuing, pin: &str) -> String {
    jwes(issuing, std::iter::once(pin.to_owned())).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_cardholder_and_a_card_each_and_cards_are_changed_once() {
    const PEOPLE: usize = 60;
    let faults = Faults { error_after: 0.1, drop_after: 0.1, error_before: 0.1, ..Faults::default() };
    let (issuing, program) = issuing_with(faults).await;
    let mut text = format!("row_id,type,currency,cardholder,pin[encrypted_number],{}\n", people_header());
    for number in 0..PEOPLE {
        let jwe = jwe(&issuing, &format!("{:04}", 1000 + number)).await;
        // Every tenth has a cardholder already.
        match number % 10 {
            0 => text += &format!("E{number},virtual,eur,ich_old{number},{jwe},,,,,,\n"),
            _ => text += &format!("E{number},virtual,eur,,{jwe},{}\n", person(number)),
        }
    }
    std::fs::write(issuing.path("people.csv"), &text).unwrap();
    for run in 0..2 {
        let output = program.run(&["issue", "people.csv", "--rate", "300"]).await;
        expect_exit(&output, 0);
        let before = if run == 0 { "(0 of them before)" } else { "(60 of them before)" };
        assert!(said(&output).contains(&format!("60 issued {before}")), "{}", said(&output));
        let account = issuing.sandbox.account();
        assert_eq!((account.cardholders.len(), account.cards.len()), (PEOPLE - PEOPLE / 10, PEOPLE));
        for (row, [outcome, card, cardholder]) in results(&issuing, "people.results.csv") {
            assert_eq!(outcome, "issued");
            let made = account.cards.iter().find(|made| made.id == card).unwrap();
            assert_eq!(made.job.as_deref(), Some(format!("people/{row}").as_str()));
            let number: usize = row[1..].parse().unwrap();
            assert_eq!(made.pin.as_deref(), Some(format!("{:04}", 1000 + number).as_str()), "{row}");
            assert_eq!(made.cardholder.as_deref(), Some(cardholder.as_str()), "{row}");
            assert_eq!(cardholder.starts_with("ich_old"), number.is_multiple_of(10), "{row}");
        }
    }
    // The same people from a file of another name get nothing new.
    std::fs::copy(issuing.path("people.csv"), issuing.path("again.csv")).unwrap();
    let renamed = program.run(&["issue", "again.csv", "--rate", "300"]).await;
    assert!(said(&renamed).contains("issued before as batch \"people\""), "{}", said(&renamed));

    let issued = results(&issuing, "people.results.csv");
    let mut text = "row_id,card,status,pin[encrypted_number],metadata[team]\n".to_owned();
    for (row, [_, card, _]) in &issued {
        let number: usize = row[1..].parse().unwrap();
        let jwe = jwe(&issuing, &format!("{:04}", 5000 + number)).await;
        text += &format!("{row},{card},inactive,{jwe},red\n");
    }
    std::fs::write(issuing.path("changes.csv"), text).unwrap();
    let checked = program.run(&["check", "changes.csv"]).await;
    assert!(said(&checked).contains("60 card changes, 60 with a PIN"), "{}", said(&checked));
    for _ in 0..2 {
        let output = program.run(&["issue", "changes.csv", "--rate", "300"]).await;
        expect_exit(&output, 0);
        assert!(said(&output).contains("60 updated"), "{}", said(&output));
        let told = std::fs::read_to_string(issuing.path("changes.results.csv")).unwrap();
        let changed = ",metadata[team]; status; pin[encrypted_number],,,,,,,";
        assert_eq!(told.lines().filter(|line| line.ends_with(changed)).count(), PEOPLE, "{told}");
        let account = issuing.sandbox.account();
        assert_eq!((account.cards.len(), account.changes.len()), (PEOPLE, PEOPLE));
        for made in &account.cards {
            let row = issued.iter().find(|(_, [_, card, _])| *card == made.id).unwrap().0;
            let number: usize = row[1..].parse().unwrap();
            assert_eq!(made.pin.as_deref(), Some(format!("{:04}", 5000 + number).as_str()), "{row}");
        }
    }
    // The same change may be wanted again: cards are blocked, unblocked, and blocked.
    std::fs::copy(issuing.path("changes.csv"), issuing.path("blocked again.csv")).unwrap();
    expect_exit(&program.run(&["issue", "blocked again.csv", "--rate", "300"]).await, 0);
    assert_eq!(issuing.sandbox.account().changes.len(), 2 * PEOPLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_alone_are_created_once() {
    let issuing = Issuing::with(Options::default()).await;
    let mut text = format!("row_id,{}\n", people_header());
    (0..20).for_each(|number| text += &format!("E{number},{}\n", person(number)));
    std::fs::write(issuing.path("people.csv"), &text).unwrap();
    for _ in 0..2 {
        let output = issuing.program().run(&["issue", "people.csv", "--rate", "300"]).await;
        expect_exit(&output, 0);
        assert!(said(&output).contains("20 created"), "{}", said(&output));
        let account = issuing.sandbox.account();
        assert_eq!((account.cardholders.len(), account.cards.len()), (20, 0));
        for (_, [outcome, card, cardholder]) in results(&issuing, "people.results.csv") {
            assert_eq!((outcome.as_str(), card.as_str()), ("created", ""));
            assert!(account.cardholders.iter().any(|made| made.id == cardholder));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_cancelled_only_if_their_number_was_said() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.manifest(8).await;
    expect_exit(&issuing.program().run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
    let mut text = "row_id,card,status,cancellation_reason\n".to_owned();
    for (number, (row, [_, card, _])) in results(&issuing, "cards.results.csv").into_iter().enumerate() {
        let change = if number < 5 { "canceled,lost" } else { "inactive," };
        text += &format!("{row},{card},{change}\n");
    }
    std::fs::write(issuing.path("leavers.csv"), text).unwrap();
    for said_so in [&[][..], &["--yes-cancel", "8"]] {
        let output =
            issuing.program().run(&[&["issue", "leavers.csv", "--rate", "300"], said_so].concat()).await;
        expect_exit(&output, 2);
        assert!(said(&output).contains("5 cards would be cancelled, for ever"), "{}", said(&output));
        assert!(said(&output).contains("--yes-cancel 5"), "{}", said(&output));
        assert_eq!(issuing.sandbox.account().changes.len(), 0);
    }
    let output = issuing.program().run(&["issue", "leavers.csv", "--rate", "300", "--yes-cancel", "5"]).await;
    expect_exit(&output, 0);
    assert_eq!(issuing.sandbox.account().changes.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_a_card_is_never_a_change() {
    let issuing = Issuing::with(Options::default()).await;
    issuing.manifest(10).await;
    expect_exit(&issuing.program().run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
    let mut text = "row_id,card,status\n".to_owned();
    for (row, [_, card, _]) in results(&issuing, "cards.results.csv") {
        text += &format!("{row},{card},active\n");
    }
    std::fs::write(issuing.path("changes.csv"), text).unwrap();
    let output = issuing.program().run(&["issue", "changes.csv", "--batch", "cards", "--rate", "300"]).await;
    expect_exit(&output, 1);
    assert!(said(&output).contains("10 refused"), "{}", said(&output));
    assert_eq!(issuing.sandbox.account().changes.len(), 0);
    let told = std::fs::read_to_string(issuing.path("changes.results.csv")).unwrap();
    assert_eq!(told.matches("job_conflict").count(), 10, "{told}");
    // What the ledger knows is the cards, as before.
    let status = issuing.program().run(&["status", "cards"]).await;
    assert!(said(&status).contains("10 issued, 0 refused"), "{}", said(&status));
}

#[test]
fn what_cannot_be_meant_is_told_by_line_and_column() {
    let people = people_header();
    let found = |line, column: &str, code| (line, column.to_owned(), code);
    // Somebody who exists and somebody who is to be created, nobody, and half a person.
    let text = format!(
        "type,currency,cardholder,{people}\nvirtual,eur,ich_1,{}\nvirtual,eur,,,,,,,\nvirtual,eur,,Ann,,1 Street,,T12,IE\n",
        person(1)
    );
    assert_eq!(
        problems(&text),
        [
            found(2, "cardholder", "exclusive"),
            found(3, "cardholder[name]", "missing"),
            found(4, &format!("{ADDRESS}[city]"), "missing"),
        ]
    );
    // A person's parts must have columns, under the cardholder's own names.
    let header = problems("type,currency,cardholder[name],cardholder[emial]\n");
    assert!(header.contains(&found(1, &format!("{ADDRESS}[city]"), "missing_column")), "{header:?}");
    let (_, told) = verdict(b"type,currency,cardholder[name],cardholder[emial]\n");
    assert!(
        told.iter().any(|problem| problem.suggestion.as_deref() == Some("cardholder[email]")),
        "{told:?}"
    );
    // Changes: which card, and what.
    let text =
        "card,status,metadata[team]\n,active,\nic_1,,\nmy card,active,\nic_1,closed,\nic_1,active,red\n";
    assert_eq!(
        problems(text),
        [
            found(2, "card", "card_id"),
            found(3, "", "no_change"),
            found(4, "card", "card_id"),
            found(5, "status", "not_allowed"),
        ]
    );
    assert_eq!(problems("row_id,card\n1,ic_1\n")[0], found(1, "", "missing_column"));
    // What is only said of a new card.
    assert_eq!(
        problems("card,currency,status\nic_1,eur,active\n")[0],
        found(1, "currency", "unknown_parameter")
    );
    // A PIN in the clear, wherever it stands.
    for header in ["card,pin", "type,currency,cardholder[name],cardholder[pin]"] {
        assert_eq!(
            problems(format!("{header}\n")).iter().find(|(.., code)| *code == "pin_in_clear").unwrap().0,
            1
        );
    }
}
