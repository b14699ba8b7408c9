//! `embosser issue MANIFEST`: every row becomes exactly one card; run again to resume.

mod carry;
pub(crate) mod earlier;
pub(super) mod run;
mod start;

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::confirm::{WithoutTerminal, confirmed};
use super::connect::connect;
use super::manifest::{Leniency, ReadingArgs, Verb};
use super::signals::say;
use super::telling::Telling;
use crate::account::Access;
use crate::config::{Config, place, seconds};
use crate::job::Batch;
use crate::ledger::{Ledger, Scope};
use crate::manifest::batch::Jobs;
use crate::manifest::batch::{SecondCards, digest_of};
use crate::manifest::checked::CheckedManifest;
use crate::manifest::persons::Persons;
use crate::manifest::{CheckOptions, CheckReport};
use crate::remedy::TryAgain;
use crate::stripe::Mode;
use crate::webhooks::{About, Receivers, Webhooks};
use run::{Opening, Run, What};
use start::Start;

/// Options of `embosser issue`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV or a spreadsheet (XLSX, XLS, ODS) with a header row; - is standard input.
    pub manifest: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Which account it is for.
    #[command(flatten)]
    pub account: super::accounts::AccountArgs,
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
    /// Of rows that were refused before, try only those again that need no change; the others stay refused.
    #[arg(long, conflicts_with = "second_cards")]
    pub retry: bool,
    /// How many cards the manifest cancels: that cannot be undone.
    #[arg(long, value_name = "N")]
    pub yes_cancel: Option<u64>,
    /// Wait until then, within 7 days: a time with its offset, as 2026-12-01T05:00Z.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// End at once if another process calls for this account, instead of waiting until it ends.
    #[arg(long)]
    pub no_wait: bool,
    /// Run this by `sh -c` when it has ended, however it did: what is told of it comes on standard input, as JSON.
    #[arg(long, value_name = "COMMAND")]
    pub notify_command: Option<String>,
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
    let receivers = Receivers::read(&config.webhooks)?.with_command(args.notify_command.clone());
    let start = args.start.as_deref().map(Start::of).transpose()?;
    say(&format!("ledger: {}", place::shown(&config.ledger.url)));
    let batch = super::manifest::batch_of(&args.manifest, args.batch.as_deref())?;
    let manifest = super::manifest::open(&args.manifest, args.reading.reading()).await?;
    let options = CheckOptions { digest: true };
    let verb = Verb { infinitive: "issue", participle: "issued" };
    let leniency = Leniency { skip_invalid: args.skip_invalid, strict: args.strict };
    let mut report = super::manifest::check(&manifest, options, leniency, verb).await?;
    report.amounts.iter().for_each(|amounts| say(amounts));
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
    if !confirm(args.yes, &config, access.mode(), &report)? {
        return Err("nothing was issued".into());
    }
    let mut stopped = CancellationToken::new();
    if let Some(start) = &start {
        stopped = start.wait().await?;
        if stopped.is_cancelled() {
            say("stopped before its start; nothing was issued");
            return Ok(Exit::Unfinished);
        }
    }
    let patience = seconds(config.ledger.patience_seconds);
    let ledger =
        Ledger::open_patient(&config.ledger.url, patience).await.map_err(|error| error.to_string())?;
    let telling = Telling::begin(receivers, &ledger)?;
    let mode = if access.mode() == Mode::Live { "live" } else { "test" };
    // As far as it is known before Stripe was asked.
    let scope = Scope::new(mode, access.host(), config.stripe.account.as_deref());
    // However it ends, that is told, and the ledger's file is left whole.
    let issuing = async {
        if start.is_some() {
            // Days may have gone by: what was well may be so no more.
            report = super::manifest::check(&manifest, options, leniency, verb).await?;
        }
        let manifest = CheckedManifest::new(manifest, &report);
        let of_ledger = (&ledger, telling.webhooks());
        issue((&args, stopped), &config, access, of_ledger, batch.clone(), manifest, &report).await
    };
    let ended = issuing.await;
    if !telling.webhooks().has_ended() {
        let reason = match &ended {
            Err(reason) => reason,
            Ok(_) => "it was stopped before anything was issued, or Stripe could not be reached",
        };
        telling.webhooks().never_began(&scope, about(&batch, &report), reason).await;
    }
    telling.end().await;
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
    (ledger, webhooks): (&Ledger, &Webhooks),
    batch: Batch,
    manifest: CheckedManifest,
    report: &CheckReport,
) -> Result<Exit, String> {
    let opening = Opening { metrics: args.metrics, reconcile_first: args.reconcile_first };
    let Some(run) = Run::open(access, config, ledger, opening).await? else { return Ok(Exit::Unfinished) };
    run.stop_with(was_stopped);
    // From here on, what the ledger says is changed by nobody else.
    let Some(lease) = run.lease(args.no_wait).await? else { return Ok(Exit::Unfinished) };
    // A rehearsal has a file of its own.
    let ending = if args.sandbox { "sandbox.results.csv" } else { "results.csv" };
    let of_manifest = || super::manifest::results_of(&args.manifest, &batch, ending);
    let results = args.results.clone().unwrap_or_else(of_manifest);
    if !args.reconcile_first && !args.sandbox {
        earlier::hold_results_against(ledger, run.scope(), &results).await?;
    }
    let second = if args.second_cards { SecondCards::Wanted } else { SecondCards::Refused };
    let again = if args.retry { TryAgain::Unchanged } else { TryAgain::All };
    let what = What { batch, manifest, report, second, again, strict: args.strict, results };
    run.carry((ledger, webhooks), lease, what).await
}

/// What is told of a file.
fn about(batch: &Batch, report: &CheckReport) -> About {
    About { batch: batch.to_string(), digest: digest_of(report), rows: report.rows, pins: report.pins }
}

/// Whose the rows are, where the manifest's columns say so.
pub(super) async fn persons_of(manifest: &CheckedManifest, jobs: Jobs) -> Result<Persons, String> {
    let manifest = manifest.clone();
    let reading = tokio::task::spawn_blocking(move || Persons::of(&manifest, jobs));
    reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Before live cards: how many, how fast, until when, and whether.
pub(super) fn confirm(yes: bool, config: &Config, mode: Mode, report: &CheckReport) -> Result<bool, String> {
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
    confirmed(&about, question, yes, &WithoutTerminal::Refused(refused))
}
