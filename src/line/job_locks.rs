//! Which jobs are on the line: one of an id at a time, the others after it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use crate::job::JobId;
use crate::locks::Mutex;

/// The jobs that are locked, each with those that wait for it. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct JobLocks {
    jobs: Arc<Mutex<HashMap<JobId, Waiting>>>,
}

/// First come, first served.
type Waiting = VecDeque<oneshot::Sender<JobLock>>;

/// One job's lock. Dropped, it goes to the next that waits for it.
#[must_use]
pub(crate) struct JobLock {
    locks: JobLocks,
    id: JobId,
}

/// A place in a job's queue. Dropped, the next one has it.
#[must_use]
pub(crate) enum Queued {
    /// It is its turn.
    Locked(JobLock),
    /// Others are before it.
    Waits(oneshot::Receiver<JobLock>),
}

impl Queued {
    /// The lock, if nobody is before it any more.
    pub(super) fn now(self) -> Result<JobLock, Self> {
        match self {
            Self::Locked(lock) => Ok(lock),
            Self::Waits(mut given) => given.try_recv().map_err(|_| Self::Waits(given)),
        }
    }

    /// Waits for those before it. None if the queue went, as no queue does while somebody waits in it.
    pub(crate) async fn locked(self) -> Option<JobLock> {
        match self {
            Self::Locked(lock) => Some(lock),
            Self::Waits(given) => given.await.ok(),
        }
    }
}

impl JobLocks {
    /// Locks a job, unless it is locked.
    pub(super) fn try_take(&self, id: &JobId) -> Option<JobLock> {
        use std::collections::hash_map::Entry;
        match self.jobs.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Waiting::new());
                Some(JobLock { locks: self.clone(), id: id.clone() })
            }
        }
    }

    /// Takes a place in a job's queue at once: after all who have its lock or wait for it.
    pub(crate) fn queue(&self, id: &JobId) -> Queued {
        use std::collections::hash_map::Entry;
        match self.jobs.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()) {
            Entry::Occupied(mut locked) => {
                let (give, given) = oneshot::channel();
                locked.get_mut().push_back(give);
                Queued::Waits(given)
            }
            Entry::Vacant(free) => {
                free.insert(Waiting::new());
                Queued::Locked(JobLock { locks: self.clone(), id: id.clone() })
            }
        }
    }

    /// Locks a job, after all who have its lock or wait for it.
    pub(super) async fn take(&self, id: &JobId) -> JobLock {
        loop {
            if let Some(lock) = self.queue(id).locked().await {
                return lock;
            }
        }
    }

    /// Who is next for a job; if nobody is, it is locked no more.
    fn next(&self, id: &JobId) -> Option<oneshot::Sender<JobLock>> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = jobs.get_mut(id)?;
        while let Some(next) = waiting.pop_front() {
            if !next.is_closed() {
                return Some(next);
            }
        }
        jobs.remove(id);
        None
    }
}

impl Drop for JobLock {
    fn drop(&mut self) {
        if let Some(next) = self.locks.next(&self.id) {
            // Whoever stops waiting at this moment drops what it is given, and so hands it on.
            let _ = next.send(Self { locks: self.locks.clone(), id: self.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn id(text: &str) -> JobId {
        JobId::new(text).unwrap()
    }

    #[test]
    fn one_at_a_time_in_order_and_whoever_stops_waiting_is_passed_over() {
        let locks = JobLocks::default();
        let first = locks.try_take(&id("a")).unwrap();
        assert!(locks.try_take(&id("a")).is_none());
        assert!(locks.try_take(&id("b")).is_some(), "another job");
        let waiting_id = id("a");
        let mut second = Box::pin(locks.take(&waiting_id));
        let mut gone = Box::pin(locks.take(&waiting_id));
        let mut third = Box::pin(locks.take(&waiting_id));
        for waiting in [&mut second, &mut gone, &mut third] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(gone);
        drop(first);
        assert!(third.as_mut().now_or_never().is_none(), "the second is before it");
        let held = second.now_or_never().unwrap();
        drop(held);
        let held = third.now_or_never().unwrap();
        drop(held);
        assert!(locks.jobs.lock().unwrap().is_empty(), "nothing is left of it");
    }

    #[test]
    fn a_place_is_taken_when_it_is_asked_for_and_not_when_it_is_waited_for() {
        let locks = JobLocks::default();
        let first = locks.try_take(&id("a")).unwrap();
        let (second, third) = (locks.queue(&id("a")), locks.queue(&id("a")));
        let third = third.now().err().unwrap();
        drop(first);
        let third = third.now().err().expect("the second asked before it");
        drop(second.now().ok().expect("nobody is before it"));
        drop(third.now().ok().expect("the second has ended"));
        assert!(locks.jobs.lock().unwrap().is_empty());
    }

    #[test]
    fn what_was_given_to_one_that_is_gone_goes_on() {
        let locks = JobLocks::default();
        let first = locks.try_take(&id("a")).unwrap();
        let waiting_id = id("a");
        let mut second = Box::pin(locks.take(&waiting_id));
        let mut third = Box::pin(locks.take(&waiting_id));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        // It has been given the job, and never looks.
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(locks.jobs.lock().unwrap().is_empty());
    }
}
