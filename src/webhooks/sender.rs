//! What delivers: looks for events that are due, and posts them. Each endpoint has a task of its own for what it is to be told, so that
//! one that is down holds up no other.
//!
//! An event is claimed in the ledger before it is posted, and taken out after. A crash in between repeats it under the same id, and
//! loses none.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::endpoint::{Endpoint, Failed};
use super::outbox::{Entry, Owed};
use super::settle::Seen;
use super::{Inner, Webhooks};
use crate::backoff::jittered;
use crate::clock::Time;
use crate::config::seconds;
use crate::killpoint;
use crate::ledger::LedgerError;
use crate::metrics;

/// Between two looks at the ledger: another process may have written something.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Least wait between two.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(10);
/// Between two signs of life of this process's runs, and two looks at those of others.
const BEAT_EVERY: Duration = Duration::from_secs(4);
/// Tries before an event is given up, however old it is: a clock that was set ahead makes nothing old.
const ATTEMPTS_MIN: u32 = 20;
/// How long an event is kept that was given up, or that no endpoint here is to be told.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What came of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    Delivered,
    /// It was answered otherwise, or is another process's.
    Not,
    /// Nobody answers there.
    NoAnswer,
    /// The ledger took no note of it.
    Unwritten,
}

/// How many events are still to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pending {
    /// Those to endpoints of this configuration that are tried.
    pub pending: usize,
    /// Those to endpoints of this configuration that were given up.
    pub given_up: usize,
    /// Those to endpoints that this configuration has not, so that they are not tried.
    pub not_configured: usize,
    /// Those endpoints' hosts.
    pub hosts: BTreeSet<String>,
}

