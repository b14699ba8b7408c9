//! The endpoints of PINs: those behind cardholders' pages, which need no token, and those by which links are given out.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body_of;
use crate::job::{Batch, JobId};
use crate::ledger::{self, LedgerError};
use crate::metrics;
use crate::operation::is_card_id;
use crate::pin_links::{Made, PinLinks, Show, Waiting};
use crate::serve::Server;
use crate::serve::access::{Operate, Role};
use crate::serve::audit::{About, Action};
use crate::serve::connection::Peer;
use crate::serve::extract::{Path, Query};
use crate::serve::pin_view::{self, KeyBody, KeyView};
use crate::serve::pin_waiting;
use crate::serve::pins::{self, ChooseBody, LinkView, LookBody, TakenView};
use crate::serve::problem::{Kind, Problem};

/// Most links that one request makes; the next one goes on.
const LINKS_MAX: usize = 1000;
/// Who asks: as the proxy says, if one is configured (the last address is the one that it saw itself), else the other end of the
/// connection.
fn address_of(server: &Server, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<Peer>();
    let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |Peer(peer)| peer.ip().to_canonical());
    let forwarded = server.parts.pin_page.client_address_header.as_deref().and_then(|name| {
        let values = request.headers().get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).next_back()?.rsplit(',').next()?.trim().parse().ok()
    });
    forwarded.unwrap_or(peer)
}

/// Say what a cardholder's link is for. It uses nothing up.
#[utoipa::path(
    post, path = "/v1/pin-links/look", tag = "pins", request_body = LookBody, security(()),
    responses(
        (status = 200, body = LinkView),
        (status = 404, body = Problem, content_type = "application/problem+json",
            description = "It cannot be used: unknown, used, revoked or expired; or there are no pages for cardholders here"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too often"),
    )
)]
pub(super) async fn look_at_link(
    State(server): State<Server>,
    request: Request,
) -> Result<Json<LinkView>, Problem> {
    let address = address_of(&server, &request);
    let body: LookBody = body_of(&server, request).await?;
    Ok(Json(pins::look(&server, body, address).await?))
}

/// Take the PIN that a cardholder chose, as a JWE. Its job goes on at once; the link is used up.
#[utoipa::path(
    post, path = "/v1/pin-links/choose", tag = "pins", request_body = ChooseBody, security(()),
    responses(
        (status = 200, body = TakenView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The link cannot be used"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "stale_key: encrypt again under the key of now, the link is still good; card_refused: Stripe refused the card"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "This is no encrypted PIN"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too often"),
    )
)]
pub(super) async fn choose_pin(
    State(server): State<Server>,
    request: Request,
) -> Result<Json<TakenView>, Problem> {
    let address = address_of(&server, &request);
    let body: ChooseBody = body_of(&server, request).await?;
    Ok(Json(pins::choose(&server, body, address).await?))
}

/// Pass Stripe's PIN key through, for browsers that cannot reach it. It was fetched after the request came.
#[utoipa::path(
    get, path = "/v1/pin-key", tag = "pins", security(()),
    responses(
        (status = 200, description = "Stripe's document", body = serde_json::Value),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No pages for cardholders here"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too often"),
    )
)]
pub(super) async fn pin_key(State(server): State<Server>, request: Request) -> Result<Response, Problem> {
    server.pin_limits.address(address_of(&server, &request))?;
    let line = server.for_cardholders()?.line;
    let document = server.key_relay.fetched(line).await.map_err(|reason| {
        tracing::warn!(reason, "the PIN key cannot be had for a page");
        Problem::new(Kind::NotNow, "the key cannot be had at this moment; try again in a while")
    })?;
    let mut response = document.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Make a key by which Stripe's frame shows one card on one page: for a viewing link, which is used up, or a token with the
/// role `pin`.
#[utoipa::path(
    post, path = "/v1/cards/{card}/ephemeral-keys", tag = "pins", params(("card" = String, Path, example = "ic_1Abc")),
    request_body = KeyBody, security((), ("token" = ["pin"])),
    responses(
        (status = 200, body = KeyView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "The link cannot be used"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Stripe does not show this card"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "Too often"),
    )
)]
pub(super) async fn make_ephemeral_key(
    State(server): State<Server>,
    Path(card): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<KeyView>, Problem> {
    let address = address_of(&server, &request);
    let body: KeyBody = body_of(&server, request).await?;
    Ok(Json(pin_view::key(&server, &card, body, (&headers, address)).await?))
}

/// Which jobs.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitingQuery {
    /// Only those of this batch.
    batch: Option<String>,
    /// The `next` of the answer before this one.
    after: Option<String>,
}

/// Jobs that wait for their cardholders.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct WaitingView {
    #[schema(value_type = Vec<Object>)]
    waiting: Vec<Waiting>,
    /// Give this as `after` for more; null if these were the last.
    next: Option<String>,
}

