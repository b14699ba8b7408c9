//! Time as an input: the time of day, and a clock that also counts while the machine sleeps.
//!
//! The idempotency window, PIN deadlines and the ledger's times are judged by this clock, so that a test can
//! stand 25 hours later. The time of day may be set wrong or change; the time since boot cannot, but other processes
//! do not share its zero. So what this process saw pass is judged by both, whichever says more. Durations inside one
//! call (time-outs, the pace) use the monotonic clock instead, which stands still while the machine sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// Of a day (its beginning in UTC), as `2026-12-01`, or of a time with its offset, as `2026-12-01T05:00Z`; none if it is
    /// neither.
    #[must_use]
    pub fn from_words(text: &str) -> Option<Self> {
        /// `2026-12-01`
        const DAY: usize = 10;
        let midnight = if text.len() == DAY { "T00:00Z" } else { "" };
        let time: jiff::Timestamp = format!("{text}{midnight}").parse().ok()?;
        Some(Self(time.as_millisecond()))
    }

    /// Of an HTTP answer's `Date`; none if it is none.
    #[must_use]
    pub fn from_http_date(text: &str) -> Option<Self> {
        let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Some(Self(time.as_millisecond()))
    }

    /// As people and programs read it, to the second: `2026-12-01T05:00:00Z`.
    #[must_use]
    pub fn in_utc(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map_or_else(
            |_| "an unknown time".to_owned(),
            |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        )
    }

    /// How long ago `earlier` was; zero if it lies ahead (a clock that was set back must not make time negative).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This moment and a duration later; saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// Time since the machine started, sleep included: only for what this process itself saw pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(Duration);

impl Boot {
    /// So long after the machine started.
    #[must_use]
    pub const fn after(start: Duration) -> Self {
        Self(start)
    }

    /// So long after the machine started.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// This moment and a duration later; saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// The next whole second from this moment on.
    #[must_use]
    pub fn up_to_the_second(self) -> Self {
        let seconds = self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0);
        Self(Duration::from_secs(seconds))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub wall: Time,
    /// The time since boot.
    pub boot: Boot,
}

impl Moment {
    /// How long ago an earlier moment of this process was, by whichever clock says more. A clock that was set back does
    /// not make it shorter.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.wall.since(earlier.wall).max(self.boot.since(earlier.boot))
    }
}

/// Tells the time: the machine's clock, or the machine's clock moved by a test.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    source: Source,
    ahead_ms: Arc<AtomicI64>,
    set_ms: Arc<AtomicI64>,
}

/// Where a clock has its time from.
#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    Machine,
    /// tokio's time, which a simulation lets pass.
    #[cfg(feature = "killpoints")]
    Simulated(Arc<Simulated>),
}

/// What a simulation's clock said, and when.
#[cfg(feature = "killpoints")]
#[derive(Debug)]
struct Simulated {
    wall: Time,
    boot: Boot,
    at: tokio::time::Instant,
}

impl Clock {
    /// A clock that says this now, and on which time passes as it does on tokio's.
    #[cfg(feature = "killpoints")]
    #[must_use]
    pub fn simulated(wall: Time, boot: Boot) -> Self {
        let source = Source::Simulated(Arc::new(Simulated { wall, boot, at: tokio::time::Instant::now() }));
        Self { source, ..Self::default() }
    }

    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Lets time pass on this clock, and every clone of it: both the time of day and the time since boot.
    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Sets the time of day ahead, or back if negative, as a person or a time server does: no time passes by it.
    pub fn set(&self, by_ms: i64) {
        self.set_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Time {
        let ms = match &self.source {
            Source::Machine => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
            }
            #[cfg(feature = "killpoints")]
            Source::Simulated(then) => then.wall.plus(then.at.elapsed()).unix_ms(),
        };
        let moved = self.ahead_ms.load(Ordering::SeqCst).saturating_add(self.set_ms.load(Ordering::SeqCst));
        Time(ms.saturating_add(moved))
    }

    /// This moment on both clocks.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { wall: self.now(), boot: self.boot() }
    }

    /// The time since boot, sleep included.
    #[must_use]
    pub fn boot(&self) -> Boot {
        let ahead = u64::try_from(self.ahead_ms.load(Ordering::SeqCst)).unwrap_or(0);
        let since_boot = match &self.source {
            Source::Machine => since_boot(),
            #[cfg(feature = "killpoints")]
            Source::Simulated(then) => then.boot.0 + then.at.elapsed(),
        };
        Boot(since_boot + Duration::from_millis(ahead))
    }
}

#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Elsewhere the monotonic clock counts sleep already (macOS) or is the nearest there is.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_date_is_a_time() {
        let time = Time::from_http_date("Sat, 28 Nov 2026 11:41:37 GMT").unwrap();
        assert_eq!(time.in_utc(), "2026-11-28T11:41:37Z");
        assert_eq!(Time::from_http_date("yesterday"), None);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_younger() {
        let clock = Clock::system();
        let earlier = clock.moment();
        clock.advance(Duration::from_secs(10));
        clock.set(-86_400_000);
        assert!(clock.moment().since(earlier) >= Duration::from_secs(10));
        clock.set(2 * 86_400_000);
        assert!(
            clock.moment().since(earlier) >= Duration::from_secs(86_400),
            "set ahead, or asleep: who knows"
        );
    }
}
