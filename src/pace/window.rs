//! The strict guard: when the latest calls really left for Stripe.
//!
//! Grants are evenly spaced, but Stripe counts calls when they arrive, and a call may leave late: a new connection,
//! a busy machine. The dangerous order is a call that is delayed and later ones that are not: then a second holds
//! too many although the grants were even. So a grant is given only while fewer than a second's calls have left
//! within the last second and a margin, *those counted in that are granted but have not left yet*.
//!
//! Why no second ever holds more than that many departures: take the one among them that was granted last. When it
//! was granted, each of the others had either left, less than a second before the last of them left and hence less
//! than a second before that moment, or had not left yet. All were counted, so it would not have been granted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::simulation::{Mutation, is_broken};

/// What the way from here to the server may differ by between two calls, on a machine that is never late: 2.5 ms in a
/// second. Below the spacing's own slack, so that the spacing decides, and what was late is made up for.
const MARGIN_MIN: f64 = 0.0025;
/// The same on a machine that is late at times: a stand-in for Stripe, or a proxy, will then be late as well.
const MARGIN_MAX: f64 = 0.0045;
/// Later than this, in seconds, a call may meet the limit though the pace keeps below it.
const UNEVEN: f64 = 0.002;
/// In how many seconds the worst lateness is forgotten by half.
const LATENESS_HALVES_SECONDS: f64 = 5.0;
/// How long departures are remembered at least: a 429 is judged by the second before its call left, and comes
/// some time after it.
const KEPT: Duration = Duration::from_secs(3);

/// A call that left.
#[derive(Debug, Clone, Copy)]
struct Departure {
    number: u64,
    at: Instant,
    /// A limiter turned it away.
    limited: bool,
}

/// The departures of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Granted, not left yet.
    under_way: usize,
    left: VecDeque<Departure>,
    /// The worst that something was late by, in seconds, and when: it fades.
    late: f64,
    late_at: Option<Instant>,
}

impl Window {
    /// A grant is given; its call will leave, or be given up.
    pub(super) fn granted(&mut self) {
        self.under_way += 1;
    }

    /// The call leaves now.
    pub(super) fn left(&mut self, number: u64, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        // Times are taken before the lock is; the order of departures is kept.
        let at = self.left.back().map_or(now, |last| last.at.max(now));
        self.left.push_back(Departure { number, at, limited: false });
    }

