//! Whether a batch that the ledger does not know was issued from another one.
//!
//! The same manifest beside another ledger would make a second card for everybody, without a word. So before the first
//! call for a batch that the ledger has no row of, a few of its jobs are looked for at Stripe; if a card of the batch is
//! there, every job is looked for before its call.
//!
//! One look allows its first job, a second one the two after it, a third one the next four, and so on: each allows as many as
//! all before it. Nobody waits for a look before those are used up, as it is made ahead: that for the 16th job and on with the
//! fifth that comes, that for the 32nd and on with the ninth. So where lists are slow the pace is used all the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::look::{OfBatch, look_for_batch};
use super::{Line, Stop};
use crate::job::{Batch, Job, JobId, Step};
use crate::ledger::{Kind, Only, Row};
use crate::simulation::{Mutation, is_broken};

/// Most batches that are remembered: a bound on memory. For one that is not, the ledger is asked again.
const BATCHES_MAX: usize = 10_000;

/// A look is made ahead by the first job beyond this part of those before it. With half of them, as few jobs are in hand at first, the
/// look for the 32nd came a second too late where lists take one.
const AHEAD: u32 = 4;
/// After the look that allows so many jobs a batch is relied on: some twenty looks have found nothing.
const JOBS_MAX: u32 = 1 << 20;

/// How far a batch is known. The ledger remembers it, as its rows alone do not tell whether others are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// The ledger was not asked.
    Unasked,
    /// All looks up to that of this job were made, and nothing of the batch was found at Stripe.
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
    /// How many of its jobs came here.
    came: u32,
    /// Looks that found nothing, while one before them is not made.
    made: BTreeSet<u32>,
    /// Whoever makes a look holds its lock.
    looks: BTreeMap<u32, Arc<tokio::sync::Mutex<()>>>,
}

/// Under which number a job was counted, as long as the account's lease was taken so often; and which look it has made, and found
/// nothing: it stands for one look only, as all that it can tell of the batch is told by one.
#[derive(Clone, Copy)]
struct Counted {
    number: u32,
    lease: u64,
    made: Option<u32>,
}

/// A look that is to be made, by the first job that may not go on without it.
struct Due {
    first: u32,
    lock: Arc<tokio::sync::Mutex<()>>,
    /// If nobody else is making it.
    free: Option<OwnedMutexGuard<()>>,
}

impl Kept {
    fn new(known: Known, written: Option<String>, lease: u64) -> Self {
        let came = if let Known::Absent(jobs) = known { jobs } else { 0 };
        Self { known, lease, written, came, made: BTreeSet::new(), looks: BTreeMap::new() }
    }

    /// A job's number among those of its batch.
    fn count(&mut self, counted: Option<Counted>) -> Counted {
        counted.filter(|counted| counted.lease == self.lease).unwrap_or_else(|| {
            self.came = self.came.saturating_add(1);
            Counted { number: self.came, lease: self.lease, made: None }
        })
    }

    /// What a job has to do before it goes on: to make a look that nobody makes, else to wait for one.
    fn due(&mut self, counted: &Counted) -> Option<Due> {
        let Known::Absent(jobs) = self.known else { return None };
        let number = counted.number;
        let begun = std::iter::successors(Some(look_after(jobs)), |first| first.checked_mul(2));
        let begun = begun
            .take_while(|first| first / AHEAD < number && counted.made.is_none_or(|made| *first < made))
            .filter(|first| !self.made.contains(first));
        let mut waits_for = None;
        for first in begun {
            let lock = self.looks.entry(first).or_default().clone();
            if let Ok(free) = lock.clone().try_lock_owned() {
                return Some(Due { first, lock, free: Some(free) });
            }
            if first <= number && waits_for.is_none() && !is_broken(Mutation::GoOnDuringLook) {
                waits_for = Some(Due { first, lock, free: None });
            }
        }
        waits_for
    }

    /// Whether a look is still to be made.
    fn wants(&self, first: u32, lease: u64) -> bool {
        matches!(self.known, Known::Absent(jobs) if jobs < first)
            && self.lease == lease
            && !self.made.contains(&first)
    }

    /// A look has found nothing. Answers up to which one all are made. If the job has made a later one before, that is to be made by
    /// another; and whoever makes a look goes on as the first one that it allows.
    fn made(&mut self, first: u32, counted: &mut Counted) -> Known {
        let Known::Absent(mut jobs) = self.known else { return self.known };
        if let Some(later) = counted.made.replace(first) {
            self.made.remove(&later);
        }
        counted.number = counted.number.min(first);
        self.made.insert(first);
        while self.made.remove(&look_after(jobs)) {
            jobs = look_after(jobs);
            self.looks.remove(&jobs);
        }
        Known::absent(jobs)
    }

    /// Says so in the ledger, before anything of the batch is recorded, so that whoever goes on with it knows. What another
    /// process has found at Stripe meanwhile stays so, whatever was found here: what it recorded since was none of this
    /// ledger's making.
    async fn write(&mut self, now: Known, line: &Line, batch: &Batch) -> Result<(), Stop> {
        let (ledger, name) = (&line.parts.ledger, name(line, batch));
        self.known = loop {
            if self.written.as_deref().and_then(Known::of_word) == Some(Known::Elsewhere) {
                break Known::Elsewhere;
            }
            if self.written.as_deref() == Some(now.word().as_str()) {
                break now;
            }
            match ledger.swap_metadata(&*name, self.written.clone(), Some(now.word())).await? {
                Ok(()) => self.written = Some(now.word()),
                Err(found) => self.written = found,
            }
        };
        Ok(())
    }
}

