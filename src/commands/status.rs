//! `embosser status` and `embosser results`: what the ledger knows.

use std::io::{self, Write as _};

use super::Exit;
use crate::config::Config;
use crate::job::Batch;
use crate::ledger::{Ledger, Scope};
use crate::results;

/// Rows read from the ledger at once: a bound on memory.
const PAGE_ROWS: u32 = 1000;

/// Options of `embosser status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Only this batch.
    pub batch: Option<String>,
}

/// Options of `embosser results`.
#[derive(Debug, clap::Args)]
pub struct ResultsArgs {
    /// The batch.
    pub batch: String,
}

/// Every batch with its counts.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn status(args: &StatusArgs, config: &Config) -> Result<Exit, String> {
    let ledger = Ledger::open(&config.ledger.url).await.map_err(|error| error.to_string())?;
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    ledger.close().await;
    let mut out = io::stdout().lock();
    let wanted =
        counts.iter().filter(|counts| args.batch.as_ref().is_none_or(|batch| *batch == counts.batch));
    for counts in wanted {
        let rows = counts.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        writeln!(
            out,
            "{} ({}): {rows} rows, {} issued, {} refused, {} unresolved",
            counts.batch, counts.scope, counts.issued, counts.refused, counts.unresolved
        )
        .map_err(|error| error.to_string())?;
    }
    Ok(Exit::Success)
}

/// A batch's results as CSV.
///
/// # Errors
/// If the ledger cannot be read or has no such batch.
pub async fn results(args: &ResultsArgs, config: &Config) -> Result<Exit, String> {
    let ledger = Ledger::open(&config.ledger.url).await.map_err(|error| error.to_string())?;
    let batch = Batch::new(args.batch.clone()).map_err(|error| format!("the batch's name {error}"))?;
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    let scopes: Vec<_> = counts.iter().filter(|counts| counts.batch == args.batch).collect();
    if scopes.is_empty() {
        return Err(format!("the ledger has no batch {:?}", args.batch));
    }
    let mut out = io::stdout().lock();
    let written = |error: io::Error| error.to_string();
    let header = results::record(&results::COLUMNS).map_err(written)?;
    out.write_all(&header).map_err(written)?;
    for counts in scopes {
        let scope = Scope::of_ledger(&counts.scope);
        let mut after = None;
        loop {
            let page = ledger
                .batch_page(&scope, &batch, after.take(), None, PAGE_ROWS)
                .await
                .map_err(|error| error.to_string())?;
            let Some(last) = page.last() else { break };
            after = Some((last.row.unwrap_or(0), last.id.clone()));
            for row in &page {
                let line = results::Line {
                    row: row.row.unwrap_or(0),
                    row_id: row.row_id.as_deref(),
                    job_id: row.id.as_str(),
                    ended: &row.ended(),
                };
                out.write_all(&results::record(&line.cells()).map_err(written)?).map_err(written)?;
            }
        }
    }
    ledger.close().await;
    Ok(Exit::Success)
}
