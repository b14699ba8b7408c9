//! What both databases have in common: one table's columns, a row's values in them, and back.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{AuditEntry, BatchCounts, BatchRow, Kind, LedgerError, Row, SameContent, Scope, State, Version};
use crate::clock::Time;
use crate::job::{Batch, Content, Generation, JobId, PinDigest, Step};
use crate::operation::Operation;
use crate::outcome::{Card, Cardholder, Output, Refusal};

/// The columns that [`row_from`] reads, in a SELECT over `steps`.
pub(super) const COLUMNS: &str = "steps.scope, steps.job_id, steps.step, steps.version, steps.batch, \
    steps.row_number, steps.row_id, steps.content, steps.pin, steps.state, steps.generation, steps.key_began_ms, \
    steps.attempted_ms, steps.attempts, steps.output, steps.error_code, steps.error_message, steps.request_id, \
    steps.note, steps.written_ms";

/// One change of the ledger.
pub(super) enum Change {
    /// A row is written, if the one that is there has the version before.
    Step {
        /// As it is to be; its version is the one after what its writer knew.
        row: Box<Row>,
        /// Whether only its state differs from what its writer knew: then no index is touched.
        touches: Touches,
    },
    /// A note is put beside a row, or taken away.
    Note { scope: Scope, id: JobId, step: Step, note: Option<String> },
    /// A name is given a value.
    Metadata { name: String, value: String },
    /// A name's value becomes another, or none, if it still is what it was known as.
    Swap { name: String, known: Option<String>, value: Option<String> },
    /// A batch's manifest is recorded.
    Batch(Box<BatchRow>),
    /// An entry is added to the audit log, if none of its key is there.
    Audit { entry: Box<AuditEntry>, key: String },
    /// Every row of one scope gets another, but for those that the other has already.
    RenameScope { from: Scope, to: Scope },
    /// What a job writes is tried, and taken back; a name is given a value, which is kept.
    Probe,
    /// Nothing more is written: the connection is to be closed.
    Close,
}

/// How much of a row a change touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touches {
    /// Its state, and no column of an index.
    State,
    /// All of it.
    Whole,
}

/// Whether a group is committed for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    First,
    /// It was tried before, and may have taken effect.
    Again,
}

/// What came of a change.
#[derive(Debug, Clone)]
pub(super) enum Written {
    /// It took effect.
    Done,
    /// The row is not what it was known as; this is what it is.
    Changed(Option<Box<Row>>),
    /// The name's value is not what it was known as; this is what it is.
    Differs(Option<String>),
}

impl Written {
    /// What a name's value that is another than was known says of its change. A commit whose answer was lost finds what it has
    /// written itself.
    pub(super) fn of_value(wanted: Option<&String>, found: Option<String>, commit: Commit) -> Self {
        if commit == Commit::Again && found.as_ref() == wanted { Self::Done } else { Self::Differs(found) }
    }

    /// What a row that is there now says of a change that found no row of the version before. A commit whose answer was
    /// lost is tried again, and then finds what it has written itself; at the first try an equal row is another process's.
    pub(super) fn of_found(wanted: &Row, found: Option<Row>, commit: Commit) -> Self {
        // Of a row that was known, only itself is news; a new one may be refused for another job of its id.
        let found = found.filter(|found| wanted.version.0 == 1 || found.step == wanted.step);
        match found {
            Some(found) if commit == Commit::Again && found == *wanted => Self::Done,
            found => Self::Changed(found.map(Box::new)),
        }
    }
}

/// One row's values, borrowed; names are the columns'.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    pub(super) scope: &'a str,
    pub(super) job_id: &'a str,
    pub(super) step: &'a str,
    pub(super) version: i64,
    pub(super) batch: &'a str,
    pub(super) row_number: i64,
    pub(super) row_id: Option<&'a str>,
    pub(super) content: String,
    pub(super) pin: Option<String>,
    pub(super) state: &'a str,
    pub(super) generation: i64,
    pub(super) key_began_ms: Option<i64>,
    pub(super) attempted_ms: Option<i64>,
    pub(super) attempts: i64,
    pub(super) output: Option<String>,
    pub(super) error_code: Option<&'a str>,
    pub(super) error_message: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) note: Option<&'a str>,
    pub(super) written_ms: i64,
}

