//! Who waits for the pace: two queues, first come first served, and the thread that watches the time for them.
//!
//! A thread of its own, since its sleeps must be exact: an async timer is up to a millisecond late. Who finds nobody
//! before it and the gate open is let through at once; so the thread only works for those who must wait. Whoever
//! stops waiting is passed over and costs nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::gate::{Gate, May, Notice, Probe};
use super::{Closed, Health, Permit};

/// What all turns and permits of a pace share.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    gate: Gate,
    turns: VecDeque<oneshot::Sender<Place>>,
    permits: VecDeque<Prepared>,
    /// No more turns.
    closed: bool,
    /// Nobody is left who could ask.
    ended: bool,
    /// Until when the thread sleeps; none: until it is woken.
    sleeps_until: Option<Instant>,
}

/// One that waits for its permit.
struct Prepared {
    place: Place,
    ready: Instant,
    /// Dropped without an answer: too late.
    permit: oneshot::Sender<Permit>,
}

/// A turn's hold on the gate. Dropped, it goes to the next.
pub(super) struct Place {
    shared: Arc<Shared>,
    probe: Probe,
    held: bool,
}

/// The queues, as those see them who may ask; the thread ends with the last of them.
#[derive(Clone)]
pub(super) struct Room {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}

impl Room {
    pub(super) fn open(gate: Gate) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                gate,
                turns: VecDeque::new(),
                permits: VecDeque::new(),
                closed: false,
                ended: false,
                sleeps_until: None,
            }),
            changed: Condvar::new(),
        });
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("pacer".into())
            .spawn(move || of_thread.watch())
            .expect("a process that cannot start one thread cannot work");
        Self { _open: Arc::new(Open(shared.clone())), shared }
    }

    /// Waits for a turn.
    pub(super) async fn place(&self) -> Result<Place, Closed> {
        let granted = {
            let mut state = self.shared.state();
            if state.closed {
                return Err(Closed);
            }
            let (grant, granted) = oneshot::channel();
            state.turns.push_back(grant);
            // Behind others, it is for the time or for somebody's end to serve them all.
            if state.turns.len() == 1 {
                self.shared.serve(&mut state);
            }
            granted
        };
        granted.await.map_err(|_| Closed)
    }

    /// Waits for a permit; `took`: how long the preparation took. None if that was in vain.
    pub(super) async fn permit(&self, place: Place, took: Duration) -> Option<Permit> {
        let granted = {
            let mut state = self.shared.state();
            state.gate.prepared_in(took);
            let (permit, granted) = oneshot::channel();
            state.permits.push_back(Prepared { place, ready: Instant::now(), permit });
            if state.permits.len() == 1 {
                self.shared.serve(&mut state);
            }
            granted
        };
        granted.await.ok()
    }

    pub(super) fn close(&self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.turns.clear();
    }

    pub(super) fn hold(&self, until: Instant) {
        self.shared.change(|gate| gate.pause_until(until));
    }

    pub(super) fn health(&self) -> Health {
        let state = self.shared.state();
        let waiting = state.turns.iter().filter(|turn| !turn.is_closed()).count();
        Health { waiting, ..state.gate.health(Instant::now()) }
    }
}

impl Place {
    /// The key endpoint failed.
    pub(super) fn failed(mut self) {
        self.held = false;
        let (probe, now) = (self.probe, Instant::now());
        self.shared.change(|gate| gate.turn_failed(probe, now));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            let (probe, now) = (self.probe, Instant::now());
            self.shared.change(|gate| gate.turn_back(probe, now));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The gate panics nowhere; a panic of the allocator's would end everything anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the gate something, and lets through whoever may go now.
    pub(super) fn change(self: &Arc<Self>, change: impl FnOnce(&mut Gate)) {
        let notices = {
            let mut state = self.state();
            change(&mut state.gate);
            self.serve(&mut state);
            state.gate.notices()
        };
        notices.into_iter().for_each(Notice::say);
    }

    /// Lets through whoever may go now, and wakes the thread if it would sleep too long.
    fn serve(self: &Arc<Self>, state: &mut State) {
        let next = self.let_through(state);
        if next.is_some_and(|next| state.sleeps_until.is_none_or(|until| next < until)) {
            self.changed.notify_one();
        }
    }

    /// Answers when to look again.
    fn let_through(self: &Arc<Self>, state: &mut State) -> Option<Instant> {
        let permits = self.let_send(state);
        // After the permits: each of them frees a place.
        let turns = self.let_prepare(state);
        [permits, turns].into_iter().flatten().min()
    }

    fn let_send(self: &Arc<Self>, state: &mut State) -> Option<Instant> {
        while let Some(prepared) = state.permits.front() {
            let now = Instant::now();
            let probe = prepared.place.probe;
            if prepared.permit.is_closed() {
                if let Some(prepared) = state.permits.pop_front() {
                    prepared.place.given_up();
                    state.gate.turn_back(probe, now);
                }
                continue;
            }
            match state.gate.permit(probe, prepared.ready, !state.turns.is_empty(), now) {
                May::Go(call) => {
                    let Some(prepared) = state.permits.pop_front() else { break };
                    prepared.place.given_up();
                    if let Err(mut permit) = prepared.permit.send(Permit::new(self.clone(), call, probe)) {
                        // It stopped waiting this very moment. Undone here, as its drop would lock again.
                        permit.undo();
                        state.gate.never_left();
                        state.gate.abandoned(probe, now);
                    }
                }
                May::Stale => {
                    if let Some(prepared) = state.permits.pop_front() {
                        prepared.place.given_up();
                        state.gate.turn_stale(probe, now);
                    }
                }
                May::At(from) => return Some(from),
                May::Blocked => return None,
            }
        }
        None
    }

    fn let_prepare(self: &Arc<Self>, state: &mut State) -> Option<Instant> {
        while let Some(turn) = state.turns.front() {
            if turn.is_closed() {
                state.turns.pop_front();
                continue;
            }
            let now = Instant::now();
            match state.gate.turn(now) {
                May::Go(probe) => {
                    let Some(turn) = state.turns.pop_front() else { break };
                    let place = Place { shared: self.clone(), probe, held: true };
                    if let Err(place) = turn.send(place) {
                        place.given_up();
                        state.gate.turn_back(probe, now);
                    }
                }
                May::At(from) => return Some(from),
                May::Blocked | May::Stale => return None,
            }
        }
        None
    }

    /// The thread: sleeps until somebody may go.
    fn watch(self: Arc<Self>) {
        let mut state = self.state();
        while !state.ended {
            state.sleeps_until = self.let_through(&mut state);
            state = match state.sleeps_until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let rest = until.saturating_duration_since(Instant::now());
                    let (mut state, woken) =
                        self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
                    if woken.timed_out() {
                        let now = Instant::now();
                        state.gate.woke_late(now.saturating_duration_since(until), now);
                    }
                    state
                }
            };
        }
        // Who is still in a queue stopped waiting. Their places lock when they are dropped, so not in here.
        let left_over = std::mem::take(&mut state.permits);
        drop(state);
        drop(left_over);
    }
}

impl Place {
    /// No longer held; the gate is told by whoever holds the lock.
    fn given_up(mut self) {
        self.held = false;
    }
}
