//! A job whose cardholder is to choose the PIN: it is recorded as one that waits, and gets its link.
//!
//! Nothing is called for it meanwhile, and nothing of it holds the account. When the PIN has been chosen the job comes down the
//! line again, with it.

use super::decision::CONFLICT;
use super::gate::Standing;
use super::{CarriedOnly, Line, Options, Stop};
use crate::job::{Job, JobId};
use crate::ledger::{Conclude, LedgerError, Row, State};
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pin_links::{EventWanted, is_looked_for_first};

/// The code of a refusal because a call with a chosen PIN had no effect, and the PIN is not kept.
pub(super) const PIN_NEEDED: &str = "pin_needed";

/// Whether the job waits for its PIN now, as far as its row says: none of its calls is open, and it has no effect. (A conflict is
/// a card that exists.)
pub(super) fn waits(job: &Job, known: Option<&Row>) -> bool {
    job.chooses_pin
        && known.is_none_or(|row| match &row.state {
            State::AwaitingPin => true,
            State::Refused(refusal) => refusal.code != CONFLICT,
            State::Begun | State::Done(_) => false,
        })
}

/// Whether a PIN that its cardholder chose is taken for the job, as far as its row says. What was cancelled, or has ended or
/// begun otherwise, takes none.
pub(super) fn takes_pin(job: &Job, known: Option<&Row>) -> bool {
    known.is_none_or(|row| match &row.state {
        State::AwaitingPin => true,
        State::Refused(refusal) => is_about_pin(&refusal.code) && job.asks_for(row.content),
        State::Begun | State::Done(_) => false,
    })
}

/// Whether a job that waited for its PIN waits no more, and has not ended either.
pub(super) fn is_open(row: &Row) -> bool {
    match &row.state {
        State::Begun => true,
        State::Refused(refusal) => is_about_pin(&refusal.code) || refusal.code == PIN_NEEDED,
        State::AwaitingPin | State::Done(_) => false,
    }
}

/// Of a job whose calls certainly had no effect: it waits for its PIN again, as its row said before the first of them. Only
/// who recorded the attempt can write this, since nobody else knows the row of that version. The inner `Err` is what the row
/// has become otherwise.
pub(super) async fn wait_again(
    line: &Line,
    job: &Job,
    begun: &Row,
    before: Option<&Row>,
) -> Result<Result<Ended, Option<Box<Row>>>, LedgerError> {
    let mut row = Row::of(&line.parts.scope, job, State::AwaitingPin, line.parts.clock.now());
    row.pin = None;
    if let Some(before) = before {
        // Calls without an effect are not counted: what is known of the key is what was known before them.
        (row.generation, row.attempts) = (before.generation, before.attempts);
        (row.key_began, row.attempted) = (before.key_began, before.attempted);
        row.note.clone_from(&before.note);
    }
    Ok(match line.parts.ledger.conclude(row, Some(begun)).await? {
        Conclude::Written(row) => Ok(row.ended()),
        Conclude::Changed(found) => Err(found),
    })
}

/// Whether a refusal is about a PIN's ciphertext: another one may be chosen.
#[must_use]
pub fn is_about_pin(code: &str) -> bool {
    matches!(code, "stale_key" | "pin_in_clear") || code.starts_with("jwe_")
}

/// Of a job that waited, or may have: once its end is known it waits no more, and its link can be used no more.
/// An event of that is owed to who sent it, unless its end is `told` by one anyway.
pub(super) async fn forget_if_ended(line: &Line, id: &JobId, ended: &Ended, told: Option<&EventWanted>) {
    let has_ended = match &ended.outcome {
        Outcome::Done(_) => true,
        Outcome::Refused(refusal) => !is_about_pin(&refusal.code) && refusal.code != PIN_NEEDED,
        Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => false,
    };
    if let Some(links) = line.parts.pin_links.as_ref().filter(|_| has_ended)
        && let Err(error) = links.ended(id, told).await
    {
        tracing::warn!(job = %id, %error, "a job has ended, and its link for a PIN could not be taken back");
    }
}

/// Whether a job that waited, and is called for now, is to be looked for first: since it began to wait somebody said that the ledger
/// may not know all.
pub(super) async fn looks_first(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
    options: &Options<'_>,
) -> Result<bool, LedgerError> {
    let waited =
        options.only == CarriedOnly::WhileItWaits || known.is_some_and(|row| row.state == State::AwaitingPin);
    let goes_on_waiting = job.chooses_pin && options.given_up.is_none();
    if !waited || goes_on_waiting {
        return Ok(false);
    }
    is_looked_for_first(&line.parts.ledger, &line.parts.scope, &job.id).await
}

/// What a job that waits is refused with where a call of it is found to have had no effect.
pub(super) fn pin_needed() -> Refusal {
    Refusal::own(PIN_NEEDED, "the call with the PIN that was chosen had no effect, and the PIN is not kept")
}

/// Records that it waits. The inner `Err` is what its row has become, if it has changed meanwhile.
pub(super) async fn await_pin(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
    options: &Options<'_>,
) -> Result<Result<Ended, Option<Box<Row>>>, Stop> {
    let parts = &line.parts;
    let is_called_off = options.gate.is_some_and(|gate| gate.standing() == Standing::CalledOff);
    let links = match &parts.pin_links {
        Some(_) if is_called_off => {
            let reason = "the batch was cancelled before this row had begun";
            return refused(line, job, known, Refusal::own("cancelled", reason)).await;
        }
        Some(links) => links,
        None => {
            let reason = "pin[choose] needs a page for cardholders: set pin_page.url to where they reach `embosser serve`";
            return refused(line, job, known, Refusal::own("no_pin_page", reason)).await;
        }
    };
    let made = links.await_pin(job, options.event.as_ref()).await?;
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

/// Records that it has no effect, and does not wait.
async fn refused(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
    refusal: Refusal,
) -> Result<Result<Ended, Option<Box<Row>>>, Stop> {
    let parts = &line.parts;
    let mut row = Row::of(&parts.scope, job, State::Refused(refusal.clone()), parts.clock.now());
    if let Some(known) = known {
        (row.generation, row.attempts) = (known.generation, known.attempts);
    }
    Ok(match parts.ledger.conclude(row, known).await? {
        Conclude::Written(_) => Ok(Ended::refused(refusal)),
        Conclude::Changed(found) => Err(found),
    })
}
