//! The lease of an account in a PostgreSQL ledger: an advisory lock, which a session of the database's holds and a task keeps alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection as _;
use tokio::sync::{mpsc, oneshot};

use super::super::address::Needs;
use super::super::servers::{Backend, Servers, Session as ServerSession, Work, end_lost};
use super::super::standing::{self, STANDING};
use super::super::timeline::Timeline;
use super::super::{Scope, postgres};
use super::{Holder, Kind, Lease, LeaseError, Leased, number_of};
use crate::clock::{Boot, Clock};

/// With what the names of the metadata begin that say who holds a lease.
pub(in crate::ledger) const ENTRY: &str = "lease:";
/// Between two signs of life on the connection.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// After so long without one the lease is not relied on before another has come; also the bound on one.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);

/// A session that holds a lease, as the lease sees it.
#[derive(Debug)]
pub(super) struct Session {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    alive: Arc<Alive>,
    /// Another server may have become the primary, where somebody else has the lease; known before this session notices.
    timeline: Timeline,
}

/// The sessions of each lock's number that were lost while they held a lease, or may have come to hold it. The server may still have
/// them, and with one of them the lock.
#[derive(Debug, Clone, Default)]
pub(in crate::ledger) struct LostSessions(Arc<Mutex<HashMap<i64, Vec<Backend>>>>);

impl LostSessions {
    fn all(&self) -> MutexGuard<'_, HashMap<i64, Vec<Backend>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, number: i64) -> Vec<Backend> {
        self.all().get(&number).cloned().unwrap_or_default()
    }

    fn add(&self, number: i64, backend: Backend) {
        self.all().entry(number).or_default().push(backend);
    }

    /// It has ended, or is known to hold nothing, or is kept.
    fn forget(&self, number: i64, backend: &Backend) {
        if let Some(lost) = self.all().get_mut(&number) {
            lost.retain(|lost| lost != backend);
        }
    }
}

/// When a session last gave a sign of life.
#[derive(Debug)]
pub(super) struct Alive(Mutex<Boot>);

impl Session {
    /// It lived when something was asked that it has answered. Who keeps it alive answers what is asked, and notes its signs of life.
    pub(super) fn begin(
        ask: mpsc::Sender<oneshot::Sender<()>>,
        alive_at: Boot,
        timeline: Timeline,
    ) -> (Self, Arc<Alive>) {
        let alive = Arc::new(Alive(Mutex::new(alive_at)));
        (Self { ask, alive: alive.clone(), timeline }, alive)
    }

    pub(super) async fn is_ours(&self, clock: &Clock) -> bool {
        if self.is_surely_ours(clock) {
            return true;
        }
        let (answer, answered) = oneshot::channel();
        self.ask.send(answer).await.is_ok()
            && matches!(tokio::time::timeout(ALIVE_WITHIN, answered).await, Ok(Ok(())))
    }

    pub(super) fn is_surely_ours(&self, clock: &Clock) -> bool {
        !self.ask.is_closed()
            && !self.timeline.is_over()
            && clock.boot().since(self.alive.last()) < ALIVE_WITHIN
    }
}

