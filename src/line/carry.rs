//! One job's whole way: decide, prepare, record, leave, be answered; as often as it takes, and then its end.
//!
//! Each stage takes what the one before it hands on, which only that one can make: a turn of the pace, a verified
//! PIN, a recorded attempt, a permit. Nothing is decided before a wait and done after it: whatever was waited for, the
//! decision is made anew, and the ledger records an attempt only if its row still is what the decision was made from.

use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::decision::{Answered, Decision, Next, Verdict};
use super::gate::{Gate, Passed, Standing};
use super::look::{Looked, look};
use super::refusals::{Meaning, OnSameRefusals, Try};
use super::{Halt, LeaseUse, Line, LookFirst, Options, Stop, Vet, vet};
use crate::clock::{Boot, Moment, Time};
use crate::config::seconds;
use crate::job::{Job, PinMark};
use crate::jwe;
use crate::killpoint;
use crate::ledger::{Begin, Conclude, Recorded, Row, State};
use crate::metrics;
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pace::{Answered as Paced, CircuitState, Pass, Permit, Turn, Waited};
use crate::stripe::{Answer, Leave, Slot};
use crate::wipe::Wiped;

/// A job on its way.
struct Carried<'l> {
    line: &'l Line,
    job: Box<Job>,
    /// What it passes before its first call of this run.
    gate: Option<&'l Gate>,
    recall: CancellationToken,
    /// Whether it can go back to where it came from, and comes again.
    is_handed_back: bool,
    /// It will not be called for any more, and this is why.
    given_up: Option<Refusal>,
    /// The ledger's row, as it was last read or written.
    known: Option<Box<Row>>,
    decision: Decision,
    lease: Option<LeaseUse>,
    /// Whether its batch was asked about.
    is_vetted: bool,
    /// Whether an attempt was recorded in this run.
    has_begun: bool,
    note: Option<String>,
    request_id: Option<String>,
    /// Why the latest try did not end it; told if no try does.
    latest: Refusal,
    tries: u32,
    began: Instant,
    /// Of the time since, how much was spent waiting for the pace, or for what holds up all jobs alike.
    waited: Duration,
}

/// A job whose PIN is right under the key of this moment, or that has none.
#[must_use]
struct Ready(());

/// An attempt that is recorded, and when it was decided.
#[must_use]
struct Attempt {
    recorded: Recorded,
    decided: Moment,
}

/// An attempt that may be sent now, in its place among the calls.
#[must_use]
struct Departing<'l> {
    attempt: Attempt,
    permit: Permit,
    slot: Slot<'l>,
}

/// A call that was answered, or was not.
#[must_use]
struct Called {
    permit: Permit,
    answer: Answer,
}

/// Carries a job to its end. None if the line stopped, or the job was recalled, before anything was begun for it.
pub(super) async fn carry(
    line: &Line,
    job: Box<Job>,
    known: Option<Box<Row>>,
    options: Options<'_>,
) -> Option<Ended> {
    if let Some(ended) = known_end(line, &job, known.as_deref(), options.given_up.is_some()).await {
        return Some(ended);
    }
    let mut carried = Carried::begin(line, job, known, options);
    let ended = carried.through().await;
    carried.remember();
    match ended {
        Ok(ended) => Some(ended),
        Err(stop) => {
            line.note(stop);
            // A job for which no call was ever begun has not started: it is as if it had not been taken.
            (carried.decision.attempts() > 0).then(|| carried.unresolved())
        }
    }
}

