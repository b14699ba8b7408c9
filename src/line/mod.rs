//! The line that every job goes down once: admit → pace → key → verify → create → record.
//!
//! [`Line::carry`] is the whole of it. What to do next is decided in [`course`]; this file does it. The order of
//! writes is always: attempt recorded, call made, outcome recorded, caller told.

pub mod course;
pub mod gate;
mod reconcile;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{RetryConfig, seconds};
use crate::job::{Job, JobId};
use crate::jwe::{self, KeyReader};
use crate::killpoint;
use crate::ledger::{Ledger, LedgerError, Row, Scope, State};
use crate::metrics;
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pace::{Answered as Paced, Pace, Permit, Turn, Waited};
use crate::stripe::{Answer, Client};
use course::{Answered, Course, Rules, Step, Verdict};
use gate::{Gate, Passed, Standing};

/// 403s in a row, with no card between them, after which the key is taken to lack the permission altogether.
const FORBIDDEN_MAX: u32 = 5;

/// Whether cards are looked for before the first call, for when the ledger may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookFirst {
    /// The ledger is whole.
    No,
    /// It may not be.
    Yes,
}

/// Why the whole line stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Stripe does not accept the key, or it may not create cards.
    #[error("Stripe refuses the API key: {0}")]
    Key(String),
    /// Outcomes can no longer be recorded.
    #[error("{0}")]
    Ledger(String),
}

/// What the line is made of.
pub struct Parts {
    /// To Stripe.
    pub client: Client,
    /// The account's pace.
    pub pace: Pace,
    /// What is known.
    pub ledger: Ledger,
    /// Whose cards.
    pub scope: Scope,
    /// The time.
    pub clock: Clock,
    /// How often and how long.
    pub retry: RetryConfig,
    /// Bounds of the exactly-once rules.
    pub rules: Rules,
    /// Whether to look before the first call.
    pub look_first: LookFirst,
}

/// The line. One per account; shared by all its jobs.
pub struct Line {
    parts: Parts,
    keys: KeyReader,
    in_hand: Mutex<HashMap<JobId, Arc<tokio::sync::Mutex<()>>>>,
    forbidden: AtomicU32,
    halted: Mutex<Option<Halt>>,
    /// Cancelled when the line stops taking jobs; waits between attempts end at once.
    stopping: CancellationToken,
}

/// How a job goes down the line.
#[derive(Default)]
struct Way<'w> {
    /// What it passes before its first call of this run.
    gate: Option<&'w Gate>,
    /// Cancelled when it is to go back to where it came from.
    recall: Option<&'w CancellationToken>,
    /// It will not be called for any more, and this is why.
    given_up: Option<Refusal>,
}

/// Why a pass through the loop could not go on.
enum Stop {
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
struct Passage<'l> {
    line: &'l Line,
    /// What the job passes before its first call of this run.
    gate: Option<&'l Gate>,
    /// Cancelled when the job is to go back to where it came from.
    recall: Option<&'l CancellationToken>,
    /// Calls made in earlier runs.
    attempts_before: u32,
    job: Box<Job>,
    course: Course,
    request_id: Option<String>,
    /// Why the latest try did not end it; told if no try does.
    latest: Refusal,
    tries: u32,
    began: Instant,
    /// Of the time since, how much was spent waiting for the pace.
    paced: Duration,
}

