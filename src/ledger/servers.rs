//! PostgreSQL's servers, and a session with the one that is to be used.
//!
//! Guarantees: a session is with the primary where that is needed, and never with one that was the primary before another took
//! its place: each promotion begins a new timeline, and who has seen a later one takes no earlier, nor stays with one. What a session
//! that was lost may still execute is ended before its work is begun anew. Each step has a bound.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::LedgerError;
use super::address::{Address, Host, Needs};
use super::sqlstate::meaning;
use super::timeline::{Latest, Timeline};

/// Longest for a new session: name, TCP, TLS, password, and what is asked and set at its begin.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How much longer the other hosts are waited for once one has answered: of two that take themselves for the primary, the one of the
/// later timeline is.
const OTHERS_MAX: Duration = Duration::from_millis(500);
/// Looks whether a session that was lost has ended, and between two: a second at most, as it mostly has before.
const ENDED_LOOKS_MAX: u32 = 50;
const ENDED_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the server does by itself with a session that nobody answers for any more: it looks after ten seconds of silence and gives up
/// after fifteen more, or after twenty without an acknowledgement. (Our own end has a bound for each question instead, and asks one
/// every few seconds.) Servers before version 12 do not know the last: it is set by itself, since what is set in one question is
/// set together or not at all.
const KEEPALIVE: [&str; 2] = [
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3",
    "SET tcp_user_timeout = '20s'",
];

/// What a session is for: how long one of its statements may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Rows of some jobs, or the lease: milliseconds.
    Rows,
    /// Counts of all there is.
    Views,
    /// To find out how the server is reached. Nothing is set: the session may turn out to be shared with others.
    Trial,
}

impl Work {
    /// Longest that an answer is waited for; beyond it the connection is taken for dead.
    pub(super) const fn answer_max(self) -> Duration {
        match self {
            Self::Rows | Self::Trial => Duration::from_secs(10),
            Self::Views => Duration::from_secs(60),
        }
    }

    /// The server gives up a second earlier, so that it does not go on with what nobody waits for; on another's lock, sooner.
    fn settings(self) -> String {
        let statement = self.answer_max().as_secs() - 1;
        let lock = statement.min(9) - 1;
        format!(
            "SET statement_timeout = '{statement}s'; SET lock_timeout = '{lock}s'; \
             SET idle_in_transaction_session_timeout = '15s'"
        )
    }
}

/// A session of the server's, told from every other one by when it began, and from other clients of it by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i32,
    start: String,
    /// Its own name: a pooler gives the same session to one client after the other.
    application: String,
}

/// A session that was begun.
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) backend: Backend,
    pub(super) timeline: Timeline,
}

/// Why a host is of no use.
struct Unusable {
    host: String,
    error: LedgerError,
}

/// The servers of a ledger.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) address: Address,
    latest: Latest,
}

impl Servers {
    pub(super) fn of(url: &str) -> Result<Self, LedgerError> {
        Ok(Self { address: Address::parse(url)?, latest: Latest::default() })
    }

    /// The ledger's name in messages.
    pub(super) fn name(&self) -> &str {
        &self.address.name
    }

    /// A session with the server that is what is needed. All hosts are tried at once: one that is silent costs no time.
    pub(super) async fn connect(&self, needs: Needs, work: Work) -> Result<Session, LedgerError> {
        let needs = if self.address.takes_standby { Needs::Any } else { needs };
        let mut tries: FuturesUnordered<_> =
            self.address.hosts.iter().map(|host| self.within(host, needs, work)).collect();
        let (mut best, mut unusable) = (None::<Session>, Vec::new());
        loop {
            let next = match &best {
                None => tries.next().await,
                Some(_) => tokio::time::timeout(OTHERS_MAX, tries.next()).await.unwrap_or_default(),
            };
            match next {
                None => break,
                Some(Ok(session))
                    if best.as_ref().is_none_or(|best| session.timeline.is_later_than(&best.timeline)) =>
                {
                    best = Some(session);
                }
                Some(Ok(_)) => {}
                Some(Err(reason)) => unusable.push(reason),
            }
        }
        drop(tries);
        let Some(session) = best else { return Err(self.none_of(unusable)) };
        session.timeline.check(self.name())?;
        Ok(session)
    }

    async fn within(&self, host: &Host, needs: Needs, work: Work) -> Result<Session, Unusable> {
        let session = tokio::time::timeout(CONNECT_MAX, self.begin(host, needs, work)).await;
        let session = session.unwrap_or_else(|_| {
            let reason = format!("no connection within {} seconds", CONNECT_MAX.as_secs());
            Err(LedgerError::Unreachable { ledger: self.name().to_owned(), reason })
        });
        session.map_err(|error| Unusable { host: host.name.clone(), error })
    }