impl Alive {
    fn last(&self) -> Boot {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn at(&self, now: Boot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// Asks for the lease of an account.
pub(super) async fn take(
    servers: &Servers,
    scope: &Scope,
    clock: &Clock,
    lost: &LostSessions,
) -> Result<Leased, LeaseError> {
    let to_error = |error: sqlx::Error| postgres::meaning(servers.name(), &error);
    let ServerSession { mut connection, backend, timeline } =
        servers.connect(Needs::Writable, Work::Rows).await?;
    // A session whose client has vanished would keep the lock for as long as the server believes in its connection: there is
    // a sign of life every second. Servers before version 14 do not know the setting and refuse it.
    let _ = sqlx::query("SET idle_session_timeout = '15s'").execute(&mut connection).await;
    let number = number_of(scope);
    for former in lost.of(number) {
        end_lost(&mut connection, &former, servers.name()).await?;
        lost.forget(number, &former);
    }
    // Whoever asks may stop waiting, or the answer be lost: then the lock may be this session's.
    lost.add(number, backend.clone());
    let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(number)
        .fetch_one(&mut connection)
        .await
        .map_err(to_error)?;
    let standing = metadata(&mut connection, STANDING).await.map_err(to_error)?;
    if standing.is_some() {
        lost.forget(number, &backend);
        let _ = connection.close().await;
        return Err(standing::refused(standing.as_deref(), servers.name()).into());
    }
    let entry = format!("{ENTRY}{}", scope.as_str());
    let before = metadata(&mut connection, &entry).await.map_err(to_error)?;
    let before: Option<Holder> = before.and_then(|before| serde_json::from_str(&before).ok());
    if !taken {
        lost.forget(number, &backend);
        let _ = connection.close().await;
        let unknown = || Holder::unknown(clock, "another machine");
        return Ok(Leased::HeldBy(Box::new(before.unwrap_or_else(unknown))));
    }
    let mut holder = Holder::this_process(clock);
    let calls_from = holder.takes(before.as_ref(), clock.boot());
    set_entry(&mut connection, &entry, &holder).await.map_err(to_error)?;
    // Who moves a ledger marks it, and then holds the lock of each entry: of a mark that came after the entry it finds the entry, and
    // one that came before is found here. The process may sleep until it has the answer: the session may be over by then.
    let alive_at = clock.boot();
    let standing = metadata(&mut connection, STANDING).await.map_err(to_error)?;
    lost.forget(number, &backend);
    if standing.is_some() {
        let _ = connection.close().await;
        return Err(standing::refused(standing.as_deref(), servers.name()).into());
    }
    let (ask, questions) = mpsc::channel(1);
    let (session, alive) = Session::begin(ask, alive_at, timeline.clone());
    let kept =
        Kept { connection, backend, timeline, number, entry, holder: holder.clone(), lost: lost.clone() };
    tokio::spawn(keep(kept, clock.clone(), alive, questions));
    Ok(Leased::Ours(Lease {
        kind: Kind::Session(session),
        clock: clock.clone(),
        holder: Box::new(holder),
        calls_from,
    }))
}

async fn metadata(connection: &mut sqlx::PgConnection, name: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM metadata WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

async fn set_entry(
    connection: &mut sqlx::PgConnection,
    entry: &str,
    holder: &Holder,
) -> Result<(), sqlx::Error> {
    let text = serde_json::to_string(holder).map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
    sqlx::query(
        "INSERT INTO metadata (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(entry)
    .bind(text)
    .execute(connection)
    .await
    .map(|_| ())
}

/// A session that holds a lock.
struct Kept {
    connection: sqlx::PgConnection,
    backend: Backend,
    timeline: Timeline,
    /// The lock's.
    number: i64,
    entry: String,
    holder: Holder,
    lost: LostSessions,
}

/// Keeps the session that holds the lock until nobody needs it any more, or it is lost: then the channel closes.
async fn keep(
    mut kept: Kept,
    clock: Clock,
    alive: Arc<Alive>,
    mut questions: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let answer = tokio::select! {
            question = questions.recv() => match question {
                Some(answer) => Some(answer),
                None => break,
            },
            () = tokio::time::sleep(ALIVE_EVERY) => None,
        };
        // As it was when the question was put: the answer may have been long on its way.
        let put = clock.boot();
        let sign = sqlx::query("SELECT 1").execute(&mut kept.connection);
        let is_alive = matches!(tokio::time::timeout(ALIVE_WITHIN, sign).await, Ok(Ok(_)));
        if !is_alive || kept.timeline.is_over() {
            tracing::warn!("the database's session that holds the account's lease is lost");
            kept.lost.add(kept.number, kept.backend);
            return;
        }
        alive.at(put);
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }
    kept.holder.end(&clock);
    let writing = set_entry(&mut kept.connection, &kept.entry, &kept.holder);
    let _ = tokio::time::timeout(ALIVE_WITHIN, writing).await;
    let _ = tokio::time::timeout(ALIVE_WITHIN, kept.connection.close()).await;
}
