//! The line in this process, against a sandbox, with a clock that tests may move.

use std::path::Path;
use std::time::Duration;

use embosser::clock::Clock;
use embosser::config::{PaceConfig, RetryConfig};
use embosser::encrypt::encrypt_pin;
use embosser::job::{Batch, Job, JobId};
use embosser::ledger::{Ledger, Scope};
use embosser::line::decision::Rules;
use embosser::line::{Line, LookFirst, OnSameRefusals, Parts, Vet};
use embosser::operation::{Operation, Request};
use embosser::outcome::{Card, Ended, Outcome, Output, Refusal};
use embosser::pace::Pace;
use embosser::sandbox::Sandbox;

use super::client_of;

/// How long these lines believe a call may go on running: the sandbox's calls end at once.
pub const CALLS_LAST: Duration = Duration::from_millis(300);
/// How long they believe a card may be missing from lists.
pub const LISTS_LAG: Duration = Duration::from_millis(100);

/// A line with its ledger in `directory`; a second one on the same directory is the process started again.
pub async fn line_in(directory: &Path, sandbox: &Sandbox, clock: &Clock, look_first: LookFirst) -> Line {
    let rules = Rules { call_lasts: CALLS_LAST, lists_lag: LISTS_LAG, ..Rules::default() };
    line_by(directory, sandbox, clock, look_first, rules).await
}

/// The same with rules of its own.
pub async fn line_by(
    directory: &Path,
    sandbox: &Sandbox,
    clock: &Clock,
    look_first: LookFirst,
    rules: Rules,
) -> Line {
    Line::new(parts_in(directory, sandbox, clock, look_first, rules).await)
}

/// What such a line is made of.
pub async fn parts_in(
    directory: &Path,
    sandbox: &Sandbox,
    clock: &Clock,
    look_first: LookFirst,
    rules: Rules,
) -> Parts {
    let pace = PaceConfig { endpoint_per_second: 500.0, account_per_second: 500.0, ..PaceConfig::default() };
    let url = format!("sqlite://{}", directory.join("ledger.db").display());
    let retry = RetryConfig { backoff_seconds_min: 0.02, backoff_seconds_max: 0.2, ..RetryConfig::default() };
    Parts {
        client: client_of(sandbox),
        pace: Pace::start(&pace),
        ledger: Ledger::open(&url).await.unwrap(),
        scope: Scope::new("test", "sandbox", None),
        clock: clock.clone(),
        retry,
        rules,
        look_first,
        vet: Vet::No,
        lease_idle: Duration::ZERO,
        pin_links: None,
        same_refusals: (1000, OnSameRefusals::Wait),
    }
}

/// A job of cardholder `ich_1`, its PIN encrypted now, under the sandbox's present key.
pub async fn job(sandbox: &Sandbox, id: &str, currency: &str, pin: Option<&str>) -> Job {
    let pairs = [("cardholder", "ich_1"), ("currency", currency), ("type", "virtual")];
    let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned()));
    let card = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
    let pin = match pin {
        None => None,
        Some(pin) => {
            let key = client_of(sandbox).pin_key().await.unwrap();
            Some(embosser::pin::PinJwe::new(encrypt_pin(pin, &key).unwrap()))
        }
    };
    Job::new(JobId::new(id).unwrap(), Batch::new("batch").unwrap(), None, card, pin)
}

/// The card, or a failure that says what came instead.
pub fn issued(ended: &Ended) -> &Card {
    match &ended.outcome {
        Outcome::Done(Output::Issued(card)) => card,
        other => panic!("not issued: {other:?}"),
    }
}

/// The refusal, or a failure that says what came instead.
pub fn refused(ended: &Ended) -> &Refusal {
    match &ended.outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
