//! `/healthz`: the process runs. `/readyz`: it has a broker, a consumer and a ledger. `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::Ready;
use crate::job::JobId;
use crate::line::Line;
use crate::metrics::exporter::Exporter;

/// Longest that the ledger may take to answer before it counts as away.
const LEDGER_MAX: Duration = Duration::from_secs(2);

/// The worker's HTTP side.
pub fn router(line: Arc<Line>, ready: Arc<Ready>, exporter: &Exporter) -> Router {
    let pace = line.parts().pace.clone();
    let readiness = move || async move {
        let (broker, consumer) = (ready.is_connected(), ready.is_consuming());
        let (ledger, halted) = (ledger_answers(&line).await, line.halt().is_some());
        let is_ready = broker && consumer && ledger && !halted;
        let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let reason = line.halt().map(|halt| halt.to_string()).or_else(|| ready.reason());
        let parts = json!({
            "ready": is_ready, "broker": broker, "consumer": consumer, "ledger": ledger, "reason": reason,
            "waits_for": line.all_wait_for(),
        });
        (code, Json(parts))
    };
    Router::new()
        .route("/healthz", get(|| async { Json(json!({ "ok": true })) }))
        .route("/readyz", get(readiness))
        .merge(exporter.router(move || pace.show()))
}

async fn ledger_answers(line: &Line) -> bool {
    let nobody = JobId::new("readiness").expect("a word is an id");
    let parts = line.parts();
    let look_up = parts.ledger.look_up(&parts.scope, &nobody);
    matches!(tokio::time::timeout(LEDGER_MAX, look_up).await, Ok(Ok(_)))
}
