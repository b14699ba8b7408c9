//! What to do next with a job, as a pure function of what is known: no I/O, time as an input.
//!
//! This file is where "exactly one card per job" is decided. It guarantees:
//! - as long as some call under a key may have made a card, no other key is used;
//! - the next generation's key is used only after a look that began once every call under the present one is known to
//!   have ended, and long enough after that for Stripe's lists to have the card;
//! - a job is refused only when no card of it can exist.
//!
//! What was decided before a wait is decided anew after it. A time in the future proves nothing, since a clock was set
//! back: it counts as too old. What may still be running is judged by time that this process itself saw pass.

use std::time::Duration;

use crate::clock::{Boot, Moment, Time};
use crate::config::{StripeConfig, seconds};
use crate::job::Generation;
use crate::ledger::{Row, State};
use crate::outcome::{Outcome, Output, Refusal};
use crate::simulation::{Mutation, is_broken};

/// The code of a refusal because a card of the job's id is not what the job asks for.
pub const CONFLICT: &str = "job_conflict";

/// The code of a refusal because a later change of the card was begun while the end of this one was not known.
pub const SUPERSEDED: &str = "superseded";

/// Bounds that the rules need.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long after a key's first use it is trusted to be remembered. Stripe keeps keys at least 24 hours.
    pub key_trusted: Duration,
    /// How long a call may go on running at Stripe after it was sent. Official clients wait 80 seconds.
    pub call_lasts: Duration,
    /// How long a new card may be missing from Stripe's lists.
    pub lists_lag: Duration,
    /// How long after its decision a call may leave: what slept in between does not.
    pub departs_within: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            key_trusted: Duration::from_secs(23 * 3600),
            call_lasts: Duration::from_secs(120),
            lists_lag: Duration::from_secs(60),
            departs_within: Duration::from_secs(5),
        }
    }
}

impl Rules {
    /// With the configured bounds of what Stripe may take.
    #[must_use]
    pub fn of(config: &StripeConfig) -> Self {
        Self {
            call_lasts: seconds(config.call_seconds_max),
            lists_lag: seconds(config.list_lag_seconds),
            ..Self::default()
        }
    }
}

/// When a key was first used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Began {
    wall: Time,
    /// When this process first knew of it, on a clock that nobody sets.
    boot: Boot,
    /// How old it was then, by the time of day.
    age: Duration,
    /// Whether no time that was recorded with it lay in the future: else a clock was set, and nothing is known of its age.
    is_credible: bool,
}

/// What is known of the calls made under the present generation's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    /// None of them can have made a card that is not known.
    None,
    /// One of them may have made a card, or may still be running.
    Open {
        /// When the key was first used.
        began: Began,
        /// By when the last of them has ended.
        ended_by: Boot,
    },
    /// The first of them ran to its end; whether it made a card must be looked up.
    Over {
        /// When the key was first used, where that was not before the ledger knows.
        began: Option<Began>,
        /// By when it has ended.
        ended_by: Boot,
    },
}

/// What this process remembers of a row whose end is not known, from one visit to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// By when the last call under its key has ended.
    pub ended_by: Boot,
    /// Whether the first call under its key is known to have run to its end.
    pub is_over: bool,
    /// What was known of its key's age.
    began: Option<Began>,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Make the call under this generation's key.
    Call(Generation),
    /// Look for the job's card at Stripe.
    Look,
    /// It has ended.
    Finish(Outcome),
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// It was done, now or by the call that is replayed.
    Done(Output),
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

/// Whose cards a look goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// The cardholder's that the job asks for.
    Cardholder,
    /// All of the account's: a call under this key asked for something else, which may have been another cardholder.
    All,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This job's effect.
    Found(Output),
    /// A card of this job's id that is not what the job asks for, and in what it differs.
    Other {
        /// Its id.
        card: String,
        /// What differs.
        differs: String,
    },
    /// No card of this job.
    Absent,
}

