//! A batch that this process received: how far it has come, and how it is steered.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::check::Checked;
use super::history::{Meter, Point};
use super::problem::{Kind, Problem};
use super::view::{BatchView, State, eta};
use crate::clock::Time;
use crate::job;
use crate::line::gate::{Gate, Standing};
use crate::manifest::InvalidRow;
use crate::manifest::batch::digest_of;
use crate::manifest::known::Known;
use crate::outcome::Ended;
use crate::remedy::TryAgain;
use crate::tally::{Counts, Tally};
use crate::webhooks::Run;

/// A batch that this process received.
pub(super) struct Batch {
    pub(super) name: job::Batch,
    pub(super) digest: Option<String>,
    /// Rows of this upload that are jobs.
    rows: u64,
    /// Rows of it that are none, and left out.
    unusable: u64,
    /// Rows of earlier uploads under this name that this one has not.
    others: Known,
    /// Rows that are known under other names.
    known_before: u64,
    pins: u64,
    pub(super) received: Time,
    began: Instant,
    pub(super) gate: Gate,
    /// Which of its rows that were refused before are tried again.
    pub(super) again: TryAgain,
    tally: Tally,
    progress: Mutex<Progress>,
    /// What webhooks are still to be told the end of.
    run: Mutex<Option<Run>>,
    /// Cancelled when its jobs in the queue are not followed any more.
    unfollow: CancellationToken,
    changed: watch::Sender<u64>,
}

struct Progress {
    /// How it ended, if it has.
    end: Option<State>,
    ended: Option<Instant>,
    reason: Option<String>,
    pins_left: u64,
    latest: Time,
    meter: Meter,
    /// Whether all of its jobs are in a queue, where no gate is.
    all_queued: bool,
}

