//! A job's steps, one after the other. Each is recorded for itself, and done once.

use super::job_locks::Queued;
use super::{Line, Options, await_pin, carry};
use crate::job::Job;
use crate::ledger::{Row, State};
use crate::outcome::{Ended, Outcome};

/// Carries a job's first step, if it has one, and then what it is about; `known` is the ledger's row of that.
pub(super) async fn carry(
    line: &Line,
    job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    options: Options<'_>,
) -> Option<Ended> {
    if let Some(ended) = carry::conflict(&job, known.as_deref()) {
        return Some(ended);
    }
    if job.chooses_pin && options.given_up.is_none() {
        return carry_choice(line, job, change, known, options).await;
    }
    carry_both(line, job, change, known, options).await
}

/// Carries a job whose cardholder is to choose its PIN: as far as it goes without. If a call with a PIN was begun, its end is
/// found out first.
async fn carry_choice(
    line: &Line,
    job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    options: Options<'_>,
) -> Option<Ended> {
    if await_pin::waits(&job, known.as_deref()) {
        return until_it_waits(line, &job, known, &options).await;
    }
    let again = job.without_pin();
    let looking = Options { given_up: Some(await_pin::pin_needed()), ..options };
    let (gate, recall) = (looking.gate, looking.recall);
    let ended = Box::pin(carry_both(line, job, change, known, looking)).await?;
    if !matches!(&ended.outcome, Outcome::Refused(refusal) if refusal.code == await_pin::PIN_NEEDED) {
        return Some(ended);
    }
    let known = match line.look_up(&again).await {
        Ok(known) => known.map(Box::new),
        Err(error) => {
            line.halt_with((&error).into());
            return None;
        }
    };
    until_it_waits(line, &again, known, &Options { gate, recall, given_up: None }).await
}

async fn until_it_waits(
    line: &Line,
    job: &Job,
    mut known: Option<Box<Row>>,
    options: &Options<'_>,
) -> Option<Ended> {
    loop {
        match await_pin::await_pin(line, job, known.as_deref(), options).await {
            Ok(Ok(ended)) => return Some(ended),
            // Another process has begun it, or has ended it: that is told.
            Ok(Err(found)) => match found {
                Some(row) if !await_pin::waits(job, Some(&row)) => return Some(row.ended()),
                found => known = found,
            },
            Err(stop) => {
                line.note(stop);
                return None;
            }
        }
    }
}

async fn carry_both(
    line: &Line,
    mut job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    mut options: Options<'_>,
) -> Option<Ended> {
    let is_done = known.as_ref().is_some_and(|row| matches!(row.state, State::Done(_)));
    if let Some(first) = job.take_first().filter(|_| !is_done) {
        let known = match line.look_up(&first).await {
            Ok(known) => known.map(Box::new),
            Err(error) => {
                line.halt_with((&error).into());
                return None;
            }
        };
        let of_first = Options { given_up: options.given_up.clone(), ..options };
        let ended = Box::pin(carry::carry(line, Box::new(first), None, known, of_first)).await?;
        match ended.outcome {
            Outcome::Done(output) => job.request.set_cardholder(output.id()),
            // The job has no effect then, and is recorded as one that has none.
            Outcome::Refused(refusal) => options.given_up = Some(refusal),
            Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => return Some(ended),
        }
    }
    carry::carry(line, job, change, known, options).await
}
