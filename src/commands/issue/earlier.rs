//! What an earlier run left behind: rows that are known under other names, and a results file that knows more than the
//! ledger.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::config::Config;
use crate::job::{Batch, JobId, Step};
use crate::ledger::{Ledger, Scope, State};
use crate::manifest::batch::{SecondCards, issued_as};
use crate::manifest::checked::CheckedManifest;
use crate::manifest::counted;
use crate::manifest::nearby::Near;
use crate::manifest::recognise::{Recogniser, Recognition};
use crate::operation::Operation;
use crate::remedy::TryAgain;
use crate::results::read_back;
use crate::stripe::host_of;
use crate::webhooks::Begins;

/// Rows that are told one by one; the others are counted.
const LISTED_MAX: usize = 10;
/// Jobs that are asked about in one question.
const LOOKED_UP_AT_ONCE: usize = 512;

/// What the ledger knows of the manifest's rows, under their own ids and under others.
///
/// # Errors
/// A sentence for the operator, if they all are, under one other name; or if the ledger cannot be read.
pub(crate) async fn recognise(
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    known: (SecondCards, TryAgain),
    manifest: &CheckedManifest,
) -> Result<Arc<Recognition>, String> {
    let recognition = look_up(ledger, scope, batch, known, manifest).await?;
    if let Some(other) = recognition.is_wholly(batch) {
        return Err(format!(
            "{}. Nothing was done. Pass --batch {:?} to go on with that batch, or --second-cards if second cards are \
             wanted",
            issued_as(batch, other),
            other.as_str()
        ));
    }
    Ok(recognition)
}

