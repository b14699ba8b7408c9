//! What to do next with a job, as a pure function of what is known: no I/O, time as an input.
//!
//! This file is where "exactly one card per job" is decided. It guarantees:
//! - as long as some call under a key may have made a card, no other key is used;
//! - the next generation's key is used only after a look through the cardholder's cards that began once every
//!   earlier call is known to have ended, or is too old to be still running;
//! - a job is refused only when no card of it can exist.

use std::time::Duration;

use crate::clock::Time;
use crate::job::Generation;
use crate::ledger::{Row, State};
use crate::outcome::{Card, Outcome, Refusal};

/// Bounds that the rules need.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long after a key's first use it is trusted to be remembered. Stripe keeps keys at least 24 hours.
    pub key_trusted: Duration,
    /// How long a call may go on running at Stripe after it was sent.
    pub call_lifetime: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { key_trusted: Duration::from_secs(23 * 3600), call_lifetime: Duration::from_secs(60) }
    }
}

/// What is known of the calls made under the present generation's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// None of them can have made a card that is not known.
    Clear,
    /// One of them may have made a card, or may still be running.
    Open {
        /// When the key was first used.
        key_began: Time,
        /// When it was last used.
        last: Time,
    },
    /// The first of them ran to its end; whether it made a card must be looked up.
    Over,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the call under this generation's key.
    Create(Generation),
    /// Look through the cardholder's cards for this job's.
    Reconcile,

    /// It has ended.
    Finish(Outcome),
}

/// What came of a create call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// A card, new or replayed.
    Card(Card),
    /// A definite no; `replayed` if Stripe answered from memory.
    No {
        /// Why.
        refusal: Refusal,
        /// Whether it was the saved answer of an earlier call.
        replayed: bool,
    },
    /// The call certainly had no effect: it was not sent, or a limiter or the key check turned it away.
    NoEffect,
    /// Another call under the same key is still running.
    InUse,
    /// The key was used before with another body (the PIN was encrypted again).
    BodyDiffers,
    /// The first call under the key ran to its end and failed there; it may have made the card first.
    EndedBadly,
    /// No usable answer: a time-out, a cut connection, a fresh 5xx, half a body.
    Unknown,
}

/// What a look through the cardholder's cards found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This job's card.
    Found(Card),
    /// No card of this job.
    Absent,
}

/// One job's way through its attempts.
#[derive(Debug, Clone)]
pub struct Course {
    rules: Rules,
    generation: Generation,
    standing: Standing,
    /// The standing before the attempt that is under way.
    before: Standing,
    /// Whether the ledger knows the latest call under this key to have been refused.
    refused_before: bool,
    attempts: u32,
    look_first: bool,
    /// To be told if the look finds nothing.
    refusal: Option<Refusal>,
    finished: Option<Outcome>,
}

impl Course {
    /// A job's course from what the ledger knows of it. `reconcile_first` for when the ledger may have been lost.
    #[must_use]
    pub fn resume(known: Option<&Row>, reconcile_first: bool, rules: Rules) -> Self {
        let mut course = Self {
            rules,
            generation: Generation::FIRST,
            standing: Standing::Clear,
            before: Standing::Clear,
            refused_before: false,
            attempts: 0,
            look_first: reconcile_first,
            refusal: None,
            finished: None,
        };
        let Some(row) = known else { return course };
        course.generation = row.generation;
        course.attempts = row.attempts;
        match &row.state {
            State::Begun => {
                let last = row.attempted.unwrap_or(row.written);
                course.standing = Standing::Open { key_began: row.key_began.unwrap_or(last), last };
            }
            State::Refused(_) => course.refused_before = row.attempts > 0,
            State::Issued(card) => course.finished = Some(Outcome::Issued(card.clone())),
        }
        course
    }

