//! When a batch is to start, as people say it.

use std::time::Duration;

use crate::clock::Time;
use crate::config::seconds;

/// So far ahead a start may be: what is asked for today may be wrong next month.
const AHEAD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// The time of a start.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with where it stands.
pub fn start_of(text: &str, now: Time) -> Result<Time, String> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    let Some(time) = time else {
        let offset = if text.contains(' ') { " (in an address + is written %2B)" } else { "" };
        return Err(format!(
            "{text:?} is not a time with its offset, as 2026-12-01T05:00Z or 2026-12-01T06:00+01:00{offset}"
        ));
    };
    let start = Time::from_unix_ms(time.as_millisecond());
    if start <= now {
        return Err(format!(
            "{} is past: it is {} now. Leave it out to start at once",
            start.in_utc(),
            now.in_utc()
        ));
    }
    let latest = now.plus(AHEAD_MAX);
    if start > latest {
        return Err(format!(
            "{} is more than 7 days away; the latest is {}",
            start.in_utc(),
            latest.in_utc()
        ));
    }
    Ok(start)
}

/// The latest start of a batch with PINs that came at that time.
#[must_use]
pub fn latest_with_pins(received: Time, pin_seconds_max: f64) -> Time {
    received.plus(seconds(pin_seconds_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_soon_and_not_past() {
        let now = Time::from_words("2026-12-01T00:00Z").unwrap();
        let start = |text: &str| start_of(text, now).map(Time::in_utc);
        assert_eq!(start("2026-12-01T05:00Z").as_deref(), Ok("2026-12-01T05:00:00Z"));
        assert_eq!(start("2026-12-01T05:00:30+01:00").as_deref(), Ok("2026-12-01T04:00:30Z"));
        assert_eq!(start("2026-12-08T00:00Z").as_deref(), Ok("2026-12-08T00:00:00Z"));
        for (text, wrong) in [
            ("2026-12-01T00:00Z", "is past"),
            ("2025-12-01T05:00Z", "is past"),
            ("2026-12-08T00:01Z", "more than 7 days"),
            ("2026-12-01T05:00", "is not a time"),
            ("2026-12-01", "is not a time"),
            ("tomorrow", "is not a time"),
            ("2026-12-01T05:00 01:00", "%2B"),
        ] {
            let said = start(text).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
    }
}
