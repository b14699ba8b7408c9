//! A limit above the accounts': what all paces of one pacer may call together.
//!
//! It is kept as an account's is (turns, then permits, evenly spaced, judged by when calls left). Accounts wait for it in a row in
//! which each stands once, however many jobs it has, and goes to the end with each job: so one with many lets one with few in after
//! one call. Guarantees: whoever stands in the row is asked in its order; whoever has no use for its place any more costs nobody one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::gate::{Again, May};
use super::lane::Lane;
use super::pacer::{Due, PLATFORM, Times};
use super::waiting::Shared;
use crate::locks::{Mutex, MutexGuard};

/// The limit. Clones share it.
#[derive(Clone)]
pub(super) struct Platform {
    state: Arc<Mutex<State>>,
    times: Arc<Times>,
}

/// The limit, as one account's gate sees it.
pub(super) struct Above {
    platform: Platform,
    account: u64,
}

struct State {
    /// It has turns and permits as an endpoint of one account has.
    lane: Lane,
    /// Who waits to prepare, and who to send.
    turns: Row,
    permits: Row,
    accounts: HashMap<u64, Weak<Shared>>,
    /// When the pacer looks next.
    looked_at: Option<Instant>,
}

/// Accounts, each once.
#[derive(Default)]
struct Row {
    waiting: VecDeque<u64>,
    /// The one that is being asked; nobody else goes meanwhile.
    asked: Option<u64>,
}

impl Row {
    /// Whether an account may go: it is asked, or nobody waits.
    fn is_next(&self, account: u64) -> bool {
        self.asked.map_or(self.waiting.is_empty(), |asked| asked == account)
    }

    fn stand(&mut self, account: u64) {
        if !self.waiting.contains(&account) {
            self.waiting.push_back(account);
        }
    }
}

/// In which row.
#[derive(Debug, Clone, Copy)]
enum For {
    Turn,
    Permit,
}

impl Platform {
    pub(super) fn new(per_second: f64, times: Arc<Times>, now: Instant) -> Self {
        let state = State {
            // Calls in flight are each account's own to bound.
            lane: Lane::new(per_second, usize::MAX, now),
            turns: Row::default(),
            permits: Row::default(),
            accounts: HashMap::new(),
            looked_at: None,
        };
        Self { state: Arc::new(Mutex::new(state)), times }
    }

    /// As that account's gate sees it.
    pub(super) fn above(&self, account: u64) -> Above {
        Above { platform: self.clone(), account }
    }

    /// Who is asked when it is that account's turn.
    pub(super) fn know(&self, account: u64, shared: &Arc<Shared>) {
        self.state().accounts.insert(account, Arc::downgrade(shared));
    }

    pub(super) fn forget(&self, account: u64) {
        self.state().accounts.remove(&account);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time has come for which the pacer was told to look.
    pub(super) fn is_due(&self, at: Instant, now: Instant) {
        {
            let mut state = self.state();
            if state.looked_at == Some(at) {
                state.looked_at = None;
            }
            state.lane.level.was_late(now.saturating_duration_since(at), now);
        }
        // After the permits: each of them frees a place.
        self.ask(For::Permit);
        self.ask(For::Turn);
    }

    /// Lets in the accounts of a row, for as long as there is room.
    fn ask(&self, row: For) {
        loop {
            let first = {
                let mut state = self.state();
                if state.row(row).waiting.is_empty() {
                    return;
                }
                match state.may(row, super::now()) {
                    May::Go(()) => {}
                    May::At(from) => return self.look_at(&mut state, from),
                    May::Blocked | May::Stale => return,
                }
                let first = state.row(row).waiting.pop_front();
                state.row(row).asked = first;
                first.and_then(|account| state.accounts.get(&account)?.upgrade())
            };
            // Its own lock comes before this one. It goes if it has a use for it still, and else the next one may.
            if let Some(first) = first {
                first.look();
            }
            self.state().row(row).asked = None;
        }
    }

    fn look_at(&self, state: &mut State, at: Instant) {
        if state.looked_at.is_none_or(|already| at < already) {
            self.times.look_at(PLATFORM, state.looked_at.replace(at), at, Due::Platform(self.clone()));
        }
    }

    /// Something has become free: whoever waits is asked.
    fn freed(&self, state: &mut State, now: Instant) {
        if !state.turns.waiting.is_empty() || !state.permits.waiting.is_empty() {
            self.look_at(state, now);
        }
    }
}

impl State {
    fn row(&mut self, row: For) -> &mut Row {
        match row {
            For::Turn => &mut self.turns,
            For::Permit => &mut self.permits,
        }
    }

