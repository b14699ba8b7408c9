//! `embosser issue MANIFEST`: every row becomes exactly one card; run again to resume.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;
use tokio::sync::{Semaphore, mpsc};

use super::Exit;
use super::connect::{Connected, connect};
use crate::clock::Clock;
use crate::config::Config;
use crate::job::{Batch, JobId};
use crate::ledger::{BatchRow, Ledger, Scope};
use crate::line::course::Rules;
use crate::line::{Halt, Line, LookFirst, Parts};
use crate::manifest::batch::{self, BatchError, SecondCards, digest_of, job_of};
use crate::manifest::{CheckOptions, CheckReport, InvalidRow, Manifest, Row};
use crate::metrics::exporter::Exporter;
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pace::Pace;
use crate::results::{self, Results};
use crate::stripe::{Client, Mode};
use crate::tally::{Counts, Tally};

/// Jobs that may wait for their first turn: what the pace takes in this time. Enough to keep the line full, few enough
/// that no PIN is read long before its call.
const WAITING: Duration = Duration::from_millis(500);
/// Bounds of that number: more than 128 only push one another out of the processor's caches.
const WAITING_COUNT: std::ops::RangeInclusive<usize> = 4..=128;
/// Rows that the reader hands over at once: what the pace takes in this time, so that no PIN is read long before its
/// turn, and a thread is not woken for every row.
const READ_AT_ONCE: Duration = Duration::from_millis(5);
/// Bounds of that number.
const READ_COUNT: std::ops::RangeInclusive<usize> = 1..=64;
/// Ends that the results' writer takes at once, and how long it lets them gather.
const WRITTEN_AT_ONCE: usize = 1024;
const WRITTEN_EVERY: Duration = Duration::from_millis(5);
/// Rows taken in one go; then all goes on that can. So a busy machine takes rows as fast as it carries them, and no more
/// are under way than it has use for.
const TAKEN_AT_ONCE: u64 = 4;
/// Jobs under way at all, waits between attempts included: a bound on memory.
const CARRIED_MAX: usize = 4096;
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

/// A row's end on its way to the results file.
struct RowEnded {
    row: u64,
    row_id: Option<String>,
    /// None where batch and `row_id` together make no id.
    job_id: Option<JobId>,
    ended: Ended,
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
            eprintln!("\nstopping: calls in flight are finished (Ctrl-C again to stop at once)");
            line.stop();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(Exit::Unfinished.code()));
            }
        }
    });
}

/// What came of taking the rows down the line.
struct Carried {
    /// Rows that were taken.
    taken: u64,
    /// Whether the results file is whole.
    written: std::io::Result<()>,
}

