//! The endpoints by which the cards of a batch are cancelled.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::batches::existing;
use super::locate;
use crate::clock::Time;
use crate::manifest::cancellation::CancelPlan;
use crate::serve::Server;
use crate::serve::access::{Operate, Read};
use crate::serve::cancellation;
use crate::serve::extract::{Path, Query, int64};
use crate::serve::problem::Problem;
use crate::serve::view::BatchView;

/// What cancelling the cards of a batch would come to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct CancelPlanView {
    /// The name of the batch that cancels them.
    #[schema(example = "example.cancel")]
    batch: String,
    /// Cards that the batch's own jobs made: what is to be sent as `yes_cancel`.
    cards: u64,
    /// Those that were cancelled by this already.
    cancelled: u64,
    /// Cards of the batch that another batch has cancelled: they are left out.
    cancelled_elsewhere: u64,
    /// Of the others, those made since the last print run: if they are physical, they are not printed yet.
    not_printed_yet: u64,
    /// The next print run, in milliseconds since 1970: what is cancelled by then of those is neither printed nor billed.
    until_ms: i64,
    /// Rows whose end is not known: they may have cards that this does not cancel.
    unresolved: u64,
    /// Rows that wait for their cardholders' PINs: they may get cards later.
    awaiting_pin: u64,
    /// What it does, saves and does not save, in sentences.
    notes: Vec<String>,
}

impl CancelPlanView {
    fn of(plan: &CancelPlan, per_second: f64) -> Self {
        Self {
            batch: plan.canceling.to_string(),
            cards: plan.cards,
            cancelled: plan.cancelled,
            cancelled_elsewhere: plan.cancelled_elsewhere,
            not_printed_yet: plan.not_printed_yet,
            until_ms: Time::unix_ms(plan.until),
            unresolved: plan.unresolved,
            awaiting_pin: plan.awaiting_pin,
            notes: plan.notes(per_second),
        }
    }
}

/// How many cards are meant.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CancelQuery {
    /// How many cards the batch has: that they are cancelled cannot be undone.
    #[serde(default, deserialize_with = "int64")]
    yes_cancel: Option<u64>,
    /// The plan's `until_ms`, as it was looked at: if a print run has begun since, nothing is done.
    #[serde(default, deserialize_with = "int64")]
    until_ms: Option<u64>,
}

/// Show what cancelling a batch's cards would do, save and not save. Nothing is done.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/cancel-cards", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example")), security(("token" = ["read"])),
    responses((status = 200, body = CancelPlanView), (status = 404, body = Problem,
        content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Its name is too long"))
)]
pub(super) async fn cancel_plan(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<CancelPlanView>, Problem> {
    let batch = existing(&server, batch).await?;
    let plan = cancellation::plan(&server, &batch).await?;
    Ok(Json(CancelPlanView::of(&plan, server.pace_per_second())))
}

/// Cancel the cards that a batch's own jobs made, for ever, as a batch of its own: `BATCH.cancel`.
///
/// Only with the right number of them. Sent again it goes on where it was cut off; no card is cancelled twice.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/cancel-cards", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), CancelQuery), security(("token" = ["operate"])),
    responses(
        (status = 202, body = BatchView, description = "It was begun, or is under way already; or it waits for its approval",
            headers(("Location" = String, description = "The address of the batch that cancels the cards"))),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "cancels_unsaid: another number of cards would be cancelled; or the batch is under way, or has no cards; or a print run has begun since `until_ms` was looked at"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Its rows make no manifest"))
)]
pub(super) async fn cancel_cards(
    Operate(caller): Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<CancelQuery>,
) -> Result<Response, Problem> {
    let batch = existing(&server, batch).await?;
    let view = cancellation::cancel(&server, caller, &batch, (query.yes_cancel, query.until_ms)).await?;
    let name = view.batch.clone();
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    locate(&mut response, "/v1/batches/", &name);
    Ok(response)
}
