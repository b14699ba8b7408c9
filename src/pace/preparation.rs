//! How many jobs may prepare at once: as many as the pace uses up in the time that preparing takes, and a few.
//!
//! Fewer would leave the pace unused while keys are fetched; more would let fetched keys grow old in the queue.

use std::time::Duration;

/// Taken for granted before anything was measured: a key fetched over a new connection, and a ledger's flush.
const ASSUMED: Duration = Duration::from_millis(300);
/// Never reckoned with less: a fetch that is slow now and then must not starve the pace.
const TAKES_MIN: Duration = Duration::from_millis(100);
/// Places beyond what the measured time needs, as a share: preparing times vary.
const SPARE: f64 = 1.5;
/// How fast a slow preparation is forgotten, per preparation: by half in about 35.
const FADES: f64 = 0.98;
/// Fewest places: one prepares while one waits to send.
const PLACES_MIN: usize = 2;

/// The measured preparation.
#[derive(Debug)]
pub(super) struct Preparation {
    per_second: f64,
    places_max: usize,
    places: usize,
    takes: Duration,
}

impl Preparation {
    pub(super) fn new(per_second: f64, places_max: usize) -> Self {
        let mut preparation =
            Self { per_second, places_max: places_max.max(PLACES_MIN), places: 0, takes: ASSUMED };
        preparation.places = preparation.wanted();
        preparation
    }

    /// How many may prepare or wait for their permit.
    pub(super) fn places(&self) -> usize {
        self.places
    }

    /// A preparation took so long. Answers the number of places if it changes.
    pub(super) fn took(&mut self, took: Duration) -> Option<usize> {
        self.takes = self.takes.mul_f64(FADES).max(took).max(TAKES_MIN);
        let wanted = self.wanted();
        let changed = wanted != self.places;
        self.places = wanted;
        changed.then_some(wanted)
    }

    fn wanted(&self) -> usize {
        super::whole(self.per_second * self.takes.as_secs_f64() * SPARE).clamp(PLACES_MIN, self.places_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_time_that_preparing_takes() {
        let mut preparation = Preparation::new(100.0, 400);
        let at_first = preparation.places();
        preparation.took(Duration::from_secs(1));
        assert!(preparation.places() >= 100, "100 a second for a second");
        for _ in 0..500 {
            preparation.took(Duration::from_millis(5));
        }
        assert!(preparation.places() < at_first, "{}", preparation.places());
        preparation.took(Duration::from_secs(60));
        assert_eq!(preparation.places(), 400, "bounded by the concurrency");
    }
}
