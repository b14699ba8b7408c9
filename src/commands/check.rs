//! `embosser check MANIFEST`: every problem of every row, without a network.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Exit;
use crate::config::Config;
use crate::manifest::{CheckOptions, CheckReport, Manifest, ManifestError};

/// Options of `embosser check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV with a header row.
    pub manifest: PathBuf,
    /// How to tell.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Calls per second to reckon with.
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
}

/// How problems are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Checks the manifest.
///
/// # Errors
/// If it cannot be read at all.
pub fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let report = match Manifest::open(&args.manifest)
        .and_then(|manifest| manifest.check(&CheckOptions::default(), &|_| {}))
    {
        Ok(report) => report,
        Err(ManifestError::Header { problems, .. }) => {
            let problem_count = problems.len() as u64;
            CheckReport { problems, problem_count, ..CheckReport::default() }
        }
        Err(error) => return Err(error.to_string()),
    };
    let per_second =
        args.rate.unwrap_or_else(|| config.pace.endpoint_per_second.min(config.pace.account_per_second));
    let mut out = io::stdout().lock();
    match args.format {
        Format::Json => serde_json::to_writer_pretty(&mut out, &report)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(out)),
        Format::Text => {
            print_problems(&report, &mut out).and_then(|()| print_summary(&report, per_second, &mut out))
        }
    }
    .map_err(|error| error.to_string())?;
    Ok(if report.problem_count == 0 { Exit::Success } else { Exit::Unusable })
}

/// The problems, a line each.
///
/// # Errors
/// If they cannot be written.
pub fn print_problems(report: &CheckReport, out: &mut impl Write) -> io::Result<()> {
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let more = report.problem_count - report.problems.len() as u64;
    if more > 0 {
        writeln!(out, "and {more} more problems")?;
    }
    Ok(())
}

fn print_summary(report: &CheckReport, per_second: f64, out: &mut impl Write) -> io::Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = report.rows as f64 / per_second;
    writeln!(
        out,
        "{} rows, {} of them invalid: {} virtual and {} physical cards, {} with a PIN; {seconds:.0} s at {per_second}/s.",
        report.rows, report.invalid_rows, report.r#virtual, report.physical, report.pins
    )
}
