//! `embosser status` and `embosser results`: what the ledger knows. They read; they never make a ledger.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::Exit;
use crate::config::Config;
use crate::config::place::{PlaceError, existing_ledger_url};
use crate::job::Batch;
use crate::ledger::{BatchCounts, Ledger, LedgerError, Only, Scope};
use crate::outcome::Outcome;
use crate::results::{self, Line};

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

/// Options of `embosser results`.
#[derive(Debug, clap::Args)]
pub struct ResultsArgs {
    /// The batch.
    pub batch: String,
    /// The ledger to read: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Whose cards, where several have a batch of this name: a scope as `status` names it, or its beginning.
    #[arg(long)]
    pub scope: Option<String>,
    /// In which form to print.
    #[arg(long, value_enum, default_value = "csv")]
    pub format: ResultsFormat,
}

/// In which form `results` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ResultsFormat {
    /// The lines of the results file.
    Csv,
    /// The same as an array of objects.
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
    unresolved: u64,
    awaiting_pin: u64,
}

/// A row, for programs: the results file's columns.
#[derive(Serialize)]
struct RowResult<'a> {
    row: u64,
    row_id: Option<&'a str>,
    job_id: &'a str,
    outcome: &'a str,
    card_id: Option<&'a str>,
    last4: Option<&'a str>,
    expiry: Option<String>,
    attempts: u32,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    request_id: Option<&'a str>,
    note: Option<&'a str>,
    scope: &'a str,
}

impl<'a> RowResult<'a> {
    fn of(line: &Line<'a>) -> Self {
        let (card, refusal) = match &line.ended.outcome {
            Outcome::Done(output) => (output.card(), None),
            Outcome::AwaitingPin(_) => (None, None),
            Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => (None, Some(refusal)),
        };
        Self {
            row: line.row,
            row_id: line.row_id,
            job_id: line.job_id,
            outcome: line.ended.outcome.word(),
            card_id: card.map(|card| card.id.as_str()),
            last4: card.map(|card| card.last4.as_str()),
            expiry: card.map(|card| format!("{:02}/{}", card.exp_month, card.exp_year)),
            attempts: line.ended.attempts,
            error_code: refusal.map(|refusal| &*refusal.code),
            error_message: refusal.map(|refusal| refusal.message.as_str()),
            request_id: line.ended.request_id.as_deref(),
            note: line.ended.note.as_deref(),
            scope: line.scope,
        }
    }
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
        let rows = counts.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        let awaiting = match counts.awaiting_pin {
            0 => String::new(),
            awaiting => format!(", {awaiting} waiting for a PIN"),
        };
        writeln!(
            out,
            "{} ({}): {rows} rows, {} issued, {} refused, {} unresolved{awaiting}",
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
            rows: counts.rows,
            issued: counts.issued,
            refused: counts.refused,
            unresolved: counts.unresolved,
            awaiting_pin: counts.awaiting_pin,
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &batches)?;
    writeln!(out)
}

/// A batch's results.
///
/// # Errors
/// If there is no ledger, it cannot be read, or has no such batch, or several.
pub async fn results(args: &ResultsArgs, config: &Config) -> Result<Exit, String> {
    let batch = Batch::new(args.batch.clone()).map_err(|error| format!("the batch's name {error}"))?;
    let ledger = open(args.ledger.as_ref(), config).await?;
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    let scope = scope_of(args, &counts)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = write_rows(&ledger, &scope, &batch, args.format, &mut out).await;
    let written = written.and_then(|()| out.flush().map_err(Unwritten::Output));
    ledger.close().await;
    exit(written)
}

/// Whose batch it is: several scopes' rows are never mixed, since a rehearsal's cards are not real.
fn scope_of(args: &ResultsArgs, counts: &[BatchCounts]) -> Result<Scope, String> {
    let of_batch: Vec<&str> = counts
        .iter()
        .filter(|counts| counts.batch == args.batch)
        .map(|counts| counts.scope.as_str())
        .collect();
    if of_batch.is_empty() {
        return Err(format!("the ledger has no batch {:?}", args.batch));
    }
    let wanted = args.scope.as_deref().unwrap_or("");
    let matches: Vec<&str> = of_batch.iter().copied().filter(|scope| scope.starts_with(wanted)).collect();
    let exact = matches.iter().find(|scope| **scope == wanted);
    match (exact, matches.as_slice()) {
        (Some(scope), _) | (None, [scope]) => Ok(Scope::of_ledger(scope)),
        (None, []) => Err(format!(
            "batch {:?} has no scope that begins with {wanted:?}; it has {}",
            args.batch,
            of_batch.join(", ")
        )),
        (None, several) => Err(format!(
            "batch {:?} is in several scopes: {}; say which one with --scope (its beginning will do)",
            args.batch,
            several.join(", ")
        )),
    }
}

async fn write_rows(
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    format: ResultsFormat,
    out: &mut impl Write,
) -> Result<(), Unwritten> {
    match format {
        ResultsFormat::Csv => out.write_all(&results::record(&results::COLUMNS)?)?,
        ResultsFormat::Json => out.write_all(b"[")?,
    }
    let (mut pages, mut separator) = (ledger.pages(scope, batch, Only::default()), "\n  ");
    while let Some(page) = pages.next().await.map_err(|error| Unwritten::Ledger(error.to_string()))? {
        for row in &page {
            let ended = row.ended();
            let line = Line::of_row(row, &ended);
            match format {
                ResultsFormat::Csv => out.write_all(&results::record(&line.cells())?)?,
                ResultsFormat::Json => {
                    out.write_all(separator.as_bytes())?;
                    serde_json::to_writer(&mut *out, &RowResult::of(&line)).map_err(io::Error::from)?;
                    separator = ",\n  ";
                }
            }
        }
    }
    match format {
        ResultsFormat::Csv => {}
        ResultsFormat::Json => out.write_all(b"\n]\n")?,
    }
    Ok(())
}

/// Why something was not written to its end.
enum Unwritten {
    Ledger(String),
    Output(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn exit(written: Result<(), Unwritten>) -> Result<Exit, String> {
    match written {
        Ok(()) => Ok(Exit::Success),
        // Whoever reads has read enough, as `head` does.
        Err(Unwritten::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        Err(Unwritten::Output(error)) => Err(error.to_string()),
        Err(Unwritten::Ledger(reason)) => Err(reason),
    }
}

/// Why there is no open ledger.
enum NotOpened {
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

async fn open(named: Option<&String>, config: &Config) -> Result<Ledger, NotOpened> {
    let url = existing_ledger_url(named.unwrap_or(&config.ledger.url)).map_err(NotOpened::Place)?;
    match Ledger::open_existing(&url).await {
        Ok(ledger) => Ok(ledger),
        Err(LedgerError::Missing(ledger)) => Err(NotOpened::Place(PlaceError::Missing(ledger))),
        Err(error) => Err(NotOpened::Ledger(error.to_string())),
    }
}
