//! The order of a card's changes.
//!
//! A PIN cannot be read back, and a change that is sent again undoes a later one. So changes of one card go one at a time, the
//! ledger remembers the latest that was begun, and an earlier one whose end is unknown is not sent again after that: it is
//! only looked for. Whether a change is the latest is looked at right before each attempt is recorded, since another process
//! may have begun one while this one waited.

use super::Line;
use super::decision::SUPERSEDED;
use crate::job::{Job, JobId};
use crate::ledger::{LedgerError, Row, State};
use crate::outcome::Refusal;
use crate::simulation::{Mutation, is_broken};

/// Under which name a job's card is locked while it is changed; none if it changes none. (The intake takes no card's id that
/// is longer than a job's may be.)
pub(crate) fn card_of(job: &Job) -> Option<JobId> {
    job.request.target.as_deref().and_then(|card| JobId::new(card).ok())
}

/// What came of a job's asking to be the latest change of its card.
pub(super) enum Latest {
    /// It is.
    Is,
    /// Another process has put another one there meanwhile: all is to be decided anew.
    Changed,
    /// Another process has changed the job's row meanwhile, to this.
    RowChanged(Option<Box<Row>>),
    /// It was begun before and another one was begun after it: then it may not be sent again, and the refusal says why.
    Refused(Refusal),
}

/// Makes this the latest change of its card.
pub(super) async fn become_latest(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
) -> Result<Latest, LedgerError> {
    let Some(card) = &job.request.target else { return Ok(Latest::Is) };
    let (ledger, name) = (&line.parts.ledger, name(line, card));
    let before = ledger.metadata(&name).await?;
    if before.as_deref() == Some(job.id.as_str()) {
        return Ok(Latest::Is);
    }
    if let Some(latest) = before.as_deref().filter(|_| !is_broken(Mutation::ForgetLaterChange)) {
        if known.is_some_and(|row| row.state == State::Begun) {
            return Ok(Latest::Refused(superseded(latest, WHILE_UNKNOWN, known)));
        }
        if comes_before(line, job, latest).await? {
            let what = "which comes after it in the same batch, was begun before this one could be";
            return Ok(Latest::Refused(superseded(latest, what, known)));
        }
    }
    // Another process may have begun this very change since its row was read, and another one a later change after that: then it must
    // not become the latest again. So its row is read anew, after the latest was.
    let found = line.parts.ledger.look_up(&line.parts.scope, &job.id).await?;
    if found.as_ref().map(|row| row.version) != known.map(|row| row.version) {
        return Ok(Latest::RowChanged(found.map(Box::new)));
    }
    // A process that slept since it asked must not put itself before what was begun meanwhile.
    let swapped = ledger.swap_metadata(name, before, Some(job.id.to_string())).await?;
    Ok(swapped.map_or(Latest::Changed, |()| Latest::Is))
}

/// Why the end of a change that was begun cannot be told by the card, if another change was begun since: that one has taken the
/// card's note of it.
pub(super) async fn overtaken(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
) -> Result<Option<Refusal>, LedgerError> {
    let Some(card) = &job.request.target else { return Ok(None) };
    if !known.is_some_and(|row| row.state == State::Begun) {
        return Ok(None);
    }
    let latest = line.parts.ledger.metadata(&name(line, card)).await?;
    let latest = latest.filter(|latest| latest != job.id.as_str());
    Ok(latest.map(|latest| superseded(&latest, WHILE_UNKNOWN, known)))
}

/// Under which name the ledger has the latest change of a card.
fn name(line: &Line, card: &str) -> String {
    format!("change:{}:{card}", line.parts.scope.as_str())
}

const WHILE_UNKNOWN: &str = "was begun while the end of this one was unknown";

fn superseded(latest: &str, what: &str, known: Option<&Row>) -> Refusal {
    let reason = format!(
        "a later change of this card ({latest}) {what}, so it was not sent{}; look at the card, and send what is still wanted under a \
         new id",
        if known.is_some() { " again" } else { "" }
    );
    Refusal::own(SUPERSEDED, reason)
}

/// Whether the job stands before that one in their batch.
async fn comes_before(line: &Line, job: &Job, latest: &str) -> Result<bool, LedgerError> {
    let (Some(place), Ok(latest)) = (&job.place, JobId::new(latest)) else { return Ok(false) };
    let latest = line.parts.ledger.look_up(&line.parts.scope, &latest).await?;
    Ok(latest.is_some_and(|latest| latest.batch == job.batch && latest.row > Some(place.row)))
}
