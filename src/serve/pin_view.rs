//! A cardholder looks at a PIN: Stripe's own frame shows it, with a key that is made here for one card and one page.

use std::net::IpAddr;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Server;
use super::access::Role;
use super::pins::{LinkText, WAITS_FOR, unusable};
use super::problem::{Kind, Problem};
use crate::line::EphemeralKey;
use crate::operation::is_card_id;
use crate::pin_links::Purpose;

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
    let usable = match &body.link {
        None => {
            server.parts.tokens.allow(headers, Role::Pin)?;
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
    server.ready()?;
    let there = server.for_cardholders()?;
    if let Some(usable) = &usable
        && !there.links.claim(usable, None).await?
    {
        return Err(unusable());
    }
    let key = tokio::time::timeout(WAITS_FOR, there.line.ephemeral_key(card, &body.nonce)).await;
    match key.unwrap_or_else(|_| EphemeralKey::NotNow("Stripe does not answer in time".into())) {
        EphemeralKey::Made(secret) => {
            crate::metrics::pin_link("used");
            Ok(KeyView { ephemeral_key_secret: secret, card: card.to_owned() })
        }
        EphemeralKey::Refused(reason) => {
            tracing::warn!(reason, "Stripe makes no key to show this card");
            // A nonce that was used, or a card that is not there: the link shows nothing any more.
            Err(Problem::new(Kind::CardRefused, "this card cannot be shown; its sender must look"))
        }
        EphemeralKey::NotNow(reason) => {
            tracing::warn!(reason, "no key to show a card can be had");
            if let Some(usable) = &usable {
                there.links.give_back(usable).await?;
            }
            Err(Problem::new(Kind::NotNow, "nothing can be shown at this moment; try again in a while"))
        }
    }
}
