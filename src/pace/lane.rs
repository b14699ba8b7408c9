//! What the pace knows of one endpoint: its limit, and the jobs that prepare for it.

use std::time::{Duration, Instant};

use super::level::Level;
use super::preparation::Preparation;
use super::spacing::Spacing;

/// How late a turn may come and still be made up for. Nobody counts them strictly, and they must not fall behind the permits.
const TURN_LATE_MAX: Duration = Duration::from_millis(150);

/// The endpoint's state.
pub(super) struct Lane {
    pub(super) level: Level,
    pub(super) turns: Spacing,
    pub(super) preparation: Preparation,
    /// Turns out: jobs that prepare or wait for their permit.
    pub(super) prepared: usize,
    /// The first permits wait a moment, once, so that turns run ahead of them.
    pub(super) permits_from: Option<Instant>,
    pub(super) led: bool,
    /// Turns and permits that came back unused: handed on, whatever the spacing says.
    pub(super) turns_back: u32,
    pub(super) permits_back: u32,
    /// The endpoint's time for the next call was taken, and the account's has not come yet.
    pub(super) has_time: bool,
}

impl Lane {
    pub(super) fn new(per_second: f64, concurrency: usize, now: Instant) -> Self {
        Self {
            level: Level::new(per_second, now),
            turns: Spacing::new(per_second, TURN_LATE_MAX, now),
            preparation: Preparation::new(concurrency),
            prepared: 0,
            permits_from: None,
            led: false,
            turns_back: 0,
            permits_back: 0,
            has_time: false,
        }
    }

    /// Whether the next call's time has come, at the endpoint and in the account, and is taken; if not, when to ask again.
    pub(super) fn take_time(&mut self, account: &mut Level, now: Instant) -> Result<(), Instant> {
        if self.permits_back > 0 {
            self.permits_back -= 1;
            return Ok(());
        }
        if !self.has_time {
            self.level.take_time(now)?;
            self.has_time = true;
        }
        account.take_time(now)?;
        self.has_time = false;
        Ok(())
    }

    /// One more turn is handed on. A pause sends all that was prepared back; then no more come at once than have places.
    pub(super) fn hand_turn_on(&mut self, places: usize) {
        self.turns_back = (self.turns_back + 1).min(u32::try_from(places).unwrap_or(u32::MAX));
    }
}
