//! The endpoints of jobs that are sent one by one.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::locate;
use crate::serve::Server;
use crate::serve::access::{Read, Submit};
use crate::serve::extract::Path;
use crate::serve::jobs::{self, JobView, Sent};
use crate::serve::problem::{Kind, Problem};

/// Send one job.
///
/// Its id names the card for ever: however often it is sent, it gets one card.
#[utoipa::path(
    post, path = "/v1/jobs", tag = "jobs", request_body(content = ref("#/components/schemas/Job")), security(("token" = ["submit"])),
    responses(
        (status = 200, body = JobView, description = "It has its card already"),
        (status = 202, body = JobView, description = "It waits for its call",
            headers(("Location" = String, description = "The job's address"))),
        (status = 403, body = Problem, content_type = "application/problem+json",
            description = "approval_required: a second look is required, which such a job cannot have"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "It paused for too long"),
        (status = 409, body = Problem, content_type = "application/problem+json",
            description = "This id has a job with other content"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "A bound was passed"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "Not JSON"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Every problem"),
    )
)]
pub(super) async fn send_job(
    Submit(caller): Submit,
    State(server): State<Server>,
    request: Request,
) -> Result<Response, Problem> {
    let approval = &server.parts.approval;
    if approval.required && !approval.jobs {
        return Err(Problem::new(
            Kind::ApprovalRequired,
            "this server issues nothing that nobody else has looked at (approval.required), and a job that is sent alone cannot wait for \
             that: upload it as a batch, or have approval.jobs = true set, which lets such jobs pass without",
        ));
    }
    let (status, view) = match jobs::submit(&server, &caller, request).await? {
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
pub(super) async fn show_job(
    _: Read,
    State(server): State<Server>,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    Ok(Json(jobs::view(&server, &id).await?))
}
