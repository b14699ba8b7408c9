//! `embosser webhooks`: which events are still to be delivered; delivers them now; tries whether they arrive.

use std::io::{self, BufWriter, Write as _};
use std::time::Duration;

use super::Exit;
use super::output::{Unwritten, exit};
use super::signals::{print, say};
use super::status::open;
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::manifest::counted;
use crate::webhooks::{Listed, Pending, Receivers, Webhooks};

/// Longest time for all that is to be delivered now.
const DELIVER_MAX: Duration = Duration::from_secs(120);

/// Options of `embosser webhooks`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Deliver what is left now, also what was given up.
    #[arg(long, conflicts_with = "test")]
    pub deliver: bool,
    /// Send each endpoint a signed event of type webhook.test, and say what it answered.
    #[arg(long)]
    pub test: bool,
    /// The ledger to read: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
}

/// Lists, delivers or tests.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let receivers = Receivers::read(&config.webhooks)?;
    if config.webhooks.endpoints.is_empty() && (args.test || args.deliver) {
        return Err("there is nobody to tell: name an address and its secret in [webhooks] endpoints \
                    (config/embosser.toml shows how)"
            .into());
    }
    if args.test {
        return test(&receivers).await;
    }
    let ledger = open(args.ledger.as_ref(), config).await?;
    let ended =
        if args.deliver { deliver(receivers, &ledger).await } else { list(&receivers, &ledger).await };
    ledger.close().await;
    ended
}

async fn test(receivers: &Receivers) -> Result<Exit, String> {
    let mut exit = Exit::Success;
    for (host, met) in receivers.test(&Clock::system()).await? {
        match met {
            Ok(()) => print(&format!("{host}: it has the event")),
            Err(reason) => {
                say(&format!("{host}: {reason}"));
                exit = Exit::Unfinished;
            }
        }
    }
    Ok(exit)
}

async fn deliver(receivers: Receivers, ledger: &Ledger) -> Result<Exit, String> {
    // The command is for batches as they end, not for what is told late.
    let webhooks = Webhooks::new(receivers, ledger, &Clock::system())?;
    webhooks.try_all_now().await.map_err(|error| error.to_string())?;
    let left = webhooks.deliver_for(DELIVER_MAX).await.map_err(|error| error.to_string())?;
    let Pending { pending, given_up, not_configured, hosts } = left;
    if pending + given_up + not_configured == 0 {
        print("Everything is delivered.");
        return Ok(Exit::Success);
    }
    if pending + given_up > 0 {
        let left = counted((pending + given_up) as u64, "event");
        say(&format!("{left} could not be delivered; `embosser webhooks` says why"));
    }
    if not_configured > 0 {
        let (left, hosts) = (counted(not_configured as u64, "event"), Vec::from_iter(hosts).join(", "));
        say(&format!(
            "{left} could not be delivered, as the configuration does not have the address any more ({hosts}): name it in [webhooks] \
             endpoints again, as it was, until they are delivered. Otherwise they are dropped after 30 days"
        ));
    }
    Ok(Exit::Unfinished)
}

async fn list(receivers: &Receivers, ledger: &Ledger) -> Result<Exit, String> {
    let listed = receivers.listed(ledger).await.map_err(|error| error.to_string())?;
    exit(write(&listed))
}

fn write(listed: &[Listed]) -> Result<(), Unwritten> {
    let mut out = BufWriter::new(io::stdout().lock());
    if listed.is_empty() {
        writeln!(out, "Everything is delivered.")?;
    }
    for listed in listed {
        let Listed { event, kind, batch, host, created, attempts, due, .. } = listed;
        let next = match (listed.is_configured, listed.is_given_up) {
            (false, _) => "not tried: this configuration has no such endpoint".to_owned(),
            (true, true) => "given up; --deliver tries it again".to_owned(),
            (true, false) => format!("next try at {}", due.in_utc()),
        };
        let problem = listed.problem.as_deref().map(|problem| format!(", the latest: {problem}"));
        let tries = if *attempts == 1 { "1 try".to_owned() } else { format!("{attempts} tries") };
        writeln!(
            out,
            "{event} {kind} of batch {batch:?} at {}, to {host}: {tries}{}; {next}",
            created.in_utc(),
            problem.unwrap_or_default()
        )?;
    }
    Ok(out.flush()?)
}
