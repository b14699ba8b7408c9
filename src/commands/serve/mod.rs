//! `embosser serve`: the HTTP API and its page, with the line in this process, or before RabbitMQ; for one account ([`one`]), or for
//! several ([`several`]).

mod one;
mod several;
mod worker_queue;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Exit;
use super::accounts::{self, Stripe};
use super::signals::{on_hang_up, print};
use crate::account::{Patience, Purpose, Runs};
use crate::clock::Clock;
use crate::config::{Config, JobsTo, place, seconds};
use crate::ledger::Ledger;
use crate::metrics::exporter::Exporter;
use crate::pin_links::LinksWhen;
use crate::sandbox::Sandbox;
use crate::serve;
use crate::serve::access::Role;
use crate::serve::capacity::Capacity;
use crate::serve::intake::Intake;
use crate::serve::stripe_events::EventSecret;
use crate::serve::tokens::Tokens;
use crate::webhooks::{Receivers, Webhooks};

/// How long events are delivered at the end: service managers kill what takes long to stop.
const DELIVER_AT_STOP: Duration = Duration::from_secs(3);

/// What is said where live cards could be issued without a token.
const LIVE_NEEDS_TOKENS: &str = "live cards need tokens: whoever is on this machine could issue them. Name a file of tokens in \
                                 http.tokens_file (see `embosser token`)";

/// How long whoever asks over HTTP waits for a database that is away: then they are told so, and may ask again.
const VIEWS_PATIENCE: Duration = Duration::from_secs(5);

/// Options of `embosser serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The one account that it serves; without it, all that are configured.
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

impl Args {
    /// What the line is for.
    fn purpose(&self) -> Purpose {
        Purpose {
            runs: Runs::Forever,
            patience: Patience::Unbounded,
            reconcile_first: self.reconcile_first,
            links: LinksWhen::Asked,
        }
    }

    /// In which mode it publishes to RabbitMQ, if it does.
    fn publishes(&self, config: &Config) -> Option<&'static str> {
        match (self.sandbox, config.http.jobs_to) {
            (true, _) | (false, JobsTo::Line) => None,
            (false, JobsTo::RabbitmqTest) => Some("test"),
            (false, JobsTo::RabbitmqLive) => Some("live"),
        }
    }
}

/// Serves until it is told to stop. Where several accounts are configured, they are read anew from the configuration `file` when it or
/// theirs change, and at SIGHUP.
///
/// # Errors
/// A sentence for the operator; nothing was served then.
pub async fn run(args: Args, config: Config, file: Option<PathBuf>) -> Result<Exit, String> {
    // From the first moment on: one that comes before there is anything to read anew must not end the process.
    let (hung_up, hang_ups) = mpsc::channel(1);
    on_hang_up(move || {
        let _ = hung_up.try_send(());
    })?;
    let config = with_listen(&args, config)?;
    let publishes = args.publishes(&config).is_some();
    if args.account.account.is_none() && config.accounts.are_configured() {
        let listed = config.accounts().map_err(|error| error.to_string())?;
        if listed.len() > 1 {
            return several::run(args, config, &listed, (file, hang_ups)).await;
        }
    }
    // One that only publishes needs no key.
    let (mut config, key) = if publishes && config.accounts.are_configured() {
        (accounts::one_without_key(&config, &args.account)?, None)
    } else {
        accounts::one(&config, &args.account, Stripe::of(args.sandbox))?
    };
    if let Some(rate) = args.rate {
        // The command line wins over the account's own limits, too.
        (config.pace.endpoint_per_second, config.pace.account_per_second) = (rate, rate);
    }
    one::run(args, config, key, hang_ups).await
}

/// What is the same for one account and for several.
struct Common {
    config: Config,
    tokens: Arc<Tokens>,
    event_secret: Option<Arc<EventSecret>>,
    exporter: Exporter,
    address: SocketAddr,
    views: Ledger,
    webhooks: Webhooks,
    capacity: Capacity,
}

/// What the command line says wins.
fn with_listen(args: &Args, mut config: Config) -> Result<Config, String> {
    if let Some(listen) = args.listen {
        config.http.listen = listen;
    }
    super::arguments::with_options(config, args.rate, args.ledger.as_deref())
}

impl Common {
    /// All that can be wrong without anybody having been asked is said before anything is served. `mode`: whose cards, in a word.
    async fn begin(config: Config, mode: &'static str) -> Result<(Self, TcpListener), String> {
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
        if mode == "live" && tokens.is_none() {
            return Err(LIVE_NEEDS_TOKENS.into());
        }
        approvable(&config, &tokens)?;
        let event_secret = event_secret(&config)?.map(Arc::new);
        let receivers = Receivers::read(&config.webhooks)?;
        let exporter = Exporter::install(crate::logging::dropped)?;
        exporter.upkeep();
        // Whoever connects before it is known whose cards these are waits for a moment.
        let listener = TcpListener::bind(listen).await.map_err(|error| format!("{listen}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        print(&format!("embosser serves on http://{address} ({mode})"));
        let patience = seconds(config.ledger.patience_seconds).min(VIEWS_PATIENCE);
        let views =
            Ledger::open_patient(&config.ledger.url, patience).await.map_err(|error| error.to_string())?;
        let webhooks = Webhooks::new(receivers, &views, &Clock::system())?;
        let capacity = Capacity::of(&config.http);
        let tokens = Arc::new(tokens);
        let common = Self { config, tokens, event_secret, exporter, address, views, webhooks, capacity };
        Ok((common, listener))
    }

    /// The parts of a server of this configuration, whose jobs go there.
    fn parts(
        &self,
        config: &Config,
        intake: Intake,
        mode: &'static str,
        is_one_of_several: bool,
    ) -> serve::Parts {
        serve::Parts {
            config: config.http.clone(),
            approval: config.approval.clone(),
            pin: config.pin.clone(),
            tokens: self.tokens.clone(),
            capacity: self.capacity.clone(),
            is_one_of_several,
            account_name: config.stripe.account_name.clone(),
            intake,
            views: if is_one_of_several { self.views.for_one_of_several() } else { self.views.clone() },
            mode,
            account: config.stripe.account.clone(),
            pin_page: config.pin_page.clone(),
            event_secret: self.event_secret.clone(),
            webhooks: self.webhooks.clone(),
            exporter: self.exporter.clone(),
        }
    }

    /// Tells webhooks until the servers have ended, and for a moment more; the rest is told by the next server.
    async fn tell_until<T>(&self, served: impl Future<Output = T>) -> T {
        let stop_telling = CancellationToken::new();
        let telling = tokio::spawn(self.webhooks.clone().run(stop_telling.clone()));
        let ended = served.await;
        stop_telling.cancel();
        let _ = telling.await;
        if let Err(error) = self.webhooks.deliver_for(DELIVER_AT_STOP).await {
            tracing::warn!(%error, "what webhooks are still to be told cannot be read");
        }
        self.webhooks.commands_ended().await;
        ended
    }
}

/// The cardholders' pages of a sandbox, to be tried out as they are: they are this server's own, and the sandbox shows PINs.
fn show_sandbox_pages(config: &mut Config, address: SocketAddr, sandbox: &Sandbox) {
    let page = &mut config.pin_page;
    page.url.get_or_insert_with(|| format!("http://{address}"));
    page.publishable_key = Some("pk_test_sandbox".into());
    page.stripe_js = format!("{}/v3/", sandbox.elements_url());
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
