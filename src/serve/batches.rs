//! The batches: those under way in memory, those of earlier runs from the ledger.
//!
//! Duty: to begin a batch once, whatever is uploaded twice; to say how each stands. Counts of a batch that is under
//! way are its own; of any other they are the ledger's, where a batch that was cut off shows as interrupted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::Server;
use super::history::{History, Meter, Point};
use super::limits::BATCHES_MAX;
use super::problem::{Kind, Problem};
use crate::clock::Time;
use crate::job;
use crate::ledger::{BatchCounts, BatchRow};
use crate::line::gate::{Gate, Standing};
use crate::manifest::CheckReport;
use crate::manifest::batch::{BatchError, SecondCards, digest_of, note};
use crate::outcome::{Ended, Outcome};
use crate::tally::{Counts, Tally};

/// Ended batches whose history is kept; the ledger knows the others.
const ENDED_KEPT: usize = 100;
/// Conflicts of one batch that are kept with their reasons: the ledger holds the job they are in conflict with.
const CONFLICTS_MAX: usize = 1000;

/// How a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Its rows are being issued.
    Running,
    /// No further row begins until it is resumed.
    Paused,
    /// What has begun ends; the rest is being refused.
    Cancelling,
    /// It was cancelled, and every row has ended.
    Cancelled,
    /// Every row has ended.
    Finished,
    /// It was cut off, or some rows' end is not known. Upload the same file again to finish it.
    Interrupted,
    /// Jobs that were sent one by one; it has no end.
    Open,
}

/// A batch as clients see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BatchView {
    /// Its name.
    pub(super) batch: String,
    /// How it stands.
    pub(super) state: State,
    /// Why it was interrupted, if this server knows.
    pub(super) reason: Option<String>,
    /// Rows of its manifest; null for jobs that were sent one by one.
    pub(super) rows: Option<u64>,
    /// Rows with a PIN; null if this server did not receive it.
    pub(super) pins: Option<u64>,
    /// Rows with a card.
    pub(super) issued: u64,
    /// Rows without one.
    pub(super) refused: u64,
    /// Rows whose end is not known yet.
    pub(super) unresolved: u64,
    /// Rows that have not ended.
    pub(super) waiting: u64,
    /// Rows that an earlier run had ended already.
    pub(super) recorded_before: u64,
    /// Calls beyond each row's first.
    pub(super) retried: u64,
    /// Rows that ended a second, of late.
    pub(super) rate_per_second: f64,
    /// Calls a second that Stripe's limits allow at present.
    pub(super) pace_per_second: f64,
    /// Seconds until it is finished, at the present rate; null if it is not proceeding.
    pub(super) eta_seconds: Option<f64>,
    /// Age of the oldest PIN that waits for its call, in seconds; null if none waits.
    pub(super) oldest_pin_age_seconds: Option<f64>,
    /// When it began, in milliseconds since 1970; null if this server did not receive it.
    pub(super) began_ms: Option<i64>,
    /// When it was last heard of, in milliseconds since 1970.
    pub(super) latest_ms: Option<i64>,
    /// How it went over time; null if this server did not receive it.
    pub(super) history: Option<History>,
}

/// A batch that this process received.
pub(super) struct Batch {
    pub(super) name: job::Batch,
    digest: Option<String>,
    rows: u64,
    pins: u64,
    received: Time,
    began: Instant,
    pub(super) gate: Gate,
    tally: Tally,
    course: Mutex<Course>,
    changed: watch::Sender<u64>,
}

struct Course {
    /// How it ended, if it has.
    end: Option<State>,
    reason: Option<String>,
    pins_left: u64,
    latest: Time,
    meter: Meter,
    /// What was counted elsewhere: by the ledger that a worker writes to.
    elsewhere: Counts,
    /// Whether all of its jobs are in a queue, where no gate is.
    out_of_reach: bool,
    /// Rows refused because their job has other content already: the ledger keeps the job as it was.
    conflicts: Vec<Conflict>,
}

