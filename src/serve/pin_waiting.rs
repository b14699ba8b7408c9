//! Jobs that wait for their cardholders' PINs, beside the pages: they are counted, cancelled, and settled where a call with a PIN
//! was begun and its end is not known.
//!
//! Guarantee: such a job does not stay so until somebody runs it again. Its card is looked for, and if there is none it waits
//! again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::problem::Problem;
use crate::backoff::Backoff;
use crate::job::JobId;
use crate::ledger::{LedgerError, Row, State};
use crate::line::{CarriedOnly, Options, is_about_pin};
use crate::metrics;
use crate::outcome::{Outcome, Refusal};

/// Jobs that are settled or cancelled at once: each may wait for minutes, and holds no place on the line meanwhile.
const AT_ONCE: usize = 16;
/// How long whoever cancels waits for the answer; what is not cancelled by then goes on.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// How many jobs wait for their cardholders, by how long they have waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct AwaitedView {
    /// Less than an hour.
    hour: u64,
    /// Less than a day.
    day: u64,
    /// Less than a week.
    week: u64,
    /// Longer.
    older: u64,
}

/// The latest count of them, and until when it is good enough: every open page asks, and each job that waits is read for it.
#[derive(Default)]
pub(super) struct Awaited(tokio::sync::Mutex<Option<(AwaitedView, Instant)>>);

impl Awaited {
    /// The count, a few seconds old at most, or ten times what it took. None where no cardholder chooses anything.
    pub(super) async fn counted(&self, server: &Server) -> Option<AwaitedView> {
        const KEPT: Duration = Duration::from_secs(2);
        const KEPT_TIMES: u32 = 10;
        // Over the connection for views: it is to delay no job.
        let links = server.links().ok()?.over(&server.parts.views);
        let mut counted = self.0.lock().await;
        if let Some((view, until)) = *counted
            && Instant::now() < until
        {
            return Some(view);
        }
        let began = Instant::now();
        match links.waiting_by_age().await {
            Ok(by_age) => {
                metrics::pins_awaited(by_age);
                let [hour, day, week, older] = by_age;
                let view = AwaitedView { hour, day, week, older };
                *counted = Some((view, Instant::now() + KEPT.max(began.elapsed() * KEPT_TIMES)));
                Some(view)
            }
            Err(error) => {
                tracing::warn!(%error, "the jobs that wait for a PIN cannot be counted");
                None
            }
        }
    }
}

/// How many jobs were cancelled.
#[derive(Default)]
struct Counts {
    cancelled: AtomicU64,
    /// Those that had ended otherwise.
    ended: AtomicU64,
}

/// Cancels jobs that wait for their cardholders: they are refused, and their links can be used no more. Answers how many are
/// cancelled, and of how many it is not known yet. A call that was begun for one of those may have had its effect, so its card
/// is looked for first; that goes on though nobody waits for it any more.
pub(super) async fn cancel(server: &Server, ids: Vec<JobId>) -> Result<(u64, u64), Problem> {
    server.for_cardholders()?;
    let (all, counts) = (ids.len() as u64, Arc::new(Counts::default()));
    let (server_of_task, counts_of_task) = (server.clone(), counts.clone());
    let cancelling = server.tasks.spawn(async move {
        let cancelling = stream::iter(ids).for_each_concurrent(AT_ONCE, |id| {
            let (server, counts) = (&server_of_task, &counts_of_task);
            async move {
                if let Err(error) = cancel_one(server, &id, counts).await {
                    tracing::warn!(job = %id, %error, "a job that waits for its PIN could not be cancelled");
                }
            }
        });
        cancelling.await;
    });
    let _ = tokio::time::timeout(ANSWERS_WITHIN, cancelling).await;
    let cancelled = counts.cancelled.load(Ordering::Relaxed);
    Ok((cancelled, all.saturating_sub(cancelled + counts.ended.load(Ordering::Relaxed))))
}

