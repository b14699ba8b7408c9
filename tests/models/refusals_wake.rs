//! While Stripe says the same of everybody one job tries at a time, and all go on as soon as one is accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::future::block_on;
use shuttle::thread;

use super::refusals::{Meaning, Refusals, Whose};
use crate::checker::{Model, Weakness};

pub(crate) const MODEL: Model = Model {
    claim: "while Stripe refuses everybody one job tries at a time, and all go on once one is accepted",
    run: one_tries,
    weakness: Weakness::ListensLate,
};

const JOBS: usize = 3;
/// Tries that are refused before one is accepted.
const REFUSED: usize = 2;

fn one_tries() {
    let refusals = Arc::new(Refusals::new(1, None));
    assert_eq!(refusals.refused("same", "no", Whose::UnderWay, None), Meaning::FinalAndLast);
    let (tries, trying) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let waits = |number: usize| {
        let (refusals, tries, trying) = (refusals.clone(), tries.clone(), trying.clone());
        move || {
            while let Some(trial) = block_on(refusals.ready()) {
                assert_eq!(trying.fetch_add(1, Ordering::SeqCst), 0, "two try");
                thread::yield_now();
                trying.fetch_sub(1, Ordering::SeqCst);
                match tries.fetch_add(1, Ordering::SeqCst) {
                    // Without news: it was stopped.
                    0 if number == 0 => {}
                    tried if tried < REFUSED => {
                        let meaning = refusals.refused("same", "no", Whose::Trial, None);
                        assert_eq!(meaning, Meaning::Repeated);
                    }
                    _ => refusals.accepted(),
                }
                drop(trial);
            }
        }
    };
    let threads: Vec<_> = (0..JOBS).map(|number| thread::spawn(waits(number))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(refusals.repeated(), None);
}
