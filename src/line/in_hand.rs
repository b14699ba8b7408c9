//! Which jobs are on the line: one of an id at a time, the others after it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::job::JobId;

/// The jobs that are held, each with those that wait for it. Clones share them.
#[derive(Clone, Default)]
pub(super) struct InHand {
    jobs: Arc<Mutex<HashMap<JobId, Waiting>>>,
}

/// First come, first served.
type Waiting = VecDeque<oneshot::Sender<Hold>>;

/// A job is in one hand only. Dropped, it goes to the next that waits for it.
#[must_use]
pub(super) struct Hold {
    in_hand: InHand,
    id: JobId,
}

impl InHand {
    /// Takes a job in hand, unless another has it.
    pub(super) fn try_take(&self, id: &JobId) -> Option<Hold> {
        use std::collections::hash_map::Entry;
        match self.jobs.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(Waiting::new());
                Some(Hold { in_hand: self.clone(), id: id.clone() })
            }
        }
    }

    /// Takes a job in hand, after all who have it or wait for it.
    pub(super) async fn take(&self, id: &JobId) -> Hold {
        loop {
            if let Some(hold) = self.try_take(id) {
                return hold;
            }
            let (give, given) = oneshot::channel();
            match self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
                Some(waiting) => waiting.push_back(give),
                // Given back this very moment.
                None => continue,
            }
            if let Ok(hold) = given.await {
                return hold;
            }
        }
    }

    /// Who is next for a job; if nobody is, it is in no hand any more.
    fn next(&self, id: &JobId) -> Option<oneshot::Sender<Hold>> {
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

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(next) = self.in_hand.next(&self.id) {
            // Whoever stops waiting at this moment drops what it is given, and so hands it on.
            let _ = next.send(Self { in_hand: self.in_hand.clone(), id: self.id.clone() });
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
        let in_hand = InHand::default();
        let first = in_hand.try_take(&id("a")).unwrap();
        assert!(in_hand.try_take(&id("a")).is_none());
        assert!(in_hand.try_take(&id("b")).is_some(), "another job");
        let waiting_id = id("a");
        let mut second = Box::pin(in_hand.take(&waiting_id));
        let mut gone = Box::pin(in_hand.take(&waiting_id));
        let mut third = Box::pin(in_hand.take(&waiting_id));
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
        assert!(in_hand.jobs.lock().unwrap().is_empty(), "nothing is left of it");
    }

    #[test]
    fn what_was_given_to_one_that_is_gone_goes_on() {
        let in_hand = InHand::default();
        let first = in_hand.try_take(&id("a")).unwrap();
        let waiting_id = id("a");
        let mut second = Box::pin(in_hand.take(&waiting_id));
        let mut third = Box::pin(in_hand.take(&waiting_id));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        drop(first);
        // It has been given the job, and never looks.
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(in_hand.jobs.lock().unwrap().is_empty());
    }
}
