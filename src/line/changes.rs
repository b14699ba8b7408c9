//! The order of a card's changes.
//!
//! A PIN cannot be read back, and a change that is sent again undoes a later one. So changes of one card go one at a time, the
//! ledger remembers the latest that was begun, and an earlier one whose end is unknown is not sent again after that: it is
//! only looked for.

use super::Line;
use super::job_locks::JobLock;
use crate::job::{Job, JobId};
use crate::ledger::{LedgerError, Row, State};
use crate::outcome::Refusal;

/// A change of a card, as long as it is under way; anything else is not held up.
#[must_use]
pub(super) struct Change {
    _alone: Option<JobLock>,
    latest: Option<String>,
}

impl Change {
    /// Why it may not be sent any more, if another change of the card was begun after it.
    pub(super) fn superseded(&self) -> Option<Refusal> {
        let latest = self.latest.as_ref()?;
        let reason = format!(
            "a later change of this card ({latest}) was begun while the end of this one was unknown, so it was not sent \
             again; look at the card, and send what is still wanted under a new id"
        );
        Some(Refusal::own("superseded", reason))
    }
}

/// Waits until no other change of the job's card is under way.
pub(super) async fn begin(line: &Line, job: &Job, known: Option<&Row>) -> Result<Change, LedgerError> {
    let Some(card) = &job.request.target else { return Ok(Change { _alone: None, latest: None }) };
    let alone = match JobId::new(format!("changes of {card}")) {
        Ok(name) => Some(line.locks.take(&name).await),
        Err(_) => None,
    };
    let mut latest = None;
    if known.is_some_and(|row| row.state == State::Begun) {
        latest = line.parts.ledger.metadata(&name(line, card)).await?;
    }
    Ok(Change { _alone: alone, latest: latest.filter(|latest| latest != job.id.as_str()) })
}

/// Before an attempt is recorded: from now on this is the latest change of its card.
pub(super) async fn is_latest(line: &Line, job: &Job) -> Result<(), LedgerError> {
    let Some(card) = &job.request.target else { return Ok(()) };
    let name = name(line, card);
    if line.parts.ledger.metadata(&name).await?.as_deref() != Some(job.id.as_str()) {
        line.parts.ledger.set_metadata(name, job.id.to_string()).await?;
    }
    Ok(())
}

fn name(line: &Line, card: &str) -> String {
    format!("change:{}:{card}", line.parts.scope.as_str())
}
