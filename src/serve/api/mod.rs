//! The API's endpoints: who may call each, what it takes and answers. What they do is in the modules beside these.

pub(super) mod accounts;
mod audit;
mod batches;
mod cancellation;
mod files;
mod held;
mod jobs;
pub(super) mod me;
mod pins;
mod refused;
pub(super) mod server;
mod settling;
pub(super) mod stripe_events;
mod tracking;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Kind, Problem};
use super::{Server, jobs as sent_alone, openapi};

/// All endpoints, with their documentation.
pub(super) fn router(document: utoipa::openapi::OpenApi) -> OpenApiRouter<Server> {
    OpenApiRouter::with_openapi(document)
        .routes(routes!(batches::begin_batch, batches::list_batches))
        .routes(routes!(batches::check_manifest))
        .routes(routes!(files::template))
        .routes(routes!(files::show_columns, files::keep_columns))
        .routes(routes!(batches::show_batch))
        .routes(routes!(batches::batch_results))
        .routes(routes!(files::results_workbook))
        .routes(routes!(refused::refused_rows))
        .routes(routes!(refused::refusals))
        .routes(routes!(refused::names))
        .routes(routes!(batches::batch_rows))
        .routes(routes!(batches::batch_events))
        .routes(routes!(batches::pause_batch))
        .routes(routes!(batches::resume_batch))
        .routes(routes!(batches::cancel_batch))
        .routes(routes!(cancellation::cancel_plan, cancellation::cancel_cards))
        .routes(routes!(tracking::track_batch))
        .routes(routes!(settling::settle_batch))
        .routes(routes!(held::held_rows))
        .routes(routes!(batches::approve_batch))
        .routes(routes!(batches::reject_batch))
        .routes(routes!(jobs::send_job))
        .routes(routes!(jobs::show_job))
        .routes(routes!(pins::list_waiting, pins::make_links))
        .routes(routes!(pins::look_at_link))
        .routes(routes!(pins::choose_pin))
        .routes(routes!(pins::revoke_link))
        .routes(routes!(pins::cancel_waiting))
        .routes(routes!(pins::pin_key))
        .routes(routes!(pins::make_ephemeral_key))
        .routes(routes!(audit::list_audit))
        .routes(routes!(audit::download_audit))
        .routes(routes!(stripe_events::take_event))
        .routes(routes!(me::show_caller))
        .routes(routes!(accounts::list_accounts))
        .routes(routes!(server::show_server))
        .routes(routes!(server::show_metrics))
        .routes(routes!(server::healthz))
        .routes(routes!(server::readyz))
}

/// A request's JSON: a JWE has at most 5,000 characters. Anybody may send one, so it is small, and soon there.
const BODY_BYTES_MAX: usize = 16 << 10;
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);

async fn body_of<T: DeserializeOwned>(server: &Server, request: Request) -> Result<T, Problem> {
    let read = sent_alone::read(server, request, "request", BODY_BYTES_MAX);
    let body = tokio::time::timeout(BODY_WITHIN, read).await;
    let body = body.map_err(|_| Problem::new(Kind::TooSlow, "the request took too long to come"))??;
    // The error would quote a value.
    serde_json::from_slice(&body).map_err(|_| {
        Problem::new(Kind::BadRequest, "the request is not the JSON that /openapi.json says it is")
    })
}

/// A place among those that are allowed at once.
fn place(places: &Arc<Semaphore>, full: &str) -> Result<OwnedSemaphorePermit, Problem> {
    places.clone().try_acquire_owned().map_err(|_| Problem::new(Kind::Busy, full))
}

/// Says where a new thing is to be found.
fn locate(response: &mut Response, base: &str, name: &str) {
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    if let Ok(address) = HeaderValue::from_str(&format!("{base}{name}")) {
        response.headers_mut().insert(header::LOCATION, address);
    }
}

/// The API's own document.
pub(super) fn document_route<S: Clone + Send + Sync + 'static>() -> axum::Router<S> {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let (_, document) = router(openapi::Document::openapi()).split_for_parts();
        openapi::whole(document).to_string()
    });
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    axum::Router::new().route("/openapi.json", axum::routing::get(async move || (kind, DOCUMENT.as_str())))
}
