//! Promise: `embosser issue` ends with an exit code, a summary and a results file that say what became of every row,
//! refuses what could cost real money by mistake, and can always be run again.

use crate::support;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use embosser::sandbox::{Faults, Options, Sandbox};
use support::{Program, expect_exit, one_card_each, write_manifest};

struct Trial {
    sandbox: Sandbox,
    directory: tempfile::TempDir,
}

impl Trial {
    async fn with(options: Options) -> Self {
        Self { sandbox: Sandbox::start(options).await.unwrap(), directory: tempfile::tempdir().unwrap() }
    }

    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self) -> Program {
        Program::new(self.directory.path(), &self.sandbox)
    }

    async fn issue(&self, more: &[&str]) -> Output {
        self.program().run(&[&["issue", "cards.csv", "--rate", "300"], more].concat()).await
    }
}

fn results(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
    rows.collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_lets_calls_end_and_a_second_run_completes_the_results() {
    let trial = Trial::with(Options { latency: Duration::from_millis(100), ..Options::default() }).await;
    let expected = write_manifest(&trial.path("cards.csv"), &trial.sandbox, 120).await;
    let running = trial.program().spawn(&["issue", "cards.csv", "--rate", "60"]);
    while trial.sandbox.account().cards.len() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.signal(rustix::process::Signal::INT);
    let output = running.ended().await;
    expect_exit(&output, 3);
    assert!(said(&output).contains("Run the same command again"), "{}", said(&output));
    let made = trial.sandbox.account().cards.len();
    let told = results(&trial.path("cards.results.csv"));
    assert_eq!(told.iter().filter(|row| row[3] == "issued").count(), made, "every card made is told");
    let again = trial.issue(&[]).await;
    expect_exit(&again, 0);
    one_card_each(&trial.sandbox.account(), &expected);
    let told = results(&trial.path("cards.results.csv"));
    let rows: Vec<usize> = told.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(rows, (1..=120).collect::<Vec<_>>(), "complete, and in the manifest's order");
    assert!(told.iter().all(|row| row[3] == "issued" && row[4].starts_with("ic_") && row[5].len() == 4));
    assert!(told.iter().all(|row| row[2] == format!("cards/{}", row[1]) && row[10].starts_with("req_")));
    // The ledger alone can tell it all again.
    let from_ledger = trial.program().run(&["results", "cards"]).await;
    expect_exit(&from_ledger, 0);
    let file = std::fs::read(trial.path("cards.results.csv")).unwrap();
    assert_eq!(String::from_utf8(from_ledger.stdout).unwrap(), String::from_utf8(file).unwrap());
    let status = trial.program().run(&["status", "cards"]).await;
    assert!(said(&status).contains("120 issued, 0 refused, 0 unresolved"), "{}", said(&status));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_are_told_with_their_reason_and_may_be_mended() {
    let trial = Trial::new().await;
    write_manifest(&trial.path("cards.csv"), &trial.sandbox, 10).await;
    trial.sandbox.rotate_key();
    let output = trial.issue(&[]).await;
    expect_exit(&output, 1);
    let told = results(&trial.path("cards.results.csv"));
    let refused: Vec<_> = told.iter().filter(|row| row[3] == "refused").collect();
    assert_eq!(refused.len(), 8, "the rows with a PIN: {told:?}");
    assert!(refused.iter().all(|row| row[8] == "stale_key" && row[9].contains("encrypt")), "{refused:?}");
    assert_eq!(trial.sandbox.account().creates, 2, "a stale PIN costs no call");
    // Encrypted again under the new key, they get their cards, and the others no second one.
    let expected = write_manifest(&trial.path("cards.csv"), &trial.sandbox, 10).await;
    expect_exit(&trial.issue(&[]).await, 0);
    one_card_each(&trial.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_an_end_are_unresolved_and_exit_3() {
    let faults = Faults { html: 1.0, ..Faults::default() };
    let trial = Trial::with(Options { faults, ..Options::default() }).await;
    let expected = write_manifest(&trial.path("cards.csv"), &trial.sandbox, 5).await;
    let program = trial
        .program()
        .with("EMBOSSER__RETRY__ATTEMPTS_MAX", "2")
        .with("EMBOSSER__RETRY__BACKOFF_SECONDS_MIN", "0.01");
    let output = program.run(&["issue", "cards.csv", "--rate", "300"]).await;
    expect_exit(&output, 3);
    let told = results(&trial.path("cards.results.csv"));
    assert!(told.iter().all(|row| row[3] == "unresolved" && row[9].contains("502")), "{told:?}");
    trial.sandbox.set_faults(Faults::default());
    expect_exit(&trial.issue(&[]).await, 0);
    one_card_each(&trial.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stripe_refuses_stops_the_run_before_anything_is_issued() {
    let trial = Trial::new().await;
    write_manifest(&trial.path("cards.csv"), &trial.sandbox, 50).await;
    let program = trial.program().with("STRIPE_API_KEY", "pk_test_publishable");
    let output = program.run(&["issue", "cards.csv", "--rate", "300"]).await;
    expect_exit(&output, 2);
    assert!(said(&output).contains("Stripe refuses the API key"), "{}", said(&output));
    assert!(!said(&output).contains("pk_test_publishable"));
    // What is no key at all is not even sent.
    let output = trial.program().with("STRIPE_API_KEY", "foo1234").run(&["issue", "cards.csv"]).await;
    expect_exit(&output, 2);
    assert!(said(&output).contains("STRIPE_API_KEY holds no key of Stripe's"), "{}", said(&output));
    assert!(!said(&output).contains("foo1234"));
    assert!(trial.sandbox.account().cards.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_key_goes_nowhere_but_to_stripe_and_not_without_a_yes() {
    let trial = Trial::new().await;
    write_manifest(&trial.path("cards.csv"), &trial.sandbox, 3).await;
    let live = || trial.program().with("STRIPE_API_KEY", "sk_live_of_the_tests");
    let elsewhere = live().run(&["issue", "cards.csv", "--yes"]).await;
    expect_exit(&elsewhere, 2);
    assert!(said(&elsewhere).contains("live key"), "{}", said(&elsewhere));
    let sandbox = live().run(&["issue", "cards.csv", "--sandbox", "--yes"]).await;
    expect_exit(&sandbox, 2);
    assert!(said(&sandbox).contains("live key"), "{}", said(&sandbox));
    // With Stripe's own addresses it asks first; here there is nobody to ask.
    let asked = live()
        .with("EMBOSSER__STRIPE__API_URL", "https://api.stripe.com")
        .with("EMBOSSER__STRIPE__KEY_URL", "https://issuing-key.stripe.com/v1/keys")
        .run(&["issue", "cards.csv"])
        .await;
    expect_exit(&asked, 2);
    assert!(said(&asked).contains("3 LIVE cards") && said(&asked).contains("--yes"), "{}", said(&asked));
    for output in [elsewhere, sandbox, asked] {
        assert!(!said(&output).contains("sk_live_of_the_tests"));
    }
    assert_eq!(trial.sandbox.account().creates, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_comes_from_a_file_too_and_its_lack_is_told() {
    let trial = Trial::new().await;
    write_manifest(&trial.path("cards.csv"), &trial.sandbox, 3).await;
    let without = || trial.program().with("STRIPE_API_KEY", "");
    let none = without().run(&["issue", "cards.csv"]).await;
    expect_exit(&none, 2);
    assert!(said(&none).contains("STRIPE_API_KEY"), "{}", said(&none));
    let missing = without().with("EMBOSSER__STRIPE__API_KEY_FILE", "/no/such/file");
    assert!(said(&missing.run(&["issue", "cards.csv"]).await).contains("/no/such/file"));
    std::fs::write(trial.path("key"), "sk_test_of_a_file\n").unwrap();
    let file = trial.path("key");
    let given = without().with("EMBOSSER__STRIPE__API_KEY_FILE", file.to_str().unwrap());
    expect_exit(&given.run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rows_under_another_name_are_not_issued_again_by_mistake() {
    let trial = Trial::new().await;
    write_manifest(&trial.path("cards.csv"), &trial.sandbox, 4).await;
    expect_exit(&trial.issue(&[]).await, 0);
    std::fs::copy(trial.path("cards.csv"), trial.path("cards (1).csv")).unwrap();
    let copy = trial.program().run(&["issue", "cards (1).csv"]).await;
    expect_exit(&copy, 2);
    assert!(
        said(&copy).contains("second cards") && said(&copy).contains("--batch \"cards\""),
        "{}",
        said(&copy)
    );
    expect_exit(&trial.program().run(&["issue", "cards (1).csv", "--batch", "cards"]).await, 0);
    assert_eq!(trial.sandbox.account().cards.len(), 4);
    // Another name alone is no wish for second cards.
    let renamed = ["issue", "cards (1).csv", "--batch", "second cards"];
    expect_exit(&trial.program().run(&renamed).await, 2);
    assert_eq!(trial.sandbox.account().cards.len(), 4);
    expect_exit(&trial.program().run(&[&renamed[..], &["--second-cards"]].concat()).await, 0);
    assert_eq!(trial.sandbox.account().cards.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_row_stops_all_or_is_skipped_on_request() {
    let trial = Trial::new().await;
    write_manifest(&trial.path("cards.csv"), &trial.sandbox, 4).await;
    let text = std::fs::read_to_string(trial.path("cards.csv")).unwrap();
    std::fs::write(trial.path("cards.csv"), text.replace("r2,ich_02,virtual", "r2,ich_02,virtuall")).unwrap();
    let all = trial.issue(&[]).await;
    expect_exit(&all, 2);
    assert!(
        said(&all).contains("line 3 (r2), column type") && said(&all).contains("virtual"),
        "{}",
        said(&all)
    );
    assert_eq!(trial.sandbox.account().creates, 0);
    let others = trial.issue(&["--skip-invalid"]).await;
    expect_exit(&others, 1);
    let told = results(&trial.path("cards.results.csv"));
    let outcomes: Vec<&str> = told.iter().map(|row| row[3].as_str()).collect();
    assert_eq!(outcomes, ["issued", "refused", "issued", "issued"]);
    assert!(told[1][9].contains("line 3, column type"), "{:?}", told[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_cannot_be_written_lose_nothing() {
    let trial = Trial::new().await;
    let expected = write_manifest(&trial.path("cards.csv"), &trial.sandbox, 6).await;
    std::fs::write(trial.path("cards.results.csv"), "somebody's own notes, not to be overwritten").unwrap();
    let foreign = trial.issue(&[]).await;
    expect_exit(&foreign, 2);
    assert!(said(&foreign).contains("not an embosser results file"), "{}", said(&foreign));
    assert_eq!(trial.sandbox.account().creates, 0);
    let full = trial.issue(&["--results", "/dev/full"]).await;
    expect_exit(&full, 3);
    assert!(said(&full).contains("embosser results"), "{}", said(&full));
    expect_exit(&trial.issue(&["--results", "elsewhere.csv"]).await, 0);
    one_card_each(&trial.sandbox.account(), &expected);
    assert_eq!(results(&trial.path("elsewhere.csv")).len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_name_cards_of_another_ledger_stop_the_run_before_the_first_call() {
    let trial = Trial::new().await;
    let expected = write_manifest(&trial.path("cards.csv"), &trial.sandbox, 6).await;
    let with = |ledger: &str| format!("sqlite://{}", trial.path(ledger).display());
    expect_exit(&trial.issue(&["--ledger", &with("first.db")]).await, 0);
    let before = std::fs::read(trial.path("cards.results.csv")).unwrap();
    let requests = trial.sandbox.requests().len();
    let other = trial.issue(&["--ledger", &with("other.db")]).await;
    expect_exit(&other, 2);
    let words = said(&other);
    assert!(words.contains("cards.results.csv names 6 cards that the ledger"), "{words}");
    for way_out in ["nothing was issued", "--ledger", "--reconcile-first", "--results"] {
        assert!(words.contains(way_out), "{way_out}: {words}");
    }
    let more: Vec<_> = trial.sandbox.requests().split_off(requests);
    assert!(more.iter().all(|seen| seen.path == "/v1/account"), "no card is asked for or made: {more:?}");
    assert_eq!(std::fs::read(trial.path("cards.results.csv")).unwrap(), before, "the file is as it was");
    // Each of the ways out goes on without a second card.
    expect_exit(&trial.issue(&["--ledger", &with("first.db")]).await, 0);
    expect_exit(&trial.issue(&["--ledger", &with("other.db"), "--reconcile-first"]).await, 0);
    expect_exit(&trial.issue(&["--ledger", &with("third.db"), "--results", "third.csv"]).await, 0);
    one_card_each(&trial.sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_comes_after_the_card_is_not_applied_and_its_row_says_so() {
    let trial = Trial::new().await;
    let key = support::client_of(&trial.sandbox).pin_key().await.unwrap();
    let write = |pins: [Option<&str>; 3]| {
        let mut text = "row_id,cardholder,type,currency,pin[encrypted_number]\n".to_owned();
        for (row, pin) in pins.iter().enumerate() {
            let jwe = pin.map(|pin| embosser::encrypt::encrypt_pin(pin, &key).unwrap()).unwrap_or_default();
            text += &format!("r{row},ich_{row},virtual,eur,{jwe}\n");
        }
        std::fs::write(trial.path("cards.csv"), text).unwrap();
    };
    let notes = |pins: [bool; 3]| {
        pins.map(|noted| if noted { "the card keeps the PIN it was made with" } else { "" })
    };
    let hold = |wanted: [&str; 3]| {
        for (row, wanted) in results(&trial.path("cards.results.csv")).iter().zip(wanted) {
            assert_eq!(row[3], "issued", "{row:?}");
            let note = &row[11];
            assert!(note.contains(wanted) && note.is_empty() == wanted.is_empty(), "{row:?}");
        }
    };
    write([None, None, Some("1234")]);
    expect_exit(&trial.issue(&[]).await, 0);
    hold(notes([false; 3]));
    // The second has one now; the third's was encrypted anew.
    write([None, Some("5678"), Some("1234")]);
    expect_exit(&trial.issue(&[]).await, 0);
    hold(notes([false, true, true]));
    let pins: Vec<_> = trial.sandbox.account().cards.into_iter().map(|card| card.pin).collect();
    assert_eq!((pins.len(), pins.into_iter().flatten().collect::<Vec<_>>()), (3, vec!["1234".to_owned()]));
    // The ledger remembers it.
    let from_ledger = trial.program().run(&["results", "cards"]).await;
    assert_eq!(from_ledger.stdout, std::fs::read(trial.path("cards.results.csv")).unwrap());
}

/// The answer was lost, and whoever looked at the row then mended the cardholder in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_cardholder_changed_while_its_end_was_unknown_gets_no_second_card() {
    let faults = Faults { drop_after: 1.0, ..Faults::default() };
    let trial = Trial::with(Options { faults, ..Options::default() }).await;
    let write = |cardholder: &str| {
        let text = format!("row_id,cardholder,type,currency\nr1,{cardholder},virtual,eur\n");
        std::fs::write(trial.path("cards.csv"), text).unwrap();
    };
    let program = trial.program().with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "0.5");
    write("ich_1");
    let once = program.clone().with("EMBOSSER__RETRY__ATTEMPTS_MAX", "1");
    expect_exit(&once.run(&["issue", "cards.csv", "--rate", "300"]).await, 3);
    trial.sandbox.set_faults(Faults::default());
    write("ich_2");
    for _ in 0..2 {
        expect_exit(&program.run(&["issue", "cards.csv", "--rate", "300"]).await, 1);
        let cards = trial.sandbox.account().cards;
        assert_eq!(cards.len(), 1, "{cards:?}");
        let told = results(&trial.path("cards.results.csv"));
        assert_eq!((&*told[0][3], &*told[0][8]), ("refused", "job_conflict"), "{told:?}");
        assert!(told[0][9].contains(&cards[0].id) && told[0][9].contains("ich_1, not ich_2"), "{told:?}");
    }
    // As it was, it has its card.
    write("ich_1");
    expect_exit(&program.run(&["issue", "cards.csv", "--rate", "300"]).await, 0);
    assert_eq!(trial.sandbox.counts().cards, 1);
}
