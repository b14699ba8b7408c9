//! `embosser ledger verify`: whether a ledger is sound, by itself or beside an export.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::PathBuf;

use super::super::Exit;
use super::super::output::{Unwritten, exit};
use super::super::progress::progress;
use super::url_of;
use crate::config::Config;
use crate::config::place::shown;
use crate::config::range::grouped;
use crate::ledger::{Verified, Verify};

/// Options of `embosser ledger verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ledger to read: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    ledger: Option<String>,
    /// An export to hold it against: whether rows of it were altered or lost since.
    #[arg(long, value_name = "EXPORT")]
    against: Option<PathBuf>,
    /// It must be the same as the export: nothing may have gone on or come since.
    #[arg(long, requires = "against")]
    exactly: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let url = url_of(args.ledger.as_ref(), config)?;
    let mut export = match &args.against {
        None => None,
        Some(path) => {
            let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Some(BufReader::new(file))
        }
    };
    let against = match &mut export {
        None => Verify::Alone,
        Some(lines) if args.exactly => Verify::SameAs(lines),
        Some(lines) => Verify::Since(lines),
    };
    let bar = progress(0, || "rows looked at".to_owned());
    let verified = crate::ledger::verify(&url, against, |seen, of| {
        bar.set_length(of);
        bar.set_position(seen);
    })
    .await;
    bar.finish_and_clear();
    let verified = verified.map_err(|error| error.to_string())?;
    let written = write(&verified, &shown(&url), args.against.is_some() && !args.exactly);
    match exit(written.map_err(Unwritten::Output))? {
        Exit::Success if !verified.is_sound() => Ok(Exit::Refused),
        exit => Ok(exit),
    }
}

fn write(verified: &Verified, ledger: &str, is_since: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (table, rows, digest) in &verified.tables {
        writeln!(out, "{table}: {} rows (SHA-256 {digest})", grouped(*rows))?;
    }
    if is_since {
        let Verified { went_on, came, .. } = verified;
        writeln!(
            out,
            "since the export: {} rows have gone on, {} have come",
            grouped(*went_on),
            grouped(*came)
        )?;
    }
    if let Some(standing) = &verified.standing {
        writeln!(out, "{standing}")?;
    }
    for finding in &verified.findings {
        writeln!(out, "{}: {}", finding.place, finding.reason)?;
    }
    let found = verified.findings.len() as u64 + verified.more;
    match found {
        0 => writeln!(out, "The ledger {ledger} is sound.")?,
        1 => writeln!(out, "The ledger {ledger} is not sound: 1 thing is wrong with it, as above.")?,
        _ if verified.more == 0 => {
            writeln!(
                out,
                "The ledger {ledger} is not sound: {} things are wrong with it, as above.",
                grouped(found)
            )?;
        }
        _ => writeln!(
            out,
            "The ledger {ledger} is not sound: {} things are wrong with it; the first of them are above.",
            grouped(found)
        )?,
    }
    out.flush()
}
