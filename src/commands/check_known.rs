//! What the ledger on this machine knows of a manifest's rows, for `embosser check`: it reads, and makes none.

use std::path::Path;

use super::issue::earlier::{look_up, scopes_of};
use super::manifest::batch_of;
use crate::config::{Config, place};
use crate::job::Batch;
use crate::ledger::{Ledger, Scope};
use crate::manifest::batch::{SecondCards, issued_as};
use crate::manifest::checked::CheckedManifest;
use crate::manifest::recognise::Recognition;
use crate::manifest::{CheckReport, Problem, Reading, counted};
use crate::remedy::TryAgain;

/// What was found.
#[derive(Debug, Default)]
pub struct KnownRows {
    /// In words.
    pub notes: Vec<String>,
    /// The first warnings.
    pub warnings: Vec<Problem>,
    /// All of them.
    pub warning_count: u64,
}

/// Looks the rows up. What keeps them from being looked up is a note, as the check can do without.
pub async fn look(
    path: &Path,
    reading: Reading,
    (batch, ledger): (Option<&str>, Option<&str>),
    config: &Config,
) -> KnownRows {
    let mut known = KnownRows::default();
    let configured = ledger.unwrap_or(&config.ledger.url);
    let url = match place::existing_ledger_url(configured) {
        Ok(url) => url,
        // Nothing was issued here; or, where one was named, it is not there.
        Err(error) => {
            known.notes.extend(ledger.map(|_| unknown(&error.to_string())));
            return known;
        }
    };
    // A check goes over no network, unless it is told to.
    if ledger.is_none() && !url.starts_with("sqlite:") {
        return known;
    }
    if let Err(reason) = look_in(&url, path, reading, batch, config, &mut known).await {
        known.notes.push(unknown(&reason));
    }
    known
}

fn unknown(why: &str) -> String {
    format!("Rows that were issued before cannot be told here: {why}")
}

async fn look_in(
    url: &str,
    path: &Path,
    reading: Reading,
    batch: Option<&str>,
    config: &Config,
    known: &mut KnownRows,
) -> Result<(), String> {
    let ledger = Ledger::open_existing(url).await.map_err(|error| error.to_string())?;
    let scopes = scopes_of(&ledger, config).await?;
    let looked = match scopes.is_empty() {
        true => Ok(()),
        false => look_for(&ledger, &scopes, path, reading, batch, known).await,
    };
    ledger.close().await;
    looked
}

async fn look_for(
    ledger: &Ledger,
    scopes: &[Scope],
    path: &Path,
    reading: Reading,
    batch: Option<&str>,
    known: &mut KnownRows,
) -> Result<(), String> {
    let batch = batch_of(path, batch)?;
    // What is wrong with the file the check says.
    let Ok(manifest) = super::manifest::open(path, reading).await else { return Ok(()) };
    let manifest = CheckedManifest::new(manifest, &CheckReport::default());
    for scope in scopes {
        let recognition =
            look_up(ledger, scope, &batch, (SecondCards::Refused, TryAgain::All), &manifest).await?;
        // Of an account that is not said each that the ledger has may be meant.
        let of_scope = if scopes.len() > 1 { format!(" ({})", scope.as_str()) } else { String::new() };
        known.notes.extend(notes(&recognition, &batch).into_iter().map(|note| format!("{note}{of_scope}")));
        let near = recognition.near();
        known.warning_count += near.count;
        known.warnings.extend(near.problems.iter().cloned());
    }
    Ok(())
}

fn notes(recognition: &Recognition, batch: &Batch) -> Vec<String> {
    if let Some(other) = recognition.is_wholly(batch) {
        return vec![format!(
            "Nothing of it would be issued: {}. `issue --batch {other}` goes on with that batch.",
            issued_as(batch, other)
        )];
    }
    let mut notes = Vec::new();
    let elsewhere = recognition.rows_in_order();
    if let Some(first) = elsewhere.first() {
        notes.push(format!(
            "{} known under other names and would get no second card; the first is row {}: {}.",
            are(elsewhere.len() as u64),
            first.row,
            first.note()
        ));
    }
    let in_batch = elsewhere.iter().filter(|row| row.batch == *batch).count() as u64;
    let before = recognition.rows_present().saturating_sub(in_batch);
    if before > 0 {
        notes.push(format!("{} in batch {batch} already: what was issued is not issued again.", are(before)));
    }
    notes
}

fn are(rows: u64) -> String {
    format!("{} {}", counted(rows, "row"), if rows == 1 { "is" } else { "are" })
}