async fn cancel_one(server: &Server, id: &JobId, counts: &Counts) -> Result<(), LedgerError> {
    let Ok(there) = server.for_cardholders() else { return Ok(()) };
    let Some(waits) = there.links.waiting_job(id).await? else {
        counts.ended.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    };
    let job = waits.into_job(None);
    let batch = job.batch.clone();
    let refusal = Refusal::own("cancelled", "it was cancelled before its cardholder had chosen a PIN");
    let given_up = Options { given_up: Some(refusal), ..Options::default() };
    let Some(ended) = there.line.carry(job, given_up).await else { return Ok(()) };
    match &ended.outcome {
        Outcome::Refused(refusal) if refusal.code == "cancelled" => {
            server.batches.pin_chosen(batch.as_str(), &ended);
            counts.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        // It is about to wait for another PIN.
        Outcome::Refused(refusal) if is_about_pin(&refusal.code) => {}
        Outcome::Done(_) | Outcome::Refused(_) => {
            if !ended.recorded_before {
                server.batches.pin_chosen(batch.as_str(), &ended);
            }
            counts.ended.fetch_add(1, Ordering::Relaxed);
        }
        Outcome::Unresolved(_) | Outcome::AwaitingPin(_) => {}
    }
    Ok(())
}

/// Counts the jobs that wait, for the metrics, until the server stops.
pub(super) async fn count(server: Server) {
    /// Between two counts.
    const EVERY: Duration = Duration::from_secs(60);
    /// Between two sweeps.
    const SWEPT_EVERY: u32 = 24 * 60;
    for round in (0..SWEPT_EVERY).cycle() {
        let Ok(links) = server.links() else { return };
        if round == 0
            && let Err(error) = links.forget_old().await
        {
            tracing::warn!(%error, "old links cannot be forgotten");
        }
        let _ = server.awaited.counted(&server).await;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = server.stopping.cancelled() => return,
        }
    }
}

/// Finds out how calls with a chosen PIN ended, until the server stops: at its start, soon after one that is not known, and
/// again after a while for those that are not known then.
pub(super) async fn settle(server: Server) {
    /// Between two rounds; while some stay open, up to the longest wait. A round asks the ledger about each job that waits.
    const EVERY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));
    let mut backoff = Backoff::between(EVERY.0, EVERY.1);
    loop {
        // When the server stops, so does the line, which ends this soon and leaves nothing half done.
        match settle_all(&server).await {
            Ok(0) => backoff.reset(),
            Ok(open) if !server.stopping.is_cancelled() => {
                tracing::warn!(jobs = open, "how calls with chosen PINs ended is not known yet");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the jobs that wait for a PIN cannot be read"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait()) => {}
            () = server.settle.notified() => backoff.reset(),
            () = server.stopping.cancelled() => return,
        }
    }
}

/// One round over all that wait. Answers how many stay open.
async fn settle_all(server: &Server) -> Result<u64, LedgerError> {
    let Ok(there) = server.for_cardholders() else { return Ok(0) };
    let (links, mut after, mut open) = (there.links.over(&server.parts.views), String::new(), 0);
    loop {
        let (ids, next) = links.waiting_ids(&after).await?;
        let rows = server.parts.views.look_up_jobs(server.scope(), &ids).await?;
        let is_stalled = |row: &Row| row.state != State::AwaitingPin;
        let stalled = ids.into_iter().zip(rows);
        let stalled: Vec<_> =
            stalled.filter_map(|(id, row)| row.filter(is_stalled).map(|row| (id, row))).collect();
        let settled =
            stream::iter(stalled).map(|(id, row)| settle_one(server, id, row)).buffer_unordered(AT_ONCE);
        open += settled.filter(|is_known| std::future::ready(!is_known)).count().await as u64;
        match next {
            Some(next) => after = next,
            None => return Ok(open),
        }
    }
}

/// Settles a job whose row does not say that it waits. Whether its end is known now, or it waits again.
async fn settle_one(server: &Server, id: JobId, row: Row) -> bool {
    /// A row that was refused is sent again by an upload, which first has the job wait and then writes its row.
    const REFUSED_FOR: Duration = Duration::from_secs(3600);
    let Ok(there) = server.for_cardholders() else { return true };
    let waits = match there.links.waiting_job(&id).await {
        Ok(Some(waits)) => waits,
        Ok(None) => return true,
        Err(error) => {
            tracing::warn!(job = %id, %error, "a job that waits for its PIN cannot be read");
            return false;
        }
    };
    let has_ended = match &row.state {
        State::Done(_) => true,
        State::Refused(refusal) if is_about_pin(&refusal.code) => false,
        State::Refused(_) => {
            row.written > waits.since && server.clock().now().since(row.written) > REFUSED_FOR
        }
        State::Begun | State::AwaitingPin => false,
    };
    if has_ended {
        // Whoever recorded its end could not take it out of those that wait.
        return there.links.ended(&id, None).await.is_ok();
    }
    // Its card is looked for if a call was begun, and if there is none it waits again.
    let job = waits.into_job(None);
    let batch = job.batch.clone();
    let open = Options { only: CarriedOnly::WhileItIsOpen, ..Options::default() };
    let Some(ended) = there.line.carry(job, open).await else { return false };
    match &ended.outcome {
        // Another has settled it meanwhile.
        _ if ended.recorded_before => true,
        Outcome::Done(_) | Outcome::Refused(_) => {
            server.batches.pin_chosen(batch.as_str(), &ended);
            true
        }
        Outcome::AwaitingPin(_) => {
            if row.state == State::Begun {
                tracing::warn!(job = %id, "a call with a chosen PIN had no effect; its cardholder needs a new link");
            }
            true
        }
        Outcome::Unresolved(_) => false,
    }
}
