//! The ledger: what is known of every step of every job, written down before and after each call.
//!
//! Duty: to answer what became of a step, and to make an attempt or an outcome durable before it returns. Many
//! jobs' writes share one flush. Never: a PIN or a JWE; or anything of a request but a digest of its content, unless the job
//! waits for its cardholder's PIN: then what it asks for is kept until it ends ([`crate::pin_links`]).
//!
//! Guarantees: a write is a compare-and-set. It takes effect only if the row still is what the writer knew, and else
//! answers what the row has become, so that nothing is done on the strength of what is no longer true. Once it is
//! written, the row survives a crash. A row that says *issued* is never changed again, but for the note beside it. A
//! database of a newer embosser is left alone; one that is deleted or replaced while it is in use is noticed. Who
//! calls for an account holds its [`Lease`].

mod address;
mod asking;
mod audit;
mod availability;
mod batch;
mod database;
mod error;
mod export;
mod file;
mod file_system;
mod group;
mod handle;
mod lease;
mod lease_file;
mod migration;
mod patience;
mod pooler;
mod postgres;
mod prune;
mod result_code;
mod schema;
mod select;
mod servers;
mod shipping;
#[cfg(feature = "killpoints")]
pub mod simulated;
mod sqlite;
mod sqlstate;
mod standing;
mod store;
mod tables;
mod timeline;
mod transfer;
mod verify;
mod whole;

use std::sync::Arc;

use crate::clock::Time;
use crate::job::{Batch, Content, Generation, Job, JobId, PinDigest, Step};
use crate::outcome::{Ended, Outcome, Output, Refusal};
use crate::remedy::TryAgain;

pub use audit::{AuditEntry, AuditQuery, Order};
pub use availability::Away;
pub use batch::Pages;
pub use error::LedgerError;
pub use export::{ExportError, Exported, export};
pub use handle::{Ledger, PATIENCE};
pub use lease::{Holder, Lease, LeaseError, Leased};
pub use prune::{AGE_MIN as PRUNE_AGE_MIN, PRUNED, Prunable, prunable, prune};
pub use transfer::{MoveError, Moved, Stage, abandon_move, move_ledger};
pub use verify::{Finding, Verified, Verify, VerifyError, verify};

/// Whose cards: live or test, at which host, for which connected account. A trial with a test key must never
/// make a live run believe that its rows are done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// `live` or `test`, the API's host, and the connected account if there is one.
    #[must_use]
    pub fn new(mode: &str, host: &str, account: Option<&str>) -> Self {
        Self(match account {
            Some(account) => format!("{mode}:{host}:{account}").into(),
            None => format!("{mode}:{host}").into(),
        })
    }

    /// Whether it is of this host, and of this account if one is named.
    #[must_use]
    pub fn is_at(&self, host: &str, account: Option<&str>) -> bool {
        let Some((_, place)) = self.0.split_once(':') else { return false };
        match account {
            Some(account) => place == format!("{host}:{account}"),
            None => place.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')),
        }
    }

    /// `live` or `test`.
    #[must_use]
    pub fn mode(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(mode, _)| mode)
    }

    /// One that was read from the ledger.
    #[must_use]
    pub fn of_ledger(text: &str) -> Self {
        Self(text.into())
    }

    /// The account, if it is known which one it is.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        // The host before it may have a port.
        self.0.rsplit_once(':').map(|(_, last)| last).filter(|last| last.starts_with("acct_"))
    }

    /// The scope that it was before it was known which account it is.
    #[must_use]
    pub fn without_account(&self) -> Self {
        let account = self.account().map_or(0, |account| account.len() + 1);
        Self(self.0[..self.0.len() - account].into())
    }

    /// As it stands in the ledger.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far a job has come, as its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A call was about to be made; how it ended is not recorded.
    Begun,
    /// What it yielded.
    Done(Output),
    /// It has no effect.
    Refused(Refusal),
    /// It has none yet: its cardholder is to choose the PIN first.
    AwaitingPin,
}

impl State {
    /// Without what it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Begun => Kind::Begun,
            Self::Done(_) => Kind::Done,
            Self::Refused(_) => Kind::Refused,
            Self::AwaitingPin => Kind::AwaitingPin,
        }
    }
}

/// A state without what it holds: to ask for the rows in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`State::Begun`]
    Begun,
    /// [`State::Done`]
    Done,
    /// [`State::Refused`]
    Refused,
    /// [`State::AwaitingPin`]
    AwaitingPin,
}

/// Which rows are asked for; all of them if nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Only {
    /// Those of this kind.
    pub kind: Option<Kind>,
    /// Those with a note.
    pub noted: bool,
    /// Those with this in their names, or in the id or the last digits of what they have; whatever the case of letters.
    pub with: Option<String>,
}

impl Only {
    /// Those of this kind.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }
}

/// How often a row was written; 0 is no row at all. What a writer knew is told by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u64);

impl Version {
    /// There is no row.
    pub const NONE: Self = Self(0);

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One step's row: always written whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Whose card.
    pub scope: Scope,
    /// Which job.
    pub id: JobId,
    /// Which of its steps.
    pub step: Step,
    /// How often it was written.
    pub version: Version,
    /// Of which batch.
    pub batch: Batch,
    /// Its row in the manifest, if it came from one.
    pub row: Option<u64>,
    /// Its `row_id` there.
    pub row_id: Option<String>,
    /// What was asked for.
    pub content: Content,
    /// Which ciphertext of a PIN was sent with it, if one was.
    pub pin: Option<PinDigest>,
    /// How far it has come.
    pub state: State,
    /// Which idempotency key is in use.
    pub generation: Generation,
    /// When the first attempt under that key began.
    pub key_began: Option<Time>,
    /// When the latest attempt began.
    pub attempted: Option<Time>,
    /// Calls made, in all runs.
    pub attempts: u32,
    /// Stripe's id of the deciding request.
    pub request_id: Option<String>,
    /// What a reader must know beside it: what a later upload wanted differently, for instance.
    pub note: Option<String>,
    /// When this row was written.
    pub written: Time,
}

