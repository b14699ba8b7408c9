//! Which rows made the cards that the rows of a batch that waits are about, as far as the ledger knows.
//!
//! The ledger has no index of cards. So the batch that is undone is looked through first, and then the latest ones, until all
//! cards are found or so many rows were seen.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use utoipa::ToSchema;

use crate::job::Batch;
use crate::ledger::{Ledger, LedgerError, Only, Scope, State};
use crate::manifest::cancellation::UNDO;
use crate::outcome::Output;

/// Rows of the ledger that are looked through for one page: some tenths of a second.
const ROWS_SEEN_MAX: usize = 50_000;

/// The row that made a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct MadeView {
    /// Its batch.
    batch: String,
    /// Its `row_id`, if it has one.
    row_id: Option<String>,
    /// Its number in the file that it came from, from 1.
    row: Option<u64>,
    /// The last digits of the card's number.
    last4: String,
}

/// The rows that made these cards, by card; those that are not found are left out.
///
/// # Errors
/// If the ledger cannot be read.
pub(super) async fn makers(
    ledger: &Ledger,
    (scope, batch): (&Scope, &Batch),
    mut cards: HashSet<String>,
) -> Result<HashMap<String, MadeView>, LedgerError> {
    let mut made = HashMap::new();
    if cards.is_empty() {
        return Ok(made);
    }
    let undone = batch.as_str().strip_suffix(UNDO).and_then(|undone| Batch::new(undone).ok());
    let mut seen = 0;
    if let Some(undone) = &undone {
        look_through(ledger, (scope, undone), &mut cards, (&mut made, &mut seen)).await?;
    }
    if cards.is_empty() {
        return Ok(made);
    }
    for counts in ledger.counts().await? {
        let is_searched = counts.scope == scope.as_str() && counts.issued > 0;
        let Some(other) = Batch::new(counts.batch.as_str()).ok().filter(|_| is_searched) else { continue };
        if undone.as_ref() != Some(&other) {
            look_through(ledger, (scope, &other), &mut cards, (&mut made, &mut seen)).await?;
        }
        if cards.is_empty() || seen >= ROWS_SEEN_MAX {
            break;
        }
    }
    Ok(made)
}

async fn look_through(
    ledger: &Ledger,
    (scope, batch): (&Scope, &Batch),
    cards: &mut HashSet<String>,
    (made, seen): (&mut HashMap<String, MadeView>, &mut usize),
) -> Result<(), LedgerError> {
    let mut pages = ledger.pages(scope, batch, Only::default());
    while !cards.is_empty()
        && *seen < ROWS_SEEN_MAX
        && let Some(page) = pages.next().await?
    {
        *seen += page.len();
        for row in page {
            let State::Done(Output::Issued(card)) = row.state else { continue };
            if let Some(id) = cards.take(&card.id) {
                let batch = row.batch.to_string();
                made.insert(id, MadeView { batch, row_id: row.row_id, row: row.row, last4: card.last4 });
            }
        }
    }
    Ok(())
}
