//! One job's whole way: decide, prepare, record, leave, be answered; as often as it takes, and then its end.
//!
//! Each stage takes what the one before it hands on, which only that one can make: a turn of the pace, a verified
//! PIN, a recorded attempt, a permit. Nothing is decided before a wait and done after it: whatever was waited for, the
//! decision is made anew, and the ledger records an attempt only if its row still is what the decision was made from.

mod answer;
mod attempt;
mod end;
mod person;
mod wait;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::await_pin::takes_pin;
use super::decision::{Among, Decision, Next, Verdict};
use super::gate::Gate;
use super::job_locks::{JobLock, Queued};
use super::look::{Looked, look};
use super::{CarriedOnly, LeaseUse, Line, Options, Stop, Vet, changes, vet};
use crate::clock::Moment;
use crate::config::seconds;
use crate::job::Job;
use crate::killpoint;
use crate::ledger::{LedgerError, Row, State};
use crate::metrics;
use crate::operation::Request;
use crate::outcome::{Ended, Outcome, Refusal};
use crate::simulation::{Mutation, is_broken};
use end::known_end;

pub(super) use end::{conflict, note_of_done};

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
    /// Its first step was refused, and so is it: before any call of its own.
    is_first_refused: bool,
    /// Who its cardholder was to be, if that was refused.
    person: Option<Box<Request>>,
    only: CarriedOnly,
    /// Its row as it was when it came, if it is carried only while it waits for its PIN.
    came_as: Option<Box<Row>>,
    /// Somebody else has made another thing of its row than one that waits, and this is what.
    ended_elsewhere: Option<Ended>,
    /// The ledger's row, as it was last read or written.
    known: Option<Box<Row>>,
    decision: Decision,
    lease: Option<LeaseUse>,
    /// Its place among the changes of its card, until its turn comes or it must wait for something else for long.
    change: Option<Queued>,
    /// Holds back other changes of the same card, or other cardholders of the same person, from the first attempt to the end.
    alone: Vec<JobLock>,
    /// When its batch was asked about, by how often the account's lease had been taken: another process that had it since may have
    /// found what this one did not.
    vetted: Option<u64>,
    /// When it was looked whether its person has a cardholder, by how often the account's lease had been taken: what was found
    /// then counts as long as nobody else can have created one.
    searched: Option<u64>,
    /// Whether a call was begun in this run that was not taken back.
    has_begun: bool,
    /// Whether this attempt is the one that tries while Stripe refuses every job alike.
    is_trial: bool,
    /// It would wait longer than a job may keep its place here, so it goes back to where it came from.
    gives_way: bool,
    note: Option<String>,
    request_id: Option<String>,
    /// Why the latest try did not end it; told if no try does.
    latest: Refusal,
    tries: u32,
    /// When it came on the line.
    came: Moment,
    began: Instant,
    /// Of the time since, how much was spent waiting for the pace, or for what holds up all jobs alike.
    waited: Duration,
}

/// Carries a job to its end. None if the line stopped, or the job was recalled, before anything was begun for it.
pub(super) async fn carry(
    line: &Line,
    job: Box<Job>,
    change: Option<Queued>,
    known: Option<Box<Row>>,
    options: Options<'_>,
) -> Option<Ended> {
    if let Some(ended) = known_end(line, &job, known.as_deref(), options.given_up.is_some()).await {
        return Some(ended);
    }
    let mut carried = Carried { change, ..Carried::begin(line, job, known, options) };
    let ended = carried.through().await;
    if carried.waits_again(&ended) {
        if let Err(stop) = ended {
            line.note(stop);
        }
        return carried.wait_again().await;
    }
    carried.remember();
    let is_open = !matches!(&ended, Ok(ended) if !matches!(ended.outcome, Outcome::Unresolved(_)));
    if is_open && carried.job.request.reuses() && carried.decision.may_have_effect() {
        line.people.forget().await;
    }
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
            if let Some(ended) = conflict(&self.job, self.known.as_deref()) {
                return Ok(ended);
            }
            if let Some(ended) = self.ended_elsewhere.clone() {
                return Ok(ended);
            }
            if self.is_first_refused && self.vetted.is_none() {
                if self.is_stopped() {
                    return Err(Stop::Closed);
                }
                if self.is_spent() {
                    return Ok(self.unresolved());
                }
                if self.hold_lease().await?.is_none()
                    || !self.has_no_card_of_its_person().await?
                    || !self.is_vetted().await?
                {
                    continue;
                }
                self.vetted.get_or_insert(self.line.lease.times());
            }
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
            if self.hold_lease().await?.is_none() {
                continue;
            }
            match self.decision.next(self.now()) {
                Next::Finish(_) => {}
                // A card tells of its latest change only: what one before this is about to make must not be missed.
                Next::Look if self.job.request.target.is_some() && !self.is_alone().await? => {}
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
        // Before all that is scarce: whoever stands at a shut gate must keep nothing from others.
        if !self.pass_gate().await? || !self.is_vetted().await? {
            return Ok(());
        }
        if !self.is_alone().await? || !self.is_new_person().await? {
            return Ok(());
        }
        let Some(may_try) = self.while_not_refused_alike().await? else { return Ok(()) };
        self.is_trial = may_try.is_some();
        let Some(pass) = self.key_pass().await? else { return Ok(()) };
        let Some(turn) = self.turn().await? else { return Ok(()) };
        killpoint::pass("paced");
        let Some((turn, ready)) = self.prepare(turn, pass).await else { return Ok(()) };
        killpoint::pass("verified");
        let Some(attempt) = self.record(ready).await? else { return Ok(()) };
        killpoint::pass("begun");
        let Some(departing) = self.depart(turn, attempt).await? else { return Ok(()) };
        let called = self.call(departing).await;
        killpoint::pass("answered");
        self.answered(called).await
    }
}

