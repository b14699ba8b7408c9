//! How often the broker is asked how a queue stands: seldom where nothing comes, so that an account without jobs costs next to
//! nothing.

use std::time::{Duration, Instant};

/// Between two looks, while something comes.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The same until it is known that the queue was empty: till then a PIN whose sender gives no time counts as too old.
pub(super) const FIRST_LOOKS_EVERY: Duration = Duration::from_millis(200);
/// Between two looks at a queue in which nothing waits and of which nothing has come for a while.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long that while is.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(60);

/// The looks at one subscription's queues.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// The latest one, and whether nothing waited then.
    latest: Option<(Instant, bool)>,
}

impl Looks {
    /// Whether it is time for another one. `silent` is for how long nothing has come.
    pub(super) fn is_due(&self, silent: Duration, now: Instant) -> bool {
        match self.latest {
            Some((at, true)) if silent >= IDLE_AFTER => now.saturating_duration_since(at) >= IDLE_LOOK_EVERY,
            _ => true,
        }
    }

    /// One was made, and found so many messages.
    pub(super) fn found(&mut self, messages: u32, now: Instant) {
        self.latest = Some((now, messages == 0));
    }

    /// For how long nothing needs to be seen to: nobody wakes up for an account that rests. `silent` is for how long nothing has come.
    pub(super) fn rest(&self, silent: Duration, now: Instant) -> Duration {
        match self.latest {
            Some((at, true)) if silent >= IDLE_AFTER => {
                (at + IDLE_LOOK_EVERY).saturating_duration_since(now).max(LOOK_EVERY)
            }
            _ => LOOK_EVERY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_looked_at_seldom_only_while_nothing_waits_and_nothing_comes() {
        let (began, mut looks) = (Instant::now(), Looks::default());
        assert!(looks.is_due(IDLE_AFTER, began), "it was never looked at");
        looks.found(0, began);
        let soon = began + LOOK_EVERY;
        assert!(looks.is_due(IDLE_AFTER / 2, soon) && !looks.is_due(IDLE_AFTER, soon));
        assert!(looks.is_due(IDLE_AFTER, began + IDLE_LOOK_EVERY));
        assert_eq!(looks.rest(IDLE_AFTER, soon), IDLE_LOOK_EVERY - LOOK_EVERY);
        assert_eq!((looks.rest(IDLE_AFTER / 2, soon)), LOOK_EVERY);
        looks.found(1, began);
        assert!(looks.is_due(IDLE_AFTER, soon));
        assert_eq!(looks.rest(IDLE_AFTER, soon), LOOK_EVERY);
    }
}