/// The same, whatever it comes to.
///
/// # Errors
/// If the manifest or the ledger cannot be read.
pub(crate) async fn look_up(
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    (second, again): (SecondCards, TryAgain),
    manifest: &CheckedManifest,
) -> Result<Arc<Recognition>, String> {
    let (manifest, runtime) = (manifest.clone(), Handle::current());
    let recogniser = Recogniser::new(ledger.clone(), scope.clone(), batch.clone(), second, runtime);
    let mut recogniser = recogniser.trying(again);
    let recognising = move || {
        for row in manifest.rows().map_err(|error| error.to_string())? {
            recogniser.add(&row).map_err(|error| error.to_string())?;
        }
        recogniser.finish().map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(recognising).await.map_err(|error| error.to_string())?.map(Arc::new)
}

/// Whose cards a ledger has, of those that the configured account may have made.
///
/// # Errors
/// If the ledger cannot be read.
pub(crate) async fn scopes_of(ledger: &Ledger, config: &Config) -> Result<Vec<Scope>, String> {
    let counts = ledger.counts().await.map_err(|error| error.to_string())?;
    let host = host_of(&config.stripe.api_url)?;
    let account = config.stripe.account.as_deref().or(config.stripe.account_id.as_deref());
    let mut scopes: Vec<Scope> = counts.iter().map(|counts| Scope::of_ledger(&counts.scope)).collect();
    scopes.retain(|scope| scope.is_at(&host, account));
    scopes.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    scopes.dedup();
    Ok(scopes)
}

/// Says which rows have names that are nearly those of rows before, before anything is issued.
///
/// # Errors
/// If there are any, and warnings are taken for problems.
pub(crate) fn say_near(recognition: &Recognition, strict: bool) -> Result<(), String> {
    let Near { problems, count } = recognition.near();
    problems.iter().take(LISTED_MAX).for_each(|warning| crate::logging::say(&warning.to_string()));
    let more = count.saturating_sub(LISTED_MAX as u64);
    if more > 0 {
        crate::logging::say(&format!("and {more} more such rows; `embosser check` tells them"));
    }
    if strict && *count > 0 {
        return Err(format!(
            "{}, which --strict takes for problems; nothing was done",
            counted(*count, "warning")
        ));
    }
    Ok(())
}

/// Says how many rows that were refused are not tried again, before anything is issued.
pub(crate) fn say_stays(recognition: &Recognition) {
    let stay = recognition.rows_that_stay_refused();
    if stay > 0 {
        crate::logging::say(&format!(
            "not tried again, as they were refused and must be changed first: {}",
            counted(stay, "row")
        ));
    }
}

/// Says which rows are known under other names, before anything is issued.
pub(crate) fn print_recognised(recognition: &Recognition, say: fn(&str)) {
    if recognition.is_empty() {
        return;
    }
    say(&format!(
        "{} of {} rows are known under other names; they keep the cards they have, and get no second ones:",
        recognition.len(),
        recognition.rows
    ));
    for recognised in recognition.rows_in_order().into_iter().take(LISTED_MAX) {
        let name = recognised.row_id.as_ref().map(|row_id| format!(" ({row_id})")).unwrap_or_default();
        say(&format!("  row {}{name}: {}", recognised.row, recognised.note()));
    }
    if recognition.len() > LISTED_MAX {
        say(&format!("  and {} more, which stand in the results", recognition.len() - LISTED_MAX));
    }
    say("  (--second-cards issues them all again)");
}

/// What a run begins with: its batch's rows are the manifest's, and those of earlier ones under its name.
///
/// # Errors
/// If the ledger cannot be read.
pub(super) async fn begins(
    ledger: &Ledger,
    scope: &Scope,
    batch: &Batch,
    recognition: &Recognition,
) -> Result<Begins, String> {
    let others = recognition.others(ledger, scope, batch).await.map_err(|error| error.to_string())?;
    Ok(others.begins(recognition))
}

/// Holds an earlier run's results file against the ledger: cards that only the file knows were issued with another ledger.
///
/// # Errors
/// A sentence for the operator, if there are any.
pub(super) async fn hold_results_against(ledger: &Ledger, scope: &Scope, path: &Path) -> Result<(), String> {
    let to_error = |error: std::io::Error| format!("results file {}: {error}", path.display());
    // A pipe or a device holds nothing.
    if !path.is_file() {
        return Ok(());
    }
    let Some(earlier) = read_back(path).map_err(to_error)? else { return Ok(()) };
    let scopes: Vec<Scope> = {
        let counts = ledger.counts().await.map_err(|error| error.to_string())?;
        let mut scopes: Vec<_> = counts.iter().map(|counts| Scope::of_ledger(&counts.scope)).collect();
        scopes.push(scope.clone());
        scopes.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        scopes.dedup();
        scopes
    };
    let (mut unknown, mut example) = (0_u64, None);
    let mut page: Vec<((JobId, Step), String)> = Vec::new();
    let mut rows = earlier;
    loop {
        let next = rows.next().transpose().map_err(to_error)?;
        let is_last = next.is_none();
        // A rehearsal's cards, or another account's, are no matter of this run.
        if let Some(row) = next.filter(|row| row.scope.is_empty() || row.scope == scope.as_str())
            && let Some(operation) = Operation::ALL.into_iter().find(|one| one.done() == row.outcome)
            && let (Some(made), Ok(id)) = (row.card_id.or(row.cardholder_id), JobId::new(row.job_id))
        {
            page.push(((id, Step::Last(operation)), made));
        }
        if page.len() >= LOOKED_UP_AT_ONCE || is_last && !page.is_empty() {
            let mut known = vec![false; page.len()];
            for scope in &scopes {
                let steps = page.iter().map(|(step, _)| step.clone()).collect();
                let rows = ledger.look_up_all(scope, steps).await.map_err(|error| error.to_string())?;
                for (known, row) in known.iter_mut().zip(rows) {
                    *known |= row.is_some_and(|row| matches!(row.state, State::Done(_) | State::Begun));
                }
            }
            for (((id, _), made), _) in page.drain(..).zip(known).filter(|(_, known)| !known) {
                unknown += 1;
                example.get_or_insert((id, made));
            }
        }
        if is_last {
            break;
        }
    }
    let Some((id, made)) = example else { return Ok(()) };
    Err(format!(
        "{} names {unknown} cards that the ledger {} does not know (job {id}: {made}), so this is not the ledger they were \
         issued with; nothing was issued. Pass that one as --ledger, or --reconcile-first to look for each row's card at \
         Stripe, or --results another file",
        path.display(),
        ledger.name()
    ))
}
