//! A manifest that was checked begins, or is held until it is approved or its start comes: whichever this server wants.

use super::Server;
use super::audit::Action;
use super::batches::{Arrival, Beginning, Begun};
use super::pending::hold::Arrived;
use super::problem::{Kind, Problem};
use super::view::BatchView;

/// Begins it or holds it; the arrival is that of the upload, or of what was read of the ledger for it.
pub(super) async fn begin_or_hold(
    server: &Server,
    arrived: Arrived,
    arrival: Arrival<'_>,
) -> Result<BatchView, Problem> {
    let waited = server.batches.pending(arrived.name.as_str()).filter(|waited| waited.waits());
    if arrived.start.is_some() || server.parts.approval.required {
        drop(arrival);
        let (of_task, name) = (server.clone(), arrived.name.clone());
        decided(server, async move { of_task.batches.hold(&of_task, arrived).await }).await?;
        let view = server.batches.view(server, name.as_str()).await?;
        let replaced = waited.filter(|waited| !waited.waits()).map(|waited| {
            format!(
                "an upload of this name, sent by {}, waited for {} and is dropped",
                waited.upload.submitter,
                waited.for_what()
            )
        });
        return Ok(BatchView { replaced, ..view });
    }
    let Arrived { name, checked, held, second, by, .. } = arrived;
    let recognition = checked.recognition.clone();
    let beginning = Beginning { name, second, by: &by, action: Action::BatchBegun, released: None };
    let (batch, begun) = server.batches.begin(server, beginning, &checked, &arrival).await?;
    drop(arrival);
    if begun == Begun::Now {
        server.go(batch.clone(), held, recognition);
    }
    let replaced = waited.filter(|_| begun == Begun::Now).map(|waited| {
        format!(
            "an upload of this name, sent by {}, waited for {}: this one begins in its place, at once",
            waited.upload.submitter,
            waited.for_what()
        )
    });
    Ok(BatchView { replaced, ..batch.view(server.pace_per_second(), server.clock().now()) })
}

/// Takes a decision to its end, on a task of its own: a client that hangs up leaves nothing half done.
pub(super) async fn decided(
    server: &Server,
    decision: impl Future<Output = Result<(), Problem>> + Send + 'static,
) -> Result<(), Problem> {
    let decision = server.tasks.spawn(decision);
    decision.await.unwrap_or_else(|_| Err(Problem::new(Kind::Internal, "a bug; it has been logged")))
}
