//! `embosser worker`: jobs from RabbitMQ, one card each.

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::connect::connect;
use super::signals::{HangUp, StopSignals, on_hang_up, say};
use crate::account::{Account, Patience, Purpose, Runs, ScopeError};
use crate::config::{Config, place, seconds};
use crate::ledger::Ledger;
use crate::line::Halt;
use crate::metrics::exporter::Exporter;
use crate::pin_links::LinksWhen;
use crate::queue::Broker;
use crate::queue::message::Terms;
use crate::worker::{Worker, health};

/// Options of `embosser worker`.
#[derive(Debug, clap::Args)]
pub struct Args {
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

/// Works until SIGTERM or Ctrl-C; a second one ends it at once.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: Args, config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    // The end of a terminal, or somebody who takes it for a server that reads its configuration anew, ends no calls.
    on_hang_up(|| tracing::info!("SIGHUP: nothing is read anew; going on"))?;
    let mut config = super::arguments::with_options(config, args.rate, args.ledger.as_deref())?;
    tracing::info!("ledger: {}", place::shown(&config.ledger.url));
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?;
    let (access, sandbox) = connect(args.sandbox, &mut config, api_key).await?;
    let ledger = match Ledger::open(&config.ledger.url).await {
        Ok(ledger) => ledger,
        Err(error) if error.may_pass() => {
            if let Some(sandbox) = sandbox {
                sandbox.stop().await;
            }
            return Ok(again(&error));
        }
        Err(error) => return Err(error.to_string()),
    };
    // What takes longer waits on the ladder, where it keeps no other one out.
    config.retry.elapsed_seconds_max = config.retry.elapsed_seconds_max.min(config.worker.job_seconds_max);
    let pace = access.pace(&config.pace);
    let (runs, patience) = (Runs::Forever, Patience::Unbounded);
    let links = LinksWhen::AtOnce;
    let purpose = Purpose { runs, patience, reconcile_first: args.reconcile_first, links };
    let account = match Account::open(access, &config, &ledger, pace, purpose).await {
        Ok(account) => account,
        Err(ScopeError::Unreachable(reason)) => return Ok(again(&reason)),
        Err(ScopeError::Unusable(reason)) => return Err(reason),
    };
    let exporter = Exporter::install(crate::logging::dropped)?;
    exporter.upkeep();
    let line = account.line().clone();
    let message_kib_max = usize::try_from(config.worker.message_kib_max).unwrap_or(usize::MAX);
    let terms = Terms {
        account: config.stripe.account.clone(),
        pin_age_max: seconds(config.pin.max_age_seconds),
        message_bytes_max: message_kib_max.saturating_mul(1024),
    };
    let worker = Worker::new(line.clone(), broker, terms, &config.worker);
    let listen = config.worker.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| format!("worker.listen {listen}: {error}"))?;
    let router = health::router(line, worker.ready(), &exporter);
    let http = tokio::spawn(async move { axum::serve(listener, router).await });
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(StopSignals::listen(HangUp::SeenTo)?.obey(move || {
        tracing::info!("stopping: calls in flight are finished");
        stopped.cancel();
    }));
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

/// What stopped it may pass, as a database that is away does: whoever looks after this process is to start it again. It takes
/// no job before its ledger could be written to, so that this costs no job a delivery.
fn again(reason: &dyn std::fmt::Display) -> Exit {
    say(&format!("embosser: stopped: {reason}"));
    Exit::Unfinished
}
