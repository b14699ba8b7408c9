//! `embosser issue MANIFEST`: every row becomes exactly one card; run again to resume.

mod carry;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;

use super::Exit;
use super::connect::{Connected, connect};
use crate::clock::Clock;
use crate::config::Config;
use crate::job::Batch;
use crate::ledger::{BatchRow, Ledger, Scope};
use crate::line::course::Rules;
use crate::line::{Halt, Line, LookFirst, Parts};
use crate::manifest::batch::{self, BatchError, SecondCards, digest_of};
use crate::manifest::{CheckOptions, CheckReport, Manifest};
use crate::metrics::exporter::Exporter;
use crate::pace::Pace;
use crate::results::Results;
use crate::stripe::{Client, Mode};
use crate::tally::{Counts, Tally};
use carry::{Carried, carry_all};

/// Between two lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Options of `embosser issue`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV with a header row.
    pub manifest: PathBuf,
    /// Issue against a built-in stand-in for Stripe; no account needed, no card is real.
    #[arg(long)]
    pub sandbox: bool,
    /// Where to write the results [default: the manifest's name with .results.csv].
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Where outcomes are recorded: sqlite://FILE or postgres://… [default: sqlite://embosser.db].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Names the batch: with a row's id it names the job [default: the manifest's name].
    #[arg(long)]
    pub batch: Option<String>,
    /// Calls per second, for the endpoint and the account.
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Most calls in flight.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Answer yes to the question before live cards are issued.
    #[arg(long)]
    pub yes: bool,
    /// Look for each row's card at Stripe before the first call: after the ledger was lost.
    #[arg(long)]
    pub reconcile_first: bool,
    /// Serve Prometheus metrics on this address while it runs, at /metrics.
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// Issue the valid rows of a manifest that has invalid ones.
    #[arg(long)]
    pub skip_invalid: bool,
}

/// Issues the manifest.
///
/// # Errors
/// A sentence for the operator; nothing was issued then.
pub async fn run(args: Args, mut config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    if let Some(rate) = args.rate {
        config.pace.endpoint_per_second = rate;
        config.pace.account_per_second = rate;
    }
    if let Some(concurrency) = args.concurrency {
        config.pace.concurrency = concurrency;
    }
    if let Some(ledger) = &args.ledger {
        config.ledger.url.clone_from(ledger);
    }
    let config = config.checked().map_err(|error| error.to_string())?;
    let batch = batch_name(&args)?;
    let manifest = Arc::new(Manifest::open(&args.manifest).map_err(|error| error.to_string())?);
    let report = check(&manifest).await?;
    if report.invalid_rows > 0 && !args.skip_invalid {
        super::check::print_problems(&report, &mut std::io::stderr()).map_err(|error| error.to_string())?;
        return Err(format!(
            "{} of {} rows are invalid; nothing was issued. Mend them, or pass --skip-invalid to issue the others",
            report.invalid_rows, report.rows
        ));
    }
    let mut config = config;
    let Connected { client, scope, sandbox } = connect(args.sandbox, &mut config, api_key).await?;
    if !confirm(&args, &config, &client, &report)? {
        return Err("nothing was issued".into());
    }
    let ledger = Ledger::open(&config.ledger.url).await.map_err(|error| error.to_string())?;
    let clock = Clock::system();
    note_batch(&args, &ledger, &scope, &batch, &report, &clock).await?;
    let results_path = args.results.clone().unwrap_or_else(|| args.manifest.with_extension("results.csv"));
    let results = Results::create(&results_path)
        .map_err(|error| format!("results file {}: {error}", results_path.display()))?;
    let exporter = args.metrics.map(|_| Exporter::install()).transpose()?;
    let pace = Pace::start(&config.pace);
    if let (Some(exporter), Some(listen)) = (&exporter, args.metrics) {
        exporter.serve(listen, pace.clone()).await.map_err(|error| format!("--metrics {listen}: {error}"))?;
    }
    let line = Arc::new(Line::new(Parts {
        client,
        pace,
        ledger: ledger.clone(),
        scope,
        clock,
        retry: config.retry.clone(),
        rules: Rules::default(),
        look_first: if args.reconcile_first { LookFirst::Yes } else { LookFirst::No },
    }));
    stop_on_ctrl_c(line.clone());
    let tally = Arc::new(Tally::default());
    let bar = progress(report.rows, tally.clone());
    let began = Instant::now();
    // A task of its own, so that the rows and what becomes of them stay on the runtime's threads.
    let carried = tokio::spawn(carry_all(line.clone(), manifest, batch, results, tally.clone(), bar.clone()));
    let carried = carried.await.map_err(|error| error.to_string())??;
    bar.finish_and_clear();
    let exit = summary(&line, &report, &tally, &carried, began.elapsed(), &results_path);
    ledger.close().await;
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    Ok(exit)
}

