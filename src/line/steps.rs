//! A job's steps, one after the other. Each is recorded for itself, and done once.

use super::job_locks::Queued;
use super::{Line, Options, carry};
use crate::job::Job;
use crate::ledger::{Row, State};
use crate::outcome::{Ended, Outcome};

/// Carries a job's first step, if it has one, and then what it is about; `known` is the ledger's row of that.
pub(super) async fn carry(
    line: &Line,
    mut job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    mut options: Options<'_>,
) -> Option<Ended> {
    if let Some(ended) = carry::conflict(&job, known.as_deref()) {
        return Some(ended);
    }
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
            Outcome::Unresolved(_) => return Some(ended),
        }
    }
    carry::carry(line, job, change, known, options).await
}
