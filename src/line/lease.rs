//! The account's lease, for as long as this line has work: taken with the first job, given up a while after the last.
//!
//! Who finds it held by another process waits, and says by whom. Between two jobs that follow closely it is kept, so that
//! neither pays for it. Whether it still is ours is asked before each attempt is recorded.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Stop;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::ledger::{Holder, Lease, LeaseError, Leased, Ledger, Scope};
use crate::locks::Mutex;
use crate::locks::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::metrics;
use crate::pace::Pace;
use crate::simulation::{self, Mutation, is_broken};

/// Between two questions whether the other has given it up.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Longest such wait.
const ASK_EVERY_MAX: Duration = Duration::from_secs(2);
/// Between two looks whether whoever asks about it has its answer: about as long as that takes.
const LOCKED_FOR: Duration = Duration::from_millis(5);

/// Whether a lease was held since it was last asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// It was.
    AllTheTime,
    /// It was taken just now: whatever was known before may have changed.
    Anew,
}

/// The lease of a line's account. Clones share it.
#[derive(Clone)]
pub(super) struct LineLease {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Ledger,
    scope: Scope,
    clock: Clock,
    pace: Pace,
    /// How long it is kept without work.
    idle: Duration,
    /// Jobs that need it.
    users: AtomicUsize,
    /// Whether it is held: told before `users` is looked at, as each user counts itself before it looks here.
    held: AtomicBool,
    /// How often it was taken.
    times: AtomicU64,
    /// Whether a task watches for its idleness.
    watched: AtomicBool,
    lease: tokio::sync::Mutex<Option<Lease>>,
    blocked_by: Mutex<Option<Holder>>,
}

/// One job's need of it. Dropped, it is needed by one less.
#[must_use]
pub struct LeaseUse {
    shared: Arc<Shared>,
}

