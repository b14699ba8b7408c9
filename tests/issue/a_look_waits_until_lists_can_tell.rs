//! Promise: a card that a list does not show is believed absent only when every call that could make it has ended and the
//! list cannot be behind; and a look through long or failing lists takes no more of them than it needs.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options};
use support::issuing::{Issuing, ended, issue, said};
use support::{Expected, expect_exit, one_card_each};

/// A call takes so long that all of a test's calls have left before the first one's failure is known: else the circuit
/// would open in between.
const ALL_UNDER_WAY: Duration = Duration::from_millis(400);

/// Rows of one cardholder without PINs.
fn manifest_of_one_cardholder(issuing: &Issuing, rows: usize) -> Expected {
    let mut text = "row_id,cardholder,type,currency\n".to_owned();
    let mut expected = Expected::new();
    for row in 1..=rows {
        text += &format!("r{row},ich_many,virtual,eur\n");
        expected.insert(format!("cards/r{row}"), None);
    }
    std::fs::write(issuing.path("cards.csv"), text).unwrap();
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_500_and_a_list_that_is_two_seconds_behind() {
    let faults = Faults { error_after: 1.0, ..Faults::default() };
    let list_lag = Duration::from_secs(2);
    let issuing =
        Issuing::with(Options { faults, list_lag, latency: ALL_UNDER_WAY, ..Options::default() }).await;
    let expected = issuing.manifest(20).await;
    let program = issuing.program().with("EMBOSSER__STRIPE__LIST_LAG_SECONDS", "3");
    let output = ended(issue(&program, "200", &[])).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
    issuing.results_are_true("cards.results.csv");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_has_more_and_no_data_is_not_the_end() {
    let faults = Faults { error_after: 1.0, empty_page: 0.5, ..Faults::default() };
    let issuing = Issuing::with(Options { faults, latency: ALL_UNDER_WAY, ..Options::default() }).await;
    let expected = issuing.manifest(20).await;
    let output = ended(issue(&issuing.program(), "200", &[])).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
}

/// Calls that last five times as long as embosser waits for an answer; the process is killed meanwhile, and the PINs are
/// encrypted anew, so that the keys alone tell nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_runs_long_is_not_called_lost() {
    let delay = Duration::from_millis(2500);
    let issuing = Issuing::with(Options { delay, ..Options::default() }).await;
    issuing.manifest(20).await;
    issuing.sandbox.set_faults(Faults { delay: 1.0, ..Faults::default() });
    let program = issuing
        .program()
        .with("EMBOSSER__STRIPE__TOTAL_TIMEOUT_SECONDS", "0.5")
        .with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "4");
    let running = issue(&program, "200", &[]);
    issuing.until("twenty calls under way", |sandbox| sandbox.executing() == 20).await;
    running.killed().await;
    issuing.sandbox.set_faults(Faults::default());
    let expected = issuing.manifest(20).await;
    let output = ended(issue(&program, "200", &[])).await;
    issuing.until("the calls' ends", |sandbox| sandbox.executing() == 0).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
    issuing.results_are_true("cards.results.csv");
}

/// 12,000 cards are 120 pages. One listing serves all twenty rows whose ends are unknown; the cards of the first tries
/// that are looked for may cost a second one.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_unknown_ends_of_one_cardholder_share_a_listing() {
    let issuing = Issuing::with(Options { latency: ALL_UNDER_WAY, ..Options::default() }).await;
    issuing.sandbox.stock("ich_many", 12_000);
    let expected = manifest_of_one_cardholder(&issuing, 20);
    issuing.sandbox.set_faults(Faults { error_before: 1.0, ..Faults::default() });
    let program = issuing.program();
    let running = issue(&program, "500", &[]);
    issuing.until("twenty calls that failed", |sandbox| sandbox.counts().creates >= 20).await;
    issuing.sandbox.set_faults(Faults::default());
    let output = ended(running).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
    let lists = issuing.lists();
    // One to see whether the batch was issued from elsewhere, one for the rows, and one for those that came a second later.
    assert!(lists <= 4 * 121, "{lists} lists of 121 pages in all: {}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_from_the_page_that_failed() {
    let issuing = Issuing::with(Options { latency: ALL_UNDER_WAY, ..Options::default() }).await;
    issuing.sandbox.stock("ich_many", 3_000);
    let expected = manifest_of_one_cardholder(&issuing, 10);
    issuing.sandbox.set_faults(Faults { error_before: 1.0, list_error: 0.3, ..Faults::default() });
    let running = issue(&issuing.program(), "500", &[]);
    issuing.until("ten calls that failed", |sandbox| sandbox.counts().creates >= 10).await;
    issuing.sandbox.set_faults(Faults { list_error: 0.3, ..Faults::default() });
    let output = ended(running).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
    let lists = issuing.lists();
    assert!(lists <= 250, "{lists} lists of 31 pages in all: {}", said(&output));
}
