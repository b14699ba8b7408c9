//! `embosser ledger export`: the whole ledger as JSON Lines.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::super::Exit;
use super::super::output::{Unwritten, exit, file};
use super::url_of;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::place::file_of;
use crate::config::range::grouped;
use crate::files::{Draft, folder_of};
use crate::ledger::{ExportError, Exported};
use crate::logging::say;

/// Options of `embosser ledger export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ledger to read: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    ledger: Option<String>,
    /// Where to, for its owner alone [default: standard output].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let url = url_of(args.ledger.as_ref(), config)?;
    let exported = match file(args.output.as_ref()) {
        None => write(&url, &mut BufWriter::new(io::stdout().lock())).await,
        Some(path) => {
            let to_error = |error: io::Error| format!("{}: {error}", path.display());
            if is_of_ledger(path, &url) {
                return Err(format!(
                    "{} is the ledger's own file, which an export would destroy: name another one",
                    path.display()
                ));
            }
            let mut draft = BufWriter::new(Draft::begin(path).map_err(to_error)?);
            match write(&url, &mut draft).await {
                Ok(exported) => {
                    let draft = draft.into_inner().map_err(|error| to_error(error.into_error()))?;
                    draft.put().map_err(to_error)?;
                    Ok(exported)
                }
                failed => failed,
            }
        }
    };
    let report = |exported: Exported| {
        let tables: Vec<String> =
            exported.tables.iter().map(|(table, rows)| format!("{table} {}", grouped(*rows))).collect();
        say(&format!("Exported, in rows: {}.", tables.join(", ")));
    };
    exit(exported.map(report).map_err(|error| match error {
        ExportError::Ledger(error) => Unwritten::Source(error.to_string()),
        ExportError::Output(error) => Unwritten::Output(error),
    }))
}

/// Whether a file is the ledger's own or one that SQLite keeps beside it, by whichever path.
fn is_of_ledger(path: &Path, url: &str) -> bool {
    let Some(ledger) = file_of(url).and_then(|file| std::fs::canonicalize(file).ok()) else { return false };
    let whole = std::fs::canonicalize(path).or_else(|_| {
        let folder = std::fs::canonicalize(folder_of(path))?;
        Ok::<_, io::Error>(folder.join(path.file_name().unwrap_or_default()))
    });
    let Ok(whole) = whole else { return false };
    ["", "-wal", "-shm", "-journal"].iter().any(|end| {
        let mut own = ledger.clone().into_os_string();
        own.push(end);
        whole.as_os_str() == own
    })
}

async fn write(url: &str, out: &mut impl Write) -> Result<Exported, ExportError> {
    crate::ledger::export(url, Clock::system().now(), out).await
}
