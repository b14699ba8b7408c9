//! A job's steps, one after the other. Each is recorded for itself, and done once; a person's cardholder once for all the jobs
//! that are for that person.

use super::decision::CONFLICT;
use super::job_locks::Queued;
use super::{CarriedOnly, Line, LookFirst, Options, await_pin, carry};
use crate::job::Job;
use crate::ledger::{Row, State};
use crate::outcome::{Ended, Outcome, Output};
use crate::remedy::TryAgain;
use crate::simulation::{Mutation, is_broken};

/// Carries a job's first step, if it has one, and then what it is about; `known` is the ledger's row of that.
pub(super) async fn carry(
    line: &Line,
    mut job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    options: Options<'_>,
) -> Option<Ended> {
    if let Some(ended) = carry::conflict(&job, known.as_deref()) {
        return Some(ended);
    }
    if known.as_deref().is_some_and(|row| row.stays_refused(options.again)) {
        return known.map(|row| row.ended());
    }
    let is_carried = match options.only {
        CarriedOnly::Always => true,
        CarriedOnly::WhileItWaits => await_pin::takes_pin(&job, known.as_deref()),
        CarriedOnly::WhileItIsOpen => known.as_deref().is_some_and(await_pin::is_open),
    };
    if !is_carried {
        return known.map(|row| row.ended());
    }
    match await_pin::looks_first(line, &job, known.as_deref(), &options).await {
        Ok(looks) => {
            let all_look = line.parts.look_first == LookFirst::Yes && !is_broken(Mutation::SkipReconcile);
            job.looks_first = looks || all_look;
        }
        Err(error) => {
            line.halt_with((&error).into());
            return None;
        }
    }
    let event = options.event.clone();
    let waited = job.chooses_pin || known.as_ref().is_some_and(|row| row.state == State::AwaitingPin);
    let id = waited.then(|| job.id.clone());
    let ended = if job.chooses_pin && options.given_up.is_none() {
        // On the heap: few jobs have such a choice, and each one's future would have room for it.
        Box::pin(carry_choice(line, job, change, known, options)).await?
    } else {
        carry_both(line, job, change, known, options).await?
    };
    if let Some(id) = id {
        await_pin::forget_if_ended(line, &id, &ended, event.as_ref()).await;
    }
    Some(ended)
}

/// Carries a job whose cardholder is to choose its PIN: as far as it goes without. If a call with a PIN was begun, its end is
/// found out first.
async fn carry_choice(
    line: &Line,
    mut job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    mut options: Options<'_>,
) -> Option<Ended> {
    if await_pin::waits(&job, known.as_deref()) {
        // A card that was lost is not left alive until somebody has chosen a PIN for the next one.
        if job.request.cancels_replaced() && line.parts.pin_links.is_some() {
            if let Some(ended) = carry_first(line, &mut job, &mut options).await? {
                return Some(ended);
            }
            if options.given_up.is_some() {
                return carry_both(line, job, change, known, options).await;
            }
        }
        return until_it_waits(line, &job, known, &options).await;
    }
    let again = job.without_pin();
    let looking = Options { given_up: Some(await_pin::pin_needed()), ..options };
    let (gate, recall, event, only) = (looking.gate, looking.recall, looking.event.clone(), looking.only);
    let ended = Box::pin(carry_both(line, job, change, known, looking)).await?;
    if !matches!(&ended.outcome, Outcome::Refused(refusal) if refusal.code == await_pin::PIN_NEEDED) {
        return Some(ended);
    }
    let known = known_of(line, &again).await?;
    if only == CarriedOnly::WhileItIsOpen && !known.as_deref().is_some_and(await_pin::is_open) {
        return known.map(|row| row.ended());
    }
    until_it_waits(line, &again, known, &Options { gate, recall, event, only, ..Options::default() }).await
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
                Some(row) if options.only == CarriedOnly::WhileItIsOpen => return Some(row.ended()),
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
    if is_done {
        let _ = job.take_first();
    }
    if let Some(ended) = carry_first(line, &mut job, &mut options).await? {
        return Some(ended);
    }
    carry::carry(line, job, change, known, options).await
}

/// Carries a job's first step, if there is one to be carried. Some end if nothing can follow it yet; the outer `None` if the
/// line stopped.
async fn carry_first(line: &Line, job: &mut Job, options: &mut Options<'_>) -> Option<Option<Ended>> {
    let Some(first) = job.take_first() else { return Some(None) };
    let person = first.request.reuses().then(|| Box::new(first.request.without_pin()));
    let (first, known) = first_of(line, first).await?;
    let of_first = Options {
        given_up: options.given_up.clone(),
        is_first_refused: false,
        person: None,
        gate: options.gate,
        recall: options.recall,
        event: None,
        only: CarriedOnly::Always,
        again: TryAgain::All,
    };
    let ended = Box::pin(carry::carry(line, Box::new(first), None, known, of_first)).await?;
    match ended.outcome {
        Outcome::Done(Output::Created(cardholder)) => {
            job.request.set_cardholder(&cardholder.id);
            job.of_cardholder = ended.note;
        }
        // The card that is replaced is cancelled.
        Outcome::Done(_) => {}
        // The job has no effect then, and is recorded as one that has none.
        Outcome::Refused(refusal) => {
            options.is_first_refused = options.given_up.is_none();
            options.person = person;
            options.given_up = Some(refusal);
        }
        // The PIN was not sent, whatever became of the cardholder.
        Outcome::Unresolved(_) if options.only == CarriedOnly::WhileItWaits => {
            return Some(Some(Ended { outcome: Outcome::AwaitingPin(None), ..ended }));
        }
        Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => return Some(Some(ended)),
    }
    Some(None)
}

/// A job's first step, and what is known of it. A person's is all their jobs', unless the job has begun one of its own: an earlier
/// version did.
async fn first_of(line: &Line, first: Job) -> Option<(Job, Option<Box<Row>>)> {
    let known = known_of(line, &first).await?;
    // What was refused had no effect, but for a conflict.
    let had_none = |row: &Row| matches!(&row.state, State::Refused(refusal) if refusal.code != CONFLICT);
    let is_own = known.as_deref().is_some_and(|row| !had_none(row));
    match first.id_of_person().filter(|_| !is_own) {
        None => Some((first, known)),
        Some(person) => {
            let first = first.named(person);
            let known = known_of(line, &first).await?;
            Some((first, known))
        }
    }
}

/// What the ledger says of a step. The outer `None` if it does not serve, which halts the line.
async fn known_of(line: &Line, job: &Job) -> Option<Option<Box<Row>>> {
    match line.look_up(job).await {
        Ok(known) => Some(known.map(Box::new)),
        Err(error) => {
            line.halt_with((&error).into());
            None
        }
    }
}
