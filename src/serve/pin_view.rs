//! A cardholder looks at a PIN: Stripe's own frame shows it, with a key that is made here for one card and one page.

use std::net::IpAddr;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot::Sender;
use utoipa::ToSchema;

use super::Server;
use super::access::{Caller, Role};
use super::audit::{About, Action};
use super::pins::{LinkText, WAITS_FOR, unsaid, unusable};
use super::problem::{Kind, Problem};
use crate::line::EphemeralKey;
use crate::operation::is_card_id;
use crate::pin_links::{Claimed, PinLinks, Purpose, Usable};

/// What a page asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyBody {
    /// Stripe.js's nonce for this card and page.
    #[schema(min_length = 1, max_length = 5000)]
    nonce: String,
    /// A viewing link's text; without one, a token with the role `pin` is needed.
    #[schema(value_type = Option<String>)]
    link: Option<LinkText>,
}

/// The key.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyView {
    /// For Stripe.js, once.
    #[schema(value_type = String)]
    ephemeral_key_secret: String,
    /// The card that it is for.
    card: String,
}

/// Makes a key for one card and one page.
pub(super) async fn key(
    server: &Server,
    card: &str,
    body: KeyBody,
    (headers, address): (&HeaderMap, IpAddr),
) -> Result<KeyView, Problem> {
    if !is_card_id(card) {
        return Err(Problem::new(Kind::NotFound, "this is no card's id"));
    }
    if body.nonce.is_empty() || body.nonce.len() > 5000 {
        return Err(Problem::new(Kind::BadRequest, "`nonce` is what Stripe.js made for this card"));
    }
    let mut caller = Caller::CARDHOLDER;
    let usable = match &body.link {
        None => {
            caller = server.allow(headers, &[Role::Pin])?;
            None
        }
        Some(link) => {
            let usable = server.usable_link(link, address).await?;
            match usable.purpose() {
                Purpose::View { card: of_link, .. } if of_link == card => Some(usable),
                // A link of another card, or to choose.
                Purpose::View { .. } | Purpose::Choose { .. } => return Err(unusable()),
            }
        }
    };
    server.ready_for_cardholders()?;
    let (tell, told) = tokio::sync::oneshot::channel();
    let (server_of_task, card, nonce) = (server.clone(), card.to_owned(), body.nonce);
    // On a task of its own: a page that is closed leaves no link used for nothing.
    server.tasks.spawn(async move { make(&server_of_task, (card, caller), &nonce, usable, tell).await });
    told.await.unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "a bug; it has been logged")))
}

/// Uses the link if there is one, and makes the key. A link by which nobody was shown anything is given back.
async fn make(
    server: &Server,
    (card, caller): (String, Caller),
    nonce: &str,
    usable: Option<Usable>,
    tell: Sender<Result<KeyView, Problem>>,
) {
    let there = match server.for_cardholders() {
        Ok(there) => there,
        Err(problem) => return drop(tell.send(Err(problem))),
    };
    let claimed = match &usable {
        None => None,
        Some(usable) => match there.links.claim(usable, None).await {
            Ok(Some(claimed)) => Some(claimed),
            Ok(None) => return drop(tell.send(Err(unusable()))),
            Err(error) => return drop(tell.send(Err(unsaid(error)))),
        },
    };
    let key = tokio::time::timeout(WAITS_FOR, there.line.ephemeral_key(&card, nonce)).await;
    let (answer, is_used) = match key
        .unwrap_or_else(|_| EphemeralKey::NotNow("Stripe does not answer in time".into()))
    {
        // Whoever sees it stands in the audit log before.
        EphemeralKey::Made(secret) => match server.record(&caller, Action::PinShown, About::job(&card)).await
        {
            Ok(()) => (Ok(KeyView { ephemeral_key_secret: secret, card }), true),
            // Why stands in the log.
            Err(_) => (Err(not_now()), false),
        },
        EphemeralKey::Refused(reason) => {
            tracing::warn!(reason, "Stripe makes no key to show this card");
            // A nonce that was used, or a card that is not there: the link shows nothing any more.
            (Err(Problem::new(Kind::CardRefused, "this card cannot be shown; its sender must look")), true)
        }
        EphemeralKey::NotNow(reason) => {
            tracing::warn!(reason, "no key to show a card can be had");
            (Err(not_now()), false)
        }
    };
    let mut claimed = claimed;
    if let Some(unused) = claimed.take_if(|_| !is_used) {
        // Before the page is told that it may try again.
        give_back(there.links, unused).await;
    }
    let is_made = answer.is_ok();
    let is_told = tell.send(answer).is_ok();
    if is_made && is_told {
        crate::metrics::pin_link("used");
    } else if let Some(claimed) = claimed.filter(|_| !is_told) {
        // A page that has gone shows nothing with its key.
        give_back(there.links, claimed).await;
    }
}

fn not_now() -> Problem {
    Problem::new(Kind::NotNow, "nothing can be shown at this moment; try again in a while")
}

async fn give_back(links: &PinLinks, claimed: Claimed) {
    if let Err(error) = links.give_back(claimed).await {
        tracing::warn!(%error, "a link showed nothing, and could not be given back: its cardholder needs a new one");
    }
}
