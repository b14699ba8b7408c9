//! `embosser settle BATCH`: how rows ended whose calls were cut off is found out at Stripe, without their file.
//!
//! The same is a button of `serve`'s page. It makes nothing: whoever has the file runs `embosser issue` again instead, which finishes
//! the batch, too.

use secrecy::SecretString;

use super::Exit;
use super::cancel::is_of_this_account;
use super::connect::connect;
use super::issue::run::{Opening, Run};
use super::signals::{print, say};
use crate::account::Access;
use crate::config::{Config, place};
use crate::job::Batch;
use crate::ledger::{Ledger, LedgerError, Scope};
use crate::line::settle::{Settled, Settling};
use crate::manifest::counted;

/// Options of `embosser settle`.
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
    /// End at once if another process calls for this account, instead of waiting until it ends.
    #[arg(long)]
    pub no_wait: bool,
}

/// Looks for the batch's rows.
///
/// # Errors
/// A sentence for the operator; nothing was recorded then.
pub async fn run(args: Args, config: Config, api_key: Option<SecretString>) -> Result<Exit, String> {
    let mut config = super::arguments::with_options(config, None, args.ledger.as_deref())?;
    let batch = Batch::new(args.batch.as_str()).map_err(|error| format!("the batch's name {error}"))?;
    let ledger = super::status::open(None, &config).await?;
    say(&format!("ledger: {}", place::shown(&config.ledger.url)));
    let ended = match connect(false, &mut config, api_key).await {
        Ok((access, _)) => settle(&args, &config, access, &ledger, &batch).await,
        Err(reason) => Err(reason),
    };
    ledger.close().await;
    ended
}

async fn settle(
    args: &Args,
    config: &Config,
    access: Access,
    ledger: &Ledger,
    batch: &Batch,
) -> Result<Exit, String> {
    let Some(run) = Run::open(access, config, ledger, Opening::default()).await? else {
        return Ok(Exit::Unfinished);
    };
    let (line, scope) = (run.line(), run.scope());
    is_of_this_account(ledger, scope, batch).await?;
    came_as_a_file(ledger, scope, batch).await?;
    // Whoever else calls for the account may be in the middle of this batch: what is known of it is read after that.
    let Some(lease) = run.lease(args.no_wait).await? else { return Ok(Exit::Unfinished) };
    let settling = Settling::of(ledger, scope, batch, &line.parts().clock).await.map_err(text)?;
    let (rows, need_file, later) = (settling.rows(), settling.others(), settling.later());
    if rows == 0 && need_file == 0 {
        print(&format!("The end of every row of batch {:?} that was begun is known.", batch.as_str()));
        return Ok(Exit::Success);
    }
    let mut settled = Settled::default();
    if rows > 0 {
        say(&format!(
            "Looking at Stripe for {}. Those that have something there are known soon; of the others it is certain in about {:.0} s.",
            counted(rows, "row"),
            settling.seconds(line).ceil()
        ));
        settled = settling.run(line, lease).await;
    }
    report(batch, &settled, need_file, later);
    if let Some(halt) = line.halt() {
        say(&format!("stopped: {halt}"));
    }
    let is_known = settled.left + settled.unclear + need_file + later == 0;
    Ok(match (is_known, settled.absent) {
        (false, _) => Exit::Unfinished,
        (true, 0) => Exit::Success,
        (true, _) => Exit::Refused,
    })
}

fn text(error: LedgerError) -> String {
    error.to_string()
}

/// Jobs that came one by one, or through a queue, come again by themselves: they are left to that.
async fn came_as_a_file(ledger: &Ledger, scope: &Scope, batch: &Batch) -> Result<(), String> {
    let counts = ledger.counts_of(scope, batch).await.map_err(text)?;
    let is_manifests = counts.is_some_and(|counts| counts.is_manifests);
    if is_manifests && !ledger.came_by_queue(scope, batch).await.map_err(text)? {
        return Ok(());
    }
    Err(format!(
        "jobs of batch {:?} were sent one by one, or through a queue: those whose end is not known come again by themselves, or \
         whoever sent them sends them again. Nothing was done",
        batch.as_str()
    ))
}

/// What became known, and what whoever reads it can do about the rest.
fn report(batch: &Batch, settled: &Settled, need_file: u64, later: u64) {
    let Settled { found, absent, unclear, left, failed } = settled;
    print(&format!(
        "{found} found at Stripe, {absent} of which Stripe has nothing, {} not known yet; `embosser results` has them.",
        unclear + left + need_file + later
    ));
    if *absent > 0 {
        say(&format!(
            "{} of which Stripe has nothing: refused as cut_off; issue the batch's file again for their cards",
            counted(*absent, "row")
        ));
    }
    if let Some(reason) = failed {
        say(&format!("Stripe's lists could not be read: {reason}"));
    }
    if *left > 0 {
        say(&format!("{} of batch {:?}: run it again later", counted(*left, "row"), batch.as_str()));
    }
    if *unclear > 0 {
        say(&format!(
            "{} of which Stripe has something that may be another's: issue the batch's file again, which tells",
            counted(*unclear, "row")
        ));
    }
    if need_file > 0 {
        let what = match batch.as_str().strip_suffix(".cancel") {
            Some(cancelled) => format!("run `embosser cancel {cancelled}` again, which finds it out"),
            None => {
                "what was to be changed stands in their file alone; issue it again, which finds it out".into()
            }
        };
        say(&format!("{} that change cards: {what}", counted(need_file, "row")));
    }
    if later > 0 {
        say(&format!("{} more than are looked for at once: run it again", counted(later, "row")));
    }
}