/// Takes every row down the line.
async fn carry_all(
    line: Arc<Line>,
    manifest: Arc<Manifest>,
    batch: Batch,
    results: Results,
    tally: Arc<Tally>,
    bar: ProgressBar,
) -> Result<Carried, String> {
    let per_second = line.parts().pace.health().configured_per_second;
    let taken_in = |time: Duration| crate::pace::whole(per_second * time.as_secs_f64());
    let waiting_max = taken_in(WAITING).clamp(*WAITING_COUNT.start(), *WAITING_COUNT.end());
    let at_once = taken_in(READ_AT_ONCE).clamp(*READ_COUNT.start(), *READ_COUNT.end());
    // The reader is so many rows ahead; the others that wait are jobs.
    let (rows, mut incoming) = mpsc::channel(1);
    let reader = std::thread::spawn(move || read_rows(&manifest, at_once, &rows));
    let (ended, endings) = mpsc::channel::<RowEnded>(CARRIED_MAX);
    let writer = std::thread::spawn(move || write_results(results, endings));
    let carried = Arc::new(Semaphore::new(CARRIED_MAX));
    let waiting = Arc::new(Semaphore::new(waiting_max));
    let mut taken: u64 = 0;
    let mut read = Vec::new().into_iter();
    loop {
        let row = match read.next() {
            _ if line.is_stopping() => None,
            None => tokio::select! {
                more = incoming.recv() => {
                    read = more.unwrap_or_default().into_iter();
                    read.next()
                }
                () = line.stopped() => None,
            },
            row => row,
        };
        let Some(row) = row else { break };
        let mut job = match row {
            Ok(row) => {
                let line = row.line;
                Box::new(job_of(row, &batch).map_err(|error| {
                    format!("line {line}: batch and row_id together make a job id that {error}")
                })?)
            }
            Err(invalid) => {
                taken += 1;
                let refused = refused_row(&invalid, &batch);
                tally.add(&refused.ended);
                bar.inc(1);
                let _ = ended.send(refused).await;
                continue;
            }
        };
        let room = carried.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        job.waiting = Some(waiting.clone().acquire_owned().await.map_err(|error| error.to_string())?);
        taken += 1;
        if taken.is_multiple_of(TAKEN_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        let (line, ended, tally, bar) = (line.clone(), ended.clone(), tally.clone(), bar.clone());
        tokio::spawn(async move {
            let (row, row_id) = job.place.clone().map_or((0, None), |place| (place.row, place.row_id));
            let job_id = Some(job.id.clone());
            let end = line.carry(job).await;
            drop(room);
            let Some(end) = end else { return };
            tally.add(&end);
            bar.inc(1);
            let _ = ended.send(RowEnded { row, row_id, job_id, ended: end }).await;
        });
    }
    drop(incoming);
    drop(ended);
    let written = tokio::task::spawn_blocking(move || writer.join())
        .await
        .map_err(|error| error.to_string())?
        .map_err(|_| "the results writer failed".to_owned())?;
    reader.join().map_err(|_| "the manifest's reader failed".to_owned())??;
    Ok(Carried { taken, written })
}

/// Some rows of the manifest, in its order.
type Rows = Vec<Result<Row, InvalidRow>>;

fn read_rows(manifest: &Manifest, at_once: usize, rows: &mpsc::Sender<Rows>) -> Result<(), String> {
    let mut read = manifest.rows().map_err(|error| error.to_string())?;
    loop {
        let some: Rows = read.by_ref().take(at_once).collect();
        if some.is_empty() || rows.blocking_send(some).is_err() {
            return Ok(());
        }
    }
}

fn write_results(mut results: Results, mut endings: mpsc::Receiver<RowEnded>) -> std::io::Result<()> {
    let mut some = Vec::with_capacity(WRITTEN_AT_ONCE);
    while endings.blocking_recv_many(&mut some, WRITTEN_AT_ONCE) > 0 {
        for RowEnded { row, row_id, job_id, ended } in some.drain(..) {
            let job_id = job_id.as_ref().map_or("", JobId::as_str);
            let line = results::Line { row, row_id: row_id.as_deref(), job_id, ended: &ended };
            results.append(&line)?;
        }
        // At a high rate a row ends every few microseconds, and to wake this thread for each would cost as much.
        std::thread::sleep(WRITTEN_EVERY);
    }
    results.finish()
}

fn refused_row(invalid: &InvalidRow, batch: &Batch) -> RowEnded {
    let (code, message) = invalid.problems.first().map_or(("invalid", "invalid".to_owned()), |problem| {
        (problem.code, format!("line {}, column {}: {}", problem.line, problem.column, problem.reason))
    });
    let job_id = JobId::of_row(batch, invalid.row_id.as_deref(), invalid.number);
    RowEnded {
        row: invalid.number,
        row_id: invalid.row_id.clone(),
        job_id: job_id.ok(),
        ended: Ended {
            outcome: Outcome::Refused(Refusal::own(code, message)),
            attempts: 0,
            request_id: None,
            recorded_before: false,
        },
    }
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
            eprintln!("{}/{rows}, {:.1}/s: {}", shown.position(), shown.per_sec(), words(&tally));
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
