//! `embosser serve`: the HTTP API and its page, with the line in this process, or before RabbitMQ.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::connect::connect;
use super::signals::{HangUp, StopSignals, on_hang_up, say};
use crate::account::{Account, Patience, Purpose, Runs};
use crate::clock::Clock;
use crate::config::{Config, JobsTo, place, seconds};
use crate::ledger::{Ledger, Scope};
use crate::line::{Halt, Line};
use crate::metrics::exporter::Exporter;
use crate::pace::Pacer;
use crate::pin_links::LinksWhen;
use crate::queue::Broker;
use crate::serve::access::Role;
use crate::serve::intake::{Intake, Queue, WorkerScope};
use crate::serve::stripe_events::EventSecret;
use crate::serve::tokens::Tokens;
use crate::serve::{self, Server};
use crate::stripe::{Mode, host_of};
use crate::webhooks::{Receivers, Webhooks};

/// How long events are delivered at the end: service managers kill what takes long to stop.
const DELIVER_AT_STOP: Duration = Duration::from_secs(3);

/// How long whoever asks over HTTP waits for a database that is away: then they are told so, and may ask again.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

/// Options of `embosser serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which account it serves.
    #[command(flatten)]
    pub account: super::accounts::AccountArgs,
    /// Issue against a built-in stand-in for Stripe; no account needed, no card is real.
    #[arg(long)]
    pub sandbox: bool,
    /// Address and port to listen on [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = super::arguments::address)]
    pub listen: Option<SocketAddr>,
    /// Where outcomes are recorded: sqlite://FILE or postgres://… [default: ledger.url, or the user's own place].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
    /// Calls per second, for the endpoint and the account.
    #[arg(long, value_name = "N", value_parser = super::arguments::rate)]
    pub rate: Option<f64>,
    /// Look for each row's card at Stripe before the first call: after the ledger was lost.
    #[arg(long)]
    pub reconcile_first: bool,
}

