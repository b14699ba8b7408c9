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

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Args, again, ladder_takes_over, serve, stop_signal, terms};
use crate::account::Purpose;
use crate::commands::Exit;
use crate::commands::accounts::Stripe;
use crate::commands::accounts::reached::{OneOf, Reach, start_sandbox};
use crate::commands::accounts::running::{Accounts, Ended, Work};
use crate::commands::accounts::watched::Watched;
use crate::config::{AccountConfig, Config, place, seconds};
use crate::ledger::Ledger;
use crate::metrics::exporter::Exporter;
use crate::pace::Pacer;
use crate::pin_links::Owing;
use crate::queue::{Broker, publisher};
use crate::worker::health::{self, Standings};
use crate::worker::{Ready, Worker};

/// When and from where the accounts are read anew.
pub(super) struct Anew {
    /// The configuration's file.
    pub(super) file: Option<PathBuf>,
    /// Tells when it, or a file of an account, has changed.
    pub(super) watched: Watched,
    /// Tells of each SIGHUP.
    pub(super) hang_ups: mpsc::Receiver<()>,
}

/// What all of them use. Clones share it.
#[derive(Clone)]
struct Common {
    purpose: Purpose,
    broker: Broker,
    ledger: Ledger,
    standings: Standings,
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
    let reach = Reach { config, rate: args.rate, stripe: Stripe::of(args.sandbox) };
    let all = reach.reached(&reach.config, accounts)?;
    let ended = match Ledger::open_patient(&reach.config.ledger.url, patience).await {
        Ok(ledger) => work((reach, args.purpose(), broker), all, ledger, anew).await,
        Err(error) if error.may_pass() => Ok(again(&error)),
        Err(error) => Err(error.to_string()),
    };
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    ended
}

/// Works for all of them, and ends when all have.
async fn work(
    (reach, purpose, broker): (Reach, Purpose, Broker),
    all: Vec<OneOf>,
    ledger: Ledger,
    Anew { file, mut watched, mut hang_ups }: Anew,
) -> Result<Exit, String> {
    let exporter = Exporter::install(crate::logging::dropped)?;
    exporter.upkeep();
    let standings = Standings::default();
    let router = health::router_of_several(&standings, ledger.clone(), &exporter);
    let http = serve(router, &reach.config.worker).await?;
    let stop = stop_signal(&ledger)?;
    let owing = Owing::by(&ledger);
    let pacer = Pacer::below(reach.config.accounts.platform_per_second);
    let publishing = publisher::Shared::new(broker.clone(), "embosser worker: publishing for all accounts");
    let common = Common {
        purpose,
        broker,
        ledger: ledger.clone(),
        standings: standings.clone(),
        owing,
        pacer,
        publishing: publishing.clone(),
    };
    let mut running = Accounts::new(reach, common, stop.clone());
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

impl Work for Common {
    async fn work(self, one: OneOf, stop: CancellationToken) -> Ended {
        let (id, standings) = (one.id.clone(), self.standings.clone());
        let ended = self.until_stopped(one, &stop).await.map_or_else(|ended| ended, |()| Ended::Told);
        if let Ended::Alone(reason) = &ended {
            tracing::error!(
                reason,
                "this account's jobs stay in its queue until the configuration is read anew (when its files change, or at SIGHUP); the other accounts' go on"
            );
            standings.stopped(&id, reason);
        }
        ended
    }

    fn is_opening(&self, one: &OneOf) {
        self.standings.opening(&one.id);
    }

    fn is_gone(&self, account: &str) {
        self.standings.gone(account);
    }

    fn has_halted(&self, account: &str) -> bool {
        self.standings.has_halted(account)
    }

    fn all_stopped(&self) -> Vec<(String, String)> {
        self.standings.all_stopped()
    }
}

impl Common {
    async fn until_stopped(self, one: OneOf, stop: &CancellationToken) -> Result<(), Ended> {
        let ledger = self.ledger.for_one_of_several();
        let broker = self.broker.with_queues_of(&one.config.rabbitmq);
        let (id, config) = (one.id.clone(), one.config.clone());
        let Some(account) = one.open(&ledger, &self.pacer, self.purpose, stop).await? else { return Ok(()) };
        let line = account.line().clone();
        let (terms, config) = (terms(&line, &config), &config.worker);
        let worker =
            Worker::for_one_of_several(line.clone(), (broker, &self.publishing), terms, config, self.owing);
        let ready: Arc<Ready> = worker.ready();
        self.standings.working(&id, &line, &ready);
        Ok(worker.run(stop.clone()).await?)
    }
}
