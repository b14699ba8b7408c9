//! `embosser ledger`: a ledger as a whole is moved to another database, pruned, exported or verified. None of it calls Stripe.

mod export;
mod moving;
mod prune;
mod verify;

use super::Exit;
use super::status::NotOpened;
use crate::config::Config;
use crate::config::place::existing_ledger_url;

/// Options of `embosser ledger`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Move the ledger to another database: SQLite to PostgreSQL, or back; run again to go on after an interruption.
    ///
    /// Stop every embosser of the two ledgers first. Each row is compared at the end; only then the ledger serves at its new place,
    /// and the old one refuses to, for good.
    Move(moving::Args),
    /// Take out what was said beside rows that ended long ago; what keeps a card from being made twice stays.
    Prune(prune::Args),
    /// Write the whole ledger as JSON Lines; it says who has which card.
    Export(export::Args),
    /// Look whether the ledger is sound, and whether rows were altered or lost since an export.
    Verify(verify::Args),
}

/// Does it.
///
/// # Errors
/// A sentence for the operator.
pub async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    match &args.command {
        Command::Move(args) => moving::run(args).await,
        Command::Prune(args) => prune::run(args, config).await,
        Command::Export(args) => export::run(args, config).await,
        Command::Verify(args) => verify::run(args, config).await,
    }
}

/// The ledger that is named, or the configured one.
fn url_of(named: Option<&String>, config: &Config) -> Result<String, NotOpened> {
    existing_ledger_url(named.unwrap_or(&config.ledger.url)).map_err(NotOpened::Place)
}
