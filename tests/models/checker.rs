//! A model, and how it is run: in many orders of its threads, as embosser's files are, and with a weakness that must be found.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::scheduler::{RandomScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, MaxSteps, Runner};

use super::time;

/// Orders that each model is run in.
const ORDERS: usize = 1000;
/// Steps of its threads that no model needs.
const STEPS_MAX: usize = 50_000;
/// Bytes of each thread's stack: unoptimised, the pace's frames are large.
const STACK: usize = 256 << 10;
/// The model is thread 0, and the first that it starts lets the time go on.
const TIME: usize = 1;

/// A primitive that misses something on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weakness {
    /// A condition variable lets go of the lock before it waits.
    WaitsLate,
    /// Who waits for news listens only from then on.
    ListensLate,
    /// What was given to somebody who had stopped waiting is gone.
    LosesWhatWasGiven,
    /// A lock that is tried is taken, whoever has it.
    LockIsTaken,
    /// Nobody who sleeps is woken.
    NeverWoken,
}

thread_local! {
    static WEAKNESS: Cell<Option<Weakness>> = const { Cell::new(None) };
}

pub(crate) fn is_weak(weakness: Weakness) -> bool {
    WEAKNESS.get() == Some(weakness)
}

pub(crate) struct Model {
    pub(crate) claim: &'static str,
    pub(crate) run: fn(),
    /// What must be found.
    pub(crate) weakness: Weakness,
}

impl Model {
    /// Whether it holds in all orders, and does not with its weakness.
    pub(crate) fn holds(&self) -> bool {
        let Self { claim, run, weakness } = self;
        let began = std::time::Instant::now();
        let failure = failure_of(*run, None);
        let found = failure_of(*run, Some(*weakness));
        match (&failure, &found) {
            (None, Some(_)) => println!("{claim}: ok, in {ORDERS} orders, {:.1?}", began.elapsed()),
            (Some(failure), _) => println!("{claim}: FAILED: {failure}"),
            (None, None) => println!("{claim}: FAILED: {weakness:?} is not found"),
        }
        failure.is_none() && found.is_some()
    }
}

/// Why some order failed, with the schedule that does so again.
fn failure_of(run: fn(), weakness: Option<Weakness>) -> Option<String> {
    WEAKNESS.set(weakness);
    let scheduler = TimeLast(RandomScheduler::new_from_seed(0x00e5_b055, ORDERS));
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let runner = Runner::new(scheduler, config);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            embosser::simulation::seed(Some(0));
            time::begin();
            let goes_on = shuttle::thread::spawn(time::goes_on);
            run();
            time::end();
            goes_on.join().unwrap();
        })
    }));
    WEAKNESS.set(None);
    let panic = ended.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// Any order of those who can run, and time only if nobody can.
struct TimeLast<S>(S);

impl<S: Scheduler> Scheduler for TimeLast<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.0.new_execution()
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        let others: Vec<&Task> =
            runnable.iter().copied().filter(|task| task.id() != TaskId::from(TIME)).collect();
        self.0.next_task(if others.is_empty() { runnable } else { &others }, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}