fn batch_name(args: &Args) -> Result<Batch, String> {
    let name = match &args.batch {
        Some(name) => name.clone(),
        None => args.manifest.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    Batch::new(name).map_err(|error| format!("the batch's name {error}; pass --batch NAME"))
}

async fn check(manifest: &Arc<Manifest>) -> Result<CheckReport, String> {
    let manifest = manifest.clone();
    let options = CheckOptions { digest: true };
    tokio::task::spawn_blocking(move || manifest.check(&options, &|_| {}))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

/// Before live cards: how many, how fast, until when, and whether.
fn confirm(args: &Args, config: &Config, client: &Client, report: &CheckReport) -> Result<bool, String> {
    if client.mode() != Mode::Live {
        return Ok(true);
    }
    let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = report.rows as f64 / per_second;
    let until = jiff::Zoned::now()
        .checked_add(jiff::SignedDuration::from_secs_f64(seconds))
        .map_or_else(|_| "far away".to_owned(), |until| until.strftime("%Y-%m-%d %H:%M:%S %Z").to_string());
    eprintln!(
        "{} LIVE cards are about to be issued at {per_second}/s, until about {until}.",
        report.rows - report.invalid_rows
    );
    if args.yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err("live cards need a yes: pass --yes where there is no terminal to ask on".into());
    }
    eprint!("Issue them? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Records the batch, and stops a manifest that was issued under another name: its rows would be new jobs.
async fn note_batch(
    args: &Args,
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    report: &CheckReport,
    clock: &Clock,
) -> Result<(), String> {
    let row = BatchRow {
        scope: scope.clone(),
        batch: batch.clone(),
        digest: digest_of(report),
        rows: report.rows,
        began: clock.now(),
    };
    let second = if args.batch.is_some() { SecondCards::Wanted } else { SecondCards::Refused };
    batch::note(ledger, row, second).await.map_err(|error| match &error {
        BatchError::IssuedAs { batch, other } => format!(
            "{error}. Pass --batch {other:?} to go on with that batch, or --batch {batch:?} if second cards are wanted"
        ),
        BatchError::Ledger(error) => error.to_string(),
    })
}

/// How far a run has come, for the progress bar.
fn words(tally: &Tally) -> String {
    let Counts { issued, refused, retried, .. } = tally.counts();
    format!("{issued} issued, {refused} refused, {retried} retried")
}

fn stop_on_ctrl_c(line: Arc<Line>) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            crate::logging::say("\nstopping: calls in flight are finished (Ctrl-C again to stop at once)");
            line.stop();
            if tokio::signal::ctrl_c().await.is_ok() {
                crate::logging::exit(Exit::Unfinished.code());
            }
        }
    });
}

fn progress(rows: u64, tally: Arc<Tally>) -> ProgressBar {
    if std::io::stderr().is_terminal() {
        let bar = ProgressBar::new(rows);
        let template = "{bar:30} {pos}/{len} {per_sec}, {eta} left: {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).expect("the template is a constant that parses"),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        let shown = bar.clone();
        tokio::spawn(async move {
            while !shown.is_finished() {
                shown.set_message(words(&tally));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        return bar;
    }
    let bar = ProgressBar::hidden();
    bar.set_length(rows);
    let shown = bar.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            if shown.is_finished() {
                return;
            }
            // Not with eprintln: where nobody reads, it would hold up this thread and the calls on it.
            let (rate, words) = (shown.per_sec(), words(&tally));
            crate::logging::say(&format!("{}/{rows}, {rate:.1}/s: {words}", shown.position()));
        }
    });
    bar
}

fn summary(
    line: &Line,
    report: &CheckReport,
    tally: &Tally,
    carried: &Carried,
    took: Duration,
    results: &Path,
) -> Exit {
    let counts = tally.counts();
    let left = report.rows.saturating_sub(counts.ended());
    println!(
        "{} rows in {:.1} s: {} issued ({} of them before), {} refused, {} unresolved, {} retried.",
        report.rows,
        took.as_secs_f64(),
        counts.issued,
        counts.recorded,
        counts.refused,
        counts.unresolved,
        counts.retried
    );
    if let Err(error) = &carried.written {
        eprintln!(
            "the results could not be written to {} ({error}); `embosser results` has them",
            results.display()
        );
    } else {
        println!("Results: {}", results.display());
    }
    if let Some(halt) = line.halt() {
        eprintln!("stopped: {halt}");
        let new = counts.issued.saturating_sub(counts.recorded);
        if matches!(halt, Halt::Key(_)) && new == 0 {
            return Exit::Unusable;
        }
    }
    if left > 0 || counts.unresolved > 0 {
        eprintln!(
            "{} rows are not finished ({} were taken). Run the same command again to go on: finished rows are not \
             issued twice.",
            left + counts.unresolved,
            carried.taken
        );
        return Exit::Unfinished;
    }
    if carried.written.is_err() {
        return Exit::Unfinished;
    }
    if counts.refused > 0 { Exit::Refused } else { Exit::Success }
}
