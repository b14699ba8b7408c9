//! `embosser track BATCH`: asks Stripe where the batch's physical cards are, at a low pace, and keeps it for the results.

use secrecy::SecretString;

use super::Exit;
use super::cancel::is_of_this_account;
use super::connect::connect;
use super::issue::run::{Opening, Run};
use super::signals::{print, say};
use crate::account::Access;
use crate::config::{Config, place};
use crate::job::Batch;
use crate::ledger::Ledger;
use crate::line::tracking::{READS_PER_SECOND_MAX, Tracked, Tracking};
use crate::manifest::counted;

/// Options of `embosser track`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The batch.
    pub batch: String,
    /// Which account it is for.
    #[command(flatten)]
    pub account: super::accounts::AccountArgs,
    /// The ledger that it is in: sqlite://FILE or postgres://… [default: as for issue].
    #[arg(long, value_name = "URL")]
    pub ledger: Option<String>,
}

/// Reads the batch's cards.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: Args, config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    let mut config = super::arguments::with_options(config, None, args.ledger.as_deref())?;
    let batch = Batch::new(args.batch.as_str()).map_err(|error| format!("the batch's name {error}"))?;
    let ledger = super::status::open(None, &config).await?;
    say(&format!("ledger: {}", place::shown(&config.ledger.url)));
    // Beside whoever calls for the account at its full rate.
    config.pace.endpoint_per_second = config.pace.endpoint_per_second.min(READS_PER_SECOND_MAX);
    config.pace.account_per_second = config.pace.account_per_second.min(READS_PER_SECOND_MAX);
    let ended = match connect(false, &mut config, api_key).await {
        Ok((access, _)) => track(&config, access, &ledger, &batch).await,
        Err(reason) => Err(reason),
    };
    ledger.close().await;
    ended
}

async fn track(config: &Config, access: Access, ledger: &Ledger, batch: &Batch) -> Result<Exit, String> {
    let Some(run) = Run::open(access, config, ledger, Opening::default()).await? else {
        return Ok(Exit::Unfinished);
    };
    is_of_this_account(ledger, run.scope(), batch).await?;
    let text = |error: crate::ledger::LedgerError| error.to_string();
    let tracking = Tracking::of(ledger, run.scope(), batch).await.map_err(text)?;
    say(&format!(
        "Looking at Stripe: {}, at most {READS_PER_SECOND_MAX} in a second: about {:.0} s.",
        counted(tracking.reads(), "read"),
        tracking.seconds().ceil()
    ));
    let Tracked { physical, r#virtual, missing, failed, left } =
        tracking.run(run.line()).await.map_err(text)?;
    print(&format!(
        "{physical} physical and {virtual} virtual cards were looked at; `embosser results` has the news."
    ));
    if missing > 0 {
        say(&format!("{} of the batch: this account has no such card any more", counted(missing, "card")));
    }
    if let Some((count, reason)) = &failed {
        say(&format!("{} failed; the latest: {reason}", counted(*count, "read")));
    }
    if left > 0 || failed.is_some() {
        say("Run it again to read the others.");
        return Ok(Exit::Unfinished);
    }
    Ok(Exit::Success)
}
