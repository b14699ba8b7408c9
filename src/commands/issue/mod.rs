//! `embosser issue MANIFEST`: every row becomes exactly one card; run again to resume.

mod carry;
pub(crate) mod earlier;
mod start;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::confirm::{WithoutTerminal, confirmed};
use super::connect::{FIRST_CONTACT_MAX, connect};
use super::manifest::{Leniency, ReadingArgs, Verb};
use super::progress::progress;
use super::signals::{HangUp, StopSignals, print, say};
use crate::account::{Access, Account, Patience, Purpose, Runs, ScopeError};
use crate::config::{Config, place, seconds};
use crate::job::Batch;
use crate::ledger::{BatchRow, Ledger};
use crate::line::{Halt, LeaseUse, Line};
use crate::manifest::batch::{Jobs, SecondCards, digest_of};
use crate::manifest::checked::CheckedManifest;
use crate::manifest::persons::Persons;
use crate::manifest::{CheckOptions, CheckReport};
use crate::metrics::exporter::Exporter;
use crate::operation::Operation;
use crate::pace::CircuitState;
use crate::pin_links::LinksWhen;
use crate::results::Results;
use crate::stripe::Mode;
use crate::tally::{Counts, Tally};
use carry::{Carried, ResultsOfRun, carry_all};
use start::Start;

/// Between two looks whether Stripe was ever reached, once it should have been.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Options of `embosser issue`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV or a spreadsheet (XLSX, XLS, ODS) with a header row; - is standard input.
    pub manifest: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Issue against a built-in stand-in for Stripe; no account needed, no card is real.
    #[arg(long)]
    pub sandbox: bool,
    /// Where to write the results [default: the manifest's name with .results.csv, or .sandbox.results.csv].
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Where outcomes are recorded: sqlite://FILE or postgres://… [default: ledger.url, or the user's own place].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Names the batch: with a row's id it names the job [default: the manifest's name].
    #[arg(long)]
    pub batch: Option<String>,
    /// Calls per second, for the endpoint and the account.
    #[arg(long, value_name = "N", value_parser = super::arguments::rate)]
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
    #[arg(long, value_name = "ADDR", value_parser = super::arguments::address)]
    pub metrics: Option<SocketAddr>,
    /// Issue the valid rows of a manifest that has invalid ones.
    #[arg(long)]
    pub skip_invalid: bool,
    /// Take warnings for problems.
    #[arg(long)]
    pub strict: bool,
    /// Issue rows again that were issued before under other names: second cards.
    #[arg(long)]
    pub second_cards: bool,
    /// How many cards the manifest cancels: that cannot be undone.
    #[arg(long, value_name = "N")]
    pub yes_cancel: Option<u64>,
    /// Wait until then, within 7 days: a time with its offset, as 2026-12-01T05:00Z.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// End at once if another process calls for this account, instead of waiting until it ends.
    #[arg(long)]
    pub no_wait: bool,
}

/// Issues the manifest.
///
/// # Errors
/// A sentence for the operator; nothing was issued then.
pub async fn run(args: Args, mut config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    if let Some(concurrency) = args.concurrency {
        config.pace.concurrency = concurrency;
    }
    let mut config = super::arguments::with_options(config, args.rate, args.ledger.as_deref())?;
    let start = args.start.as_deref().map(Start::of).transpose()?;
    say(&format!("ledger: {}", place::shown(&config.ledger.url)));
    let batch = super::manifest::batch_of(&args.manifest, args.batch.as_deref())?;
    let manifest = super::manifest::open(&args.manifest, args.reading.reading()).await?;
    let options = CheckOptions { digest: true };
    let verb = Verb { infinitive: "issue", participle: "issued" };
    let leniency = Leniency { skip_invalid: args.skip_invalid, strict: args.strict };
    let mut report = super::manifest::check(&manifest, options, leniency, verb).await?;
    report.cancels_are_wanted(args.yes_cancel).map_err(|reason| {
        format!("{reason}; nothing was done. Pass --yes-cancel {} if that is meant", report.cancels)
    })?;
    if let Some(start) = &start {
        start.suits(&report, config.pin.max_age_seconds)?;
    }
    if report.pins_to_choose > 0 && config.pin_page.url.is_none() {
        return Err(format!("{}; nothing was issued", super::check::no_pin_page(&report)));
    }
    let (access, sandbox) = connect(args.sandbox, &mut config, api_key).await?;
    if !confirm(&args, &config, access.mode(), &report)? {
        return Err("nothing was issued".into());
    }
    let mut stopped = CancellationToken::new();
    if let Some(start) = &start {
        stopped = start.wait().await?;
        if stopped.is_cancelled() {
            say("stopped before its start; nothing was issued");
            return Ok(Exit::Unfinished);
        }
        // Days may have gone by: what was well may be so no more.
        report = super::manifest::check(&manifest, options, leniency, verb).await?;
    }
    let ledger = Ledger::open(&config.ledger.url).await.map_err(|error| error.to_string())?;
    // However it ends, the ledger's file is left whole.
    let manifest = CheckedManifest::new(manifest, &report);
    let ended = issue((&args, stopped), &config, access, &ledger, batch, manifest, &report).await;
    ledger.close().await;
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    ended
}

