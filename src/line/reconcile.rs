//! Looking for a job's card among its cardholder's.
//!
//! Stripe has no search by metadata, so the list is read page by page, each page with a permit of the pace. A card
//! counts whatever its status: a card that was cancelled since is still the job's card.

use std::time::Duration;

use super::course::Verdict;
use super::passage::Stop;
use super::{Halt, Line};
use crate::clock::Time;
use crate::job::Job;
use crate::pace::{Answered as Paced, Waited};
use crate::stripe::{Client, Listed};

/// Without a cardholder to filter by, cards made from this long before the first attempt on are looked through;
/// it covers clocks that disagree.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
/// Most pages read: 100,000 cards. A list that never ends is not one.
const PAGES_MAX: usize = 1000;

/// The verdict, or why there is none this time.
pub(super) async fn look(
    line: &Line,
    job: &Job,
    key_began: Option<Time>,
) -> Result<Result<Verdict, String>, Stop> {
    let cardholder = job.card.cardholder.as_deref();
    let since = match cardholder {
        Some(_) => None,
        None => key_began
            .map(|began| (began.unix_ms() - i64::try_from(CLOCKS_DIFFER.as_millis()).unwrap_or(0)) / 1000),
    };
    let mut after: Option<String> = None;
    let mut found: Vec<crate::outcome::Card> = Vec::new();
    for _ in 0..PAGES_MAX {
        match page(line, &line.parts.client, cardholder, since, after.as_deref()).await? {
            Listed::Page { cards, more } => {
                after = cards.last().map(|card| card.card.id.clone());
                found.extend(
                    cards
                        .into_iter()
                        .filter(|card| card.job.as_deref() == Some(job.id.as_str()))
                        .map(|card| card.card),
                );
                if !more || after.is_none() {
                    if found.len() > 1 {
                        // Never by embosser's rules: somebody copied the metadata, or Stripe forgot a key early.
                        tracing::error!(job = %job.id, cards = found.len(), "several cards carry this job's id");
                    }
                    // Lists come newest first: the oldest is the job's own.
                    return Ok(Ok(found.pop().map_or(Verdict::Absent, Verdict::Found)));
                }
            }
            Listed::Failed { reason, .. } => return Ok(Err(reason)),
        }
    }
    Ok(Err("the list of cards does not end".into()))
}

async fn page(
    line: &Line,
    client: &Client,
    cardholder: Option<&str>,
    since: Option<i64>,
    after: Option<&str>,
) -> Result<Listed, Stop> {
    loop {
        let turn = line.parts.pace.turn().await.map_err(|_| Stop::Closed)?;
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        permit.departure().left();
        let listed = client.list_cards(cardholder, since, after).await;
        match &listed {
            Listed::Page { .. } => permit.answered(Paced::Accepted),
            Listed::Failed { limited: Some(reason), .. } => {
                crate::metrics::rate_limited(reason.word());
                permit.answered(Paced::Limited(*reason));
                continue;
            }
            Listed::Failed { key_rejected: true, reason, .. } => {
                permit.answered(Paced::Accepted);
                line.halt_with(Halt::Key(reason.clone()));
                return Err(Stop::Halted);
            }
            Listed::Failed { reason, .. } => permit.answered(Paced::Failed(reason.clone())),
        }
        return Ok(listed);
    }
}