/// List the jobs that wait for their cardholders to choose a PIN, each with how its latest link stands.
#[utoipa::path(
    get, path = "/v1/pin-links", tag = "pins", params(WaitingQuery), security(("token" = ["operate"])),
    responses(
        (status = 200, body = WaitingView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No pages for cardholders here"),
    )
)]
pub(super) async fn list_waiting(
    Operate(caller): Operate,
    State(server): State<Server>,
    Query(query): Query<WaitingQuery>,
) -> Result<Json<WaitingView>, Problem> {
    let links = server.links()?;
    let batch = query.batch.map(Batch::new).transpose();
    let batch = batch.map_err(|error| Problem::new(Kind::BadRequest, format!("`batch` {error}")))?;
    let about = About { batch: batch.as_ref().map(ToString::to_string), ..About::default() };
    server.record(&caller, Action::PinLinksListed, about).await?;
    let (waiting, next) = links.page(batch.as_ref(), query.after.as_deref().unwrap_or("")).await?;
    Ok(Json(WaitingView { waiting, next }))
}

/// For which links are made: one of the three.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MakeBody {
    /// All jobs of this batch that wait and have no link that can be used.
    batch: Option<String>,
    /// This job.
    job: Option<String>,
    /// This card, to look at its PIN.
    card: Option<String>,
    /// What the card's page shows; the PIN alone if nothing is said.
    shows: Option<Vec<Show>>,
    /// Whether jobs with a link that can be used get another one in its place.
    #[serde(default)]
    renew: bool,
    /// With a batch: the `next` of the answer before this one.
    after: Option<String>,
}

/// A link, for its cardholder alone. Its text is told once, here.
#[derive(Serialize, ToSchema)]
struct LinkMade {
    job: Option<String>,
    card: Option<String>,
    row: Option<u64>,
    row_id: Option<String>,
    pin_link: String,
    /// Until when it can be used, in milliseconds since 1970.
    expires_ms: i64,
}

/// Links that were made.
#[derive(Serialize, ToSchema)]
pub(super) struct LinksMade {
    links: Vec<LinkMade>,
    /// Give this as `after`, with the same batch, for more; null if these were the last.
    next: Option<String>,
}

/// Make links: for a batch's jobs or for one job that wait for a PIN, or for looking at a card's PIN.
#[utoipa::path(
    post, path = "/v1/pin-links", tag = "pins", request_body = MakeBody, security(("token" = ["operate"])),
    responses(
        (status = 200, body = LinksMade),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No such job waits"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
    )
)]
pub(super) async fn make_links(
    Operate(caller): Operate,
    State(server): State<Server>,
    headers: HeaderMap,
    request: Request,
) -> Result<Json<LinksMade>, Problem> {
    let body: MakeBody = body_of(&server, request).await?;
    let all = server.links()?;
    let mut next = None;
    let links = match (body.batch, body.job, body.card) {
        (Some(batch), None, None) => {
            let batch = Batch::new(batch);
            let batch = batch.map_err(|error| Problem::new(Kind::BadRequest, format!("`batch` {error}")))?;
            let detail = body.renew.then(|| "in place of those that were made before".to_owned());
            server
                .record(&caller, Action::PinLinksMade, About { detail, ..About::batch(batch.as_str()) })
                .await?;
            let (made, after) = of_batch(&server, &batch, body.renew, body.after.unwrap_or_default()).await?;
            next = after;
            made
        }
        (None, Some(job), None) => {
            let none = || Problem::new(Kind::NotFound, "no such job waits for a PIN");
            let id = JobId::new(job.as_str()).map_err(|_| none())?;
            server.record(&caller, Action::PinLinksMade, About::job(&job)).await?;
            let made = all.renew(&id).await?.ok_or_else(none)?;
            vec![LinkMade { job: Some(job), ..made.into() }]
        }
        (None, None, Some(card)) if is_card_id(&card) => {
            // Whoever has the link sees the card, so who makes it must be allowed to.
            let by_pin = server.allow(&headers, &[Role::Pin])?;
            if server.parts.pin_page.publishable_key.is_none() {
                return Err(Problem::new(
                    Kind::NotFound,
                    "pin_page.publishable_key is not set: no PIN can be shown",
                ));
            }
            let shows = body.shows.unwrap_or_else(|| vec![Show::Pin]);
            let detail = Some("to look at the card".to_owned());
            server.record(&by_pin, Action::PinLinksMade, About { detail, ..About::job(&card) }).await?;
            let made = all.make_viewing(&card, shows).await?;
            vec![LinkMade { card: Some(card), ..made.into() }]
        }
        _ => return Err(Problem::new(Kind::BadRequest, "name a batch, a job or a card (ic_…): one of them")),
    };
    links.iter().for_each(|_| metrics::pin_link("made"));
    Ok(Json(LinksMade { links, next }))
}

impl From<Made> for LinkMade {
    fn from(made: Made) -> Self {
        Self {
            job: None,
            card: None,
            row: None,
            row_id: None,
            pin_link: made.link.expose().to_owned(),
            expires_ms: made.expires.unix_ms(),
        }
    }
}