impl Line {
    /// A line of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            keys: KeyReader::default(),
            in_hand: Mutex::new(HashMap::new()),
            forbidden: AtomicU32::new(0),
            halted: Mutex::new(None),
            stopping: CancellationToken::new(),
        }
    }

    /// What it is made of.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// No more attempts begin; calls under way end, waits are cut short.
    pub fn stop(&self) {
        self.stopping.cancel();
        self.parts.pace.close();
    }

    /// Whether it stops or has stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Resolves when the line stops.
    pub async fn stopped(&self) {
        self.stopping.cancelled().await;
    }

    /// Why it stopped by itself, if it did.
    #[must_use]
    pub fn halt(&self) -> Option<Halt> {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn halt_with(&self, halt: Halt) {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        if halted.is_none() {
            tracing::error!(reason = %halt, "the line stops");
            *halted = Some(halt);
        }
        drop(halted);
        self.stop();
    }

    /// Takes a job down the line to its end. The same id twice at once is carried one after the other, so that the
    /// second meets the first one's record. `None` if the line stopped before anything was begun for it.
    pub fn carry(&self, job: impl Into<Box<Job>>) -> impl Future<Output = Option<Ended>> + Send {
        self.carry_in_turn(job.into(), Way::default())
    }

    /// As [`Self::carry`], but the job begins only while the gate is open; called off, it is refused `cancelled`
    /// unless it has begun, now or in an earlier run.
    pub async fn carry_through(&self, gate: &Gate, job: Job) -> Option<Ended> {
        self.carry_in_turn(job.into(), Way { gate: Some(gate), ..Way::default() }).await
    }

    /// As [`Self::carry`], until it is recalled: then a call under way ends, no other begins, and the job ends as if
    /// the line had stopped.
    pub async fn carry_until(&self, recall: &CancellationToken, job: Job) -> Option<Ended> {
        self.carry_in_turn(job.into(), Way { recall: Some(recall), ..Way::default() }).await
    }

    /// Answers a job that will not be called for any more: with its card if it has one, by a look at Stripe if a call
    /// was begun for it, and else with this refusal. `None` if it was recalled, or the line stopped meanwhile.
    pub async fn close_off(&self, recall: &CancellationToken, job: Job, refusal: Refusal) -> Option<Ended> {
        let way = Way { recall: Some(recall), given_up: Some(refusal), gate: None };
        self.carry_in_turn(job.into(), way).await
    }

    #[tracing::instrument(name = "job", skip_all, fields(job = %job.id, batch = %job.batch))]
    async fn carry_in_turn(&self, job: Box<Job>, way: Way<'_>) -> Option<Ended> {
        let id = job.id.clone();
        let in_flight = metrics::InFlight::begin();
        let turnstile = {
            let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
            in_hand.entry(id.clone()).or_default().clone()
        };
        let ended = {
            let _alone = turnstile.lock().await;
            self.carry_alone(job, way).await
        };
        let mut in_hand = self.in_hand.lock().unwrap_or_else(PoisonError::into_inner);
        // Two holders are this function's clone and the map's own: nobody else waits.
        if Arc::strong_count(&turnstile) <= 2 {
            in_hand.remove(&id);
        }
        drop(in_hand);
        if let Some(ended) = &ended {
            tell(ended, in_flight.elapsed());
            in_flight.ended(ended);
        }
        ended
    }

    async fn carry_alone(&self, job: Box<Job>, way: Way<'_>) -> Option<Ended> {
        let stage = metrics::Stage::begin("admit");
        let known = self.parts.ledger.look_up(&self.parts.scope, &job.id).await;
        stage.ended();
        let known = match known {
            Ok(known) => known,
            Err(error) => {
                self.halt_with(Halt::Ledger(error.to_string()));
                return None;
            }
        };
        if let Some(row) = &known {
            // What was refused made no card, so it may come again with other content. Nothing else may.
            if row.fingerprint != job.fingerprint() && !matches!(row.state, State::Refused(_)) {
                return Some(conflict(row));
            }
            let closed = way.given_up.is_some() && matches!(row.state, State::Refused(_));
            if closed || matches!(row.state, State::Issued(_)) {
                return Some(row.ended());
            }
        }
        let look_first = self.parts.look_first == LookFirst::Yes;
        let mut course = Course::resume(known.as_ref(), look_first, self.parts.rules);
        if let Some(refusal) = way.given_up {
            course.give_up(refusal);
        }
        let begun_before = known.as_ref().is_some_and(|row| row.state == State::Begun);
        let mut passage = Passage {
            line: self,
            gate: way.gate.filter(|_| !begun_before),
            recall: way.recall,
            attempts_before: course.attempts(),
            job,
            course,
            request_id: None,
            latest: Refusal::own("interrupted", "the run was stopped; run it again"),
            tries: 0,
            began: Instant::now(),
            paced: Duration::ZERO,
        };
        match passage.through().await {
            Ok(ended) => Some(ended),
            Err(stop) => {
                if let Stop::Ledger(error) = stop {
                    self.halt_with(Halt::Ledger(error.to_string()));
                }
                // A job for which no call was ever begun has not started: it is as if it had not been taken.
                (begun_before || passage.course.attempts() > 0).then(|| passage.unresolved())
            }
        }
    }
}

