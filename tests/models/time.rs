//! In place of `tokio::time`: it stands still while any thread can run, and then goes on to the next timer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
pub use std::time::Duration;

use futures_util::task::AtomicWaker;
use shuttle::sync::{Condvar, Mutex};

use super::checker::{Weakness, is_weak};

/// When each model begins.
static BEGINS: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

thread_local! {
    // All threads of a model are run on one.
    static CLOCK: RefCell<Clock> = RefCell::default();
}

#[derive(Default)]
struct Clock {
    now: Duration,
    number: u64,
    timers: BTreeMap<(Instant, u64), Box<dyn FnOnce()>>,
    is_over: bool,
    /// Wakes whoever lets the time go on.
    changed: Option<Arc<(Mutex<()>, Condvar)>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(std::time::Instant);

impl Default for Instant {
    fn default() -> Self {
        Self(*BEGINS)
    }
}

impl Instant {
    pub fn now() -> Self {
        Self(*BEGINS + CLOCK.with_borrow(|clock| clock.now))
    }

    pub fn into_std(self) -> std::time::Instant {
        self.0
    }

    pub fn elapsed(&self) -> Duration {
        Self::now().0.saturating_duration_since(self.0)
    }

    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

impl From<std::time::Instant> for Instant {
    fn from(instant: std::time::Instant) -> Self {
        Self(instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rest: Duration) -> Self {
        Self(self.0 + rest)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rest: Duration) {
        self.0 += rest;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Something that is done at a moment, unless this is dropped before.
pub(crate) struct Timer {
    at: Instant,
    number: u64,
}

impl Timer {
    pub(crate) fn set(at: Instant, then: Box<dyn FnOnce()>) -> Self {
        let (number, changed) = CLOCK.with_borrow_mut(|clock| {
            clock.number += 1;
            clock.timers.insert((at, clock.number), then);
            (clock.number, clock.changed.clone())
        });
        wake(changed);
        Self { at, number }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.at <= Instant::now()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let dropped = CLOCK.with_borrow_mut(|clock| clock.timers.remove(&(self.at, self.number)));
        drop(dropped);
    }
}

fn wake(changed: Option<Arc<(Mutex<()>, Condvar)>>) {
    let changed = changed.expect("a model runs");
    drop(changed.0.lock().unwrap());
    changed.1.notify_one();
}

/// A model begins.
pub(crate) fn begin() {
    let before = CLOCK.take();
    drop(before);
    CLOCK.with_borrow_mut(|clock| clock.changed = Some(Arc::default()));
}

/// It is over.
pub(crate) fn end() {
    let changed = CLOCK.with_borrow_mut(|clock| {
        clock.is_over = true;
        clock.changed.clone()
    });
    wake(changed);
}

/// The thread that lets time go on. It runs only where no other can (`checker`).
pub(crate) fn goes_on() {
    let changed = CLOCK.with_borrow(|clock| clock.changed.clone()).expect("a model runs");
    loop {
        let mut waits = changed.0.lock().unwrap();
        while CLOCK.with_borrow(|clock| !clock.is_over && clock.timers.is_empty()) {
            waits = changed.1.wait(waits).unwrap();
        }
        drop(waits);
        let all_due = CLOCK.with_borrow_mut(|clock| {
            let next = clock.timers.first_key_value()?.0.0;
            clock.now = clock.now.max(next.0 - *BEGINS);
            let later = clock.timers.split_off(&(next, u64::MAX));
            Some(std::mem::replace(&mut clock.timers, later))
        });
        // It is over, and nobody sleeps any more.
        let Some(all_due) = all_due else { return };
        all_due.into_values().for_each(|then| then());
    }
}

pub struct Sleep {
    until: Instant,
    timer: Option<Timer>,
    /// Who is woken.
    waker: Arc<AtomicWaker>,
}

pub fn sleep(rest: Duration) -> Sleep {
    sleep_until(Instant::now() + rest)
}

pub fn sleep_until(until: Instant) -> Sleep {
    Sleep { until, timer: None, waker: Arc::default() }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.until <= Instant::now() {
            self.timer = None;
            return Poll::Ready(());
        }
        self.waker.register(context.waker());
        if self.timer.is_none() {
            let waker = self.waker.clone();
            let wakes = move || {
                if !is_weak(Weakness::NeverWoken) {
                    waker.wake();
                }
            };
            self.timer = Some(Timer::set(self.until, Box::new(wakes)));
        }
        Poll::Pending
    }
}
