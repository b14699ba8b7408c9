//! A batch that was checked and has not begun: it waits for its approval, or for the time at which it is to start.
//!
//! Its rows are held in memory as any upload's are, and wiped when it is rejected, cancelled, replaced or has waited for too
//! long. What was known of them when they were checked is not kept: whoever begins it must look again ([`release`]).
//! Guarantees: nothing of it is called at Stripe while it waits, and it begins once at most. Never: its rows on a disk; the
//! ledger has a record of how many they are ([`record`]), so that a server which was stopped can say what it lost.

mod diff;
pub(super) mod hold;
mod makers;
pub(super) mod record;
pub(super) mod release;
pub(super) mod rows;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::held::Held;
use super::plan::PlanView;
use super::problem::{Kind, Problem, Wrong};
use super::view::State;
use crate::clock::{Moment, Time};
use crate::job;
use crate::manifest::batch::SecondCards;
use crate::remedy::TryAgain;
use crate::webhooks::Run;
use diff::DiffView;
use record::Record;

/// A batch that waits, or waited in this process.
pub(super) struct Pending {
    pub(super) name: job::Batch,
    /// What it was uploaded as.
    pub(super) upload: Upload,
    rows: u64,
    pins: u64,
    plan: PlanView,
    diff: Option<DiffView>,
    /// Rows with problems, which are left out.
    left_out: u64,
    /// What may be wrong with rows, the first of it: that what is only seen beside other rows is told with each.
    warnings: Vec<Wrong>,
    received: Moment,
    /// How long it may wait for its approval.
    approval_max: Duration,
    /// How long its rows may be held for its start.
    start_max: Option<Duration>,
    now: Mutex<Now>,
    /// What webhooks are still to be told the end of.
    run: Mutex<Option<Run>>,
    /// Held by whoever decides about it, so that two who approve it at once are one after the other.
    pub(super) deciding: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
}

/// What was uploaded, by whom, and how it is to be issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upload {
    /// What an approval names: another file, or the same with other options, has another.
    pub(super) digest: String,
    /// SHA-256 of the file.
    pub(super) file: String,
    /// Whose token it came with.
    pub(super) submitter: String,
    pub(super) second: SecondCards,
    /// Which rows that were refused before are tried again.
    pub(super) again: TryAgain,
    /// Whether rows with problems are left out.
    pub(super) skips_invalid: bool,
    /// How it is issued otherwise than its file has it, in words.
    pub(super) changes: Vec<String>,
    /// When it is to start; at once if that is not said.
    pub(super) start: Option<Time>,
}

/// How it stands.
struct Now {
    stage: Stage,
    held: Option<Held>,
    latest: Time,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    AwaitingApproval,
    /// It waits for its start; approved by whom, if it had to be.
    Scheduled {
        approved_by: Option<String>,
    },
    /// It is a batch like any other.
    Begun {
        approved_by: Option<String>,
    },
    /// It never begins. How it stands, and why.
    Ended {
        state: State,
        reason: String,
    },
}

/// What is to be done with one that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before so long a time.
    Wait(Duration),
    /// It is to begin.
    Start,
    /// It has waited for too long.
    TooLate(String),
    /// Nothing any more.
    Nothing,
}

impl Pending {
    fn now(&self) -> MutexGuard<'_, Now> {
        // Every change is a plain assignment; a panic elsewhere cannot leave it half done.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it has come.
    pub(super) fn stage(&self) -> Stage {
        self.now().stage.clone()
    }

    /// Whether it may still begin.
    pub(super) fn waits(&self) -> bool {
        matches!(self.now().stage, Stage::AwaitingApproval | Stage::Scheduled { .. })
    }

    /// Whoever takes it tells its end.
    pub(super) fn take_run(&self) -> Option<Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// It could not begin, and waits on.
    pub(super) fn put_run_back(&self, run: Option<Run>) {
        *self.run.lock().unwrap_or_else(PoisonError::into_inner) = run;
    }

    /// Rows of its file.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// What it was sent to wait for, in words.
    pub(super) fn for_what(&self) -> String {
        match self.upload.start {
            Some(start) => format!("its start at {}", start.in_utc()),
            None => "its approval".to_owned(),
        }
    }

    /// When it came.
    pub(super) fn received(&self) -> Time {
        self.received.wall
    }

    /// Bytes of memory that its rows take.
    pub(super) fn bytes(&self) -> usize {
        self.now().held.as_ref().map_or(0, Held::bytes)
    }

