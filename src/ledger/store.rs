//! What both databases have in common: one table's columns, a row's values in them, and back.

use serde::Serialize;

use super::{BatchCounts, LedgerError, Row, Scope, State, WrittenCounts};
use crate::clock::Time;
use crate::job::{Batch, Fingerprint, Generation, JobId};
use crate::outcome::{Card, Refusal};

/// The newest schema this embosser knows. Version n is made from n-1 by the n-th step of each database's file.
pub(super) const VERSION: i64 = 1;

/// The columns that [`row_from`] reads, in a SELECT over `jobs`.
pub(super) const COLUMNS: &str = "jobs.scope, jobs.job_id, jobs.batch, jobs.row_number, jobs.row_id, \
    jobs.fingerprint, jobs.state, jobs.generation, jobs.key_began_ms, jobs.attempted_ms, jobs.attempts, \
    jobs.card_id, jobs.last4, jobs.exp_month, jobs.exp_year, jobs.error_code, jobs.error_message, \
    jobs.request_id, jobs.written_ms";

/// One row's values, borrowed; names are the columns'.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    pub(super) scope: &'a str,
    pub(super) job_id: &'a str,
    pub(super) batch: &'a str,
    pub(super) row_number: i64,
    pub(super) row_id: Option<&'a str>,
    pub(super) fingerprint: String,
    pub(super) state: &'a str,
    pub(super) generation: i64,
    pub(super) key_began_ms: Option<i64>,
    pub(super) attempted_ms: Option<i64>,
    pub(super) attempts: i64,
    pub(super) card_id: Option<&'a str>,
    pub(super) last4: Option<&'a str>,
    pub(super) exp_month: Option<i64>,
    pub(super) exp_year: Option<i64>,
    pub(super) error_code: Option<&'a str>,
    pub(super) error_message: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) written_ms: i64,
}

/// A row's values as both databases store them.
pub(super) fn document(row: &Row) -> Document<'_> {
    let (state, card, refusal) = match &row.state {
        State::Begun => ("begun", None, None),
        State::Issued(card) => ("issued", Some(card), None),
        State::Refused(refusal) => ("refused", None, Some(refusal)),
    };
    Document {
        scope: row.scope.as_str(),
        job_id: row.id.as_str(),
        batch: row.batch.as_str(),
        row_number: row.row.and_then(|number| i64::try_from(number).ok()).unwrap_or(0),
        row_id: row.row_id.as_deref(),
        fingerprint: row.fingerprint.to_hex(),
        state,
        generation: i64::from(row.generation.0),
        key_began_ms: row.key_began.map(Time::unix_ms),
        attempted_ms: row.attempted.map(Time::unix_ms),
        attempts: i64::from(row.attempts),
        card_id: card.map(|card| card.id.as_str()),
        last4: card.map(|card| card.last4.as_str()),
        exp_month: card.map(|card| i64::from(card.exp_month)),
        exp_year: card.map(|card| i64::from(card.exp_year)),
        error_code: refusal.map(|refusal| refusal.code.as_ref()),
        error_message: refusal.map(|refusal| refusal.message.as_str()),
        request_id: row.request_id.as_deref(),
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
    let batch = columns.text()?.unwrap_or_default();
    let row = columns.number()?.and_then(|row| u64::try_from(row).ok()).filter(|row| *row > 0);
    let row_id = columns.text()?;
    let fingerprint = fingerprint_from(&columns.text()?.unwrap_or_default());
    let state = columns.text()?;
    let generation = small(columns.number()?).map(Generation);
    let key_began = columns.number()?.map(Time::from_unix_ms);
    let attempted = columns.number()?.map(Time::from_unix_ms);
    let attempts = small(columns.number()?).unwrap_or(0);
    let (card_id, last4) = (columns.text()?, columns.text()?);
    let (exp_month, exp_year) = (small(columns.number()?), small(columns.number()?));
    let (code, message) = (columns.text()?, columns.text()?);
    let request_id = columns.text()?;
    let written = Time::from_unix_ms(columns.number()?.unwrap_or(0));
    let state = match state.as_deref() {
        Some("begun") => State::Begun,
        Some("issued") => State::Issued(Card {
            id: card_id.ok_or_else(|| damaged("issued without a card"))?,
            last4: last4.unwrap_or_default(),
            exp_month: exp_month.unwrap_or(0),
            exp_year: exp_year.unwrap_or(0),
        }),
        Some("refused") => State::Refused(Refusal {
            code: code.unwrap_or_default().into(),
            message: message.unwrap_or_default(),
        }),
        _ => return Err(damaged("unknown state")),
    };
    Ok(Row {
        scope: Scope(scope.into()),
        id: JobId::new(job.clone()).map_err(|error| damaged(&format!("its id {error}")))?,
        batch: Batch::new(batch).map_err(|error| damaged(&format!("its batch {error}")))?,
        row,
        row_id,
        fingerprint: fingerprint.ok_or_else(|| damaged("its fingerprint is not 64 hexadecimal digits"))?,
        state,
        generation: generation.ok_or_else(|| damaged("its generation is not a number"))?,
        key_began,
        attempted,
        attempts,
        request_id,
        written,
    })
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
        unresolved: whole(columns.number()?).unwrap_or(0),
        latest: columns.number()?.map(Time::from_unix_ms),
    })
}

/// Adds one line of counts by state: the state, and how many rows.
pub(super) fn count_written(counts: &mut WrittenCounts, mut columns: impl Columns) -> Result<(), String> {
    let state = columns.text()?;
    let rows = columns.number()?.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
    match state.as_deref() {
        Some("issued") => counts.issued = rows,
        Some("refused") => counts.refused = rows,
        _ => counts.begun = rows,
    }
    Ok(())
}

/// A failure in the database's own words.
pub(super) fn database(ledger: &str, reason: String) -> LedgerError {
    LedgerError::Database { ledger: ledger.into(), reason }
}

fn fingerprint_from(text: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Fingerprint(bytes))
}

/// What a database failed at, in the operator's terms, and whether it may go well another time.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) meaning: LedgerError,
    pub(super) again: Again,
}

/// Whether what failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail again.
    No,
    /// On the same connection, after a moment.
    Later,
    /// On a new connection.
    Anew,
}