impl Carried<'_> {
    /// The way of every job.
    async fn through(&mut self) -> Result<Ended, Stop> {
        loop {
            // An end needs no lease: it is recorded if its row still is as it is known, whoever calls meanwhile.
            if let Next::Finish(outcome) = self.decision.next(self.now()) {
                match self.conclude(outcome).await? {
                    Some(ended) => return Ok(ended),
                    None => continue,
                }
            }
            if self.is_stopped() {
                return Err(Stop::Closed);
            }
            if self.is_spent() {
                return Ok(self.unresolved());
            }
            self.hold_lease().await?;
            match self.decision.next(self.now()) {
                Next::Finish(_) => {}
                // On the heap, and only for as long as it takes: a job that waits is small, and many wait.
                Next::Look => Box::pin(self.look()).await?,
                Next::Call(_) => {
                    let span = tracing::info_span!("attempt", attempt = self.decision.attempts() + 1);
                    Box::pin(self.attempt()).instrument(span).await?;
                }
            }
        }
    }

    /// One attempt: turn → ready → recorded → departing → called. Each may end it; then all is decided anew.
    async fn attempt(&mut self) -> Result<(), Stop> {
        if !self.is_vetted().await? {
            return Ok(());
        }
        let Some(_may_try) = self.while_not_refused_alike().await? else { return Ok(()) };
        let Some(pass) = self.key_pass().await? else { return Ok(()) };
        let Some(turn) = self.turn().await? else { return Ok(()) };
        killpoint::pass("paced");
        let Some((turn, ready)) = self.prepare(turn, pass).await else { return Ok(()) };
        killpoint::pass("verified");
        let Some(attempt) = self.record(ready).await? else {
            drop(turn);
            return Ok(());
        };
        killpoint::pass("begun");
        let Some(departing) = self.depart(turn, attempt).await? else { return Ok(()) };
        let called = self.call(departing).await;
        killpoint::pass("answered");
        self.answered(called).await
    }
}

impl<'l> Carried<'l> {
    fn begin(line: &'l Line, job: Box<Job>, known: Option<Box<Row>>, options: Options<'l>) -> Self {
        let Options { gate, recall, given_up } = options;
        let decision = decide(line, &job, known.as_deref(), given_up.clone());
        Self {
            line,
            gate,
            recall: recall.cloned().unwrap_or_default(),
            is_handed_back: recall.is_some(),
            given_up,
            decision,
            lease: None,
            is_vetted: false,
            has_begun: false,
            note: None,
            known,
            job,
            request_id: None,
            latest: Refusal::own("interrupted", "the run was stopped; run it again"),
            tries: 0,
            began: Instant::now(),
            waited: Duration::ZERO,
        }
    }

    fn now(&self) -> Moment {
        self.line.parts.clock.moment()
    }

    fn is_stopped(&self) -> bool {
        self.line.is_stopping() || self.recall.is_cancelled()
    }

    /// Whether it was tried as often or as long as it may be in one run, waits for the pace not counted.
    fn is_spent(&self) -> bool {
        let retry = &self.line.parts.retry;
        let worked = self.began.elapsed().saturating_sub(self.waited);
        self.tries >= retry.attempts_max || worked > seconds(retry.elapsed_seconds_max)
    }

    /// The account's lease, which must be ours whenever something is decided.
    async fn hold_lease(&mut self) -> Result<(), Stop> {
        let began = Instant::now();
        match &self.lease {
            Some(_) => tokio::select! {
                assured = self.line.lease.assure(&self.line.stopping) => assured?,
                () = self.recall.cancelled() => return Err(Stop::Closed),
            },
            None => {
                let lease = tokio::select! {
                    lease = self.line.lease.take(&self.line.stopping) => lease?,
                    () = self.recall.cancelled() => return Err(Stop::Closed),
                };
                self.lease = Some(lease);
            }
        }
        self.waited += began.elapsed();
        Ok(())
    }

    /// The ledger's row is not what it was known as: everything is decided anew from what it is.
    fn changed(&mut self, found: Option<Box<Row>>) {
        self.decision = decide(self.line, &self.job, found.as_deref(), self.given_up.clone());
        self.known = found;
        if let Some(row) = self.known.as_deref().filter(|row| matches!(row.state, State::Issued(_))) {
            self.note = note_of(&self.job, row, None);
        }
    }

    /// Whether the job may be called for without a look, as far as its batch is known.
    async fn is_vetted(&mut self) -> Result<bool, Stop> {
        let parts = &self.line.parts;
        if self.is_vetted
            || self.known.is_some()
            || parts.vet == Vet::No
            || parts.look_first == LookFirst::Yes
        {
            return Ok(true);
        }
        match vet::vet(self.line, &self.job, &self.recall).await? {
            Ok(is_elsewhere) => {
                self.is_vetted = true;
                if is_elsewhere {
                    // It is looked for once; if it is not there, it is called for.
                    self.decision.settle_first();
                }
                Ok(!is_elsewhere)
            }
            Err(reason) => {
                self.tries += 1;
                self.latest = Refusal::own("not_reconciled", reason);
                self.wait(self.backoff()).await;
                Ok(false)
            }
        }
    }

