//! `embosser serve` for several accounts: each has a line, a pace, a circuit and a lease of its own, and a path of its own at the one
//! address. They share the runtime, the ledger, the pacer, the memory for uploads and whoever is told of batches.
//!
//! Guarantees: an account whose key is refused, or whom Stripe does not answer for, holds up no other. What befalls the ledger befalls
//! all, and ends the process as that of a server for one account.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Args, Common, LIVE_NEEDS_TOKENS, show_sandbox_pages, worker_queue};
use crate::account::Purpose;
use crate::commands::Exit;
use crate::commands::accounts::Stripe;
use crate::commands::accounts::reached::{OneOf, Reach, start_sandbox};
use crate::commands::accounts::running::{Accounts, Ended, Work};
use crate::commands::accounts::watched::Watched;
use crate::commands::signals::{HangUp, StopSignals, say};
use crate::config::{AccountConfig, Config, seconds};
use crate::ledger::Ledger;
use crate::line::Halt;
use crate::pace::Pacer;
use crate::serve::Server;
use crate::serve::intake::Intake;
use crate::serve::several::{self, Several};
use crate::stripe::Mode;

/// Serves all accounts until it is told to stop.
pub(super) async fn run(
    args: Args,
    mut config: Config,
    accounts: &[AccountConfig],
    (file, mut hang_ups): (Option<PathBuf>, mpsc::Receiver<()>),
) -> Result<Exit, String> {
    let mut watched = Watched::of(file.as_deref(), &config);
    let publishes = args.publishes(&config);
    let sandbox = match args.sandbox {
        true => Some(start_sandbox(&mut config).await?),
        false => None,
    };
    let stripe = if publishes.is_some() { Stripe::Nobody } else { Stripe::of(args.sandbox) };
    let mut reach = Reach { config, rate: args.rate, stripe };
    let all = reach.reached(&reach.config, accounts)?;
    let is_live = |one: &OneOf| one.access.as_ref().is_some_and(|access| access.mode() == Mode::Live);
    let mode = match publishes {
        _ if args.sandbox => "sandbox",
        Some(mode) => mode,
        None if all.iter().any(is_live) => "live",
        None => "test",
    };
    let (common, listener) = Common::begin(reach.config.clone(), mode).await?;
    if let Some(sandbox) = &sandbox {
        show_sandbox_pages(&mut reach.config, common.address, sandbox);
    }
    // Anew, as the pages' address may be known only now.
    let all = reach.reached(&reach.config, accounts)?;
    tracing::info!("{} accounts, each at its own path: see /v1/accounts", all.len());
    let patience = seconds(common.config.ledger.patience_seconds);
    let ledger = match publishes {
        Some(_) => None,
        None => {
            let ledger = Ledger::open_patient(&common.config.ledger.url, patience).await;
            Some(ledger.map_err(|error| error.to_string())?)
        }
    };
    let several = Several::new(several::Parts {
        config: common.config.http.clone(),
        tokens: common.tokens.clone(),
        views: common.views.clone(),
        exporter: common.exporter.clone(),
    });
    let stop = CancellationToken::new();
    let (stopped, told, waiting) = (stop.clone(), several.clone(), ledger.clone());
    tokio::spawn(StopSignals::listen(HangUp::SeenTo)?.obey(move || {
        tracing::info!("stopping: calls in flight are finished");
        if let Some(ledger) = waiting {
            ledger.stop_waiting();
        }
        told.stop();
        stopped.cancel();
    }));
    let pacer = Pacer::below(common.config.accounts.platform_per_second);
    let common = Arc::new(common);
    let work = Serving {
        purpose: args.purpose(),
        publishes,
        sandbox: args.sandbox,
        ledger: ledger.clone(),
        pacer,
        several: several.clone(),
        common: common.clone(),
    };
    let mut running = Accounts::new(reach, work, stop.clone());
    running.begin_all(all);
    let answering = tokio::spawn({
        let several = several.clone();
        async move { several.run(listener).await }
    });
    let served = async {
        while !running.is_empty() {
            tokio::select! {
                () = running.next_end() => {}
                Some(()) = hang_ups.recv() => {
                    several.reload_tokens("SIGHUP").await;
                    running.reload(file.as_deref(), &mut watched);
                }
                () = watched.have_changed() => running.reload(file.as_deref(), &mut watched),
            }
        }
        several.stop();
        let _ = answering.await;
    };
    common.tell_until(served).await;
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    common.views.clone().close().await;
    if let Some(sandbox) = sandbox {
        sandbox.stop().await;
    }
    match running.ended_with_all() {
        Some((reason, true)) => {
            say(&format!("embosser: stopped: {reason}"));
            Ok(Exit::Unfinished)
        }
        Some((reason, false)) => Err(format!("stopped: {reason}")),
        None => Ok(Exit::Success),
    }
}

