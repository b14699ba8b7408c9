//! `embosser results`: a batch's results, as the ledger knows them. It reads; it never makes a ledger.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use rust_xlsxwriter::XlsxError;
use serde::Serialize;

use super::Exit;
use super::status::{Unwritten, exit, open};
use crate::config::Config;
use crate::job::Batch;
use crate::ledger::{BatchCounts, Ledger, Only, Row, Scope};
use crate::outcome::Outcome;
use crate::results::{self, Line, ResultsWorkbook};
use crate::shipping::Shipping;

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
    /// In which form to write.
    #[arg(long, value_enum, default_value = "csv")]
    pub format: ResultsFormat,
    /// Where to [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// In which form `results` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ResultsFormat {
    /// The lines of the results file.
    Csv,
    /// The same as an array of objects, each cell as it is.
    Json,
    /// A spreadsheet, with a sheet that sums it up.
    Xlsx,
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
    cardholder_id: Option<&'a str>,
    changed: &'a [String],
    pin_link: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipping_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta: Option<String>,
}

impl<'a> RowResult<'a> {
    fn of(line: &Line<'a>) -> Self {
        let outcome = &line.ended.outcome;
        let (card, cardholder_id, refusal) = match outcome {
            Outcome::Done(output) => (output.card(), output.cardholder(), None),
            Outcome::AwaitingPin(_) => (None, None, None),
            Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => (None, None, Some(refusal)),
        };
        let pin_link = match outcome {
            Outcome::AwaitingPin(Some(link)) => Some(link.expose()),
            _ => None,
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
            cardholder_id,
            changed: card.map(|card| card.changed.as_slice()).unwrap_or_default(),
            pin_link,
            shipping_status: line.shipping.and_then(|shipping| shipping.status.as_deref()),
            tracking_number: line.shipping.and_then(|shipping| shipping.tracking_number.as_deref()),
            tracking_url: line.shipping.and_then(|shipping| shipping.tracking_url.as_deref()),
            eta: line.shipping.and_then(Shipping::eta_in_utc),
        }
    }
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
    let to: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(File::create(path).map_err(|error| format!("{}: {error}", path.display()))?),
        None if args.format == ResultsFormat::Xlsx && io::stdout().is_terminal() => {
            return Err("a spreadsheet is not for a terminal: pass --output FILE".into());
        }
        None => Box::new(io::stdout().lock()),
    };
    let mut out = BufWriter::new(to);
    let written = match args.format {
        ResultsFormat::Xlsx => {
            let counts =
                counts.iter().find(|counts| counts.batch == args.batch && counts.scope == scope.as_str());
            write_workbook(&ledger, &scope, &batch, counts, &mut out).await
        }
        format => write_rows(&ledger, &scope, &batch, format, &mut out).await,
    };
    let written = written.and_then(|()| out.flush().map_err(Unwritten::Output));
    ledger.close().await;
    exit(written)
}

async fn write_workbook(
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    counts: Option<&BatchCounts>,
    out: &mut impl Write,
) -> Result<(), Unwritten> {
    let to_error = |error: XlsxError| Unwritten::Ledger(error.to_string());
    let mut workbook = ResultsWorkbook::begin().map_err(to_error)?;
    let mut pages = ledger.pages(scope, batch, Only::default());
    while let Some(page) = pages.next().await.map_err(|error| Unwritten::Ledger(error.to_string()))? {
        let shipping = shipping_of(ledger, scope, &page).await?;
        for row in &page {
            let ended = row.ended();
            workbook.add(&Line::of_row(row, &ended).with_shipping(&shipping)).map_err(to_error)?;
        }
    }
    let bytes = workbook.finish(batch.as_str(), scope.as_str(), counts).map_err(to_error)?;
    Ok(out.write_all(&bytes)?)
}

async fn shipping_of(
    ledger: &Ledger,
    scope: &Scope,
    rows: &[Row],
) -> Result<HashMap<String, Shipping>, Unwritten> {
    let shipping = ledger.shipping_of_rows(scope, rows).await;
    shipping.map_err(|error| Unwritten::Ledger(error.to_string()))
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
    if format == ResultsFormat::Json {
        out.write_all(b"[")?;
    } else {
        out.write_all(&results::record(&results::COLUMNS)?)?;
    }
    let (mut pages, mut separator) = (ledger.pages(scope, batch, Only::default()), "\n  ");
    while let Some(page) = pages.next().await.map_err(|error| Unwritten::Ledger(error.to_string()))? {
        let shipping = shipping_of(ledger, scope, &page).await?;
        for row in &page {
            let ended = row.ended();
            let line = Line::of_row(row, &ended).with_shipping(&shipping);
            if format == ResultsFormat::Json {
                out.write_all(separator.as_bytes())?;
                serde_json::to_writer(&mut *out, &RowResult::of(&line)).map_err(io::Error::from)?;
                separator = ",\n  ";
            } else {
                out.write_all(&results::record(&line.cells())?)?;
            }
        }
    }
    if format == ResultsFormat::Json {
        out.write_all(b"\n]\n")?;
    }
    Ok(())
}
