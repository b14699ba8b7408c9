//! Where a server's jobs go that publishes to RabbitMQ: to the queue of a worker.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::{Ledger, Scope};
use crate::queue::Broker;
use crate::serve::intake::{Intake, Queue, WorkerScope};
use crate::stripe::host_of;

/// The queue of a worker with a key of this mode.
pub(super) async fn of(config: &Config, mode: &'static str, ledger: &Ledger) -> Result<Intake, String> {
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
