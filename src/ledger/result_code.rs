//! What SQLite's errors mean, by their result codes.

use rusqlite::ffi;

use super::{LedgerError, standing, store};

/// SQLite's primary result code (sqlite.org/rescode.html); extended codes keep it in their low byte.
fn primary_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code & 0xff)
}

pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(primary_code(error), Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED))
}

/// Says in the operator's terms what an error means.
pub(super) fn meaning(ledger: &str, error: &rusqlite::Error) -> LedgerError {
    // Only a trigger raises a sentence of this kind.
    if let rusqlite::Error::SqliteFailure(_, Some(message)) = error
        && let Some(elsewhere) = standing::told_by(message, ledger)
    {
        return elsewhere;
    }
    match primary_code(error) {
        _ if is_busy(error) => LedgerError::Locked(ledger.into()),
        Some(ffi::SQLITE_READONLY) => LedgerError::ReadOnly(ledger.into()),
        Some(ffi::SQLITE_FULL) => LedgerError::Full(ledger.into()),
        _ => store::database(ledger, error.to_string()),
    }
}