/// What is known of one step of a job, and what follows from it.
#[derive(Debug, Clone)]
pub struct Decision {
    rules: Rules,
    generation: Generation,
    calls: Calls,
    /// As it was before the attempt that is under way.
    before: Calls,
    /// Whether the ledger knows the latest call under this key to have been refused.
    refused_before: bool,
    attempts: u32,
    look_first: bool,
    among: Among,
    /// To be told if the look finds nothing.
    refusal: Option<Refusal>,
    finished: Option<Outcome>,
}

impl Decision {
    /// From what the ledger says, and what this process remembers of the row. `look_first` where the ledger may not know
    /// all.
    #[must_use]
    pub fn resume(
        row: Option<&Row>,
        sighting: Option<Sighting>,
        look_first: bool,
        now: Moment,
        rules: Rules,
    ) -> Self {
        let mut decision = Self {
            rules,
            generation: Generation::FIRST,
            calls: Calls::None,
            before: Calls::None,
            refused_before: false,
            attempts: 0,
            look_first,
            among: Among::Cardholder,
            refusal: None,
            finished: None,
        };
        let Some(row) = row else { return decision };
        decision.generation = row.generation;
        decision.attempts = row.attempts;
        match &row.state {
            State::Begun => {
                let wall = row.key_began.or(row.attempted).unwrap_or(row.written);
                let is_credible = [Some(wall), row.attempted, Some(row.written)]
                    .into_iter()
                    .flatten()
                    .all(|time| time <= now.wall);
                // Whoever recorded it may be about to call.
                let ended_by = now.boot.plus(rules.departs_within).plus(rules.call_lasts);
                let seen = Sighting { ended_by, is_over: false, began: None };
                let Sighting { ended_by, is_over, began } = sighting.unwrap_or(seen);
                let first = Began { wall, boot: now.boot, age: now.wall.since(wall), is_credible };
                // What this process saw pass since it first knew of the key counts, whatever the time of day says now.
                let began = began
                    .map_or(first, |seen| Began { is_credible: seen.is_credible && is_credible, ..seen });
                decision.calls = if is_over {
                    Calls::Over { began: Some(began), ended_by }
                } else {
                    Calls::Open { began, ended_by }
                };
            }
            // It may have had its effect, the later change took the card's note of that, and Stripe forgets its key: whoever sends it again
            // is told the same.
            State::Refused(refusal) if row.attempts > 0 && refusal.code == SUPERSEDED => {
                decision.finished = Some(Outcome::Refused(refusal.clone()));
            }
            State::Refused(refusal) => {
                // A conflict is a card that exists, and no answer of Stripe's.
                decision.refused_before = row.attempts > 0 && refusal.code != CONFLICT;
                if refusal.code == CONFLICT {
                    decision.other_was_asked_for();
                }
            }
            State::AwaitingPin => decision.refused_before = row.attempts > 0,
            State::Done(card) => decision.finished = Some(Outcome::Done(card.clone())),
        }
        decision
    }

    /// What was learnt of a key before another process wrote the row: the first call under it has run to its end, and Stripe answers
    /// every later one with that. Else two processes that take turns would each find it out anew, for ever.
    pub fn keep_end_of(&mut self, before: &Self) {
        if let (Calls::Over { began, ended_by }, Calls::Open { .. }) = (before.calls, self.calls)
            && before.generation == self.generation
            && began.is_some()
        {
            self.calls = Calls::Over { began, ended_by };
            self.refusal = self.refusal.take().or_else(|| before.refusal.clone());
        }
    }

    /// Calls made for the step in all runs.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Which key is in use.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether some call may have had an effect that is not known.
    #[must_use]
    pub fn may_have_effect(&self) -> bool {
        self.calls != Calls::None
    }

    /// When the present key was first used, if a call under it may be open.
    #[must_use]
    pub fn key_began(&self) -> Option<Time> {
        match self.calls {
            Calls::Open { began, .. } => Some(began.wall),
            Calls::Over { began, .. } => began.map(|began| began.wall),
            Calls::None => None,
        }
    }

