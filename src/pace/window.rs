//! The strict guard: when the latest calls were really sent, so that no window of a second holds too many.
//!
//! Permits are evenly spaced when they are granted, but Stripe counts calls when they arrive, and a busy machine may
//! take a moment from the one to the other. The dangerous order is an early call that is delayed and later ones that
//! are not: then a window is too full although the grants were not. So the N-th next grant is measured from
//! when a call was *sent*, plus [`MARGIN`] for the way to the server.
//!
//! For a rate of R a second, N is R rounded down (at least 1) and any N + 1 sends span at least N / R + MARGIN.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What the delay from sending to arriving may differ by between two calls. Costs 0.4 % of the rate.
pub(super) const MARGIN: Duration = Duration::from_millis(4);
/// Sends that are remembered: a second's at the largest rate that may be configured.
const SENDS_MAX: usize = 100_001;

/// The latest sends, numbered.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The number of the first entry.
    first: u64,
    sends: VecDeque<Instant>,
}

impl Window {
    /// A permit is granted; until its call is sent, this moment stands for it. Answers its number.
    pub(super) fn granted(&mut self, now: Instant) -> u64 {
        if self.sends.len() == SENDS_MAX {
            self.sends.pop_front();
            self.first += 1;
        }
        self.sends.push_back(now);
        self.first + self.sends.len() as u64 - 1
    }

    /// The call of that permit goes out now.
    pub(super) fn sent(&mut self, number: u64, now: Instant) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.sends.get_mut(index)) {
            *entry = now;
        }
    }

    /// How long the next grant must wait for a limit of so many a second.
    pub(super) fn wait(&self, per_second: f64, now: Instant) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, below SENDS_MAX"
        )]
        let calls = (per_second.floor() as usize).clamp(1, SENDS_MAX - 1);
        #[expect(clippy::cast_precision_loss, reason = "a small whole number")]
        let span = Duration::from_secs_f64(calls as f64 / per_second) + MARGIN;
        let Some(index) = self.sends.len().checked_sub(calls) else { return Duration::ZERO };
        (self.sends[index] + span).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_but_n_is_measured_from_when_a_call_was_sent() {
        let mut window = Window::default();
        let start = Instant::now();
        let ms = Duration::from_millis;
        let first = window.granted(start);
        for call in 1..25 {
            assert_eq!(window.wait(25.0, start + ms(40 * call)), Duration::ZERO);
            window.granted(start + ms(40 * call));
        }
        assert_eq!(window.wait(25.0, start + ms(999)), ms(1) + MARGIN);
        // The first was granted then, but sent 30 ms later.
        window.sent(first, start + ms(30));
        assert_eq!(window.wait(25.0, start + ms(1000)), ms(30) + MARGIN);
        assert_eq!(window.wait(26.0, start + ms(1000)), Duration::ZERO, "the limit was not reached");
    }

    #[test]
    fn a_rate_below_one_keeps_its_whole_period() {
        let mut window = Window::default();
        let start = Instant::now();
        assert_eq!(window.wait(0.5, start), Duration::ZERO);
        window.granted(start);
        assert_eq!(window.wait(0.5, start + Duration::from_secs(1)), Duration::from_secs(1) + MARGIN);
    }
}
