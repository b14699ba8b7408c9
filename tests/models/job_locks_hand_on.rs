//! One job of an id at a time, in order; whoever stops waiting takes nothing along.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use shuttle::future::block_on;
use shuttle::thread;

use super::checker::{Model, Weakness};
use super::job::JobId;
use super::line::job_locks::JobLocks;

pub(crate) const MODEL: Model = Model {
    claim: "a job's lock is one job's at a time, and goes on to the next whoever stops waiting",
    run: hand_on,
    weakness: Weakness::LosesWhatWasGiven,
};

const JOBS: usize = 3;

fn hand_on() {
    let locks = JobLocks::default();
    let id = JobId::new("a").unwrap();
    let holders = Arc::new(AtomicUsize::new(0));
    let works = |locks: JobLocks| {
        let (id, holders) = (id.clone(), holders.clone());
        move || {
            let lock = block_on(async { locks.queue(&id).locked().await }).expect("no queue goes");
            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two have the lock");
            thread::yield_now();
            holders.fetch_sub(1, Ordering::SeqCst);
            drop(lock);
        }
    };
    let mut threads: Vec<_> = (0..JOBS).map(|_| thread::spawn(works(locks.clone()))).collect();
    let leaves = {
        let (locks, id, holders) = (locks.clone(), id.clone(), holders.clone());
        move || {
            let mut waits = Box::pin(locks.queue(&id).locked());
            thread::yield_now();
            if let Some(given) = waits.as_mut().now_or_never() {
                assert_eq!(holders.load(Ordering::SeqCst), 0, "two have the lock");
                drop(given);
            }
            thread::yield_now();
        }
    };
    threads.push(thread::spawn(leaves));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let free = locks.queue(&id).locked().now_or_never().flatten();
    assert!(free.is_some(), "nobody has the lock, and it is taken");
}
