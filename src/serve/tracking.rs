//! Where a batch's physical cards are is asked for in the background, of one batch at a time.

use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::access::Caller;
use super::audit::{About, Action};
use super::intake::Intake;
use super::problem::{Kind, Problem};
use crate::job::Batch;
use crate::line::tracking::{Tracked, Tracking};

/// How many reads it takes.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TrackView {
    /// Cards that are read at Stripe: those of the batch of which there may be news.
    reads: u64,
    /// About how long that takes, in seconds.
    seconds: f64,
}

/// Begins to read a batch's cards; what they tell stands in its rows as it comes.
pub(super) async fn track(server: &Server, caller: &Caller, batch: &Batch) -> Result<TrackView, Problem> {
    let Intake::Line(line) = &server.parts.intake else {
        let detail = "this server hands its jobs to a worker and does not call Stripe itself: run `embosser track` instead";
        return Err(Problem::new(Kind::Conflict, detail));
    };
    server.ready()?;
    let place = server.tracking.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            Kind::Conflict,
            "the cards of a batch are being looked at already; try again when that is done",
        )
    })?;
    let tracking = Tracking::of(&server.parts.views, server.scope(), batch).await?;
    let view = TrackView { reads: tracking.reads(), seconds: tracking.seconds() };
    server.record(caller, Action::BatchTracked, About::batch(batch.as_str())).await?;
    let (line, batch) = (line.clone(), batch.clone());
    server.tasks.spawn(async move {
        let tracked = tracking.run(&line).await;
        drop(place);
        match tracked {
            Ok(Tracked { physical, missing, failed, left, .. }) => {
                let failed = failed.map(|(count, reason)| format!("{count}: {reason}"));
                tracing::info!(%batch, physical, missing, left, failed, "the cards of a batch were looked at");
            }
            Err(error) => tracing::error!(%error, %batch, "what is known of a batch's cards is not written down"),
        }
    });
    Ok(view)
}
