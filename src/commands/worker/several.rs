//! A worker for several accounts: each has a line, a pace, a circuit, a lease and queues of its own, and shares the runtime, the
//! ledger, the pacer and the connection for publishing with the others.
//!
//! Guarantees: what befalls one account (Stripe does not answer for it, its key is refused, its queues are another's, a message
//! kills its connection to the broker) holds up no other. That is why each has a connection of its own on which the broker delivers: what kills
//! one counts as a delivery of all that is in flight on it; and to Stripe: over HTTP/2 all calls share a connection, which takes
//! no further one while as many wait for their answers as the server allows. What befalls the ledger befalls all, and ends the
//! process as that of a worker for one account.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::running::Accounts;
use super::watched::Watched;
use super::{Args, again, ladder_takes_over, serve, stop_signal, terms};
use crate::account::{Access, Account, Purpose, ScopeError};
use crate::commands::Exit;
use crate::commands::accounts::{Stripe, key_of, of_account};
use crate::config::{AccountConfig, Config, place, seconds};
use crate::ledger::Ledger;
use crate::line::Halt;
use crate::metrics::exporter::Exporter;
use crate::pace::Pacer;
use crate::pin_links::Owing;
use crate::queue::{Broker, publisher};
use crate::sandbox::{self, Sandbox};
use crate::worker::health::{self, Standings};
use crate::worker::{Ready, Worker};

/// How long calls of a pace that was may count, in periods of its limit: Stripe's second, or the time of one call where less than
/// one a second may be made; with the way to Stripe.
const CALLS_COUNT: f64 = 1.25;

/// One of them, before anybody was asked about it.
pub(super) struct OneOf {
    pub(super) id: String,
    pub(super) config: Config,
    pub(super) access: Access,
    broker: Broker,
    /// Whether this process may have called for it before.
    was_here: bool,
}

/// How it ended.
pub(super) enum Ended {
    /// It was told to.
    Told,
    /// By itself, for a reason that is its own.
    Alone(String),
    /// The ledger that all share does not serve.
    WithAll { reason: String, may_pass: bool },
}

impl From<Halt> for Ended {
    fn from(halt: Halt) -> Self {
        let reason = halt.to_string();
        match halt {
            Halt::Key(_) | Halt::SameRefusals(_) | Halt::Unreachable(_) => Self::Alone(reason),
            Halt::Ledger { may_pass, .. } => Self::WithAll { reason, may_pass },
        }
    }
}

/// When and from where the accounts are read anew.
pub(super) struct Anew {
    /// The configuration's file.
    pub(super) file: Option<PathBuf>,
    /// Tells when it, or a file of an account, has changed.
    pub(super) watched: Watched,
    /// Tells of each SIGHUP.
    pub(super) hang_ups: mpsc::Receiver<()>,
}

/// What all of them are made from.
pub(super) struct Shared {
    pub(super) args: Args,
    pub(super) config: Config,
    broker: Broker,
}

/// What all of them use. Clones share it.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) ledger: Ledger,
    pub(super) standings: Standings,
    owing: Owing,
    pacer: Pacer,
    publishing: publisher::Shared,
}

/// Works for all accounts until it is told to stop.
pub(super) async fn run(
    args: Args,
    config: Config,
    accounts: &[AccountConfig],
    anew: Anew,
) -> Result<Exit, String> {
    let mut config = crate::commands::arguments::with_options(config, args.rate, args.ledger.as_deref())?;
    tracing::info!("ledger: {}; {} accounts", place::shown(&config.ledger.url), accounts.len());
    ladder_takes_over(&mut config);
    let sandbox = match args.sandbox {
        true => Some(start_sandbox(&mut config).await?),
        false => None,
    };
    let broker = Broker::new(&config.rabbitmq).map_err(|error| error.to_string())?.with_small_frames();
    let patience = seconds(config.ledger.patience_seconds);
    let shared = Shared { args, config, broker };
    let all = shared.reached(&shared.config, accounts)?;
    let ended = match Ledger::open_patient(&shared.config.ledger.url, patience).await {
        Ok(ledger) => work(shared, all, ledger, anew).await,
        Err(error) if error.may_pass() => Ok(again(&error)),
        Err(error) => Err(error.to_string()),
    };
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    ended
}

async fn start_sandbox(config: &mut Config) -> Result<Sandbox, String> {
    let sandbox = Sandbox::start(sandbox::Options::default()).await;
    let sandbox = sandbox.map_err(|error| format!("sandbox: {error}"))?;
    config.stripe.api_url = sandbox.api_url();
    config.stripe.key_url = sandbox.key_url();
    Ok(sandbox)
}

