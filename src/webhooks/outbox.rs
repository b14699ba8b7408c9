//! What endpoints are still to be told, in the ledger's metadata: one name for each event and endpoint.
//!
//! An event is written here before anybody is told of it, and taken out once its receiver has said that it has it. Every change is
//! a compare-and-set, so that of two processes one delivers it at a time. Guarantee: each event is delivered at least once, and
//! always under the same id.

use serde::{Deserialize, Serialize};

use super::event::Event;
use crate::ledger::{Ledger, LedgerError};

/// With what the names begin.
const PREFIX: &str = "webhook:";
/// Events that are read at once.
const PAGE: u32 = 200;

/// An event that an endpoint has not been told, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What is sent, byte for byte: each try signs the same.
    pub(super) body: String,
    /// What happened, and to which batch, for whoever looks at it.
    pub(super) kind: String,
    pub(super) batch: String,
    /// The host that is told, likewise; its whole address may hold a secret.
    pub(super) host: String,
    pub(super) created_ms: i64,
    /// Tries that were begun.
    pub(super) attempts: u32,
    /// When the next one is due.
    pub(super) due_ms: i64,
    /// Whether it is not tried any more by itself.
    #[serde(default)]
    pub(super) is_given_up: bool,
    /// What the latest try met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// One of them, as it was read.
#[derive(Debug, Clone)]
pub(super) struct Owed {
    /// Which endpoint.
    pub(super) endpoint: String,
    /// The event's id.
    pub(super) event: String,
    pub(super) entry: Entry,
    value: String,
}

/// All that a ledger holds.
#[derive(Clone)]
pub(super) struct Outbox(Ledger);

impl Outbox {
    pub(super) fn of(ledger: &Ledger) -> Self {
        Self(ledger.clone())
    }

    /// An endpoint is to be told this, unless it is known already that it is.
    pub(super) async fn add(&self, endpoint: (&str, &str), event: &Event) -> Result<(), LedgerError> {
        let (endpoint, host) = endpoint;
        let created_ms = event.created.saturating_mul(1000);
        let entry = Entry {
            body: serde_json::to_string(event).expect("texts and numbers always serialise"),
            kind: event.kind.word().to_owned(),
            batch: event.data.object.batch.clone(),
            host: host.to_owned(),
            created_ms,
            attempts: 0,
            due_ms: created_ms,
            is_given_up: false,
            problem: None,
        };
        let _ = self.0.swap_metadata(name_of(endpoint, &event.id), None, Some(text(&entry))).await?;
        Ok(())
    }

    /// All of them, the oldest first.
    pub(super) async fn all(&self) -> Result<Vec<Owed>, LedgerError> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.0.metadata_page(PREFIX, &after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            all.extend(page.into_iter().filter_map(|(name, value)| {
                let (endpoint, event) = name.strip_prefix(PREFIX)?.split_once('|')?;
                let entry = serde_json::from_str(&value).ok()?;
                Some(Owed { endpoint: endpoint.to_owned(), event: event.to_owned(), entry, value })
            }));
        }
        all.sort_by(|one, other| {
            let key = |owed: &Owed| (owed.entry.created_ms, order_of(&owed.entry.kind));
            key(one).cmp(&key(other))
        });
        Ok(all)
    }

    /// Makes an entry another. None if it is no longer as it was read: somebody else sees to it.
    pub(super) async fn change(&self, owed: &Owed, entry: Entry) -> Result<Option<Owed>, LedgerError> {
        let value = text(&entry);
        let name = name_of(&owed.endpoint, &owed.event);
        let swapped = self.0.swap_metadata(name, Some(owed.value.clone()), Some(value.clone())).await?;
        Ok(swapped.is_ok().then(|| Owed { entry, value, ..owed.clone() }))
    }

    /// Takes it out, unless it has changed since it was read.
    pub(super) async fn remove(&self, owed: &Owed) -> Result<(), LedgerError> {
        let name = name_of(&owed.endpoint, &owed.event);
        let _ = self.0.swap_metadata(name, Some(owed.value.clone()), None).await?;
        Ok(())
    }
}

/// Of what happens in one second, what comes first.
fn order_of(kind: &str) -> usize {
    crate::config::EVENTS.iter().position(|event| *event == kind).unwrap_or(usize::MAX)
}

fn name_of(endpoint: &str, event: &str) -> String {
    format!("{PREFIX}{endpoint}|{event}")
}

fn text(entry: &Entry) -> String {
    serde_json::to_string(entry).expect("texts and numbers always serialise")
}
