//! What is asked at the address of several accounts itself. What it answers is documented with the endpoints of one.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{OneOf, Several, Standing};
use crate::serve::access::Role;
use crate::serve::api::accounts::AccountsView;
use crate::serve::api::me::CallerView;
use crate::serve::api::stripe_events::EVENT_BYTES_MAX;
use crate::serve::problem::{Kind, Problem};

pub(super) async fn list_accounts(
    State(several): State<Several>,
    headers: HeaderMap,
) -> Result<Json<AccountsView>, Problem> {
    let caller = several.caller(&headers)?;
    Ok(Json(AccountsView { accounts: several.seen_by(&caller) }))
}

pub(super) async fn show_caller(
    State(several): State<Several>,
    headers: HeaderMap,
) -> Result<Json<CallerView>, Problem> {
    Ok(Json(CallerView::of(&several.caller(&headers)?, (None, None), true)))
}

/// Metrics are of all accounts: whoever may see those of some must not see the others'.
pub(super) async fn show_metrics(
    State(several): State<Several>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = several.caller(&headers)?.with_one_of(&[Role::Read])?;
    if !caller.accounts().is_empty() {
        let detail = format!("metrics are of all accounts here, and token {} is for some", caller.name());
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    for server in several.servers() {
        if let Some(pace) = server.intake().pace() {
            pace.show(server.scope().account());
        }
    }
    Ok(several.0.parts.exporter.answer().into_response())
}

/// Ready if work is taken for one of them at least: whoever asks for another one is told at its own path how that one stands. Which
/// accounts there are is told only to whoever has a token.
pub(super) async fn readyz(State(several): State<Several>) -> Response {
    let views = &several.0.parts.views;
    let away = match views.away() {
        Some(away) => Some(away.reason),
        None => views.answers().await.err(),
    };
    let all = several.all();
    let is_served =
        |one: &&OneOf| matches!(&one.standing, Standing::Serving(serving) if serving.server.ready().is_ok());
    let served = all.values().filter(is_served).count();
    let is_ready = away.is_none() && !several.0.stopping.is_cancelled() && served > 0;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(json!({ "ready": is_ready, "reason": away, "accounts": all.len(), "accounts_served": served })),
    )
        .into_response()
}

/// An event that Stripe sends a platform names the connected account that it is about; whose it is verifies it.
pub(super) async fn take_event(
    State(several): State<Several>,
    request: Request,
) -> Result<Response, Problem> {
    #[derive(Deserialize)]
    struct About {
        account: Option<String>,
    }
    let (mut head, body) = request.into_parts();
    let within = tokio::time::timeout(crate::serve::api::BODY_WITHIN, to_bytes(body, EVENT_BYTES_MAX));
    let body = match within.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return Err(Problem::new(
                Kind::TooLarge,
                format!("an event has at most {EVENT_BYTES_MAX} bytes"),
            ));
        }
        Err(_) => return Err(Problem::new(Kind::TooSlow, "the event took too long to come")),
    };
    let about: Option<About> = serde_json::from_slice(&body).ok();
    let Some(account) = about.and_then(|about| about.account) else {
        let detail = "the event names no account: send an account's own events to its own path, \
                      /accounts/acct_…/v1/stripe-events";
        return Err(Problem::new(Kind::BadRequest, detail));
    };
    let path = format!("{}/v1/stripe-events", super::address(&account));
    head.uri = path.parse().map_err(|_| Problem::new(Kind::BadRequest, "the event's account is no id"))?;
    Ok(several.pass_on(&account, Request::from_parts(head, Body::from(body))).await)
}