impl Row {
    /// A job's first row; the caller fills in how far it has come.
    #[must_use]
    pub fn of(scope: &Scope, job: &Job, state: State, now: Time) -> Self {
        Self {
            scope: scope.clone(),
            id: job.id.clone(),
            step: job.step(),
            version: Version::NONE,
            batch: job.batch.clone(),
            row: job.place.as_ref().map(|place| place.row),
            row_id: job.place.as_ref().and_then(|place| place.row_id.clone()),
            content: job.content(),
            pin: job.pin_digest(),
            state,
            generation: Generation::FIRST,
            key_began: None,
            attempted: None,
            attempts: 0,
            request_id: None,
            note: None,
            written: now,
        }
    }

    /// Whether nothing was ever called for it: it only waits for its cardholder's PIN, or was refused before its first call.
    #[must_use]
    pub fn was_never_begun(&self) -> bool {
        self.attempts == 0 && matches!(self.state, State::AwaitingPin | State::Refused(_))
    }

    /// Whether it stands at the same place of the same batch: then a database's indexes need no change.
    fn stands_like(&self, other: &Self) -> bool {
        self.batch == other.batch
            && self.row == other.row
            && self.row_id == other.row_id
            && self.content == other.content
    }

    /// Whether it was refused, and is not tried again.
    #[must_use]
    pub fn stays_refused(&self, again: TryAgain) -> bool {
        matches!(&self.state, State::Refused(refusal) if again.leaves(refusal))
    }

    /// The row as an end, for results and answers; a begun row's end is not known.
    #[must_use]
    pub fn ended(&self) -> Ended {
        let outcome = match &self.state {
            State::Begun => Outcome::Unresolved(Refusal::own(
                "unresolved",
                "a call was begun and its end is not known yet; run it again",
            )),
            State::Done(output) => Outcome::Done(output.clone()),
            State::Refused(refusal) => Outcome::Refused(refusal.clone()),
            State::AwaitingPin => Outcome::AwaitingPin(None),
        };
        Ended {
            outcome,
            attempts: self.attempts,
            request_id: self.request_id.clone(),
            recorded_before: true,
            note: self.note.clone(),
        }
    }
}

/// A batch as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRow {
    /// Whose cards.
    pub scope: Scope,
    /// Its name.
    pub batch: Batch,
    /// Digest of its manifest without the PINs; none where only its jobs came, through a queue.
    pub digest: Option<String>,
    /// Rows in its manifest.
    pub rows: u64,
    /// When it was first seen.
    pub began: Time,
}

/// How many of a batch's jobs have ended how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchCounts {
    /// Whose cards.
    pub scope: String,
    /// The batch's name.
    pub batch: String,
    /// Rows in its manifest, where it had one.
    pub rows: Option<u64>,
    /// Cards made.
    pub issued: u64,
    /// Jobs without a card.
    pub refused: u64,
    /// Those of them that somebody cancelled before they had begun.
    pub cancelled: u64,
    /// Jobs begun whose end is not known.
    pub unresolved: u64,
    /// Jobs whose cardholder has not chosen a PIN yet.
    pub awaiting_pin: u64,
    /// Those of all that have a note.
    pub noted: u64,
    /// When the latest row was written.
    pub latest: Option<Time>,
    /// Whether it came as a manifest. Jobs of another, through a queue, may still be on their way.
    pub is_manifests: bool,
    /// When its manifest, or the first job of one, came first; none where no manifest is known.
    pub began: Option<Time>,
}

impl BatchCounts {
    /// Rows of its manifests, where that is known: no less than were seen, as several manifests may have had one name.
    #[must_use]
    pub fn rows_at_least(&self) -> Option<u64> {
        self.rows.map(|rows| rows.max(self.known()))
    }

    /// Rows that the ledger knows, whatever became of them.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.issued + self.refused + self.unresolved + self.awaiting_pin
    }
}

/// An attempt that was recorded: only who holds this may make its call.
#[derive(Debug)]
#[must_use]
pub struct Recorded {
    row: Box<Row>,
}

impl Recorded {
    /// The row as it was recorded.
    #[must_use]
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// The row as it is known, giving up the right to call.
    #[must_use]
    pub fn into_row(self) -> Box<Row> {
        self.row
    }
}

/// What came of recording an attempt.
#[derive(Debug)]
#[must_use]
pub enum Begin {
    /// It is recorded.
    Recorded(Recorded),
    /// The row is no longer what it was known as: this is what it is now. Nothing was written.
    Changed(Option<Box<Row>>),
}

/// What came of recording an end.
#[derive(Debug)]
#[must_use]
pub enum Conclude {
    /// It is recorded; the row as it is now.
    Written(Box<Row>),
    /// The row is no longer what it was known as: this is what it is now. Nothing was written.
    Changed(Option<Box<Row>>),
}

/// A step of some job that asks for a certain content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SameContent {
    /// What it asks for.
    pub content: Content,
    /// Which job.
    pub id: JobId,
    /// Of which batch.
    pub batch: Batch,
    /// Its `row_id` there.
    pub row_id: Option<String>,
    /// Whether there is a card, or one may come to be.
    pub kind: Kind,
    /// When it was last written.
    pub written: Time,
}