/// A row whose job has other content already.
#[derive(Debug, Clone)]
pub(super) struct Conflict {
    pub(super) row: u64,
    pub(super) row_id: Option<String>,
    pub(super) job: String,
    pub(super) ended: Ended,
}

impl Batch {
    fn new(name: job::Batch, report: &CheckReport, received: Time) -> Self {
        let course = Course {
            end: None,
            reason: None,
            pins_left: report.pins,
            latest: received,
            meter: Meter::default(),
            elsewhere: Counts::default(),
            out_of_reach: false,
            conflicts: Vec::new(),
        };
        Self {
            name,
            digest: digest_of(report),
            rows: report.rows,
            pins: report.pins,
            received,
            began: Instant::now(),
            gate: Gate::default(),
            tally: Tally::default(),
            course: Mutex::new(course),
            changed: watch::Sender::new(0),
        }
    }

    fn course(&self) -> std::sync::MutexGuard<'_, Course> {
        // Every change is a plain assignment; a panic elsewhere cannot leave it half done.
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows of its manifest.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows have ended how.
    pub(super) fn counts(&self) -> Counts {
        let elsewhere = self.course().elsewhere;
        self.tally.counts().plus(elsewhere)
    }

    /// Those of them that ended in this process.
    pub(super) fn own_counts(&self) -> Counts {
        self.tally.counts()
    }

    /// What a worker has written so far.
    pub(super) fn elsewhere(&self, counts: Counts, now: Time) {
        {
            let mut course = self.course();
            if counts == course.elsewhere {
                return;
            }
            course.elsewhere = counts;
            course.latest = now;
        }
        self.touch();
    }

    /// All of its jobs are in a queue, but for so many that were called off before.
    pub(super) fn out_of_reach(&self, called_off: u64) {
        self.tally.add_refused(called_off);
        self.course().out_of_reach = true;
        self.touch();
    }

