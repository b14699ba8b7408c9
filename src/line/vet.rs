//! Whether a batch that the ledger does not know was issued from another one.
//!
//! The same manifest beside another ledger would make a second card for everybody, without a word. So before the first
//! call for a batch that the ledger has no row of, a few of its jobs are looked for at Stripe; if a card of the batch is
//! there, every job is looked for before its call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::look::{OfBatch, look_for_batch};
use super::{Line, Stop};
use crate::job::{Batch, Job};

/// Jobs of an unknown batch that are looked for.
const SAMPLES: u32 = 3;
/// Most batches that are remembered: a bound on memory. One that is forgotten is asked about again.
const BATCHES_MAX: usize = 10_000;

/// How far a batch is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// So many of its jobs were looked for, and nothing of it was found.
    Sampled(u32),
    /// What the ledger says of it can be relied on.
    Trusted,
    /// Its cards are at Stripe, and the ledger does not know them: look for each job first.
    Elsewhere,
}

/// What is known of each batch.
#[derive(Default)]
pub(super) struct Batches {
    known: Mutex<HashMap<Batch, Arc<tokio::sync::Mutex<Known>>>>,
}

impl Batches {
    fn of(&self, batch: &Batch) -> Arc<tokio::sync::Mutex<Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(batch) {
            return known.clone();
        }
        if known.len() >= BATCHES_MAX {
            known.retain(|_, known| Arc::strong_count(known) > 1);
        }
        known
            .entry(batch.clone())
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Known::Sampled(0))))
            .clone()
    }
}

/// Whether a job that the ledger does not know must be looked for first. Jobs of a batch that is being asked about wait.
pub(super) async fn vet(
    line: &Line,
    job: &Job,
    recalled: &CancellationToken,
) -> Result<Result<bool, String>, Stop> {
    let of_batch = line.batches.of(&job.batch);
    let mut known = tokio::select! {
        known = of_batch.lock() => known,
        () = recalled.cancelled() => return Err(Stop::Closed),
        () = line.stopping.cancelled() => return Err(Stop::Closed),
    };
    let samples = match *known {
        Known::Trusted => return Ok(Ok(false)),
        Known::Elsewhere => return Ok(Ok(true)),
        Known::Sampled(samples) => samples,
    };
    let parts = &line.parts;
    if samples == 0 && !parts.ledger.batch_page(&parts.scope, &job.batch, None, None, 1).await?.is_empty() {
        *known = Known::Trusted;
        return Ok(Ok(false));
    }
    match look_for_batch(line, job, recalled).await? {
        Ok(OfBatch::Found) => {
            tracing::warn!(
                batch = %job.batch,
                ledger = parts.ledger.name(),
                "cards of this batch are at Stripe, and this ledger does not know them; every job is looked for first"
            );
            *known = Known::Elsewhere;
            Ok(Ok(true))
        }
        Ok(OfBatch::Absent) => {
            *known = if samples + 1 >= SAMPLES { Known::Trusted } else { Known::Sampled(samples + 1) };
            Ok(Ok(false))
        }
        Err(reason) => Ok(Err(reason)),
    }
}
