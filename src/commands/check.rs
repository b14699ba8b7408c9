//! `embosser check MANIFEST`: every problem of every row, without a network.
//!
//! Problems are written as they are found, so that a file of any size is checked in the same little memory.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::Exit;
use super::check_known::KnownRows;
use super::manifest::ReadingArgs;
use crate::config::Config;
use crate::logging::say;
use crate::manifest::{
    CheckOptions, CheckReport, Manifest, ManifestError, Problem, Severity, counted, waits,
};

/// Options of `embosser check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV or a spreadsheet (XLSX, XLS, ODS) with a header row.
    pub manifest: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Which account it is for.
    #[command(flatten)]
    pub account: super::accounts::AccountArgs,
    /// How to tell.
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// Take warnings for problems.
    #[arg(long)]
    pub strict: bool,
    /// Also look at Stripe, with the API key: whether the account may issue, and how the cards, cardholders and designs stand that
    /// rows name. Each is read once; how many reads that takes is said first.
    #[arg(long)]
    pub online: bool,
    /// What the batch is to be called, for rows that were issued before [default: the manifest's name].
    #[arg(long)]
    pub batch: Option<String>,
    /// The ledger in which to look for rows that were issued before: sqlite://FILE or postgres://… [default: as for issue, if
    /// that is a file].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Calls per second to reckon with [default: the configured pace].
    #[arg(long, value_name = "N", value_parser = super::arguments::rate)]
    pub rate: Option<f64>,
}

