//! The endpoints of what is learnt of a batch's rows together with the file that they came from, and of those that were refused.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};

use super::batches::{UploadForm, existing};
use crate::serve::access::{Read, Submit};
use crate::serve::check::Purpose;
use crate::serve::extract::{Path, Query};
use crate::serve::held::Held;
use crate::serve::names::{self, NamesView};
use crate::serve::problem::{Kind, Problem};
use crate::serve::refusals::RefusalsView;
use crate::serve::upload::{UploadQuery, receive};
use crate::serve::{Server, refused};

/// Show why a batch's rows were refused, reason by reason, and what it takes that they are not refused again.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/refusals", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example")), security(("token" = ["read"])),
    responses((status = 200, body = RefusalsView), (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn refusals(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<RefusalsView>, Problem> {
    let batch = existing(&server, batch).await?;
    Ok(Json(RefusalsView::of(&server, &batch).await?))
}

/// Send the file that a batch came from, and get those of its rows that were refused, each with its reason and without its PIN:
/// to be mended, and uploaded into the same batch.
///
/// A row is known by its `row_id`, or by its number where it has none.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/refused-rows.csv", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), UploadQuery), security(("token" = ["submit"])),
    request_body(content((String = "text/csv", example = "row_id,type,currency\n1,virtual,eur\n"),
        (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (UploadForm = "multipart/form-data")), description = "The manifest: CSV or spreadsheet"),
    responses((status = 200, body = String, content_type = "text/csv; charset=utf-8"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "No row was refused"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "None of the batch's refused rows is in the file"))
)]
pub(super) async fn refused_rows(
    _: Submit,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let batch = existing(&server, batch).await?;
    let csv = refused::rows(&server, &batch, looked_at(&server, &query, request).await?.0).await?;
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], csv).into_response())
}

/// Send the file that a batch came from, and get whose each row is, by its column of names, and what became of it. Nothing of it is kept.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/names", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), UploadQuery), security(("token" = ["read"])),
    request_body(content((String = "text/csv", example = "row_id,type,currency\n1,virtual,eur\n"),
        (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (UploadForm = "multipart/form-data")), description = "The manifest: CSV or spreadsheet"),
    responses((status = 200, body = NamesView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Neither CSV nor spreadsheet nor a form"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "None of its columns is one of names"))
)]
pub(super) async fn names(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Json<NamesView>, Problem> {
    let batch = existing(&server, batch).await?;
    let looked_at = looked_at(&server, &query, request).await?;
    Ok(Json(names::of(&server, &batch, looked_at).await?))
}

/// An upload whose rows are only looked at, and its SHA-256.
async fn looked_at(
    server: &Server,
    query: &UploadQuery,
    request: Request,
) -> Result<(Held, String), Problem> {
    let checked = receive(server, query, request, Purpose::Look).await?.checked;
    let held =
        checked.held.ok_or_else(|| Problem::new(Kind::Internal, "the upload was read but not held"))?;
    Ok((held, checked.file))
}
