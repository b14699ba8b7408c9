//! One attempt: a turn, the PIN made ready, the record, the departure and the call.

use tokio::time::Instant;

use super::Carried;
use crate::clock::{Moment, Time};
use crate::jwe;
use crate::ledger::{Begin, Recorded, State};
use crate::line::changes::{self, Latest};
use crate::line::decision::Next;
use crate::line::gate::Standing;
use crate::line::lease::Held;
use crate::line::people::{self, Decided};
use crate::line::{Stop, endpoint_of};
use crate::metrics;
use crate::outcome::Refusal;
use crate::pace::{Pass, Permit, Turn, Waited};
use crate::simulation::{Mutation, is_broken};
use crate::stripe::{Answer, Leave};
use zeroize::Zeroizing;

/// A job whose PIN is right under the key of this moment, or that has none.
#[must_use]
pub(super) struct Ready(());

/// An attempt that is recorded, and when it was decided.
#[must_use]
pub(super) struct Attempt {
    recorded: Recorded,
    decided: Moment,
    /// Whether a call was begun in this run before.
    had_begun: bool,
    /// How often the account's lease had been taken when it was decided.
    lease: u64,
}

/// An attempt that may be sent now.
#[must_use]
pub(super) struct Departing {
    attempt: Attempt,
    permit: Permit,
}

/// A call that was answered, or was not.
#[must_use]
pub(super) struct Called {
    pub(super) permit: Permit,
    pub(super) answer: Answer,
    pub(super) had_begun: bool,
}