    /// Waits while Stripe refuses every job alike; then this one tries for all, for as long as the answer is held. None if
    /// that took longer than a job may.
    async fn while_not_refused_alike(&mut self) -> Result<Option<Option<Try<'l>>>, Stop> {
        let line = self.line;
        self.while_all_wait(line.refusals.ready()).await
    }

    /// Leave to fetch the key, before the turn: whoever waits for the key endpoint keeps no turn from jobs without a PIN.
    /// None if that took longer than a job may.
    async fn key_pass(&mut self) -> Result<Option<Option<Pass>>, Stop> {
        if self.job.pin.is_none() {
            return Ok(Some(None));
        }
        let endpoint = self.line.parts.pace.key_endpoint();
        if endpoint.state() != CircuitState::Closed {
            // Rows without a PIN that come after it must not wait for its place.
            self.job.waiting = None;
        }
        Ok(self.while_all_wait(endpoint.ready()).await?.map(Some))
    }

    /// Waits for what holds up all jobs alike. One that can be handed back to where it came from waits no longer than a
    /// job may take in one run; for any other the wait does not count.
    async fn while_all_wait<T>(&mut self, ready: impl Future<Output = T>) -> Result<Option<T>, Stop> {
        let began = Instant::now();
        let left = async {
            if !self.is_handed_back {
                std::future::pending().await
            }
            let max = seconds(self.line.parts.retry.elapsed_seconds_max);
            let worked = self.began.elapsed().saturating_sub(self.waited);
            tokio::time::sleep(max.saturating_sub(worked) + Duration::from_millis(1)).await;
        };
        let waited = tokio::select! {
            ready = ready => Some(ready),
            () = left => None,
            () = self.line.stopping.cancelled() => return Err(Stop::Closed),
            () = self.recall.cancelled() => return Err(Stop::Closed),
        };
        if !self.is_handed_back {
            self.waited += began.elapsed();
        }
        Ok(waited)
    }

    /// A turn of the pace; none if the job was called off. One that comes while the gate is shut is handed on.
    async fn turn(&mut self) -> Result<Option<Turn>, Stop> {
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

    async fn turn_at_gate(&mut self) -> Result<Option<Turn>, Stop> {
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
    async fn prepare(&mut self, turn: Turn, pass: Option<Pass>) -> Option<(Turn, Ready)> {
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

    fn expired(&mut self) {
        let reason = "the PIN waited past its deadline; send the job again";
        self.decision.give_up(Refusal::own("expired", reason));
    }

    /// Records the attempt, if it still is what is to be done now: the key's age, the deadline, and the ledger's row are
    /// looked at here, after the last wait, and what follows leaves at once or not at all.
    async fn record(&mut self, Ready(()): Ready) -> Result<Option<Attempt>, Stop> {
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
    async fn depart(&mut self, turn: Turn, attempt: Attempt) -> Result<Option<Departing<'l>>, Stop> {
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

    fn take_back(&mut self, attempt: Attempt) {
        self.decision.take_back();
        self.known = Some(attempt.recorded.into_row());
    }

    /// Makes the call, if its first byte leaves soon enough after the decision.
    async fn call(&mut self, departing: Departing<'l>) -> Called {
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

    fn body(&self) -> Wiped {
        let mut body = Wiped::with_capacity(2048);
        let pin = self.job.pin.as_ref().map(|pin| pin.expose());
        self.job.card.encode_into(&mut body, pin, self.job.id.as_str(), self.job.batch.as_str());
        body
    }

    /// What the answer means for the job, the pace and all other jobs; and the wait before going on.
    async fn answered(&mut self, Called { permit, answer }: Called) -> Result<(), Stop> {
        let now = self.now();
        if !matches!(answer, Answer::NotSent(_) | Answer::HeldBack | Answer::Unknown { .. }) {
            self.line.has_answered();
        }
        let backoff = self.backoff();
        let (answered, paced, wait) = match answer {
            Answer::Issued { card, request_id, .. } => {
                self.line.refusals.accepted();
                if card.job.as_deref().is_some_and(|job| job != self.job.id.as_str()) {
                    // Keys follow from ids, so this cannot be; if it is, no conclusion may be drawn from it.
                    self.latest = Refusal::own("foreign_card", "Stripe answered with another job's card");
                    (Answered::Unknown, Paced::Accepted, Some(backoff))
                } else {
                    self.request_id = request_id;
                    self.made_with_this_pin();
                    (Answered::Card(card.card), Paced::Accepted, None)
                }
            }
            Answer::Refused { refusal, request_id, replayed, same } => {
                let answered = self.refused(refusal, request_id, replayed, &same);
                (answered, Paced::Accepted, None)
            }
            Answer::Forbidden { refusal, request_id, same } => {
                let answered = self.refused(refusal, request_id, false, &same);
                (answered, Paced::Accepted, None)
            }
            Answer::KeyRejected(reason) => {
                self.latest = Refusal::own("api_key_rejected", reason.clone());
                self.decision.answered(Answered::NoEffect, now);
                permit.answered(Paced::Accepted);
                self.line.halt_with(Halt::Key(reason));
                return Err(Stop::Halted);
            }
            Answer::Limited(reason) => {
                metrics::rate_limited(reason.word());
                self.latest = Refusal::own("rate_limited", format!("Stripe limits: {}", reason.word()));
                (Answered::NoEffect, Paced::Limited(reason), Some(Duration::ZERO))
            }
            Answer::NotSent(reason) => {
                self.latest = Refusal::own("stripe_unreachable", reason.clone());
                (Answered::NoEffect, Paced::Failed(reason), Some(backoff))
            }
            Answer::HeldBack => {
                self.latest =
                    Refusal::own("held_up", "the call came too late after its decision; it is made anew");
                self.decision.take_back();
                drop(permit);
                self.wait(backoff).await;
                return Ok(());
            }
            Answer::InUse(reason) => {
                self.latest = Refusal::own("still_running", reason);
                (Answered::InUse, Paced::Accepted, Some(backoff))
            }
            Answer::BodyDiffers => (Answered::BodyDiffers, Paced::Accepted, None),
            Answer::EndedBadly(reason) => {
                self.latest = Refusal::own("stripe_error", reason);
                (Answered::EndedBadly, Paced::Accepted, None)
            }
            Answer::Unknown { reason, trouble } => {
                self.latest = Refusal::own("no_answer", reason.clone());
                let paced = if trouble { Paced::Failed(reason) } else { Paced::Accepted };
                (Answered::Unknown, paced, Some(backoff))
            }
        };
        permit.answered(paced);
        self.decision.answered(answered, now);
        if let Some(wait) = wait {
            metrics::retried(&self.latest);
            self.wait(wait).await;
        }
        Ok(())
    }

    /// A definite no; unless Stripe says the same of everybody, then it is nobody's.
    fn refused(
        &mut self,
        refusal: Refusal,
        request_id: Option<String>,
        replayed: bool,
        same: &str,
    ) -> Answered {
        if replayed {
            self.request_id = request_id;
            return Answered::No { refusal, replayed };
        }
        let meaning = self.line.refusals.refused(same, &refusal.message);
        if meaning == Meaning::FinalAndLast && self.line.parts.same_refusals.1 == OnSameRefusals::Stop {
            self.line.halt_with(Halt::SameRefusals(refusal.message.clone()));
        } else if meaning == Meaning::FinalAndLast {
            tracing::error!(
                reason = refusal.message,
                "Stripe refuses every job alike; jobs wait, and one tries"
            );
        }
        if meaning == Meaning::Repeated {
            self.latest = Refusal {
                code: refusal.code,
                message: format!("Stripe says of every job: {}", refusal.message),
            };
            return Answered::NoEffect;
        }
        self.request_id = request_id;
        Answered::No { refusal, replayed }
    }

    /// Looks for the job's card at Stripe.
    async fn look(&mut self) -> Result<(), Stop> {
        self.tries += 1;
        let (key_began, from) = (self.decision.key_began(), self.decision.absence_counts_from());
        match look(self.line, &self.job, key_began, from, &self.recall).await? {
            Looked::Verdict(verdict, began) => {
                let word = match verdict {
                    Verdict::Found(_) => "found",
                    Verdict::Other { .. } => "other",
                    Verdict::Absent => "absent",
                };
                metrics::reconciled(word);
                tracing::info!(verdict = word, "reconciled");
                if let Some(again) = self.decision.looked(verdict, began) {
                    self.tries -= 1;
                    let reason =
                        "an earlier call may still be running, or its card not be in Stripe's lists yet";
                    self.latest = Refusal::own("still_running", reason);
                    self.wait_until(again).await;
                }
            }
            Looked::Failed(reason) => {
                metrics::reconciled("failed");
                self.latest = Refusal::own("not_reconciled", reason);
                self.wait(self.backoff()).await;
            }
        }
        Ok(())
    }

    /// Until then, by a clock that counts sleep.
    async fn wait_until(&mut self, until: Boot) {
        /// A sleep of the process's own timer may be longer by the time that the machine slept.
        const LOOK_EVERY: Duration = Duration::from_secs(5);
        // To the second, so that jobs that wait for nearly the same share one listing.
        let until = until.up_to_the_second();
        // Nobody else is held up, so the lease may go meanwhile.
        self.lease = None;
        let began = Instant::now();
        loop {
            let left = until.since(self.line.parts.clock.boot());
            if left.is_zero() || self.is_stopped() {
                break;
            }
            self.wait(left.min(LOOK_EVERY)).await;
        }
        self.waited += began.elapsed();
    }

    async fn wait(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.line.stopping.cancelled() => {}
            () = self.recall.cancelled() => {}
        }
    }

    /// Doubling, with full jitter above half: many jobs that failed together do not come back together.
    fn backoff(&self) -> Duration {
        let retry = &self.line.parts.retry;
        let doubled = retry.backoff_seconds_min * f64::from(1u32 << self.tries.min(16));
        let ceiling = doubled.min(retry.backoff_seconds_max);
        seconds(ceiling * rand::rng().random_range(0.5..=1.0))
    }

    /// The row as it is to be.
    fn row(&self, state: State, now: Moment) -> Row {
        let known = self.known.as_deref();
        let mut row = Row::of(&self.line.parts.scope, &self.job, state, now.wall);
        row.generation = self.decision.generation();
        row.attempts = self.decision.attempts();
        row.key_began = self.decision.key_began().or(known.and_then(|known| known.key_began));
        row.attempted =
            if row.state == State::Begun { Some(now.wall) } else { known.and_then(|known| known.attempted) };
        match (&row.state, known.filter(|known| known.state == State::Begun)) {
            // As long as an earlier call may have made the card, it may have that call's PIN.
            (State::Begun, Some(known)) if self.decision.attempts() > 1 => row.pin = known.pin,
            (State::Begun, _) => {}
            // The end is of what was called for, whatever is asked for now.
            (State::Issued(_) | State::Refused(_), Some(known)) => {
                (row.pin, row.content) = (known.pin, known.content)
            }
            (State::Issued(_) | State::Refused(_), None) => row.pin = None,
        }
        row.note.clone_from(&self.note);
        row.request_id.clone_from(&self.request_id);
        row
    }

    /// Stripe answered with a card: the call that made it had this very body, and so this PIN.
    fn made_with_this_pin(&mut self) {
        let mark = self.job.pin.as_ref().map(PinMark::of);
        if let Some(known) = &mut self.known {
            known.pin = mark;
        }
    }

    /// Records the end, and tells it; none if the row has changed meanwhile, so that all is decided anew.
    async fn conclude(&mut self, outcome: Outcome) -> Result<Option<Ended>, Stop> {
        let state = match &outcome {
            Outcome::Issued(card) => State::Issued(card.clone()),
            Outcome::Refused(refusal) => State::Refused(refusal.clone()),
            Outcome::Unresolved(_) => return Ok(Some(self.unresolved())),
        };
        if let Some(row) = self.known.as_deref().filter(|row| matches!(row.state, State::Issued(_))) {
            if row.state != state {
                tracing::error!(job = %self.job.id, "two cards carry this job's id; the first one recorded is told");
            }
            return Ok(Some(Ended { note: joined(&self.job, self.note.take()), ..row.ended() }));
        }
        let now = self.now();
        let mut row = self.row(state, now);
        if matches!(row.state, State::Issued(_)) && self.note.is_none() {
            row.note = note_of(&self.job, &row, self.known.as_deref());
            self.note.clone_from(&row.note);
        }
        let stage = metrics::Stage::begin("record");
        let concluded = self.line.parts.ledger.conclude(row, self.known.as_deref()).await?;
        stage.ended();
        match concluded {
            Conclude::Written(row) => {
                killpoint::pass("recorded");
                self.known = Some(row);
                Ok(Some(Ended {
                    outcome,
                    attempts: self.decision.attempts(),
                    request_id: self.request_id.take(),
                    recorded_before: false,
                    note: joined(&self.job, self.note.take()),
                }))
            }
            // A card that exists is told, whatever somebody else has recorded since.
            Conclude::Changed(found) if matches!(outcome, Outcome::Issued(_)) => {
                self.known = found;
                Ok(None)
            }
            Conclude::Changed(found) => {
                self.changed(found);
                Ok(None)
            }
        }
    }

    fn unresolved(&self) -> Ended {
        Ended {
            outcome: Outcome::Unresolved(self.latest.clone()),
            attempts: self.decision.attempts(),
            request_id: self.request_id.clone(),
            recorded_before: false,
            note: joined(&self.job, self.note.clone()),
        }
    }

    /// What was seen of a row whose end is not known counts at its next visit.
    fn remember(&self) {
        let open = self.known.as_deref().filter(|row| row.state == State::Begun);
        let seen = open.and_then(|row| Some((row.version, self.decision.sighting()?)));
        self.line.remember(&self.job, seen);
    }
}

/// Whether the time of day is past a deadline.
fn is_past(deadline: Option<Time>, now: Moment) -> bool {
    deadline.is_some_and(|deadline| now.wall > deadline)
}

/// What is to be done with a job of which the ledger says this.
fn decide(line: &Line, job: &Job, known: Option<&Row>, given_up: Option<Refusal>) -> Decision {
    let look_first = line.parts.look_first == LookFirst::Yes;
    let sighting = known.and_then(|row| line.sighting(row));
    let now = line.parts.clock.moment();
    let mut decision = Decision::resume(known, sighting, look_first, now, line.parts.rules);
    // What was asked for first may have its card; what is asked for now cannot be known by the same key.
    if known.is_some_and(|row| row.state == State::Begun && !job.asks_for(row.content)) {
        decision.settle_first();
    }
    if let Some(refusal) = given_up {
        decision.give_up(refusal);
    }
    decision
}

/// The end that the ledger knows, if it does. What is wanted differently now is noted beside it.
async fn known_end(line: &Line, job: &Job, known: Option<&Row>, is_given_up: bool) -> Option<Ended> {
    let row = known?;
    match &row.state {
        State::Issued(_) => {
            let note = note_of(job, row, None);
            if note != row.note && !is_given_up {
                let noted = line.parts.ledger.annotate(&row.scope, &row.id, row.step, note.clone()).await;
                if let Err(error) = noted {
                    line.halt_with(Halt::Ledger(error.to_string()));
                }
            }
            Some(Ended { note: joined(job, note), ..row.ended() })
        }
        State::Refused(_) if is_given_up => Some(row.ended()),
        State::Refused(_) | State::Begun => None,
    }
}

/// What a reader must know beside a card that is not wholly what is asked for now. `begun` is the row from before the card was
/// known, if it was not.
pub(super) fn note_of(job: &Job, row: &Row, begun: Option<&Row>) -> Option<String> {
    let called_for = begun.unwrap_or(row);
    if !job.asks_for(called_for.content) {
        return Some(
            "the card exists, made with what was asked for first; the change was not applied: make it at Stripe, in the \
             Dashboard or with update_card"
                .to_owned(),
        );
    }
    // Of a card that was found, or that a ledger of the first version knows, no PIN is known.
    let is_known = begun.is_some() || row.version.0 > 1;
    let mark = job.pin.as_ref().map(PinMark::of);
    (is_known && mark.is_some() && called_for.pin != mark)
        .then(|| "the card keeps the PIN it was made with; a later one was not applied".to_owned())
}

/// Both notes, if there are two.
fn joined(job: &Job, note: Option<String>) -> Option<String> {
    match (&job.note, note) {
        (Some(first), Some(second)) => Some(format!("{first}; {second}")),
        (first, second) => second.or_else(|| first.clone()),
    }
}
