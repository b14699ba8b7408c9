//! Which cards of a batch were cancelled after they were made, and by which job.
//!
//! A row's own end stays what it was, since a card was made and paid for. That the card is cancelled is learnt from the job
//! that did it, of whichever batch. The ledger keeps no values: a job that cancels a card and changes nothing else of it is known
//! by the digest of what it asked for. One that changes more at once is not seen here.

use std::collections::HashMap;

use super::cancellation::CANCELED;
use crate::job::{Content, JobId};
use crate::ledger::{Kind, Ledger, LedgerError, Row, Scope, State};
use crate::operation::{Operation, Request};
use crate::outcome::Output;

/// Why a card may be said to be cancelled, as Stripe takes it; none is said by default.
const REASONS: [Option<&str>; 3] = [None, Some("lost"), Some("stolen")];
/// Contents that are asked about in one question.
const ASKED_AT_ONCE: usize = 600;

/// The job that cancelled each of the cards which these rows made, by card; cards that are not cancelled, as far as the ledger
/// knows, are left out.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn cancelled(
    ledger: &Ledger,
    scope: &Scope,
    rows: &[Row],
) -> Result<HashMap<String, JobId>, LedgerError> {
    let made = rows.iter().filter_map(made_by);
    let contents: Vec<(Content, &str)> =
        made.flat_map(|card| contents_of(card).into_iter().map(move |content| (content, card))).collect();
    let mut cancelled = HashMap::new();
    for asked in contents.chunks(ASKED_AT_ONCE) {
        let cards: HashMap<Content, &str> = asked.iter().copied().collect();
        let found = ledger.same_content(scope, asked.iter().map(|(content, _)| *content).collect()).await?;
        for job in found.into_iter().filter(|job| job.kind == Kind::Done) {
            if let Some(card) = cards.get(&job.content) {
                cancelled.entry((*card).to_owned()).or_insert(job.id);
            }
        }
    }
    Ok(cancelled)
}

/// The card that a row made.
fn made_by(row: &Row) -> Option<&str> {
    match &row.state {
        State::Done(Output::Issued(card)) => Some(&card.id),
        State::Done(_) | State::Begun | State::Refused(_) | State::AwaitingPin => None,
    }
}

/// What a job that cancels this card asks for, whatever the reason.
pub(super) fn contents_of(card: &str) -> Vec<Content> {
    let content = |reason: Option<&str>| {
        let status = Some(("status".to_owned(), CANCELED.to_owned()));
        let reason = reason.map(|reason| ("cancellation_reason".to_owned(), reason.to_owned()));
        let pairs = status.into_iter().chain(reason).collect();
        let request = Request::from_pairs(Operation::UpdateCard, pairs).ok()?;
        Some(request.with_target(card.to_owned()).content(None))
    };
    REASONS.into_iter().filter_map(content).collect()
}
