//! Ends that are still to be told by an event: those of jobs that came from the queue and waited for their PIN.
//!
//! Who sent such a job was told that it waits. It is ended by the server that has the pages, which may know no broker; so the ledger
//! keeps that an event is owed until a worker has published it. Guarantee: at least one event for each such end, and no more
//! unless a process ends between two of its steps.

use serde::{Deserialize, Serialize};

use super::link::under;
use crate::job::JobId;
use crate::ledger::{Ledger, LedgerError, Scope};

/// The ledger's entries of them.
pub(super) const KIND: &str = "pin_event";
/// Events that are read at once.
const PAGE: u32 = 100;

/// That somebody is told by an event of a job's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventWanted {
    /// What its sender tells answers apart by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
}

/// The events that an account's ledger owes.
#[derive(Clone)]
pub struct Outbox {
    ledger: Ledger,
    scope: Scope,
}

/// One of them.
#[derive(Debug, Clone)]
pub struct Owed {
    /// Of which job's end.
    pub job: JobId,
    /// What for.
    pub event: EventWanted,
    name: String,
    /// The ledger's entry as it was read.
    value: String,
    is_claimed: bool,
}

/// The ledger's entry.
#[derive(Serialize, Deserialize)]
struct Entry {
    event: EventWanted,
    /// Who publishes it, at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
}

impl Owed {
    /// Who publishes it, and what it is about: it changes with every claim.
    #[must_use]
    pub fn as_read(&self) -> (&str, &str) {
        (&self.name, &self.value)
    }

    /// Whether somebody has begun to publish it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.is_claimed
    }
}

impl Outbox {
    /// An account's.
    #[must_use]
    pub fn of(ledger: &Ledger, scope: &Scope) -> Self {
        Self { ledger: ledger.clone(), scope: scope.clone() }
    }

    /// An event is owed, if none is already.
    pub(super) async fn add(&self, job: &JobId, event: &EventWanted) -> Result<(), LedgerError> {
        let entry = Entry { event: event.clone(), claim: None };
        let name = format!("{}{job}", self.prefix());
        let _ = self.ledger.swap_metadata(name, None, Some(to_json(&entry))).await?;
        Ok(())
    }

    /// Some that are owed, after that job's, and after which to go on.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn page(&self, after: &str) -> Result<(Vec<Owed>, Option<String>), LedgerError> {
        let prefix = self.prefix();
        let found = self.ledger.metadata_page(&prefix, &format!("{prefix}{after}"), PAGE).await?;
        let next = if found.len() == PAGE as usize { found.last() } else { None };
        let next = next.map(|(name, _)| name[prefix.len()..].to_owned());
        let owed = |(name, value): (String, String)| {
            let Entry { event, claim } = serde_json::from_str(&value).ok()?;
            let job = JobId::new(&name[prefix.len()..]).ok()?;
            Some(Owed { job, event, name, value, is_claimed: claim.is_some() })
        };
        Ok((found.into_iter().filter_map(owed).collect(), next))
    }

    /// Claims one, to publish it. None if it is no longer as it was read.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn claim(&self, owed: Owed) -> Result<Option<Owed>, LedgerError> {
        let claim = Some(format!("{:032x}", rand::random::<u128>()));
        let value = to_json(&Entry { event: owed.event.clone(), claim });
        let swapped = self.ledger.swap_metadata(&*owed.name, Some(owed.value.clone()), Some(value.clone()));
        Ok(swapped.await?.is_ok().then_some(Owed { value, is_claimed: true, ..owed }))
    }

    /// It was published: it is owed no more, unless somebody else has claimed it meanwhile.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn published(&self, owed: Owed) -> Result<(), LedgerError> {
        let _ = self.ledger.swap_metadata(owed.name, Some(owed.value), None).await?;
        Ok(())
    }

    fn prefix(&self) -> String {
        under(KIND, &self.scope)
    }
}

fn to_json(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("texts always serialise")
}
