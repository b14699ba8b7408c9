//! One job's way from its admission to its end: pace → key → verify → create → record, as often as it takes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::course::{Answered, Course, Step, Verdict};
use super::gate::{Gate, Passed, Standing};
use super::{FORBIDDEN_MAX, Halt, Line};
use crate::config::seconds;
use crate::job::Job;
use crate::jwe;
use crate::killpoint;
use crate::ledger::{LedgerError, Row, State};
use crate::metrics;
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pace::{Answered as Paced, Pass, Permit, Turn, Waited};
use crate::stripe::{Answer, Leave, ListedCard};
use crate::wipe::Wiped;

/// Why a pass through the loop could not go on.
pub(super) enum Stop {
    Halted,
    Closed,
    Ledger(LedgerError),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// What came of preparing a call.
enum Prepared {
    /// It can be made.
    Ready,
    /// It can never be made with this PIN.
    Refused,
    /// Not now: again after a wait.
    NotYet(Duration),
}

/// One job's passage.
pub(super) struct Passage<'l> {
    pub(super) line: &'l Line,
    /// What the job passes before its first call of this run.
    pub(super) gate: Option<&'l Gate>,
    /// Cancelled when the job is to go back to where it came from.
    pub(super) recall: Option<&'l CancellationToken>,
    /// Calls made in earlier runs.
    pub(super) attempts_before: u32,
    pub(super) job: Box<Job>,
    pub(super) course: Course,
    pub(super) request_id: Option<String>,
    /// Why the latest try did not end it; told if no try does.
    pub(super) latest: Refusal,
    pub(super) tries: u32,
    pub(super) began: Instant,
    /// Of the time since, how much was spent waiting for the pace.
    pub(super) paced: Duration,
}

