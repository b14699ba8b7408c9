//! Runs of batches in the ledger: that an end is still to be told.
//!
//! A run is written down before its batch begins or waits, and taken out once the event of its end is in the outbox; in between
//! its end is written into it. So a crash anywhere leaves one of the two, and whoever finds a run that its process keeps alive no more
//! tells its end: under the same id, as that is made of the run.
//!
//! Guarantee: each run that was written down comes to `batch.finished` or `batch.stopped`.

use serde::{Deserialize, Serialize};

use super::event::{Counts, Kind, State};
use crate::ledger::{Ledger, LedgerError, Scope};

/// With what the names begin; what follows is the scope, so that they are renamed with it.
const PREFIX: &str = "batch_run:";
/// Runs that are read at once.
const PAGE: u32 = 200;

/// Who takes the batch to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// A command that holds the account's lease all the while.
    Command,
    /// A server, which holds the rows.
    Server,
    /// A worker, from the queue: it goes on without whoever published the rows.
    Worker,
}

/// A run, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) batch: String,
    pub(super) digest: Option<String>,
    pub(super) rows: u64,
    pub(super) pins: u64,
    pub(super) began_ms: i64,
    pub(super) carrier: Carrier,
    /// Which endpoints are told of its end.
    pub(super) finished_to: Vec<Target>,
    pub(super) stopped_to: Vec<Target>,
    /// Grows as long as its process lives.
    pub(super) beat: u64,
    /// What its end is told by, once its rows are about to be issued; none as long as it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) begins: Option<Begins>,
    /// Whether that was found out by another process, as its own was gone.
    #[serde(default)]
    pub(super) is_settled: bool,
    /// How it ended, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<End>,
}

/// What the ledger has of a batch as a run of it begins: what comes later is the run's. A batch may have had rows before, of the same
/// file or of another of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begins {
    /// Rows that the ledger has of the batch once each row of the run is known to it.
    pub rows: u64,
    /// Refused rows of the batch that are not the run's, or that it does not try again: they stay as they are.
    pub others_refused: u64,
    /// When the batch's latest row was written before, in milliseconds since 1970, by the clock of who wrote it; none if it has none.
    pub latest_ms: Option<i64>,
}

/// An endpoint that is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) id: String,
    pub(super) host: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How the batch stands.
    pub state: State,
    /// Why, if it was stopped.
    pub reason: Option<String>,
    /// How many rows have come how far.
    pub counts: Counts,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

impl End {
    /// What is told of it.
    pub(super) fn kind(&self) -> Kind {
        match self.state {
            State::Finished => Kind::Finished,
            // One that was called off before it began has rows that never came to an end.
            State::Cancelled if self.counts.all_ended() => Kind::Finished,
            State::Cancelled
            | State::Checked
            | State::AwaitingApproval
            | State::Scheduled
            | State::Interrupted
            | State::Rejected
            | State::Expired => Kind::Stopped,
        }
    }
}

/// A run that was read.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its name in the ledger.
    pub(super) name: String,
    pub(super) scope: Scope,
    pub(super) id: String,
    pub(super) entry: Entry,
    /// As it stands in the ledger.
    pub(super) value: String,
}

impl Entry {
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialise")
    }

    pub(super) fn of_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Who is told of such an end.
    pub(super) fn targets(&self, kind: Kind) -> &[Target] {
        match kind {
            Kind::Finished => &self.finished_to,
            Kind::Stopped => &self.stopped_to,
            Kind::Checked | Kind::AwaitingApproval | Kind::Test => &[],
        }
    }
}

pub(super) fn name_of(scope: &Scope, run: &str) -> String {
    format!("{PREFIX}{}|{run}", scope.as_str())
}

/// All runs whose end is still to be told.
pub(super) async fn all(ledger: &Ledger) -> Result<Vec<Found>, LedgerError> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = ledger.metadata_page(PREFIX, &after, PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(all) };
        after.clone_from(last);
        all.extend(page.into_iter().filter_map(|(name, value)| {
            let (scope, id) = name.strip_prefix(PREFIX)?.rsplit_once('|')?;
            let (scope, id) = (Scope::of_ledger(scope), id.to_owned());
            let entry = Entry::of_text(&value)?;
            Some(Found { name, scope, id, entry, value })
        }));
    }
}