impl Shared {
    /// How each of the accounts is reached by that configuration.
    ///
    /// # Errors
    /// If a key cannot be read or is of the other mode: it is said before anything has begun.
    pub(super) fn reached(&self, config: &Config, accounts: &[AccountConfig]) -> Result<Vec<OneOf>, String> {
        let stripe = Stripe::of(self.args.sandbox);
        let mut all: Vec<OneOf> = Vec::with_capacity(accounts.len());
        for account in accounts {
            let mut own = of_account(config, account, stripe);
            if let Some(rate) = self.args.rate {
                // The command line wins over each account's own limits, too.
                (own.pace.endpoint_per_second, own.pace.account_per_second) = (rate, rate);
            }
            let access = match stripe {
                Stripe::Sandbox => Access::to_sandbox(&own.stripe),
                Stripe::Itself => Access::with_key(&own.stripe, &key_of(account, config)?),
            };
            let access = access.map_err(|error| format!("account {}: {error}", account.id))?;
            let broker = self.broker.with_queues_of(&own.rabbitmq);
            all.push(OneOf { id: account.id.clone(), config: own, access, broker, was_here: false });
        }
        Ok(all)
    }
}

/// Works for all of them, and ends when all have.
async fn work(
    shared: Shared,
    all: Vec<OneOf>,
    ledger: Ledger,
    Anew { file, mut watched, mut hang_ups }: Anew,
) -> Result<Exit, String> {
    let exporter = Exporter::install(crate::logging::dropped)?;
    exporter.upkeep();
    let standings = Standings::default();
    let router = health::router_of_several(&standings, ledger.clone(), &exporter);
    let http = serve(router, &shared.config.worker).await?;
    let stop = stop_signal(&ledger)?;
    let owing = Owing::by(&ledger);
    let pacer = Pacer::below(shared.config.accounts.platform_per_second);
    let publishing =
        publisher::Shared::new(shared.broker.clone(), "embosser worker: publishing for all accounts");
    let common = Common {
        ledger: ledger.clone(),
        standings: standings.clone(),
        owing,
        pacer,
        publishing: publishing.clone(),
    };
    let mut running = Accounts::new(shared, common, stop.clone());
    running.begin_all(all);
    while !running.is_empty() {
        tokio::select! {
            () = running.next_end() => {}
            Some(()) = hang_ups.recv() => running.reload(file.as_deref(), &mut watched),
            () = watched.have_changed() => running.reload(file.as_deref(), &mut watched),
        }
    }
    http.abort();
    publishing.close().await;
    ledger.close().await;
    match running.ended_with_all() {
        Some((reason, true)) => Ok(again(&reason)),
        Some((reason, false)) => Err(format!("stopped: {reason}")),
        None if stop.is_cancelled() => Ok(Exit::Success),
        None => {
            let reasons = standings.all_stopped();
            let reasons: Vec<_> =
                reasons.iter().map(|(account, reason)| format!("account {account}: {reason}")).collect();
            Err(format!("stopped: no account is left to work for: {}", reasons.join("; ")))
        }
    }
}

impl OneOf {
    /// This process may have called for it a moment ago.
    pub(super) fn again(self) -> Self {
        Self { was_here: true, ..self }
    }

    /// Works for it until it is told to stop.
    pub(super) async fn work(self, purpose: Purpose, common: Common, stop: CancellationToken) -> Ended {
        let (id, standings) = (self.id.clone(), common.standings.clone());
        let ended = self.until_stopped(purpose, common, &stop).await;
        if let Ended::Alone(reason) = &ended {
            tracing::error!(
                reason,
                "this account's jobs stay in its queue until the configuration is read anew (when its files change, or at SIGHUP); the other accounts' go on"
            );
            standings.stopped(&id, reason);
        }
        ended
    }

    async fn until_stopped(self, purpose: Purpose, common: Common, stop: &CancellationToken) -> Ended {
        let Self { id, config, access, broker, was_here } = self;
        let Common { ledger, standings, owing, pacer, publishing } = common;
        let pace = access.pace(&config.pace, &pacer);
        if was_here {
            // Another pace knows of the latest calls.
            let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
            pace.hold(Duration::from_secs_f64(CALLS_COUNT / per_second.min(1.0)));
        }
        let ledger = ledger.for_one_of_several();
        let opening = Account::open(access, &config, &ledger, pace, purpose);
        let account = tokio::select! {
            opened = opening => match opened {
                Ok(account) => account,
                Err(ScopeError::Unusable(reason)) => return Ended::Alone(reason),
                // Stripe is asked for ever; so it is the ledger.
                Err(ScopeError::Unreachable(reason)) => return Ended::WithAll { reason, may_pass: true },
            },
            () = stop.cancelled() => return Ended::Told,
        };
        let line = account.line().clone();
        let (terms, config) = (terms(&line, &config), &config.worker);
        let worker = Worker::for_one_of_several(line.clone(), (broker, &publishing), terms, config, owing);
        let ready: Arc<Ready> = worker.ready();
        standings.working(&id, &line, &ready);
        worker.run(stop.clone()).await.map_or_else(Ended::from, |()| Ended::Told)
    }
}
