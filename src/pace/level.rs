//! One of Stripe's rate limits, an endpoint's or the account's: what it allows, as far as is known, and what was used of it.

use std::time::{Duration, Instant};

use super::adapt::Adapt;
use super::spacing::Spacing;
use super::window::Window;

/// How late a permit may come and still be made up for: what a busy machine is late by at times.
const LATE_MAX: Duration = Duration::from_millis(20);

/// The limit, and its calls.
pub(super) struct Level {
    spacing: Spacing,
    window: Window,
    adapt: Adapt,
    paused_until: Option<Instant>,
}

impl Level {
    /// For so many calls a second.
    pub(super) fn new(per_second: f64, now: Instant) -> Self {
        Self {
            spacing: Spacing::new(per_second, LATE_MAX, now),
            window: Window::default(),
            adapt: Adapt::new(per_second),
            paused_until: None,
        }
    }

    /// Calls per second, adapted to what Stripe accepts.
    pub(super) fn current(&self) -> f64 {
        self.adapt.current()
    }

    /// Until when nobody calls, after a 429.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| now < *until)
    }

    /// Nobody calls before then.
    pub(super) fn pause_until(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |already| already.max(until)));
    }

    /// Time alone may have raised the rate.
    pub(super) fn tick(&mut self, now: Instant) {
        self.adapt.tick(now);
        self.spacing.adapt(self.adapt.current(), now);
    }

    /// Whether the last second has room for one more call; if not, when to ask again. `None`: when one has left.
    pub(super) fn room(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        self.window.room(self.adapt.current(), now)
    }

    /// Whether the next call's time has come, which is then taken; if not, when it comes.
    pub(super) fn take_time(&mut self, now: Instant) -> Result<(), Instant> {
        self.spacing.check(now)
    }

    /// A call may go.
    pub(super) fn granted(&mut self) {
        self.window.granted();
    }

    /// The call leaves, so much later than it might have.
    pub(super) fn left(&mut self, number: u64, late: Duration, now: Instant) {
        self.window.left(number, now);
        self.window.was_late(late, now);
        self.adapt.left();
    }

    /// The call never left.
    pub(super) fn never_left(&mut self) {
        self.window.never_left();
    }

    /// Something else came later than it was due.
    pub(super) fn was_late(&mut self, late: Duration, now: Instant) {
        self.window.was_late(late, now);
    }

    /// A limiter turned that call away. Answers when it had left, if that is still known.
    pub(super) fn turned_away(&mut self, number: u64) -> Option<Instant> {
        self.window.limited(number)
    }

    /// It was this limit that turned the call away which left then. Answers how long nobody calls, if this is news.
    pub(super) fn slow_down(&mut self, left: Instant, now: Instant) -> Option<Duration> {
        let pause = self.adapt.limited(left, now, &self.window)?;
        self.pause_until(now + pause);
        Some(pause)
    }

    /// Calls that left in the last second.
    pub(super) fn used(&self, now: Instant) -> usize {
        self.window.in_last_second(now)
    }
}