impl Webhooks {
    /// Delivers until this is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let Some(inner) = self.0 else { return };
        let busy = Arc::new(Mutex::new(HashSet::new()));
        let (mut seen, mut beaten) = (Seen::default(), None::<Instant>);
        let mut tasks = JoinSet::new();
        loop {
            if beaten.is_none_or(|beaten| beaten.elapsed() >= BEAT_EVERY) {
                inner.beat().await;
                if let Err(error) = inner.settle(&mut seen).await {
                    tracing::warn!(%error, "batches whose process has gone cannot be looked for");
                }
                beaten = Some(Instant::now());
            }
            let wait = match inner.look(&busy, &mut tasks).await {
                Ok(next) => next.unwrap_or(LOOK_EVERY).clamp(LOOK_AFTER_MIN, LOOK_EVERY),
                Err(error) => {
                    tracing::warn!(%error, "events that are to be delivered cannot be read");
                    LOOK_EVERY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = inner.wake.notified() => {}
                Some(_) = tasks.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        // What is being posted is claimed, and nobody else could post it for a while. What does not end in time comes again.
        let ending = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(seconds(inner.config.timeout_seconds), ending).await;
    }

    /// Tries everything that is due, for so long; answers what is left then.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn deliver_for(&self, time_max: Duration) -> Result<Pending, LedgerError> {
        let Some(inner) = &self.0 else { return Ok(Pending::default()) };
        let delivering = async {
            loop {
                let mut tasks = JoinSet::new();
                let next = inner.look(&Arc::default(), &mut tasks).await?;
                if tasks.is_empty() {
                    match next {
                        Some(wait) if wait <= time_max => tokio::time::sleep(wait.max(LOOK_AFTER_MIN)).await,
                        _ => return Ok(()),
                    }
                }
                while tasks.join_next().await.is_some() {}
            }
        };
        if let Ok(Err(error)) = tokio::time::timeout(time_max, delivering).await {
            return Err(error);
        }
        let mut left = Pending::default();
        for owed in inner.outbox.all().await? {
            if inner.endpoint(&owed.endpoint).is_none() {
                left.not_configured += 1;
                left.hosts.insert(owed.entry.host);
            } else if owed.entry.is_given_up {
                left.given_up += 1;
            } else {
                left.pending += 1;
            }
        }
        Ok(left)
    }
}

impl Inner {
    /// Begins to deliver what is due; answers when something else will be.
    async fn look(
        self: &Arc<Self>,
        busy: &Arc<Mutex<HashSet<String>>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Option<Duration>, LedgerError> {
        let (all, now) = (self.outbox.all().await?, self.clock.now());
        let mut oldest = Duration::ZERO;
        let (mut pending, mut next) = (0_usize, None::<Duration>);
        let mut due: Vec<(Arc<Endpoint>, Vec<Owed>)> = Vec::new();
        for owed in all {
            let age = now.since(Time::from_unix_ms(owed.entry.created_ms));
            let endpoint = self.endpoint(&owed.endpoint).filter(|_| !owed.entry.is_given_up);
            let Some(endpoint) = endpoint else {
                if age > KEPT {
                    tracing::warn!(
                        event = owed.event,
                        host = owed.entry.host,
                        "an event that could not be delivered is dropped"
                    );
                    self.outbox.remove(&owed).await?;
                }
                continue;
            };
            pending += 1;
            oldest = oldest.max(age);
            let wait = self.wait_of(&owed.entry, now);
            if !wait.is_zero() {
                next = Some(next.map_or(wait, |next| next.min(wait)));
                continue;
            }
            match due.iter_mut().find(|(other, _)| other.id == endpoint.id) {
                Some((_, owing)) => owing.push(owed),
                None => due.push((endpoint.clone(), vec![owed])),
            }
        }
        metrics::webhooks_pending(pending, oldest);
        for (endpoint, owing) in due {
            if !lock(busy).insert(endpoint.id.clone()) {
                continue;
            }
            let (inner, busy) = (self.clone(), busy.clone());
            tasks.spawn(async move {
                for owed in owing {
                    match inner.deliver(&endpoint, owed).await {
                        Tried::Delivered | Tried::Not => {}
                        // The others wait for the next look: each try takes its whole time.
                        Tried::NoAnswer => break,
                        // Nothing says that it was tried, so that it is due at once again: as soon as this ends there is a look.
                        Tried::Unwritten => {
                            tokio::time::sleep(LOOK_EVERY).await;
                            break;
                        }
                    }
                }
                lock(&busy).remove(&endpoint.id);
            });
        }
        Ok(next)
    }

    /// How long an event is not due yet. One that is due later than any wait is was written by a clock that has been set back.
    fn wait_of(&self, entry: &Entry, now: Time) -> Duration {
        let wait = Time::from_unix_ms(entry.due_ms).since(now);
        let longest = seconds(self.config.retry_seconds_max).max(self.claim_lasts());
        if wait > longest { Duration::ZERO } else { wait }
    }

    /// For how long a try is nobody else's: far longer than it takes.
    fn claim_lasts(&self) -> Duration {
        2 * seconds(self.config.timeout_seconds) + Duration::from_secs(1)
    }

    /// Tries to deliver an event once.
    pub(super) async fn deliver(&self, endpoint: &Endpoint, owed: Owed) -> Tried {
        let tried = self.try_to_deliver(endpoint, owed).await;
        tried.unwrap_or_else(|error| {
            tracing::warn!(%error, "what is to be delivered, or was, cannot be written down; it is tried again, under the same id");
            Tried::Unwritten
        })
    }

    async fn try_to_deliver(&self, endpoint: &Endpoint, owed: Owed) -> Result<Tried, LedgerError> {
        let now = self.clock.now();
        let claim = Entry {
            attempts: owed.entry.attempts.saturating_add(1),
            due_ms: now.plus(self.claim_lasts()).unix_ms(),
            ..owed.entry.clone()
        };
        let Some(owed) = self.outbox.change(&owed, claim).await? else { return Ok(Tried::Not) };
        killpoint::pass("webhook_claimed");
        let posted = endpoint.post(&self.http, owed.entry.body.clone(), now).await;
        killpoint::pass("webhook_posted");
        let Err(failed) = posted else {
            metrics::webhook_delivery("delivered");
            let (event, host, kind) = (&owed.event, &endpoint.host, &owed.entry.kind);
            tracing::info!(event, host, kind, attempts = owed.entry.attempts, "a webhook was delivered");
            self.outbox.remove(&owed).await?;
            return Ok(Tried::Delivered);
        };
        metrics::webhook_delivery("failed");
        self.failed(endpoint, &owed, &failed).await?;
        Ok(match failed {
            Failed::NoAnswer(_) => Tried::NoAnswer,
            Failed::Answered(_) => Tried::Not,
        })
    }

    async fn failed(&self, endpoint: &Endpoint, owed: &Owed, failed: &Failed) -> Result<(), LedgerError> {
        let (now, entry) = (self.clock.now(), &owed.entry);
        let age = now.since(Time::from_unix_ms(entry.created_ms));
        let is_given_up =
            age >= seconds(self.config.retry_hours_max * 3600.0) && entry.attempts >= ATTEMPTS_MIN;
        let wait = jittered(self.backoff(entry.attempts));
        let (event, host, kind, attempts) = (&owed.event, &endpoint.host, &entry.kind, entry.attempts);
        if is_given_up {
            metrics::webhook_delivery("given_up");
            tracing::error!(event, host, kind, attempts, reason = %failed,
                "a webhook is given up; `embosser webhooks --deliver` tries it again");
        } else {
            tracing::warn!(event, host, kind, attempts, reason = %failed, next_seconds = wait.as_secs_f64(),
                "a webhook could not be delivered");
        }
        let entry = Entry {
            due_ms: now.plus(wait).unix_ms(),
            is_given_up,
            problem: Some(failed.to_string()),
            ..entry.clone()
        };
        self.outbox.change(owed, entry).await?;
        Ok(())
    }

    /// The longest wait after so many tries.
    fn backoff(&self, attempts: u32) -> Duration {
        let doubled = 2_f64.powi(i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX).min(64));
        seconds((self.config.retry_seconds_min * doubled).min(self.config.retry_seconds_max))
    }
}

fn lock(busy: &Mutex<HashSet<String>>) -> std::sync::MutexGuard<'_, HashSet<String>> {
    // A set of names: a panic elsewhere cannot leave it half done.
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}