    /// Whether they are.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.course().out_of_reach
    }

    /// A row has ended.
    pub(super) fn row_ended(
        &self,
        row: u64,
        row_id: Option<String>,
        job: &str,
        ended: Ended,
        pin: bool,
        now: Time,
    ) {
        self.tally.add(&ended);
        {
            let mut course = self.course();
            course.latest = now;
            course.pins_left -= u64::from(pin).min(course.pins_left);
            let conflict =
                matches!(&ended.outcome, Outcome::Refused(refusal) if refusal.code == "job_conflict");
            if conflict && course.conflicts.len() < CONFLICTS_MAX {
                course.conflicts.push(Conflict { row, row_id, job: job.to_owned(), ended });
            }
        }
        self.touch();
    }

    /// About once a second, for the history and the rate.
    pub(super) fn sample(&self) {
        let Counts { issued, refused, unresolved, .. } = self.counts();
        let elapsed = self.began.elapsed();
        self.course().meter.sample(elapsed, Point { issued, refused, unresolved });
        self.touch();
    }

    /// It has ended; `reason` if it was cut off.
    pub(super) fn ended(&self, reason: Option<String>) {
        self.sample();
        let counts = self.counts();
        let reason = reason.or_else(|| {
            (counts.unresolved > 0).then(|| {
                format!("the end of {} rows is not known yet; upload the same file again", counts.unresolved)
            })
        });
        let end = match (&reason, self.gate.standing()) {
            (Some(_), _) => State::Interrupted,
            (None, Standing::CalledOff) => State::Cancelled,
            (None, Standing::Open | Standing::Shut) => State::Finished,
        };
        {
            let mut course = self.course();
            course.end = Some(end);
            course.reason = reason;
            course.pins_left = 0;
        }
        self.touch();
    }

    /// Whether it has not ended.
    pub(super) fn is_under_way(&self) -> bool {
        self.course().end.is_none()
    }

    fn state(&self) -> State {
        let course = self.course();
        course.end.unwrap_or_else(|| match self.gate.standing() {
            Standing::Open => State::Running,
            Standing::Shut if course.out_of_reach => State::Running,
            Standing::Shut => State::Paused,
            Standing::CalledOff => State::Cancelling,
        })
    }

    /// Opens or shuts the gate, or calls the batch off.
    ///
    /// # Errors
    /// If it has ended, or was called off and is to go on.
    pub(super) fn steer(&self, standing: Standing) -> Result<(), Problem> {
        let refused = |detail| Err(Problem::new(Kind::Conflict, detail));
        if !self.is_under_way() {
            return refused("the batch has ended");
        }
        if self.gate.standing() == Standing::CalledOff && standing != Standing::CalledOff {
            return refused("the batch was cancelled");
        }
        if self.is_out_of_reach() {
            return refused("all of its jobs are in the queue already; the worker issues them");
        }
        self.gate.stand(standing);
        self.touch();
        Ok(())
    }

    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        self.course().conflicts.clone()
    }

    /// Told of each change.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn touch(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// As clients see it.
    pub(super) fn view(&self, pace_per_second: f64, now: Time) -> BatchView {
        let (counts, state) = (self.counts(), self.state());
        let course = self.course();
        let rate_per_second = if course.end.is_none() { course.meter.per_second() } else { 0.0 };
        let waiting = self.rows.saturating_sub(counts.ended());
        BatchView {
            batch: self.name.to_string(),
            state,
            reason: course.reason.clone(),
            rows: Some(self.rows),
            pins: Some(self.pins),
            issued: counts.issued,
            refused: counts.refused,
            unresolved: counts.unresolved,
            waiting,
            recorded_before: counts.recorded,
            retried: counts.retried,
            rate_per_second,
            pace_per_second,
            eta_seconds: (state == State::Running).then(|| eta(waiting, rate_per_second, pace_per_second)),
            oldest_pin_age_seconds: (course.pins_left > 0).then(|| now.since(self.received).as_secs_f64()),
            began_ms: Some(self.received.unix_ms()),
            latest_ms: Some(course.latest.unix_ms()),
            history: Some(course.meter.history().clone()),
        }
    }
}

/// Seconds for so many rows: at the rate they go at, or at the pace while none has ended yet.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(super) fn eta(rows: u64, rate_per_second: f64, pace_per_second: f64) -> f64 {
    /// A rate below this tells nothing.
    const RATE_MIN: f64 = 0.01;
    rows as f64 / if rate_per_second > RATE_MIN { rate_per_second } else { pace_per_second.max(RATE_MIN) }
}

/// A batch of the ledger's.
fn view_of(counts: BatchCounts, pace_per_second: f64) -> BatchView {
    let BatchCounts { batch, rows, issued, refused, unresolved, latest, .. } = counts;
    let state = match rows {
        None => State::Open,
        Some(rows) if issued + refused >= rows => State::Finished,
        Some(_) => State::Interrupted,
    };
    BatchView {
        batch,
        state,
        reason: None,
        rows,
        pins: None,
        issued,
        refused,
        unresolved,
        waiting: rows.unwrap_or(0).saturating_sub(issued + refused + unresolved),
        recorded_before: 0,
        retried: 0,
        rate_per_second: 0.0,
        pace_per_second,
        eta_seconds: None,
        oldest_pin_age_seconds: None,
        began_ms: None,
        latest_ms: latest.map(Time::unix_ms),
        history: None,
    }
}

/// Whether an upload began something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    Now,
    /// The same batch is under way.
    Before,
}

/// All batches of this process.
#[derive(Default)]
pub(super) struct Registry {
    batches: Mutex<HashMap<String, Arc<Batch>>>,
    /// Held while a batch begins: of two equal uploads at once the second meets the first one's batch.
    beginning: tokio::sync::Mutex<()>,
}

