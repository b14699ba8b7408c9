//! The endpoint by which it is found out how rows ended whose calls were cut off.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::batches::existing;
use crate::serve::Server;
use crate::serve::access::Track;
use crate::serve::extract::Path;
use crate::serve::problem::Problem;
use crate::serve::settling::{self, SettleView};

/// Look at Stripe for a batch's rows whose end is not known, in the background and without their file.
///
/// A row that has its card there is issued; one that has certainly none is refused with `cut_off`, and gets its card when its file is
/// sent again. Nothing is made. One batch at a time.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/settle", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["submit"]), ("token" = ["operate"])),
    responses((status = 202, body = SettleView, description = "How many rows that is, and how long it takes"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "The batch is under way, its jobs came one by one or through a queue, another process calls for the account, or this server does not call Stripe itself; or other rows are being looked for"))
)]
pub(super) async fn settle_batch(
    Track(caller): Track,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<(StatusCode, Json<SettleView>), Problem> {
    let batch = existing(&server, batch).await?;
    let view = settling::settle(&server, &caller, &batch).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}