    /// Whether one more may. Its time, once it has come, is kept for whoever is next.
    fn may(&mut self, row: For, now: Instant) -> May<()> {
        match row {
            For::Turn => self.may_prepare(now),
            For::Permit => self.may_send(now),
        }
    }

    fn may_prepare(&mut self, now: Instant) -> May<()> {
        let places = self.lane.preparation.places(self.lane.level.current());
        if self.lane.prepared >= places {
            return May::Blocked;
        }
        self.lane.turn_is_here(now).map_or_else(May::At, May::Go)
    }

    fn may_send(&mut self, now: Instant) -> May<()> {
        if let Some(from) = self.lane.permits_from.filter(|from| now < *from) {
            return May::At(from);
        }
        match self.lane.level.room(now) {
            Ok(()) => {}
            Err(Some(from)) => return May::At(from),
            Err(None) => return May::Blocked,
        }
        self.lane.own_time_is_here(now).map_or_else(May::At, May::Go)
    }

    fn hand_turn_on(&mut self) {
        let places = self.lane.preparation.places(self.lane.level.current());
        self.lane.hand_turn_on(places);
    }
}

impl Above {
    /// Whether one more job of the account may prepare. Else it stands in the row, and is looked at when it may.
    pub(super) fn turn(&self, now: Instant) -> bool {
        let mut state = self.platform.state();
        if !self.is_next(&mut state, For::Turn, now) {
            return false;
        }
        state.lane.has_turn = false;
        state.lane.prepared += 1;
        true
    }

    /// Whether one that is prepared may send. Else as before.
    pub(super) fn permit(&self, now: Instant) -> bool {
        let mut state = self.platform.state();
        if !self.is_next(&mut state, For::Permit, now) {
            return false;
        }
        let State { lane, turns, .. } = &mut *state;
        lane.time_is_used();
        if !turns.waiting.is_empty() {
            lane.lead(lane.level.current(), now);
        }
        lane.prepared = lane.prepared.saturating_sub(1);
        lane.level.granted();
        self.platform.freed(&mut state, now);
        true
    }

    fn is_next(&self, state: &mut State, row: For, now: Instant) -> bool {
        if state.row(row).is_next(self.account) {
            match state.may(row, now) {
                May::Go(()) => {
                    // Its next job stands in the row anew.
                    state.row(row).asked = None;
                    return true;
                }
                May::At(from) => self.platform.look_at(state, from),
                May::Blocked | May::Stale => {}
            }
        }
        state.row(row).stand(self.account);
        false
    }

    /// A preparation took so long.
    pub(super) fn prepared_in(&self, took: Duration) {
        self.platform.state().lane.preparation.took(took);
    }

    /// A turn ended without a permit.
    pub(super) fn turn_ended(&self, again: Again, now: Instant) {
        let mut state = self.platform.state();
        state.lane.prepared = state.lane.prepared.saturating_sub(1);
        if again == Again::Yes {
            state.hand_turn_on();
        }
        self.platform.freed(&mut state, now);
    }

    /// A call leaves, so much later than it might have.
    pub(super) fn left(&self, late: Duration, now: Instant) {
        let mut state = self.platform.state();
        state.lane.level.left(0, late, now);
        if !state.permits.waiting.is_empty() {
            self.platform.look_at(&mut state, now);
        }
    }

    /// A call never left.
    pub(super) fn never_left(&self) {
        let (mut state, now) = (self.platform.state(), super::now());
        state.lane.level.never_left();
        state.lane.permits_back = 1;
        state.hand_turn_on();
        self.platform.freed(&mut state, now);
    }
}