/// What a step yielded; what an operation has none of is left out.
#[derive(Serialize, Deserialize)]
struct StoredOutput<'a> {
    id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last4: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp_month: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp_year: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cardholder: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changed: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    needs: Option<Cow<'a, str>>,
}

impl Kind {
    /// As it stands in the ledger.
    fn word(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::AwaitingPin => AWAITING_PIN,
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Begun, Self::Done, Self::Refused].into_iter().find(|kind| kind.word() == word)
    }
}

/// The code by which a row that waits for its PIN is told from other rows without an effect. (An embosser that does not know
/// it takes the row for refused, and may begin it anew if it is sent again, with its PIN: as it should.)
pub(super) const AWAITING_PIN: &str = "awaiting_pin";

/// A row's values as both databases store them.
pub(super) fn document(row: &Row) -> Document<'_> {
    let (kind, output, refusal) = match &row.state {
        State::Begun => (Kind::Begun, None, None),
        State::Done(output) => (Kind::Done, Some(stored(output)), None),
        State::Refused(refusal) => {
            (Kind::Refused, None, Some((refusal.code.as_ref(), refusal.message.as_str())))
        }
        State::AwaitingPin => {
            (Kind::Refused, None, Some((AWAITING_PIN, "waits for its cardholder to choose the PIN")))
        }
    };
    Document {
        scope: row.scope.as_str(),
        job_id: row.id.as_str(),
        step: row.step.word(),
        version: i64::try_from(row.version.0).unwrap_or(i64::MAX),
        batch: row.batch.as_str(),
        row_number: row.row.and_then(|number| i64::try_from(number).ok()).unwrap_or(0),
        row_id: row.row_id.as_deref(),
        content: row.content.to_hex(),
        pin: row.pin.map(PinDigest::to_hex),
        state: kind.word(),
        generation: i64::from(row.generation.0),
        key_began_ms: row.key_began.map(Time::unix_ms),
        attempted_ms: row.attempted.map(Time::unix_ms),
        attempts: i64::from(row.attempts),
        output,
        error_code: refusal.map(|(code, _)| code),
        error_message: refusal.map(|(_, message)| message),
        request_id: row.request_id.as_deref(),
        note: row.note.as_deref(),
        written_ms: row.written.unix_ms(),
    }
}

/// The columns of one row of an answer, read in their order.
pub(super) trait Columns {
    /// The next column, a text.
    fn text(&mut self) -> Result<Option<String>, String>;
    /// The next column, a number.
    fn number(&mut self) -> Result<Option<i64>, String>;
}

/// A database's row as ours, from [`COLUMNS`].
pub(super) fn row_from(mut columns: impl Columns, ledger: &str) -> Result<Row, LedgerError> {
    let mut job = String::new();
    read_row(&mut columns, &mut job).map_err(|unreadable| match unreadable {
        Unreadable::Answer(reason) => database(ledger, reason),
        Unreadable::Row(reason) => LedgerError::Damaged { ledger: ledger.into(), job, reason },
    })
}

/// Why a row cannot be read.
enum Unreadable {
    /// The database did not give it.
    Answer(String),
    /// It says what embosser cannot have written.
    Row(String),
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self::Answer(reason)
    }
}

