//! An event: what is told of a batch. It has the shape of Stripe's own events, so that Stripe's libraries take it as they take
//! those (`data.object`, which the one for Go insists on).
//!
//! Never: a PIN, its ciphertext, a link, a secret, or what a row holds. An event has counts, and the names of a batch and its file's
//! digest.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ledger::{BatchCounts, Scope};

/// What `encodeURIComponent` leaves as it is, by which the page addresses a batch.
const IN_ADDRESS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'!').remove(b'*');
/// Characters of a reason: an event stays small.
const REASON_MAX: usize = 500;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A file was checked and accepted: its rows are about to be issued, or wait.
    #[serde(rename = "batch.checked")]
    Checked,
    /// It waits for somebody else's approval.
    #[serde(rename = "batch.awaiting_approval")]
    AwaitingApproval,
    /// Every row has come to an end: issued, refused, or waiting for its cardholder's PIN.
    #[serde(rename = "batch.finished")]
    Finished,
    /// It goes on no more by itself, and rows are left: it was interrupted, rejected, or has waited for too long.
    #[serde(rename = "batch.stopped")]
    Stopped,
    /// Somebody tries out whether events arrive (`embosser webhooks --test`).
    #[serde(rename = "webhook.test")]
    Test,
}

impl Kind {
    /// As it stands in an event.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Checked => "batch.checked",
            Self::AwaitingApproval => "batch.awaiting_approval",
            Self::Finished => "batch.finished",
            Self::Stopped => "batch.stopped",
            Self::Test => "webhook.test",
        }
    }
}

/// How the batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its rows are about to be issued.
    Checked,
    /// It is issued once somebody else has approved it.
    AwaitingApproval,
    /// It is issued from its start on.
    Scheduled,
    /// Every row has ended.
    Finished,
    /// It was cancelled; what had begun has ended.
    Cancelled,
    /// It was cut off, or some rows' end is not known. The same file again finishes it.
    Interrupted,
    /// Somebody rejected it: nothing of the file was issued.
    Rejected,
    /// It waited for too long: nothing of the file was issued.
    Expired,
}

/// How many rows have come how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Rows of the batch.
    pub rows: u64,
    /// Rows with what they asked for: a card, a cardholder, a change.
    pub issued: u64,
    /// Rows that were refused, or cancelled before they had begun.
    pub refused: u64,
    /// Those of them that somebody cancelled.
    #[serde(default)]
    pub cancelled_rows: u64,
    /// Rows whose end is not known yet.
    pub unresolved: u64,
    /// Rows whose cardholders have not chosen their PINs yet.
    pub awaiting_pin: u64,
    /// Rows that have not ended.
    pub waiting: u64,
}

impl Counts {
    /// Nothing of it has begun.
    #[must_use]
    pub fn of_rows(rows: u64) -> Self {
        Self { rows, waiting: rows, ..Self::default() }
    }

    /// As the ledger counts a batch of so many rows. `refused_before` of those that it has as refused were so before this run, and
    /// wait to be tried again. Of those that stay refused as many are told as cancelled as the ledger has of these.
    pub(super) fn of_ledger(counts: &BatchCounts, rows: u64, refused_before: u64) -> Self {
        let rows = rows.max(counts.known());
        let refused_before = refused_before.min(counts.refused);
        let refused = counts.refused - refused_before;
        Self {
            rows,
            issued: counts.issued,
            refused,
            cancelled_rows: counts.cancelled.min(refused),
            unresolved: counts.unresolved,
            awaiting_pin: counts.awaiting_pin,
            waiting: rows - counts.known() + refused_before,
        }
    }

    /// Whether every row has ended.
    pub(super) fn all_ended(&self) -> bool {
        self.waiting == 0 && self.unresolved == 0
    }
}

/// What Stripe's events say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsEvent {
    /// It is an event.
    Event,
}

/// What the object in an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsBatch {
    /// It is a batch.
    Batch,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "embosser event")]
pub struct Event {
    /// `evt_` and 32 hexadecimal digits: the same whenever the same event is told again.
    pub id: String,
    /// Always `event`.
    pub object: IsEvent,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// When, in seconds since 1970.
    pub created: i64,
    /// Whether it is about live cards.
    pub livemode: bool,
    /// Stripe's id of the account whose cards they are, if it is known.
    pub account: Option<String>,
    /// What it is about.
    pub data: Data,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Data {
    /// The batch, as it was then.
    pub object: BatchObject,
}

/// A batch in an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BatchObject {
    /// Always `batch`.
    pub object: IsBatch,
    /// Its name.
    pub batch: String,
    /// Which run of it: from one check of a file to its end. The same file again, later, is another run.
    pub run: String,
    /// How it stands.
    pub state: State,
    /// Why it was stopped; null if it was not.
    pub reason: Option<String>,
    /// Digest of what the file asks for, as the ledger has it; null if none was made.
    pub digest: Option<String>,
    /// Rows of the file with a PIN.
    pub pins: u64,
    /// How many rows have come how far.
    #[serde(flatten)]
    pub counts: Counts,
    /// Its page, if `webhooks.page_url` says where people reach it.
    pub url: Option<String>,
}

/// The id of a run's event of this kind: whoever tells it again gives it the same. That a run was stopped has another id where that
/// is told by a process which took the run's own for gone: if that one lives after all, its run's true end is told too, and is not
/// taken for this one.
pub(super) fn id_of(run: &str, kind: Kind, is_settled: bool) -> String {
    let by = if is_settled && kind == Kind::Stopped { " gone" } else { "" };
    let digest = Sha256::digest(format!("{run} {}{by}", kind.word()).as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("evt_{hex}")
}

/// Whether a scope is of live cards.
pub(super) fn is_live(scope: &Scope) -> bool {
    scope.as_str().starts_with("live:")
}

/// The address of a batch's page.
pub(super) fn page_of(page_url: Option<&str>, batch: &str) -> Option<String> {
    let page_url = page_url?.trim_end_matches('/');
    Some(format!("{page_url}/#/batches/{}", utf8_percent_encode(batch, IN_ADDRESS)))
}

/// A reason that is short enough to be told.
pub(super) fn short(reason: &str) -> String {
    match reason.char_indices().nth(REASON_MAX) {
        Some((end, _)) => format!("{}…", &reason[..end]),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_event_has_the_same_id_and_another_has_another() {
        let id = id_of("0f", Kind::Finished, false);
        assert_eq!(id, id_of("0f", Kind::Finished, true), "all rows have ended, whoever counts them");
        assert!(id != id_of("0f", Kind::Stopped, false) && id != id_of("0e", Kind::Finished, false));
        assert_ne!(id_of("0f", Kind::Stopped, false), id_of("0f", Kind::Stopped, true));
        assert!(id.len() == 36 && id.starts_with("evt_"), "{id}");
    }

    #[test]
    fn a_batch_has_the_address_that_the_page_gives_it() {
        let page = page_of(Some("https://cards.example.com/"), "März 1/2 (a)").unwrap();
        assert_eq!(page, "https://cards.example.com/#/batches/M%C3%A4rz%201%2F2%20%28a%29");
        assert_eq!(page_of(None, "staff"), None);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(short("too late"), "too late");
        assert_eq!(short(&"ä".repeat(501)).chars().count(), 501);
    }
}
