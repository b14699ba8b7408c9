//! The thread that watches the time for all paces of a process.
//!
//! A thread, since its sleeps must be exact: an async timer is up to a millisecond late. One for all of them, since a process
//! may call for a thousand accounts. Each pace says when it is to be looked at next; the thread sleeps until the first of
//! these times, and holds no lock of its own while it looks at a pace.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::now;
use super::platform::Platform;
use super::waiting::Shared;
use crate::locks::{Condvar, Mutex, MutexGuard, thread};

/// Watches the time for paces. Clones are the same; its thread ends with the last of them and of its paces.
#[derive(Clone)]
pub struct Pacer(Arc<Running>);

/// The thread runs as long as there is one of these.
struct Running {
    times: Arc<Times>,
    platform: Option<Platform>,
}

/// What is to be looked at.
pub(super) enum Due {
    Pace(Arc<Shared>),
    /// The limit above all of them.
    Platform(Platform),
}

/// In place of a pace's number: that of the limit above them. It comes first where both are due in the same instant.
pub(super) const PLATFORM: u64 = 0;

/// When each pace is to be looked at.
#[derive(Default)]
pub(super) struct Times {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By time and by the pace's number: each stands here once, or not at all.
    due: BTreeMap<(Instant, u64), Due>,
    /// Numbers given to paces.
    numbers: u64,
    thread: Thread,
}

/// What the thread does.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Thread {
    /// It looks at a pace, and then at the times.
    #[default]
    Looks,
    SleepsUntil(Instant),
    /// No pace is to be looked at.
    SleepsUntilWoken,
    /// Nobody is left who could have paces.
    Ends,
}

impl Pacer {
    /// Starts the thread.
    ///
    /// # Panics
    /// If the system has no thread left: a process that cannot start one cannot work.
    #[must_use]
    pub fn start() -> Self {
        Self::below(None)
    }

    /// The same for paces that may together make so many calls a second, whatever each may.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn below(platform_per_second: Option<f64>) -> Self {
        let times = Arc::<Times>::default();
        let watched = times.clone();
        thread::Builder::new()
            .name("pacer".into())
            .spawn(move || watched.watch())
            .expect("a process that cannot start one thread cannot work");
        let platform = platform_per_second.map(|rate| Platform::new(rate, times.clone(), now()));
        Self(Arc::new(Running { times, platform }))
    }

    pub(super) fn times(&self) -> &Arc<Times> {
        &self.0.times
    }

    pub(super) fn platform(&self) -> Option<Platform> {
        self.0.platform.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.times.state().thread = Thread::Ends;
        self.times.changed.notify_one();
    }
}

impl Times {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is an insertion or a removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of one more pace.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.state();
        state.numbers += 1;
        state.numbers
    }

    /// That pace is to be looked at then, and not at the time that was `before`.
    pub(super) fn look_at(&self, number: u64, before: Option<Instant>, at: Instant, due: Due) {
        let mut state = self.state();
        let moved = before.and_then(|before| state.due.remove(&(before, number)));
        state.due.insert((at, number), due);
        let is_first = match state.thread {
            Thread::SleepsUntil(until) => at < until,
            Thread::SleepsUntilWoken => true,
            Thread::Looks | Thread::Ends => false,
        };
        drop(state);
        drop(moved);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// It is not to be looked at any more.
    pub(super) fn forget(&self, number: u64, at: Instant) {
        // A pace is not dropped under the lock.
        let forgotten = self.state().due.remove(&(at, number));
        drop(forgotten);
    }

    /// The thread: sleeps until a pace is to be looked at.
    fn watch(&self) {
        let mut state = self.state();
        while state.thread != Thread::Ends {
            let first = state.due.first_entry();
            let Some(first) = first else {
                state.thread = Thread::SleepsUntilWoken;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.looks();
                continue;
            };
            let until = first.key().0;
            let rest = until.saturating_duration_since(now());
            if rest.is_zero() {
                let due = first.remove();
                drop(state);
                match due {
                    Due::Pace(shared) => shared.is_due(until),
                    Due::Platform(platform) => platform.is_due(until, now()),
                }
                state = self.state();
                continue;
            }
            state.thread = Thread::SleepsUntil(until);
            (state, _) = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
            state.looks();
        }
        // The limit above them stands here, and holds this.
        let left_over = std::mem::take(&mut state.due);
        drop(state);
        drop(left_over);
    }
}

impl State {
    /// It was woken, perhaps for its end.
    fn looks(&mut self) {
        if self.thread != Thread::Ends {
            self.thread = Thread::Looks;
        }
    }
}
