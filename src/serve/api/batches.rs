//! The endpoints of manifests and their batches.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{body_of, locate, place};
use crate::job::Batch;
use crate::line::gate::Standing;
use crate::manifest::batch::issued_as;
use crate::serve::access::{Approve, Caller, Operate, Read, Submit};
use crate::serve::audit::{About, Action};
use crate::serve::batch::Batch as UnderWay;
use crate::serve::batches::no_batch;
use crate::serve::begin::{begin_or_hold, decided};
use crate::serve::check::{Checked, Purpose};
use crate::serve::extract::{Path, Query};
use crate::serve::pending::hold::Arrived;
use crate::serve::pending::release;
use crate::serve::plan::PlanView;
use crate::serve::problem::{Kind, Problem};
use crate::serve::results::{self, ResultsQuery, RowsQuery, RowsView, SEARCHED_BYTES_MAX};
use crate::serve::table::{TABLE_ROWS_MAX, TableView};
use crate::serve::upload::{Upload, UploadQuery, receive};
use crate::serve::view::{BatchView, State as Stands};
use crate::serve::{Server, events};

/// Batches of one answer, and how many if nothing is said.
const LIST_MAX: usize = 1000;
const LIST_USUAL: usize = 100;

/// A manifest as a form's file.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the schema of what is read piece by piece")]
pub(super) struct UploadForm {
    /// The text of a columns file, if it comes with the upload. It stands before the file.
    columns: Option<String>,
    /// Cells that were mended since the file was made, as a JSON list of `{"line": 7, "column": 2, "value": "02138"}`, both
    /// counted from 1; or, for a column that is added behind those of the file, `{"column": 9, "heading": "shipping[name]"}`. It
    /// stands before the file.
    edits: Option<String>,
    /// The CSV or spreadsheet.
    #[schema(format = Binary, content_media_type = "text/csv")]
    manifest: String,
}

/// What a check found, where nothing is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct CheckView {
    #[serde(flatten)]
    plan: PlanView,
    /// Some of the upload as a table, if that was asked for and it is small.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<TableView>,
}

/// Batches, those last heard of first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BatchesView {
    /// The batches, without their histories.
    pub(super) batches: Vec<BatchView>,
    /// How many there are in all; of those that are searched for, if some are.
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
    /// Only batches with this in their name, whatever the case of letters.
    #[param(max_length = 255)]
    pub(super) q: Option<String>,
}

/// Upload a manifest and issue its rows.
///
/// Checked as it arrives: any bad row, and nothing is issued, unless bad rows are to be left out. The same file again is the same batch: rows that have
/// their card are not issued twice, and those that were cut off, refused or cancelled are tried again: with `retry` only those of
/// them that need no change.
#[utoipa::path(
    post, path = "/v1/batches", tag = "batches", params(UploadQuery), security(("token" = ["submit"])),
    request_body(content((String = "text/csv", example = "row_id,type,currency\n1,virtual,eur\n"),
        (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (UploadForm = "multipart/form-data")), description = "The manifest: CSV or spreadsheet"),
    responses(
        (status = 202, body = BatchView, description = "It was begun, or is under way already; or it waits for its approval or start",
            headers(("Location" = String, description = "The batch's address"))),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "A batch of this name is under way with other rows, the rows were issued under another name, or it is not the file of `file_sha256`"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Neither CSV nor spreadsheet nor a form"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "Every problem with its line, column and reason; nothing was issued"),
    )
)]
pub(super) async fn begin_batch(
    Submit(caller): Submit,
    State(server): State<Server>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    server.ready()?;
    let received = server.clock().moment();
    let start = query.start(received.wall)?;
    let arrival = server.batches.arrival();
    let skips_invalid = query.skip_invalid == Some(true);
    let upload = receive(&server, &query, request, Purpose::Issue { skips_invalid }).await?;
    let mut checked = upload.checked;
    let (Some(name), Some(held)) = (upload.batch, checked.held.take()) else {
        return Err(Problem::new(Kind::Internal, "the upload was checked but not held"));
    };
    server.ready()?;
    if query.file_sha256.as_ref().is_some_and(|wanted| !wanted.eq_ignore_ascii_case(&checked.file)) {
        let detail = "the file was changed since it was checked; nothing was issued. Check it again, and look at what it does now";
        return Err(Problem::new(Kind::FileChanged, detail));
    }
    checked.report.cancels_are_wanted(query.yes_cancel).map_err(|reason| {
        let cancels = checked.report.cancels;
        let detail =
            format!("{reason}; nothing was done. Upload it with yes_cancel={cancels} if that is meant");
        Problem::new(Kind::CancelsUnsaid, detail).with_cancels(cancels)
    })?;
    let recognition = checked.recognition.clone();
    if let Some(other) = recognition.is_wholly(&name) {
        let detail = issued_as(&name, other);
        let way_out = "Upload them under that name, or with second_cards=true if that is wanted";
        return Err(Problem::new(Kind::IssuedBefore, format!("{detail}. {way_out}")));
    }
    let second = query.second();
    let wanted = Arrived { name, checked, held, second, skips_invalid, start, by: caller, received };
    let view = begin_or_hold(&server, wanted, arrival).await?;
    let name = view.batch.clone();
    let mut response = (StatusCode::ACCEPTED, Json(view)).into_response();
    locate(&mut response, "/v1/batches/", &name);
    Ok(response)
}