impl LineLease {
    pub(super) fn new(ledger: Ledger, scope: Scope, clock: Clock, pace: Pace, idle: Duration) -> Self {
        let shared = Shared {
            ledger,
            scope,
            clock,
            pace,
            idle,
            users: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            times: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            lease: tokio::sync::Mutex::new(None),
            blocked_by: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// How often it was taken so far: as long as that is the same, nobody else has called for the account.
    pub(super) fn times(&self) -> u64 {
        self.shared.times.load(Ordering::SeqCst)
    }

    /// Waits for the lease, for as long as another process holds it, or until work stops.
    pub(super) async fn take(&self, stop: &CancellationToken) -> Result<LeaseUse, Stop> {
        self.shared.users.fetch_add(1, Ordering::SeqCst);
        let used = LeaseUse { shared: self.shared.clone() };
        self.assure(stop).await?;
        Ok(used)
    }

    /// Makes sure that it still is ours; waits for it again if it was lost. Answers whether it was held all the time.
    pub(super) async fn assure(&self, stop: &CancellationToken) -> Result<Held, Stop> {
        if self.is_surely_ours() {
            return Ok(Held::AllTheTime);
        }
        // On the heap: it is large, every job's future would have room for it, and few ever come here.
        let acquiring = Box::pin(self.acquire());
        tokio::select! {
            biased;
            assured = acquiring => assured,
            () = stop.cancelled() => Err(Stop::Closed),
        }
    }

    /// Whether that is known without a question, and so at this moment.
    pub(super) fn is_surely_ours(&self) -> bool {
        let held = || self.shared.held.load(Ordering::SeqCst);
        if !held() {
            return false;
        }
        if is_broken(Mutation::KeepLostLease) {
            return true;
        }
        // Whoever has the lock gives it up or asks about it, and says that it is not held before.
        let Ok(lease) = self.shared.lease.try_lock() else { return held() };
        lease.as_ref().is_some_and(Lease::is_surely_ours)
    }

    async fn acquire(&self) -> Result<Held, Stop> {
        let shared = &self.shared;
        let mut lease = shared.lease.lock().await;
        // Whoever comes now waits for the answer, and does not go on in the belief of before.
        shared.held.store(false, Ordering::SeqCst);
        if let Some(ours) = lease.as_ref() {
            if ours.is_ours().await {
                shared.held.store(true, Ordering::SeqCst);
                return Ok(Held::AllTheTime);
            }
            tracing::warn!("the account's lease was lost; waiting for it again");
        }
        *lease = None;
        // Whoever stops waiting is blocked by nobody any more.
        let _blocked = Blocked(shared);
        let (mut backoff, mut failing) = (Backoff::between(ASK_EVERY, ASK_EVERY_MAX), None);
        loop {
            match shared.ledger.lease(&shared.scope, &shared.clock).await {
                Ok(Leased::Ours(ours)) => {
                    self.begin(&mut lease, ours);
                    return Ok(Held::Anew);
                }
                Ok(Leased::HeldBy(holder)) => {
                    failing = None;
                    shared.blocked(Some(*holder));
                }
                Err(LeaseError::Ledger(error))
                    if error.may_pass()
                        && failing.get_or_insert_with(Instant::now).elapsed() < shared.ledger.patience() =>
                {
                    tracing::warn!(%error, "the account's lease cannot be asked for; trying again");
                }
                Err(LeaseError::Ledger(error)) => return Err(Stop::Ledger(error)),
                Err(error @ LeaseError::File { .. }) => return Err(Stop::Lease(error.to_string())),
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// It is ours from now on.
    fn begin(&self, place: &mut Option<Lease>, ours: Lease) {
        let shared = &self.shared;
        if !is_broken(Mutation::CallAtOnceAfterTakeover) {
            shared.pace.hold(ours.calls_from());
        }
        *place = Some(ours);
        shared.times.fetch_add(1, Ordering::SeqCst);
        shared.held.store(true, Ordering::SeqCst);
        self.watch_idleness();
    }

    /// Who holds it, if that is another process for which this one waits.
    pub(super) fn blocked_by(&self) -> Option<Holder> {
        self.shared.blocked_by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One try, without waiting for another process, nor for a job that waits for it.
    pub(super) async fn try_take(&self) -> Result<Result<LeaseUse, Holder>, LeaseError> {
        let shared = &self.shared;
        shared.users.fetch_add(1, Ordering::SeqCst);
        let used = LeaseUse { shared: shared.clone() };
        let mut lease = loop {
            if let Ok(lease) = shared.lease.try_lock() {
                break lease;
            }
            // Whoever waits for another process keeps this locked all the while; who asks the database does for a moment.
            if let Some(holder) = self.blocked_by() {
                return Ok(Err(holder));
            }
            tokio::time::sleep(LOCKED_FOR).await;
        };
        // Whoever looks meanwhile must not go on in the belief of before.
        shared.held.store(false, Ordering::SeqCst);
        if let Some(ours) = lease.as_ref()
            && ours.is_ours().await
        {
            shared.held.store(true, Ordering::SeqCst);
            return Ok(Ok(used));
        }
        *lease = None;
        let leased = shared.ledger.lease(&shared.scope, &shared.clock).await;
        shared.ledger.lease_is_not_wanted();
        match leased? {
            Leased::Ours(ours) => {
                self.begin(&mut lease, ours);
                Ok(Ok(used))
            }
            Leased::HeldBy(holder) => Ok(Err(*holder)),
        }
    }

    /// Gives it up once nobody has needed it for a while.
    fn watch_idleness(&self) {
        let shared = Arc::downgrade(&self.shared);
        let idle = self.shared.idle;
        if idle.is_zero() || self.shared.watched.swap(true, Ordering::SeqCst) {
            return;
        }
        simulation::spawn(async move {
            let mut rested = false;
            loop {
                tokio::time::sleep(idle / 2).await;
                let Some(shared) = shared.upgrade() else { return };
                if shared.users.load(Ordering::SeqCst) > 0 {
                    rested = false;
                } else if !rested {
                    rested = true;
                } else if shared.give_up().await {
                    return;
                }
            }
        });
    }
}

impl Shared {
    fn blocked(&self, holder: Option<Holder>) {
        let mut blocked_by = self.blocked_by.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *blocked_by != holder;
        blocked_by.clone_from(&holder);
        drop(blocked_by);
        metrics::account_waits(holder.is_some(), self.scope.account());
        if let Some(holder) = holder.filter(|_| is_news) {
            tracing::warn!(%holder, "another process calls for this account; waiting until it ends");
        }
    }

    /// Whether it was given up, as nobody needs it.
    async fn give_up(&self) -> bool {
        let mut lease = self.lease.lock().await;
        self.held.store(false, Ordering::SeqCst);
        if self.users.load(Ordering::SeqCst) > 0 {
            self.held.store(lease.is_some(), Ordering::SeqCst);
            return false;
        }
        *lease = None;
        // Before the lock goes: whoever takes the lease next begins to watch anew.
        self.watched.store(false, Ordering::SeqCst);
        true
    }
}

/// Waits for another process to give the lease up.
struct Blocked<'s>(&'s Shared);

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.0.blocked(None);
        self.0.ledger.lease_is_not_wanted();
    }
}

impl Drop for LeaseUse {
    fn drop(&mut self) {
        let last = self.shared.users.fetch_sub(1, Ordering::SeqCst) == 1;
        if last
            && self.shared.idle.is_zero()
            && let Ok(mut lease) = self.shared.lease.try_lock()
        {
            self.shared.held.store(false, Ordering::SeqCst);
            if self.shared.users.load(Ordering::SeqCst) == 0 {
                *lease = None;
            } else {
                self.shared.held.store(lease.is_some(), Ordering::SeqCst);
            }
        }
    }
}
