//! Promise: a clock that is set back or forward makes no second card: a time in the future proves nothing, and what may
//! still be running is judged by the time that a process itself saw pass.

use crate::support;

use std::time::Duration;

use embosser::sandbox::{Faults, Options};
use support::issuing::{Issuing, ended, issue};
use support::time::A_DAY;
use support::{expect_exit, one_card_each};

/// Nine calls are made and their answers never read; Stripe forgets the keys; the clock says that it was before.
async fn set_back_by(seconds: i64) {
    let issuing = Issuing::with(Options { delay: Duration::from_secs(75), ..Options::default() }).await;
    let expected = issuing.manifest(9).await;
    issuing.sandbox.set_faults(Faults { delay: 1.0, ..Faults::default() });
    let running = issue(&issuing.program(), "100", &[]);
    issuing.until("nine calls under way", |sandbox| sandbox.executing() == 9).await;
    running.killed().await;
    issuing.sandbox.set_faults(Faults::default());
    issuing.sandbox.advance(Duration::from_secs(75));
    issuing.until("the calls' ends", |sandbox| sandbox.executing() == 0).await;
    issuing.pass(A_DAY, -seconds);
    let output = ended(issue(&issuing.program(), "100", &[])).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn set_back_by_a_day_after_a_kill() {
    set_back_by(24 * 3600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn set_back_by_three_hours_after_a_kill() {
    set_back_by(3 * 3600).await;
}

/// The first process's calls still run when a second one, two days ahead, looks for their cards.
#[tokio::test(flavor = "multi_thread")]
async fn set_forward_while_calls_still_run() {
    let issuing = Issuing::with(Options { delay: Duration::from_millis(2500), ..Options::default() }).await;
    let expected = issuing.manifest(30).await;
    issuing.sandbox.set_faults(Faults { delay: 1.0, ..Faults::default() });
    let program = issuing.program().with("EMBOSSER__STRIPE__CALL_SECONDS_MAX", "4");
    let running = issue(&program, "200", &[]);
    issuing.until("thirty calls under way", |sandbox| sandbox.executing() == 30).await;
    running.killed().await;
    issuing.sandbox.set_faults(Faults::default());
    issuing.clock.set(48 * 3600);
    let output = ended(issue(&program, "200", &[])).await;
    issuing.until("the calls' ends", |sandbox| sandbox.executing() == 0).await;
    one_card_each(&issuing.sandbox.account(), &expected);
    expect_exit(&output, 0);
    issuing.results_are_true("cards.results.csv");
}