/// Most warnings in JSON; their number is told whatever it is.
const WARNINGS_MAX: usize = 1000;

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
/// If it cannot be read at all, or the verdict not be written.
pub fn run(args: &Args, config: &Config, known: &KnownRows) -> Result<Exit, String> {
    let per_second =
        args.rate.unwrap_or_else(|| config.pace.endpoint_per_second.min(config.pace.account_per_second));
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match args.format {
        Format::Json => write_json(args, (config, per_second), known, &mut out),
        Format::Text => write_text(args, (config, per_second), known, &mut out),
    };
    match written.and_then(|exit| out.flush().map(|()| exit).map_err(CheckError::from)) {
        Ok(exit) => Ok(exit),
        // Whoever reads has read enough.
        Err(CheckError::Written(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Unusable),
        Err(CheckError::Written(error)) => Err(error.to_string()),
        Err(CheckError::Manifest(error)) => Err(error.to_string()),
    }
}

/// Why there is no verdict.
enum CheckError {
    Manifest(ManifestError),
    Written(io::Error),
}

impl From<io::Error> for CheckError {
    fn from(error: io::Error) -> Self {
        Self::Written(error)
    }
}

/// Checks the file, and tells of each problem as it is found.
fn check(
    args: &Args,
    mut write: impl FnMut(&Problem) -> io::Result<()>,
) -> Result<Result<CheckReport, ManifestError>, io::Error> {
    let mut written = Ok(());
    let report = Manifest::inspect(&args.manifest, &args.reading.reading()).and_then(|manifest| {
        manifest.check_each(&CheckOptions::default(), &|_| {}, &mut |problem| {
            if written.is_ok() {
                written = write(&problem);
            }
        })
    });
    written.map(|()| report)
}

fn write_text(
    args: &Args,
    (config, per_second): (&Config, f64),
    known: &KnownRows,
    out: &mut impl Write,
) -> Result<Exit, CheckError> {
    let mut overview = Overview::default();
    let mut own_headings = false;
    let report = check(args, |problem| {
        overview.add(problem);
        own_headings |= problem.row == 0 && problem.code == "unknown_parameter";
        writeln!(out, "{problem}")
    })?;
    let report = match report {
        Ok(report) => with_known(report, known),
        Err(ManifestError::Header { problems, .. }) => {
            for problem in &problems {
                writeln!(out, "{problem}")?;
            }
            writeln!(out, "The header cannot be used; no row was looked at. Nothing would be issued.")?;
            return Ok(Exit::Unusable);
        }
        Err(error) => return Err(CheckError::Manifest(error)),
    };
    for warning in &known.warnings {
        overview.add(warning);
        writeln!(out, "{warning}")?;
    }
    overview.write(report.problem_count + report.warning_count, out)?;
    writeln!(
        out,
        "{}: {}, {} with a PIN; {} at {per_second} calls a second.",
        counted(report.rows, "row"),
        report.contents(),
        report.pins,
        duration(seconds(report.calls(), per_second)),
    )?;
    for note in notes(&report, config, known) {
        writeln!(out, "{note}")?;
    }
    if report.warning_count > 0 {
        let strict = if args.strict { ", which --strict takes for problems" } else { "" };
        writeln!(out, "{}{strict}.", counted(report.warning_count, "warning"))?;
    }
    if report.problem_count == 0 {
        return Ok(if is_good(&report, args) { Exit::Success } else { Exit::Unusable });
    }
    writeln!(
        out,
        "{}, {} of {} invalid: `embosser issue` would issue nothing until they are mended.",
        counted(report.problem_count, "problem"),
        report.invalid_rows,
        counted(report.rows, "row")
    )?;
    if own_headings && args.reading.columns.is_none() {
        let file = args.manifest.display();
        writeln!(
            out,
            "A file may keep its own headings: `embosser columns {file}` writes what they may mean, for --columns."
        )?;
    }
    Ok(Exit::Unusable)
}

/// The verdict for programs; the problems stand before it.
#[derive(Serialize)]
struct Verdict {
    valid: bool,
    rows: u64,
    invalid_rows: u64,
    problem_count: u64,
    cards: u64,
    r#virtual: u64,
    physical: u64,
    changes: u64,
    cancels: u64,
    cardholders: u64,
    pins: u64,
    pins_to_choose: u64,
    replacements: u64,
    warning_count: u64,
    /// The first of them.
    warnings: Vec<Problem>,
    notes: Vec<String>,
    calls_per_second: f64,
    seconds: f64,
}

fn write_json(
    args: &Args,
    (config, per_second): (&Config, f64),
    known: &KnownRows,
    out: &mut impl Write,
) -> Result<Exit, CheckError> {
    let manifest = serde_json::to_string(&args.manifest.to_string_lossy()).map_err(io::Error::from)?;
    write!(out, "{{\n  \"manifest\": {manifest},\n  \"problems\": [")?;
    let mut separator = "\n    ";
    let mut write = |problem: &Problem, out: &mut dyn Write| {
        out.write_all(separator.as_bytes())?;
        separator = ",\n    ";
        serde_json::to_writer(out, problem).map_err(io::Error::from)
    };
    // Problems are written as they are found; of warnings the first are kept until then.
    let mut warnings = Vec::new();
    let report = check(args, |found| match found.severity {
        Severity::Problem => write(found, out),
        Severity::Warning => {
            if warnings.len() < WARNINGS_MAX {
                warnings.push(found.clone());
            }
            Ok(())
        }
    })?;
    let report = match report {
        Ok(report) => {
            warnings.extend(known.warnings.iter().cloned());
            with_known(report, known)
        }
        Err(error) => {
            let problems = error.into_problems();
            for problem in &problems {
                write(problem, out)?;
            }
            CheckReport { problem_count: problems.len() as u64, ..CheckReport::default() }
        }
    };
    let verdict = Verdict {
        valid: is_good(&report, args),
        rows: report.rows,
        invalid_rows: report.invalid_rows,
        problem_count: report.problem_count,
        cards: report.r#virtual + report.physical,
        r#virtual: report.r#virtual,
        physical: report.physical,
        changes: report.changes,
        cancels: report.cancels,
        cardholders: report.cardholders,
        pins: report.pins,
        pins_to_choose: report.pins_to_choose,
        replacements: report.replacements,
        warning_count: report.warning_count,
        warnings,
        notes: notes(&report, config, known),
        calls_per_second: per_second,
        seconds: seconds(report.calls(), per_second),
    };
    let verdict = serde_json::to_string_pretty(&verdict).map_err(io::Error::from)?;
    // The verdict's members, in the same object.
    let members = verdict.trim_start_matches('{');
    writeln!(out, "{}],{members}", if report.problem_count > 0 { "\n  " } else { "" })?;
    Ok(if is_good(&report, args) { Exit::Success } else { Exit::Unusable })
}

/// What its sender should know, the configuration included.
fn notes(report: &CheckReport, config: &Config, known: &KnownRows) -> Vec<String> {
    let is_missing = report.pins_to_choose > 0 && config.pin_page.url.is_none();
    let missing = is_missing.then(|| {
        format!("{}; with this configuration `embosser issue` would issue nothing.", no_pin_page(report))
    });
    report.notes().into_iter().chain(known.notes.iter().cloned()).chain(missing).collect()
}

/// What is said of rows whose cardholders are to choose the PIN where there is no page for that.
#[must_use]
pub fn no_pin_page(report: &CheckReport) -> String {
    format!(
        "{} for a PIN that the cardholder chooses (column pin[choose]), and there is no page for that: set pin_page.url in \
         embosser.toml to where cardholders reach `embosser serve`, or leave that column empty",
        waits(report.pins_to_choose)
    )
}

/// The report with what the ledger adds.
fn with_known(report: CheckReport, known: &KnownRows) -> CheckReport {
    CheckReport { warning_count: report.warning_count + known.warning_count, ..report }
}

/// Whether it would be issued.
fn is_good(report: &CheckReport, args: &Args) -> bool {
    report.problem_count == 0 && !(args.strict && report.warning_count > 0)
}

/// The problems that a report kept, a line each.
///
/// # Errors
/// If they cannot be written.
pub fn print_problems(report: &CheckReport, out: &mut impl Write) -> io::Result<()> {
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let more = report.problem_count - report.problems.len() as u64;
    if more > 0 {
        writeln!(out, "and {more} more problems; `embosser check` tells them all")?;
    }
    Ok(())
}

/// The first warnings that a report kept, a line each; whoever does not read them holds nothing up.
pub fn say_warnings(report: &CheckReport) {
    /// More are seen with `check`.
    const LISTED_MAX: usize = 10;
    report.warnings.iter().take(LISTED_MAX).for_each(|warning| say(&warning.to_string()));
    let more = report.warning_count.saturating_sub(LISTED_MAX as u64);
    if more > 0 {
        say(&format!("and {more} more warnings; `embosser check` tells them all"));
    }
}

/// How often each problem comes, for a file with many: one mistake in a formula is a problem of each row.
#[derive(Default)]
struct Overview(BTreeMap<(String, &'static str), (u64, u64)>);

impl Overview {
    /// Fewer problems than this are seen at a glance.
    const PROBLEMS_MIN: u64 = 20;

    fn add(&mut self, problem: &Problem) {
        let seen = self.0.entry((problem.column.clone(), problem.code)).or_insert((0, problem.line));
        seen.0 += 1;
    }

    fn write(&self, problem_count: u64, out: &mut impl Write) -> io::Result<()> {
        if problem_count < Self::PROBLEMS_MIN {
            return Ok(());
        }
        writeln!(out, "\nBy column:")?;
        for ((column, code), (count, line)) in &self.0 {
            let column = if column.is_empty() { "(the row)" } else { column };
            writeln!(out, "  {count:>8} × {column}: {code}, first on line {line}")?;
        }
        writeln!(out)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn seconds(calls: u64, per_second: f64) -> f64 {
    calls as f64 / per_second
}

/// A duration as a person says it.
fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts saturate")]
    let whole = seconds.ceil() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_told_as_a_person_says_them() {
        let said = [0.0, 7.2, 61.0, 3600.0, 40_000.0, 200_000.0].map(duration);
        assert_eq!(said, ["0 s", "8 s", "1 min 1 s", "1 h 0 min", "11 h 6 min", "2 d 7 h"]);
    }
}