/// Serves until it is told to stop.
///
/// # Errors
/// A sentence for the operator; nothing was served then.
pub async fn run(args: Args, mut config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    // From the first moment on: one that comes before there is anything to read anew must not end the process.
    let (hung_up, mut hang_ups) = tokio::sync::mpsc::channel(1);
    on_hang_up(move || {
        let _ = hung_up.try_send(());
    })?;
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    let mut config = super::arguments::with_options(config, args.rate, args.ledger.as_deref())?;
    tracing::info!("ledger: {}", place::shown(&config.ledger.url));
    let tokens = match &config.http.tokens_file {
        Some(file) => Tokens::read(file).map_err(|error| error.to_string())?,
        None => Tokens::none(),
    };
    let listen = config.http.listen;
    if tokens.is_none() && !listen.ip().is_loopback() {
        return Err(format!(
            "{listen} can be reached from other machines: name a file of tokens in http.tokens_file (see `embosser token`)"
        ));
    }
    let (mode, to_queue) = match (args.sandbox, config.http.jobs_to) {
        (true, _) => ("sandbox", None),
        (false, JobsTo::Line) if is_live(api_key.as_ref()) => ("live", None),
        (false, JobsTo::Line) => ("test", None),
        (false, JobsTo::RabbitmqTest) => ("test", Some("test")),
        (false, JobsTo::RabbitmqLive) => ("live", Some("live")),
    };
    if mode == "live" && tokens.is_none() {
        return Err(
            "live cards need tokens: whoever is on this machine could issue them. Name a file of tokens in \
             http.tokens_file (see `embosser token`)"
                .into(),
        );
    }
    approvable(&config, &tokens)?;
    let event_secret = event_secret(&config)?;
    let receivers = Receivers::read(&config.webhooks)?;
    let exporter = Exporter::install(crate::logging::dropped)?;
    exporter.upkeep();
    let patience = seconds(config.ledger.patience_seconds);
    let open = async |url: &str, patience: Duration| {
        Ledger::open_patient(url, patience).await.map_err(|error| error.to_string())
    };
    // Whoever connects before it is known whose cards these are waits for a moment.
    let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("embosser serves on http://{address} ({mode})");
    let views = open(&config.ledger.url, patience.min(VIEWS_PATIENCE)).await?;
    let (intake, ledger, sandbox) = match to_queue {
        Some(mode) => (queue(&config, mode, &views).await?, None, None),
        None => {
            let (access, sandbox) = connect(args.sandbox, &mut config, api_key).await?;
            if let Some(sandbox) = &sandbox {
                // To be tried out as it is: the pages are this server's own, and the sandbox shows PINs.
                let page = &mut config.pin_page;
                page.url.get_or_insert_with(|| format!("http://{address}"));
                page.publishable_key = Some("pk_test_sandbox".into());
                page.stripe_js = format!("{}/v3/", sandbox.elements_url());
            }
            let ledger = open(&config.ledger.url, patience).await?;
            let pace = access.pace(&config.pace, &Pacer::start());
            let (runs, patience) = (Runs::Forever, Patience::Unbounded);
            let links = LinksWhen::Asked;
            let purpose = Purpose { runs, patience, reconcile_first: args.reconcile_first, links };
            let account = Account::open(access, &config, &ledger, pace, purpose).await;
            let account = account.map_err(|error| error.to_string())?;
            (Intake::Line(account.line().clone()), Some(ledger), sandbox)
        }
    };
    if let (Intake::Queue(_), Some(url)) = (&intake, &config.pin_page.url) {
        tracing::info!(
            "links for cardholders are given out here; the pages behind them are those of the `embosser serve` with \
             http.jobs_to = \"line\" on the same ledger, at {url}"
        );
    }
    let webhooks = Webhooks::new(receivers, &views, &Clock::system())?;
    let account = config.stripe.account;
    let (http, pin_page) = (config.http, config.pin_page);
    let parts = serve::Parts {
        config: http,
        approval: config.approval,
        pin: config.pin,
        tokens,
        intake,
        views: views.clone(),
        mode,
        account,
        pin_page,
        event_secret,
        webhooks: webhooks.clone(),
        exporter,
    };
    let server = Server::new(parts);
    let stopped = server.clone();
    tokio::spawn(StopSignals::listen(HangUp::SeenTo)?.obey(move || {
        tracing::info!("stopping: calls in flight are finished");
        stopped.stop();
    }));
    let reloaded = server.clone();
    tokio::spawn(async move {
        while hang_ups.recv().await.is_some() {
            reloaded.reload_tokens("SIGHUP").await;
        }
    });
    let stop_telling = CancellationToken::new();
    let telling = tokio::spawn(webhooks.clone().run(stop_telling.clone()));
    let halted = Arc::new(OnceLock::new());
    if let (Intake::Line(line), Some(ledger)) = (server.intake(), &ledger) {
        let ends = end_without_ledger(line.clone(), ledger.clone(), server.clone(), halted.clone());
        tokio::spawn(ends);
    }
    server.run(listener).await;
    // All that was under way has ended, and that is told for a moment more; the rest by the next server.
    stop_telling.cancel();
    let _ = telling.await;
    if let Err(error) = webhooks.deliver_for(DELIVER_AT_STOP).await {
        tracing::warn!(%error, "what webhooks are still to be told cannot be read");
    }
    webhooks.commands_ended().await;
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    views.close().await;
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    match halted.get() {
        Some(halt) => {
            say(&format!("embosser: stopped: {halt}"));
            Ok(Exit::Unfinished)
        }
        None => Ok(Exit::Success),
    }
}

/// Ends the server once its database has been away for longer than it is waited for, or refuses what it is asked: whoever looks after the process is to start it
/// again, as one that only answers that nothing is issued any more is of no use.
async fn end_without_ledger(line: Arc<Line>, ledger: Ledger, server: Server, halted: Arc<OnceLock<Halt>>) {
    line.stopped().await;
    let Some(halt @ Halt::Ledger { may_pass: true, .. }) = line.halt() else { return };
    if ledger.is_on_servers() {
        let _ = halted.set(halt);
        server.stop();
    }
}

