//! A ledger as JSON Lines: all of its rows, in an order and a form that are the same whichever database it is in.
//!
//! The first line says what it is: `{"embosser_ledger": {"format": 1, "version": 3, "from": "…", "at": "…"}}`. Then comes a line for each
//! row, `{"table": "steps", "row": {"scope": "…", …}}`, with the columns of the schema in their order; the tables are in the order
//! `steps`, `batches`, `audit`, `metadata`, and their rows in the order of their keys' bytes. The last line, without which an export is
//! not whole, has the number of rows of each table and SHA-256 of its lines: `{"end": {"steps": {"rows": 3, "sha256": "…"}, …}}`.
//!
//! Never: a PIN or its ciphertext, a key, a link's or a token's text: the ledger has none of them. What it says of people is in it.

use std::io::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::LedgerError;
use super::schema::VERSION;
use super::tables::{TABLES, Table, Value};
use super::whole::{Access, Whole};
use crate::clock::Time;
use crate::content::hex;

/// Of the lines.
pub(super) const FORMAT: u32 = 1;

/// Why a ledger was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// It could not be written.
    #[error("the export cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Of each table, its name and its rows.
    pub tables: Vec<(&'static str, u64)>,
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) embosser_ledger: About,
}

/// What an export is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) format: u32,
    /// Of the ledger's schema.
    pub(super) version: i64,
    /// Of which ledger, and when: in UTC.
    pub(super) from: String,
    pub(super) at: String,
}

/// The last line's words of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    pub(super) rows: u64,
    pub(super) sha256: String,
}

/// A row's line, with its end.
pub(super) fn line(table: &Table, row: &[Value]) -> String {
    let mut line = format!("{{\"table\":\"{}\",\"row\":{{", table.name);
    for (at, ((name, _), value)) in table.columns.iter().zip(row).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        line.extend([comma, "\"", name, "\":", &value.json()]);
    }
    line.push_str("}}\n");
    line
}

/// Writes the ledger at this address, as it is at one moment, whatever its standing.
///
/// # Errors
/// If it cannot be read, or not be written to `out`.
pub async fn export(url: &str, now: Time, out: &mut impl Write) -> Result<Exported, ExportError> {
    let mut ledger = Whole::open(url, Access::Reading).await?;
    let exported = write(&mut ledger, now, out).await;
    ledger.close().await;
    exported
}

async fn write(ledger: &mut Whole, now: Time, out: &mut impl Write) -> Result<Exported, ExportError> {
    let about = About { format: FORMAT, version: VERSION, from: ledger.name().to_owned(), at: now.in_utc() };
    json_line(out, &Head { embosser_ledger: about })?;
    let (mut sums, mut tables) = (serde_json::Map::new(), Vec::new());
    ledger.begin_view().await?;
    for table in &TABLES {
        let (mut hash, mut total) = (Sha256::new(), 0);
        let mut rows = ledger.rows(table, None).await?;
        loop {
            let piece = rows.next().await?;
            if piece.is_empty() {
                break;
            }
            total += piece.len() as u64;
            for row in &piece {
                let line = line(table, row);
                hash.update(&line);
                out.write_all(line.as_bytes())?;
            }
        }
        let sum = Sum { rows: total, sha256: hex(&hash.finalize()) };
        sums.insert(table.name.to_owned(), serde_json::to_value(sum).unwrap_or_default());
        tables.push((table.name, total));
    }
    ledger.end_view().await?;
    json_line(out, &serde_json::json!({ "end": sums }))?;
    out.flush()?;
    Ok(Exported { tables })
}

fn json_line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