    /// Calls made for the job in all runs.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Which key is in use.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// When the present key was first used and when last, if a call under it may be open.
    #[must_use]
    pub fn open_since(&self) -> Option<(Time, Time)> {
        match self.standing {
            Standing::Open { key_began, last } => Some((key_began, last)),
            Standing::Clear | Standing::Over => None,
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn step(&self, now: Time) -> Step {
        if let Some(outcome) = &self.finished {
            return Step::Finish(outcome.clone());
        }
        match self.standing {
            _ if self.look_first => Step::Reconcile,
            Standing::Over => Step::Reconcile,
            Standing::Open { key_began, .. } if now.since(key_began) > self.rules.key_trusted => {
                Step::Reconcile
            }
            Standing::Open { .. } | Standing::Clear => Step::Create(self.generation),
        }
    }

    /// An attempt is being written to the ledger and will be made.
    pub fn begin(&mut self, now: Time) {
        self.before = self.standing;
        self.attempts += 1;
        let key_began = match self.standing {
            Standing::Open { key_began, .. } => key_began,
            Standing::Clear | Standing::Over => now,
        };
        self.standing = Standing::Open { key_began, last: now };
    }

    /// The attempt that was begun was not made after all.
    pub fn unbegin(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.standing = self.before;
    }

    /// What came of the attempt.
    pub fn answered(&mut self, answered: Answered, now: Time) {
        match answered {
            Answered::Card(card) => self.finished = Some(Outcome::Issued(card)),
            Answered::NoEffect => self.standing = self.before,
            Answered::No { refusal, replayed } => self.refused(refusal, replayed),
            Answered::InUse => self.running(now),
            Answered::Unknown => {}
            Answered::EndedBadly => self.standing = Standing::Over,
            // The ledger knows that the call under this key was refused: then that is the one Stripe remembers.
            Answered::BodyDiffers if self.refused_before => self.standing = Standing::Over,
            Answered::BodyDiffers => {
                self.look_first = true;
                // This call did nothing. The one that did is the one before it, or one of a lost ledger, which may
                // have begun a moment ago.
                if let Standing::Open { .. } = self.before {
                    self.standing = self.before;
                } else {
                    self.running(now);
                }
            }
        }
    }

    fn running(&mut self, now: Time) {
        if let Standing::Open { last, .. } = &mut self.standing {
            *last = now;
        }
    }

    fn refused(&mut self, refusal: Refusal, replayed: bool) {
        match (self.before, replayed) {
            (Standing::Clear, false) => self.finished = Some(Outcome::Refused(refusal)),
            // The saved answer of a call that an earlier run made and was told of, or that a lost ledger forgot:
            // this key is spent. A card can only be of a later generation.
            (Standing::Clear, true) => self.standing = Standing::Over,
            // Ours is the call it speaks of; or a lost ledger's, then a later generation's card is found.
            (Standing::Open { .. } | Standing::Over, true) => {
                self.standing = Standing::Over;
                self.refusal = Some(refusal);
            }
            // An earlier call's end is unknown and this one was turned away before it could tell.
            (Standing::Open { .. } | Standing::Over, false) => self.give_up(refusal),
        }
    }

    /// The job cannot be called for (again): its PIN is stale, it expired, it was refused. It is refused once no
    /// earlier call can have made its card.
    pub fn give_up(&mut self, refusal: Refusal) {
        match self.standing {
            Standing::Clear => self.finished = Some(Outcome::Refused(refusal)),
            Standing::Open { .. } | Standing::Over => {
                self.look_first = true;
                self.refusal = Some(refusal);
            }
        }
    }

    /// What a look that began at `looked` found. Answers how long to wait before looking again, if that is needed.
    pub fn reconciled(&mut self, verdict: Verdict, looked: Time) -> Option<Time> {
        match (verdict, self.standing) {
            (Verdict::Found(card), _) => self.finished = Some(Outcome::Issued(card)),
            (Verdict::Absent, Standing::Open { last, .. })
                if looked.since(last) < self.rules.call_lifetime =>
            {
                return Some(last.plus(self.rules.call_lifetime));
            }
            (Verdict::Absent, standing) => {
                self.look_first = false;
                if let Some(refusal) = self.refusal.take() {
                    self.finished = Some(Outcome::Refused(refusal));
                } else if standing != Standing::Clear {
                    self.generation = self.generation.next();
                    self.refused_before = false;
                }
                self.standing = Standing::Clear;
            }
        }
        None
    }
}