    async fn begin(&self, host: &Host, needs: Needs, work: Work) -> Result<Session, LedgerError> {
        let to_error = |error: sqlx::Error| meaning(self.name(), &error);
        let application = format!("embosser-{:016x}", rand::random::<u64>());
        let options = host.options.clone().application_name(&application);
        let mut connection = options.connect().await.map_err(to_error)?;
        // In one statement without parameters, since behind some poolers nothing else is sure to arrive in one session.
        let look = "SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby,
            (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS start,
            current_setting('transaction_read_only') = 'on' AS read_only";
        let row = sqlx::raw_sql(look).fetch_one(&mut connection).await.map_err(to_error)?;
        let is = |column: &str| row.try_get::<bool, _>(column).map_err(to_error);
        if is("standby")? && needs != Needs::Any {
            let _ = connection.close().await;
            let reason = "it is a standby, which takes no writes".to_owned();
            return Err(LedgerError::NoPrimary { ledger: self.name().to_owned(), reason });
        }
        if is("read_only")? && needs == Needs::Writable {
            let _ = connection.close().await;
            return Err(LedgerError::ReadOnly(self.name().to_owned()));
        }
        let start: Option<String> = row.try_get("start").map_err(to_error)?;
        let pid = row.try_get("pid").map_err(to_error)?;
        let backend = Backend { pid, start: start.unwrap_or_default(), application };
        if work != Work::Trial {
            let settings = sqlx::raw_sql(sqlx::AssertSqlSafe(work.settings()));
            settings.execute(&mut connection).await.map_err(to_error)?;
            for settings in KEEPALIVE {
                let _ = sqlx::raw_sql(settings).execute(&mut connection).await;
            }
        }
        // A standby has none of its own, and some databases that only speak as PostgreSQL does have none at all.
        let of_segment = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)";
        let timeline = match sqlx::raw_sql(of_segment).fetch_one(&mut connection).await {
            Ok(row) => row.try_get::<String, _>(0).ok().and_then(|hex| u32::from_str_radix(&hex, 16).ok()),
            Err(sqlx::Error::Database(_)) => None,
            Err(error) => return Err(to_error(error)),
        };
        Ok(Session { connection, backend, timeline: self.latest.seen(timeline.unwrap_or(0)) })
    }

    /// What all hosts said, as one error: the only one's own, or the one that tells most, with each host's words.
    fn none_of(&self, mut unusable: Vec<Unusable>) -> LedgerError {
        if unusable.len() == 1
            && let Some(only) = unusable.pop()
        {
            return only.error;
        }
        let reason_of = |unusable: &Unusable| match &unusable.error {
            LedgerError::Unreachable { reason, .. } | LedgerError::NoPrimary { reason, .. } => {
                format!("{}: {reason}", unusable.host)
            }
            other => format!("{}: {other}", unusable.host),
        };
        let reason = unusable.iter().map(reason_of).collect::<Vec<_>>().join("; ");
        let ledger = self.name().to_owned();
        // What no wait mends is told as it is, unless one of the hosts may be the primary a while later.
        if !unusable.iter().any(|unusable| super::sqlstate::passes(&unusable.error))
            && let Some(first) = unusable.into_iter().next()
        {
            return first.error;
        }
        LedgerError::NoPrimary { ledger, reason }
    }
}

/// Ends a session that was lost, if the server still has it: it may be about to execute what is asked anew, and holds locks.
///
/// # Errors
/// If it is not known to have ended.
pub(super) async fn end_lost(
    connection: &mut PgConnection,
    lost: &Backend,
    ledger: &str,
) -> Result<(), LedgerError> {
    if lost.start.is_empty() {
        // A database that only speaks as PostgreSQL, and does not tell of its sessions.
        return Ok(());
    }
    // Some poolers put the client's address after the name.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid = $1 AND backend_start = $2::timestamptz AND application_name LIKE $3 || '%'";
    for _ in 0..ENDED_LOOKS_MAX {
        let end = sqlx::query(end).bind(lost.pid).bind(&lost.start).bind(&lost.application);
        let ended = end.fetch_optional(&mut *connection).await;
        if ended.map_err(|error| meaning(ledger, &error))?.is_none() {
            return Ok(());
        }
        tokio::time::sleep(ENDED_LOOK_EVERY).await;
    }
    let reason = "its session that was lost is ended, and has not ended yet".to_owned();
    Err(LedgerError::Unreachable { ledger: ledger.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_wait_mends_at_one_host_keeps_nobody_from_the_other() {
        let servers = Servers::of("postgres://u@one,two/d").unwrap();
        let unusable = |host: &str, error| Unusable { host: host.to_owned(), error };
        let refused = |host: &str| {
            let reason = format!("password refused by {host}");
            unusable(host, LedgerError::Database { ledger: "d".into(), reason })
        };
        let silent =
            || unusable("two", LedgerError::Unreachable { ledger: "d".into(), reason: "no answer".into() });
        for both in [vec![refused("one"), silent()], vec![silent(), refused("one")]] {
            let error = servers.none_of(both);
            assert!(super::super::sqlstate::passes(&error), "{error}");
            let message = error.to_string();
            assert!(
                message.contains("password refused by one") && message.contains("two: no answer"),
                "{message}"
            );
        }
        let error = servers.none_of(vec![refused("one"), refused("two")]);
        assert!(matches!(error, LedgerError::Database { .. }), "{error}");
        let error = servers.none_of(vec![refused("one")]);
        assert!(matches!(error, LedgerError::Database { .. }), "{error}");
    }
}