    /// What is to be remembered until the next visit, if the end is not known.
    #[must_use]
    pub fn sighting(&self) -> Option<Sighting> {
        match self.calls {
            Calls::None => None,
            Calls::Open { began, ended_by } => {
                Some(Sighting { ended_by, is_over: false, began: Some(began) })
            }
            Calls::Over { began, ended_by } => Some(Sighting { ended_by, is_over: true, began }),
        }
    }

    /// The next thing to do.
    #[must_use]
    pub fn next(&self, now: Moment) -> Next {
        if let Some(outcome) = &self.finished {
            return Next::Finish(outcome.clone());
        }
        match self.calls {
            _ if self.look_first => Next::Look,
            Calls::Over { .. } => Next::Look,
            Calls::Open { began, .. } if !self.is_trusted(began, now) => Next::Look,
            Calls::Open { .. } | Calls::None => Next::Call(self.generation),
        }
    }

    /// Whether Stripe certainly still remembers a key that was first used then.
    fn is_trusted(&self, began: Began, now: Moment) -> bool {
        if is_broken(Mutation::TrustKeyForEver) {
            return true;
        }
        let by_wall = began.wall <= now.wall && now.wall.since(began.wall) <= self.rules.key_trusted;
        let by_boot = now.boot.since(began.boot) + began.age <= self.rules.key_trusted;
        began.is_credible && by_wall && by_boot
    }

    /// An attempt is decided at this moment, and will be recorded and made.
    pub fn begin(&mut self, now: Moment) {
        self.before = self.calls;
        self.attempts += 1;
        let began = match self.calls {
            Calls::Open { began, .. } => began,
            Calls::None | Calls::Over { .. } => {
                Began { wall: now.wall, boot: now.boot, age: Duration::ZERO, is_credible: true }
            }
        };
        let ended_by = now.boot.plus(self.rules.departs_within).plus(self.rules.call_lasts);
        self.calls = Calls::Open { began, ended_by };
    }

    /// The attempt that was begun was not made after all.
    pub fn take_back(&mut self) {
        self.attempts = self.attempts.saturating_sub(1);
        self.calls = self.before;
    }

    /// What came of the attempt, at this moment.
    pub fn answered(&mut self, answered: Answered, now: Moment) {
        match answered {
            Answered::Done(output) => self.finished = Some(Outcome::Done(output)),
            Answered::NoEffect => self.calls = self.before,
            Answered::No { refusal, replayed } => self.refused(refusal, replayed, now),
            Answered::InUse => self.still_running(now),
            Answered::Unknown if is_broken(Mutation::NewKeyTooEarly) => self.next_generation(),
            Answered::Unknown => {}
            Answered::EndedBadly => self.over(now),
            // The ledger knows that the call under this key was refused: then that is the one Stripe remembers, and it
            // made no card.
            Answered::BodyDiffers if self.refused_before && self.before == Calls::None => {
                self.next_generation()
            }
            Answered::BodyDiffers => {
                self.other_was_asked_for();
                // This call did nothing. The one that did is the one before it, or one of a lost ledger, which may
                // have begun a moment ago.
                if let Calls::Open { .. } = self.before {
                    self.calls = self.before;
                } else {
                    self.still_running(now);
                }
            }
        }
    }

    /// The first call under the key has ended. If none was known before this one, it was a lost ledger's, of any age.
    fn over(&mut self, now: Moment) {
        let began = match self.before {
            Calls::Open { began, .. } => Some(began),
            Calls::Over { began, .. } => began,
            Calls::None => None,
        };
        self.calls = Calls::Over { began, ended_by: now.boot };
    }

