//! The endpoint by which whoever approves a batch reads its rows.

use axum::Json;
use axum::extract::State;
use tokio::runtime::Handle;

use super::place;
use crate::serve::Server;
use crate::serve::access::Approve;
use crate::serve::extract::{Path, Query};
use crate::serve::pending::rows::{HeldRowsQuery, HeldRowsView, page};
use crate::serve::problem::{Kind, Problem};

/// List the rows of a batch that waits, page by page, for whoever approves it. No PIN is in them.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/held-rows", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), HeldRowsQuery), security(("token" = ["approve"])),
    responses((status = 200, body = HeldRowsView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "Nothing of this name waits"))
)]
pub(super) async fn held_rows(
    _: Approve,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<HeldRowsQuery>,
) -> Result<Json<HeldRowsView>, Problem> {
    let place = place(&server.parts.capacity.downloads, "as many downloads as are allowed are under way")?;
    let Some(pending) = server.batches.pending(&batch).filter(|pending| pending.waits()) else {
        // One that is not known is told so.
        server.batches.view(&server, &batch).await?;
        return Err(Problem::new(Kind::Conflict, "no batch of this name waits for its approval or start"));
    };
    let (ledger, scope) = (server.parts.views.clone(), server.scope().clone());
    let runtime = Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let _place = place;
        page(&pending, (&ledger, &scope, &runtime), &query)
    });
    let page = reading.await.map_err(|_| Problem::new(Kind::Internal, "the rows could not be read"))??;
    Ok(Json(page))
}
