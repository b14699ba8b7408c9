//! `embosser cancel BATCH`: cancels the cards that a batch's own jobs made; run again to resume.
//!
//! What is cancelled is read from the ledger, and issued as a manifest of changes, under the name `BATCH.cancel`. How many
//! cards that is must be said beforehand, and is counted again once nobody else calls for the account.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use super::Exit;
use super::connect::connect;
use super::issue::confirm;
use super::issue::run::{Opening, Run, What};
use super::manifest::{Leniency, Verb};
use super::signals::say;
use super::telling::Telling;
use crate::account::Access;
use crate::clock::Clock;
use crate::config::{Config, place};
use crate::job::Batch;
use crate::ledger::{Ledger, Scope};
use crate::manifest::batch::SecondCards;
use crate::manifest::cancellation::{CancelPlan, Cards, manifest_of};
use crate::manifest::checked::CheckedManifest;
use crate::manifest::snapshot::Snapshot;
use crate::manifest::{CheckOptions, CheckReport, Manifest, Reading, counted};
use crate::remedy::TryAgain;
use crate::webhooks::{Receivers, Webhooks};

/// Options of `embosser cancel`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The batch whose cards are to be cancelled.
    pub batch: String,
    /// Which account it is for.
    #[command(flatten)]
    pub account: super::accounts::AccountArgs,
    /// How many cards that is: it cannot be undone. Without it, what would be done is said, and nothing is done.
    #[arg(long, value_name = "N")]
    pub yes_cancel: Option<u64>,
    /// Answer yes to the question before live cards are changed.
    #[arg(long)]
    pub yes: bool,
    /// Where to write the results [default: BATCH.cancel.results.csv in the current folder].
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// The ledger that the batch is in: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Calls per second, for the endpoint and the account.
    #[arg(long, value_name = "N", value_parser = super::arguments::rate)]
    pub rate: Option<f64>,
    /// End at once if another process calls for this account, instead of waiting until it ends.
    #[arg(long)]
    pub no_wait: bool,
}

/// Cancels the batch's cards.
///
/// # Errors
/// A sentence for the operator; nothing was done then.
pub async fn run(args: Args, config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    let mut config = super::arguments::with_options(config, args.rate, args.ledger.as_deref())?;
    let batch = Batch::new(args.batch.as_str()).map_err(|error| format!("the batch's name {error}"))?;
    let receivers = Receivers::read(&config.webhooks)?;
    let ledger = super::status::open(None, &config).await?;
    say(&format!("ledger: {}", place::shown(&config.ledger.url)));
    let telling = Telling::begin(receivers, &ledger)?;
    let ended = match connect(false, &mut config, api_key).await {
        Ok((access, _)) => cancel(&args, &config, access, (&ledger, telling.webhooks()), batch).await,
        Err(reason) => Err(reason),
    };
    telling.end().await;
    ledger.close().await;
    ended
}

async fn cancel(
    args: &Args,
    config: &Config,
    access: Access,
    (ledger, webhooks): (&Ledger, &Webhooks),
    batch: Batch,
) -> Result<Exit, String> {
    let mode = access.mode();
    let Some(run) = Run::open(access, config, ledger, Opening::default()).await? else {
        return Ok(Exit::Unfinished);
    };
    let scope = run.scope();
    is_of_this_account(ledger, scope, &batch).await?;
    let plan = CancelPlan::of(ledger, scope, &batch, Clock::system().now()).await;
    let plan = plan.map_err(|error| error.to_string())?;
    let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
    plan.notes(per_second).iter().for_each(|note| say(note));
    if plan.cards == 0 {
        return Err("nothing was done".into());
    }
    is_said(args, plan.cards)?;
    let (_, report) = held(ledger, scope, &batch, &plan.canceling).await?;
    if !confirm(args.yes, config, mode, &report)? {
        return Err("nothing was done".into());
    }
    // Whoever else called for the account may have made cards of this batch, up to here.
    let Some(lease) = run.lease(args.no_wait).await? else { return Ok(Exit::Unfinished) };
    let (manifest, report) = held(ledger, scope, &batch, &plan.canceling).await?;
    is_said(args, report.cancels)?;
    let name = plan.canceling.as_str().replace('/', "_");
    let results = args.results.clone().unwrap_or_else(|| format!("{name}.results.csv").into());
    let what = What {
        batch: plan.canceling,
        manifest: CheckedManifest::new(manifest, &report),
        report: &report,
        second: SecondCards::Refused,
        again: TryAgain::All,
        strict: false,
        results,
    };
    run.carry((ledger, webhooks), lease, what).await
}

/// The number of cards must have been said, and be right.
fn is_said(args: &Args, cards: u64) -> Result<(), String> {
    let report = CheckReport { cancels: cards, ..CheckReport::default() };
    report
        .cancels_are_wanted(args.yes_cancel)
        .map_err(|reason| format!("{reason}; nothing was done. Pass --yes-cancel {cards} if that is meant"))
}

/// The key must be of the account that the batch's cards are of.
pub(super) async fn is_of_this_account(ledger: &Ledger, scope: &Scope, batch: &Batch) -> Result<(), String> {
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    let scopes: Vec<_> = counts.iter().filter(|counts| counts.batch == batch.as_str()).collect();
    if scopes.iter().any(|counts| counts.scope == scope.as_str()) {
        return Ok(());
    }
    let name = batch.as_str();
    if scopes.is_empty() {
        return Err(format!("the ledger has no batch {name:?}; `embosser status` lists those that it has"));
    }
    let others: Vec<_> = scopes.iter().map(|counts| counts.scope.as_str()).collect();
    Err(format!(
        "batch {name:?} is of another account than the API key: the batch of {}, the key of {}. Nothing was done; use that \
         account's key",
        others.join(" and of "),
        scope.as_str()
    ))
}

/// The manifest that cancels the batch's cards, as the ledger has them now, and its check.
async fn held(
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    canceling: &Batch,
) -> Result<(Arc<Manifest>, CheckReport), String> {
    let cards = Cards::of(ledger, scope, batch).map_err(|error| error.to_string())?;
    let text = manifest_of(cards).await.map_err(|error| error.to_string())?;
    let name = canceling.to_string();
    let manifest = Snapshot::held(Path::new(&name), text.as_slice(), &Reading::default())
        .and_then(|snapshot| Manifest::open_held(snapshot, &Reading::default()))
        .map_err(|error| error.to_string())?;
    let manifest = Arc::new(manifest);
    let leniency = Leniency { skip_invalid: false, strict: false };
    let verb = Verb { infinitive: "cancel", participle: "cancelled" };
    let report = super::manifest::check(&manifest, CheckOptions { digest: true }, leniency, verb).await?;
    if report.cancels == 0 {
        return Err(format!("batch {:?} has {}", batch.as_str(), counted(0, "card")));
    }
    Ok((manifest, report))
}
