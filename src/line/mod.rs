//! The line that every job goes down once.
//!
//! [`Line::carry`] is the one entrance; [`carry`] shows the whole way on one screen. It lets one job of an id through at a
//! time (`job_locks`); what to do next is decided in [`decision`], anew after each wait. The order of writes is always:
//! attempt recorded, call made, outcome recorded, caller told.

mod await_pin;
mod carry;
mod changes;
pub mod decision;
mod ephemeral_key;
pub mod gate;
mod halt;
mod job_locks;
mod lease;
mod limiter;
mod look;
mod options;
pub mod people;
mod refusals;
pub mod settle;
mod standing;
mod steps;
pub mod tracking;
mod vet;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::clock::Clock;
use crate::config::RetryConfig;
use crate::job::{Job, JobId, Step};
use crate::jwe::KeyReader;
use crate::ledger::{Holder, LeaseError, Ledger, LedgerError, Row, Scope, Version};
use crate::metrics;
use crate::outcome::{Ended, Outcome};
use crate::pace::{CircuitState, Pace};
use crate::pin_links::PinLinks;
use crate::stripe::Client;
use decision::{Rules, Sighting};
use job_locks::{JobLock, Queued};
use lease::LineLease;
use look::Looks;
use people::People;
use refusals::Refusals;
use vet::Batches;

pub use await_pin::is_about_pin;
pub(crate) use changes::card_of;
pub use ephemeral_key::EphemeralKey;
pub use halt::Halt;
pub(crate) use job_locks::JobLocks;
pub use lease::LeaseUse;
pub(crate) use limiter::{endpoint_of, limiter_of};
pub use options::{CarriedOnly, Options};
pub use people::list_cardholders;
pub use refusals::OnSameRefusals;
pub use standing::{account_standing, cardholder_of, design_of, standing_of};

/// Most rows with unknown ends that are remembered from one visit to the next: a bound on memory. For one that is not, the
/// wait for the end of its calls begins again.
const SIGHTINGS_MAX: usize = 100_000;

/// How long a server or a worker keeps the account's lease without work: jobs that come now and then do not pay for it each
/// time, and another process does not wait long.
pub const LEASE_IDLE: Duration = Duration::from_secs(2);

/// Whether cards are looked for before the first call, for when the ledger may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookFirst {
    /// The ledger is whole.
    No,
    /// It may not be.
    Yes,
}

/// Whether a batch that the ledger does not know is looked for at Stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vet {
    /// A few of its jobs are.
    Yes,
    /// None: the ledger is all there is.
    No,
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
    /// Whether to look for batches that the ledger does not know.
    pub vet: Vet,
    /// How long the account's lease is kept without work.
    pub lease_idle: Duration,
    /// The links of jobs whose cardholders choose the PIN; none if there is no page for that.
    pub pin_links: Option<PinLinks>,
    /// Equal refusals in a row after which no further job is spent, and what happens then.
    pub same_refusals: (u32, OnSameRefusals),
}

/// The line. One per account; shared by all its jobs.
pub struct Line {
    parts: Parts,
    keys: KeyReader,
    locks: JobLocks,
    /// Which cards are being changed, and whose cardholders are being created; under the names of cards, and of what tells a
    /// person.
    exclusive: JobLocks,
    lease: LineLease,
    looks: Looks,
    people: People,
    batches: Batches,
    refusals: Refusals,
    sightings: Mutex<HashMap<(JobId, Step), (Version, Sighting)>>,
    /// Whether Stripe ever answered.
    answered: AtomicBool,
    halted: Mutex<Option<Halt>>,
    /// Cancelled when the line stops taking jobs; waits between attempts end at once.
    stopping: CancellationToken,
}

/// A job that the line has taken in: it may be carried now.
#[must_use]
pub struct Admitted {
    job: Box<Job>,
    /// None if another job of its id was on the line: what is known of it will be asked when its turn has come.
    found: Option<Found>,
    /// Its place among the changes of its card, taken when it came: so changes of one card go in the order in which they
    /// came, whichever of their tasks runs first.
    change: Option<Queued>,
}

impl Admitted {
    /// The job.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The job, to go elsewhere.
    #[must_use]
    pub fn into_job(self) -> Job {
        *self.job
    }

    /// It holds that place among the jobs that wait for their first turn.
    pub fn waiting_in(mut self, place: OwnedSemaphorePermit) -> Self {
        self.job.waiting = Some(place);
        self
    }
}

impl From<Job> for Admitted {
    fn from(job: Job) -> Self {
        Self { job: Box::new(job), found: None, change: None }
    }
}

