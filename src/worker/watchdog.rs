//! Whether a consumer is gone though its connection looks well: a pure function of what the broker says.

use std::time::Duration;

use crate::clock::Time;

/// What the broker and the session say of the jobs queue, and of our place at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// When the broker was asked.
    pub(super) asked: Time,
    /// Messages that wait to be delivered.
    pub(super) messages: u32,
    /// Consumers that the broker knows of, ours among them. A broker whose queue has no leader answers with none, and no
    /// messages.
    pub(super) consumers: u32,
    /// Whether more may be delivered to us before we acknowledge anything.
    pub(super) room: bool,
    /// Whether we were given anything on this connection: then we are the active one.
    pub(super) active: bool,
    /// Deliveries in flight in this worker, of lost connections too.
    pub(super) in_flight: usize,
    /// For how long this connection has been consuming.
    pub(super) consuming: Duration,
    /// For how long nothing has been delivered.
    pub(super) silent: Duration,
}

/// Why everything must be built anew, if it must.
pub(super) fn must_rebuild(look: Look, silent_max: Duration) -> Option<&'static str> {
    if look.consumers == 0 {
        return Some("the broker knows of no consumer of the jobs queue");
    }
    // One that stands by is given nothing, and rightly so.
    let ours = look.active || look.consumers == 1;
    (look.messages > 0 && look.room && ours && look.silent > silent_max)
        .then_some("messages wait, and none is delivered")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENT_MAX: Duration = Duration::from_secs(20);
    const WELL: Look = Look {
        asked: Time::from_unix_ms(1000),
        messages: 5,
        consumers: 2,
        room: true,
        active: true,
        in_flight: 1,
        consuming: LONG,
        silent: Duration::from_secs(1),
    };
    const LONG: Duration = Duration::from_secs(21);

    #[test]
    fn all_is_rebuilt_only_when_a_delivery_is_due() {
        for look in [
            WELL,
            Look { messages: 0, silent: LONG, ..WELL },
            Look { room: false, silent: LONG, ..WELL },
            Look { active: false, silent: LONG, ..WELL },
        ] {
            assert_eq!(must_rebuild(look, SILENT_MAX), None, "{look:?}");
        }
        for look in [
            Look { consumers: 0, messages: 0, ..WELL },
            Look { silent: LONG, ..WELL },
            Look { active: false, consumers: 1, silent: LONG, ..WELL },
        ] {
            assert!(must_rebuild(look, SILENT_MAX).is_some(), "{look:?}");
        }
    }
}
