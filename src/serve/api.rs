//! The API's endpoints: who may call each, what it takes and answers. What they do is in the modules beside it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Operate, Read, Submit};
use super::batches::{BatchView, Begun, eta, no_batch};
use super::check::Purpose;
use super::extract::{Path, Query};
use super::jobs::{self, JobRequest, JobView, Sent};
use super::problem::{Kind, Problem};
use super::results::{self, ResultsQuery, RowsQuery, RowsView};
use super::upload::{UploadQuery, receive};
use super::{Server, events};
use crate::job::Batch;
use crate::line::gate::Standing;
use crate::manifest::batch::SecondCards;

/// Batches of one answer, and how many if nothing is said.
const LIST_MAX: usize = 1000;
const LIST_USUAL: usize = 100;

/// All endpoints, with their documentation.
pub(super) fn router(document: utoipa::openapi::OpenApi) -> OpenApiRouter<Server> {
    OpenApiRouter::with_openapi(document)
        .routes(routes!(begin_batch, list_batches))
        .routes(routes!(check_manifest))
        .routes(routes!(show_batch))
        .routes(routes!(batch_results))
        .routes(routes!(batch_rows))
        .routes(routes!(batch_events))
        .routes(routes!(pause_batch))
        .routes(routes!(resume_batch))
        .routes(routes!(cancel_batch))
        .routes(routes!(send_job))
        .routes(routes!(show_job))
        .routes(routes!(show_server))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

/// A manifest as a form's file.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the schema of what is read piece by piece")]
pub(super) struct UploadForm {
    /// The CSV.
    #[schema(format = Binary, content_media_type = "text/csv")]
    manifest: String,
}

/// What a check found, where nothing is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct CheckView {
    /// Data rows.
    pub(super) rows: u64,
    /// Those with a PIN.
    pub(super) pins: u64,
    /// Physical cards.
    pub(super) physical: u64,
    /// Virtual cards.
    pub(super) r#virtual: u64,
    /// Seconds that issuing them will take.
    pub(super) eta_seconds: f64,
}

/// Batches, those last heard of first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BatchesView {
    /// The batches, without their histories.
    pub(super) batches: Vec<BatchView>,
    /// How many there are in all.
    pub(super) total: usize,
}

/// Which batches.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Most batches of this answer.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
}

/// What this server is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ServerView {
    /// embosser's version.
    pub(super) version: String,
    /// Whose cards: `live`, `test`, or `sandbox` (no card is real).
    pub(super) mode: String,
    /// Calls a second that are configured.
    pub(super) pace_configured_per_second: f64,
    /// Calls a second that Stripe allows at present.
    pub(super) pace_per_second: f64,
    /// Calls under way or being prepared.
    pub(super) in_flight: usize,
    /// Whether Stripe is taken to be down.
    pub(super) stripe_down: bool,
    /// Why nothing is issued any more, if that is so.
    pub(super) stopped: Option<String>,
    /// Largest upload, in bytes.
    pub(super) upload_bytes_max: u64,
    /// Most rows of one upload.
    pub(super) rows_max: u64,
}

/// That it is well.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct HealthView {
    /// Always `ok`.
    pub(super) status: String,
}

/// Upload a manifest and issue its rows.
///
/// Checked as it arrives: any bad row, and nothing is issued. The same file again is the same batch: rows that have
/// their card are not issued twice, and those that were cut off, refused or cancelled are tried again.
#[utoipa::path(
    post, path = "/v1/batches", tag = "batches", params(UploadQuery), security(("token" = ["submit"])),
    request_body(content((String = "text/csv", example = "row_id,type,currency\n1,virtual,eur\n"),
        (UploadForm = "multipart/form-data")), description = "The manifest"),
    responses(
        (status = 202, body = BatchView, description = "It was begun, or is under way already",
            headers(("Location" = String, description = "The batch's address"))),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "A batch of this name is under way with other rows, or the rows were issued under another name"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Neither CSV nor a form"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "Every problem with its line, column and reason; nothing was issued"),
    )
)]
async fn begin_batch(
    _: Submit,
    State(server): State<Server>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    server.ready()?;
    let upload = receive(&server, &query, request, Purpose::Issue).await?;
    let (Some(name), Some(held)) = (upload.batch, upload.checked.held) else {
        return Err(Problem::new(Kind::Internal, "the upload was checked but not held"));
    };
    server.ready()?;
    let second = if query.second_cards == Some(true) { SecondCards::Wanted } else { SecondCards::Refused };
    let (batch, begun) = server.batches().begin(&server, name, &upload.checked.report, second).await?;
    if begun == Begun::Now {
        tracing::info!(batch = %batch.name, rows = batch.rows(), "a batch begins");
        let (server, batch) = (server.clone(), batch.clone());
        let tasks = server.tasks().clone();
        tasks.spawn(async move { server.clone().intake().run(server, batch, held).await });
    }
    let view = batch.view(server.pace_per_second(), server.clock().now());
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    locate(&mut response, "/v1/batches/", batch.name.as_str());
    Ok(response)
}

