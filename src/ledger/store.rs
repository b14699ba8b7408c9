//! What both databases have in common: one table's columns, the documents that carry many rows in one statement,
//! and the meaning of errors.
//!
//! To PostgreSQL rows travel as one JSON array per statement (`json_to_recordset`): a group of any size is one prepared
//! statement and one round trip.

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

/// The rows of one group as a statement's document.
pub(super) fn rows_document(rows: &[&Row]) -> String {
    let documents: Vec<Document<'_>> = rows.iter().map(|row| document(row)).collect();
    serde_json::to_string(&documents).expect("strings and integers always serialise")
}

/// The ids of one look-up as a statement's document.
pub(super) fn keys_document(keys: &[(&Scope, &JobId)]) -> String {
    let keys: Vec<[&str; 2]> = keys.iter().map(|(scope, id)| [scope.as_str(), id.as_str()]).collect();
    serde_json::to_string(&keys).expect("strings always serialise")
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

/// A database's row as ours. Generic over the database, since both answer with the same columns and types.
pub(super) fn row_from<'r, R>(raw: &'r R, ledger: &str) -> Result<Row, LedgerError>
where
    R: sqlx::Row,
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let failed =
        |error: sqlx::Error| LedgerError::Database { ledger: ledger.into(), reason: error.to_string() };
    let text = |column: &'static str| raw.try_get::<Option<String>, _>(column).map_err(failed);
    let number = |column: &'static str| raw.try_get::<Option<i64>, _>(column).map_err(failed);
    let job = text("job_id")?.unwrap_or_default();
    let damaged = |reason: &str| LedgerError::Damaged {
        ledger: ledger.into(),
        job: job.clone(),
        reason: reason.into(),
    };
    let state = match text("state")?.as_deref() {
        Some("begun") => State::Begun,
        Some("issued") => State::Issued(Card {
            id: text("card_id")?.ok_or_else(|| damaged("issued without a card"))?,
            last4: text("last4")?.unwrap_or_default(),
            exp_month: number("exp_month")?.and_then(|month| u32::try_from(month).ok()).unwrap_or(0),
            exp_year: number("exp_year")?.and_then(|year| u32::try_from(year).ok()).unwrap_or(0),
        }),
        Some("refused") => State::Refused(Refusal {
            code: text("error_code")?.unwrap_or_default().into(),
            message: text("error_message")?.unwrap_or_default(),
        }),
        _ => return Err(damaged("unknown state")),
    };
    Ok(Row {
        scope: Scope(text("scope")?.unwrap_or_default().into()),
        id: JobId::new(job.clone()).map_err(|error| damaged(&format!("its id {error}")))?,
        batch: Batch::new(text("batch")?.unwrap_or_default())
            .map_err(|error| damaged(&format!("its batch {error}")))?,
        row: number("row_number")?.and_then(|row| u64::try_from(row).ok()).filter(|row| *row > 0),
        row_id: text("row_id")?,
        fingerprint: fingerprint_from(&text("fingerprint")?.unwrap_or_default())
            .ok_or_else(|| damaged("its fingerprint is not 64 hexadecimal digits"))?,
        state,
        generation: number("generation")?
            .and_then(|generation| u32::try_from(generation).ok())
            .map(Generation)
            .ok_or_else(|| damaged("its generation is not a number"))?,
        key_began: number("key_began_ms")?.map(Time::from_unix_ms),
        attempted: number("attempted_ms")?.map(Time::from_unix_ms),
        attempts: number("attempts")?.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(0),
        request_id: text("request_id")?,
        written: Time::from_unix_ms(number("written_ms")?.unwrap_or(0)),
    })
}

/// A batch's line of counts; columns as the databases' `COUNTS` statements name them.
pub(super) fn counts_from<'r, R>(raw: &'r R) -> Result<BatchCounts, sqlx::Error>
where
    R: sqlx::Row,
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let count = |column: &'static str| {
        raw.try_get::<Option<i64>, _>(column).map(|count| count.and_then(|count| u64::try_from(count).ok()))
    };
    Ok(BatchCounts {
        scope: raw.try_get("scope")?,
        batch: raw.try_get("batch")?,
        rows: count("manifest_rows")?,
        issued: count("issued")?.unwrap_or(0),
        refused: count("refused")?.unwrap_or(0),
        unresolved: count("unresolved")?.unwrap_or(0),
        latest: raw.try_get::<Option<i64>, _>("latest_ms")?.map(Time::from_unix_ms),
    })
}

/// Counts by state, as the databases' statements name them.
pub(super) fn written_from<'r, R>(raw: &'r [R]) -> Result<WrittenCounts, sqlx::Error>
where
    R: sqlx::Row,
    &'static str: sqlx::ColumnIndex<R>,
    String: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
    i64: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let mut counts = WrittenCounts::default();
    for raw in raw {
        let rows = u64::try_from(raw.try_get::<i64, _>("rows")?).unwrap_or(0);
        match raw.try_get::<String, _>("state")?.as_str() {
            "issued" => counts.issued = rows,
            "refused" => counts.refused = rows,
            _ => counts.begun = rows,
        }
    }
    Ok(counts)
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

/// Says in the operator's terms what a database error means.
pub(super) fn meaning(ledger: &str, error: &sqlx::Error) -> LedgerError {
    /// SQLite's primary result codes (sqlite.org/rescode.html); extended codes keep them in their low byte.
    const BUSY: i64 = 5;
    const LOCKED: i64 = 6;
    const READONLY: i64 = 8;
    const FULL: i64 = 13;
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    if let Some(code) = &code {
        match code.as_str() {
            // PostgreSQL's SQLSTATEs.
            "25006" => return LedgerError::ReadOnly(ledger.into()),
            "53100" => return LedgerError::Full(ledger.into()),
            "55P03" => return LedgerError::Locked(ledger.into()),
            _ => {}
        }
        match code.parse::<i64>().map(|code| code & 0xff) {
            Ok(BUSY | LOCKED) if code.len() < 5 => return LedgerError::Locked(ledger.into()),
            Ok(READONLY) if code.len() < 5 => return LedgerError::ReadOnly(ledger.into()),
            Ok(FULL) if code.len() < 5 => return LedgerError::Full(ledger.into()),
            _ => {}
        }
    }
    LedgerError::Database { ledger: ledger.into(), reason: error.to_string() }
}
