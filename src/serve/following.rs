//! What becomes of published jobs, heard by their result events: one queue of events for the whole server.
//!
//! Every published job is answered with an event, whatever became of it: a row that is refused again, a conflict and one
//! that was issued long ago change nothing in the ledger, and are heard of all the same. Events may have been missed only
//! where the broker lost the queue; then the ledger is looked at, and what it cannot tell ends after a time ([`super::patience`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::Server;
use super::batch::Batch;
use super::intake::Queue;
use super::patience::{Patience, Seen};
use crate::clock::Time;
use crate::job::JobId;
use crate::ledger::{Only, State};
use crate::outcome::{Ended, Outcome};
use crate::queue::event::{ResultEvent, ResultOutcome};
use crate::queue::follow::{Follower, Heard};

/// Between two looks at the ledger once events may have been missed; never more often than a look takes, ten times over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is said where the worker records elsewhere than this server looks.
pub(super) const OTHER_LEDGER: &str = "what the worker records is not in the ledger of this server: give both the same ledger.url, and the \
                                       same stripe.account or stripe.account_id";
/// Most rows that are remembered as waiting for their cardholder's PIN: a bound on memory. Of one that is not, the batch's count is
/// right again when it is the ledger's.
const CHOOSING_MAX: usize = 200_000;

/// Rows that wait for their cardholders, and whose second event tells their end: by a digest of their id, their batch.
type Choosing = Arc<Mutex<HashMap<u128, Arc<Batch>>>>;

/// Whether the worker records where this server looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Records {
    /// Nothing was heard yet.
    #[default]
    Unknown,
    /// An end that was heard is in the ledger.
    Here,
    /// One is not.
    Elsewhere,
}

/// Who waits for events.
#[derive(Default)]
pub(super) struct Following {
    waiting: Mutex<Waiting>,
    choosing: Choosing,
    records: Mutex<Records>,
    /// Why nothing is heard, if that is so.
    lost: Mutex<Option<String>>,
    /// Events that were heard.
    heard: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    batches: HashMap<String, Arc<Outstanding>>,
    jobs: HashMap<String, Alone>,
}

/// A job that was sent alone.
struct Alone {
    /// When its row in the ledger had been written when it was published.
    before: Option<Time>,
    /// Dropped when it has ended.
    under_way: Box<dyn Send>,
}

/// A batch's rows that were published and have not ended.
pub(super) struct Outstanding {
    batch: Arc<Batch>,
    /// By a digest of their id, a third of its size: whether they have a PIN.
    rows: Mutex<HashMap<u128, bool>>,
    choosing: Choosing,
    /// How often events may have been missed.
    missed: watch::Sender<u32>,
    /// How many are left.
    left: watch::Sender<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is an insertion or a removal; a panic elsewhere cannot leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn digest(id: &str) -> u128 {
    let digest = Sha256::digest(id.as_bytes());
    digest[..16].iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

impl Following {
    /// Why nothing is heard, if that is so.
    pub(super) fn lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }

    /// Waits for events of a batch from now on.
    pub(super) fn batch(&self, batch: &Arc<Batch>) -> Arc<Outstanding> {
        let outstanding = Arc::new(Outstanding {
            batch: batch.clone(),
            rows: Mutex::default(),
            choosing: self.choosing.clone(),
            missed: watch::Sender::new(0),
            left: watch::Sender::new(0),
        });
        lock(&self.waiting).batches.insert(batch.name.to_string(), outstanding.clone());
        outstanding
    }

    /// The batch has ended.
    pub(super) fn leave(&self, outstanding: &Arc<Outstanding>) {
        let name = outstanding.batch.name.as_str();
        let batches = &mut lock(&self.waiting).batches;
        if batches.get(name).is_some_and(|other| Arc::ptr_eq(other, outstanding)) {
            batches.remove(name);
        }
    }

    /// Keeps `under_way` until the job's event comes. To be called before the job is published.
    pub(super) fn job(&self, id: &JobId, before: Option<Time>, under_way: Box<dyn Send>) {
        lock(&self.waiting).jobs.insert(id.to_string(), Alone { before, under_way });
    }

    /// The job was not published, or has ended.
    pub(super) fn job_ended(&self, id: &str) {
        let ended = lock(&self.waiting).jobs.remove(id);
        // Its drop takes a lock of others.
        drop(ended.map(|alone| alone.under_way));
    }

    /// Whether the worker records elsewhere than this server looks.
    pub(super) fn is_elsewhere(&self) -> bool {
        *lock(&self.records) == Records::Elsewhere
    }

    fn hear(&self, event: ResultEvent, now: Time) {
        let Some(id) = event.id.clone() else { return };
        self.job_ended(&id);
        if event.outcome != ResultOutcome::AwaitingPin
            && let Some(batch) = lock(&self.choosing).remove(&digest(&id))
        {
            batch.pin_chosen(&event.clone().into_ended());
        }
        // By its id alone: a row that is known from another batch has that one's name.
        let batches: Vec<_> = lock(&self.waiting).batches.values().cloned().collect();
        let ended = event.into_ended();
        for outstanding in batches {
            outstanding.ended(&id, &ended, now);
        }
    }

    fn missed(&self, server: &Server, queue: &Arc<Queue>) {
        let waiting = lock(&self.waiting);
        for outstanding in waiting.batches.values() {
            outstanding.missed.send_modify(|times| *times += 1);
        }
        let jobs: Vec<_> = waiting.jobs.iter().map(|(id, alone)| (id.clone(), alone.before)).collect();
        drop(waiting);
        if !jobs.is_empty() {
            tokio::spawn(look_for_jobs(server.clone(), queue.clone(), jobs));
        }
    }
}

impl Outstanding {
    /// A row is about to be published.
    pub(super) fn add(&self, id: &JobId, pin: bool) {
        let mut rows = lock(&self.rows);
        rows.insert(digest(id.as_str()), pin);
        self.left.send_replace(rows.len());
    }