impl Registry {
    fn batches(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Batch>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that this process received.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Batch>> {
        self.batches().get(name).cloned()
    }

    /// Begins a batch that was checked, unless it is under way.
    pub(super) async fn begin(
        &self,
        server: &Server,
        name: job::Batch,
        report: &CheckReport,
        second: SecondCards,
    ) -> Result<(Arc<Batch>, Begun), Problem> {
        let _alone = self.beginning.lock().await;
        let received = server.clock().now();
        let batch = Arc::new(Batch::new(name, report, received));
        if let Some(earlier) = self.get(batch.name.as_str()).filter(|earlier| earlier.is_under_way()) {
            let same = earlier.digest == batch.digest && earlier.gate.standing() != Standing::CalledOff;
            return if same {
                Ok((earlier, Begun::Before))
            } else {
                let detail = "a batch of this name is under way, with other rows or being cancelled";
                Err(Problem::new(Kind::Conflict, detail))
            };
        }
        if self.batches().values().filter(|batch| batch.is_under_way()).count() >= BATCHES_MAX {
            return Err(Problem::new(Kind::Busy, "as many batches as are allowed are under way"));
        }
        let row = BatchRow {
            scope: server.scope().clone(),
            batch: batch.name.clone(),
            digest: batch.digest.clone(),
            rows: batch.rows,
            began: received,
        };
        note(server.views(), row, second).await.map_err(|error| match error {
            BatchError::IssuedAs { .. } => Problem::new(
                Kind::IssuedBefore,
                format!("{error}. Upload them under that name, or with second_cards=true if that is wanted"),
            ),
            BatchError::Ledger(error) => Problem::from(error),
        })?;
        let mut batches = self.batches();
        batches.insert(batch.name.to_string(), batch.clone());
        forget_oldest(&mut batches);
        Ok((batch, Begun::Now))
    }

    /// One batch as clients see it.
    pub(super) async fn view(&self, server: &Server, name: &str) -> Result<BatchView, Problem> {
        if let Some(batch) = self.get(name) {
            return Ok(batch.view(server.pace_per_second(), server.clock().now()));
        }
        let counts = server.views().counts().await?;
        counts
            .into_iter()
            .find(|counts| counts.batch == name && counts.scope == server.scope().as_str())
            .map(|counts| view_of(counts, server.pace_per_second()))
            .ok_or_else(|| no_batch(name))
    }

    /// All of them, those last heard of first; without their histories.
    pub(super) async fn list(&self, server: &Server) -> Result<Vec<BatchView>, Problem> {
        let counts = server.views().counts().await?;
        let (pace, now) = (server.pace_per_second(), server.clock().now());
        let mut views: Vec<BatchView> = {
            let batches = self.batches();
            let of_ledger = counts
                .into_iter()
                .filter(|counts| {
                    counts.scope == server.scope().as_str() && !batches.contains_key(&counts.batch)
                })
                .map(|counts| view_of(counts, pace));
            of_ledger.chain(batches.values().map(|batch| batch.view(pace, now))).collect()
        };
        for view in &mut views {
            view.history = None;
        }
        views.sort_by(|one, other| (other.latest_ms, &other.batch).cmp(&(one.latest_ms, &one.batch)));
        Ok(views)
    }
}

/// What a name that nobody has is answered with.
pub(super) fn no_batch(name: &str) -> Problem {
    /// A name is quoted up to here.
    const QUOTED_MAX: usize = 80;
    let quoted: String = name.chars().take(QUOTED_MAX).collect();
    Problem::new(Kind::NotFound, format!("there is no batch {quoted:?}"))
}

fn forget_oldest(batches: &mut HashMap<String, Arc<Batch>>) {
    let mut ended: Vec<(Time, String)> = batches
        .values()
        .filter(|batch| !batch.is_under_way())
        .map(|batch| (batch.received, batch.name.to_string()))
        .collect();
    ended.sort_unstable_by(|one, other| other.cmp(one));
    for (_, name) in ended.into_iter().skip(ENDED_KEPT) {
        batches.remove(&name);
    }
}