fn locate(response: &mut Response, base: &str, name: &str) {
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    if let Ok(address) = HeaderValue::from_str(&format!("{base}{name}")) {
        response.headers_mut().insert(header::LOCATION, address);
    }
}

/// Check a manifest without issuing anything.
#[utoipa::path(
    post, path = "/v1/checks", tag = "batches", params(UploadQuery), security(("token" = ["submit"])),
    request_body(content((String = "text/csv", example = "row_id,type,currency\n1,virtual,eur\n"),
        (UploadForm = "multipart/form-data")), description = "The manifest"),
    responses(
        (status = 200, body = CheckView, description = "Nothing is wrong with it"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Neither CSV nor a form"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "Every problem with its line, column and reason"),
    )
)]
async fn check_manifest(
    _: Submit,
    State(server): State<Server>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Json<CheckView>, Problem> {
    let report = receive(&server, &query, request, Purpose::Check).await?.checked.report;
    Ok(Json(CheckView {
        rows: report.rows,
        pins: report.pins,
        physical: report.physical,
        r#virtual: report.r#virtual,
        eta_seconds: eta(report.rows, 0.0, server.pace_per_second()),
    }))
}

/// List the batches, those last heard of first.
#[utoipa::path(
    get, path = "/v1/batches", tag = "batches", params(ListQuery), security(("token" = ["read"])),
    responses((status = 200, body = BatchesView))
)]
async fn list_batches(
    _: Read,
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> Result<Json<BatchesView>, Problem> {
    let limit = query.limit.unwrap_or(LIST_USUAL);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(Problem::new(Kind::BadRequest, format!("`limit` is from 1 to {LIST_MAX}")));
    }
    let mut batches = server.batches().list(&server).await?;
    let total = batches.len();
    batches.truncate(limit);
    Ok(Json(BatchesView { batches, total }))
}

/// Show how a batch stands.
#[utoipa::path(
    get, path = "/v1/batches/{batch}", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["read"])),
    responses((status = 200, body = BatchView), (status = 404, body = Problem,
        content_type = "application/problem+json"))
)]
async fn show_batch(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    Ok(Json(server.batches().view(&server, &batch).await?))
}

/// Download a batch's results: a line for each row that has begun, in the manifest's order.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/results.csv", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), ResultsQuery), security(("token" = ["read"])),
    responses((status = 200, body = String, content_type = "text/csv; charset=utf-8"),
        (status = 404, body = Problem, content_type = "application/problem+json"))
)]
async fn batch_results(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<ResultsQuery>,
) -> Result<Response, Problem> {
    let place = place(server.downloads(), "as many downloads as are allowed are under way")?;
    let batch = existing(&server, batch).await?;
    Ok(results::csv(&server, &batch, query.outcome, place))
}

/// List a batch's rows, page by page.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/rows", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), RowsQuery), security(("token" = ["read"])),
    responses((status = 200, body = RowsView), (status = 404, body = Problem,
        content_type = "application/problem+json"))
)]
async fn batch_rows(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<RowsQuery>,
) -> Result<Json<RowsView>, Problem> {
    let batch = existing(&server, batch).await?;
    Ok(Json(results::page(&server, &batch, query).await?))
}

/// Follow a batch: server-sent events, each with the whole view; `ended` is the last.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/events", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["read"])),
    responses((status = 200, body = events::EventView, content_type = "text/event-stream",
        description = "Events; each has the whole view, so that nothing is missed when the stream drops"),
        (status = 404, body = Problem, content_type = "application/problem+json"))
)]
async fn batch_events(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Response, Problem> {
    let place = place(server.streams(), "as many event streams as are allowed are open")?;
    events::follow(&server, batch, place).await
}

/// Hold a batch back: what has begun ends, nothing else begins.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/pause", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["operate"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has ended"))
)]
async fn pause_batch(
    _: Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    steer(&server, &batch, Standing::Shut).await
}