    fn still_running(&mut self, now: Moment) {
        if let Calls::Open { ended_by, .. } = &mut self.calls {
            *ended_by = now.boot.plus(self.rules.call_lasts);
        }
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.next();
        self.refused_before = false;
        self.among = Among::Cardholder;
        self.calls = Calls::None;
    }

    fn refused(&mut self, refusal: Refusal, replayed: bool, now: Moment) {
        match (self.before, replayed) {
            (Calls::None, false) => self.finished = Some(Outcome::Refused(refusal)),
            // The saved answer of the call that the ledger knows to have been refused: its key is spent.
            (Calls::None, true) if self.refused_before => self.next_generation(),
            // The saved answer of a call that a lost ledger forgot: this key is spent, and a card can only be of a later
            // generation.
            (Calls::None, true) => self.over(now),
            // Ours is the call it speaks of; or a lost ledger's, then a later generation's card is found.
            (Calls::Open { .. } | Calls::Over { .. }, true) => {
                self.over(now);
                self.refusal = Some(refusal);
            }
            // An earlier call's end is unknown and this one was turned away before it could tell.
            (Calls::Open { .. } | Calls::Over { .. }, false) => self.give_up(refusal),
        }
    }

    /// The job cannot be called for (again): its PIN is stale, it expired, it was refused. It is refused once no
    /// earlier call can have made its card.
    pub fn give_up(&mut self, refusal: Refusal) {
        match self.calls {
            _ if is_broken(Mutation::RefuseWhileOpen) => self.finished = Some(Outcome::Refused(refusal)),
            Calls::None if !self.look_first => self.finished = Some(Outcome::Refused(refusal)),
            Calls::None | Calls::Open { .. } | Calls::Over { .. } => {
                self.look_first = true;
                self.refusal = Some(refusal);
            }
        }
    }

    /// A look that finds nothing tells nothing, as another change has taken the place where its effect would be seen: then this is told.
    pub fn overtaken(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// The job is looked for before it is called for, or refused.
    pub fn settle_first(&mut self) {
        self.look_first = true;
        if let Some(Outcome::Refused(refusal)) =
            self.finished.take_if(|outcome| matches!(outcome, Outcome::Refused(_)))
        {
            self.refusal = Some(refusal);
        }
    }

    /// A call under this key asked for something else and its end is not known: that end must be found first.
    pub fn other_was_asked_for(&mut self) {
        self.look_first = true;
        self.among = Among::All;
    }

    /// Whose cards to look through.
    #[must_use]
    pub fn among(&self) -> Among {
        self.among
    }

    /// From when on a look must begin for its finding nothing to count.
    #[must_use]
    pub fn absence_counts_from(&self) -> Option<Boot> {
        match self.calls {
            _ if is_broken(Mutation::BelieveAbsenceAtOnce) => None,
            Calls::None => None,
            Calls::Open { ended_by, .. } | Calls::Over { ended_by, .. } => {
                Some(ended_by.plus(self.rules.lists_lag))
            }
        }
    }

    /// What a look that began at `began` found. Answers from when on to look again, if that is needed.
    pub fn looked(&mut self, verdict: Verdict, began: Boot) -> Option<Boot> {
        match verdict {
            Verdict::Found(card) => self.finished = Some(Outcome::Done(card)),
            Verdict::Other { card, differs } => {
                let message = format!(
                    "card {card} exists at Stripe under this id and is not what is asked for ({differs}), so none was made; \
                     look at that card there, and if this one is wanted beside it, send it under an id that was not \
                     used before"
                );
                self.finished = Some(Outcome::Refused(Refusal::own(CONFLICT, message)));
            }
            Verdict::Absent => {
                if let Some(from) = self.absence_counts_from().filter(|from| began < *from) {
                    return Some(from);
                }
                self.look_first = false;
                if let Some(refusal) = self.refusal.take() {
                    self.finished = Some(Outcome::Refused(refusal));
                } else if self.calls != Calls::None {
                    self.next_generation();
                }
                self.calls = Calls::None;
            }
        }
        None
    }
}