/// Whether batches that must be approved can be.
fn approvable(config: &Config, tokens: &Tokens) -> Result<(), String> {
    if !config.approval.required {
        return Ok(());
    }
    if tokens.is_none() {
        return Err("approval.required needs tokens, which tell who uploads a batch from who approves it: name a file of \
                    tokens in http.tokens_file (see `embosser token`), or set approval.required = false"
            .into());
    }
    if !tokens.have(Role::Approve) {
        tracing::warn!(
            "approval.required is set, and no token has the role approve: nothing can be issued until one does"
        );
    }
    Ok(())
}

/// What Stripe signs its events with: from the environment or the configured file; never from an argument.
fn event_secret(config: &Config) -> Result<Option<EventSecret>, String> {
    /// As Stripe's own examples call it.
    const VARIABLE: &str = "STRIPE_WEBHOOK_SECRET";
    let (secret, place) = match (std::env::var(VARIABLE), &config.stripe_events.secret_file) {
        (Ok(secret), _) if !secret.trim().is_empty() => (secret, VARIABLE.to_owned()),
        (_, Some(file)) => {
            let place = format!("stripe_events.secret_file {}", file.display());
            (std::fs::read_to_string(file).map_err(|error| format!("{place}: {error}"))?, place)
        }
        (_, None) => return Ok(None),
    };
    EventSecret::of(&secret.into()).map(Some).map_err(|reason| format!("{place} {reason}"))
}

fn is_live(api_key: Option<&SecretString>) -> bool {
    api_key.is_some_and(|key| Mode::of(key) == Mode::Live)
}

/// The queue of a worker with a key of this mode.
async fn queue(config: &Config, mode: &'static str, ledger: &Ledger) -> Result<Intake, String> {
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?;
    let host = host_of(&config.stripe.api_url)?;
    let account = config.stripe.account.as_deref().or(config.stripe.account_id.as_deref());
    let scope = WorkerScope::unknown(Scope::new(mode, &host, account));
    let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
    let queue = Queue::open(&broker, scope, Clock::system(), per_second).await;
    let queue = Arc::new(queue.map_err(|error| format!("{}: {error}", broker.shown()))?);
    if account.is_none() {
        learn_scope(&queue, ledger, mode, &host).await?;
    }
    Ok(Intake::Queue(queue))
}

/// Learns from the ledger whose cards the worker makes; until it has run for the first time, that is looked for again.
async fn learn_scope(
    queue: &Arc<Queue>,
    ledger: &Ledger,
    mode: &'static str,
    host: &str,
) -> Result<(), String> {
    /// Between two looks.
    const LOOK_EVERY: Duration = Duration::from_millis(500);
    let look = async |ledger: &Ledger, host: &str| -> Result<Option<Scope>, String> {
        let accounts = ledger.accounts(mode, host).await.map_err(|error| error.to_string())?;
        match accounts.as_slice() {
            [] => Ok(None),
            [account] => Ok(Some(Scope::new(mode, host, Some(account)))),
            several => Err(format!(
                "the ledger has cards of {} accounts; say which one the worker acts for: stripe.account_id",
                several.len()
            )),
        }
    };
    if let Some(scope) = look(ledger, host).await? {
        queue.scope.is(scope);
        return Ok(());
    }
    let (queue, ledger, host) = (queue.clone(), ledger.clone(), host.to_owned());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = queue.stopping.cancelled() => return,
            }
            match look(&ledger, &host).await {
                Ok(None) => {}
                Ok(Some(scope)) => return queue.scope.is(scope),
                Err(reason) => tracing::warn!(reason, "whose cards the worker makes is not known"),
            }
        }
    });
    Ok(())
}
