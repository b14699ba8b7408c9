//! One delivery from its body to its settlement.

use std::time::Duration;

use super::Worker;
use super::event::Named;
use super::hand::Hand;
use super::letter::{GivenUp, Letter};
use super::message::{self, NoJob};
use super::settle::{Settlement, settlement};
use crate::clock::Time;
use crate::job::Job;
use crate::ledger::State;
use crate::line::Options;
use crate::metrics;

/// How much before its time a job may come from the ladder: two machines' clocks are not one.
const EARLY_MAX: Duration = Duration::from_millis(500);

/// A job from the jobs queue.
pub(super) async fn job(worker: &Worker, hand: &Hand, letter: &Letter) -> Settlement {
    let now = worker.line.parts().clock.now();
    let early = letter.early(now);
    if early > EARLY_MAX {
        return Settlement::Early(early);
    }
    let job = match read(worker, letter, now) {
        Ok(job) => job,
        Err(no) => return refused(&no),
    };
    hand.handed_over().await;
    let named = Named::of(&job);
    let expired = job.deadline.is_some_and(|deadline| now > deadline).then_some(GivenUp::Expired);
    let ended = match letter.given_up().or(expired) {
        Some(given_up) => worker.line.carry(job, recallable(hand, Some(given_up))).await,
        None => worker.line.carry(job, recallable(hand, None)).await,
    };
    settlement(named, ended.as_ref(), hand.back())
}

/// What the broker gave up on: after so many deliveries, or past its time to live.
///
/// The ledger is asked first. A job that was never attempted is refused; one whose attempt began must be looked for at
/// Stripe, which is the active worker's to do: it goes back there by the ladder, without its ciphertext.
pub(super) async fn dead(worker: &Worker, hand: &Hand, letter: &Letter) -> Settlement {
    let parts = worker.line.parts();
    let job = match read(worker, letter, parts.clock.now()) {
        Ok(job) => job,
        Err(no) => return refused(&no),
    };
    let given_up = letter.died_of();
    tracing::warn!(job = %job.id, code = %given_up.refusal().code, "the broker gave up on a job");
    let known = match parts.ledger.look_up(&parts.scope, &job.id).await {
        Ok(known) => known,
        // The session ends with the line, which meets the same.
        Err(_) => return Settlement::HandBack,
    };
    metrics::dead_letter();
    match known.map(|row| row.state) {
        Some(State::Begun) => Settlement::GiveUp(given_up),
        None | Some(State::Issued(_) | State::Refused(_)) => {
            let named = Named::of(&job);
            let ended = worker.line.carry(job, recallable(hand, Some(given_up))).await;
            settlement(named, ended.as_ref(), hand.back())
        }
    }
}

/// Until the hand is recalled; not called for any more if it was given up.
fn recallable(hand: &Hand, given_up: Option<GivenUp>) -> Options<'_> {
    Options { recall: Some(hand.recalled()), given_up: given_up.map(GivenUp::refusal), gate: None }
}

fn read(worker: &Worker, letter: &Letter, now: Time) -> Result<Job, Box<NoJob>> {
    let envelope = letter.envelope();
    if let Some(published) = envelope.published {
        metrics::queue_age(now.since(published));
    }
    message::job_of(&letter.body, &envelope, &worker.terms, now)
}

/// A message that is no job is refused on its first delivery.
fn refused(no: &NoJob) -> Settlement {
    tracing::warn!(job = no.id.as_deref().unwrap_or(""), code = %no.refusal.code, reason = no.refusal.message,
        "a message is no job");
    metrics::refused_message(&no.refusal);
    let named = Named { id: no.id.clone(), batch: no.batch.clone(), place: None };
    Settlement::Answer(Box::new(named.refused(&no.refusal)))
}
