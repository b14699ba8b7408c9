//! Who waits for the pace: two queues for each endpoint, first come first served.
//!
//! Who finds nobody before it and the gate open is let through at once; for those who must wait the [`super::pacer`] watches the
//! time. Whoever stops waiting is passed over and costs nothing.

#[cfg(feature = "killpoints")]
mod task;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::gate::{Gate, May, Probe};
use super::pacer::{Due, Pacer, Times};
use super::platform::Platform;
use super::{Closed, Endpoint, Health, Permit, now};
use crate::locks::{Mutex, MutexGuard};

/// What all turns and permits of a pace share.
pub(super) struct Shared {
    state: Mutex<State>,
    watched: Watched,
    /// Who is called, as the log names it.
    host: OnceLock<String>,
}

struct State {
    gate: Gate,
    /// By endpoint.
    queues: [Queues; Endpoint::COUNT],
    /// The endpoint that is asked first for its next turn: the one after that which had the last.
    first: usize,
    /// No more turns.
    closed: bool,
    /// Nobody is left who could ask.
    ended: bool,
    /// When whoever watches the time looks next; none: not before it is told to.
    looked_at: Option<Instant>,
}

/// An endpoint's.
#[derive(Default)]
struct Queues {
    turns: VecDeque<oneshot::Sender<Place>>,
    permits: VecDeque<Prepared>,
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
    endpoint: Endpoint,
    probe: Probe,
    held: bool,
}

/// The queues, as those see them who may ask.
#[derive(Clone)]
pub(super) struct Queueing {
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

/// Who watches the time.
pub(super) enum Watcher<'p> {
    /// The thread of all paces.
    Pacer(&'p Pacer),
    /// A task, in a simulation.
    #[cfg(feature = "killpoints")]
    Task,
}

/// How whoever watches the time is told when to look.
enum Watched {
    Pacer {
        times: Arc<Times>,
        number: u64,
        /// What is above it.
        platform: Option<Platform>,
    },
    #[cfg(feature = "killpoints")]
    Task(task::Woken),
}

/// With the last of these nobody is left who could ask.
struct Open {
    shared: Arc<Shared>,
    /// Its thread runs for as long.
    _pacer: Option<Pacer>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Queueing {
    pub(super) fn open(mut gate: Gate, watcher: &Watcher<'_>) -> Self {
        let (watched, _pacer) = match watcher {
            Watcher::Pacer(pacer) => {
                let (times, platform) = (pacer.times().clone(), pacer.platform());
                let number = times.number();
                if let Some(platform) = &platform {
                    gate.put_below(platform.above(number));
                }
                (Watched::Pacer { number, times, platform }, Some((*pacer).clone()))
            }
            #[cfg(feature = "killpoints")]
            Watcher::Task => (Watched::Task(task::Woken::default()), None),
        };
        let queues = Default::default();
        let state = State { gate, queues, first: 0, closed: false, ended: false, looked_at: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), watched, host: OnceLock::new() });
        match &shared.watched {
            Watched::Pacer { number, platform: Some(platform), .. } => platform.know(*number, &shared),
            Watched::Pacer { platform: None, .. } => {}
            #[cfg(feature = "killpoints")]
            Watched::Task(_) => crate::simulation::spawn(task::watch(shared.clone())),
        }
        Self { _open: Arc::new(Open { shared: shared.clone(), _pacer }), shared }
    }

    /// Waits for a turn.
    pub(super) async fn place(&self, endpoint: Endpoint) -> Result<Place, Closed> {
        let granted = {
            let mut state = self.shared.state();
            if state.closed {
                return Err(Closed);
            }
            let (grant, granted) = oneshot::channel();
            let turns = &mut state.queues[endpoint.index()].turns;
            turns.push_back(grant);
            // Behind others, it is for the time or for somebody's end to serve them all.
            if turns.len() == 1 {
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
            let endpoint = place.endpoint;
            state.gate.prepared_in(endpoint, took);
            let (permit, granted) = oneshot::channel();
            let permits = &mut state.queues[endpoint.index()].permits;
            permits.push_back(Prepared { place, ready: now(), permit });
            if permits.len() == 1 {
                self.shared.serve(&mut state);
            }
            granted
        };
        granted.await.ok()
    }

    /// Only the first name counts: a pace is for one account of one host.
    pub(super) fn name_host(&self, host: &str) {
        let _ = self.shared.host.set(host.to_owned());
    }

    pub(super) fn close(&self) {
        let mut state = self.shared.state();
        state.closed = true;
        state.queues.iter_mut().for_each(|queues| queues.turns.clear());
    }

    pub(super) fn hold(&self, until: Instant) {
        self.shared.change(|gate| gate.pause_until(until));
    }

    pub(super) fn health(&self) -> Health {
        let state = self.shared.state();
        let turns = state.queues.iter().flat_map(|queues| &queues.turns);
        let waiting = turns.filter(|turn| !turn.is_closed()).count();
        Health { waiting, ..state.gate.health(now()) }
    }
}

impl Place {
    /// The key endpoint failed.
    pub(super) fn failed(mut self) {
        self.held = false;
        let (endpoint, probe, now) = (self.endpoint, self.probe, now());
        self.shared.change(|gate| gate.turn_failed(endpoint, probe, now));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            let (endpoint, probe, now) = (self.endpoint, self.probe, now());
            self.shared.change(|gate| gate.turn_back(endpoint, probe, now));
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
        if !notices.is_empty() {
            let host = self.host.get().map_or("Stripe", String::as_str);
            notices.into_iter().for_each(|notice| notice.say(host));
        }
    }

