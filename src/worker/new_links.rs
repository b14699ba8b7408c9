//! New links by themselves (`pin_page.new_links`), each told by an event as the first one was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::ledger::{LedgerError, Row, State};
use crate::metrics;
use crate::outcome::{Ended, Outcome};
use crate::pin_links::{PinLinks, Spent};
use crate::queue::event::Named;

/// Between two looks at the jobs that wait; nor sooner than so many times what a look took.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const LOOK_TIMES: u32 = 20;
/// Until the worker is connected.
const CONNECTED_AFTER: Duration = Duration::from_secs(1);

/// Makes and publishes them until the worker stops.
pub(super) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let links = worker.line.parts().pin_links.as_ref();
    let Some(links) = links.filter(|links| links.renews_by_itself()) else { return };
    let making = async {
        loop {
            if !worker.ready.is_connected() {
                tokio::time::sleep(CONNECTED_AFTER).await;
                continue;
            }
            let began = Instant::now();
            if let Err(error) = make_all(&worker, links).await {
                tracing::warn!(%error, "whose link can be used no more cannot be read");
            }
            tokio::time::sleep(LOOK_EVERY.max(began.elapsed() * LOOK_TIMES)).await;
        }
    };
    tokio::select! {
        () = making => {}
        () = stop.cancelled() => {}
        () = worker.line.stopped() => {}
    }
}

async fn make_all(worker: &Worker, links: &PinLinks) -> Result<(), LedgerError> {
    let parts = worker.line.parts();
    let mut after = String::new();
    loop {
        let (spent, next) = links.spent(&after).await?;
        let jobs: Vec<_> = spent.iter().map(|spent| spent.job.clone()).collect();
        let rows = parts.ledger.look_up_jobs(&parts.scope, &jobs).await?;
        for (spent, row) in spent.into_iter().zip(rows) {
            // Of one whose call is open the PIN is not asked for again.
            if let Some(row) = row.filter(|row| row.state == State::AwaitingPin) {
                make(worker, links, &spent, &row).await?;
            }
        }
        match next {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

async fn make(worker: &Worker, links: &PinLinks, spent: &Spent, row: &Row) -> Result<(), LedgerError> {
    let Some(made) = links.renew_spent(&spent.job).await? else { return Ok(()) };
    metrics::pin_link("made");
    tracing::info!(job = %spent.job, "a link could be used no more; another is made by itself");
    let ended = Ended { outcome: Outcome::AwaitingPin(Some(made.link)), ..row.ended() };
    let is_published = match Named::of_row(row).ended(&ended) {
        Some(event) => worker.publish_event(&event, spent.event.correlation.as_deref()).await.is_ok(),
        None => false,
    };
    if is_published { links.mark_delivered(&spent.job).await } else { Ok(()) }
}