    /// How many were published and have not ended.
    pub(super) fn left(&self) -> usize {
        *self.left.borrow()
    }

    /// It was not published after all.
    pub(super) fn remove(&self, id: &JobId) {
        self.take(id.as_str());
    }

    fn take(&self, id: &str) -> Option<bool> {
        let mut rows = lock(&self.rows);
        let pin = rows.remove(&digest(id));
        self.left.send_replace(rows.len());
        pin
    }

    /// A row has ended; told twice, it counts once.
    fn ended(&self, id: &str, ended: &Ended, now: Time) {
        let mut rows = lock(&self.rows);
        // Taken out and counted under one lock, as an event and a look at the ledger may tell the same at once.
        let Some(pin) = rows.remove(&digest(id)) else { return };
        // Counted before what is left is told: who waits for nothing to be left reads the counts then.
        self.batch.row_ended(ended, pin, now);
        if matches!(ended.outcome, Outcome::AwaitingPin(_)) {
            let mut choosing = lock(&self.choosing);
            if choosing.len() < CHOOSING_MAX {
                choosing.insert(digest(id), self.batch.clone());
            }
        }
        self.left.send_replace(rows.len());
    }

    /// Waits until nothing is left of what was published.
    pub(super) async fn all_ended(&self, server: &Server, queue: &Queue, before: Time) -> Result<(), String> {
        let (mut left, mut missed) = (self.left.subscribe(), self.missed.subscribe());
        tokio::select! {
            _ = left.wait_for(|left| *left == 0) => return Ok(()),
            _ = missed.wait_for(|times| *times > 0) => {}
        }
        let count = *left.borrow();
        let mut patience = begin_to_wait(queue, count).await;
        loop {
            let began = Instant::now();
            self.look(server, queue, before).await?;
            let count = *left.borrow_and_update();
            if count == 0 {
                return Ok(());
            }
            if is_given_up(&mut patience, queue, count).await {
                return Err(format!(
                    "the broker lost its queue of results, and the ledger does not tell what became of {count} rows; \
                     upload the same file again"
                ));
            }
            let wait = LOOK_EVERY.max(began.elapsed() * 10);
            let _ = tokio::time::timeout(wait, left.wait_for(|left| *left == 0)).await;
        }
    }

