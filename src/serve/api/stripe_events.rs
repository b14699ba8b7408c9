//! The endpoint of Stripe's events.

use axum::Json;
use axum::extract::{Request, State};

use super::BODY_WITHIN;
use crate::serve::Server;
use crate::serve::jobs as sent_alone;
use crate::serve::problem::{Kind, Problem};
use crate::serve::stripe_events::{self, EventAnswer};

/// Longest event: a card with its cardholder and controls has a tenth of this.
pub(in crate::serve) const EVENT_BYTES_MAX: usize = 128 << 10;

/// Take an event of Stripe's, signed with this endpoint's secret (`[stripe_events]`). No token is needed.
///
/// Of `issuing_card.updated` it keeps where the card is on its way; every other event is answered 200, and nothing is done.
#[utoipa::path(
    post, path = "/v1/stripe-events", tag = "server", security(()),
    params(("Stripe-Signature" = Option<String>, Header, description = "The time of signing, and signatures")),
    request_body(content = Object, description = "The event, as Stripe sends it"),
    responses((status = 200, body = EventAnswer),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "It is not signed so, or no event"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "There is no secret: events are not taken"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"))
)]
pub(super) async fn take_event(
    State(server): State<Server>,
    request: Request,
) -> Result<Json<EventAnswer>, Problem> {
    let Some(secret) = &server.parts.event_secret else {
        return Err(Problem::new(
            Kind::NotFound,
            "events of Stripe's are not taken here: see [stripe_events]",
        ));
    };
    let header = request.headers().get("stripe-signature").and_then(|header| header.to_str().ok());
    let header = header.unwrap_or_default().to_owned();
    let read = sent_alone::read(&server, request, "event", EVENT_BYTES_MAX);
    let body = tokio::time::timeout(BODY_WITHIN, read).await;
    let body = body.map_err(|_| Problem::new(Kind::TooSlow, "the event took too long to come"))??;
    stripe_events::take(&server, secret, &header, &body).await.map(Json)
}
