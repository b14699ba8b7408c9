//! `embosser serve` for one account.

use std::sync::{Arc, OnceLock};

use secrecy::SecretString;
use tokio::sync::mpsc;

use super::{Args, Common, show_sandbox_pages, worker_queue};
use crate::account::Account;
use crate::commands::Exit;
use crate::commands::connect::connect;
use crate::commands::signals::{HangUp, StopSignals, say};
use crate::config::{Config, seconds};
use crate::ledger::Ledger;
use crate::line::{Halt, Line};
use crate::pace::Pacer;
use crate::serve::Server;
use crate::serve::intake::Intake;
use crate::stripe::Mode;

/// Serves until it is told to stop. At each hang-up the tokens are read anew.
pub(super) async fn run(
    args: Args,
    config: Config,
    api_key: Option<SecretString>,
    mut hang_ups: mpsc::Receiver<()>,
) -> Result<Exit, String> {
    let publishes = args.publishes(&config);
    let is_live = api_key.as_ref().is_some_and(|key| Mode::of(key) == Mode::Live);
    let mode = match publishes {
        _ if args.sandbox => "sandbox",
        Some(mode) => mode,
        None if is_live => "live",
        None => "test",
    };
    let (common, listener) = Common::begin(config, mode).await?;
    let mut config = common.config.clone();
    let (intake, ledger, sandbox) = match publishes {
        Some(mode) => (worker_queue::of(&config, mode, &common.views).await?, None, None),
        None => {
            let (access, sandbox) = connect(args.sandbox, &mut config, api_key).await?;
            if let Some(sandbox) = &sandbox {
                show_sandbox_pages(&mut config, common.address, sandbox);
            }
            let patience = seconds(config.ledger.patience_seconds);
            let ledger = Ledger::open_patient(&config.ledger.url, patience).await;
            let ledger = ledger.map_err(|error| error.to_string())?;
            let pace = access.pace(&config.pace, &Pacer::start());
            let account = Account::open(access, &config, &ledger, pace, args.purpose()).await;
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
    let server = Server::new(common.parts(&config, intake, mode, false));
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
    let halted = Arc::new(OnceLock::new());
    if let (Intake::Line(line), Some(ledger)) = (server.intake(), &ledger) {
        let ends = end_without_ledger(line.clone(), ledger.clone(), server.clone(), halted.clone());
        tokio::spawn(ends);
    }
    common.tell_until(server.run(listener)).await;
    if let Some(ledger) = ledger {
        ledger.close().await;
    }
    common.views.close().await;
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
