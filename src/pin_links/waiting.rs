//! The jobs that wait for their PIN, as their operator sees them: page by page, and counted by how long they wait.

use std::time::Duration;

use serde::Serialize;

use super::awaiting::Awaiting;
use super::{PAGE, PinLinks, Standing, Waits, awaiting_name};
use crate::clock::Time;
use crate::job::{Batch, JobId};
use crate::ledger::{Ledger, LedgerError, Scope};

/// A job that waits, as its operator sees it.
#[derive(Debug, Clone, Serialize)]
pub struct Waiting {
    /// Which job.
    pub job: String,
    /// Its batch.
    pub batch: String,
    /// Its row, if it came from a manifest.
    pub row: Option<u64>,
    /// That row's own id.
    pub row_id: Option<String>,
    /// Since when it waits, in milliseconds since 1970.
    pub since_ms: i64,
    /// Its latest link, told by the beginning of its digest; none if none was made, or nobody was told of the one that was.
    pub link: Option<String>,
    /// How that stands.
    pub standing: Option<Standing>,
    /// Until when it can be used, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

impl Waiting {
    /// Whether its latest link can be used.
    #[must_use]
    pub fn has_usable_link(&self) -> bool {
        self.standing == Some(Standing::Usable)
    }
}

/// Whether a job waits for its PIN, or a call with the one that its cardholder chose was begun and has not ended.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn is_awaited(ledger: &Ledger, scope: &Scope, job: &JobId) -> Result<bool, LedgerError> {
    Ok(ledger.metadata(&awaiting_name(scope, job)).await?.is_some())
}

impl PinLinks {
    /// Up to some jobs that wait, after the one of that id; those of one batch, if one is named.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn page(
        &self,
        batch: Option<&Batch>,
        after: &str,
    ) -> Result<(Vec<Waiting>, Option<String>), LedgerError> {
        let prefix = self.awaiting_prefix();
        let found = self.ledger.metadata_page(&prefix, &format!("{prefix}{after}"), PAGE).await?;
        let next = (found.len() == PAGE as usize)
            .then(|| found.last().map(|(name, _)| name[prefix.len()..].to_owned()));
        let mut waiting = Vec::new();
        for (name, value) in &found {
            let Some(awaiting) = Awaiting::of_json(value) else { continue };
            if batch.is_some_and(|batch| awaiting.batch != batch.as_str()) {
                continue;
            }
            // One that was lost on its way to whoever sends it is as good as none.
            let delivered = awaiting.link.filter(|_| awaiting.is_delivered);
            let link = match &delivered {
                Some(hash) => self.link_of(hash).await?.map(|(_, link)| link),
                None => None,
            };
            let now = self.clock.now();
            waiting.push(Waiting {
                job: name[prefix.len()..].to_owned(),
                batch: awaiting.batch,
                row: awaiting.row,
                row_id: awaiting.row_id,
                since_ms: awaiting.since_ms,
                link: delivered.map(|hash| hash[..16.min(hash.len())].to_owned()),
                standing: link.as_ref().map(|link| link.standing(now)),
                expires_ms: link.map(|link| link.expires_ms),
            });
        }
        Ok((waiting, next.flatten()))
    }

    /// The ids of up to some jobs that wait, after that one, and after which to go on.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn waiting_ids(&self, after: &str) -> Result<(Vec<JobId>, Option<String>), LedgerError> {
        let prefix = self.awaiting_prefix();
        let found = self.ledger.metadata_page(&prefix, &format!("{prefix}{after}"), PAGE).await?;
        let ids = found.iter().map(|(name, _)| &name[prefix.len()..]);
        let next = (found.len() == PAGE as usize).then(|| ids.clone().next_back().map(str::to_owned));
        Ok((ids.filter_map(|id| JobId::new(id).ok()).collect(), next.flatten()))
    }

    /// How many jobs wait since less than an hour, a day, a week, or for longer.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn waiting_by_age(&self) -> Result<[u64; 4], LedgerError> {
        const HOURS: [u64; 3] = [1, 24, 7 * 24];
        let (prefix, now, mut by_age) = (self.awaiting_prefix(), self.clock.now(), [0; 4]);
        let mut after = prefix.clone();
        loop {
            let page = self.ledger.metadata_page(&prefix, &after, PAGE).await?;
            for awaiting in page.iter().filter_map(|(_, value)| Awaiting::of_json(value)) {
                let waits = now.since(Time::from_unix_ms(awaiting.since_ms));
                let younger = |hours: &u64| waits < Duration::from_secs(hours * 3600);
                by_age[HOURS.iter().position(younger).unwrap_or(HOURS.len())] += 1;
            }
            match page.last() {
                Some((name, _)) if page.len() == PAGE as usize => after.clone_from(name),
                _ => return Ok(by_age),
            }
        }
    }

    /// A job that waits, whatever its link.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn waiting_job(&self, job: &JobId) -> Result<Option<Waits>, LedgerError> {
        let known = self.ledger.metadata(&self.awaiting(job)).await?;
        Ok(known.as_deref().and_then(Awaiting::of_json).and_then(|awaiting| awaiting.waits(job)))
    }
}