/// The look that allows more than this job and those before it: of powers of two, the next one.
fn look_after(jobs: u32) -> u32 {
    jobs.saturating_add(1).next_power_of_two()
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
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Kept::new(Known::Unasked, None, 0))))
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

    /// All looks up to that of this job were made.
    fn absent(jobs: u32) -> Self {
        if jobs < JOBS_MAX { Self::Absent(jobs) } else { Self::Trusted }
    }

    fn of_word(word: &str) -> Option<Self> {
        match word {
            "trusted" => Some(Self::Trusted),
            "elsewhere" => Some(Self::Elsewhere),
            other => other.strip_prefix("absent:")?.parse().ok().map(Self::absent),
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

/// Whether a job that the ledger does not know must be looked for first.
pub(super) async fn vet(
    line: &Line,
    job: &Job,
    recalled: &CancellationToken,
) -> Result<Result<bool, String>, Stop> {
    let of_batch = line.batches.of(&job.batch);
    let mut counted = None;
    loop {
        let lease = line.lease.times();
        let due = {
            let mut kept = lock(&of_batch, line, recalled).await?;
            // What is on the heap is for few of a batch's jobs: every job's future would have room for it.
            if kept.known == Known::Unasked || kept.lease != lease {
                let (known, written) = Box::pin(Known::read(line, &job.batch)).await?;
                *kept = Kept::new(known, written, lease);
            }
            match kept.known {
                Known::Trusted | Known::Unasked => return Ok(Ok(false)),
                Known::Elsewhere => return Ok(Ok(true)),
                Known::Absent(_) => {}
            }
            let counted = counted.insert(kept.count(counted));
            kept.due(counted)
        };
        let (Some(due), Some(counted)) = (due, &mut counted) else { return Ok(Ok(false)) };
        let look = Look { line, job, recalled, of_batch: &of_batch, counted };
        if let Some(told) = Box::pin(look.make(due)).await? {
            return Ok(told);
        }
    }
}

async fn lock<'k>(
    of_batch: &'k tokio::sync::Mutex<Kept>,
    line: &Line,
    recalled: &CancellationToken,
) -> Result<tokio::sync::MutexGuard<'k, Kept>, Stop> {
    tokio::select! {
        biased;
        kept = of_batch.lock() => Ok(kept),
        () = recalled.cancelled() => Err(Stop::Closed),
        () = line.stopping.cancelled() => Err(Stop::Closed),
    }
}

/// A look for a batch, with one of its jobs.
struct Look<'l> {
    line: &'l Line,
    job: &'l Job,
    recalled: &'l CancellationToken,
    of_batch: &'l tokio::sync::Mutex<Kept>,
    counted: &'l mut Counted,
}

impl Look<'_> {
    /// Makes it, or waits until somebody else has. None if the job has to see anew what is known; else whether it must be
    /// looked for first, or why that is not known.
    async fn make(self, due: Due) -> Result<Option<Result<bool, String>>, Stop> {
        let Self { line, job, recalled, of_batch, counted } = self;
        let lease = counted.lease;
        let Due { first, lock: look, free } = due;
        let _made_by_nobody_else = match free {
            Some(free) => free,
            None => tokio::select! {
                biased;
                held = look.lock_owned() => held,
                () = recalled.cancelled() => return Err(Stop::Closed),
                () = line.stopping.cancelled() => return Err(Stop::Closed),
            },
        };
        if !lock(of_batch, line, recalled).await?.wants(first, lease) {
            return Ok(None);
        }
        let found = match counted.made {
            // It has looked already.
            Some(_) => Ok(OfBatch::Absent),
            None => look_for_batch(line, job, recalled).await?,
        };
        let is_known = match &found {
            // What this ledger knows was made with it, unless another process found it as this one did: that is told below.
            Ok(OfBatch::Found(jobs)) => is_all_known(line, jobs).await?,
            _ => false,
        };
        let mut kept = lock(of_batch, line, recalled).await?;
        if !kept.wants(first, lease) {
            return Ok(None);
        }
        let now = match found {
            Err(reason) => {
                // It comes again, and is counted anew.
                kept.came = kept.came.saturating_sub(1);
                return Ok(Some(Err(reason)));
            }
            Ok(OfBatch::Found(_)) if !is_known => Known::Elsewhere,
            // As long as it cannot be read it is issued as if nothing were there, and looked for again further on.
            Ok(OfBatch::Found(_) | OfBatch::Absent | OfBatch::Unreadable) => kept.made(first, counted),
            // It tells nothing of the batch: the next one is looked for instead.
            Ok(OfBatch::NoSuchCardholder) => {
                let known = kept.known;
                kept.write(known, line, &job.batch).await?;
                return Ok(Some(Ok(kept.known == Known::Elsewhere)));
            }
        };
        kept.write(now, line, &job.batch).await?;
        if kept.known == Known::Elsewhere {
            tracing::warn!(
                batch = %job.batch,
                ledger = line.parts.ledger.name(),
                "cards of this batch are at Stripe, and this ledger does not know them; every job is looked for first"
            );
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_many_processes_have_looked_for_is_relied_on() {
        let (mut known, mut looks) = (Known::Absent(0), 0);
        while let Known::Absent(jobs) = known {
            // Each process goes on with what the one before has written, and makes one look.
            let mut kept = Kept::new(Known::of_word(&known.word()).unwrap(), Some(known.word()), 1);
            let mut counted = kept.count(None);
            let due = kept.due(&counted).unwrap();
            assert!(due.first > jobs && looks < 32, "{jobs}");
            known = kept.made(due.first, &mut counted);
            looks += 1;
        }
        assert_eq!((known, looks), (Known::Trusted, 21));
        // As processes before may have written it.
        assert_eq!(Known::of_word("absent:4294967295"), Some(Known::Trusted));
    }
}
