//! In place of `src/locks.rs`: the model checker's locks and threads, and a condition variable whose waits can end by time.

use std::sync::{Arc, LockResult};
use std::time::Duration;

use shuttle::sync;
pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread;

use super::checker::{Weakness, is_weak};
use super::time::{Instant, Timer};

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

pub(crate) struct MutexGuard<'m, T> {
    mutex: &'m Mutex<T>,
    /// None while it waits.
    held: Option<sync::MutexGuard<'m, T>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let held = Some(self.0.lock().expect("no model goes on after a panic"));
        Ok(MutexGuard { mutex: self, held })
    }
}

impl<T> std::ops::Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("nobody looks while it waits")
    }
}

impl<T> std::ops::DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("nobody looks while it waits")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(Arc<sync::Condvar>);

pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn wait<'m, T>(&self, mut guard: MutexGuard<'m, T>) -> LockResult<MutexGuard<'m, T>> {
        let mut held = guard.held.take().expect("it is held");
        if is_weak(Weakness::WaitsLate) {
            // Between the look and the wait anybody may change what was looked at.
            drop(held);
            thread::yield_now();
            held = guard.mutex.0.lock().expect("no model goes on after a panic");
        }
        guard.held = Some(self.0.wait(held).expect("no model goes on after a panic"));
        Ok(guard)
    }

    pub(crate) fn wait_timeout<'m, T>(
        &self,
        guard: MutexGuard<'m, T>,
        rest: Duration,
    ) -> LockResult<(MutexGuard<'m, T>, WaitTimeoutResult)> {
        if rest.is_zero() {
            return Ok((guard, WaitTimeoutResult(true)));
        }
        let condvar = self.0.clone();
        let timer = Timer::set(Instant::now() + rest, Box::new(move || condvar.notify_all()));
        let Ok(guard) = self.wait(guard) else { unreachable!("it ends well") };
        Ok((guard, WaitTimeoutResult(timer.is_due())))
    }
}
