//! How a ledger is opened: its connections, and what serves them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::super::LedgerError;
use super::super::address::Needs;
use super::super::availability::{Availability, Role};
use super::super::database::{Opening, Place, Runs};
use super::super::group::{WAITING_MAX, answer_look_ups, answer_views, write_in_groups};
use super::super::lease::LostSessions;
use super::super::patience::Connection;
use super::super::servers::Work;
use super::{CommitCounts, Ledger};
use crate::config::place::without_password;

/// How long a database that is away is waited for where nobody says.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// Questions but for look-ups that a server on the network is asked at once; SQLite is asked one.
const VIEWS_AT_ONCE: u8 = 2;

impl Ledger {
    /// Opens `sqlite://FILE` or `postgres://…`, making its tables where they are missing. A database that goes away later is waited
    /// for for [`PATIENCE`].
    ///
    /// # Errors
    /// Says why it cannot serve: locked, read-only, full, of a newer version, unreachable.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        Self::open_as(url, Opening::Making, PATIENCE).await
    }

    /// As [`Self::open`], with another patience.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_patient(url: &str, patience: Duration) -> Result<Self, LedgerError> {
        Self::open_as(url, Opening::Making, patience).await
    }

    /// Opens one that is there, and changes nothing by that.
    ///
    /// # Errors
    /// As [`Self::open`], and if there is none, or none of this version.
    pub async fn open_existing(url: &str) -> Result<Self, LedgerError> {
        Self::open_as(url, Opening::Existing, PATIENCE).await
    }

    async fn open_as(url: &str, opening: Opening, patience: Duration) -> Result<Self, LedgerError> {
        // In memory every connection would be a database of its own.
        let in_memory =
            url.starts_with("sqlite:") && (url.contains(":memory:") || url.contains("mode=memory"));
        if in_memory {
            let url = without_password(url);
            return Err(LedgerError::Address { url, reason: "a ledger in memory records nothing".into() });
        }
        let place = Place::of(url)?;
        if let Place::Servers(servers) = &place {
            super::super::pooler::refuse(servers, needs(&place, opening).1).await?;
        }
        Self::at(place, without_password(url).into(), opening, patience).await
    }

    pub(in crate::ledger) async fn at(
        place: Place,
        name: Arc<str>,
        opening: Opening,
        patience: Duration,
    ) -> Result<Self, LedgerError> {
        let (writable, readable) = needs(&place, opening);
        let writing = place.open(opening, writable, Work::Rows).await?;
        let reading = place.open(Opening::Existing, readable, Work::Rows).await?;
        let availability = Arc::new(Availability::new(patience));
        let runs = Runs::of(&place);
        let open = |role, store| Connection::open(&place, &availability, role, store);
        let (writes, write_requests) = mpsc::channel(WAITING_MAX);
        let (questions, look_ups) = mpsc::channel(WAITING_MAX);
        let (views, view_requests) = mpsc::channel(WAITING_MAX);
        let commits = Arc::new(CommitCounts::default());
        let (closing, closed) = watch::channel(false);
        let writing = write_in_groups(open(Role::Writer, writing), write_requests, runs, commits.clone());
        runs.run("ledger-writer", async move {
            writing.await;
            let _ = closing.send(true);
        });
        let answering = answer_look_ups(open(Role::LookUps, reading), look_ups, runs);
        runs.run("ledger-reader", answering);
        let view_servers = if matches!(place, Place::File(_)) { 1 } else { VIEWS_AT_ONCE };
        let view_requests = Arc::new(Mutex::new(view_requests));
        for number in 0..view_servers {
            let role = Role::Views(number);
            let connection = if let Place::Servers(_) = &place {
                Connection::later(&place, &availability, role, readable)
            } else {
                // Now, as a file may be taken away and another one put in its place.
                open(role, place.open(Opening::Existing, readable, Work::Views).await?)
            };
            runs.run("ledger-views", answer_views(connection, view_requests.clone()));
        }
        Ok(Self {
            writes,
            questions,
            views,
            view_servers,
            place,
            name,
            availability,
            stops_waiting: true,
            lost_leases: LostSessions::default(),
            commits,
            closed,
        })
    }
}

/// What the server must be that is written to, and the one that is asked.
fn needs(place: &Place, opening: Opening) -> (Needs, Needs) {
    match (place, opening) {
        (_, Opening::Making) => (Needs::Writable, Needs::Primary),
        (Place::Servers(servers), Opening::Existing) if servers.address.hosts.len() > 1 => {
            (Needs::Primary, Needs::Primary)
        }
        // Whoever only reads may do so from a standby.
        (_, Opening::Existing | Opening::Keeping) => (Needs::Any, Needs::Any),
    }
}
