//! Which waiting jobs are looked for at Stripe before their first call, since the ledger may not know all of them.
//!
//! A run with `--reconcile-first` looks for each job's card before it calls. A job that waits for its PIN is called for days later,
//! and by another process; so the ledger remembers the latest such run, and each waiting job which one that was when it began to
//! wait. They are told by random numbers and not by the time of day, which can be set.

use super::awaiting::Awaiting;
use super::awaiting_name;
use super::link::under;
use crate::job::JobId;
use crate::ledger::{Ledger, LedgerError, Scope};

/// A run with `--reconcile-first` begins: all that wait now are looked for before they are called for.
///
/// # Errors
/// If it could not be written.
pub async fn reconcile_first(ledger: &Ledger, scope: &Scope) -> Result<(), LedgerError> {
    ledger.set_metadata(name(scope), format!("{:032x}", rand::random::<u128>())).await
}

/// The latest such run.
pub(super) async fn latest(ledger: &Ledger, scope: &Scope) -> Result<Option<String>, LedgerError> {
    ledger.metadata(&name(scope)).await
}

/// Whether a job that waits, or waited until now, is to be looked for before its first call.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn is_looked_for_first(ledger: &Ledger, scope: &Scope, job: &JobId) -> Result<bool, LedgerError> {
    let Some(latest) = latest(ledger, scope).await? else { return Ok(false) };
    let waits = ledger.metadata(&awaiting_name(scope, job)).await?;
    let waits = waits.as_deref().and_then(Awaiting::of_json);
    Ok(waits.is_some_and(|waits| waits.reconciled.as_ref() != Some(&latest)))
}

fn name(scope: &Scope) -> String {
    under("reconciled", scope)
}
