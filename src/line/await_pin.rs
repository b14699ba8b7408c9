//! A job whose cardholder is to choose the PIN: it is recorded as one that waits, and gets its link.
//!
//! Nothing is called for it meanwhile, and nothing of it holds the account. When the PIN has been chosen the job comes down the
//! line again, with it.

use super::{Line, Options, Stop};
use crate::job::Job;
use crate::ledger::{Conclude, Row, State};
use crate::outcome::{Ended, Outcome, Refusal};

/// The code of a refusal because a call with a chosen PIN had no effect, and the PIN is not kept.
pub(super) const PIN_NEEDED: &str = "pin_needed";

/// Whether the job waits for its PIN now, as far as its row says: none of its calls is open, and it has no effect.
pub(super) fn waits(job: &Job, known: Option<&Row>) -> bool {
    job.chooses_pin && known.is_none_or(|row| matches!(row.state, State::Refused(_) | State::AwaitingPin))
}

/// What a job that waits is refused with where a call of it is found to have had no effect.
pub(super) fn pin_needed() -> Refusal {
    Refusal::own(PIN_NEEDED, "the call with the PIN that was chosen had no effect, and the PIN is not kept")
}

/// Records that it waits. None: its row has changed meanwhile, and is answered.
pub(super) async fn await_pin(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
    options: &Options<'_>,
) -> Result<Result<Ended, Option<Box<Row>>>, Stop> {
    let parts = &line.parts;
    let Some(links) = &parts.pin_links else {
        let reason =
            "pin[choose] needs a page for cardholders: set pin_page.url to where they reach `embosser serve`";
        return Ok(Ok(Ended::refused(Refusal::own("no_pin_page", reason))));
    };
    if options.gate.is_some_and(|gate| gate.standing() == super::gate::Standing::CalledOff) {
        let reason = "the batch was cancelled before this row had begun";
        return Ok(Ok(Ended::refused(Refusal::own("cancelled", reason))));
    }
    let made = links.await_pin(job).await?;
    let recorded_before =
        known.is_some_and(|row| row.state == State::AwaitingPin && job.asks_for(row.content));
    if !recorded_before {
        let mut row = Row::of(&parts.scope, job, State::AwaitingPin, parts.clock.now());
        if let Some(known) = known {
            (row.generation, row.attempts) = (known.generation, known.attempts);
        }
        match parts.ledger.conclude(row, known).await? {
            Conclude::Written(_) => {}
            Conclude::Changed(found) => return Ok(Err(found)),
        }
    }
    Ok(Ok(Ended {
        attempts: known.map_or(0, |row| row.attempts),
        outcome: Outcome::AwaitingPin(made.map(|made| made.link)),
        request_id: None,
        recorded_before,
        note: job.note.clone(),
    }))
}