/// Issues what was checked, and writes the results.
async fn issue(
    (args, was_stopped): (&Args, CancellationToken),
    config: &Config,
    access: Access,
    ledger: &Ledger,
    batch: Batch,
    manifest: CheckedManifest,
    report: &CheckReport,
) -> Result<Exit, String> {
    let exporter = args.metrics.map(|_| Exporter::install(crate::logging::dropped)).transpose()?;
    let pace = access.pace(&config.pace);
    if let (Some(exporter), Some(listen)) = (&exporter, args.metrics) {
        let shown = pace.clone();
        let serving = exporter.serve(listen, move || shown.show());
        serving.await.map_err(|error| format!("--metrics {listen}: {error}"))?;
    }
    let patience_max = FIRST_CONTACT_MAX.min(seconds(config.retry.elapsed_seconds_max));
    let patience = Patience::Bounded(config.retry.attempts_max, patience_max);
    let links = LinksWhen::AtOnce;
    let purpose = Purpose { runs: Runs::ToAnEnd, patience, reconcile_first: args.reconcile_first, links };
    let account = match Account::open(access, config, ledger, pace, purpose).await {
        Ok(account) => account,
        Err(ScopeError::Unusable(reason)) => return Err(reason),
        Err(ScopeError::Unreachable(reason)) => {
            say(&format!("stopped: {reason}"));
            return Ok(Exit::Unfinished);
        }
    };
    let (line, scope) = (account.line().clone(), account.scope().clone());
    let stopped = line.clone();
    tokio::spawn(StopSignals::listen(HangUp::Stops)?.obey(move || {
        stopped.stop();
        say("\nstopping: calls in flight are finished (again to stop at once)");
    }));
    let stopping = line.clone();
    tokio::spawn(async move {
        // Told while it waited for its start, or since.
        was_stopped.cancelled().await;
        stopping.stop();
    });
    // From here on, what the ledger says is changed by nobody else.
    let Some(lease) = hold_lease(&line, args).await? else { return Ok(Exit::Unfinished) };
    let second = if args.second_cards { SecondCards::Wanted } else { SecondCards::Refused };
    let recognition = earlier::recognise(ledger, &scope, &batch, second, &manifest).await?;
    earlier::print_recognised(&recognition, say);
    earlier::say_near(&recognition, args.strict)?;
    // A rehearsal has a file of its own.
    let ending = if args.sandbox { "sandbox.results.csv" } else { "results.csv" };
    let of_manifest = || super::manifest::results_of(&args.manifest, &batch, ending);
    let results_path = args.results.clone().unwrap_or_else(of_manifest);
    if !args.reconcile_first && !args.sandbox {
        earlier::hold_results_against(ledger, &scope, &results_path).await?;
    }
    let results = Results::create(&results_path, scope.as_str())
        .map_err(|error| format!("results file {}: {error}", results_path.display()))?;
    let persons = persons_of(&manifest, Jobs::new(batch.clone(), recognition.clone())).await?;
    let rows = earlier::rows_of_batch(ledger, &scope, &batch, &recognition).await?;
    let row = BatchRow {
        scope,
        batch: batch.clone(),
        digest: digest_of(report),
        rows,
        began: line.parts().clock.now(),
    };
    ledger.write_batch(row).await.map_err(|error| error.to_string())?;
    tokio::spawn(end_if_never_answered(line.clone(), account.access().host().to_owned(), patience_max));
    let tally = Arc::new(Tally::default());
    let (shown, operation) = (tally.clone(), manifest.manifest().operation());
    let bar = progress(report.rows, move || words(&shown, operation));
    // A task of its own, so that the rows and what becomes of them stay on the runtime's threads.
    let jobs = Jobs::new(batch, recognition);
    let results = ResultsOfRun { results, persons };
    let carried = tokio::spawn(carry_all(line.clone(), manifest, jobs, results, tally.clone(), bar.clone()));
    let carried = carried.await.map_err(|error| error.to_string())??;
    bar.finish_and_clear();
    let exit = summary(&line, report, operation, &tally, &carried, &results_path);
    drop(lease);
    Ok(exit)
}

