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
pub(super) fn card_of(job: &Job) -> Option<JobId> {
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
    match ledger.metadata(&name).await? {
        Some(latest) if latest == job.id.as_str() => Ok(Ok(())),
        Some(latest) if known.is_some_and(|row| row.state == State::Begun) => {
            let reason = format!(
                "a later change of this card ({latest}) was begun while the end of this one was unknown, so it was not \
                 sent again; look at the card, and send what is still wanted under a new id"
            );
            Ok(Err(Refusal::own("superseded", reason)))
        }
        Some(_) | None => Ok(Ok(ledger.set_metadata(name, job.id.to_string()).await?)),
    }
}
