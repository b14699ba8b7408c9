//! A job's end: as it is recorded, and as it is told.

use super::Carried;
use crate::clock::Moment;
use crate::job::{Batch, Job, JobId, Step, both};
use crate::killpoint;
use crate::ledger::{Conclude, Row, State};
use crate::line::await_pin::{is_open, wait_again};
use crate::line::decision::CONFLICT;
use crate::line::{CarriedOnly, Halt, Line, Stop};
use crate::metrics;
use crate::operation::Operation;
use crate::outcome::{Ended, Outcome, Output, Refusal};
use crate::simulation::{Mutation, is_broken};

impl Carried<'_> {
    /// The row as it is to be.
    pub(super) fn row(&self, state: State, now: Moment) -> Row {
        let known = self.known.as_deref();
        let mut row = Row::of(&self.line.parts.scope, &self.job, state, now.wall);
        row.generation = self.decision.generation();
        row.attempts = self.decision.attempts();
        row.key_began = self.decision.key_began().or(known.and_then(|known| known.key_began));
        row.attempted =
            if row.state == State::Begun { Some(now.wall) } else { known.and_then(|known| known.attempted) };
        match (&row.state, known.filter(|known| known.state == State::Begun)) {
            // As long as an earlier call under this key may have made the card, it may have that call's PIN.
            (State::Begun, Some(known))
                if known.generation == row.generation && self.decision.attempts() > 1 =>
            {
                row.pin = known.pin;
            }
            (State::Begun, _) => {}
            // The end is of what was called for, whatever is asked for now.
            (State::Done(_) | State::Refused(_) | State::AwaitingPin, Some(known)) => {
                (row.pin, row.content) = (known.pin, known.content)
            }
            (State::Done(_) | State::Refused(_) | State::AwaitingPin, None) => row.pin = None,
        }
        row.note.clone_from(&self.note);
        row.request_id.clone_from(&self.request_id);
        row
    }

    /// Records the end, and tells it; none if the row has changed meanwhile, so that all is decided anew.
    pub(super) async fn conclude(&mut self, outcome: Outcome) -> Result<Option<Ended>, Stop> {
        let state = match &outcome {
            Outcome::Done(output) => State::Done(output.clone()),
            Outcome::Refused(refusal) => State::Refused(refusal.clone()),
            Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => return Ok(Some(self.unresolved())),
        };
        if let Some(row) = self.known.as_deref().filter(|row| matches!(row.state, State::Done(_))) {
            if row.state != state {
                tracing::error!(job = %self.job.id, "two cards carry this job's id; the first one recorded is told");
            }
            return Ok(Some(Ended { note: joined(&self.job, self.note.take()), ..row.ended() }));
        }
        let now = self.now();
        let mut row = Box::new(self.row(state, now));
        let mut note = self.note.clone();
        if matches!(row.state, State::Done(_)) {
            let needs = match &outcome {
                Outcome::Done(Output::Created(cardholder)) => cardholder.needs.clone(),
                _ => None,
            };
            let begun = self.known.as_deref().filter(|known| known.state == State::Begun);
            let kept = both(self.job.of_cardholder.clone(), without_differences(&self.job, note));
            note = both(both(kept, needs), note_of(&self.job, &row, begun));
            row.note.clone_from(&note);
        }
        if is_broken(Mutation::TellBeforeRecord) {
            let (attempts, request_id) = (self.decision.attempts(), self.request_id.take());
            return Ok(Some(Ended { outcome, attempts, request_id, recorded_before: false, note }));
        }
        let stage = metrics::Stage::begin("record");
        let concluded = self.line.parts.ledger.conclude(row, self.known.as_deref()).await?;
        stage.ended();
        match concluded {
            Conclude::Written(row) => {
                killpoint::pass("recorded");
                if let Outcome::Done(Output::Created(cardholder)) = &outcome {
                    self.line.people.add(now.boot, &self.job.request, cardholder);
                }
                self.known = Some(row);
                Ok(Some(Ended {
                    outcome,
                    attempts: self.decision.attempts(),
                    request_id: self.request_id.take(),
                    recorded_before: false,
                    note: joined(&self.job, note),
                }))
            }
            // A card that exists is told, whatever somebody else has recorded since.
            Conclude::Changed(found) if matches!(outcome, Outcome::Done(_)) => {
                self.known = found;
                Ok(None)
            }
            Conclude::Changed(found) => {
                self.changed(found)?;
                Ok(None)
            }
        }
    }

    pub(super) fn unresolved(&self) -> Ended {
        Ended {
            outcome: Outcome::Unresolved(self.latest.clone()),
            attempts: self.decision.attempts(),
            request_id: self.request_id.clone(),
            recorded_before: false,
            note: joined(&self.job, self.note.clone()),
        }
    }

    /// Whether a job that came with its cardholder's PIN waits for it again, as it came to no end and certainly none of its
    /// calls had an effect.
    pub(super) fn waits_again(&self, ended: &Result<Ended, Stop>) -> bool {
        let has_no_end = match ended {
            Ok(ended) => matches!(ended.outcome, Outcome::Unresolved(_)),
            Err(_) => true,
        };
        self.only == CarriedOnly::WhileItWaits
            && self.ended_elsewhere.is_none()
            && has_no_end
            && !self.decision.may_have_effect()
    }

    /// Has the row say that it waits again, if this run had it say anything else. None if nothing was begun, or the ledger does
    /// not serve.
    pub(super) async fn wait_again(&self) -> Option<Ended> {
        let begun = self.known.as_deref().filter(|row| row.state == State::Begun)?;
        match wait_again(self.line, &self.job, begun, self.came_as.as_deref()).await {
            Ok(Ok(ended)) => Some(ended),
            Ok(Err(found)) => found.map(|row| row.ended()),
            Err(error) => {
                self.line.halt_with(Halt::from(&error));
                None
            }
        }
    }

    /// What was seen of a row whose end is not known counts at its next visit.
    pub(super) fn remember(&self) {
        let is_own = |row: &&Row| row.step == self.job.step();
        let open = self.known.as_deref().filter(is_own).filter(|row| row.state == State::Begun);
        let seen = open.and_then(|row| Some((row.version, self.decision.sighting()?)));
        self.line.remember(&self.job, seen);
    }
}