impl Carried<'_> {
    /// A turn of the pace; none if the gate was shut meanwhile: then the turn goes to the next.
    pub(super) async fn turn(&mut self) -> Result<Option<Turn>, Stop> {
        let began = Instant::now();
        let endpoint = endpoint_of(self.job.request.operation());
        let turn = tokio::select! {
            biased;
            turn = self.line.parts.pace.turn(endpoint) => turn.map_err(|_| Stop::Closed),
            () = self.recall.cancelled() => Err(Stop::Closed),
        };
        self.waited += began.elapsed();
        self.job.waiting = None;
        metrics::stage("pace", began.elapsed());
        let turn = turn?;
        let is_open = self.gate_before_first_call().is_none_or(|gate| gate.standing() == Standing::Open);
        Ok(is_open.then_some(turn))
    }

    /// Fetches the key and verifies the PIN against it; without a PIN there is nothing to fetch.
    pub(super) async fn prepare(&mut self, turn: Turn, pass: Option<Pass>) -> Option<(Turn, Ready)> {
        let (Some(pin), Some(pass)) = (&self.job.pin, pass) else { return Some((turn, Ready(()))) };
        if self.is_past_deadline(self.now()) {
            self.expired();
            return None;
        }
        if !pass.is_good() {
            // The endpoint went while it waited for its turn, which goes to the next.
            turn.failed();
            return None;
        }
        let stage = metrics::Stage::begin("key");
        let key = match self.line.parts.client.pin_key().await {
            Ok(document) => self.line.keys.read(document).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        stage.ended();
        let key = match key {
            Ok(key) => {
                pass.answered();
                key
            }
            Err(reason) => {
                pass.failed(&reason);
                metrics::key_failed();
                self.tries += 1;
                self.latest = Refusal::own("pin_key_unavailable", reason);
                metrics::retried(self.latest.label());
                // Whoever waits holds nobody up.
                turn.failed();
                self.wait(self.backoff()).await;
                return None;
            }
        };
        let stage = metrics::Stage::begin("verify");
        let verified = jwe::verify(pin.expose(), &key);
        stage.ended();
        match verified {
            Ok(()) => Some((turn, Ready(()))),
            Err(refusal) => {
                if refusal == jwe::Refusal::StaleKey {
                    metrics::stale_key();
                }
                self.decision.give_up(Refusal::own(refusal.code(), refusal.to_string()));
                None
            }
        }
    }

    fn is_past_deadline(&self, now: Moment) -> bool {
        is_past(self.job.deadline, self.came, now)
    }

    pub(super) fn expired(&mut self) {
        let reason = "it waited past its deadline; send it again, with the PIN encrypted anew if it has one";
        self.decision.give_up(Refusal::own("expired", reason));
    }

    /// Records the attempt, if it still is what is to be done now: the key's age, the deadline, and the ledger's row are
    /// looked at here, after the last wait, and what follows leaves at once or not at all.
    pub(super) async fn record(&mut self, Ready(()): Ready) -> Result<Option<Attempt>, Stop> {
        let lease = self.line.lease.times();
        // From here on time counts: a process that sleeps before its call has left may lose the lease meanwhile.
        let decided = self.now();
        // If it had to be waited for, the key and the PIN's verdict are of before.
        let is_vetted = self.vetted.is_none_or(|vetted| vetted == lease);
        if self.hold_lease().await? != Some(Held::AllTheTime) || !self.is_searched() || !is_vetted {
            return Ok(None);
        }
        // A change that is not called must not become its card's latest: the one before it could never be sent again.
        if !matches!(self.decision.next(decided), Next::Call(_)) {
            return Ok(None);
        }
        if self.is_past_deadline(decided) {
            self.expired();
            return Ok(None);
        }
        match changes::become_latest(self.line, &self.job, self.known.as_deref()).await? {
            Latest::Is => {}
            Latest::Changed => return Ok(None),
            Latest::RowChanged(found) => {
                self.changed(found)?;
                return Ok(None);
            }
            Latest::Refused(refusal) => {
                self.decision.give_up(refusal);
                return Ok(None);
            }
        }
        let may_have_effect = self.decision.may_have_effect();
        if people::begins(self.line, &self.job, may_have_effect).await? == Decided::Anew {
            self.searched = None;
            return Ok(None);
        }
        if self.is_stopped() {
            return Ok(None);
        }
        self.decision.begin(decided);
        let stage = metrics::Stage::begin("record_attempt");
        let row = Box::new(self.row(State::Begun, decided));
        let begun = self.line.parts.ledger.begin(row, self.known.as_deref()).await;
        stage.ended();
        if !matches!(begun, Ok(Begin::Recorded(_))) {
            // Without its record no call is made.
            self.decision.take_back();
        }
        match begun? {
            Begin::Recorded(recorded) => {
                let had_begun = std::mem::replace(&mut self.has_begun, true);
                Ok(Some(Attempt { recorded, decided, had_begun, lease }))
            }
            Begin::Changed(found) => {
                tracing::info!("another process has changed what is known of this job; deciding anew");
                self.changed(found)?;
                Ok(None)
            }
        }
    }

    /// The moment to send; none if it came so late that all must be prepared anew. The attempt is taken back then.
    pub(super) async fn depart(&mut self, turn: Turn, attempt: Attempt) -> Result<Option<Departing>, Stop> {
        let began = Instant::now();
        let waited = turn.permit().await;
        self.waited += began.elapsed();
        match waited {
            // The record may have waited for its database, and the lease's session is lost meanwhile: somebody else may have had the
            // lease, though it is ours again.
            Waited::Permit(_) if !self.is_leased_since(&attempt) => {
                self.take_back(attempt);
                if self.recall.is_cancelled() { Err(Stop::Closed) } else { Ok(None) }
            }
            // What is recorded is called for, though the line stops or the job was recalled: whoever has it next would have to wait until
            // it is certain that this call is not made any more. Nobody else calls while the lease is ours.
            Waited::Permit(permit) => {
                metrics::permit(began.elapsed());
                Ok(Some(Departing { attempt, permit }))
            }
            Waited::TooLong => {
                self.take_back(attempt);
                Ok(None)
            }
        }
    }

    fn is_leased_since(&self, attempt: &Attempt) -> bool {
        self.line.lease.times() == attempt.lease && self.line.lease.is_surely_ours()
    }

    pub(super) fn take_back(&mut self, attempt: Attempt) {
        self.decision.take_back();
        self.has_begun = attempt.had_begun;
        self.known = Some(attempt.recorded.into_row());
    }

    /// Makes the call, if its first byte leaves soon enough after the decision.
    pub(super) async fn call(&mut self, departing: Departing) -> Called {
        let Departing { attempt, mut permit } = departing;
        self.tries += 1;
        let parts = &self.line.parts;
        let key = self.job.idempotency_key(self.decision.generation());
        if self.job.pin.is_some() {
            metrics::pin_used(self.job.age());
        }
        let departure = permit.departure();
        let (clock, decided, within) = (parts.clock.clone(), attempt.decided, parts.rules.departs_within);
        let (deadline, came) = (self.job.deadline, self.came);
        let leaves = move || {
            let now = clock.moment();
            let is_late = now.since(decided) > within && !is_broken(Mutation::DepartLate);
            if is_late || is_past(deadline, came, now) {
                return Leave::Stay;
            }
            departure.left();
            Leave::Go
        };
        let stage = metrics::Stage::begin("create");
        let answer = parts.client.change(&self.job.request, &key, self.body(), leaves).await;
        stage.ended();
        self.known = Some(attempt.recorded.into_row());
        Called { permit, answer, had_begun: attempt.had_begun }
    }

    pub(super) fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(2048));
        let pin = self.job.pin.as_ref().map(|pin| pin.expose());
        self.job.request.encode_into(&mut body, pin, self.job.id.as_str(), self.job.batch.as_str());
        body
    }
}

/// Whether a deadline has passed for a job that came on the line then: by the time of day, or by the time that passed since,
/// as a clock that is set back makes no PIN younger.
fn is_past(deadline: Option<Time>, came: Moment, now: Moment) -> bool {
    if is_broken(Mutation::ForgetDeadline) {
        return false;
    }
    deadline
        .is_some_and(|deadline| now.wall > deadline || now.boot.since(came.boot) > deadline.since(came.wall))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Boot;

    #[test]
    fn a_clock_that_is_set_back_makes_no_pin_younger() {
        let at = |wall_s: i64, boot_s: u64| Moment {
            wall: Time::from_unix_ms(wall_s * 1000),
            boot: Boot::after(Duration::from_secs(boot_s)),
        };
        let (came, deadline) = (at(10_000, 50), Some(Time::from_unix_ms(10_060_000)));
        assert!(!is_past(deadline, came, at(10_060, 110)));
        assert!(is_past(deadline, came, at(10_061, 111)));
        assert!(is_past(deadline, came, at(10_061, 50)), "a clock that was set ahead");
        assert!(is_past(deadline, came, at(3000, 111)), "a clock that was set back");
        assert!(is_past(Some(Time::from_unix_ms(9_000_000)), came, came), "it came too late");
        assert!(!is_past(None, came, at(99_999, 9999)));
    }
}