/// Up to so many links for a batch's jobs after that one, and after which one to go on.
async fn of_batch(
    server: &Server,
    batch: &Batch,
    renew: bool,
    mut after: String,
) -> Result<(Vec<LinkMade>, Option<String>), Problem> {
    let links = server.links()?;
    let mut made: Vec<LinkMade> = Vec::new();
    loop {
        let page = links.page(Some(batch), &after).await;
        let (waiting, next) = match page {
            Ok(page) => page,
            Err(error) => return so_far(made, error),
        };
        for waits in waiting.into_iter().filter(|waits| renew || !waits.has_usable_link()) {
            if made.len() >= LINKS_MAX {
                let last = made.last().and_then(|link| link.job.clone());
                return Ok((made, last));
            }
            let Ok(id) = JobId::new(waits.job.as_str()) else { continue };
            match renewed(server, &links, &id).await {
                Ok(Some(link)) => {
                    let Waiting { job, row, row_id, .. } = waits;
                    made.push(LinkMade { job: Some(job), row, row_id, ..link.into() });
                }
                Ok(None) => {}
                Err(error) => return so_far(made, error),
            }
        }
        match next {
            Some(next) => after = next,
            None => return Ok((made, None)),
        }
    }
}

/// A new link for a job that waits. None for one of whose call the end is not known: it takes no PIN until it waits again.
async fn renewed(server: &Server, links: &PinLinks, id: &JobId) -> Result<Option<Made>, LedgerError> {
    let row = server.parts.views.look_up(server.scope(), id).await?;
    let is_open = row.is_some_and(|row| row.state == ledger::State::Begun);
    if is_open { Ok(None) } else { links.renew(id).await }
}

/// The links that were made before the ledger failed: their texts are known only now, so they are told, and what follows can be
/// asked for.
fn so_far(made: Vec<LinkMade>, error: LedgerError) -> Result<(Vec<LinkMade>, Option<String>), Problem> {
    match made.last().and_then(|link| link.job.clone()) {
        Some(last) => {
            tracing::error!(%error, links = made.len(), "the ledger does not serve; links that were made are told");
            Ok((made, Some(last)))
        }
        None => Err(error.into()),
    }
}

/// Which job's link.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    job: String,
}

/// Revoke a job's link. The job goes on waiting.
#[utoipa::path(
    post, path = "/v1/pin-links/revoke", tag = "pins", request_body = RevokeBody, security(("token" = ["operate"])),
    responses(
        (status = 204, description = "It can be used no more"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "It has no link that could be used"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
    )
)]
pub(super) async fn revoke_link(
    Operate(caller): Operate,
    State(server): State<Server>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let body: RevokeBody = body_of(&server, request).await?;
    let links = server.links()?;
    let none = || Problem::new(Kind::NotFound, "this job has no link that could be used");
    let id = JobId::new(body.job).map_err(|_| none())?;
    server.record(&caller, Action::PinLinkRevoked, About::job(id.as_str())).await?;
    if !links.revoke(&id).await? {
        return Err(none());
    }
    metrics::pin_link("revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Which jobs: one, or all of a batch's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CancelBody {
    job: Option<String>,
    batch: Option<String>,
}

/// How many there were.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct CancelledView {
    /// Those that are refused now.
    cancelled: u64,
    /// Those of which that is not known yet: a call was begun for them, and their cards are looked for. Ask again later.
    pending: u64,
}

/// Cancel jobs that wait for a PIN. They are refused as `cancelled`, and their links can be used no more. Of one for which a call
/// was begun the card is looked for first, and it is cancelled if there is none; that goes on after the answer.
#[utoipa::path(
    post, path = "/v1/pin-links/cancel", tag = "pins", request_body = CancelBody, security(("token" = ["operate"])),
    responses(
        (status = 200, body = CancelledView),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "No pages for cardholders here"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
    )
)]
pub(super) async fn cancel_waiting(
    Operate(caller): Operate,
    State(server): State<Server>,
    request: Request,
) -> Result<Json<CancelledView>, Problem> {
    let body: CancelBody = body_of(&server, request).await?;
    let links = server.for_cardholders()?.links;
    let about = About { batch: body.batch.clone(), job: body.job.clone(), ..About::default() };
    let ids = match (body.job, body.batch) {
        (Some(job), None) => JobId::new(job).into_iter().collect(),
        (None, Some(batch)) => {
            let batch = Batch::new(batch);
            let batch = batch.map_err(|error| Problem::new(Kind::BadRequest, format!("`batch` {error}")))?;
            let (mut ids, mut after) = (Vec::new(), String::new());
            loop {
                let (waiting, next) = links.page(Some(&batch), &after).await?;
                ids.extend(waiting.into_iter().filter_map(|waits| JobId::new(waits.job).ok()));
                match next {
                    Some(next) => after = next,
                    None => break ids,
                }
            }
        }
        _ => return Err(Problem::new(Kind::BadRequest, "name a job or a batch: one of them")),
    };
    let about = About { rows: Some(ids.len() as u64), ..about };
    server.record(&caller, Action::PinJobsCancelled, about).await?;
    let (cancelled, pending) = pin_waiting::cancel(&server, ids).await?;
    Ok(Json(CancelledView { cancelled, pending }))
}
