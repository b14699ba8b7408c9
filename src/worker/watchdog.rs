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

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Stay,
    /// Subscribe again, on the same connection. It is not known whether we stand by or our consumer is gone: RabbitMQ 3.10 counts
    /// the active consumer alone. For one that stands by this changes nothing, and costs three questions.
    Subscribe,
    /// Build everything anew, and why.
    Rebuild(&'static str),
}

/// Decides it.
pub(super) fn verdict(look: Look, silent_max: Duration) -> Verdict {
    if look.consumers == 0 {
        return Verdict::Rebuild("the broker knows of no consumer of the jobs queue");
    }
    if look.messages == 0 || !look.room || look.silent <= silent_max {
        return Verdict::Stay;
    }
    match (look.active, look.consumers) {
        (true, _) => Verdict::Rebuild("messages wait, and none is delivered"),
        (false, 1) => Verdict::Subscribe,
        // One that stands by is given nothing, and rightly so.
        (false, _) => Verdict::Stay,
    }
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
            assert_eq!(verdict(look, SILENT_MAX), Verdict::Stay, "{look:?}");
        }
        for look in [Look { consumers: 0, messages: 0, ..WELL }, Look { silent: LONG, ..WELL }] {
            assert!(matches!(verdict(look, SILENT_MAX), Verdict::Rebuild(_)), "{look:?}");
        }
    }

    #[test]
    fn one_that_may_stand_by_keeps_its_connection() {
        let look = Look { active: false, consumers: 1, silent: LONG, ..WELL };
        assert_eq!(verdict(look, SILENT_MAX), Verdict::Subscribe);
    }
}
