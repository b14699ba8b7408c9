//! How a batch went over time, in bounded memory, for the chart and the rate.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

/// Points of a history: what a small chart can show.
const POINTS_MAX: usize = 120;
/// Samples come about once a second.
const HALF_A_SAMPLE: Duration = Duration::from_millis(500);
/// Seconds over which the present rate is taken.
const RATE_SECONDS: usize = 10;

/// Ends in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Point {
    /// Rows issued in it.
    pub(super) issued: u64,
    /// Rows refused in it, without those that somebody cancelled.
    pub(super) refused: u64,
    /// Rows in it whose end is not known.
    pub(super) unresolved: u64,
}

impl Point {
    fn total(&self) -> u64 {
        self.issued + self.refused + self.unresolved
    }

    fn plus(self, other: Self) -> Self {
        Self {
            issued: self.issued + other.issued,
            refused: self.refused + other.refused,
            unresolved: self.unresolved + other.unresolved,
        }
    }

    fn minus(self, earlier: Self) -> Self {
        Self {
            issued: self.issued.saturating_sub(earlier.issued),
            refused: self.refused.saturating_sub(earlier.refused),
            unresolved: self.unresolved.saturating_sub(earlier.unresolved),
        }
    }
}

/// Ends over time. When it is full, two points become one and a point spans twice the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct History {
    /// Seconds that each point spans.
    pub(super) seconds_per_point: u32,
    /// From the batch's beginning on; the last one is still growing.
    pub(super) points: Vec<Point>,
}

/// Takes samples of running totals, about one a second.
#[derive(Debug)]
pub(super) struct Meter {
    history: History,
    recent: VecDeque<(Duration, u64)>,
    sampled: Point,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            history: History { seconds_per_point: 1, points: Vec::new() },
            recent: VecDeque::from([(Duration::ZERO, 0)]),
            sampled: Point::default(),
        }
    }
}

impl Meter {
    /// The totals at this time since the beginning.
    pub(super) fn sample(&mut self, elapsed: Duration, totals: Point) {
        let more = totals.minus(self.sampled);
        self.sampled = totals;
        // What ended since the sample before this one ended about half a second ago.
        let middle = elapsed.saturating_sub(HALF_A_SAMPLE);
        let mut index = self.index(middle);
        while index >= POINTS_MAX {
            self.halve();
            index = self.index(middle);
        }
        if self.history.points.len() <= index {
            self.history.points.resize(index + 1, Point::default());
        }
        self.history.points[index] = self.history.points[index].plus(more);
        self.recent.push_back((elapsed, totals.total()));
        while self.recent.len() > RATE_SECONDS + 1 {
            self.recent.pop_front();
        }
    }

    /// Rows that ended a second, of late.
    #[must_use]
    pub(super) fn per_second(&self) -> f64 {
        let (Some((from, before)), Some((until, after))) = (self.recent.front(), self.recent.back()) else {
            return 0.0;
        };
        let seconds = until.saturating_sub(*from).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate to show")]
        let ended = after.saturating_sub(*before) as f64;
        if seconds > 0.0 { ended / seconds } else { 0.0 }
    }

    /// All of it.
    #[must_use]
    pub(super) fn history(&self) -> &History {
        &self.history
    }

    fn index(&self, elapsed: Duration) -> usize {
        usize::try_from(elapsed.as_secs() / u64::from(self.history.seconds_per_point)).unwrap_or(usize::MAX)
    }

    fn halve(&mut self) {
        let points = &mut self.history.points;
        *points = points
            .chunks(2)
            .map(|pair| pair.iter().fold(Point::default(), |sum, point| sum.plus(*point)))
            .collect();
        self.history.seconds_per_point = self.history.seconds_per_point.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_stays_small_and_loses_nothing() {
        let mut meter = Meter::default();
        for second in 1..=100_000u64 {
            let totals = Point { issued: 25 * second, refused: second, unresolved: 0 };
            meter.sample(Duration::from_secs(second), totals);
        }
        let history = meter.history();
        assert!(history.points.len() <= POINTS_MAX);
        let issued: u64 = history.points.iter().map(|point| point.issued).sum();
        assert_eq!(issued, 2_500_000);
        assert!((meter.per_second() - 26.0).abs() < 1e-9);
    }
}