/// What the servers of all accounts use. Clones share it.
#[derive(Clone)]
struct Serving {
    purpose: Purpose,
    publishes: Option<&'static str>,
    sandbox: bool,
    ledger: Option<Ledger>,
    pacer: Pacer,
    several: Several,
    common: Arc<Common>,
}

impl Work for Serving {
    async fn work(self, one: OneOf, stop: CancellationToken) -> Ended {
        let (id, several) = (one.id.clone(), self.several.clone());
        let ended = self.until_stopped(one, &stop).await.map_or_else(|ended| ended, |()| Ended::Told);
        if let Ended::Alone(reason) = &ended {
            tracing::error!(
                reason,
                "this account is not served until the configuration is read anew (when its files change, or at SIGHUP); the others are"
            );
            several.stopped(&id, reason);
            // It is shown as that until it is told to stop: an address at which nobody can be served is of use to whoever asks why.
            stop.cancelled().await;
        }
        ended
    }

    fn is_opening(&self, one: &OneOf) {
        self.several.opening(&one.id, one.config.stripe.account_name.clone());
    }

    fn is_gone(&self, account: &str) {
        self.several.gone(account);
    }

    fn has_halted(&self, account: &str) -> bool {
        self.several.has_halted(account)
    }

    fn all_stopped(&self) -> Vec<(String, String)> {
        self.several.all_stopped()
    }
}

impl Serving {
    async fn until_stopped(self, one: OneOf, stop: &CancellationToken) -> Result<(), Ended> {
        let (id, config) = (one.id.clone(), one.config.clone());
        let Some((intake, mode)) = self.intake(one, stop).await? else { return Ok(()) };
        let line = match &intake {
            Intake::Line(line) => Some(line.clone()),
            Intake::Queue(_) => None,
        };
        let server = Server::new(self.common.parts(&config, intake, mode, true));
        self.several.serves(&id, server.clone());
        let halted = async {
            match &line {
                Some(line) => line.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = halted => {}
        }
        let on_servers = self.ledger.as_ref().is_some_and(Ledger::is_on_servers);
        let ended = match line.as_ref().and_then(|line| line.halt()) {
            Some(halt @ Halt::Ledger { may_pass: true, .. }) if on_servers => Err(halt.into()),
            _ => {
                // What else has stopped it is told at its page, and its batches can be looked at.
                stop.cancelled().await;
                Ok(())
            }
        };
        server.stop();
        server.ended().await;
        ended
    }

    /// Where the account's jobs go, and whose cards that makes; none if it is to stop meanwhile.
    async fn intake(
        &self,
        one: OneOf,
        stop: &CancellationToken,
    ) -> Result<Option<(Intake, &'static str)>, Ended> {
        if let Some(mode) = self.publishes {
            let opening = worker_queue::of(&one.config, mode, &self.common.views);
            return tokio::select! {
                opened = opening => match opened {
                    Ok(intake) => Ok(Some((intake, mode))),
                    // The broker is all accounts': whoever looks after the process starts it again.
                    Err(reason) => Err(Ended::WithAll { reason, may_pass: true }),
                },
                () = stop.cancelled() => Ok(None),
            };
        }
        let (Some(access), Some(ledger)) = (&one.access, &self.ledger) else {
            return Err(Ended::Alone("a bug: it has no access to Stripe".into()));
        };
        let mode = match access.mode() {
            _ if self.sandbox => "sandbox",
            Mode::Live => "live",
            Mode::Test => "test",
        };
        // One that came later may be the first of live cards.
        if mode == "live" && self.common.tokens.is_none() {
            return Err(Ended::Alone(LIVE_NEEDS_TOKENS.into()));
        }
        let ledger = ledger.for_one_of_several();
        let account = one.open(&ledger, &self.pacer, self.purpose, stop).await?;
        Ok(account.map(|account| (Intake::Line(account.line().clone()), mode)))
    }
}
