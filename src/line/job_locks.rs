//! Which jobs are on the line: one of an id at a time, the others after it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::job::JobId;

/// The jobs that are locked, each with those that wait for it. Clones share them.
#[derive(Clone, Default)]
pub(super) struct JobLocks {
    jobs: Arc<Mutex<HashMap<JobId, Waiting>>>,
}

/// First come, first served.
type Waiting = VecDeque<oneshot::Sender<JobLock>>;

/// One job's lock. Dropped, it goes to the next that waits for it.
#[must_use]
pub(super) struct JobLock {
    locks: JobLocks,
    id: JobId,
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

    /// Locks a job, after all who have its lock or wait for it.
    pub(super) async fn take(&self, id: &JobId) -> JobLock {
        loop {
            if let Some(lock) = self.try_take(id) {
                return lock;
            }
            let (give, given) = oneshot::channel();
            match self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
                Some(waiting) => waiting.push_back(give),
                // Given back this very moment.
                None => continue,
            }
            if let Ok(lock) = given.await {
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