/// Whose the rows are, where the manifest's columns say so.
pub(super) async fn persons_of(manifest: &CheckedManifest, jobs: Jobs) -> Result<Persons, String> {
    let manifest = manifest.clone();
    let reading = tokio::task::spawn_blocking(move || Persons::of(&manifest, jobs));
    reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Before live cards: how many, how fast, until when, and whether.
fn confirm(args: &Args, config: &Config, mode: Mode, report: &CheckReport) -> Result<bool, String> {
    if mode != Mode::Live {
        return Ok(true);
    }
    let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let seconds = report.calls() as f64 / per_second;
    let until = jiff::Zoned::now()
        .checked_add(jiff::SignedDuration::from_secs_f64(seconds))
        .map_or_else(|_| "far away".to_owned(), |until| until.strftime("%Y-%m-%d %H:%M:%S %Z").to_string());
    let (intent, question) = report.intent();
    let about = format!("{intent} at {per_second}/s, until about {until}.");
    let refused = "live cards need a yes: pass --yes where there is no terminal to ask on";
    confirmed(&about, question, args.yes, &WithoutTerminal::Refused(refused))
}

/// The account's lease for the whole run; none if the run was stopped while it waited.
async fn hold_lease(line: &Line, args: &Args) -> Result<Option<LeaseUse>, String> {
    match line.try_lease().await.map_err(|error| error.to_string())? {
        Ok(lease) => Ok(Some(lease)),
        Err(holder) if args.no_wait => Err(format!(
            "{holder} calls for this account; nothing was issued. Run it again when that one has ended"
        )),
        Err(holder) => {
            say(&format!("waiting: {holder} calls for this account"));
            let lease = line.hold_lease().await;
            if let (None, Some(halt)) = (&lease, line.halt()) {
                return Err(format!("stopped: {halt}"));
            }
            Ok(lease)
        }
    }
}

/// Whoever cannot be reached at all is not waited for without end.
async fn end_if_never_answered(line: Arc<Line>, host: String, time_max: Duration) {
    let mut wait = time_max;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = line.stopped() => return,
        }
        if line.was_answered() {
            return;
        }
        if line.parts().pace.health().circuit != CircuitState::Closed {
            let seconds = time_max.as_secs_f64();
            let reason =
                format!("{host} never answered in {seconds} s; look at the network and at stripe.api_url");
            return line.halt_with(Halt::Unreachable(reason));
        }
        // Too few calls have failed so far to say so.
        wait = CHECK_EVERY;
    }
}

/// How far a run has come, for the progress bar.
fn words(tally: &Tally, operation: Operation) -> String {
    let Counts { issued: done, refused, retried, .. } = tally.counts();
    format!("{done} {}, {refused} refused, {retried} retried", operation.done())
}

fn summary(
    line: &Line,
    report: &CheckReport,
    operation: Operation,
    tally: &Tally,
    carried: &Carried,
    results: &Path,
) -> Exit {
    let counts = tally.counts();
    let left = report.rows.saturating_sub(counts.ended());
    print(&format!(
        "{} rows in {:.1} s: {} {} ({} of them before), {} refused, {} unresolved, {} retried.",
        report.rows,
        carried.took.as_secs_f64(),
        counts.issued,
        operation.done(),
        counts.recorded,
        counts.refused,
        counts.unresolved,
        counts.retried
    ));
    if counts.awaiting_pin > 0 {
        print(&format!(
            "{} of them wait for their cardholders to choose a PIN: each link is in the results, in the column pin_link.",
            counts.awaiting_pin
        ));
    }
    if let Err(error) = &carried.written {
        say(&format!(
            "the results could not be written to {} ({error}); `embosser results` has them",
            results.display()
        ));
    } else {
        print(&format!("Results: {}", results.display()));
    }
    if let Some(halt) = line.halt() {
        say(&format!("stopped: {halt}"));
        let new = counts.issued.saturating_sub(counts.recorded);
        if matches!(halt, Halt::Key(_)) && new == 0 {
            return Exit::Unusable;
        }
    }
    if let Some(reason) = &carried.cut {
        say(&format!("stopped: {reason}"));
    }
    if left > 0 || counts.unresolved > 0 {
        say(&format!(
            "{} rows are not finished ({} were taken). Run the same command again to go on: finished rows are not \
             {} twice.",
            left + counts.unresolved,
            carried.taken,
            operation.done()
        ));
        return Exit::Unfinished;
    }
    if carried.written.is_err() || carried.cut.is_some() {
        return Exit::Unfinished;
    }
    if counts.refused > 0 { Exit::Refused } else { Exit::Success }
}