    /// Lets through whoever may go now, and tells whoever watches the time if it would look too late.
    fn serve(self: &Arc<Self>, state: &mut State) {
        let Some(next) = self.let_through(state) else { return };
        if state.looked_at.is_some_and(|at| at <= next) {
            return;
        }
        match &self.watched {
            Watched::Pacer { times, number, .. } => {
                let (before, due) = (state.looked_at.replace(next), Due::Pace(self.clone()));
                times.look_at(*number, before, next, due);
            }
            #[cfg(feature = "killpoints")]
            Watched::Task(woken) => woken.wake(),
        }
    }

    /// The platform's limit may have room for it.
    pub(super) fn look(self: &Arc<Self>) {
        self.serve(&mut self.state());
    }

    /// The time has come for which the pacer was told to look.
    pub(super) fn is_due(self: &Arc<Self>, at: Instant) {
        let mut state = self.state();
        if state.looked_at != Some(at) {
            // It was told of another time meanwhile, or that nobody is left.
            return;
        }
        state.looked_at = None;
        let now = now();
        state.gate.woke_late(now.saturating_duration_since(at), now);
        self.serve(&mut state);
    }

    /// Nobody is left who could ask.
    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        match &self.watched {
            Watched::Pacer { times, number, platform } => {
                let looked_at = state.looked_at.take();
                drop(state);
                if let Some(at) = looked_at {
                    times.forget(*number, at);
                }
                if let Some(platform) = platform {
                    platform.forget(*number);
                }
                self.clear();
            }
            #[cfg(feature = "killpoints")]
            Watched::Task(woken) => {
                drop(state);
                woken.wake();
            }
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
        loop {
            // Endpoints share the account's limit: whoever has been prepared for longest goes first.
            let ready = |endpoint: &Endpoint| {
                state.queues[endpoint.index()].permits.front().map(|prepared| prepared.ready)
            };
            let mut endpoints = Endpoint::ALL;
            endpoints.sort_unstable_by_key(|endpoint| {
                ready(endpoint).map_or((true, None), |at| (false, Some(at)))
            });
            let (mut next, mut went): (Option<Instant>, bool) = (None, false);
            for endpoint in endpoints {
                match self.let_one_send(endpoint, state) {
                    None => {}
                    Some(May::Go(()) | May::Stale) => {
                        went = true;
                        break;
                    }
                    Some(May::At(from)) => next = Some(next.map_or(from, |next| next.min(from))),
                    Some(May::Blocked) => {}
                }
            }
            if !went {
                return next;
            }
        }
    }

    /// The first of an endpoint's; none if nobody waits.
    fn let_one_send(self: &Arc<Self>, endpoint: Endpoint, state: &mut State) -> Option<May<()>> {
        let State { gate, queues, .. } = state;
        let queues = &mut queues[endpoint.index()];
        let prepared = queues.permits.front()?;
        let (now, probe) = (now(), prepared.place.probe);
        if prepared.permit.is_closed() {
            queues.permits.pop_front()?.place.given_up();
            gate.turn_back(endpoint, probe, now);
            return Some(May::Go(()));
        }
        let behind = !queues.turns.is_empty();
        let may = gate.permit(endpoint, probe, prepared.ready, behind, now);
        let may = match may {
            May::Go(call) => {
                let prepared = queues.permits.pop_front()?;
                prepared.place.given_up();
                if let Err(mut permit) = prepared.permit.send(Permit::new(self.clone(), call, probe)) {
                    // It stopped waiting this very moment. Undone here, as its drop would lock again.
                    permit.undo();
                    gate.never_left(endpoint);
                    gate.abandoned(probe, now);
                }
                May::Go(())
            }
            May::Stale => {
                queues.permits.pop_front()?.place.given_up();
                gate.turn_stale(endpoint, probe, now);
                May::Stale
            }
            May::At(from) => May::At(from),
            May::Blocked => May::Blocked,
        };
        Some(may)
    }

    /// Turns go to the endpoints one after the other: where a limit above the account lets in one job at a time, none of them is always
    /// the first.
    fn let_prepare(self: &Arc<Self>, state: &mut State) -> Option<Instant> {
        let (mut next, mut refused) = (None::<Instant>, 0);
        while refused < Endpoint::COUNT {
            let endpoint = Endpoint::ALL[state.first];
            state.first = (state.first + 1) % Endpoint::COUNT;
            match self.let_one_prepare(state, endpoint) {
                Some(May::Go(())) => refused = 0,
                Some(May::At(from)) => {
                    next = Some(next.map_or(from, |next| next.min(from)));
                    refused += 1;
                }
                Some(May::Blocked | May::Stale) | None => refused += 1,
            }
        }
        next
    }

    /// None if nobody waits.
    fn let_one_prepare(self: &Arc<Self>, state: &mut State, endpoint: Endpoint) -> Option<May<()>> {
        let State { gate, queues, .. } = state;
        let turns = &mut queues[endpoint.index()].turns;
        while turns.front()?.is_closed() {
            turns.pop_front();
        }
        let now = now();
        Some(match gate.turn(endpoint, now) {
            May::Go(probe) => {
                let place = Place { shared: self.clone(), endpoint, probe, held: true };
                if let Err(place) = turns.pop_front()?.send(place) {
                    place.given_up();
                    gate.turn_back(endpoint, probe, now);
                }
                May::Go(())
            }
            May::At(from) => May::At(from),
            May::Blocked | May::Stale => May::Blocked,
        })
    }

    /// Who is still in a queue stopped waiting. Their places lock when they are dropped, so not in here.
    fn clear(&self) {
        let left_over = std::mem::take(&mut self.state().queues);
        drop(left_over);
    }
}

impl Place {
    /// No longer held; the gate is told by whoever holds the lock.
    fn given_up(mut self) {
        self.held = false;
    }
}
