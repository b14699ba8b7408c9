//! What is still to be delivered, for whoever asks; tries at their wish, and a test.

use super::endpoint;
use super::event::{self, BatchObject, Counts, Data, Event, IsBatch, IsEvent, Kind, State};
use super::outbox::{Entry, Outbox};
use super::{Receivers, Webhooks};
use crate::clock::{Clock, Time};
use crate::ledger::{Ledger, LedgerError};

/// An event that an endpoint has not been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The event's id.
    pub event: String,
    /// What happened.
    pub kind: String,
    /// To which batch.
    pub batch: String,
    /// The endpoint's host and port.
    pub host: String,
    /// Whether this configuration has the endpoint.
    pub is_configured: bool,
    /// When it happened.
    pub created: Time,
    /// Tries so far.
    pub attempts: u32,
    /// When the next one is due.
    pub due: Time,
    /// Whether it is not tried any more by itself.
    pub is_given_up: bool,
    /// What the latest try met.
    pub problem: Option<String>,
}

impl Receivers {
    /// What their ledger holds for any endpoint, the oldest first.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn listed(&self, ledger: &Ledger) -> Result<Vec<Listed>, LedgerError> {
        let all = Outbox::of(ledger).all().await?;
        let listed = all.into_iter().map(|owed| {
            let is_configured = self.endpoints.iter().any(|endpoint| endpoint.id == owed.endpoint);
            let Entry { kind, batch, host, created_ms, attempts, due_ms, is_given_up, problem, .. } =
                owed.entry;
            let (created, due) = (Time::from_unix_ms(created_ms), Time::from_unix_ms(due_ms));
            Listed {
                event: owed.event,
                kind,
                batch,
                host,
                is_configured,
                created,
                attempts,
                due,
                is_given_up,
                problem,
            }
        });
        Ok(listed.collect())
    }

    /// Sends each of them an event of type `webhook.test`, once. Answers what each has met, by its host.
    ///
    /// # Errors
    /// If TLS cannot be had.
    pub async fn test(&self, clock: &Clock) -> Result<Vec<(String, Result<(), String>)>, String> {
        let http = endpoint::client(&self.config)?;
        let (run, now) = (format!("{:032x}", rand::random::<u128>()), clock.now());
        let batch = "test".to_owned();
        let event = Event {
            id: event::id_of(&run, Kind::Test, false),
            object: IsEvent::Event,
            kind: Kind::Test,
            created: now.unix_ms().div_euclid(1000),
            livemode: false,
            account: None,
            data: Data {
                object: BatchObject {
                    object: IsBatch::Batch,
                    url: event::page_of(self.config.page_url.as_deref(), &batch),
                    batch,
                    run,
                    state: State::Finished,
                    reason: None,
                    digest: None,
                    pins: 0,
                    counts: Counts::default(),
                },
            },
        };
        let body = serde_json::to_string(&event).expect("texts and numbers always serialise");
        let mut met = Vec::new();
        for endpoint in &self.endpoints {
            let posted = endpoint.post(&http, body.clone(), clock.now()).await;
            met.push((endpoint.host.clone(), posted.map_err(|failed| failed.to_string())));
        }
        Ok(met)
    }
}

impl Webhooks {
    /// Everything that is still to be delivered is due now, given up or not.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn try_all_now(&self) -> Result<(), LedgerError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let now = inner.clock.now();
        for owed in inner.outbox.all().await? {
            if inner.endpoint(&owed.endpoint).is_some() {
                // One that is being tried just now is tried twice at worst, under the same id.
                let entry = Entry { due_ms: now.unix_ms(), is_given_up: false, ..owed.entry.clone() };
                inner.outbox.change(&owed, entry).await?;
            }
        }
        Ok(())
    }
}