fn read_row(columns: &mut impl Columns, job: &mut String) -> Result<Row, Unreadable> {
    let damaged = |reason: &str| Unreadable::Row(reason.to_owned());
    let small = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let scope = columns.text()?.unwrap_or_default();
    *job = columns.text()?.unwrap_or_default();
    let step = columns.text()?.as_deref().and_then(Step::of_word);
    let version = columns.number()?.and_then(|version| u64::try_from(version).ok());
    let batch = columns.text()?.unwrap_or_default();
    let row = columns.number()?.and_then(|row| u64::try_from(row).ok()).filter(|row| *row > 0);
    let row_id = columns.text()?;
    let content = columns.text()?.as_deref().and_then(Content::of_hex);
    let pin = columns.text()?.as_deref().and_then(PinDigest::of_hex);
    let kind = columns.text()?.as_deref().and_then(Kind::of_word);
    let generation = small(columns.number()?).map(Generation);
    let key_began = columns.number()?.map(Time::from_unix_ms);
    let attempted = columns.number()?.map(Time::from_unix_ms);
    let attempts = small(columns.number()?).unwrap_or(0);
    let output = columns.text()?;
    let (code, message) = (columns.text()?, columns.text()?);
    let request_id = columns.text()?;
    let note = columns.text()?;
    let written = Time::from_unix_ms(columns.number()?.unwrap_or(0));
    let state = match kind {
        Some(Kind::Begun) => State::Begun,
        Some(Kind::Done) => {
            let output = output.ok_or_else(|| damaged("done without an output"))?;
            let operation = step.ok_or_else(|| damaged("unknown step"))?.operation();
            State::Done(output_from(operation, &output).ok_or_else(|| damaged("its output cannot be read"))?)
        }
        Some(Kind::Refused) if code.as_deref() == Some(AWAITING_PIN) => State::AwaitingPin,
        Some(Kind::Refused | Kind::AwaitingPin) => State::Refused(Refusal {
            code: code.unwrap_or_default().into(),
            message: message.unwrap_or_default(),
        }),
        None => return Err(damaged("unknown state")),
    };
    Ok(Row {
        scope: Scope(scope.into()),
        id: JobId::new(job.clone()).map_err(|error| damaged(&format!("its id {error}")))?,
        step: step.ok_or_else(|| damaged("unknown step"))?,
        version: Version(version.ok_or_else(|| damaged("its version is not a number"))?),
        batch: Batch::new(batch).map_err(|error| damaged(&format!("its batch {error}")))?,
        row,
        row_id,
        content: content.ok_or_else(|| damaged("its content is not 32 hexadecimal digits"))?,
        pin,
        state,
        generation: generation.ok_or_else(|| damaged("its generation is not a number"))?,
        key_began,
        attempted,
        attempts,
        request_id,
        note,
        written,
    })
}

fn stored(output: &Output) -> String {
    let stored = match output {
        Output::Issued(card) | Output::Updated(card) => StoredOutput {
            id: card.id.as_str().into(),
            last4: Some(card.last4.as_str().into()),
            exp_month: Some(card.exp_month),
            exp_year: Some(card.exp_year),
            cardholder: card.cardholder.as_deref().map(Cow::from),
            changed: card.changed.iter().map(Cow::from).collect(),
            status: None,
            needs: None,
        },
        Output::Created(cardholder) => StoredOutput {
            id: cardholder.id.as_str().into(),
            last4: None,
            exp_month: None,
            exp_year: None,
            cardholder: None,
            changed: Vec::new(),
            status: cardholder.status.as_deref().map(Cow::from),
            needs: cardholder.needs.as_deref().map(Cow::from),
        },
    };
    serde_json::to_string(&stored).expect("strings and integers always serialise")
}

fn output_from(operation: Operation, text: &str) -> Option<Output> {
    let stored: StoredOutput<'_> = serde_json::from_str(text).ok()?;
    let card = |stored: StoredOutput<'_>| Card {
        id: stored.id.into_owned(),
        last4: stored.last4.unwrap_or_default().into_owned(),
        exp_month: stored.exp_month.unwrap_or(0),
        exp_year: stored.exp_year.unwrap_or(0),
        cardholder: stored.cardholder.map(Cow::into_owned),
        changed: stored.changed.into_iter().map(Cow::into_owned).collect(),
    };
    Some(match operation {
        Operation::CreateCard => Output::Issued(card(stored)),
        Operation::UpdateCard => Output::Updated(card(stored)),
        Operation::CreateCardholder => Output::Created(Cardholder {
            id: stored.id.into_owned(),
            status: stored.status.map(Cow::into_owned),
            needs: stored.needs.map(Cow::into_owned),
        }),
    })
}

