//! How rows of a batch ended whose calls were cut off is asked of Stripe in the background, of one batch at a time.

use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::access::Caller;
use super::audit::{About, Action};
use super::intake::Intake;
use super::problem::{Kind, Problem};
use super::view::State;
use crate::job::Batch;
use crate::line::settle::{Settled, Settling};
use crate::line::{LeaseUse, Line};

/// What can be found out.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct SettleView {
    /// Rows that are looked for at Stripe. Those that have something there are known soon.
    rows: u64,
    /// Seconds until it is certain of the others that Stripe has nothing of them.
    seconds: f64,
    /// Rows that need their file: they change cards that exist, and what a change asked for is not kept here.
    need_file: u64,
    /// Rows that are more than are looked for in one go: ask again when this is done.
    later: u64,
}

/// Begins to look for a batch's rows; what it finds stands in the batch as it comes.
pub(super) async fn settle(server: &Server, caller: &Caller, batch: &Batch) -> Result<SettleView, Problem> {
    let Intake::Line(line) = &server.parts.intake else {
        let detail = "this server hands its jobs to a worker and does not call Stripe itself: upload the same file again instead";
        return Err(Problem::new(Kind::Conflict, detail));
    };
    server.ready()?;
    let view = server.batches.view(server, batch.as_str()).await?;
    if matches!(view.state, State::Running | State::Paused | State::Cancelling) {
        let detail = "the batch is under way: its rows come to their ends by themselves";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    if view.state == State::Open || server.parts.views.came_by_queue(server.scope(), batch).await? {
        let detail = "jobs of this batch were sent one by one, or through a queue: those whose end is not known come again by themselves, \
                      or whoever sent them sends them again";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let place = server.settling.clone().try_acquire_owned().map_err(|_| {
        Problem::new(
            Kind::Conflict,
            "rows are being looked for at Stripe already; try again when that is done",
        )
    })?;
    let settling = Settling::of(&server.parts.views, server.scope(), batch, server.clock()).await?;
    let view = SettleView {
        rows: settling.rows(),
        seconds: settling.seconds(line),
        need_file: settling.others(),
        later: settling.later(),
    };
    if view.rows == 0 {
        server.batches.forget_ended(batch.as_str());
        return Ok(view);
    }
    let lease = lease_of(line).await?;
    let about = About { rows: Some(settling.rows()), ..About::batch(batch.as_str()) };
    server.record(caller, Action::RowsSettled, about).await?;
    // What this process counted of it is true no more; the ledger counts from now on.
    server.batches.forget_ended(batch.as_str());
    let (line, batch) = (line.clone(), batch.clone());
    server.tasks.spawn(async move {
        let Settled { found, absent, unclear, left, failed } = settling.run(&line, lease).await;
        drop(place);
        tracing::info!(%batch, found, absent, unclear, left, failed, "rows that were cut off were looked for");
    });
    Ok(view)
}

/// The account's lease, or who has it: whoever asks is told at once, and does not wait for another process.
async fn lease_of(line: &Line) -> Result<LeaseUse, Problem> {
    match line.try_lease().await {
        Ok(Ok(lease)) => Ok(lease),
        Ok(Err(holder)) => {
            let detail = format!("{holder} calls for this account: try again when that has ended");
            Err(Problem::new(Kind::Conflict, detail))
        }
        Err(error) => Err(Problem::new(Kind::Unavailable, error.to_string())),
    }
}
