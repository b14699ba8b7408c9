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
use crate::job::{Batch, Job, JobId, Step};
use crate::ledger::{Kind, Only, Row};

/// Most batches that are remembered: a bound on memory. For one that is not, the ledger is asked again.
const BATCHES_MAX: usize = 10_000;

/// How far a batch is known. The ledger remembers it, as its rows alone do not tell whether others are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The ledger was not asked.
    Unasked,
    /// So many of its jobs came, and nothing of it was found at Stripe.
    Absent(u32),
    /// What the ledger says of it can be relied on.
    Trusted,
    /// Its cards are at Stripe, and the ledger does not know them: look for each job first.
    Elsewhere,
}

/// What is known of a batch, and how often the account's lease had been taken then: another process that had it since may know more.
struct Kept {
    known: Known,
    lease: u64,
    /// What the ledger says, in its word.
    written: Option<String>,
}

/// What is known of each batch.
#[derive(Default)]
pub(super) struct Batches {
    known: Mutex<HashMap<Batch, Arc<tokio::sync::Mutex<Kept>>>>,
}

impl Batches {
    fn of(&self, batch: &Batch) -> Arc<tokio::sync::Mutex<Kept>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(batch) {
            return known.clone();
        }
        if known.len() >= BATCHES_MAX {
            known.retain(|_, known| Arc::strong_count(known) > 1);
        }
        known
            .entry(batch.clone())
            .or_insert_with(|| {
                Arc::new(tokio::sync::Mutex::new(Kept { known: Known::Unasked, lease: 0, written: None }))
            })
            .clone()
    }
}

impl Known {
    fn word(self) -> String {
        match self {
            Self::Absent(jobs) => format!("absent:{jobs}"),
            Self::Unasked | Self::Trusted => "trusted".to_owned(),
            Self::Elsewhere => "elsewhere".to_owned(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "trusted" => Some(Self::Trusted),
            "elsewhere" => Some(Self::Elsewhere),
            other => other.strip_prefix("absent:")?.parse().ok().map(Self::Absent),
        }
    }

    /// What the ledger says of a batch, and its word.
    async fn read(line: &Line, batch: &Batch) -> Result<(Self, Option<String>), Stop> {
        let written = line.parts.ledger.metadata(&name(line, batch)).await?;
        match written.as_deref().and_then(Self::of_word) {
            Some(known) => Ok((known, written)),
            None => Ok((Self::by_rows(line, batch).await?, written)),
        }
    }

    /// The same where it has no word.
    async fn by_rows(line: &Line, batch: &Batch) -> Result<Self, Stop> {
        let parts = &line.parts;
        // Rows without that word are of an embosser that looked for none: they were begun with this ledger.
        for kind in [Kind::Begun, Kind::Done, Kind::Refused] {
            // One that waits for its cardholder's PIN was not begun, and proves nothing.
            let rows = parts.ledger.batch_page(&parts.scope, batch, None, Only::of(kind), 1).await?;
            if !rows.is_empty() {
                return Ok(Self::Trusted);
            }
        }
        Ok(Self::Absent(0))
    }

    /// Before anything of the batch is recorded, so that whoever goes on with it knows. Answers what is known then: what another
    /// process has found at Stripe meanwhile stays so, whatever was found here. What it recorded since was none of this ledger's making.
    async fn write(self, line: &Line, batch: &Batch, written: &mut Option<String>) -> Result<Self, Stop> {
        let (ledger, name) = (&line.parts.ledger, name(line, batch));
        while written.as_deref().and_then(Self::of_word) != Some(Self::Elsewhere) {
            match ledger.swap_metadata(&*name, written.clone(), Some(self.word())).await? {
                Ok(()) => {
                    *written = Some(self.word());
                    return Ok(self);
                }
                Err(found) => *written = found,
            }
        }
        Ok(Self::Elsewhere)
    }
}

/// Under which name the ledger keeps it.
fn name(line: &Line, batch: &Batch) -> String {
    format!("batch:{}:{batch}", line.parts.scope.as_str())
}

/// Whether the ledger has a row of each of these jobs.
async fn is_all_known(line: &Line, jobs: &[JobId]) -> Result<bool, Stop> {
    for job in jobs {
        let steps = Step::every().map(|step| (job.clone(), step)).collect();
        let rows = line.parts.ledger.look_up_all(&line.parts.scope, steps).await?;
        if rows.iter().flatten().all(Row::was_never_begun) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a job that the ledger does not know must be looked for first. Jobs of a batch that is being asked about wait.
pub(super) async fn vet(
    line: &Line,
    job: &Job,
    recalled: &CancellationToken,
) -> Result<Result<bool, String>, Stop> {
    let of_batch = line.batches.of(&job.batch);
    let mut kept = tokio::select! {
        biased;
        kept = of_batch.lock() => kept,
        () = recalled.cancelled() => return Err(Stop::Closed),
        () = line.stopping.cancelled() => return Err(Stop::Closed),
    };
    let lease = line.lease.times();
    // What follows is for few of a batch's jobs, and on the heap: every job's future would have room for it.
    if kept.known == Known::Unasked || kept.lease != lease {
        let (known, written) = Box::pin(Known::read(line, &job.batch)).await?;
        *kept = Kept { known, lease, written };
    }
    let Kept { known, written, .. } = &mut *kept;
    let count = match *known {
        Known::Trusted | Known::Unasked => return Ok(Ok(false)),
        Known::Elsewhere => return Ok(Ok(true)),
        Known::Absent(jobs) => jobs + 1,
    };
    // The first, the second, the fourth and so on: some of them near the begin, where a former run began, and some far on.
    if !count.is_power_of_two() {
        *known = Known::Absent(count);
        return Ok(Ok(false));
    }
    let found = match Box::pin(look_for_batch(line, job, recalled)).await? {
        Ok(found) => found,
        Err(reason) => return Ok(Err(reason)),
    };
    let now = match found {
        // What this ledger knows was made with it, unless another process found it as this one did: that is told below.
        OfBatch::Found(jobs) if Box::pin(is_all_known(line, &jobs)).await? => Known::Absent(count),
        OfBatch::Found(_) => Known::Elsewhere,
        OfBatch::Absent => Known::Absent(count),
        // It tells nothing of the batch: the next one is looked for instead.
        OfBatch::NoSuchCardholder => return Ok(Ok(false)),
        // As long as it cannot be read it is issued as if nothing were there, and looked for again further on.
        OfBatch::Unreadable => Known::Absent(count),
    };
    *known = Box::pin(now.write(line, &job.batch, written)).await?;
    let is_elsewhere = *known == Known::Elsewhere;
    if is_elsewhere {
        tracing::warn!(
            batch = %job.batch,
            ledger = line.parts.ledger.name(),
            "cards of this batch are at Stripe, and this ledger does not know them; every job is looked for first"
        );
    }
    Ok(Ok(is_elsewhere))
}
