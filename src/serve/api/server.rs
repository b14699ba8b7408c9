//! The endpoints of the server itself.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::serve::Server;
use crate::serve::access::{Anybody, Read};
use crate::serve::columns;
use crate::serve::pin_waiting::AwaitedView;
use crate::serve::problem::{Kind, Problem};

/// What this server is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct ServerView {
    /// embosser's version.
    pub(super) version: String,
    /// Whose cards: `live`, `test`, or `sandbox` (no card is real).
    pub(super) mode: String,
    /// The Stripe account on which they are made, if it is known.
    pub(super) account: Option<String>,
    /// What people call that account; null if that is not configured.
    account_name: Option<String>,
    /// Calls a second that are configured.
    pub(super) pace_configured_per_second: f64,
    /// Calls a second that Stripe allows at present.
    pub(super) pace_per_second: f64,
    /// Calls under way or being prepared.
    pub(super) in_flight: usize,
    /// Whether Stripe is taken to be down.
    pub(super) stripe_down: bool,
    /// What all jobs wait for, if they do: what Stripe says of every card, or another process that calls for this account.
    pub(super) waits_for: Option<String>,
    /// Why nothing is issued any more, if that is so.
    pub(super) stopped: Option<String>,
    /// What is wrong with how this server is set up, if anything is seen to be.
    pub(super) warning: Option<String>,
    /// How many jobs wait for their cardholders to choose a PIN; null if none can.
    pub(super) pins_awaited: Option<AwaitedView>,
    /// Seconds for which a PIN in an upload may wait for its turn, from when the upload came; its row is refused then.
    pub(super) pin_max_age_seconds: f64,
    /// Largest upload, in bytes.
    pub(super) upload_bytes_max: u64,
    /// Most rows of one upload.
    pub(super) rows_max: u64,
    /// The columns files that an upload can name.
    pub(super) columns: Vec<String>,
    /// Whether columns files can be kept here.
    pub(super) keeps_columns: bool,
    /// Whether uploads are issued only once the holder of another token has approved them.
    pub(super) approval_required: bool,
    /// Whether Stripe is being asked where the cards of a batch are.
    pub(super) tracking: bool,
}

/// That it is well.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::serve) struct HealthView {
    /// Always `ok`.
    pub(in crate::serve) status: String,
}

/// Show what this server is: its mode, its pace and its bounds. Any token will do.
#[utoipa::path(
    get, path = "/v1/server", tag = "server", security(("token" = [])),
    responses((status = 200, body = ServerView))
)]
pub(super) async fn show_server(_: Anybody, State(server): State<Server>) -> Json<ServerView> {
    let health = server.parts.intake.health();
    // Of a folder that cannot be read whoever asks for a file of it is told.
    let columns = match &server.parts.config.columns_directory {
        Some(folder) => columns::names(folder).await.unwrap_or_default(),
        None => Vec::new(),
    };
    let limits = server.limits;
    Json(ServerView {
        version: env!("CARGO_PKG_VERSION").into(),
        mode: server.parts.mode.into(),
        account: server.scope().account().map(str::to_owned),
        account_name: server.parts.account_name.clone(),
        pace_configured_per_second: health.configured_per_second,
        pace_per_second: health.current_per_second,
        in_flight: health.in_flight,
        stripe_down: health.stripe_down,
        waits_for: health.waits_for,
        stopped: health.stopped,
        warning: health.warning,
        pins_awaited: server.awaited.counted(&server).await,
        upload_bytes_max: limits.upload_bytes_max,
        rows_max: limits.rows_max,
        columns,
        keeps_columns: server.parts.config.columns_directory.is_some(),
        pin_max_age_seconds: server.parts.pin.max_age_seconds,
        approval_required: server.parts.approval.required,
        tracking: server.tracking.available_permits() == 0,
    })
}

/// Show the metrics, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "server", security(("token" = ["read"])),
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn show_metrics(_: Read, State(server): State<Server>) -> impl IntoResponse {
    if let Some(pace) = server.parts.intake.pace() {
        // Of several each is shown by its own name.
        pace.show(server.scope().account().filter(|_| server.parts.is_one_of_several));
    }
    server.parts.exporter.answer()
}

/// Tell that the process lives.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()), responses((status = 200, body = HealthView)))]
pub(in crate::serve) async fn healthz() -> Json<HealthView> {
    Json(HealthView { status: "ok".into() })
}

/// Tell whether work is taken.
#[utoipa::path(
    get, path = "/readyz", tag = "server", security(()),
    responses((status = 200, body = HealthView), (status = 503, body = Problem,
        content_type = "application/problem+json", description = "Nothing is issued any more"))
)]
pub(super) async fn readyz(State(server): State<Server>) -> Result<Json<HealthView>, Problem> {
    server.ready()?;
    server.parts.views.answers().await.map_err(|reason| Problem::new(Kind::Unavailable, reason))?;
    Ok(Json(HealthView { status: "ok".into() }))
}
