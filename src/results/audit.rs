//! The audit log as CSV, of the same form wherever it is written.

use std::borrow::Cow;

use super::{BYTE_ORDER_MARK, heading, line_into, neutral};
use crate::ledger::AuditEntry;

/// The columns, in order.
const AUDIT_COLUMNS: [&str; 11] =
    ["id", "time", "who", "role", "action", "batch", "job", "rows", "digest", "detail", "scope"];

/// Those of them that hold numbers.
const NUMBERS: [&str; 2] = ["id", "rows"];

/// What the log begins with as CSV: the mark that tells Excel how it is written, and the columns' names.
#[must_use]
pub fn audit_head() -> Vec<u8> {
    [BYTE_ORDER_MARK.as_bytes(), &heading(&AUDIT_COLUMNS)].concat()
}

/// An entry as a line of CSV.
#[must_use]
pub fn audit_line(entry: &AuditEntry) -> Vec<u8> {
    let mut bytes = Vec::new();
    line_into(&mut bytes, (&AUDIT_COLUMNS, &NUMBERS), &audit_cells(entry));
    bytes
}

/// An entry's cells, none of which a spreadsheet would run.
fn audit_cells(entry: &AuditEntry) -> [Cow<'_, str>; AUDIT_COLUMNS.len()] {
    let text = |text: &'_ Option<String>| -> String { text.clone().unwrap_or_default() };
    let cells: [Cow<'_, str>; AUDIT_COLUMNS.len()] = [
        entry.id.to_string().into(),
        entry.time.in_utc().into(),
        entry.who.as_str().into(),
        text(&entry.role).into(),
        entry.action.as_str().into(),
        text(&entry.batch).into(),
        text(&entry.job).into(),
        entry.rows.map(|rows| rows.to_string()).unwrap_or_default().into(),
        text(&entry.digest).into(),
        text(&entry.detail).into(),
        entry.scope.as_str().into(),
    ];
    cells.map(neutral)
}
