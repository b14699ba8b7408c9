//! `embosser worker`: jobs from RabbitMQ, one card each; for one account, or for several ([`several`]).

mod several;

use std::path::PathBuf;

use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::accounts::watched::Watched;
use super::accounts::{self, AccountArgs, Stripe};
use super::connect::connect;
use super::signals::{HangUp, StopSignals, on_hang_up, say};
use crate::account::{Account, Patience, Purpose, Runs, ScopeError};
use crate::config::{Config, WorkerConfig, place, seconds};
use crate::ledger::Ledger;
use crate::line::{Halt, Line};
use crate::metrics::exporter::Exporter;
use crate::pace::Pacer;
use crate::pin_links::{LinksWhen, Owing};
use crate::queue::Broker;
use crate::queue::message::Terms;
use crate::worker::{Worker, health};
use several::Anew;

/// Options of `embosser worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The one account it works for; without it, all that are configured.
    #[command(flatten)]
    pub account: AccountArgs,
    /// Issue against a built-in stand-in for Stripe; no account needed, no card is real.
    #[arg(long)]
    pub sandbox: bool,
    /// Where outcomes are recorded: sqlite://FILE or postgres://… [default: ledger.url, or the user's own place].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Calls per second, for the endpoint and the account.
    #[arg(long, value_name = "N", value_parser = super::arguments::rate)]
    pub rate: Option<f64>,
    /// Look for each job's card at Stripe before the first call: after the ledger was lost.
    #[arg(long)]
    pub reconcile_first: bool,
}

impl Args {
    /// What the line is for.
    fn purpose(&self) -> Purpose {
        Purpose {
            runs: Runs::Forever,
            patience: Patience::Unbounded,
            reconcile_first: self.reconcile_first,
            links: LinksWhen::AtOnce,
        }
    }
}

/// Works until SIGTERM or Ctrl-C; a second one ends it at once. The accounts are read anew from the configuration `file` when it or
/// theirs change, and at SIGHUP, where there are several.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: Args, config: Config, file: Option<PathBuf>) -> Result<Exit, String> {
    // If only one is listed, too: there may be more of them tomorrow, and what is measured is to be called the same then.
    if args.account.account.is_none() && config.accounts.are_configured() {
        let watched = Watched::of(file.as_deref(), &config);
        let accounts = config.accounts().map_err(|error| error.to_string())?;
        let (hung_up, hang_ups) = mpsc::channel(1);
        on_hang_up(move || {
            // One that waits to be seen to is as good as two.
            let _ = hung_up.try_send(());
        })?;
        return several::run(args, config, &accounts, Anew { file, watched, hang_ups }).await;
    }
    // The end of a terminal, or somebody who takes it for a server that reads its configuration anew, ends no calls.
    on_hang_up(|| tracing::info!("SIGHUP: nothing is read anew; going on"))?;
    let (config, api_key) = accounts::one(&config, &args.account, Stripe::of(args.sandbox))?;
    for_one(args, config, api_key).await
}

async fn for_one(args: Args, config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    let mut config = super::arguments::with_options(config, args.rate, args.ledger.as_deref())?;
    tracing::info!("ledger: {}", place::shown(&config.ledger.url));
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?;
    let (access, sandbox) = connect(args.sandbox, &mut config, api_key).await?;
    let ledger = match Ledger::open_patient(&config.ledger.url, seconds(config.ledger.patience_seconds)).await
    {
        Ok(ledger) => ledger,
        Err(error) if error.may_pass() => {
            if let Some(sandbox) = sandbox {
                sandbox.stop().await;
            }
            return Ok(again(&error));
        }
        Err(error) => return Err(error.to_string()),
    };
    ladder_takes_over(&mut config);
    let pace = access.pace(&config.pace, &Pacer::start());
    let account = match Account::open(access, &config, &ledger, pace, args.purpose()).await {
        Ok(account) => account,
        Err(ScopeError::Unreachable(reason)) => return Ok(again(&reason)),
        Err(ScopeError::Unusable(reason)) => return Err(reason),
    };
    let exporter = Exporter::install(crate::logging::dropped)?;
    exporter.upkeep();
    let line = account.line().clone();
    let worker = Worker::new(line.clone(), broker, terms(&line, &config), &config.worker, Owing::by(&ledger));
    let router = health::router(line, worker.ready(), &exporter);
    let http = serve(router, &config.worker).await?;
    let stop = stop_signal(&ledger)?;
    let ended = worker.run(stop).await;
    http.abort();
    ledger.close().await;
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    match ended {
        Ok(()) => Ok(Exit::Success),
        Err(halt @ (Halt::Key(_) | Halt::SameRefusals(_) | Halt::Ledger { may_pass: false, .. })) => {
            Err(format!("stopped: {halt}"))
        }
        Err(halt @ (Halt::Ledger { may_pass: true, .. } | Halt::Unreachable(_))) => Ok(again(&halt)),
    }
}

/// What takes longer waits on the ladder, where it keeps no other one out.
fn ladder_takes_over(config: &mut Config) {
    config.retry.elapsed_seconds_max = config.retry.elapsed_seconds_max.min(config.worker.job_seconds_max);
}

/// Which messages are taken for jobs of this line.
fn terms(line: &Line, config: &Config) -> Terms {
    let scope = &line.parts().scope;
    let message_kib_max = usize::try_from(config.worker.message_kib_max).unwrap_or(usize::MAX);
    Terms {
        account: scope.account().map(ToOwned::to_owned),
        mode: Some(scope.mode().to_owned()),
        pin_age_max: seconds(config.pin.max_age_seconds),
        message_bytes_max: message_kib_max.saturating_mul(1024),
    }
}

/// Serves health and metrics.
async fn serve(
    router: axum::Router,
    config: &WorkerConfig,
) -> Result<tokio::task::JoinHandle<std::io::Result<()>>, String> {
    let listen = config.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| format!("worker.listen {listen}: {error}"))?;
    Ok(tokio::spawn(async move { axum::serve(listener, router).await }))
}

/// What is cancelled when the process is told to stop.
fn stop_signal(ledger: &Ledger) -> Result<CancellationToken, String> {
    let stop = CancellationToken::new();
    let (stopped, waiting) = (stop.clone(), ledger.clone());
    tokio::spawn(StopSignals::listen(HangUp::SeenTo)?.obey(move || {
        tracing::info!("stopping: calls in flight are finished");
        waiting.stop_waiting();
        stopped.cancel();
    }));
    Ok(stop)
}

/// What stopped it may pass, as a database that is away does: whoever looks after this process is to start it again. It takes
/// no job before its ledger could be written to, so that this costs no job a delivery.
fn again(reason: &dyn std::fmt::Display) -> Exit {
    say(&format!("embosser: stopped: {reason}"));
    Exit::Unfinished
}