/// The one line that the log has of each job.
fn tell(ended: &Ended, took: Duration) {
    let code = match &ended.outcome {
        Outcome::Issued(_) => "",
        Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => refusal.code.as_ref(),
    };
    tracing::info!(
        outcome = ended.outcome.word(),
        code,
        attempts = ended.attempts,
        recorded_before = ended.recorded_before,
        seconds = took.as_secs_f64(),
        request_id = ended.request_id.as_deref().unwrap_or(""),
        "job ended"
    );
}

/// The refusal of a job whose id was begun with other content.
pub(crate) fn conflict(row: &Row) -> Ended {
    let message = match &row.state {
        State::Issued(card) => format!("this job id already has card {}, made with other content", card.id),
        State::Begun | State::Refused(_) => "this job id was begun with other content".to_owned(),
    };
    Ended {
        outcome: Outcome::Refused(Refusal::own(
            "job_conflict",
            message + "; use another row_id for another card",
        )),
        attempts: row.attempts,
        request_id: None,
        recorded_before: false,
    }
}

impl Passage<'_> {
    async fn through(&mut self) -> Result<Ended, Stop> {
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
                Step::Create(_) => Box::pin(self.create()).await?,
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
    #[tracing::instrument(skip_all, name = "attempt", fields(attempt = self.course.attempts() + 1))]
    async fn create(&mut self) -> Result<(), Stop> {
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
        match self.key_and_verify().await {
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
        let answer =
            self.line.parts.client.create_card(slot, &key, self.body(), move || departure.left()).await;
        stage.ended();
        killpoint::pass("answered");
        let wait = self.take(answer, permit)?;
        if let Some(wait) = wait {
            metrics::retried(&self.latest);
            self.wait(wait).await;
        }
        Ok(())
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
    async fn key_and_verify(&mut self) -> Prepared {
        let Some(pin) = &self.job.pin else { return Prepared::Ready };
        let stage = metrics::Stage::begin("key");
        let key = match self.line.parts.client.pin_key().await {
            Ok(document) => self.line.keys.read(document).map_err(|error| error.to_string()),
            Err(reason) => Err(reason),
        };
        stage.ended();
        let key = match key {
            Ok(key) => key,
            Err(reason) => {
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

    fn body(&self) -> Zeroizing<Vec<u8>> {
        let mut body = Zeroizing::new(Vec::with_capacity(2048));
        let pin = self.job.pin.as_ref().map(|pin| pin.expose());
        self.job.card.encode_into(&mut body, pin, self.job.id.as_str(), self.job.batch.as_str());
        body
    }

    /// Tells the course and the pace what the answer means; answers how long to wait before going on.
    fn take(&mut self, answer: Answer, permit: Permit) -> Result<Option<Duration>, Stop> {
        let now = self.line.parts.clock.now();
        let backoff = self.backoff();
        let (answered, paced, wait) = match answer {
            Answer::Issued { card, job, request_id, .. } => {
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
            Answer::Refused { refusal, request_id, replayed } => {
                self.request_id = request_id;
                (Answered::No { refusal, replayed }, Paced::Accepted, None)
            }
            Answer::Forbidden { refusal, request_id } => {
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
            Answer::NotSent(reason) => {
                self.latest = Refusal::own("stripe_unreachable", reason);
                (Answered::NoEffect, Paced::Failed, Some(backoff))
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
                self.latest = Refusal::own("no_answer", reason);
                let paced = if trouble { Paced::Failed } else { Paced::Accepted };
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
        match reconcile::look(self.line, &self.job, since).await? {
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

    fn unresolved(&self) -> Ended {
        Ended {
            outcome: Outcome::Unresolved(self.latest.clone()),
            attempts: self.course.attempts(),
            request_id: self.request_id.clone(),
            recorded_before: false,
        }
    }
}