/// Check a manifest without issuing anything.
#[utoipa::path(
    post, path = "/v1/checks", tag = "batches", params(UploadQuery), security(("token" = ["submit"])),
    request_body(content((String = "text/csv", example = "row_id,type,currency\n1,virtual,eur\n"),
        (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (UploadForm = "multipart/form-data")), description = "The manifest: CSV or spreadsheet"),
    responses(
        (status = 200, body = CheckView, description = "Nothing is wrong with it"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Neither CSV nor spreadsheet nor a form"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "Every problem with its line, column and reason"),
    )
)]
pub(super) async fn check_manifest(
    Submit(caller): Submit,
    State(server): State<Server>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Json<CheckView>, Problem> {
    let table = query.table.unwrap_or(0);
    if table > TABLE_ROWS_MAX {
        return Err(Problem::new(Kind::BadRequest, format!("`table` is at most {TABLE_ROWS_MAX}")));
    }
    let received = receive(&server, &query, request, Purpose::Check { table }).await;
    server.record(&caller, Action::ManifestChecked, checked_as(&query, &received)).await?;
    let Checked { report, recognition, table, file, .. } = received?.checked;
    let plan = PlanView::of(&report, &recognition, server.pace_per_second(), usize::MAX);
    let plan = PlanView { file_sha256: Some(file), ..plan };
    Ok(Json(CheckView { plan, table }))
}

/// What the audit log has of a check.
fn checked_as(query: &UploadQuery, received: &Result<Upload, Problem>) -> About {
    let about = About { batch: query.name.clone(), ..About::default() };
    match received {
        Ok(Upload { batch, checked, .. }) => About {
            batch: batch.as_ref().map(ToString::to_string),
            rows: Some(checked.report.rows),
            digest: Some(checked.file.clone()),
            ..about
        },
        Err(problem) => About { detail: Some(format!("refused: {}", problem.code())), ..about },
    }
}

/// List the batches, those last heard of first.
#[utoipa::path(
    get, path = "/v1/batches", tag = "batches", params(ListQuery), security(("token" = ["read"])),
    responses((status = 200, body = BatchesView))
)]
pub(super) async fn list_batches(
    _: Read,
    State(server): State<Server>,
    Query(query): Query<ListQuery>,
) -> Result<Json<BatchesView>, Problem> {
    let limit = query.limit.unwrap_or(LIST_USUAL);
    if !(1..=LIST_MAX).contains(&limit) {
        return Err(Problem::new(Kind::BadRequest, format!("`limit` is from 1 to {LIST_MAX}")));
    }
    let mut batches = server.batches.list(&server).await?;
    if let Some(searched) = query.q.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty()) {
        if searched.len() > SEARCHED_BYTES_MAX {
            let detail = format!("`q` has at most {SEARCHED_BYTES_MAX} bytes");
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        batches.retain(|batch| batch.batch.to_lowercase().contains(&searched));
    }
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
pub(super) async fn show_batch(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    Ok(Json(server.batches.view(&server, &batch).await?))
}

/// Download a batch's results: a line for each row that has begun, in the manifest's order.
#[utoipa::path(
    get, path = "/v1/batches/{batch}/results.csv", tag = "batches",
    params(("batch" = String, Path, min_length = 1, example = "example"), ResultsQuery), security(("token" = ["read"])),
    responses((status = 200, body = String, content_type = "text/csv; charset=utf-8"),
        (status = 404, body = Problem, content_type = "application/problem+json"))
)]
pub(super) async fn batch_results(
    _: Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
    Query(query): Query<ResultsQuery>,
) -> Result<Response, Problem> {
    let place = place(&server.parts.capacity.downloads, "as many downloads as are allowed are under way")?;
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
pub(super) async fn batch_rows(
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
pub(super) async fn batch_events(
    Read(caller): Read,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Response, Problem> {
    let place = place(&server.parts.capacity.streams, "as many event streams as are allowed are open")?;
    events::follow(&server, batch, (caller, place)).await
}

/// Hold a batch back: what has begun ends, nothing else begins.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/pause", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["operate"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has ended"))
)]
pub(super) async fn pause_batch(
    Operate(caller): Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    steer(&server, &caller, &batch, Standing::Shut).await
}

/// Let a paused batch go on.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/resume", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["operate"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has ended"))
)]
pub(super) async fn resume_batch(
    Operate(caller): Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    steer(&server, &caller, &batch, Standing::Open).await
}

