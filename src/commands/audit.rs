//! `embosser audit`: what was done over HTTP, by whom, as the ledger keeps it. It reads; it never makes a ledger.

use std::io::{self, BufWriter, Write as _};

use super::Exit;
use super::output::{Unwritten, exit};
use super::status::open;
use crate::clock::Time;
use crate::config::Config;
use crate::ledger::{AuditQuery, Ledger, Order};
use crate::results;

/// Options of `embosser audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what was done with this batch.
    #[arg(long)]
    pub batch: Option<String>,
    /// Only what this token's holder did.
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// Only what was done since then: a day, as 2026-12-01, or a time, as 2026-12-01T05:00Z.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Time>,
    /// The ledger to read: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
}

fn since(text: &str) -> Result<Time, String> {
    Time::from_words(text).ok_or_else(|| "it is a day, as 2026-12-01, or a time, as 2026-12-01T05:00Z".into())
}

/// Writes the log as CSV, in the order in which things were done.
///
/// # Errors
/// If there is no ledger, or it cannot be read.
pub async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let ledger = open(args.ledger.as_ref(), config).await?;
    let query = AuditQuery {
        batch: args.batch.clone(),
        who: args.who.clone(),
        since: args.since,
        order: Order::Oldest,
        ..AuditQuery::default()
    };
    let written = write(&ledger, query).await;
    ledger.close().await;
    exit(written)
}

async fn write(ledger: &Ledger, mut query: AuditQuery) -> Result<(), Unwritten> {
    let mut out = BufWriter::new(io::stdout().lock());
    out.write_all(&results::audit_head())?;
    loop {
        let entries = ledger.next_audit_entries(&mut query).await;
        let entries = entries.map_err(|error| Unwritten::Source(error.to_string()))?;
        if entries.is_empty() {
            return Ok(out.flush()?);
        }
        for entry in &entries {
            out.write_all(&results::audit_line(entry))?;
        }
    }
}