impl From<Box<Job>> for Admitted {
    fn from(job: Box<Job>) -> Self {
        Self { job, found: None, change: None }
    }
}

/// What was found of a job that is locked.
struct Found {
    lock: JobLock,
    /// None: it was not asked yet.
    known: Option<Result<Option<Box<Row>>, LedgerError>>,
}

/// Why a job could not go on.
enum Stop {
    /// The line halted, and says why.
    Halted,
    /// The line stops, or the job was recalled.
    Closed,
    /// The ledger does not serve.
    Ledger(LedgerError),
    /// The account's lease can neither be had nor be waited for.
    Lease(String),
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl Line {
    /// A line of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let lease = LineLease::new(
            parts.ledger.clone(),
            parts.scope.clone(),
            parts.clock.clone(),
            parts.pace.clone(),
            parts.lease_idle,
        );
        Self {
            keys: KeyReader::default(),
            locks: JobLocks::default(),
            exclusive: JobLocks::default(),
            lease,
            looks: Looks::default(),
            people: People::default(),
            batches: Batches::default(),
            refusals: Refusals::new(parts.same_refusals.0, parts.scope.account()),
            sightings: Mutex::default(),
            answered: AtomicBool::new(false),
            halted: Mutex::new(None),
            stopping: CancellationToken::new(),
            parts,
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
        self.parts.ledger.stop_waiting();
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

    /// Stops it, and says why.
    pub fn halt_with(&self, halt: Halt) {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = halted.is_none();
        if is_first {
            *halted = Some(halt.clone());
        }
        drop(halted);
        if is_first {
            tracing::error!(reason = %halt, "the line stops");
        }
        self.stop();
    }

    /// Whether Stripe ever answered a call of this line.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn has_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// What all jobs wait for, if they do: Stripe, which answers nobody or refuses everybody for the same reason, or another
    /// process that calls for this account.
    #[must_use]
    pub fn all_wait_for(&self) -> Option<String> {
        if self.parts.pace.health().circuit != CircuitState::Closed {
            return Some("Stripe does not answer".to_owned());
        }
        if let Some(holder) = self.lease.blocked_by() {
            return Some(format!("{holder} calls for this account"));
        }
        self.refusals.repeated().map(|sentence| format!("Stripe refuses every job alike: {sentence}"))
    }

    /// Takes the account's lease for as long as the answer is held, whatever jobs there are; waits while another process
    /// has it. None if the line stops meanwhile.
    pub async fn hold_lease(&self) -> Option<LeaseUse> {
        match self.lease.take(&self.stopping).await {
            Ok(lease) => Some(lease),
            Err(stop) => {
                self.note(stop);
                None
            }
        }
    }

    /// The same without waiting: who has it, if it is another process.
    ///
    /// # Errors
    /// If it can neither be had nor be told who has it.
    pub async fn try_lease(&self) -> Result<Result<LeaseUse, Holder>, LeaseError> {
        self.lease.try_take().await
    }

    /// Takes jobs in and asks what is known of them, all in one question; for who has several at once.
    pub async fn admit(&self, jobs: Vec<Box<Job>>) -> Vec<Admitted> {
        let stage = metrics::Stage::begin("admit");
        let held: Vec<_> = jobs.into_iter().map(|job| (self.locks.try_take(&job.id), job)).collect();
        // A place at a card only with the job's own lock in hand: of two copies of one job each would wait for the other.
        let queued =
            |(lock, job): &(Option<JobLock>, Box<Job>)| lock.as_ref().and_then(|_| self.queued_change(job));
        let changes: Vec<_> = held.iter().map(queued).collect();
        let steps: Vec<_> = held
            .iter()
            .filter_map(|(lock, job)| lock.as_ref().map(|_| (job.id.clone(), job.step())))
            .collect();
        let count = steps.len();
        let mut known = match self.parts.ledger.look_up_all(&self.parts.scope, steps).await {
            Ok(rows) => Ok(rows.into_iter()),
            Err(error) => Err(error),
        };
        stage.ended_for(count);
        let mut known_of_next = || match &mut known {
            Ok(rows) => Ok(rows.next().flatten().map(Box::new)),
            Err(error) => Err(error.clone()),
        };
        let admitted = held.into_iter().zip(changes).map(|((lock, job), change)| {
            let found = lock.map(|lock| Found { lock, known: Some(known_of_next()) });
            Admitted { job, found, change }
        });
        admitted.collect()
    }

    /// Gives a job its place among the changes of its card: for who hands jobs to tasks in the order in which they came.
    pub fn in_order(&self, job: Job) -> Admitted {
        let found = self.locks.try_take(&job.id).map(|lock| Found { lock, known: None });
        let change = found.as_ref().and_then(|_| self.queued_change(&job));
        Admitted { job: Box::new(job), found, change }
    }

    fn queued_change(&self, job: &Job) -> Option<Queued> {
        changes::card_of(job).map(|card| self.exclusive.queue(&card))
    }

    /// Takes a job down the line to its end. The same id twice at once is carried one after the other, so that the
    /// second meets the first one's record. `None` if the line stopped, or the job was recalled, before anything was begun
    /// for it.
    pub fn carry<'c>(
        &'c self,
        job: impl Into<Admitted>,
        options: Options<'c>,
    ) -> impl Future<Output = Option<Ended>> + Send + 'c {
        let admitted = job.into();
        async move {
            let job = &admitted.job;
            let span = tracing::info_span!("job", job = %job.id, batch = %job.batch);
            // In its place: the span's future would be moved into another of its size.
            let carried = std::pin::pin!(self.carry_locked(admitted, options));
            carried.instrument(span).await
        }
    }

    async fn carry_locked(&self, admitted: Admitted, options: Options<'_>) -> Option<Ended> {
        let Admitted { job, found, change } = admitted;
        let in_flight = metrics::InFlight::begin(self.parts.scope.account());
        let Found { lock, known } = match found {
            Some(found) => found,
            None => Found { lock: self.locks.take(&job.id).await, known: None },
        };
        let known = match known {
            Some(known) => known,
            None => self.find(&job).await,
        };
        let ended = match known {
            Ok(known) => steps::carry(self, job, change, known, options).await,
            Err(error) => {
                self.halt_with((&error).into());
                None
            }
        };
        drop(lock);
        if let Some(ended) = &ended {
            log_end(ended, in_flight.elapsed());
            let code = match &ended.outcome {
                Outcome::Done(_) | Outcome::AwaitingPin(_) => "",
                Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => refusal.label(),
            };
            in_flight.ended(ended.outcome.word(), code, ended.recorded_before);
        }
        ended
    }

    /// What is known of a job whose turn has come.
    async fn find(&self, job: &Job) -> Result<Option<Box<Row>>, LedgerError> {
        let stage = metrics::Stage::begin("admit");
        let known = self.look_up(job).await;
        stage.ended();
        known.map(|row| row.map(Box::new))
    }

    async fn look_up(&self, job: &Job) -> Result<Option<Row>, LedgerError> {
        let steps = vec![(job.id.clone(), job.step())];
        let rows = self.parts.ledger.look_up_all(&self.parts.scope, steps).await?;
        Ok(rows.into_iter().next().flatten())
    }

    /// What the whole line must know of why a job stopped.
    fn note(&self, stop: Stop) {
        match stop {
            Stop::Ledger(error) => self.halt_with((&error).into()),
            Stop::Lease(reason) => self.halt_with(Halt::Ledger { reason, may_pass: true }),
            Stop::Halted | Stop::Closed => {}
        }
    }

    fn sightings(&self) -> MutexGuard<'_, HashMap<(JobId, Step), (Version, Sighting)>> {
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process remembers of a row of this version.
    fn sighting(&self, row: &Row) -> Option<Sighting> {
        let sightings = self.sightings();
        let (version, sighting) = sightings.get(&(row.id.clone(), row.step))?;
        (*version == row.version).then_some(*sighting)
    }

    /// Remembers what is known of a row whose end is not, or forgets it.
    fn remember(&self, job: &Job, seen: Option<(Version, Sighting)>) {
        let mut sightings = self.sightings();
        match seen {
            Some(seen) => {
                let (room, key) = (sightings.len() < SIGHTINGS_MAX, (job.id.clone(), job.step()));
                if room || sightings.contains_key(&key) {
                    sightings.insert(key, seen);
                }
            }
            None if sightings.is_empty() => {}
            None => {
                sightings.remove(&(job.id.clone(), job.step()));
            }
        }
    }
}

/// What a reader must know beside a recorded card that is not wholly what a job asks for.
pub(crate) fn note_beside(job: &Job, row: &Row) -> Option<String> {
    carry::note_of_done(job, row)
}

/// The one line that the log has of each job.
fn log_end(ended: &Ended, took: Duration) {
    let code = match &ended.outcome {
        Outcome::Done(_) | Outcome::AwaitingPin(_) => "",
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
