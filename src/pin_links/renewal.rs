//! New links by themselves, for jobs of the queue that wait though their link can be used no more: it has expired, or was used and the
//! call with the PIN had no effect.
//!
//! Never for a link that was revoked: somebody wanted that. Never for one that is just being used.

use std::time::Duration;

use super::awaiting::Awaiting;
use super::link::{Link, Purpose, Standing};
use super::{CHOOSE, EventWanted, Made, PAGE, PinLinks, TRIES_MAX};
use crate::clock::Time;
use crate::job::JobId;
use crate::ledger::LedgerError;

/// For so long after its use a link may be being used: longer than a page waits, and a call and the look after it take.
const USED_FOR: Duration = Duration::from_secs(5 * 60);

/// A job that waits with a link that can be used no more.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Which job.
    pub job: JobId,
    /// Who is told of its new link.
    pub event: EventWanted,
}

impl PinLinks {
    /// Whether such jobs get new links by themselves.
    #[must_use]
    pub fn renews_by_itself(&self) -> bool {
        self.renews
    }

    /// Some of these jobs, among those after that one, and after which to go on. Whether they wait is to be asked of their rows.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn spent(&self, after: &str) -> Result<(Vec<Spent>, Option<String>), LedgerError> {
        let prefix = self.awaiting_prefix();
        let found = self.ledger.metadata_page(&prefix, &format!("{prefix}{after}"), PAGE).await?;
        let next = if found.len() == PAGE as usize { found.last() } else { None };
        let next = next.map(|(name, _)| name[prefix.len()..].to_owned());
        let mut spent = Vec::new();
        for (name, value) in &found {
            let awaiting = Awaiting::of_json(value);
            let wanted = awaiting.and_then(|awaiting| Some((awaiting.link?, awaiting.event?)));
            let Some((link, event)) = wanted else { continue };
            if let Ok(job) = JobId::new(&name[prefix.len()..])
                && self.is_spent(&link).await?
            {
                spent.push(Spent { job, event });
            }
        }
        Ok((spent, next))
    }

    /// Makes a new link for such a job. None if it has one that can be used, or waits no more.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn renew_spent(&self, job: &JobId) -> Result<Option<Made>, LedgerError> {
        for _ in 0..TRIES_MAX {
            let name = self.awaiting(job);
            let known = self.ledger.metadata(&name).await?;
            let Some(mut awaiting) = known.as_deref().and_then(Awaiting::of_json) else { return Ok(None) };
            match &awaiting.link {
                Some(link) if self.is_spent(link).await? => {}
                _ => return Ok(None),
            }
            let (made, hash) = self.new_link(CHOOSE);
            self.write_link(&hash, Purpose::Choose { job: job.to_string() }, made.expires).await?;
            let before = awaiting.link.replace(hash);
            awaiting.is_delivered = false;
            if self.ledger.swap_metadata(name, known, Some(awaiting.to_json())).await?.is_ok() {
                if let Some(before) = before {
                    self.revoke_hash(&before).await?;
                }
                return Ok(Some(made));
            }
        }
        Ok(None)
    }

    /// One that is not known any more has expired long ago.
    async fn is_spent(&self, link: &str) -> Result<bool, LedgerError> {
        let now = self.clock.now();
        let was_used =
            |link: &Link| link.used_ms.is_some_and(|used| now.since(Time::from_unix_ms(used)) > USED_FOR);
        Ok(self.link_of(link).await?.is_none_or(|(_, link)| match link.standing(now) {
            Standing::Expired => true,
            Standing::Used => was_used(&link),
            Standing::Usable | Standing::Revoked => false,
        }))
    }
}
