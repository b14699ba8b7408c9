//! What a job waits for: the account's lease, what holds up all jobs alike, and the next try.

use std::time::Duration;

use tokio::time::Instant;

use super::Carried;
use crate::backoff::jittered;
use crate::clock::Boot;
use crate::config::seconds;
use crate::line::gate::{Gate, Passed, Standing};
use crate::line::lease::Held;
use crate::line::refusals::Try;
use crate::line::{Stop, changes};
use crate::outcome::Refusal;
use crate::pace::{CircuitState, Pass};

impl<'l> Carried<'l> {
    /// The account's lease, which must be ours whenever something is decided. None if that took longer than a job may.
    pub(super) async fn hold_lease(&mut self) -> Result<Option<Held>, Stop> {
        let line = self.line;
        if self.lease.is_some() {
            let assured = line.lease.assure(&line.stopping);
            return self.while_all_wait(assured).await?.transpose();
        }
        let taken = self.while_all_wait(line.lease.take(&line.stopping)).await?.transpose()?;
        if taken.is_none() {
            self.latest = Refusal::own("other_process", "another process calls for this account");
        }
        Ok(taken.map(|lease| {
            self.lease = Some(lease);
            Held::Anew
        }))
    }

    /// Waits until the batch may go on, before the first call of this run. False if it was called off, or if so much time
    /// went by that all must be decided anew.
    pub(super) async fn pass_gate(&mut self) -> Result<bool, Stop> {
        let Some(gate) = self.gate_before_first_call() else { return Ok(true) };
        if gate.standing() == Standing::Open {
            return Ok(true);
        }
        // Whoever waits here may wait for days, and another process may want to call, or another batch to change the card.
        (self.lease, self.change) = (None, None);
        // A change that was looked for holds its card's lock. Others may be made meanwhile, so it is looked for again.
        let has_looked = self.job.request.target.is_some() && !self.alone.is_empty();
        self.alone.clear();
        if self.job.request.reuses() {
            // Another batch may have the same person.
            self.searched = None;
        }
        let began = Instant::now();
        let passed = tokio::select! {
            biased;
            passed = gate.passed() => passed,
            () = self.line.stopping.cancelled() => return Err(Stop::Closed),
            () = self.recall.cancelled() => return Err(Stop::Closed),
        };
        self.waited += began.elapsed();
        if has_looked {
            self.decision.settle_first();
        }
        if passed == Passed::CalledOff {
            let reason = "the batch was cancelled before this row had begun";
            self.decision.give_up(Refusal::own("cancelled", reason));
        }
        Ok(false)
    }

    /// Waits until no earlier change of the job's card is under way in this process, and no cardholder is created for its person.
    /// False if it had to wait, or the other has done what it wants: then all is decided anew.
    pub(super) async fn is_alone(&mut self) -> Result<bool, Stop> {
        let (card, signs) = (changes::card_of(&self.job), self.job.signs_of_person());
        let is_of_person = !signs.is_empty();
        let names: Vec<_> = card.into_iter().chain(signs).collect();
        if self.alone.len() == names.len() {
            return Ok(true);
        }
        let mut has_waited = false;
        // In the order of the names, so that no two wait for each other.
        while let Some(name) = names.get(self.alone.len()) {
            let queued = self.change.take().unwrap_or_else(|| self.line.exclusive.queue(name));
            let lock = match queued.now() {
                Ok(lock) => Some(lock),
                Err(queued) => {
                    // The one before it may wait for minutes, and nobody else is to wait for that.
                    (self.lease, self.job.waiting) = (None, None);
                    self.latest = if is_of_person {
                        Refusal::own("other_row", "another row of this person is under way")
                    } else {
                        Refusal::own("other_change", "another change of this card is under way")
                    };
                    has_waited = true;
                    self.while_all_wait(queued.locked()).await?.flatten()
                }
            };
            let Some(lock) = lock else { return Ok(false) };
            self.alone.push(lock);
        }
        if is_of_person {
            // Whoever was before it may have created the cardholder.
            let found = self.line.look_up(&self.job).await?;
            let is_news = found.as_ref().map(|row| row.version) != self.known.as_ref().map(|row| row.version);
            if is_news {
                self.changed(found.map(Box::new))?;
            }
            has_waited |= is_news;
        }
        Ok(!has_waited)
    }

    /// What has begun, in this run or before, goes on to its end whatever the gate says.
    pub(super) fn gate_before_first_call(&self) -> Option<&'l Gate> {
        self.gate.filter(|_| !self.has_begun && self.decision.key_began().is_none())
    }

    /// Waits while Stripe refuses every job alike; then this one tries for all, for as long as the answer is held. None if
    /// that took longer than a job may.
    pub(super) async fn while_not_refused_alike(&mut self) -> Result<Option<Option<Try<'l>>>, Stop> {
        let line = self.line;
        self.while_all_wait(line.refusals.ready()).await
    }

    /// Leave to fetch the key, before the turn: whoever waits for the key endpoint keeps no turn from jobs without a PIN.
    /// None if that took longer than a job may.
    pub(super) async fn key_pass(&mut self) -> Result<Option<Option<Pass>>, Stop> {
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
    pub(super) async fn while_all_wait<T>(
        &mut self,
        ready: impl Future<Output = T>,
    ) -> Result<Option<T>, Stop> {
        let began = Instant::now();
        let left = self.time_left();
        let left = async {
            if !self.is_handed_back {
                std::future::pending().await
            }
            tokio::time::sleep(left + Duration::from_millis(1)).await;
        };
        let waited = tokio::select! {
            biased;
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

    /// Of the time that a job may take in one run.
    fn time_left(&self) -> Duration {
        let max = seconds(self.line.parts.retry.elapsed_seconds_max);
        max.saturating_sub(self.began.elapsed().saturating_sub(self.waited))
    }

    /// Until then, by a clock that counts sleep. A job that can be handed back is, if that is longer than it may take: its
    /// next visit begins where this one ends.
    pub(super) async fn wait_until(&mut self, until: Boot) {
        /// A sleep of the process's own timer may be longer by the time that the machine slept.
        const LOOK_EVERY: Duration = Duration::from_secs(5);
        // To the second, so that jobs that wait for nearly the same share one listing.
        let until = until.up_to_the_second();
        if self.is_handed_back && until.since(self.line.parts.clock.boot()) > self.time_left() {
            self.gives_way = true;
            return;
        }
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

    pub(super) async fn wait(&self, wait: Duration) {
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => {}
            () = self.line.stopping.cancelled() => {}
            () = self.recall.cancelled() => {}
        }
    }

    /// Doubling from try to try.
    pub(super) fn backoff(&self) -> Duration {
        let retry = &self.line.parts.retry;
        let doubled = retry.backoff_seconds_min * f64::from(1u32 << self.tries.min(16));
        let ceiling = doubled.min(retry.backoff_seconds_max);
        jittered(seconds(ceiling))
    }
}