    /// What the ledger knows of them since the batch began.
    async fn look(&self, server: &Server, queue: &Queue, before: Time) -> Result<(), String> {
        let mut pages = server.parts.views.pages(queue.scope.now(), &self.batch.name, Only::default());
        while let Some(page) = pages.next().await.map_err(|error| error.to_string())? {
            for row in page.iter().filter(|row| row.written > before && row.state != State::Begun) {
                let ended = Ended { recorded_before: false, ..row.ended() };
                self.ended(row.id.as_str(), &ended, queue.clock.now());
            }
        }
        Ok(())
    }
}

/// How long so many rows or jobs are waited for, now that their events may have been missed.
async fn begin_to_wait(queue: &Queue, left: usize) -> Patience {
    Patience::new(seen(queue, left, Ask::Now).await, Instant::now())
}

/// Whether what is left of them is given up.
async fn is_given_up(patience: &mut Patience, queue: &Queue, left: usize) -> bool {
    if queue.following.lost().is_some() {
        patience.rest(Instant::now());
        return false;
    }
    let ask = if patience.asks_for_queued() { Ask::Now } else { Ask::Not };
    patience.is_over(seen(queue, left, ask).await, Instant::now())
}

/// Whether the broker is asked how many jobs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Now,
    Not,
}

async fn seen(queue: &Queue, left: usize, ask: Ask) -> Seen {
    let queued = if ask == Ask::Now { queue.queued().await } else { None };
    Seen { left, heard: queue.following.heard.load(Ordering::Relaxed), queued }
}

/// Hears events for as long as the server runs.
pub(super) async fn follow(server: Server, queue: Arc<Queue>, mut follower: Follower) {
    let following = &queue.following;
    loop {
        let heard = tokio::select! {
            heard = follower.next() => heard,
            // What is heard after this concerns nobody any more.
            () = queue.stopping.cancelled() => break,
        };
        match heard {
            Heard::Event(event) => {
                following.heard.fetch_add(1, Ordering::Relaxed);
                look_where_it_is_recorded(&server, &queue, &event).await;
                following.hear(*event, queue.clock.now());
            }
            Heard::Unreadable => {
                following.heard.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a result event cannot be read; it is of another version");
                // Whose it was is not known, so what the ledger knows is looked at.
                following.missed(&server, &queue);
            }
            Heard::Lost(reason) => {
                tracing::warn!(reason, "the broker is away; no jobs are taken");
                *lock(&following.lost) = Some(format!("RabbitMQ is away: {reason}"));
            }
            again @ (Heard::Again | Heard::Anew) => {
                tracing::info!("the broker is there again");
                *lock(&following.lost) = None;
                if matches!(again, Heard::Anew) {
                    following.missed(&server, &queue);
                }
            }
        }
    }
    follower.forget().await;
}

/// Until an end that was heard is found in this server's ledger: looks for it there. A worker records an end before it tells it.
async fn look_where_it_is_recorded(server: &Server, queue: &Arc<Queue>, event: &ResultEvent) {
    /// In this time it is learnt from the ledger whose cards the worker makes.
    const LEARNT_WITHIN: Duration = Duration::from_secs(2);
    let is_recorded = event.outcome != ResultOutcome::Refused;
    let Some(Ok(id)) = event.id.as_deref().filter(|_| is_recorded).map(JobId::new) else { return };
    let before = *lock(&queue.following.records);
    if before == Records::Here {
        return;
    }
    let look = async || {
        let found = server.parts.views.look_up(queue.scope.now(), &id).await;
        // A ledger that cannot be asked now tells nothing.
        found.ok().map(|row| if row.is_some() { Records::Here } else { Records::Elsewhere })
    };
    let mut found = look().await;
    if found == Some(Records::Elsewhere) && before == Records::Unknown {
        tokio::time::sleep(LEARNT_WITHIN).await;
        found = look().await;
        if found == Some(Records::Elsewhere) {
            tracing::error!(job = %id, "{OTHER_LEDGER}");
        }
    }
    if let Some(found) = found {
        *lock(&queue.following.records) = found;
    }
}

/// Gives back the places of jobs whose events may have been missed, once the ledger tells their end, or after a time.
async fn look_for_jobs(server: Server, queue: Arc<Queue>, mut jobs: Vec<(String, Option<Time>)>) {
    let mut patience = begin_to_wait(&queue, jobs.len()).await;
    while !jobs.is_empty() && !is_given_up(&mut patience, &queue, jobs.len()).await {
        let mut left = Vec::new();
        for (id, before) in jobs {
            let row = match JobId::new(id.as_str()) {
                Ok(id) => server.parts.views.look_up(queue.scope.now(), &id).await.ok().flatten(),
                Err(_) => None,
            };
            if row.is_some_and(|row| row.state != State::Begun && Some(row.written) != before) {
                queue.following.job_ended(&id);
            } else {
                left.push((id, before));
            }
        }
        jobs = left;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = queue.stopping.cancelled() => return,
        }
    }
    for (id, _) in jobs {
        queue.following.job_ended(&id);
    }
}
