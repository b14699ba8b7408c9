//! The line that every job goes down once: admit → pace → key → verify → create → record.
//!
//! [`Line::carry`] is the whole of it. It lets one job of an id through at a time (`in_hand`); what to do next is decided
//! in [`course`], and `passage` does it. The order of writes is always: attempt recorded, call made, outcome recorded, caller
//! told.

pub mod course;
pub mod gate;
mod in_hand;
mod passage;
mod reconcile;

use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::config::RetryConfig;
use crate::job::Job;
use crate::jwe::KeyReader;
use crate::ledger::{Ledger, LedgerError, Row, Scope, State};
use crate::metrics;
use crate::outcome::{Ended, Outcome, Refusal};
use crate::pace::Pace;
use crate::stripe::Client;
use course::{Course, Rules};
use gate::Gate;
use in_hand::{Hold, InHand};
use passage::{Passage, Stop};

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
    in_hand: InHand,
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

/// A job that the line has taken in: it may be carried now.
#[must_use]
pub struct Admitted {
    job: Box<Job>,
    /// None if another job of its id was in hand: what is known of it will be asked when its turn has come.
    found: Option<Found>,
}

impl Admitted {
    /// The job.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// It holds that place among the jobs that wait for their first turn.
    pub fn waiting_in(mut self, place: OwnedSemaphorePermit) -> Self {
        self.job.waiting = Some(place);
        self
    }
}

/// What was found of a job that is in one hand only.
struct Found {
    hold: Hold,
    known: Result<Option<Box<Row>>, LedgerError>,
}

impl Line {
    /// A line of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        parts.pace.name_hosts(&parts.client.host(), &parts.client.key_host());
        Self {
            parts,
            keys: KeyReader::default(),
            in_hand: InHand::default(),
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

    /// Takes jobs in and asks what is known of them, all in one question; for who has several at once.
    pub async fn admit(&self, jobs: Vec<Box<Job>>) -> Vec<Admitted> {
        let stage = metrics::Stage::begin("admit");
        let held: Vec<_> = jobs.into_iter().map(|job| (self.in_hand.try_take(&job.id), job)).collect();
        let asked: Vec<_> =
            held.iter().filter_map(|(hold, job)| hold.as_ref().map(|_| job.id.clone())).collect();
        let count = asked.len();
        let mut known = match self.parts.ledger.look_up_all(&self.parts.scope, asked).await {
            Ok(rows) => Ok(rows.into_iter()),
            Err(error) => Err(error),
        };
        stage.ended_for(count);
        let mut known_of_next = || match &mut known {
            Ok(rows) => Ok(rows.next().flatten().map(Box::new)),
            Err(error) => Err(error.clone()),
        };
        let admitted = held.into_iter().map(|(hold, job)| {
            let found = hold.map(|hold| Found { hold, known: known_of_next() });
            Admitted { job, found }
        });
        admitted.collect()
    }

    /// As [`Self::carry`], of a job that was taken in.
    pub fn carry_admitted(&self, admitted: Admitted) -> impl Future<Output = Option<Ended>> + Send {
        self.carry_in_span(admitted, Way::default())
    }

    fn carry_in_turn(&self, job: Box<Job>, way: Way<'_>) -> impl Future<Output = Option<Ended>> + Send {
        self.carry_in_span(Admitted { job, found: None }, way)
    }

    async fn carry_in_span(&self, admitted: Admitted, way: Way<'_>) -> Option<Ended> {
        let job = &admitted.job;
        let span = tracing::info_span!("job", job = %job.id, batch = %job.batch);
        // In its place: the span's future would be moved into another of its size.
        let carried = std::pin::pin!(self.carry_in_hand(admitted, way));
        carried.instrument(span).await
    }

    async fn carry_in_hand(&self, Admitted { job, found }: Admitted, way: Way<'_>) -> Option<Ended> {
        let in_flight = metrics::InFlight::begin();
        let Found { hold, known } = match found {
            Some(found) => found,
            None => self.find(&job).await,
        };
        let ended = self.carry_alone(job, known, way).await;
        drop(hold);
        if let Some(ended) = &ended {
            tell(ended, in_flight.elapsed());
            in_flight.ended(ended);
        }
        ended
    }

    /// Takes a job in when its turn has come.
    async fn find(&self, job: &Job) -> Found {
        let hold = self.in_hand.take(&job.id).await;
        let stage = metrics::Stage::begin("admit");
        let known = self.parts.ledger.look_up(&self.parts.scope, &job.id).await;
        stage.ended();
        Found { hold, known: known.map(|row| row.map(Box::new)) }
    }

    async fn carry_alone(
        &self,
        job: Box<Job>,
        known: Result<Option<Box<Row>>, LedgerError>,
        way: Way<'_>,
    ) -> Option<Ended> {
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
        let mut course = Course::resume(known.as_deref(), look_first, self.parts.rules);
        if let Some(refusal) = way.given_up {
            course.give_up(refusal);
        }
        let begun_before = known.as_ref().is_some_and(|row| row.state == State::Begun);
        drop(known);
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