    /// Told of each change.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What is due at this moment. Time is counted by whichever clock says more, so that neither sleep nor a clock that was
    /// set back lets rows grow older than they may.
    pub(super) fn due(&self, moment: Moment) -> Due {
        let age = moment.since(self.received);
        match self.stage() {
            Stage::Begun { .. } | Stage::Ended { .. } => Due::Nothing,
            Stage::AwaitingApproval => match self.approval_max.checked_sub(age) {
                Some(left) if !left.is_zero() => Due::Wait(left),
                _ => {
                    let hours = self.approval_max.as_secs_f64() / 3600.0;
                    Due::TooLate(format!("nobody approved it within {hours} hours (approval.hours)"))
                }
            },
            Stage::Scheduled { approved_by } => {
                // One that had to be approved may have been held for that as well.
                let age_max = self.start_max.map(|start_max| match approved_by {
                    Some(_) => start_max.max(self.approval_max),
                    None => start_max,
                });
                if age_max.is_some_and(|age_max| age > age_max) {
                    return Due::TooLate("its PINs have become too old before it could start".to_owned());
                }
                let left = self.upload.start.map_or(Duration::ZERO, |start| start.since(moment.wall));
                if left.is_zero() { Due::Start } else { Due::Wait(left) }
            }
        }
    }

    /// It is approved, and waits for its start; false if it waits no more: another file took its place meanwhile.
    fn approved(&self, by: &str, at: Time) -> bool {
        let mut now = self.now();
        if now.stage != Stage::AwaitingApproval {
            return false;
        }
        now.stage = Stage::Scheduled { approved_by: Some(by.to_owned()) };
        drop(now);
        self.touch(at);
        true
    }

    /// It has become a batch like any other.
    pub(super) fn begun(&self, approved_by: Option<String>, at: Time) {
        let mut now = self.now();
        now.stage = Stage::Begun { approved_by };
        now.held = None;
        drop(now);
        self.touch(at);
    }

    /// It never begins, and its rows are wiped.
    pub(super) fn ended(&self, state: State, reason: String, at: Time) {
        let mut now = self.now();
        if matches!(now.stage, Stage::AwaitingApproval | Stage::Scheduled { .. }) {
            now.stage = Stage::Ended { state, reason };
            now.held = None;
        }
        drop(now);
        self.touch(at);
    }

    fn touch(&self, at: Time) {
        self.now().latest = at;
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Whether it can be decided about.
    ///
    /// # Errors
    /// If it waits no more, or is another than the one that is meant.
    pub(super) fn can_be_decided(&self) -> Result<(), Problem> {
        let refused = |detail: String| Err(Problem::new(Kind::Conflict, detail));
        match self.stage() {
            Stage::AwaitingApproval => Ok(()),
            Stage::Scheduled { approved_by: Some(who) } | Stage::Begun { approved_by: Some(who) } => {
                refused(format!("{who} has approved it already"))
            }
            Stage::Scheduled { approved_by: None } => {
                refused("it needs no approval, only its start".to_owned())
            }
            Stage::Begun { approved_by: None } => refused("it has begun".to_owned()),
            Stage::Ended { reason, .. } => refused(format!("it waits no more: {reason}")),
        }
    }

    /// How it stands, for clients.
    fn state(&self) -> (State, Option<String>) {
        match self.stage() {
            Stage::AwaitingApproval => (State::AwaitingApproval, None),
            Stage::Scheduled { .. } => (State::Scheduled, None),
            Stage::Begun { .. } => (State::Running, None),
            Stage::Ended { state, reason } => (state, Some(reason)),
        }
    }

    /// As it is remembered in the ledger.
    pub(super) fn record(&self) -> Record {
        let (state, reason) = self.state();
        Record {
            state,
            reason,
            rows: self.rows,
            pins: self.pins,
            received_ms: self.received.wall.unix_ms(),
            latest_ms: self.now().latest.unix_ms(),
        }
    }

    /// What whoever approves it should have seen; none once it waits no more.
    pub(super) fn view(&self) -> Option<HeldView> {
        let stage = self.stage();
        let approved_by = match &stage {
            Stage::AwaitingApproval => None,
            Stage::Scheduled { approved_by } => approved_by.clone(),
            Stage::Begun { .. } | Stage::Ended { .. } => return None,
        };
        let waits_until = self.received.wall.plus(self.approval_max);
        Some(HeldView {
            digest: self.upload.digest.clone(),
            file_sha256: self.upload.file.clone(),
            submitter: self.upload.submitter.clone(),
            approve_until_ms: (stage == Stage::AwaitingApproval).then(|| waits_until.unix_ms()),
            pins_until_ms: self.start_max.map(|most| self.received.wall.plus(most).unix_ms()),
            approved_by,
            start_ms: self.upload.start.map(Time::unix_ms),
            second_cards: self.upload.second == SecondCards::Wanted,
            retry: self.upload.again == TryAgain::Unchanged,
            changes: self.upload.changes.clone(),
            plan: self.plan.clone(),
            diff: self.diff.clone(),
            left_out: self.left_out,
        })
    }
}

/// A batch that waits, for whoever looks at it before it is issued.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct HeldView {
    /// What an approval names: another file of this name, or the same file with other options, has another digest.
    digest: String,
    /// SHA-256 of the file as it was uploaded, as `sha256sum` prints it.
    file_sha256: String,
    /// Whose token it was uploaded with; they cannot approve it.
    submitter: String,
    /// Until when it waits for its approval, in milliseconds since 1970; then its rows are wiped. Null if it needs none any more.
    approve_until_ms: Option<i64>,
    /// Until when its PINs can be used, in milliseconds since 1970; rows with a PIN whose turn comes later are refused. Null if it has
    /// none.
    pins_until_ms: Option<i64>,
    /// Who has approved it.
    approved_by: Option<String>,
    /// When it starts, in milliseconds since 1970; null: once it is approved.
    start_ms: Option<i64>,
    /// Whether rows that were issued under other names get second cards.
    second_cards: bool,
    /// Whether of rows that were refused before only those are tried again that need no change.
    retry: bool,
    /// How it would be issued otherwise than its file has it, in words: cells that were mended on the way, for instance.
    changes: Vec<String>,
    /// What would be issued, as it was when it came.
    plan: PlanView,
    /// What is different from the batch of this name that was issued before; null if there is none.
    diff: Option<DiffView>,
    /// Rows with problems, which are left out.
    left_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::manifest::CheckReport;
    use crate::manifest::recognise::Recognition;