/// Let a paused batch go on.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/resume", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["operate"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has ended"))
)]
async fn resume_batch(
    _: Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    steer(&server, &batch, Standing::Open).await
}

/// Call a batch off: what has begun ends, the rest is refused as `cancelled`.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/cancel", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["operate"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has ended"))
)]
async fn cancel_batch(
    _: Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    steer(&server, &batch, Standing::CalledOff).await
}

async fn steer(server: &Server, name: &str, standing: Standing) -> Result<Json<BatchView>, Problem> {
    let Some(batch) = server.batches().get(name) else {
        // One of an earlier run has ended, and one that is not known is told so.
        server.batches().view(server, name).await?;
        return Err(Problem::new(Kind::Conflict, "the batch is not under way; upload its file again first"));
    };
    batch.steer(standing)?;
    tracing::info!(batch = %batch.name, ?standing, "a batch was steered");
    Ok(Json(batch.view(server.pace_per_second(), server.clock().now())))
}

/// Send one job.
///
/// Its id names the card for ever: however often it is sent, it gets one card.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", request_body = JobRequest, security(("token" = ["submit"])),
    responses(
        (status = 200, body = JobView, description = "It has its card already"),
        (status = 202, body = JobView, description = "It waits for its call",
            headers(("Location" = String, description = "The job's address"))),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "This id has a job with other content"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Every problem"),
    )
)]
async fn send_job(_: Submit, State(server): State<Server>, request: Request) -> Result<Response, Problem> {
    let (status, view) = match jobs::submit(&server, request).await? {
        Sent::Accepted(view) => (StatusCode::ACCEPTED, view),
        Sent::Known(view) => (StatusCode::OK, view),
    };
    let id = view.id.clone();
    let mut response = (status, Json(view)).into_response();
    locate(&mut response, "/v1/jobs/", &id);
    Ok(response)
}

/// Show how a job stands. A `/` in its id is sent as `%2F`.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", tag = "jobs", params(("id" = String, Path, min_length = 1, example = "payroll/4711")),
    security(("token" = ["read"])),
    responses((status = 200, body = JobView), (status = 404, body = Problem,
        content_type = "application/problem+json"))
)]
async fn show_job(
    _: Read,
    State(server): State<Server>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    Ok(Json(jobs::view(&server, &id).await?))
}

/// Show what this server is: its mode, its pace and its bounds.
#[utoipa::path(
    get, path = "/v1/server", tag = "server", security(("token" = ["read"])),
    responses((status = 200, body = ServerView))
)]
async fn show_server(_: Read, State(server): State<Server>) -> Json<ServerView> {
    let health = server.intake().health();
    let limits = server.limits();
    Json(ServerView {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: server.mode().into(),
        pace_configured_per_second: health.configured_per_second,
        pace_per_second: health.current_per_second,
        in_flight: health.in_flight,
        stripe_down: health.stripe_down,
        stopped: health.stopped,
        upload_bytes_max: limits.upload_bytes_max,
        rows_max: limits.rows_max,
    })
}

/// Tell that the process lives.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()), responses((status = 200, body = HealthView)))]
async fn healthz() -> Json<HealthView> {
    Json(HealthView { status: "ok".into() })
}

/// Tell whether work is taken.
#[utoipa::path(
    get, path = "/readyz", tag = "server", security(()),
    responses((status = 200, body = HealthView), (status = 503, body = Problem,
        content_type = "application/problem+json", description = "Nothing is issued any more"))
)]
async fn readyz(State(server): State<Server>) -> Result<Json<HealthView>, Problem> {
    server.ready()?;
    Ok(Json(HealthView { status: "ok".into() }))
}

async fn existing(server: &Server, name: String) -> Result<Batch, Problem> {
    server.batches().view(server, &name).await?;
    Batch::new(name.clone()).map_err(|_| no_batch(&name))
}

fn place(places: &Arc<Semaphore>, full: &str) -> Result<tokio::sync::OwnedSemaphorePermit, Problem> {
    places.clone().try_acquire_owned().map_err(|_| Problem::new(Kind::Busy, full))
}

/// The API's own document.
pub(super) fn document_route(document: &serde_json::Value) -> axum::Router<Server> {
    let text = document.to_string();
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    axum::Router::new().route("/openapi.json", axum::routing::get(async move || (kind, text.clone())))
}
