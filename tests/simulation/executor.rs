//! Runs all tasks of a simulation on one thread, the next one by the seed's choice; ends a process's tasks where it crashes, and leaves
//! them alone while it is suspended.
//!
//! Time is tokio's, paused: it goes on to the next timer when no task can run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// One life of a process, from its start to its end or crash.
pub(crate) type Life = usize;

/// What belongs to no process: Stripe, the wire, and what brings trouble.
pub(crate) const WORLD: Life = 0;

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Executor>>> = const { RefCell::new(None) };
}

/// The tasks.
pub(crate) struct Executor {
    tasks: RefCell<Vec<Option<Slot>>>,
    lives: RefCell<Vec<State>>,
    ready: Arc<Ready>,
    dice: RefCell<StdRng>,
    running: Cell<Life>,
    polls: Cell<u64>,
    polls_max: u64,
    /// Why the simulation ends early.
    verdict: RefCell<Option<String>>,
    is_over: Cell<bool>,
}

struct Slot {
    life: Life,
    task: Task,
    waker: Arc<TaskWaker>,
}

#[derive(Default)]
struct State {
    polls: u64,
    crashes_after: Option<u64>,
    suspends_after: Option<(u64, Duration)>,
    is_suspended: bool,
    is_dead: Arc<AtomicBool>,
    /// Tasks that could run if it were not suspended.
    parked: Vec<usize>,
    ended: Vec<Waker>,
}

#[derive(Default)]
struct Ready {
    /// In order: whoever wakes several at once (tokio's watch) does so in an order of its own chance.
    tasks: Mutex<BTreeSet<usize>>,
    root: Mutex<Option<Waker>>,
}

struct TaskWaker {
    id: usize,
    is_queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::SeqCst) {
            self.ready.tasks.lock().unwrap().insert(self.id);
            if let Some(root) = &*self.ready.root.lock().unwrap() {
                root.wake_by_ref();
            }
        }
    }
}

/// The executor of this thread's simulation.
pub(crate) fn current() -> Rc<Executor> {
    CURRENT.with_borrow(Clone::clone).expect("a simulation runs")
}

/// Starts a task of the world's.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    current().spawn(WORLD, task);
}

impl Executor {
    pub(crate) fn start(seed: u64, polls_max: u64) -> Rc<Self> {
        let executor = Rc::new(Self {
            tasks: RefCell::default(),
            lives: RefCell::new(vec![State::default()]),
            ready: Arc::default(),
            dice: RefCell::new(StdRng::seed_from_u64(seed)),
            running: Cell::new(WORLD),
            polls: Cell::new(0),
            polls_max,
            verdict: RefCell::default(),
            is_over: Cell::new(false),
        });
        CURRENT.with_borrow_mut(|current| *current = Some(executor.clone()));
        let of_embosser = Rc::downgrade(&executor);
        embosser::simulation::spawn_by(Some(Rc::new(move |task| {
            if let Some(executor) = of_embosser.upgrade() {
                executor.spawn(executor.running.get(), task);
            }
        })));
        executor
    }

    pub(crate) fn spawn(&self, life: Life, task: impl Future<Output = ()> + 'static) {
        if self.lives.borrow()[life].is_dead.load(Ordering::SeqCst) {
            return;
        }
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.len();
        let waker = Arc::new(TaskWaker { id, is_queued: AtomicBool::new(false), ready: self.ready.clone() });
        tasks.push(Some(Slot { life, task: Box::pin(task), waker: waker.clone() }));
        drop(tasks);
        waker.wake();
    }

    /// A new life; what says that it was killed.
    pub(crate) fn begin_life(&self) -> (Life, Arc<AtomicBool>) {
        let mut lives = self.lives.borrow_mut();
        let state = State::default();
        let is_dead = state.is_dead.clone();
        lives.push(state);
        (lives.len() - 1, is_dead)
    }

    /// It crashes once its tasks have run so often from now.
    pub(crate) fn crash_after(&self, life: Life, polls: u64) {
        let state = &mut self.lives.borrow_mut()[life];
        state.crashes_after = Some(state.polls + polls);
    }

    /// It is suspended for that long once its tasks have run so often from now.
    pub(crate) fn suspend_after(&self, life: Life, polls: u64, rest: Duration) {
        let state = &mut self.lives.borrow_mut()[life];
        state.suspends_after = Some((state.polls + polls, rest));
    }

    pub(crate) fn is_dead(&self, life: Life) -> bool {
        self.lives.borrow()[life].is_dead.load(Ordering::SeqCst)
    }