impl Batch {
    /// One that was checked and has not begun.
    pub(super) fn new(
        name: job::Batch,
        checked: &Checked,
        others: Known,
        received: Time,
        run: Option<Run>,
    ) -> Self {
        let Checked { report, recognition, unusable, .. } = checked;
        let progress = Progress {
            end: None,
            ended: None,
            reason: None,
            pins_left: report.pins,
            latest: received,
            meter: Meter::default(),
            all_queued: false,
        };
        Self {
            name,
            digest: digest_of(report),
            rows: report.rows - unusable,
            unusable: *unusable,
            others,
            known_before: recognition.len() as u64,
            pins: report.pins,
            received,
            began: Instant::now(),
            gate: Gate::default(),
            again: recognition.again(),
            tally: Tally::default(),
            progress: Mutex::new(progress),
            run: Mutex::new(run),
            unfollow: CancellationToken::new(),
            changed: watch::Sender::new(0),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        // Every change is a plain assignment; a panic elsewhere cannot leave it half done.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever takes it tells its end.
    pub(super) fn take_run(&self) -> Option<Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What webhooks are still to be told the end of.
    pub(super) fn run(&self) -> Option<Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an upload of its name is the same as this one, which is under way.
    ///
    /// # Errors
    /// If it has other rows, or this one is being cancelled, or does not try all rows again that it would.
    pub(super) fn is_same(&self, checked: &Checked) -> Result<(), Problem> {
        let is_same = self.digest == digest_of(&checked.report);
        let does_it = self.again == TryAgain::All || self.again == checked.recognition.again();
        if is_same && does_it && self.gate.standing() != Standing::CalledOff {
            return Ok(());
        }
        let detail = if is_same && !does_it {
            "this batch is under way, and tries again only what needs no change; upload the file once that has ended"
        } else {
            "a batch of this name is under way, with other rows or being cancelled"
        };
        Err(Problem::new(Kind::Conflict, detail))
    }

    /// Rows of its manifest.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// What becomes of a held row that is no job: left out, if it was meant to be.
    ///
    /// # Errors
    /// If every row was to be one.
    pub(super) fn left_out(&self, row: &InvalidRow) -> Result<(), String> {
        if self.unusable > 0 {
            Ok(())
        } else {
            Err(format!("the held row {} can no longer be read", row.number))
        }
    }

    /// How many rows have ended how.
    pub(super) fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// All of its jobs are in a queue, but for so many that were called off before.
    pub(super) fn all_queued(&self, called_off: u64) {
        self.tally.add_cancelled(called_off);
        self.progress().all_queued = true;
        self.touch();
    }

    /// Whether they are.
    pub(super) fn is_all_queued(&self) -> bool {
        self.progress().all_queued
    }

    /// Its jobs in the queue are not followed any more: nobody takes them.
    pub(super) fn unfollow(&self) {
        self.unfollow.cancel();
        self.touch();
    }

    /// Resolves once they are not.
    pub(super) async fn unfollowed(&self) {
        self.unfollow.cancelled().await;
    }

    /// A row has ended.
    pub(super) fn row_ended(&self, ended: &Ended, pin: bool, now: Time) {
        self.tally.add(ended);
        {
            let mut progress = self.progress();
            progress.latest = now;
            progress.pins_left -= u64::from(pin).min(progress.pins_left);
        }
        self.touch();
    }

    /// A row that waited for its PIN has ended.
    pub(super) fn pin_chosen(&self, ended: &Ended) {
        self.tally.chosen(ended);
        self.touch();
    }

    /// About once a second, for the history and the rate.
    pub(super) fn sample(&self) {
        let Counts { issued, refused, cancelled, unresolved, .. } = self.counts();
        // What somebody cancelled is over at once, and tells nothing of how fast rows end.
        let refused = refused.saturating_sub(cancelled);
        let elapsed = self.began.elapsed();
        self.progress().meter.sample(elapsed, Point { issued, refused, unresolved });
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
            let mut progress = self.progress();
            progress.end = Some(end);
            progress.ended = Some(Instant::now());
            progress.reason = reason;
            progress.pins_left = 0;
        }
        self.touch();
    }

    /// Whether it has not ended.
    pub(super) fn is_under_way(&self) -> bool {
        self.progress().end.is_none()
    }

    /// Whether it had not ended yet at that time.
    pub(super) fn was_under_way(&self, at: Instant) -> bool {
        self.progress().ended.is_none_or(|ended| ended >= at)
    }

    fn state(&self) -> State {
        let progress = self.progress();
        progress.end.unwrap_or_else(|| match self.gate.standing() {
            _ if self.unfollow.is_cancelled() => State::Cancelling,
            Standing::Open => State::Running,
            Standing::Shut if progress.all_queued => State::Running,
            Standing::Shut => State::Paused,
            Standing::CalledOff => State::Cancelling,
        })
    }

    /// Whether the gate can be opened or shut, or the batch called off.
    ///
    /// # Errors
    /// If it has ended, or was called off and is to go on.
    pub(super) fn can_be_steered(&self, standing: Standing) -> Result<(), Problem> {
        let refused = |detail| Err(Problem::new(Kind::Conflict, detail));
        if !self.is_under_way() {
            return refused("the batch has ended");
        }
        if self.gate.standing() == Standing::CalledOff && standing != Standing::CalledOff {
            return refused("the batch was cancelled");
        }
        if self.is_all_queued() {
            return refused("all of its jobs are in the queue already; the worker issues them");
        }
        Ok(())
    }

    /// Opens or shuts the gate, or calls the batch off.
    ///
    /// # Errors
    /// As [`Self::can_be_steered`].
    pub(super) fn steer(&self, standing: Standing) -> Result<(), Problem> {
        self.can_be_steered(standing)?;
        self.gate.stand(standing);
        self.touch();
        Ok(())
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
        let progress = self.progress();
        let rate_per_second = if progress.end.is_none() { progress.meter.per_second() } else { 0.0 };
        let waiting = self.rows.saturating_sub(counts.ended());
        BatchView {
            batch: self.name.to_string(),
            state,
            reason: progress.reason.clone(),
            rows: Some(self.rows + self.others.rows()),
            pins: Some(self.pins),
            issued: counts.issued + self.others.issued,
            cancelled_cards: 0,
            refused: counts.refused + self.others.refused,
            cancelled_rows: counts.cancelled + self.others.cancelled,
            unresolved: counts.unresolved + self.others.begun,
            awaiting_pin: counts.awaiting_pin + self.others.awaiting_pin,
            waiting,
            recorded_before: counts.recorded + self.others.rows(),
            known_before: Some(self.known_before),
            noted: counts.noted + self.others.noted,
            retried: counts.retried,
            rate_per_second,
            pace_per_second,
            eta_seconds: (state == State::Running).then(|| eta(waiting, rate_per_second, pace_per_second)),
            oldest_pin_age_seconds: (progress.pins_left > 0).then(|| now.since(self.received).as_secs_f64()),
            began_ms: Some(self.received.unix_ms()),
            latest_ms: Some(progress.latest.unix_ms()),
            history: Some(progress.meter.history().clone()),
            replaced: None,
            held: None,
        }
    }
}
