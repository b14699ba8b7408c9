//! The endpoint by which it is asked where the cards of a batch are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::batches::existing;
use crate::serve::Server;
use crate::serve::access::Track;
use crate::serve::extract::Path;
use crate::serve::problem::Problem;
use crate::serve::tracking::{self, TrackView};

/// Ask Stripe where a batch's physical cards are, at a low pace, in the background: the rows and results tell it as it comes.
///
/// A card that is virtual, or whose way has come to its end, is not read again. One batch at a time.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/track", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["submit"]), ("token" = ["operate"])),
    responses((status = 202, body = TrackView, description = "How many reads that is, and how long they take"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "This server does not call Stripe itself, or the cards of a batch are being looked at already"))
)]
pub(super) async fn track_batch(
    Track(caller): Track,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<(StatusCode, Json<TrackView>), Problem> {
    let batch = existing(&server, batch).await?;
    let view = tracking::track(&server, &caller, &batch).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}