    /// Resolves when it has crashed or ended.
    pub(crate) async fn ended(&self, life: Life) {
        std::future::poll_fn(|context| {
            let state = &mut self.lives.borrow_mut()[life];
            if state.is_dead.load(Ordering::SeqCst) {
                return Poll::Ready(());
            }
            state.ended.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Nothing of it runs for so long.
    fn suspend(&self, life: Life, rest: Duration) {
        self.lives.borrow_mut()[life].is_suspended = true;
        let executor = current();
        self.spawn(WORLD, async move {
            tokio::time::sleep(rest).await;
            executor.resume(life);
        });
    }

    /// It runs on, and nothing of this kind is to come.
    pub(crate) fn calm(&self, life: Life) {
        {
            let state = &mut self.lives.borrow_mut()[life];
            (state.crashes_after, state.suspends_after) = (None, None);
        }
        self.resume(life);
    }

    fn resume(&self, life: Life) {
        let parked = {
            let state = &mut self.lives.borrow_mut()[life];
            state.is_suspended = false;
            std::mem::take(&mut state.parked)
        };
        self.ready.tasks.lock().unwrap().extend(parked);
        if let Some(root) = &*self.ready.root.lock().unwrap() {
            root.wake_by_ref();
        }
    }

    /// Ends a life with all its tasks, wherever they are.
    pub(crate) fn kill(&self, life: Life) {
        let ended = {
            let state = &mut self.lives.borrow_mut()[life];
            state.is_dead.store(true, Ordering::SeqCst);
            std::mem::take(&mut state.ended)
        };
        let of_life = |slot: &mut Option<Slot>| slot.as_ref().is_some_and(|slot| slot.life == life);
        let dropped: Vec<_> = {
            let mut tasks = self.tasks.borrow_mut();
            tasks.iter_mut().filter_map(|slot| of_life(slot).then(|| slot.take()).flatten()).collect()
        };
        drop(dropped);
        ended.into_iter().for_each(Waker::wake);
    }

    /// The simulation has come to its end.
    pub(crate) fn over(&self) {
        self.is_over.set(true);
    }

    /// Something is as it must never be: nothing more runs.
    pub(crate) fn fail(&self, why: String) {
        self.verdict.borrow_mut().get_or_insert(why);
    }

    /// The life whose task runs.
    pub(crate) fn running(&self) -> Life {
        self.running.get()
    }

    pub(crate) fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Runs everything to the end; why it failed, if it did.
    pub(crate) async fn run(self: &Rc<Self>) -> Result<(), String> {
        tokio::task::unconstrained(std::future::poll_fn(|context| self.poll_all(context))).await;
        let tasks: Vec<_> = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        embosser::simulation::spawn_by(None);
        CURRENT.with_borrow_mut(|current| *current = None);
        self.verdict.borrow_mut().take().map_or(Ok(()), Err)
    }

    fn poll_all(&self, context: &Context<'_>) -> Poll<()> {
        *self.ready.root.lock().unwrap() = Some(context.waker().clone());
        loop {
            if self.is_over.get() || self.verdict.borrow().is_some() {
                return Poll::Ready(());
            }
            let Some(id) = self.choose() else { return Poll::Pending };
            self.poll_one(id);
            self.polls.set(self.polls.get() + 1);
            if self.polls.get() > self.polls_max {
                self.fail(format!("it does not come to an end: {} steps", self.polls_max));
            }
        }
    }

    fn choose(&self) -> Option<usize> {
        let mut ready = self.ready.tasks.lock().unwrap();
        match ready.len() {
            0 => None,
            count => {
                let chosen = self.dice.borrow_mut().random_range(0..count);
                let chosen = ready.iter().nth(chosen).copied()?;
                ready.take(&chosen)
            }
        }
    }

    fn poll_one(&self, id: usize) {
        let Some(mut slot) = self.tasks.borrow_mut()[id].take() else { return };
        let life = slot.life;
        let suspends = {
            let state = &mut self.lives.borrow_mut()[life];
            state.suspends_after.take_if(|(after, _)| state.polls >= *after)
        };
        if let Some((_, rest)) = suspends {
            self.suspend(life, rest);
        }
        let crashes = {
            let state = &mut self.lives.borrow_mut()[life];
            if state.is_suspended {
                state.parked.push(id);
                None
            } else {
                state.polls += 1;
                Some(state.crashes_after.is_some_and(|after| state.polls > after))
            }
        };
        let Some(crashes) = crashes else {
            self.tasks.borrow_mut()[id] = Some(slot);
            return;
        };
        if crashes {
            self.tasks.borrow_mut()[id] = Some(slot);
            self.kill(life);
            return;
        }
        slot.waker.is_queued.store(false, Ordering::SeqCst);
        let waker = Waker::from(slot.waker.clone());
        let before = self.running.replace(life);
        let polled = slot.task.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() && !self.is_dead(life) {
            self.tasks.borrow_mut()[id] = Some(slot);
        } else {
            drop(slot);
        }
        self.running.set(before);
    }
}