impl Passage<'_> {
    pub(super) async fn through(&mut self) -> Result<Ended, Stop> {
        let retry = &self.line.parts.retry;
        loop {
            let now = self.line.parts.clock.now();
            match self.course.step(now) {
                Step::Finish(outcome) => return self.record(outcome).await,
                _ if self.line.stopping.is_cancelled() || self.is_recalled() => return Err(Stop::Closed),
                _ if self.tries >= retry.attempts_max
                    || self.worked() > seconds(retry.elapsed_seconds_max) =>
                {
                    return Ok(self.unresolved());
                }
                // On the heap, and only for as long as it takes: a job that waits is small, and many wait.
                Step::Create(_) => {
                    let span = tracing::info_span!("attempt", attempt = self.course.attempts() + 1);
                    Box::pin(self.create()).instrument(span).await?;
                }
                Step::Reconcile => Box::pin(self.reconcile()).await?,
            }
        }
    }

    fn is_recalled(&self) -> bool {
        self.recall.is_some_and(CancellationToken::is_cancelled)
    }

    async fn recalled(&self) {
        match self.recall {
            Some(recall) => recall.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// How long the job was worked on, waits for the pace not counted.
    fn worked(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.paced)
    }

    /// pace → key → verify → (attempt recorded) → create.
    async fn create(&mut self) -> Result<(), Stop> {
        let pass = self.key_pass().await?;
        let Some(turn) = self.turn().await? else {
            self.course
                .give_up(Refusal::own("cancelled", "the batch was cancelled before this row had begun"));
            return Ok(());
        };
        let now = self.line.parts.clock.now();
        if self.job.deadline.is_some_and(|deadline| now > deadline) {
            self.course
                .give_up(Refusal::own("expired", "the PIN waited past its deadline; send the job again"));
            return Ok(());
        }
        killpoint::pass("paced");
        match self.key_and_verify(pass).await {
            Prepared::Ready => {}
            Prepared::Refused => return Ok(()),
            Prepared::NotYet(wait) => {
                // Whoever waits holds nobody up.
                turn.failed();
                self.wait(wait).await;
                return Ok(());
            }
        }
        killpoint::pass("verified");
        self.course.begin(self.line.parts.clock.now());
        let stage = metrics::Stage::begin("record_attempt");
        self.line.parts.ledger.write(self.row(State::Begun)).await?;
        stage.ended();
        killpoint::pass("begun");
        let slot = self.line.parts.client.slot().await;
        let Some(mut permit) = self.permit(turn).await else {
            self.course.unbegin();
            return Ok(());
        };
        if self.is_recalled() {
            self.course.unbegin();
            return Err(Stop::Closed);
        }
        self.tries += 1;
        let key = self.job.id.idempotency_key(self.course.generation());
        if self.job.pin.is_some() {
            metrics::pin_used(self.job.age());
        }
        let departure = permit.departure();
        let stage = metrics::Stage::begin("create");
        let leaves = move || {
            departure.left();
            Leave::Go
        };
        let answer = self.line.parts.client.create_card(slot, &key, self.body(), leaves).await;
        stage.ended();
        killpoint::pass("answered");
        let wait = self.take(answer, permit)?;
        if let Some(wait) = wait {
            metrics::retried(&self.latest);
            self.wait(wait).await;
        }
        Ok(())
    }

    /// Leave to fetch the key, before the turn: whoever waits for the key endpoint keeps none from jobs without a PIN.
    async fn key_pass(&mut self) -> Result<Option<Pass>, Stop> {
        if self.job.pin.is_none() {
            return Ok(None);
        }
        let asked = Instant::now();
        let pass = tokio::select! {
            pass = self.line.parts.pace.key_endpoint().ready() => pass,
            () = self.line.stopping.cancelled() => return Err(Stop::Closed),
            () = self.recalled() => return Err(Stop::Closed),
        };
        self.paced += asked.elapsed();
        Ok(Some(pass))
    }

    /// The moment to send; none if it came so late that all must be prepared anew.
    async fn permit(&mut self, turn: Turn) -> Option<Permit> {
        let asked = Instant::now();
        let waited = turn.permit().await;
        self.paced += asked.elapsed();
        match waited {
            Waited::Permit(permit) => {
                metrics::permit(asked.elapsed());
                Some(permit)
            }
            Waited::TooLong => None,
        }
    }

    /// A turn of the pace; none if the job was called off. One that comes while the gate is shut is handed on.
    async fn turn(&mut self) -> Result<Option<Turn>, Stop> {
        let asked = Instant::now();
        let turn = self.turn_at_gate().await;
        self.paced += asked.elapsed();
        self.job.waiting = None;
        metrics::stage("pace", asked.elapsed());
        turn
    }

    async fn turn_at_gate(&self) -> Result<Option<Turn>, Stop> {
        let gate = self.gate.filter(|_| self.course.attempts() == self.attempts_before);
        loop {
            if let Some(gate) = gate {
                let passed = tokio::select! {
                    passed = gate.passed() => passed,
                    () = self.line.stopping.cancelled() => return Err(Stop::Closed),
                };
                if passed == Passed::CalledOff {
                    return Ok(None);
                }
            }
            let turn = tokio::select! {
                turn = self.line.parts.pace.turn() => turn.map_err(|_| Stop::Closed)?,
                () = self.recalled() => return Err(Stop::Closed),
            };
            if gate.is_none_or(|gate| gate.standing() == Standing::Open) {
                return Ok(Some(turn));
            }
        }
    }

    /// Fetches the key and verifies the PIN against it; without a PIN there is nothing to fetch.
    async fn key_and_verify(&mut self, pass: Option<Pass>) -> Prepared {
        let (Some(pin), Some(pass)) = (&self.job.pin, pass) else { return Prepared::Ready };
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
                return Prepared::NotYet(self.backoff());
            }
        };
        let stage = metrics::Stage::begin("verify");
        let verified = jwe::verify(pin.expose(), &key);
        stage.ended();
        match verified {
            Ok(()) => Prepared::Ready,
            Err(refusal) => {
                if refusal == jwe::Refusal::StaleKey {
                    metrics::stale_key();
                }
                self.course.give_up(Refusal::own(refusal.code(), refusal.to_string()));
                Prepared::Refused
            }
        }
    }

    fn body(&self) -> Wiped {
        let mut body = Wiped::with_capacity(2048);
        let pin = self.job.pin.as_ref().map(|pin| pin.expose());
        self.job.card.encode_into(&mut body, pin, self.job.id.as_str(), self.job.batch.as_str());
        body
    }

    /// Tells the course and the pace what the answer means; answers how long to wait before going on.
    fn take(&mut self, answer: Answer, permit: Permit) -> Result<Option<Duration>, Stop> {
        let now = self.line.parts.clock.now();
        let backoff = self.backoff();
        let (answered, paced, wait) = match answer {
            Answer::Issued { card, request_id, .. } => {
                let ListedCard { card, job, .. } = *card;
                self.line.forbidden.store(0, Ordering::Relaxed);
                if job.is_some_and(|job| job != self.job.id.as_str()) {
                    // Keys follow from ids, so this cannot be; if it is, no conclusion may be drawn from it.
                    self.latest = Refusal::own("foreign_card", "Stripe answered with another job's card");
                    (Answered::Unknown, Paced::Accepted, Some(backoff))
                } else {
                    self.request_id = request_id;
                    (Answered::Card(card), Paced::Accepted, None)
                }
            }
            Answer::Refused { refusal, request_id, replayed, .. } => {
                self.request_id = request_id;
                (Answered::No { refusal, replayed }, Paced::Accepted, None)
            }
            Answer::Forbidden { refusal, request_id, .. } => {
                if self.line.forbidden.fetch_add(1, Ordering::Relaxed) + 1 >= FORBIDDEN_MAX {
                    self.line.halt_with(Halt::Key(refusal.message.clone()));
                }
                self.request_id = request_id;
                (Answered::No { refusal, replayed: false }, Paced::Accepted, None)
            }
            Answer::KeyRejected(reason) => {
                self.latest = Refusal::own("api_key_rejected", reason.clone());
                self.course.answered(Answered::NoEffect, now);
                permit.answered(Paced::Accepted);
                self.line.halt_with(Halt::Key(reason));
                return Err(Stop::Halted);
            }
            Answer::Limited(reason) => {
                metrics::rate_limited(reason.word());
                self.latest = Refusal::own("rate_limited", format!("Stripe limits: {}", reason.word()));
                (Answered::NoEffect, Paced::Limited(reason), Some(Duration::ZERO))
            }
            Answer::HeldBack => {
                self.course.unbegin();
                return Ok(Some(Duration::ZERO));
            }
            Answer::NotSent(reason) => {
                self.latest = Refusal::own("stripe_unreachable", reason.clone());
                (Answered::NoEffect, Paced::Failed(reason), Some(backoff))
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
        self.course.answered(answered, now);
        Ok(wait)
    }

    /// Looks for the job's card among its cardholder's.
    async fn reconcile(&mut self) -> Result<(), Stop> {
        self.tries += 1;
        let looked = self.line.parts.clock.now();
        let since = self.course.open_since().map(|(key_began, _)| key_began);
        match super::reconcile::look(self.line, &self.job, since).await? {
            Ok(verdict) => {
                let word = if matches!(verdict, Verdict::Found(_)) { "found" } else { "absent" };
                metrics::reconciled(word);
                tracing::info!(verdict = word, "reconciled");
                if let Some(again) = self.course.reconciled(verdict, looked) {
                    self.tries -= 1;
                    self.latest = Refusal::own("still_running", "an earlier call may still be running");
                    self.wait(again.since(looked)).await;
                }
            }
            Err(reason) => {
                metrics::reconciled("failed");
                self.latest = Refusal::own("not_reconciled", reason);
                self.wait(self.backoff()).await;
            }
        }
        Ok(())
    }

    async fn wait(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.line.stopping.cancelled() => {}
            () = self.recalled() => {}
        }
    }

    /// Doubling, with full jitter above half: many jobs that failed together do not come back together.
    fn backoff(&self) -> Duration {
        let retry = &self.line.parts.retry;
        let doubled = retry.backoff_seconds_min * f64::from(1u32 << self.tries.min(16));
        let ceiling = doubled.min(retry.backoff_seconds_max);
        seconds(ceiling * rand::rng().random_range(0.5..=1.0))
    }

    fn row(&self, state: State) -> Row {
        let parts = &self.line.parts;
        let mut row = Row::of(&parts.scope, &self.job, state, parts.clock.now());
        row.generation = self.course.generation();
        row.attempts = self.course.attempts();
        if let Some((key_began, last)) = self.course.open_since() {
            row.key_began = Some(key_began);
            row.attempted = Some(last);
        }
        row.request_id.clone_from(&self.request_id);
        row
    }

    async fn record(&mut self, outcome: Outcome) -> Result<Ended, Stop> {
        let state = match &outcome {
            Outcome::Issued(card) => State::Issued(card.clone()),
            Outcome::Refused(refusal) => State::Refused(refusal.clone()),
            Outcome::Unresolved(_) => return Ok(self.unresolved()),
        };
        let stage = metrics::Stage::begin("record");
        self.line.parts.ledger.write(self.row(state)).await?;
        stage.ended();
        killpoint::pass("recorded");
        Ok(Ended {
            outcome,
            attempts: self.course.attempts(),
            request_id: self.request_id.take(),
            recorded_before: false,
        })
    }

    pub(super) fn unresolved(&self) -> Ended {
        Ended {
            outcome: Outcome::Unresolved(self.latest.clone()),
            attempts: self.course.attempts(),
            request_id: self.request_id.clone(),
            recorded_before: false,
        }
    }
}
