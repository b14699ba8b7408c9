//! Promise: whatever comes instead of an answer (a page, half a body, nothing, an answer too late, a key that is refused),
//! the run says what is wrong and how to go on, no row is lost, and none has two cards.

use crate::support;

use std::process::Output;
use std::time::Duration;

use embosser::sandbox::{Faults, Options, Sandbox};
use support::{Program, expect_exit, one_card_each, write_manifest};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

async fn issue(program: &Program) -> Output {
    program.run(&["issue", "cards.csv", "--rate", "200"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_halves_nothing_and_late_answers_are_settled() {
    for (name, faults) in [
        ("a page", Faults { html: 0.5, ..Faults::default() }),
        ("half a body", Faults { half_body: 0.5, ..Faults::default() }),
        ("nothing", Faults { empty: 0.5, ..Faults::default() }),
        ("too late", Faults { delay: 0.5, ..Faults::default() }),
    ] {
        let options = Options { faults, delay: Duration::from_millis(1500), ..Options::default() };
        let sandbox = Sandbox::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 20).await;
        let program =
            Program::new(directory.path(), &sandbox).with("EMBOSSER__STRIPE__TOTAL_TIMEOUT_SECONDS", "1");
        let mut output = issue(&program).await;
        for _ in 0..3 {
            if output.status.success() {
                break;
            }
            expect_exit(&output, 3);
            assert!(said(&output).contains("Run the same command again"), "{name}: {}", said(&output));
            output = issue(&program).await;
        }
        expect_exit(&output, 0);
        one_card_each(&sandbox.account(), &expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stripe_refuses_stops_the_run_and_a_right_one_goes_on() {
    let options = Options { api_key: Some("sk_test_right".into()), ..Options::default() };
    let sandbox = Sandbox::start(options).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let expected = write_manifest(&directory.path().join("cards.csv"), &sandbox, 40).await;
    let refused =
        issue(&Program::new(directory.path(), &sandbox).with("STRIPE_API_KEY", "sk_test_wrong")).await;
    assert_ne!(refused.status.code(), Some(0));
    assert!(said(&refused).contains("API key"), "{}", said(&refused));
    assert!(!said(&refused).contains("sk_test_wrong"), "the key itself is not told");
    assert_eq!(sandbox.counts().cards, 0);
    let right = Program::new(directory.path(), &sandbox).with("STRIPE_API_KEY", "sk_test_right");
    expect_exit(&issue(&right).await, 0);
    one_card_each(&sandbox.account(), &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_permission_stops_the_run_with_stripes_reason() {
    let sandbox = Sandbox::start(Options { may_write: false, ..Options::default() }).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    write_manifest(&directory.path().join("cards.csv"), &sandbox, 200).await;
    let output = issue(&Program::new(directory.path(), &sandbox)).await;
    assert_ne!(output.status.code(), Some(0));
    assert!(said(&output).contains("permission"), "{}", said(&output));
    let calls = sandbox.requests().iter().filter(|seen| seen.method == "POST").count();
    assert!(calls < 100, "{calls} calls, where a few would have told");
    assert_eq!(sandbox.counts().cards, 0);
}
