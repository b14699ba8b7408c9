//! Promise: a manifest of new PINs gives every card its PIN, each changed once, whatever Stripe answers and whoever is killed;
//! where a card is changed twice, in the order of the rows.

use crate::support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use embosser::encrypt::encrypt_pin;
use embosser::sandbox::{Faults, Options};
use support::issuing::Issuing;
use support::{client_of, expect_exit};

const CARDS: usize = 600;
/// Changes: each card's, and a second one of the first 400.
const CHANGES: usize = 1000;
const KILLS: usize = 5;

fn card(number: usize) -> String {
    format!("ic_sandbox{:08}", number + 1)
}

fn pin(row: usize) -> String {
    format!("{:04}", (row * 7919 + 13) % 10_000)
}

/// Which card a row changes: a card's second change follows its first one at once, or hundreds of rows later.
fn cards() -> Vec<usize> {
    let near = (0..200).flat_map(|number| [number, number]);
    let far = (200..CARDS).chain(200..400);
    near.chain(far).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_under_every_fault_and_five_kills() {
    let cards = cards();
    assert_eq!(cards.len(), CHANGES);
    let latency = Duration::from_millis(5);
    let scene = Issuing::with(Options { latency, ..Options::default() }).await;
    scene.sandbox.stock("ich_1", CARDS);
    let key = client_of(&scene.sandbox).pin_key().await.unwrap();
    let mut manifest = "row_id,card,pin[encrypted_number]\n".to_owned();
    for (row, number) in cards.iter().enumerate() {
        let jwe = encrypt_pin(&pin(row), &key).unwrap();
        writeln!(manifest, "r{row},{},{jwe}", card(*number)).unwrap();
    }
    std::fs::write(scene.path("pins.csv"), manifest).unwrap();
    scene.sandbox.set_delay(Duration::from_millis(200));
    scene.sandbox.set_faults(Faults {
        error_before: 0.1,
        error_after: 0.1,
        drop_before: 0.1,
        drop_after: 0.1,
        conflict: 0.1,
        html: 0.1,
        lock_timeout: 0.1,
        half_body: 0.1,
        empty: 0.1,
        delay: 0.1,
        list_error: 0.1,
        empty_page: 0.1,
        // A rotated key refuses PINs under the one before: that is another test's.
        rotate: 0.0,
    });
    // An end that stays unknown for long would close the earlier change of a card: here every one is found out.
    let program = scene
        .program()
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "200")
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.02")
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MAX", "0.1");
    let issue = ["issue", "pins.csv", "--rate", "1000"];
    for kill in 1..=KILLS {
        let run = program.spawn(&issue);
        let wanted = CHANGES * kill / (KILLS + 2);
        scene.until("changes", |sandbox| sandbox.account().changes.len() >= wanted).await;
        run.killed().await;
    }
    let ended = program.run(&issue).await;
    let results = std::fs::read_to_string(scene.path("pins.results.csv")).unwrap();
    let not_done: Vec<_> = results.lines().skip(1).filter(|line| !line.contains(",updated,")).collect();
    assert!(not_done.is_empty(), "{not_done:#?}");
    expect_exit(&ended, 0);
    let account = scene.sandbox.account();
    let mut rows_of_job: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (moment, change) in account.changes.iter().enumerate() {
        rows_of_job.entry(change.job.clone().unwrap()).or_default().push(moment);
    }
    let mut moments: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, number) in cards.iter().enumerate() {
        let made = &rows_of_job[&format!("pins/r{row}")];
        assert_eq!(made.len(), 1, "row {row} was changed {} times", made.len());
        let change = &account.changes[made[0]];
        assert_eq!((&change.card, change.pin.as_ref()), (&card(*number), Some(&pin(row))), "row {row}");
        moments.entry(*number).or_default().push(made[0]);
    }
    for (number, moments) in &moments {
        assert!(moments.is_sorted(), "card {number} was changed in another order: {moments:?}");
    }
    let twice = moments.values().filter(|moments| moments.len() == 2).count();
    assert_eq!((account.changes.len(), twice), (CHANGES, 400));
    assert_eq!(
        results.matches("pin[encrypted_number]").count(),
        CHANGES,
        "each row's result says what changed"
    );
}
