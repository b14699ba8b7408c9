//! How many rows the manifests had whose jobs come through the queue: their publisher says so with each job, and the ledger
//! keeps it once, so that `status` and the page can tell what is still to come; and that they come through the queue.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::job::Job;
use crate::ledger::BatchRow;
use crate::line::Line;
use crate::queue::message::Envelope;

/// Most batches that are remembered: a bound on memory. One that is not is written again, which changes nothing.
const BATCHES_MAX: usize = 10_000;

/// Batches whose number of rows is in the ledger, with that number.
#[derive(Default)]
pub(super) struct Batches(Mutex<HashSet<(String, u64)>>);

impl Batches {
    /// Takes note of what came with a job of a batch.
    pub(super) async fn came(&self, line: &Line, job: &Job, envelope: &Envelope) {
        let Some(rows) = envelope.rows else { return };
        let key = (job.batch.to_string(), rows);
        if !self.is_new(&key) {
            return;
        }
        let parts = line.parts();
        let row = BatchRow {
            scope: parts.scope.clone(),
            batch: job.batch.clone(),
            digest: None,
            rows,
            began: parts.clock.now(),
        };
        let writing = async {
            parts.ledger.note_queue(&parts.scope, &job.batch).await?;
            parts.ledger.write_batch(row).await
        };
        if let Err(error) = writing.await {
            // It is for people to look at: no job waits for it, and the next one tries again.
            tracing::warn!(%error, batch = %job.batch, "how many rows it has could not be recorded");
            self.known().remove(&key);
        }
    }

    fn is_new(&self, key: &(String, u64)) -> bool {
        let mut known = self.known();
        if known.len() >= BATCHES_MAX {
            known.clear();
        }
        // Looked up first: most jobs are of a batch that is known.
        !known.contains(key) && known.insert(key.clone())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashSet<(String, u64)>> {
        // A panic elsewhere leaves the set whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
