//! The events that the ledger owes: ends of jobs that waited for their PIN, which the server with the pages has recorded.
//!
//! The order is the one of every settlement: the end is recorded, the event confirmed, and then it is owed no more. A crash in
//! between repeats an event, and loses none.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Worker;
use crate::killpoint;
use crate::ledger::{LedgerError, Row, State};
use crate::pin_links::{Outbox, Owed};
use crate::queue::event::Named;

/// How long this process sees the same claim of another before it takes that one for dead. It is many times what a broker takes
/// to confirm an event; if it is too short after all, the event comes twice.
const CLAIM_LASTS: Duration = Duration::from_secs(15);

/// Claims of other processes: since when they are seen as they are.
#[derive(Default)]
struct Seen(HashMap<String, (String, Instant)>);

impl Seen {
    /// Whether it may be claimed here.
    fn may_claim(&mut self, owed: &Owed) -> bool {
        let (name, value) = owed.as_read();
        if !owed.is_claimed() {
            self.0.remove(name);
            return true;
        }
        let fresh = || (value.to_owned(), Instant::now());
        let seen = self.0.entry(name.to_owned()).or_insert_with(fresh);
        if seen.0 != value {
            *seen = fresh();
        }
        seen.1.elapsed() >= CLAIM_LASTS
    }
}

/// Publishes them until the worker stops.
pub(super) async fn run(worker: Arc<Worker>, stop: CancellationToken) {
    let parts = worker.line.parts();
    let outbox = Outbox::of(&parts.ledger, &parts.scope);
    let (mut seen, mut owing) = (Seen::default(), worker.owing.clone());
    loop {
        let publishing = async {
            owing.to(&parts.scope).await;
            if worker.ready.is_connected()
                && let Err(error) = publish_all(&worker, &outbox, &mut seen).await
            {
                tracing::warn!(%error, "events that are owed cannot be read");
            }
        };
        tokio::select! {
            () = publishing => {}
            () = stop.cancelled() => return,
            () = worker.line.stopped() => return,
        }
    }
}

async fn publish_all(worker: &Worker, outbox: &Outbox, seen: &mut Seen) -> Result<(), LedgerError> {
    let parts = worker.line.parts();
    let mut after = String::new();
    let mut others = HashMap::new();
    loop {
        let (owed, next) = outbox.page(&after).await?;
        let jobs: Vec<_> = owed.iter().map(|owed| owed.job.clone()).collect();
        let rows = parts.ledger.look_up_jobs(&parts.scope, &jobs).await?;
        for (owed, row) in owed.into_iter().zip(rows) {
            // One that was sent again since it had ended is under way, and its end is told when it has come to one.
            let Some(row) = row.filter(|row| matches!(row.state, State::Done(_) | State::Refused(_))) else {
                continue;
            };
            if seen.may_claim(&owed) {
                publish(worker, outbox, owed, &row).await?;
            } else if let Some(claim) = seen.0.remove_entry(owed.as_read().0) {
                others.extend([claim]);
            }
        }
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    // What is not owed any more is forgotten.
    seen.0 = others;
    Ok(())
}

async fn publish(worker: &Worker, outbox: &Outbox, owed: Owed, row: &Row) -> Result<(), LedgerError> {
    let Some(owed) = outbox.claim(owed).await? else { return Ok(()) };
    killpoint::pass("event_claimed");
    let ended = row.ended();
    if let Some(event) = Named::of_row(row).ended(&ended) {
        // Where nobody listens, nobody is owed it.
        let _ = worker.publish_event(&event, owed.event.correlation.as_deref()).await;
    }
    killpoint::pass("event_published");
    outbox.published(owed).await
}
