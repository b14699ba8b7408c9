//! The order of a card's changes.
//!
//! A PIN cannot be read back, and a change that is sent again undoes a later one. So changes of one card go one at a time, the
//! ledger remembers the latest that was begun, and an earlier one whose end is unknown is not sent again after that: it is
//! only looked for. Whether a change is the latest is looked at right before each attempt is recorded, since another process
//! may have begun one while this one waited.

use super::Line;
use crate::job::{Job, JobId};
use crate::ledger::{LedgerError, Row, State};
use crate::outcome::Refusal;

/// Under which name a job's card is locked while it is changed; none if it changes none. (The intake takes no card's id that
/// is longer than a job's may be.)
pub(crate) fn card_of(job: &Job) -> Option<JobId> {
    job.request.target.as_deref().and_then(|card| JobId::new(card).ok())
}

/// Makes this the latest change of its card, unless it was begun before and another one was begun after it: then it may not be
/// sent again, and the refusal says why.
pub(super) async fn become_latest(
    line: &Line,
    job: &Job,
    known: Option<&Row>,
) -> Result<Result<(), Refusal>, LedgerError> {
    let Some(card) = &job.request.target else { return Ok(Ok(())) };
    let ledger = &line.parts.ledger;
    let name = format!("change:{}:{card}", line.parts.scope.as_str());
    let latest = ledger.metadata(&name).await?.filter(|latest| latest != job.id.as_str());
    if let Some(latest) = latest {
        let what = if known.is_some_and(|row| row.state == State::Begun) {
            Some("was begun while the end of this one was unknown")
        } else if comes_before(line, job, &latest).await? {
            Some("which comes after it in the same batch, was begun before this one could be")
        } else {
            None
        };
        if let Some(what) = what {
            let reason = format!(
                "a later change of this card ({latest}) {what}, so it was not sent{}; look at the card, and send what is \
                 still wanted under a new id",
                if known.is_some() { " again" } else { "" }
            );
            return Ok(Err(Refusal::own("superseded", reason)));
        }
    }
    Ok(Ok(ledger.set_metadata(name, job.id.to_string()).await?))
}

/// Whether the job stands before that one in their batch.
async fn comes_before(line: &Line, job: &Job, latest: &str) -> Result<bool, LedgerError> {
    let (Some(place), Ok(latest)) = (&job.place, JobId::new(latest)) else { return Ok(false) };
    let latest = line.parts.ledger.look_up(&line.parts.scope, &latest).await?;
    Ok(latest.is_some_and(|latest| latest.batch == job.batch && latest.row > Some(place.row)))
}
