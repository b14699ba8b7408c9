//! Waits between tries: growing, with jitter, so that many who failed together do not come back together.

use std::time::Duration;

use crate::simulation;

/// A wait that doubles from try to try, for ever.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// From the first wait up to the longest.
    #[must_use]
    pub const fn between(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// How long to wait before the next try.
    pub fn wait(&mut self) -> Duration {
        let ceiling = self.next;
        self.next = (ceiling * 2).min(self.max);
        jittered(ceiling)
    }

    /// It went well: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Somewhere between half of a wait and all of it.
#[must_use]
pub fn jittered(ceiling: Duration) -> Duration {
    ceiling.mul_f64(simulation::between(0.5, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let (min, max) = (Duration::from_millis(100), Duration::from_millis(300));
        let mut backoff = Backoff::between(min, max);
        for ceiling in [min, min * 2, max, max] {
            let wait = backoff.wait();
            assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= min);
    }
}
