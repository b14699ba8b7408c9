//! What Stripe tells by itself: where a card is on its way (`issuing_card.updated`).
//!
//! An event is believed for its signature alone, which is over its bytes as they came. It is kept for a card that a job of this
//! ledger made, which the card's own metadata names; of any other nothing is kept. Events come twice, late and out of order:
//! what is older than what is known changes nothing.

mod signature;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Server;
use super::problem::{Kind, Problem};
use crate::job::{JobId, Step};
use crate::ledger::Row;
use crate::operation::Operation;
use crate::shipping::{KnownShipping, Shipping};

pub use signature::{EventSecret, Unsigned};

/// The one kind of event that is looked at.
const CARD_UPDATED: &str = "issuing_card.updated";

/// An event, as far as it matters.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    /// When it happened, in seconds since 1970.
    created: i64,
    livemode: bool,
    /// The connected account that it is about, if it is about one.
    #[serde(default)]
    account: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: serde_json::Value,
}

/// A card, as far as it matters.
#[derive(Deserialize)]
struct Card {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    shipping: Option<Shipping>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// What became of an event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct EventAnswer {
    /// Whether it was news of a card that this server knows.
    kept: bool,
}

/// Takes an event, if it is Stripe's.
pub(super) async fn take(
    server: &Server,
    secret: &EventSecret,
    header: &str,
    body: &[u8],
) -> Result<EventAnswer, Problem> {
    let bad = |detail: String| Problem::new(Kind::BadRequest, detail);
    let now = server.clock().now().unix_ms().div_euclid(1000);
    secret.verify(header, body, now).map_err(|unsigned| bad(unsigned.to_string()))?;
    let event: Event =
        serde_json::from_slice(body).map_err(|_| bad("the body is no event of Stripe's".into()))?;
    let kept = event.kind == CARD_UPDATED && keep(server, event).await?;
    Ok(EventAnswer { kept })
}

async fn keep(server: &Server, event: Event) -> Result<bool, Problem> {
    let (scope, ledger) = (server.scope(), &server.parts.views);
    let is_of_other_account = match (event.account.as_deref(), scope.account()) {
        (Some(theirs), Some(ours)) => theirs != ours,
        _ => false,
    };
    if event.livemode != scope.as_str().starts_with("live:") || is_of_other_account {
        return Ok(false);
    }
    // Its card may be of a form that only another version of Stripe's API has: to have it sent again would not help.
    let Ok(card) = serde_json::from_value::<Card>(event.data.object) else {
        tracing::warn!("an event of Stripe's has no card that can be read");
        return Ok(false);
    };
    let job = card.metadata.get("embosser_job").and_then(|job| JobId::new(job.as_str()).ok());
    let Some(job) = job else { return Ok(false) };
    let rows = ledger.look_up_all(scope, vec![(job, Step::Last(Operation::CreateCard))]).await?;
    let is_ours = rows.into_iter().flatten().any(|row: Row| row.card() == Some(card.id.as_str()));
    if !is_ours {
        return Ok(false);
    }
    let shipping = (card.kind == "physical").then(|| card.shipping.unwrap_or_default().fit_to_show());
    let known = KnownShipping { shipping, at: event.created };
    Ok(ledger.keep_shipping(scope, &card.id, &known).await?)
}
