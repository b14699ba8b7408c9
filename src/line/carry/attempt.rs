//! One attempt: a turn, the PIN made ready, the record, the departure and the call.

use std::time::Instant;

use super::Carried;
use crate::clock::{Moment, Time};
use crate::jwe;
use crate::ledger::{Begin, Recorded, State};
use crate::line::Stop;
use crate::line::decision::Next;
use crate::line::gate::{Passed, Standing};
use crate::metrics;
use crate::outcome::Refusal;
use crate::pace::{Pass, Permit, Turn, Waited};
use crate::stripe::{Answer, Leave, Slot};
use crate::wipe::Wiped;

/// A job whose PIN is right under the key of this moment, or that has none.
#[must_use]
pub(super) struct Ready(());

/// An attempt that is recorded, and when it was decided.
#[must_use]
pub(super) struct Attempt {
    recorded: Recorded,
    decided: Moment,
}

/// An attempt that may be sent now, in its place among the calls.
#[must_use]
pub(super) struct Departing<'l> {
    attempt: Attempt,
    permit: Permit,
    slot: Slot<'l>,
}

/// A call that was answered, or was not.
#[must_use]
pub(super) struct Called {
    pub(super) permit: Permit,
    pub(super) answer: Answer,
}

impl<'l> Carried<'l> {
    /// A turn of the pace; none if the job was called off. One that comes while the gate is shut is handed on.
    pub(super) async fn turn(&mut self) -> Result<Option<Turn>, Stop> {
        let began = Instant::now();
        let turn = self.turn_at_gate().await;
        self.waited += began.elapsed();
        self.job.waiting = None;
        metrics::stage("pace", began.elapsed());
        let turn = turn?;
        if turn.is_none() {
            let reason = "the batch was cancelled before this row had begun";
            self.decision.give_up(Refusal::own("cancelled", reason));
        }
        Ok(turn)
    }

    pub(super) async fn turn_at_gate(&mut self) -> Result<Option<Turn>, Stop> {
        // What has begun, in this run or before, goes on to its end whatever the gate says.
        let gate = self.gate.filter(|_| !self.has_begun && self.decision.key_began().is_none());
        loop {
            if let Some(gate) = gate {
                if gate.standing() == Standing::Shut {
                    // Whoever waits here may wait for days, and another process may want to call.
                    self.lease = None;
                }
                let passed = tokio::select! {
                    passed = gate.passed() => passed,
                    () = self.line.stopping.cancelled() => return Err(Stop::Closed),
                    () = self.recall.cancelled() => return Err(Stop::Closed),
                };
                if passed == Passed::CalledOff {
                    return Ok(None);
                }
            }
            let turn = tokio::select! {
                turn = self.line.parts.pace.turn() => turn.map_err(|_| Stop::Closed)?,
                () = self.recall.cancelled() => return Err(Stop::Closed),
            };
            if gate.is_none_or(|gate| gate.standing() == Standing::Open) {
                return Ok(Some(turn));
            }
        }
    }

    /// Fetches the key and verifies the PIN against it; without a PIN there is nothing to fetch.
    pub(super) async fn prepare(&mut self, turn: Turn, pass: Option<Pass>) -> Option<(Turn, Ready)> {
        let (Some(pin), Some(pass)) = (&self.job.pin, pass) else { return Some((turn, Ready(()))) };
        if is_past(self.job.deadline, self.now()) {
            self.expired();
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
                metrics::retried(&self.latest);
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

    pub(super) fn expired(&mut self) {
        let reason = "the PIN waited past its deadline; send the job again";
        self.decision.give_up(Refusal::own("expired", reason));
    }

    /// Records the attempt, if it still is what is to be done now: the key's age, the deadline, and the ledger's row are
    /// looked at here, after the last wait, and what follows leaves at once or not at all.
    pub(super) async fn record(&mut self, Ready(()): Ready) -> Result<Option<Attempt>, Stop> {
        self.hold_lease().await?;
        let decided = self.now();
        if !matches!(self.decision.next(decided), Next::Call(_)) || self.is_stopped() {
            return Ok(None);
        }
        if is_past(self.job.deadline, decided) {
            self.expired();
            return Ok(None);
        }
        self.decision.begin(decided);
        let stage = metrics::Stage::begin("record_attempt");
        let begun =
            self.line.parts.ledger.begin(self.row(State::Begun, decided), self.known.as_deref()).await?;
        stage.ended();
        match begun {
            Begin::Recorded(recorded) => {
                self.has_begun = true;
                Ok(Some(Attempt { recorded, decided }))
            }
            Begin::Changed(found) => {
                tracing::info!("another process has changed what is known of this job; deciding anew");
                self.changed(found);
                Ok(None)
            }
        }
    }

    /// The moment to send; none if it came so late that all must be prepared anew. The attempt is taken back then.
    pub(super) async fn depart(
        &mut self,
        turn: Turn,
        attempt: Attempt,
    ) -> Result<Option<Departing<'l>>, Stop> {
        let began = Instant::now();
        // Before the permit, as that is for a call that leaves at once.
        let slot = self.line.parts.client.slot().await;
        let waited = turn.permit().await;
        self.waited += began.elapsed();
        match waited {
            // What is recorded is called for, though the line stops; a recalled job's call is somebody else's.
            Waited::Permit(permit) if !self.recall.is_cancelled() => {
                metrics::permit(began.elapsed());
                Ok(Some(Departing { attempt, permit, slot }))
            }
            Waited::Permit(_) => {
                self.take_back(attempt);
                Err(Stop::Closed)
            }
            Waited::TooLong => {
                self.take_back(attempt);
                Ok(None)
            }
        }
    }

    pub(super) fn take_back(&mut self, attempt: Attempt) {
        self.decision.take_back();
        self.known = Some(attempt.recorded.into_row());
    }

    /// Makes the call, if its first byte leaves soon enough after the decision.
    pub(super) async fn call(&mut self, departing: Departing<'l>) -> Called {
        let Departing { attempt, mut permit, slot } = departing;
        self.tries += 1;
        let parts = &self.line.parts;
        let key = self.job.id.idempotency_key(self.decision.generation());
        if self.job.pin.is_some() {
            metrics::pin_used(self.job.age());
        }
        let departure = permit.departure();
        let (clock, decided, within) = (parts.clock.clone(), attempt.decided, parts.rules.departs_within);
        let deadline = self.job.deadline;
        let leaves = move || {
            let now = clock.moment();
            if now.since(decided) > within || is_past(deadline, now) {
                return Leave::Stay;
            }
            departure.left();
            Leave::Go
        };
        let stage = metrics::Stage::begin("create");
        let answer = parts.client.create_card(slot, &key, self.body(), leaves).await;
        stage.ended();
        self.known = Some(attempt.recorded.into_row());
        Called { permit, answer }
    }

    pub(super) fn body(&self) -> Wiped {
        let mut body = Wiped::with_capacity(2048);
        let pin = self.job.pin.as_ref().map(|pin| pin.expose());
        self.job.card.encode_into(&mut body, pin, self.job.id.as_str(), self.job.batch.as_str());
        body
    }
}

/// Whether the time of day is past a deadline.
pub(super) fn is_past(deadline: Option<Time>, now: Moment) -> bool {
    deadline.is_some_and(|deadline| now.wall > deadline)
}
