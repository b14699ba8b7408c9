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
    /// No permit before then: see [`Self::lead`].
    pub(super) permits_from: Option<Instant>,
    pub(super) led: bool,
    /// Turns and permits that came back unused: handed on, whatever the spacing says.
    pub(super) turns_back: u32,
    pub(super) permits_back: u32,
    /// A turn's time was taken, and what is above the account has none yet.
    pub(super) has_turn: bool,
    time: Time,
}

/// Whose time for the next call has come and was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Nobodys,
    /// The endpoint's, and the account's has not come yet.
    Endpoints,
    /// The account's, too; what is above it may have none yet.
    Accounts,
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
            has_turn: false,
            time: Time::Nobodys,
        }
    }

    /// Whether the next turn's time has come; if not, when to ask again. It is kept until it is used.
    pub(super) fn turn_is_here(&mut self, now: Instant) -> Result<(), Instant> {
        if self.has_turn {
            return Ok(());
        }
        if self.turns_back > 0 {
            self.turns_back -= 1;
        } else {
            self.turns.check(now)?;
        }
        self.has_turn = true;
        Ok(())
    }

    /// Whether the next call's time has come, at the endpoint and in the account; if not, when to ask again. It is kept until it is
    /// used.
    pub(super) fn time_is_here(&mut self, account: &mut Level, now: Instant) -> Result<(), Instant> {
        if self.time == Time::Nobodys {
            self.own_time_is_here(now)?;
        }
        if self.time == Time::Endpoints {
            account.take_time(now)?;
            self.time = Time::Accounts;
        }
        Ok(())
    }

    /// The same where nothing is above it.
    pub(super) fn own_time_is_here(&mut self, now: Instant) -> Result<(), Instant> {
        if self.time != Time::Nobodys {
            return Ok(());
        }
        if self.permits_back > 0 {
            self.permits_back -= 1;
            self.time = Time::Accounts;
        } else {
            self.level.take_time(now)?;
            self.time = Time::Endpoints;
        }
        Ok(())
    }

    pub(super) fn time_is_used(&mut self) {
        self.time = Time::Nobodys;
    }

    /// The first permits wait a moment, once, so that turns run ahead of them.
    pub(super) fn lead(&mut self, per_second: f64, now: Instant) {
        if !self.led {
            self.led = true;
            let lead = self.preparation.lead(per_second) + Duration::from_secs_f64(1.0 / per_second);
            self.permits_from = Some(now + lead);
        }
    }

    /// One more turn is handed on. A pause sends all that was prepared back; then no more come at once than have places.
    pub(super) fn hand_turn_on(&mut self, places: usize) {
        self.turns_back = (self.turns_back + 1).min(u32::try_from(places).unwrap_or(u32::MAX));
    }
}