/// Call a batch off: what has begun ends, the rest is refused as `cancelled`; one that waits for its approval or start never
/// begins, and its rows are wiped. What is in RabbitMQ's queue already is the
/// worker's to issue: then it is too late, unless there is no worker. Without one the batch is let go: it ends as interrupted,
/// and its jobs stay in the queue.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/cancel", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    security(("token" = ["operate"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It has ended, or a worker issues its jobs"))
)]
pub(super) async fn cancel_batch(
    Operate(caller): Operate,
    State(server): State<Server>,
    Path(batch): Path<String>,
) -> Result<Json<BatchView>, Problem> {
    if server.batches.pending(&batch).is_some_and(|pending| pending.waits()) {
        let (of_task, name) = (server.clone(), batch.clone());
        decided(&server, async move { release::cancel(&of_task, caller, &name).await }).await?;
        return Ok(Json(server.batches.view(&server, &batch).await?));
    }
    let under_way = under_way(&server, &batch).await?;
    let is_nobodys = async || {
        under_way.is_under_way() && under_way.is_all_queued() && !server.parts.intake.has_worker().await
    };
    if !is_nobodys().await {
        let steered = steer(&server, &caller, &batch, Standing::CalledOff).await;
        // Its last job may have come into the queue just then.
        if steered.is_ok() || !is_nobodys().await {
            return steered;
        }
    }
    server.record(&caller, Action::BatchCancelled, About::batch(&batch)).await?;
    tracing::warn!(batch = %under_way.name, "a batch is let go: its jobs are in the queue, and there is no worker");
    under_way.unfollow();
    Ok(Json(under_way.view(server.pace_per_second(), server.clock().now())))
}

/// What an approval names.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApproveBody {
    /// The `held.digest` of the batch as it was looked at.
    digest: String,
}

/// Approve a batch that waits: it begins, or waits for its start. Whoever uploaded it cannot. Of two who approve it at once the
/// second is told who was first.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/approve", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    request_body = ApproveBody, security(("token" = ["approve"])),
    responses((status = 200, body = BatchView),
        (status = 403, body = Problem, content_type = "application/problem+json", description = "own_approval: the token uploaded it"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "It waits no more, was replaced since it was looked at, or its rows were issued meanwhile under another name"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "A row that was well is so no more"))
)]
pub(super) async fn approve_batch(
    Approve(caller): Approve,
    State(server): State<Server>,
    Path(batch): Path<String>,
    request: Request,
) -> Result<Json<BatchView>, Problem> {
    let ApproveBody { digest } = body_of(&server, request).await?;
    let (of_task, name) = (server.clone(), batch.clone());
    decided(&server, async move { release::approve(&of_task, caller, &name, digest).await }).await?;
    Ok(Json(server.batches.view(&server, &batch).await?))
}

/// Why a batch is not to be issued.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RejectBody {
    /// For whoever uploaded it.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

/// Reject a batch that waits: its rows are wiped, and nothing of it is issued.
#[utoipa::path(
    post, path = "/v1/batches/{batch}/reject", tag = "batches", params(("batch" = String, Path, min_length = 1, example = "example")),
    request_body = RejectBody, security(("token" = ["approve"])),
    responses((status = 200, body = BatchView),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "It waits no more"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"))
)]
pub(super) async fn reject_batch(
    Approve(caller): Approve,
    State(server): State<Server>,
    Path(batch): Path<String>,
    request: Request,
) -> Result<Json<BatchView>, Problem> {
    /// A sentence or three.
    const REASON_MAX: usize = 500;
    let RejectBody { reason } = body_of(&server, request).await?;
    let reason = reason.trim().to_owned();
    if !(1..=REASON_MAX).contains(&reason.chars().count()) || reason.contains(char::is_control) {
        let detail = "`reason` is one line of up to 500 characters, for whoever uploaded the batch";
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    let (of_task, name) = (server.clone(), batch.clone());
    decided(&server, async move { release::reject(&of_task, caller, &name, reason).await }).await?;
    Ok(Json(server.batches.view(&server, &batch).await?))
}

async fn steer(
    server: &Server,
    caller: &Caller,
    name: &str,
    standing: Standing,
) -> Result<Json<BatchView>, Problem> {
    let batch = under_way(server, name).await?;
    batch.can_be_steered(standing)?;
    let action = match standing {
        Standing::Open => Action::BatchResumed,
        Standing::Shut => Action::BatchPaused,
        Standing::CalledOff => Action::BatchCancelled,
    };
    let rows = Some(batch.rows());
    server.record(caller, action, About { rows, ..About::batch(name) }).await?;
    batch.steer(standing)?;
    tracing::info!(batch = %batch.name, ?standing, by = caller.name(), "a batch was steered");
    Ok(Json(batch.view(server.pace_per_second(), server.clock().now())))
}

async fn under_way(server: &Server, name: &str) -> Result<Arc<UnderWay>, Problem> {
    let Some(batch) = server.batches.get(name) else {
        // One of an earlier run has ended, and one that is not known is told so.
        let view = server.batches.view(server, name).await?;
        let detail = match view.state {
            Stands::AwaitingApproval | Stands::Scheduled => "the batch has not begun",
            _ => "the batch is not under way; upload its file again first",
        };
        return Err(Problem::new(Kind::Conflict, detail));
    };
    Ok(batch)
}

pub(super) async fn existing(server: &Server, name: String) -> Result<Batch, Problem> {
    server.batches.view(server, &name).await?;
    Batch::new(name.clone()).map_err(|_| no_batch(&name))
}
