//! Whether the ledger's database serves, how long it is waited for while it does not, and when nobody waits any longer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::database::Place;
use super::{Ledger, LedgerError};
use crate::metrics;

/// How long a database that is away is waited for once the process is told to stop.
const STOPPING_PATIENCE: Duration = Duration::from_secs(5);

/// After that, for each question: another connection than the one that is away may well answer.
const LAST_TRY: Duration = Duration::from_millis(500);

/// After so long a ledger counts as one that does not answer, for whoever asks whether it does.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// Which of a ledger's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Writes.
    Writer,
    /// Says what is known of jobs.
    LookUps,
    /// Answers all other questions; its number.
    Views(u8),
    /// Holds the lease of an account.
    Lease,
}

/// A database that does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Since when.
    pub since: Instant,
    /// Why, for people.
    pub reason: String,
}

/// What is known of a ledger's connections.
#[derive(Debug)]
pub(super) struct Availability {
    patience: Duration,
    away: Mutex<BTreeMap<Role, Away>>,
    /// Since when the process is to stop.
    stopping: watch::Sender<Option<Instant>>,
}

impl Ledger {
    /// Since when and why the database does not serve, if it does not; it is waited for meanwhile.
    #[must_use]
    pub fn away(&self) -> Option<Away> {
        self.availability.away()
    }

    /// Whether it answers now: a file that is gone shows nothing that nobody has asked it for.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn answers(&self) -> Result<(), String> {
        if let Some(away) = self.away() {
            return Err(away.reason);
        }
        match tokio::time::timeout(ANSWERS_WITHIN, self.metadata("probe")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the ledger does not answer".to_owned()),
        }
    }

    /// Whether it is on a server, which may serve another time whatever it said; else in a file.
    #[must_use]
    pub fn is_on_servers(&self) -> bool {
        matches!(self.place, Place::Servers(_))
    }

    /// How long a database that is away is waited for.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.availability.patience()
    }

    /// The process is to stop: from now on a database that is away is waited for for five seconds at most.
    pub fn stop_waiting(&self) {
        if self.stops_waiting {
            self.availability.stop();
        }
    }
}

impl Availability {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, away: Mutex::default(), stopping: watch::Sender::new(None) }
    }

    /// How long a database that is away is waited for by what is asked, from its own first failure on.
    pub(super) fn patience(&self) -> Duration {
        if self.stopping.borrow().is_some() { self.patience.min(STOPPING_PATIENCE) } else { self.patience }
    }

    /// From now on nobody waits for long.
    pub(super) fn stop(&self) {
        self.stopping.send_if_modified(|stopping| {
            let is_news = stopping.is_none();
            stopping.get_or_insert_with(Instant::now);
            is_news
        });
    }

    /// Ends when what began then has been waited for long enough: never, as long as the process is not to stop. Once the database
    /// is known to be away, all that is asked after another shares one patience.
    pub(super) async fn given_up(&self, began: Instant) {
        let mut stopping = self.stopping.subscribe();
        let Ok(since) = stopping.wait_for(Option::is_some).await.map(|since| since.unwrap_or(began)) else {
            return std::future::pending().await;
        };
        let until = match self.away() {
            Some(_) => (since + STOPPING_PATIENCE).max(began + LAST_TRY),
            None => since.max(began) + STOPPING_PATIENCE,
        };
        tokio::time::sleep_until(until).await;
    }

    /// The connection works.
    pub(super) fn serves(&self, role: Role) {
        let Some(was) = self.forget(role) else { return };
        let seconds = was.since.elapsed().as_secs_f64();
        tracing::info!(connection = ?role, seconds, "the ledger serves again");
    }

    /// Nobody asks it any more, so that nobody would learn when it works.
    pub(super) fn forget(&self, role: Role) -> Option<Away> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let was = away.remove(&role)?;
        drop(away);
        metrics::ledger_away(false);
        Some(was)
    }

    /// It does not.
    pub(super) fn is_away(&self, role: Role, error: &LedgerError) {
        let reason = error.to_string();
        let mut all = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get_mut(&role);
        if known.as_ref().is_some_and(|known| known.reason == reason) {
            return;
        }
        match known {
            Some(known) => known.reason.clone_from(&reason),
            None => {
                all.insert(role, Away { since: Instant::now(), reason: reason.clone() });
                metrics::ledger_away(true);
            }
        }
        drop(all);
        tracing::warn!(connection = ?role, reason, "the ledger does not serve; waiting for it");
    }

    /// Whether this one is known not to.
    pub(super) fn is_known_away(&self, role: Role) -> bool {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&role)
    }

    /// The connection that has been without the database longest.
    pub(super) fn away(&self) -> Option<Away> {
        let all = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().min_by_key(|away| away.since).cloned()
    }
}

impl Drop for Availability {
    fn drop(&mut self) {
        let away = self.away.get_mut().unwrap_or_else(PoisonError::into_inner);
        away.values().for_each(|_| metrics::ledger_away(false));
    }
}
