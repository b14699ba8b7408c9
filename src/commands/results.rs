//! `embosser results`: a batch's results, as the ledger knows them. It reads; it never makes a ledger.

use std::collections::HashMap;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use rust_xlsxwriter::XlsxError;
use serde::Serialize;

use super::Exit;
use super::issue::earlier::look_up;
use super::issue::persons_of;
use super::manifest::ReadingArgs;
use super::output::{Unwritten, exit, file};
use super::status::open;
use crate::config::Config;
use crate::files::Draft;
use crate::job::{Batch, JobId};
use crate::ledger::{BatchCounts, Ledger, LedgerError, Only, Pages, Row, Scope};
use crate::manifest::CheckOptions;
use crate::manifest::batch::{Jobs, SecondCards};
use crate::manifest::cancelled::cancelled;
use crate::manifest::checked::CheckedManifest;
use crate::manifest::persons::Persons;
use crate::outcome::{Ended, Outcome};
use crate::remedy::TryAgain;
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
    /// The manifest of the batch: with --person, the results say whose each row is, which the ledger does not know.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// How that is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
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
    person: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipping_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled_by: Option<&'a str>,
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
            person: line.person,
            shipping_status: line.shipping.and_then(|shipping| shipping.status.as_deref()),
            tracking_number: line.shipping.and_then(|shipping| shipping.tracking_number.as_deref()),
            tracking_url: line.shipping.and_then(|shipping| shipping.tracking_url.as_deref()),
            eta: line.shipping.and_then(Shipping::eta_in_utc),
            cancelled_by: line.cancelled_by,
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
    let persons = persons(args, &ledger, &scope, &batch).await?;
    let of_batch = OfBatch { ledger: &ledger, scope: &scope, batch: &batch, persons };
    let counts = counts.iter().find(|counts| counts.batch == args.batch && counts.scope == scope.as_str());
    let written = match file(args.output.as_ref()) {
        Some(path) => {
            let to_error = |error: io::Error| format!("{}: {error}", path.display());
            let mut out = BufWriter::new(Draft::begin(path).map_err(to_error)?);
            match write(&of_batch, args.format, counts, &mut out).await {
                Ok(()) => {
                    let draft = out.into_inner().map_err(|error| to_error(error.into_error()))?;
                    draft.put().map_err(Unwritten::Output)
                }
                Err(unwritten) => Err(unwritten),
            }
        }
        None if args.format == ResultsFormat::Xlsx && io::stdout().is_terminal() => {
            return Err("a spreadsheet is not for a terminal: pass --output FILE".into());
        }
        None => write(&of_batch, args.format, counts, &mut BufWriter::new(io::stdout().lock())).await,
    };
    ledger.close().await;
    exit(written)
}

async fn write(
    of_batch: &OfBatch<'_>,
    format: ResultsFormat,
    counts: Option<&BatchCounts>,
    out: &mut impl Write,
) -> Result<(), Unwritten> {
    match format {
        ResultsFormat::Xlsx => write_workbook(of_batch, counts, out).await?,
        format => write_rows(of_batch, format, out).await?,
    }
    Ok(out.flush()?)
}

/// What is written.
struct OfBatch<'b> {
    ledger: &'b Ledger,
    scope: &'b Scope,
    batch: &'b Batch,
    persons: Persons,
}

impl OfBatch<'_> {
    fn pages(&self) -> Pages<'_> {
        self.ledger.pages(self.scope, self.batch, Only::default())
    }

    fn line<'l>(&'l self, row: &'l Row, ended: &'l Ended) -> Line<'l> {
        Line { person: self.persons.of_job(row.id.as_str()), ..Line::of_row(row, ended) }
    }
}

/// Whose the rows are, as the manifest says.
async fn persons(
    args: &ResultsArgs,
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
) -> Result<Persons, String> {
    let Some(path) = &args.manifest else {
        return match args.reading.person.first() {
            Some(_) => {
                Err("--person needs the file in which the names stand: pass --manifest FILE, too".into())
            }
            None => Ok(Persons::default()),
        };
    };
    let manifest = super::manifest::open(path, args.reading.reading()).await?;
    if !manifest.names_persons() {
        return Err(
            "--manifest is for the names of persons: pass --person HEADING, or a columns file that has it"
                .into(),
        );
    }
    let checking = manifest.clone();
    let check = move || checking.check(&CheckOptions::default(), &|_| {});
    let report = tokio::task::spawn_blocking(check).await.map_err(|error| error.to_string())?;
    let manifest = CheckedManifest::new(manifest, &report.map_err(|error| error.to_string())?);
    let recognition = look_up(ledger, scope, batch, (SecondCards::Refused, TryAgain::All), &manifest).await?;
    persons_of(&manifest, Jobs::new(batch.clone(), recognition)).await
}

async fn write_workbook(
    of_batch: &OfBatch<'_>,
    counts: Option<&BatchCounts>,
    out: &mut impl Write,
) -> Result<(), Unwritten> {
    let to_error = |error: XlsxError| Unwritten::Source(error.to_string());
    let mut workbook = ResultsWorkbook::begin().map_err(to_error)?;
    let mut pages = of_batch.pages();
    while let Some(page) = pages.next().await.map_err(|error| Unwritten::Source(error.to_string()))? {
        let since = Since::of(of_batch, &page).await?;
        for row in &page {
            let ended = row.ended();
            workbook.add(&since.on(of_batch.line(row, &ended))).map_err(to_error)?;
        }
    }
    let (batch, scope) = (of_batch.batch.as_str(), of_batch.scope.as_str());
    let bytes = workbook.finish(batch, scope, counts).map_err(to_error)?;
    Ok(out.write_all(&bytes)?)
}

/// What became of cards since their rows ended.
struct Since {
    shipping: HashMap<String, Shipping>,
    cancelled: HashMap<String, JobId>,
}

impl Since {
    async fn of(of_batch: &OfBatch<'_>, rows: &[Row]) -> Result<Self, Unwritten> {
        let OfBatch { ledger, scope, .. } = of_batch;
        let to_error = |error: LedgerError| Unwritten::Source(error.to_string());
        let shipping = ledger.shipping_of_rows(scope, rows).await.map_err(to_error)?;
        let cancelled = cancelled(ledger, scope, rows).await.map_err(to_error)?;
        Ok(Self { shipping, cancelled })
    }

    fn on<'l>(&'l self, line: Line<'l>) -> Line<'l> {
        line.with_shipping(&self.shipping).with_cancelled(&self.cancelled)
    }
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
    of_batch: &OfBatch<'_>,
    format: ResultsFormat,
    out: &mut impl Write,
) -> Result<(), Unwritten> {
    if format == ResultsFormat::Json {
        out.write_all(b"[")?;
    } else {
        out.write_all(&results::head())?;
    }
    let (mut pages, mut separator) = (of_batch.pages(), "\n  ");
    while let Some(page) = pages.next().await.map_err(|error| Unwritten::Source(error.to_string()))? {
        let since = Since::of(of_batch, &page).await?;
        for row in &page {
            let ended = row.ended();
            let line = since.on(of_batch.line(row, &ended));
            if format == ResultsFormat::Json {
                out.write_all(separator.as_bytes())?;
                serde_json::to_writer(&mut *out, &RowResult::of(&line)).map_err(io::Error::from)?;
                separator = ",\n  ";
            } else {
                out.write_all(&line.csv())?;
            }
        }
    }
    if format == ResultsFormat::Json {
        out.write_all(b"\n]\n")?;
    }
    Ok(())
}
