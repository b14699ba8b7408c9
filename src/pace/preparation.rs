//! How many jobs may prepare or stand prepared at once: as many as the pace uses up in the time that preparing takes,
//! and a few.
//!
//! Fewer would leave the pace unused while keys are fetched; more would let fetched keys grow old in the queue, open a
//! connection to the key endpoint for each, and push what the others need out of the processor's caches.

use std::time::Duration;

/// How far turns run ahead of permits beyond the time that preparing takes: what one preparation may take longer
/// than another (a ledger's flush on a busy disk) without a permit going unused.
const LEAD: Duration = Duration::from_millis(150);
/// Taken for granted before anything was measured: a key fetched over a new connection, and a ledger's flush. Turns
/// are evenly spaced themselves, so that too much here lets nobody in too early.
const ASSUMED: Duration = Duration::from_secs(1);
/// Never reckoned with more: a preparation that takes this long is a key endpoint that hangs.
const TAKES_MAX: Duration = Duration::from_secs(10);
/// Room beyond what the measured time needs, as a share: preparing times vary.
const SPARE: f64 = 1.25;
/// How fast a slow preparation is forgotten, per preparation: by half in about 35.
const FADES: f64 = 0.98;
/// Fewest places: one prepares while one waits to send.
const PLACES_MIN: usize = 2;
/// Calls that may be in flight for each place, where these would be more than [`PLACES_BOUND_MIN`]: who bounds the calls
/// bounds what is made ready for them.
const CALLS_PER_PLACE: usize = 2;
/// Never bounded to fewer for that reason: at Stripe's hundred a second a key endpoint may take two seconds.
const PLACES_BOUND_MIN: usize = 256;

/// The measured preparation.
#[derive(Debug)]
pub(super) struct Preparation {
    takes: Duration,
    places_max: usize,
}

impl Preparation {
    /// Where so many calls may be in flight.
    pub(super) fn new(concurrency: usize) -> Self {
        let places_max = (concurrency / CALLS_PER_PLACE).max(PLACES_BOUND_MIN);
        Self { takes: ASSUMED, places_max }
    }

    /// A preparation took so long.
    pub(super) fn took(&mut self, took: Duration) {
        self.takes = self.takes.mul_f64(FADES).max(took).min(TAKES_MAX);
    }

    /// How many may prepare or wait for their permit at this rate.
    pub(super) fn places(&self, per_second: f64) -> usize {
        let ahead = self.takes.mul_f64(SPARE) + 2 * LEAD;
        super::whole(per_second * ahead.as_secs_f64()).clamp(PLACES_MIN, self.places_max)
    }

    /// How far turns may run ahead of the first permits at this rate: no further than there are places, as a wait beyond
    /// that would let nobody else prepare.
    pub(super) fn lead(&self, per_second: f64) -> Duration {
        let places = u32::try_from(self.places_max).unwrap_or(u32::MAX);
        LEAD.min(Duration::from_secs_f64(f64::from(places) / per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_time_that_preparing_takes() {
        let mut preparation = Preparation::new(512);
        preparation.took(Duration::from_millis(5));
        let at_first = preparation.places(100.0);
        for _ in 0..500 {
            preparation.took(Duration::from_millis(5));
        }
        let settled = preparation.places(100.0);
        assert!(settled < at_first && settled <= 40, "{settled}");
        preparation.took(Duration::from_secs(2));
        assert!(preparation.places(100.0) >= 200, "100 a second for two seconds");
        preparation.took(Duration::from_secs(600));
        assert!(preparation.places(100.0) < 2000, "bounded");
        assert_eq!(preparation.places(0.1), PLACES_MIN);
    }

    #[test]
    fn however_high_the_rate_only_so_many_prepare_as_the_calls_can_use() {
        assert_eq!(Preparation::new(1024).places(100_000.0), 512);
        assert_eq!(Preparation::new(1).places(100_000.0), PLACES_BOUND_MIN);
    }

    #[test]
    fn the_first_permits_wait_for_no_more_than_the_places_hold() {
        let preparation = Preparation::new(512);
        assert_eq!(preparation.lead(100.0), LEAD);
        assert_eq!(preparation.lead(100_000.0), Duration::from_micros(2560));
    }
}
