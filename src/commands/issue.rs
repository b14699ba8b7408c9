//! `embosser issue MANIFEST`: every row becomes exactly one card; run again to resume.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;
use tokio::sync::{Semaphore, mpsc};

use super::Exit;
use crate::clock::Clock;
use crate::config::Config;
use crate::job::{Batch, Job, JobId, Place};
use crate::ledger::{BatchRow, Ledger, Scope};
use crate::line::course::Rules;
use crate::line::{Halt, Line, LookFirst, Parts};
use crate::manifest::{CheckOptions, CheckReport, InvalidRow, Manifest, Row};
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pace::Pace;
use crate::results::{self, Results};
use crate::sandbox::Sandbox;
use crate::stripe::{Client, Mode};

/// Jobs that may wait for their first turn: enough to keep the line full, few enough that no PIN is read long
/// before its call.
const WAITING_MAX: usize = 256;
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
    /// Issue the valid rows of a manifest that has invalid ones.
    #[arg(long)]
    pub skip_invalid: bool,
}

/// How many rows have ended how.
#[derive(Debug, Default)]
struct Tally {
    issued: AtomicU64,
    recorded: AtomicU64,
    refused: AtomicU64,
    unresolved: AtomicU64,
    retried: AtomicU64,
}

impl Tally {
    fn add(&self, ended: &Ended) {
        let counter = match &ended.outcome {
            Outcome::Issued(_) => &self.issued,
            Outcome::Refused(_) => &self.refused,
            Outcome::Unresolved(_) => &self.unresolved,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if ended.recorded_before {
            self.recorded.fetch_add(1, Ordering::Relaxed);
        } else {
            self.retried.fetch_add(u64::from(ended.attempts.saturating_sub(1)), Ordering::Relaxed);
        }
    }

    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn words(&self) -> String {
        format!(
            "{} issued, {} refused, {} retried",
            Self::get(&self.issued),
            Self::get(&self.refused),
            Self::get(&self.retried)
        )
    }
}

/// A row's end on its way to the results file.
struct RowEnded {
    row: u64,
    row_id: Option<String>,
    job_id: String,
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
    let (client, sandbox) = connect(&args, &mut config, api_key).await?;
    if !confirm(&args, &config, &client, &report)? {
        return Err("nothing was issued".into());
    }
    let ledger = Ledger::open(&config.ledger.url).await.map_err(|error| error.to_string())?;
    let mode = if client.mode() == Mode::Live { "live" } else { "test" };
    // A built-in sandbox has another port each time; its cards are one world all the same.
    let host = if args.sandbox { "sandbox".to_owned() } else { client.host() };
    let scope = Scope::new(mode, &host, config.stripe.account.as_deref());
    let clock = Clock::system();
    note_batch(&args, &ledger, &scope, &batch, &report, &clock).await?;
    let results_path = args.results.clone().unwrap_or_else(|| args.manifest.with_extension("results.csv"));
    let results = Results::create(&results_path)
        .map_err(|error| format!("results file {}: {error}", results_path.display()))?;
    let line = Arc::new(Line::new(Parts {
        client,
        pace: Pace::start(&config.pace),
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
    let taken = carry_all(&line, manifest, &batch, results, tally.clone(), &bar).await?;
    bar.finish_and_clear();
    let exit = summary(&line, &report, &tally, taken, began.elapsed(), &results_path);
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

/// A client for Stripe, or for a sandbox that is started here.
async fn connect(
    args: &Args,
    config: &mut Config,
    api_key: Option<SecretString>,
) -> Result<(Client, Option<Sandbox>), String> {
    use secrecy::ExposeSecret as _;
    if !args.sandbox {
        let key = api_key.ok_or(
            "no API key: set STRIPE_API_KEY, or stripe.api_key_file to a file that holds it (or try --sandbox)",
        )?;
        return Ok((Client::new(&config.stripe, &key).map_err(|error| error.to_string())?, None));
    }
    if api_key.as_ref().is_some_and(|key| key.expose_secret().contains("_live_")) {
        return Err("--sandbox with a live key: unset STRIPE_API_KEY; the sandbox needs none".into());
    }
    let sandbox = Sandbox::start(crate::sandbox::Options::default())
        .await
        .map_err(|error| format!("sandbox: {error}"))?;
    config.stripe.api_url = sandbox.api_url();
    config.stripe.key_url = sandbox.key_url();
    let client = Client::new(&config.stripe, &SecretString::from("sk_test_sandbox"))
        .map_err(|error| error.to_string())?;
    Ok((client, Some(sandbox)))
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
    let digest = report.digest.map(|digest| crate::job::Fingerprint(digest).to_hex());
    if let (Some(digest), None) = (&digest, &args.batch) {
        let same = ledger.batches_with_digest(scope, digest).await.map_err(|error| error.to_string())?;
        if let Some(other) = same.iter().find(|other| other.as_str() != batch.as_str()) {
            return Err(format!(
                "these rows were issued before as batch {other:?}; as batch {:?} they would all get second cards. \
                 Pass --batch {other:?} to go on with that batch, or --batch {:?} if second cards are wanted",
                batch.as_str(),
                batch.as_str()
            ));
        }
    }
    let row = BatchRow {
        scope: scope.clone(),
        batch: batch.clone(),
        digest,
        rows: report.rows,
        began: clock.now(),
    };
    ledger.write_batch(row).await.map_err(|error| error.to_string())
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

/// Takes every row down the line; answers how many were taken.
async fn carry_all(
    line: &Arc<Line>,
    manifest: Arc<Manifest>,
    batch: &Batch,
    results: Results,
    tally: Arc<Tally>,
    bar: &ProgressBar,
) -> Result<u64, String> {
    let (rows, mut incoming) = mpsc::channel::<Result<Row, InvalidRow>>(WAITING_MAX);
    let reader = std::thread::spawn(move || read_rows(&manifest, &rows));
    let (ended, endings) = mpsc::channel::<RowEnded>(CARRIED_MAX);
    let writer = std::thread::spawn(move || write_results(results, endings));
    let carried = Arc::new(Semaphore::new(CARRIED_MAX));
    let waiting = Arc::new(Semaphore::new(WAITING_MAX.max(line.parts().pace.health().concurrency)));
    let mut taken = 0;
    loop {
        let row = tokio::select! {
            row = incoming.recv() => row,
            () = line.stopped() => None,
        };
        let Some(row) = row else { break };
        let job = match row {
            Ok(row) => job_of(row, batch)?,
            Err(invalid) => {
                taken += 1;
                let refused = refused_row(&invalid, batch);
                tally.add(&refused.ended);
                bar.inc(1);
                let _ = ended.send(refused).await;
                continue;
            }
        };
        let room = carried.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        let place = waiting.clone().acquire_owned().await.map_err(|error| error.to_string())?;
        taken += 1;
        let (line, ended, tally, bar) = (line.clone(), ended.clone(), tally.clone(), bar.clone());
        tokio::spawn(async move {
            let (row, row_id) = job.place.clone().map_or((0, None), |place| (place.row, place.row_id));
            let job_id = job.id.to_string();
            let end = line.carry(job).await;
            drop((room, place));
            let Some(end) = end else { return };
            tally.add(&end);
            bar.inc(1);
            tracing::info!(job = %job_id, outcome = end.outcome.word(), attempts = end.attempts,
                request_id = end.request_id.as_deref().unwrap_or(""), "job ended");
            let _ = ended.send(RowEnded { row, row_id, job_id, ended: end }).await;
        });
    }
    drop(incoming);
    drop(ended);
    let written = tokio::task::spawn_blocking(move || writer.join())
        .await
        .map_err(|error| error.to_string())?
        .map_err(|_| "the results writer failed".to_owned())?;
    written.map_err(|error| {
        format!("the results could not be written ({error}); `embosser results` has them")
    })?;
    reader.join().map_err(|_| "the manifest's reader failed".to_owned())??;
    Ok(taken)
}

fn read_rows(manifest: &Manifest, rows: &mpsc::Sender<Result<Row, InvalidRow>>) -> Result<(), String> {
    for row in manifest.rows().map_err(|error| error.to_string())? {
        if rows.blocking_send(row).is_err() {
            break;
        }
    }
    Ok(())
}

fn write_results(mut results: Results, mut endings: mpsc::Receiver<RowEnded>) -> std::io::Result<()> {
    while let Some(RowEnded { row, row_id, job_id, ended }) = endings.blocking_recv() {
        results.append(&results::Line { row, row_id: row_id.as_deref(), job_id: &job_id, ended: &ended })?;
    }
    results.finish()
}

fn job_of(row: Row, batch: &Batch) -> Result<Job, String> {
    let id = JobId::of_row(batch, row.row_id.as_deref(), row.number).map_err(|error| {
        format!("line {}: batch and row_id together make a job id that {error}", row.line)
    })?;
    let place = Place { row: row.number, row_id: row.row_id };
    Ok(Job::new(id, batch.clone(), Some(place), row.card, row.pin))
}

fn refused_row(invalid: &InvalidRow, batch: &Batch) -> RowEnded {
    let (code, message) = invalid.problems.first().map_or(("invalid", "invalid".to_owned()), |problem| {
        (problem.code, format!("line {}, column {}: {}", problem.line, problem.column, problem.reason))
    });
    let job_id = JobId::of_row(batch, invalid.row_id.as_deref(), invalid.number);
    RowEnded {
        row: invalid.number,
        row_id: invalid.row_id.clone(),
        job_id: job_id.map_or_else(|_| String::new(), |id| id.to_string()),
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
                shown.set_message(tally.words());
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
            eprintln!("{}/{rows}, {:.1}/s: {}", shown.position(), shown.per_sec(), tally.words());
        }
    });
    bar
}

fn summary(
    line: &Line,
    report: &CheckReport,
    tally: &Tally,
    taken: u64,
    took: Duration,
    results: &Path,
) -> Exit {
    let get = Tally::get;
    let ended = get(&tally.issued) + get(&tally.refused) + get(&tally.unresolved);
    let left = report.rows.saturating_sub(ended);
    println!(
        "{} rows in {:.1} s: {} issued ({} of them before), {} refused, {} unresolved, {} retried.",
        report.rows,
        took.as_secs_f64(),
        get(&tally.issued),
        get(&tally.recorded),
        get(&tally.refused),
        get(&tally.unresolved),
        get(&tally.retried)
    );
    println!("Results: {}", results.display());
    if let Some(halt) = line.halt() {
        eprintln!("stopped: {halt}");
        let new = get(&tally.issued).saturating_sub(get(&tally.recorded));
        if matches!(halt, Halt::Key(_)) && new == 0 {
            return Exit::Unusable;
        }
    }
    if left > 0 || get(&tally.unresolved) > 0 {
        eprintln!(
            "{} rows are not finished ({taken} were taken). Run the same command again to go on: finished rows are \
             not issued twice.",
            left + get(&tally.unresolved)
        );
        return Exit::Unfinished;
    }
    if get(&tally.refused) > 0 { Exit::Refused } else { Exit::Success }
}