/// The end that the ledger knows, if it does. What is wanted differently now is noted beside it.
pub(super) async fn known_end(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
    is_given_up: bool,
) -> Option<Ended> {
    let row = known?;
    match &row.state {
        State::Done(_) => {
            let note = note_of_done(job, row);
            if note != row.note && !is_given_up {
                let noted = line.parts.ledger.annotate(&row.scope, &row.id, row.step, note.clone()).await;
                if let Err(error) = noted {
                    line.halt_with(Halt::from(&error));
                }
            }
            Some(Ended { note: joined(job, note), ..row.ended() })
        }
        // One whose chosen PIN was refused, or had no effect, is about to wait for another: that is no end.
        State::Refused(_) if is_given_up && !(job.chooses_pin && is_open(row)) => Some(row.ended()),
        State::Refused(_) | State::Begun | State::AwaitingPin => None,
    }
}

/// The end of a job whose id is another one's, of another operation or another batch's row: it has no row of its own, and nothing is
/// done for it.
pub(in crate::line) fn conflict(job: &Job, known: Option<&Row>) -> Option<Ended> {
    let known = known?;
    // A batch's name, a slash and a row's name may be put together in two ways. (A row that was recognised as another batch's has that
    // one's id, and not that of its own name.)
    let is_named_so = |batch: &Batch, name: Option<&String>| {
        name.is_some_and(|name| JobId::of_row(batch, name).is_ok_and(|id| id == job.id))
    };
    let name = job.place.as_ref().and_then(|place| place.row_id.as_ref());
    let is_other_row = known.batch != job.batch
        && is_named_so(&known.batch, known.row_id.as_ref())
        && is_named_so(&job.batch, name);
    let reason = if known.step != job.step() {
        let other = known.step.operation().word();
        format!("this id is another job's, of the operation {other}; each job needs an id of its own")
    } else if is_other_row && matches!(known.step, Step::Last(_)) {
        let (id, other) = (&job.id, &known.batch);
        format!(
            "batch and row together are {id:?}, and so are those of a row of batch {other:?}; give this batch another name"
        )
    } else {
        return None;
    };
    Some(Ended::refused(Refusal::own(CONFLICT, reason)))
}

/// What differs: it is asked for anew each time.
const CARD_DIFFERS: &str = "the card exists, made with what was asked for first; the change was not applied: make it at Stripe, in \
                            the Dashboard or with update_card";
const PERSON_DIFFERS: &str = "the person's cardholder was created before, with other details; those of this row were not applied: \
                              make the change at Stripe, in the Dashboard";
const DIFFERS: &str =
    "it was done as it was asked for first; what is asked for now was not applied: send it under a new id";
const PIN_DIFFERS: &str = "the card keeps the PIN it was made with; a later one was not applied";

/// What a reader must know beside what was done before: what was told of it then, and what is wanted otherwise now.
pub(in crate::line) fn note_of_done(job: &Job, row: &Row) -> Option<String> {
    both(without_differences(job, row.note.clone()), note_of(job, row, None))
}

/// What was told when it was done, without what is asked for anew each time. What is told of a cardholder with its card is not.
fn without_differences(job: &Job, note: Option<String>) -> Option<String> {
    let differences = match job.request.operation() {
        Operation::CreateCardholder => [PERSON_DIFFERS, DIFFERS],
        Operation::CreateCard => [CARD_DIFFERS, PIN_DIFFERS],
        Operation::UpdateCard => [DIFFERS, PIN_DIFFERS],
    };
    let mut note = note?;
    while let Some(before) = differences.iter().find_map(|difference| note.strip_suffix(difference)) {
        note.truncate(before.trim_end_matches("; ").len());
    }
    (!note.is_empty()).then_some(note)
}

/// What a reader must know beside a card that is not wholly what is asked for now. `begun` is the row from before the card was
/// known, if it was not.
fn note_of(job: &Job, row: &Row, begun: Option<&Row>) -> Option<String> {
    let called_for = begun.unwrap_or(row);
    if !job.asks_for(called_for.content) {
        let note = match job.request.operation() {
            Operation::CreateCard => CARD_DIFFERS,
            Operation::CreateCardholder if job.request.reuses() => PERSON_DIFFERS,
            Operation::CreateCardholder | Operation::UpdateCard => DIFFERS,
        };
        return Some(note.to_owned());
    }
    // Of a card that was found, or that a ledger of the first version knows, no PIN is known.
    let is_known = (begun.is_some() || row.version.0 > 1) && called_for.content == job.content();
    let pin = job.pin_digest();
    (is_known && pin.is_some() && called_for.pin != pin).then(|| PIN_DIFFERS.to_owned())
}

/// With what is told of the job itself.
pub(super) fn joined(job: &Job, note: Option<String>) -> Option<String> {
    both(job.note.clone(), note)
}