impl<'l> Carried<'l> {
    fn begin(line: &'l Line, job: Box<Job>, known: Option<Box<Row>>, options: Options<'l>) -> Self {
        let Options { gate, recall, given_up, is_first_refused, person, event: _, only, again: _ } = options;
        let came_as = known.clone().filter(|_| only == CarriedOnly::WhileItWaits);
        let decision = decide(line, &job, known.as_deref(), given_up.clone());
        Self {
            line,
            gate,
            recall: recall.cloned().unwrap_or_default(),
            is_handed_back: recall.is_some(),
            given_up,
            is_first_refused,
            person,
            only,
            came_as,
            ended_elsewhere: None,
            decision,
            lease: None,
            change: None,
            alone: Vec::new(),
            vetted: None,
            searched: None,
            has_begun: false,
            is_trial: false,
            gives_way: false,
            note: None,
            known,
            job,
            request_id: None,
            latest: Refusal::own("interrupted", "the run was stopped; run it again"),
            tries: 0,
            came: line.parts.clock.moment(),
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
        self.gives_way || self.tries >= retry.attempts_max || worked > seconds(retry.elapsed_seconds_max)
    }

    /// The ledger's row is not what it was known as: everything is decided anew from what it is.
    fn changed(&mut self, found: Option<Box<Row>>) -> Result<(), Stop> {
        if found.is_none() && self.known.is_some() {
            // No embosser removes a row.
            return Err(Stop::Ledger(LedgerError::Replaced(self.line.parts.ledger.name().to_owned())));
        }
        if found.as_deref().is_some_and(|row| row.step != self.job.step()) {
            // Another process has begun another job of this id. There is nothing to decide.
            self.known = found;
            return Ok(());
        }
        if self.only == CarriedOnly::WhileItWaits {
            self.waits_still(found.as_deref());
        }
        let decision = decide(self.line, &self.job, found.as_deref(), self.given_up.clone());
        let before = std::mem::replace(&mut self.decision, decision);
        self.decision.keep_end_of(&before);
        self.known = found;
        if let Some(row) = self.known.as_deref().filter(|row| matches!(row.state, State::Done(_))) {
            self.note = note_of_done(&self.job, row);
        }
        Ok(())
    }

    /// Its row was changed by somebody else: if it takes no PIN any more, that is its end.
    fn waits_still(&mut self, found: Option<&Row>) {
        match found {
            Some(row) if !takes_pin(&self.job, found) => {
                // Another process may have begun to find out how a call of this one ended. That is not known yet.
                let is_ours = row.state == State::Begun && self.decision.may_have_effect();
                self.ended_elsewhere = Some(if is_ours { self.unresolved() } else { row.ended() });
            }
            found => self.came_as = found.cloned().map(Box::new),
        }
    }

    /// Whether the job may be called for, or refused, without a look, as far as its batch is known.
    async fn is_vetted(&mut self) -> Result<bool, Stop> {
        let parts = &self.line.parts;
        let lease = self.line.lease.times();
        if self.vetted == Some(lease)
            || self.known.as_deref().is_some_and(|row| !row.was_never_begun())
            || parts.vet == Vet::No
            || is_broken(Mutation::SkipVetting)
            || self.job.looks_first
        {
            self.vetted = Some(lease);
            return Ok(true);
        }
        match vet::vet(self.line, &self.job, &self.recall).await? {
            Ok(is_elsewhere) => {
                self.vetted = Some(lease);
                if is_elsewhere {
                    // It is looked for once; if it is not there, it is called for, or refused as it was to be.
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

    /// Looks for the job's card at Stripe.
    async fn look(&mut self) -> Result<(), Stop> {
        self.tries += 1;
        let known = self.known.as_deref();
        let key_began = self.decision.key_began().or(known.and_then(|known| known.key_began));
        let from = self.decision.absence_counts_from();
        let look = |among| look(self.line, &self.job, among, key_began, from, &self.recall);
        let mut looked = look(Among::Cardholder).await?;
        if matches!(looked, Looked::Verdict(Verdict::Absent, _)) && self.decision.among() == Among::All {
            looked = look(Among::All).await?;
        }
        if matches!(looked, Looked::Verdict(Verdict::Absent, _))
            && let Some(refusal) = changes::overtaken(self.line, &self.job, self.known.as_deref()).await?
        {
            self.decision.overtaken(refusal);
        }
        match looked {
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
}

/// What is to be done with a job of which the ledger says this.
fn decide(line: &Line, job: &Job, known: Option<&Row>, given_up: Option<Refusal>) -> Decision {
    let sighting = known.and_then(|row| line.sighting(row));
    let now = line.parts.clock.moment();
    let mut decision = Decision::resume(known, sighting, job.looks_first, now, line.parts.rules);
    // What was asked for first may have its card; what is asked for now cannot be known by the same key.
    if known.is_some_and(|row| row.state == State::Begun && !job.asks_for(row.content)) {
        decision.other_was_asked_for();
    }
    if let Some(refusal) = given_up {
        decision.give_up(refusal);
    }
    decision
}