/// A step with a certain content, from the columns content, `job_id`, batch, `row_id`, state, `written_ms`.
pub(super) fn same_content_from(mut columns: impl Columns, ledger: &str) -> Result<SameContent, LedgerError> {
    let mut read =
        || -> Result<Option<SameContent>, String> {
            let content = columns.text()?.as_deref().and_then(Content::of_hex);
            let id = columns.text()?.and_then(|id| JobId::new(id).ok());
            let batch = columns.text()?.and_then(|batch| Batch::new(batch).ok());
            let row_id = columns.text()?;
            let kind = columns.text()?.as_deref().and_then(Kind::of_word);
            let written = Time::from_unix_ms(columns.number()?.unwrap_or(0));
            Ok((|| {
                Some(SameContent { content: content?, id: id?, batch: batch?, row_id, kind: kind?, written })
            })())
        };
    let read = read().map_err(|reason| database(ledger, reason))?;
    read.ok_or_else(|| database(ledger, "a row that embosser cannot have written".into()))
}

/// A batch's line of counts, from the columns of the databases' `COUNTS` statements.
pub(super) fn counts_from(mut columns: impl Columns) -> Result<BatchCounts, String> {
    let whole = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Ok(BatchCounts {
        scope: columns.text()?.unwrap_or_default(),
        batch: columns.text()?.unwrap_or_default(),
        rows: whole(columns.number()?),
        issued: whole(columns.number()?).unwrap_or(0),
        refused: whole(columns.number()?).unwrap_or(0),
        cancelled: whole(columns.number()?).unwrap_or(0),
        unresolved: whole(columns.number()?).unwrap_or(0),
        awaiting_pin: whole(columns.number()?).unwrap_or(0),
        noted: whole(columns.number()?).unwrap_or(0),
        latest: columns.number()?.map(Time::from_unix_ms),
        is_manifests: columns.text()?.is_some(),
        began: columns.number()?.map(Time::from_unix_ms),
    })
}

/// What names of the metadata begin with that are a scope's, as they are and as they are to be: the jobs that wait for a PIN,
/// their links, the events and the looks at Stripe that are owed to them, batches that wait, where cards are on
/// their way, which batches come through a queue, and the latest change of each card.
pub(super) fn renamed_names(from: &Scope, to: &Scope) -> impl Iterator<Item = (String, String)> {
    let kinds = [
        ("awaiting_pin", "|"),
        ("pin_link", "|"),
        ("pin_event", "|"),
        ("reconciled", "|"),
        ("held", "|"),
        ("shipping", "|"),
        ("batch_run", "|"),
        ("queued", "|"),
        ("change", ":ic_"),
    ];
    let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
    kinds.into_iter().map(move |(kind, end)| (format!("{kind}:{from}{end}"), format!("{kind}:{to}{end}")))
}

/// A failure in the database's own words.
pub(super) fn database(ledger: &str, reason: String) -> LedgerError {
    LedgerError::Database { ledger: ledger.into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::job::{Batch, Job};
    use crate::ledger::State;
    use crate::operation::Request;

    #[test]
    fn a_row_is_ones_own_only_where_the_answer_to_its_commit_was_lost() {
        let pairs =
            [("type", "virtual"), ("currency", "eur")].map(|(name, value)| (name.into(), value.into()));
        let request = Request::from_pairs(Operation::CreateCard, pairs.into()).unwrap();
        let job = Job::new(JobId::new("b/1").unwrap(), Batch::new("b").unwrap(), None, request, None);
        let wanted = Row::of(&Scope::new("test", "model", None), &job, State::Begun, Time::from_unix_ms(1));
        let other = Row { attempts: 7, ..wanted.clone() };
        let of_found = |found: Option<&Row>, commit| Written::of_found(&wanted, found.cloned(), commit);
        assert!(matches!(of_found(Some(&wanted), Commit::Again), Written::Done));
        assert!(
            matches!(of_found(Some(&wanted), Commit::First), Written::Changed(Some(found)) if *found == wanted)
        );
        for commit in [Commit::First, Commit::Again] {
            assert!(
                matches!(of_found(Some(&other), commit), Written::Changed(Some(found)) if *found == other)
            );
            assert!(matches!(of_found(None, commit), Written::Changed(None)));
        }
    }
}