    const HOUR: Duration = Duration::from_secs(3600);

    fn pending(clock: &Clock, stage: Stage, start: Option<Time>) -> Pending {
        let received = clock.moment();
        Pending {
            name: job::Batch::new("staff").unwrap(),
            upload: Upload {
                digest: "d".into(),
                file: "f".into(),
                submitter: "clerk".into(),
                skips_invalid: false,
                changes: Vec::new(),
                second: SecondCards::Refused,
                again: TryAgain::All,
                start,
            },
            rows: 1,
            pins: 1,
            plan: PlanView::of(&CheckReport::default(), &Recognition::default(), 25.0, 0),
            diff: None,
            left_out: 0,
            warnings: Vec::new(),
            received,
            approval_max: 8 * HOUR,
            start_max: Some(HOUR),
            now: Now { stage, held: None, latest: received.wall }.into(),
            run: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    #[test]
    fn a_clock_that_is_set_back_lets_nothing_wait_for_longer() {
        let clock = Clock::system();
        let waits = pending(&clock, Stage::AwaitingApproval, None);
        assert!(matches!(waits.due(clock.moment()), Due::Wait(left) if left <= 8 * HOUR));
        clock.set(-86_400_000);
        clock.advance(7 * HOUR);
        assert!(matches!(waits.due(clock.moment()), Due::Wait(left) if left <= HOUR));
        clock.advance(HOUR);
        assert!(matches!(waits.due(clock.moment()), Due::TooLate(_)));
        waits.ended(State::Expired, "too late".into(), clock.now());
        assert_eq!(waits.due(clock.moment()), Due::Nothing);
    }

    #[test]
    fn pins_that_grew_too_old_before_the_start_are_not_used() {
        let clock = Clock::system();
        let start = Some(clock.now().plus(HOUR / 2));
        let by_itself = pending(&clock, Stage::Scheduled { approved_by: None }, start);
        let approved = pending(&clock, Stage::Scheduled { approved_by: Some("boss".into()) }, start);
        assert!(matches!(by_itself.due(clock.moment()), Due::Wait(left) if left <= HOUR / 2));
        clock.advance(HOUR / 2);
        assert_eq!(by_itself.due(clock.moment()), Due::Start);
        // The machine slept over its start.
        clock.advance(HOUR);
        assert!(matches!(by_itself.due(clock.moment()), Due::TooLate(_)));
        // One that had to be approved may have been held for that.
        assert_eq!(approved.due(clock.moment()), Due::Start);
        clock.advance(8 * HOUR);
        assert!(matches!(approved.due(clock.moment()), Due::TooLate(_)));
    }
}
