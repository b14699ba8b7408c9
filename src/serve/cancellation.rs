//! The cards of a batch are cancelled: as a batch of its own, which is checked, approved, issued and recorded as any other.

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};

use super::Server;
use super::access::Caller;
use super::audit::{About, Action};
use super::begin::begin_or_hold;
use super::intake::Intake;
use super::pending::hold::Arrived;
use super::problem::{Kind, Problem};
use super::upload::receive_own;
use super::view::{BatchView, State};
use crate::job::{Batch, NameError};
use crate::manifest::batch::SecondCards;
use crate::manifest::cancellation::{CancelPlan, Cards, HEADER, PlanError, lines_of, name_of};

/// What cancelling a batch's cards would come to.
pub(super) async fn plan(server: &Server, batch: &Batch) -> Result<CancelPlan, Problem> {
    let plan = CancelPlan::of(&server.parts.views, server.scope(), batch, server.clock().now()).await;
    plan.map_err(|error| match error {
        PlanError::Name(error) => without_name(error),
        PlanError::Ledger(error) => error.into(),
    })
}

/// Cancels a batch's cards, if their number is the one that was said. What a batch makes meanwhile would be left out, so none
/// that is under way, or is about to be, is cancelled.
pub(super) async fn cancel(
    server: &Server,
    caller: Caller,
    batch: &Batch,
    (wanted, until_ms): (Option<u64>, Option<u64>),
) -> Result<BatchView, Problem> {
    server.ready()?;
    rests(server, batch).await?;
    let received = server.clock().moment();
    let name = name_of(batch).map_err(without_name)?;
    let arrival = server.batches.arrival();
    let plan = plan(server, batch).await?;
    if plan.cards == 0 {
        let detail = match plan.cancelled_elsewhere {
            0 => format!("batch {:?} has no cards; nothing was done", batch.as_str()),
            _ => format!("all cards of batch {:?} are cancelled already; nothing was done", batch.as_str()),
        };
        return Err(Problem::new(Kind::Conflict, detail));
    }
    if until_ms.is_some_and(|seen| i64::try_from(seen) != Ok(plan.until.unix_ms())) {
        let detail = "a print run has begun since this was looked at, so what it saves is not the same any more; nothing was done. \
                      Ask for it again";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let mut checked = receive_own(server, &name, pieces(server, batch)?).await?;
    checked.report.cancels_are_wanted(wanted).map_err(|reason| {
        let cancels = checked.report.cancels;
        let detail =
            format!("{reason}; nothing was done. Send it with yes_cancel={cancels} if that is meant");
        Problem::new(Kind::CancelsUnsaid, detail).with_cancels(cancels)
    })?;
    let held = checked.held.take();
    let held = held.ok_or_else(|| Problem::new(Kind::Internal, "the cards were checked but not held"))?;
    // Its file may have been uploaded while its rows were read.
    server.ready()?;
    rests(server, batch).await?;
    let about = About {
        rows: Some(checked.report.cancels),
        digest: Some(checked.file.clone()),
        detail: Some(format!("as batch {name}")),
        ..About::batch(batch.as_str())
    };
    let action =
        if server.parts.approval.required { Action::CardsCancelSent } else { Action::CardsCancelled };
    server.record(&caller, action, about).await?;
    let second = SecondCards::Refused;
    let arrived =
        Arrived { name, checked, held, second, skips_invalid: false, start: None, by: caller, received };
    begin_or_hold(server, arrived, arrival).await
}

/// The manifest that cancels the batch's cards, piece by piece.
fn pieces<'s>(
    server: &'s Server,
    batch: &'s Batch,
) -> Result<impl Stream<Item = Result<Bytes, Problem>> + Send + 's, Problem> {
    let cards = Cards::of(&server.parts.views, server.scope(), batch).map_err(without_name)?;
    let rows = stream::try_unfold(cards, async |mut cards| {
        let some = cards.next().await?;
        Ok::<_, Problem>(some.map(|some| (Bytes::from(lines_of(&some)), cards)))
    });
    Ok(stream::once(async { Ok(Bytes::from_static(HEADER.as_bytes())) }).chain(rows))
}

fn without_name(error: NameError) -> Problem {
    Problem::new(Kind::Conflict, format!("the name of the batch that would cancel its cards {error}"))
}

/// Whether nothing of a batch begins at present.
async fn rests(server: &Server, batch: &Batch) -> Result<(), Problem> {
    let view = server.batches.view(server, batch.as_str()).await?;
    let may_go_on =
        matches!(view.state, State::Interrupted | State::Open) && view.waiting + view.unresolved > 0;
    if may_go_on && matches!(server.parts.intake, Intake::Queue(_)) && server.parts.intake.has_worker().await
    {
        let detail = "some of its jobs may be in the queue still, and a worker issues them: wait until all rows have ended. \
                      Nothing was done";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    let detail = match view.state {
        State::Running => "the batch is under way, so it would go on making cards: pause or cancel it first",
        State::Cancelling => "the batch is being called off: wait until it has ended",
        State::AwaitingApproval | State::Scheduled => {
            "a file of this batch waits for its approval or start, and would make cards: cancel that first"
        }
        State::Paused
        | State::Cancelled
        | State::Finished
        | State::Interrupted
        | State::Rejected
        | State::Expired
        | State::Open => return Ok(()),
    };
    Err(Problem::new(Kind::Conflict, format!("{detail}. Nothing was done")))
}
