//! Leases in a simulation: in a table, where they end as a locked file's or a database's session's do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::Scope;
use super::super::simulated::Given;
use super::super::timeline::Latest;
use super::session::{ALIVE_EVERY, Alive, Session};
use super::{Holder, Kind, Lease, LeaseError, Leased};
use crate::clock::Clock;

/// After so long without a sign of life a database's server ends a session.
const SESSION_LASTS: Duration = Duration::from_secs(15);

/// How leases end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    /// With their holder's process, as a locked file does.
    File,
    /// With their holder's process, or when it gives no sign of life, as a database's session does.
    Session,
}

/// The leases of all accounts, which processes share.
#[derive(Debug, Clone)]
pub struct Leases {
    kind: LeaseKind,
    held: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    latest: u64,
    entries: BTreeMap<Scope, Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    holder: Holder,
    is_held: bool,
    alive: Instant,
}

impl Leases {
    /// None is held.
    #[must_use]
    pub fn new(kind: LeaseKind) -> Self {
        Self { kind, held: Arc::default() }
    }

    /// Which process has an account's lease, if one has.
    #[must_use]
    pub fn holder(&self, scope: &Scope) -> Option<u32> {
        let table = self.table();
        table.entries.get(scope).filter(|entry| self.is_held(entry)).map(|entry| entry.holder.process)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_held(&self, entry: &Entry) -> bool {
        entry.is_held && (self.kind == LeaseKind::File || entry.alive.elapsed() < SESSION_LASTS)
    }
}

impl Given {
    pub(super) async fn lease(self: &Arc<Self>, scope: &Scope, clock: &Clock) -> Result<Leased, LeaseError> {
        let fate = self.begin().await?;
        // A machine that is named so has one start.
        let unknown = Holder::unknown(clock, &self.host);
        let mut holder = Holder { process: self.process, boot: self.host.clone(), ..unknown };
        let alive_at = clock.boot();
        let taken = self.take(scope, &mut holder, clock);
        // What was taken is given back with the connection whose answer is lost.
        fate.ends::<_, LeaseError>(Ok(())).await?;
        let (held, calls_from) = match taken {
            Ok(taken) => taken,
            Err(other) => return Ok(Leased::HeldBy(other)),
        };
        let kind = match self.leases.kind {
            LeaseKind::File => Kind::Simulated(Box::new(held)),
            LeaseKind::Session => {
                let (ask, questions) = mpsc::channel(1);
                let (session, alive) = Session::begin(ask, alive_at, Latest::default().seen(0));
                crate::simulation::spawn(keep(held, alive, clock.clone(), questions));
                Kind::Session(session)
            }
        };
        Ok(Leased::Ours(Lease { kind, clock: clock.clone(), holder: Box::new(holder), calls_from }))
    }

    /// Takes it, unless somebody else has it.
    fn take(
        self: &Arc<Self>,
        scope: &Scope,
        holder: &mut Holder,
        clock: &Clock,
    ) -> Result<(Held, Duration), Box<Holder>> {
        let mut table = self.leases.table();
        let before = table.entries.get(scope);
        if let Some(other) = before.filter(|entry| self.leases.is_held(entry)) {
            return Err(Box::new(other.holder.clone()));
        }
        let calls_from = holder.takes(before.map(|before| &before.holder), clock.boot());
        table.latest += 1;
        let number = table.latest;
        let entry = Entry { number, holder: holder.clone(), is_held: true, alive: Instant::now() };
        table.entries.insert(scope.clone(), entry);
        Ok((Held { given: self.clone(), scope: scope.clone(), clock: clock.clone(), number }, calls_from))
    }
}

/// A lease that is held. Dropped, it is given up.
pub(super) struct Held {
    given: Arc<Given>,
    scope: Scope,
    clock: Clock,
    number: u64,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Held").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Held {
    /// A sign of life; whether it came in time.
    pub(super) fn is_alive(&self) -> bool {
        let leases = &self.given.leases;
        let mut table = leases.table();
        let Some(entry) = table.entries.get_mut(&self.scope).filter(|entry| entry.number == self.number)
        else {
            return false;
        };
        let is_held = leases.is_held(entry);
        if is_held {
            entry.alive = Instant::now();
        }
        is_held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.given.leases.table();
        if let Some(entry) = table.entries.get_mut(&self.scope).filter(|entry| entry.number == self.number) {
            entry.is_held = false;
            if !self.given.fates.is_killed() {
                entry.holder.end(&self.clock);
            }
        }
    }
}

/// Keeps a session as [`super::session`] does, until nobody needs it any more, or it is lost: then the channel closes.
async fn keep(
    held: Held,
    alive: Arc<Alive>,
    clock: Clock,
    mut questions: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let answer = tokio::select! {
            biased;
            question = questions.recv() => match question {
                Some(answer) => Some(answer),
                None => return,
            },
            () = tokio::time::sleep(ALIVE_EVERY) => None,
        };
        let put = clock.boot();
        if !held.is_alive() {
            return;
        }
        alive.at(put);
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }
}
