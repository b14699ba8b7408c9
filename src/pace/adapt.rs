//! How the pace answers to Stripe's limiters: a pure state machine, time is an input.
//!
//! A rate limiter's 429 slows at once. The new rate is what Stripe accepted in the last second, less a little, so
//! that a limit at half the configured rate is found in one or two steps. Afterwards the rate creeps up in steps,
//! and each step that is turned away makes the next one wait twice as long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Stripe's limiters count within one second.
const WINDOW: Duration = Duration::from_secs(1);
/// Kept below what was found to be accepted.
const UNDER_CEILING: f64 = 0.97;
/// One step up, as a share of the configured rate.
const STEP: f64 = 0.02;
/// First wait before a step up.
const PROBE_WAIT_MIN: Duration = Duration::from_secs(5);
/// Longest wait before a step up: a limit that was raised is found within this.
const PROBE_WAIT_MAX: Duration = Duration::from_secs(160);
/// The lowest rate, as a share of the configured one.
const FLOOR: f64 = 0.05;

/// The adapted rate.
#[derive(Debug)]
pub(super) struct Adapt {
    configured: f64,
    current: f64,
    /// The calls of the last seconds that were not turned away, as far as is known: one without an answer yet has
    /// most probably been let through, for a limiter answers at once.
    accepted: VecDeque<Instant>,
    last_cut: Option<Instant>,
    last_step: Option<Instant>,
    probe_wait: Duration,
    probing: bool,
}

impl Adapt {
    /// Starts at the configured rate, in calls per second.
    pub(super) fn new(configured: f64) -> Self {
        Self {
            configured,
            current: configured,
            accepted: VecDeque::new(),
            last_cut: None,
            last_step: None,
            probe_wait: PROBE_WAIT_MIN,
            probing: false,
        }
    }

    /// Calls per second at this moment.
    pub(super) fn current(&self) -> f64 {
        self.current
    }

    /// A call is sent.
    pub(super) fn sent(&mut self, sent: Instant) {
        self.accepted.push_back(sent);
        while self.accepted.front().is_some_and(|first| sent.saturating_duration_since(*first) > 4 * WINDOW) {
            self.accepted.pop_front();
        }
    }

    /// A call that was sent then was turned away. Answers how long everybody must pause, if this is news.
    pub(super) fn limited(&mut self, sent: Instant, now: Instant) -> Option<Duration> {
        if let Some(index) = self.accepted.iter().rposition(|at| *at == sent) {
            self.accepted.remove(index);
        }
        if self.last_cut.is_some_and(|cut| sent <= cut) {
            return None;
        }
        let in_window = self
            .accepted
            .iter()
            .filter(|at| **at <= sent && sent.saturating_duration_since(**at) < WINDOW)
            .count();
        #[expect(clippy::cast_precision_loss, reason = "a second's calls are few")]
        let accepted = in_window as f64;
        let floor = self.configured * FLOOR;
        let estimate = accepted.clamp(self.current * 0.5, self.current);
        // The accepted calls came in a burst at the old rate; the window is clear one second after its start.
        let burst = (accepted / self.current).clamp(0.0, 0.95);
        if self.probing {
            self.probe_wait = (self.probe_wait * 2).min(PROBE_WAIT_MAX);
            self.probing = false;
        }
        self.current = (estimate * UNDER_CEILING).max(floor);
        self.last_cut = Some(now);
        self.last_step = Some(now);
        Some(WINDOW.mul_f64(1.0 - burst) + Duration::from_millis(60))
    }

    /// Time passes: steps up if it is time to. Answers whether the rate changed.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if self.current >= self.configured {
            return false;
        }
        let Some(last_step) = self.last_step else { return false };
        if now.saturating_duration_since(last_step) < self.probe_wait {
            return false;
        }
        // The step before this one held: no need to be as careful as before.
        if self.probing {
            self.probe_wait = (self.probe_wait / 2).max(PROBE_WAIT_MIN);
        }
        self.probing = true;
        self.last_step = Some(now);
        self.current = (self.current + self.configured * STEP).min(self.configured);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A strict limiter: at most `limit` accepted calls in any second.
    struct Limiter {
        limit: usize,
        accepted: VecDeque<Instant>,
    }

    impl Limiter {
        fn call(&mut self, at: Instant) -> bool {
            while self.accepted.front().is_some_and(|first| at - *first >= WINDOW) {
                self.accepted.pop_front();
            }
            let room = self.accepted.len() < self.limit;
            if room {
                self.accepted.push_back(at);
            }
            room
        }
    }

    /// Calls at the adapted rate for `seconds`; answers (accepted, turned away) after `settled` seconds.
    fn simulate(rate: f64, limit: usize, latency: Duration, seconds: u64, settled: u64) -> (u64, u64) {
        let start = Instant::now();
        let mut limiter = Limiter { limit, accepted: VecDeque::new() };
        let mut adapt = Adapt::new(rate);
        let mut answers: VecDeque<(Instant, Instant, bool)> = VecDeque::new();
        let (mut now, mut counted) = (start, (0, 0));
        while now - start < Duration::from_secs(seconds) {
            let mut paused = Duration::ZERO;
            while answers.front().is_some_and(|(answered, ..)| *answered <= now) {
                let (_, sent, accepted) = answers.pop_front().unwrap();
                if !accepted {
                    paused = paused.max(adapt.limited(sent, now).unwrap_or_default());
                }
            }
            adapt.tick(now);
            now += paused;
            adapt.sent(now);
            let accepted = limiter.call(now);
            answers.push_back((now + latency, now, accepted));
            if now - start >= Duration::from_secs(settled) {
                if accepted { counted.0 += 1 } else { counted.1 += 1 }
            }
            now += Duration::from_secs_f64(1.0 / (adapt.current() * 0.9955));
        }
        counted
    }

    #[test]
    fn half_the_configured_rate_is_found_within_ten_seconds_and_used() {
        for (rate, latency_ms) in [(25.0, 5), (25.0, 200), (100.0, 5), (100.0, 200), (1000.0, 50)] {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small whole number"
            )]
            let limit = (rate / 2.0) as usize;
            let (accepted, limited) = simulate(rate, limit, Duration::from_millis(latency_ms), 70, 10);
            let allowed = limit as u64 * 60;
            assert!(accepted * 100 >= allowed * 90, "{rate}/s, {latency_ms} ms: {accepted} of {allowed}");
            assert!(limited * 50 < accepted, "{rate}/s, {latency_ms} ms: {limited} turned away");
        }
    }

    #[test]
    fn a_limit_that_is_lifted_is_used_again() {
        let mut adapt = Adapt::new(100.0);
        let start = Instant::now();
        adapt.limited(start, start);
        let low = adapt.current();
        for second in 1..600 {
            adapt.tick(start + Duration::from_secs(second));
        }
        assert!(low < 60.0 && adapt.current() >= 100.0, "{low} {}", adapt.current());
    }

    #[test]
    fn calls_sent_before_a_cut_do_not_cut_again() {
        let mut adapt = Adapt::new(100.0);
        let start = Instant::now();
        assert!(adapt.limited(start, start + Duration::from_millis(50)).is_some());
        let cut = adapt.current();
        assert!(
            adapt.limited(start + Duration::from_millis(10), start + Duration::from_millis(60)).is_none()
        );
        assert_eq!(adapt.current(), cut);
    }
}
