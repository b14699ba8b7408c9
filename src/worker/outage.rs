//! How many jobs are taken while all of them are held up: a pure state machine, time is an input.
//!
//! While Stripe does not answer or refuses everybody alike, or another process calls for the account, what is in flight waits in the line, and nothing more comes since the prefetch is used up. If
//! it lasts, all that is in flight waits on the ladder, and one job at a time is taken, to try: so not every job of the
//! queue is marched round the ladder. Another worker that takes over waits for the account's lease.

use std::time::{Duration, Instant};

use super::session::Window;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Stay,
    /// Put what is in flight on the ladder, and take one job.
    Park,
    /// Take as many as the pace can use.
    Resume,
}

/// Something that holds every job up, or nothing.
#[derive(Debug)]
pub(super) struct Outage {
    taking: Window,
    since: Option<Instant>,
    held_max: Duration,
}

impl Outage {
    /// None yet.
    pub(super) fn none(held_max: Duration) -> Self {
        Self { taking: Window::Wide, since: None, held_max }
    }

    /// How many jobs are taken.
    pub(super) fn taking(&self) -> Window {
        self.taking
    }

    /// Jobs go on, or they do not.
    pub(super) fn look(&mut self, answers: bool, now: Instant) -> Change {
        if answers {
            self.since = None;
            return match self.taking {
                Window::Wide => Change::Stay,
                Window::One => {
                    self.taking = Window::Wide;
                    Change::Resume
                }
            };
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) < self.held_max {
            return Change::Stay;
        }
        self.since = Some(now);
        self.taking = Window::One;
        Change::Park
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_long_outage_jobs_wait_on_the_ladder_and_one_at_a_time_tries() {
        let mut outage = Outage::none(Duration::from_secs(300));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let looked: Vec<_> = [(0, true), (1, false), (200, false), (301, false), (400, false), (601, false)]
            .map(|(seconds, answers)| outage.look(answers, at(seconds)))
            .into();
        let stay = Change::Stay;
        assert_eq!(looked, [stay, stay, stay, Change::Park, stay, Change::Park]);
        assert_eq!(outage.taking(), Window::One);
        assert_eq!(outage.look(true, at(700)), Change::Resume);
        assert_eq!((outage.taking(), outage.look(true, at(701))), (Window::Wide, Change::Stay));
    }

    #[test]
    fn a_short_one_changes_nothing() {
        let mut outage = Outage::none(Duration::from_secs(300));
        let start = Instant::now();
        for (seconds, answers) in [(0, false), (299, false), (300, true), (301, false), (600, false)] {
            assert_eq!(outage.look(answers, start + Duration::from_secs(seconds)), Change::Stay);
        }
    }
}
