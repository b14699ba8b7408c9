//! Promise: a card that replaces another follows Stripe's rules for that, and a lost or stolen one is cancelled first where the
//! row says so: once, and only after somebody said how many.

use crate::support;

use std::collections::BTreeSet;

use embosser::manifest::{CheckOptions, Manifest, Reading};
use embosser::sandbox::{Faults, Options, Sandbox};
use support::{Program, expect_exit};

fn card(number: usize) -> String {
    format!("ic_sandbox{number:08}")
}

fn codes(csv: &str) -> Vec<(String, &'static str)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.csv");
    std::fs::write(&path, csv).unwrap();
    let report = Manifest::inspect(&path, &Reading::default())
        .unwrap()
        .check(&CheckOptions::default(), &|_| {})
        .unwrap();
    report.problems.into_iter().map(|problem| (problem.column, problem.code)).collect()
}

#[test]
fn what_stripe_refuses_of_a_replacement_is_found_before() {
    let row = |kind: &str, replaced: &str, reason: &str, cancel: &str| {
        codes(&format!(
            "cardholder,type,currency,replacement_for,replacement_reason,cancel_replaced\nich_1,{kind},eur,{replaced},{reason},{cancel}\n"
        ))
    };
    let one = |column: &str, code| vec![(column.to_owned(), code)];
    assert!(row("virtual", "ic_1", "lost", "").is_empty());
    assert!(row("virtual", "ic_1", "stolen", "true").is_empty());
    assert!(row("physical", "ic_1", "damaged", "false").is_empty());
    assert!(row("virtual", "", "", "").is_empty());
    assert_eq!(row("virtual", "ic_1", "", ""), one("replacement_reason", "missing"));
    assert_eq!(row("virtual", "", "lost", ""), one("replacement_for", "missing"));
    assert_eq!(row("virtual", "", "", "true"), one("replacement_for", "missing"));
    assert_eq!(row("virtual", "card 1", "lost", ""), one("replacement_for", "card_id"));
    assert_eq!(row("virtual", "ic_1", "damaged", ""), one("replacement_reason", "not_allowed"));
    assert_eq!(row("physical", "ic_1", "expired", "true"), one("cancel_replaced", "not_allowed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_cards_are_cancelled_once_and_replaced_once() {
    const LOST: usize = 20;
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults { error_after: 0.15, drop_after: 0.15, drop_before: 0.15, ..Faults::default() };
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.stock("ich_1", LOST);
    sandbox.set_faults(faults);
    let mut csv =
        "row_id,cardholder,type,currency,replacement_for,replacement_reason,cancel_replaced\n".to_owned();
    for number in 1..=LOST {
        csv += &format!("r{number},ich_1,virtual,eur,{},lost,true\n", card(number));
    }
    csv += "new,ich_1,virtual,eur,,,\n";
    std::fs::write(directory.path().join("lost.csv"), csv).unwrap();
    let program =
        Program::new(directory.path(), &sandbox).with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "0.2");
    let checked = program.run(&["check", "lost.csv"]).await;
    expect_exit(&checked, 0);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.contains("20 replaced and cancelled first"), "{said}");
    assert!(said.contains("20 replacements without a PIN: a replacement does not inherit the PIN"), "{said}");

    let issue = ["issue", "lost.csv", "--rate", "200"];
    let refused = program.run(&issue).await;
    expect_exit(&refused, 2);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--yes-cancel 20"), "{refused:?}");
    assert!(sandbox.account().changes.is_empty());
    let issue = ["issue", "lost.csv", "--rate", "200", "--yes-cancel", "20"];
    expect_exit(&program.run(&issue).await, 0);
    expect_exit(&program.run(&issue).await, 0);
    let account = sandbox.account();
    let cancelled: BTreeSet<_> = account.changes.iter().map(|change| change.card.clone()).collect();
    assert_eq!((account.changes.len(), cancelled.len()), (LOST, LOST), "each was cancelled once");
    assert_eq!(cancelled, (1..=LOST).map(card).collect());
    assert_eq!(account.cards.len(), LOST + 1, "each was replaced once, beside a new one");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_cards_stand_is_looked_at_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start(Options::default()).await.unwrap();
    sandbox.stock("ich_1", 4);
    let program = Program::new(directory.path(), &sandbox);
    let write = |name: &str, csv: String| std::fs::write(directory.path().join(name), csv).unwrap();
    write("cancel.csv", format!("card,status,cancellation_reason\n{},canceled,lost\n", card(1)));
    expect_exit(&program.run(&["issue", "cancel.csv", "--yes-cancel", "1"]).await, 0);
    let (a, b, gone) = (card(1), card(2), card(99));
    write("m.csv", format!("card,status,metadata[a]\n{a},active,\n{a},,x\n{b},active,\n{gone},active,\n"));
    let offline = program.run(&["check", "m.csv"]).await;
    expect_exit(&offline, 0);
    let gets = || {
        sandbox.requests().iter().filter(|seen| seen.method == "GET" && seen.path.contains("/cards/")).count()
    };
    let before = gets();
    let online = program.run(&["check", "m.csv", "--online"]).await;
    expect_exit(&online, 2);
    assert_eq!(gets() - before, 3, "each card is read once");
    let said = String::from_utf8(online.stdout).unwrap();
    for part in [
        "line 2, column card: ic_sandbox00000001 is cancelled, for ever",
        "line 5, column card: ic_sandbox00000099 is no card",
        "3 cards looked at: 2 problems.",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let header = "cardholder,type,currency,replacement_for,replacement_reason,cancel_replaced\n";
    write(
        "r.csv",
        format!(
            "{header}ich_1,virtual,eur,{a},lost,true\nich_1,virtual,eur,{b},lost,\nich_1,virtual,eur,{b},lost,true\n"
        ),
    );
    let online = program.run(&["check", "r.csv", "--online"]).await;
    expect_exit(&online, 2);
    let said = String::from_utf8(online.stdout).unwrap();
    for part in [
        "line 2, column replacement_for: ic_sandbox00000001 is cancelled already",
        "line 3, column replacement_for: ic_sandbox00000002 must be cancelled before",
        "2 cards and 1 cardholder looked at: 2 problems.",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(sandbox.account().cards.is_empty());
}