    /// The call was given up before it left.
    pub(super) fn never_left(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether one more may be granted for this rate; if not, when to ask again. `None`: when one of those that were
    /// granted has left.
    pub(super) fn room(&mut self, per_second: f64, now: Instant) -> Result<(), Option<Instant>> {
        let calls = super::whole(per_second).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
        let span = Duration::from_secs_f64(calls as f64 / per_second * (1.0 + self.margin(now)));
        self.forget(now, span);
        let under_way = if is_broken(Mutation::ForgetUnderWay) { 0 } else { self.under_way };
        let Some(free) = calls.checked_sub(under_way).filter(|free| *free > 0) else { return Err(None) };
        let Some(index) = self.left.len().checked_sub(free) else { return Ok(()) };
        let from = self.left[index].at + span;
        if from <= now { Ok(()) } else { Err(Some(from)) }
    }

    /// Something came so much later than it was due: a wake-up, a departure.
    pub(super) fn was_late(&mut self, late: Duration, now: Instant) {
        let late = late.as_secs_f64();
        if late > self.lateness(now) {
            self.late = late.min(MARGIN_MAX);
            self.late_at = Some(now);
        }
    }

    /// Whether this machine has been late of late: then calls arrive unevenly.
    pub(super) fn is_uneven(&self, now: Instant) -> bool {
        self.lateness(now) > UNEVEN
    }

    fn lateness(&self, now: Instant) -> f64 {
        let Some(at) = self.late_at else { return 0.0 };
        self.late * 0.5_f64.powf(now.saturating_duration_since(at).as_secs_f64() / LATENESS_HALVES_SECONDS)
    }

    fn margin(&self, now: Instant) -> f64 {
        (MARGIN_MIN + self.lateness(now)).min(MARGIN_MAX)
    }

    /// That call was turned away. Answers when it had left, if that is still known.
    pub(super) fn limited(&mut self, number: u64) -> Option<Instant> {
        let departure = self.left.iter_mut().rev().find(|departure| departure.number == number)?;
        departure.limited = true;
        Some(departure.at)
    }

    /// How many calls that left in the second before `until` were let through, as far as is known, and when the first
    /// of them left. One without an answer yet has most probably been let through: a limiter answers at once.
    pub(super) fn let_through(&self, until: Instant) -> (usize, Option<Instant>) {
        let mut count = 0;
        let mut first = None;
        for departure in self.left.iter().rev() {
            if until.saturating_duration_since(departure.at) >= Duration::from_secs(1) {
                break;
            }
            if departure.at < until && !departure.limited {
                count += 1;
                first = Some(departure.at);
            }
        }
        (count, first)
    }

    /// Calls that left in the last second: the rate that is used.
    pub(super) fn in_last_second(&self, now: Instant) -> usize {
        let recent =
            |departure: &&Departure| now.saturating_duration_since(departure.at) < Duration::from_secs(1);
        self.left.iter().rev().take_while(recent).count()
    }

    fn forget(&mut self, now: Instant, span: Duration) {
        let kept = KEPT.max(span);
        while self.left.front().is_some_and(|first| now.saturating_duration_since(first.at) > kept) {
            self.left.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A second and the least margin.
    const SECOND: Duration = Duration::from_micros(1_002_500);

    /// One grant, and its call leaves.
    fn call(window: &mut Window, number: u64, at: Instant) {
        window.granted();
        window.left(number, at);
    }

    #[test]
    fn a_late_departure_holds_the_grant_a_second_after_it() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.granted();
        for number in 1..25 {
            assert_eq!(window.room(25.0, start + ms(40 * number)), Ok(()));
            call(&mut window, number, start + ms(40 * number));
        }
        // The first was granted at the start but has not left. It may leave at any moment, and then the second holds
        // it and the 24 others, until the first of those is a second ago.
        assert_eq!(window.room(25.0, start + ms(1001)), Err(Some(start + ms(40) + SECOND)));
        window.left(0, start + ms(1020));
        assert_eq!(window.room(25.0, start + ms(1020)), Err(Some(start + ms(40) + SECOND)));
        assert_eq!(window.room(25.0, start + ms(40) + SECOND), Ok(()));
    }

    #[test]
    fn calls_that_have_not_left_fill_it_until_they_leave_or_are_given_up() {
        let (mut window, now) = (Window::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(window.room(10.0, now), Ok(()));
            window.granted();
        }
        assert_eq!(window.room(10.0, now + ms(60_000)), Err(None));
        window.never_left();
        assert_eq!(window.room(10.0, now + ms(60_000)), Ok(()));
    }

    #[test]
    fn a_rate_below_one_keeps_its_whole_period() {
        let (mut window, start) = (Window::default(), Instant::now());
        call(&mut window, 0, start);
        assert_eq!(window.room(0.5, start + ms(1500)), Err(Some(start + 2 * SECOND)));
        assert_eq!(window.room(0.5, start + 2 * SECOND), Ok(()));
    }

    #[test]
    fn what_was_turned_away_was_not_let_through() {
        let (mut window, start) = (Window::default(), Instant::now());
        for number in 0..20 {
            call(&mut window, number, start + ms(100 * number));
        }
        window.limited(15);
        let (count, first) = window.let_through(start + ms(1900));
        assert_eq!((count, first), (8, Some(start + ms(1000))));
        assert_eq!(window.in_last_second(start + ms(1900)), 10);
    }
}
