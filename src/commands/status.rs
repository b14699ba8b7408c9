//! `embosser status`: what the ledger knows of each batch. It reads; it never makes a ledger.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::Exit;
use super::output::{Unwritten, exit};
use crate::config::Config;
use crate::config::place::{PlaceError, existing_ledger_url};
use crate::ledger::{BatchCounts, Ledger, LedgerError};

/// Options of `embosser status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Only this batch.
    pub batch: Option<String>,
    /// The ledger to read: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// In which form to print.
    #[arg(long, value_enum, default_value = "text")]
    pub format: StatusFormat,
    /// That there is no ledger yet is no error.
    #[arg(long)]
    pub if_any: bool,
}

/// In which form `status` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StatusFormat {
    /// For people.
    Text,
    /// For programs: an array of batches.
    Json,
}

/// A batch, for programs.
#[derive(Serialize)]
struct BatchStatus<'a> {
    batch: &'a str,
    scope: &'a str,
    rows: Option<u64>,
    issued: u64,
    refused: u64,
    /// Those of them that somebody cancelled before they had begun.
    cancelled_rows: u64,
    unresolved: u64,
    awaiting_pin: u64,
}

/// Every batch with its counts.
///
/// # Errors
/// If there is no ledger, or it cannot be read.
pub async fn status(args: &StatusArgs, config: &Config) -> Result<Exit, String> {
    let ledger = match open(args.ledger.as_ref(), config).await {
        Err(NotOpened::Place(PlaceError::Missing(place))) if args.if_any => {
            eprintln!("there is no ledger at {place} yet");
            return Ok(Exit::Success);
        }
        opened => opened?,
    };
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    ledger.close().await;
    let wanted =
        counts.iter().filter(|counts| args.batch.as_ref().is_none_or(|batch| *batch == counts.batch));
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match args.format {
        StatusFormat::Text => write_text(wanted, &mut out),
        StatusFormat::Json => write_json(wanted, &mut out),
    };
    exit(written.and_then(|()| out.flush()).map_err(Unwritten::Output))
}

fn write_text<'a>(counts: impl Iterator<Item = &'a BatchCounts>, out: &mut impl Write) -> io::Result<()> {
    for counts in counts {
        let rows = counts.rows_at_least().map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        let awaiting = match counts.awaiting_pin {
            0 => String::new(),
            awaiting => format!(", {awaiting} waiting for a PIN"),
        };
        let cancelled = match counts.cancelled {
            0 => String::new(),
            cancelled => format!(" ({cancelled} of them cancelled)"),
        };
        writeln!(
            out,
            "{} ({}): {rows} rows, {} issued, {} refused{cancelled}, {} unresolved{awaiting}",
            counts.batch, counts.scope, counts.issued, counts.refused, counts.unresolved
        )?;
    }
    Ok(())
}

fn write_json<'a>(counts: impl Iterator<Item = &'a BatchCounts>, out: &mut impl Write) -> io::Result<()> {
    let batches: Vec<_> = counts
        .map(|counts| BatchStatus {
            batch: &counts.batch,
            scope: &counts.scope,
            rows: counts.rows_at_least(),
            issued: counts.issued,
            refused: counts.refused,
            cancelled_rows: counts.cancelled,
            unresolved: counts.unresolved,
            awaiting_pin: counts.awaiting_pin,
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &batches)?;
    writeln!(out)
}

/// Why there is no open ledger.
pub(super) enum NotOpened {
    Place(PlaceError),
    Ledger(String),
}

impl From<NotOpened> for String {
    fn from(error: NotOpened) -> Self {
        match error {
            NotOpened::Place(error) => error.to_string(),
            NotOpened::Ledger(reason) => reason,
        }
    }
}

pub(super) async fn open(named: Option<&String>, config: &Config) -> Result<Ledger, NotOpened> {
    let url = existing_ledger_url(named.unwrap_or(&config.ledger.url)).map_err(NotOpened::Place)?;
    match Ledger::open_existing(&url).await {
        Ok(ledger) => Ok(ledger),
        Err(LedgerError::Missing(ledger)) => Err(NotOpened::Place(PlaceError::Missing(ledger))),
        Err(error) => Err(NotOpened::Ledger(error.to_string())),
    }
}
