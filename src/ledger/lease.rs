//! Who calls Stripe for an account: one process at a time.
//!
//! A lease is an operating-system lock beside an SQLite file, or an advisory lock in PostgreSQL: both end with their
//! holder, however it ends. Beside it stands who holds it, for whoever finds it taken, and when the one before gave it
//! up: its last calls may still count in Stripe's second.
//!
//! The lease keeps two processes from sharing an account's pace, and results to one writer. It is not what keeps a job
//! from being called for twice: that is the ledger's compare-and-set, which holds even where a lease was lost unseen.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;
use tokio::sync::{mpsc, oneshot};

use super::database::{NoAnswer, in_time};
use super::{Ledger, LedgerError, Scope, postgres};
use crate::clock::{Boot, Clock, Time};
use crate::config::place::file_of;

/// How long the calls of whoever held it before may still count in Stripe's second, with the way to Stripe.
const CALLS_COUNT: Duration = Duration::from_millis(1250);
/// Between two signs of life on PostgreSQL's connection.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// After so long without one the lease is not relied on before another has come; also the bound on one.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);

/// Commands that call Stripe.
const COMMANDS: [&str; 3] = ["issue", "serve", "worker"];
/// This process, wherever its number is used again.
static INSTANCE: LazyLock<u64> = LazyLock::new(rand::random);

/// Who holds an account's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// On which machine.
    pub host: String,
    /// Which process there.
    pub process: u32,
    /// Tells two processes of one number apart: in containers each is number 1.
    #[serde(default)]
    pub instance: u64,
    /// Which command it runs.
    pub command: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When it gave it up, if it did.
    #[serde(default)]
    pub ended_ms: Option<i64>,
}

impl Holder {
    fn this_process(clock: &Clock) -> Self {
        // The first word is the command, unless options stand before it.
        let command =
            std::env::args().skip(1).find(|word| COMMANDS.contains(&word.as_str())).unwrap_or_default();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            host,
            process: std::process::id(),
            instance: *INSTANCE,
            command,
            since_ms: clock.now().unix_ms(),
            ended_ms: None,
        }
    }

    fn unknown(clock: &Clock, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            process: 0,
            instance: 0,
            command: String::new(),
            since_ms: clock.now().unix_ms(),
            ended_ms: None,
        }
    }

    /// How long `next` is to wait before a call, so that this holder's last ones count no more.
    fn calls_count_for(&self, next: &Self, now: Time) -> Duration {
        // One's own calls are known to one's own pace.
        if (&self.host, self.process, self.instance) == (&next.host, next.process, next.instance) {
            return Duration::ZERO;
        }
        // Without an end it was killed, perhaps just now; an end in the future, or by another machine's clock, tells nothing.
        let ended =
            self.ended_ms.map(Time::from_unix_ms).filter(|ended| *ended <= now && self.host == next.host);
        match ended {
            Some(ended) => CALLS_COUNT.saturating_sub(now.since(ended)),
            None => CALLS_COUNT,
        }
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.process == 0 {
            return write!(formatter, "another embosser on {}", self.host);
        }
        let since = jiff::Timestamp::from_millisecond(self.since_ms).map_or_else(
            |_| "an unknown time".to_owned(),
            |since| since.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        );
        write!(
            formatter,
            "embosser {} (process {} on {}, since {since})",
            self.command, self.process, self.host
        )
    }
}

/// What came of asking for a lease.
#[derive(Debug)]
pub enum Leased {
    /// It is ours.
    Ours(Lease),
    /// Somebody else has it.
    HeldBy(Box<Holder>),
}

/// Why there is no lease and nobody who holds it.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The file beside the ledger.
    #[error(
        "the file {} keeps two processes from calling for one account at once, and cannot be used: {reason}",
        path.display()
    )]
    File {
        /// Which.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The database.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<NoAnswer> for LeaseError {
    fn from(no_answer: NoAnswer) -> Self {
        Self::Ledger(no_answer.into())
    }
}

/// The right to call for an account, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    kind: Kind,
    clock: Clock,
    holder: Holder,
    calls_from: Duration,
}

#[derive(Debug)]
enum Kind {
    /// A locked file.
    File(File),
    /// A session of the database's, kept by a task of its own.
    Session(Session),
}

#[derive(Debug)]
struct Session {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    alive: Arc<Alive>,
}

/// When a session last gave a sign of life.
#[derive(Debug)]
struct Alive(Mutex<Boot>);

impl Ledger {
    /// Asks for the lease of an account.
    ///
    /// # Errors
    /// If it can neither be had nor be told who has it.
    pub async fn lease(&self, scope: &Scope, clock: &Clock) -> Result<Leased, LeaseError> {
        if self.url.starts_with("sqlite:") {
            let path = lock_file(&self.url, scope);
            let clock = clock.clone();
            let of_file = move || of_file(path, clock);
            tokio::task::spawn_blocking(of_file).await.map_err(|_| LedgerError::Closed)?
        } else {
            in_time(&self.name, of_session(&self.url, scope, clock)).await
        }
    }
}

impl Lease {
    /// How long to wait before the first call, so that the calls of whoever held it before count no more.
    #[must_use]
    pub fn calls_from(&self) -> Duration {
        self.calls_from
    }

    /// Whether it is still ours. A process that slept, or whose connection is gone, may have lost it.
    pub async fn is_ours(&self) -> bool {
        let Kind::Session(session) = &self.kind else { return true };
        if self.is_surely_ours() {
            return true;
        }
        let (answer, answered) = oneshot::channel();
        session.ask.send(answer).await.is_ok()
            && matches!(tokio::time::timeout(ALIVE_WITHIN, answered).await, Ok(Ok(())))
    }

    /// Whether that needs no question.
    #[must_use]
    pub fn is_surely_ours(&self) -> bool {
        match &self.kind {
            Kind::File(_) => true,
            Kind::Session(session) => {
                !session.ask.is_closed() && self.clock.boot().since(session.last_alive()) < ALIVE_WITHIN
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Kind::File(file) = &mut self.kind {
            self.holder.ended_ms = Some(self.clock.now().unix_ms());
            // For the next holder's first call only; without it, it waits a second.
            let _ = write_holder(file, &self.holder);
        }
        // A session's task says so itself when nobody can ask it any more.
    }
}

impl Session {
    fn last_alive(&self) -> Boot {
        *self.alive.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alive {
    fn at(&self, now: Boot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

/// The file whose lock is an account's lease.
fn lock_file(url: &str, scope: &Scope) -> PathBuf {
    let file = file_of(url).unwrap_or_default();
    // Two paths to one file are one lease.
    let mut path = std::fs::canonicalize(&file).unwrap_or(file).into_os_string();
    path.push(format!(".{:016x}.lease", number_of(scope)));
    path.into()
}

/// A number for an account: two of a ledger's accounts never share one in practice, and would only wait for each other.
fn number_of(scope: &Scope) -> i64 {
    let digest = Sha256::digest(format!("embosser lease {}", scope.as_str()));
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(number)
}

fn of_file(path: PathBuf, clock: Clock) -> Result<Leased, LeaseError> {
    let to_error = |error: std::io::Error| LeaseError::File { path: path.clone(), reason: error.to_string() };
    let options = File::options().read(true).write(true).create(true).truncate(false).to_owned();
    let mut file = options.open(&path).map_err(to_error)?;
    let locked = file.try_lock();
    let before = read_holder(&mut file);
    match locked {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            // It has just taken it, and not yet said who it is.
            let unknown = || Holder::unknown(&clock, "this machine");
            return Ok(Leased::HeldBy(Box::new(before.unwrap_or_else(unknown))));
        }
        Err(std::fs::TryLockError::Error(error)) => return Err(to_error(error)),
    }
    let holder = Holder::this_process(&clock);
    let calls_from = before.map_or(Duration::ZERO, |before| before.calls_count_for(&holder, clock.now()));
    write_holder(&mut file, &holder).map_err(to_error)?;
    Ok(Leased::Ours(Lease { kind: Kind::File(file), clock, holder, calls_from }))
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn write_holder(file: &mut File, holder: &Holder) -> std::io::Result<()> {
    let text = serde_json::to_string(holder).map_err(std::io::Error::other)?;
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

async fn of_session(url: &str, scope: &Scope, clock: &Clock) -> Result<Leased, LeaseError> {
    let name = crate::config::place::without_password(url);
    let to_error = |error: sqlx::Error| postgres::meaning(&name, &error);
    let mut connection = postgres::connect(url).await?;
    // A session whose client has vanished would keep the lock for as long as the server believes in its connection: there is
    // a sign of life every second. Servers before version 14 do not know the setting and refuse it.
    let _ = sqlx::query("SET idle_session_timeout = '15s'").execute(&mut connection).await;
    let number = number_of(scope);
    let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(number)
        .fetch_one(&mut connection)
        .await
        .map_err(to_error)?;
    let entry = format!("lease:{}", scope.as_str());
    let before: Option<String> = sqlx::query_scalar("SELECT value FROM metadata WHERE name = $1")
        .bind(&entry)
        .fetch_optional(&mut connection)
        .await
        .map_err(to_error)?;
    let before: Option<Holder> = before.and_then(|before| serde_json::from_str(&before).ok());
    if !taken {
        let _ = connection.close().await;
        let unknown = || Holder::unknown(clock, "another machine");
        return Ok(Leased::HeldBy(Box::new(before.unwrap_or_else(unknown))));
    }
    let holder = Holder::this_process(clock);
    let calls_from = before.map_or(Duration::ZERO, |before| before.calls_count_for(&holder, clock.now()));
    set_entry(&mut connection, &entry, &holder).await.map_err(to_error)?;
    let (ask, questions) = mpsc::channel(1);
    let alive = Arc::new(Alive(Mutex::new(clock.boot())));
    tokio::spawn(keep(connection, entry, holder.clone(), clock.clone(), alive.clone(), questions));
    let session = Session { ask, alive };
    Ok(Leased::Ours(Lease { kind: Kind::Session(session), clock: clock.clone(), holder, calls_from }))
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

/// Keeps the session that holds the lock until nobody needs it any more, or it is lost: then the channel closes.
async fn keep(
    mut connection: sqlx::PgConnection,
    entry: String,
    mut holder: Holder,
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
        let sign = sqlx::query("SELECT 1").execute(&mut connection);
        if !matches!(tokio::time::timeout(ALIVE_WITHIN, sign).await, Ok(Ok(_))) {
            tracing::warn!("the database's session that holds the account's lease is lost");
            return;
        }
        alive.at(put);
        if let Some(answer) = answer {
            let _ = answer.send(());
        }
    }
    holder.ended_ms = Some(clock.now().unix_ms());
    let _ = tokio::time::timeout(ALIVE_WITHIN, set_entry(&mut connection, &entry, &holder)).await;
    let _ = tokio::time::timeout(ALIVE_WITHIN, connection.close()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_another_process_count_for_a_while_after_its_end() {
        let clock = Clock::system();
        let now = clock.now();
        let ours = Holder::this_process(&clock);
        let ended = |ms_ago: i64| Holder {
            process: ours.process + 1,
            ended_ms: Some(now.unix_ms() - ms_ago),
            ..ours.clone()
        };
        assert_eq!(ended(0).calls_count_for(&ours, now), CALLS_COUNT);
        assert_eq!(ended(1000).calls_count_for(&ours, now), Duration::from_millis(250));
        assert_eq!(ended(5000).calls_count_for(&ours, now), Duration::ZERO);
        assert_eq!(ended(-5000).calls_count_for(&ours, now), CALLS_COUNT, "a clock was set back");
        let killed = Holder { ended_ms: None, ..ended(0) };
        assert_eq!(killed.calls_count_for(&ours, now), CALLS_COUNT);
        let own = Holder { process: ours.process, ..killed };
        assert_eq!(own.calls_count_for(&ours, now), Duration::ZERO);
        let of_a_container = Holder { instance: ours.instance ^ 1, ..own };
        assert_eq!(of_a_container.calls_count_for(&ours, now), CALLS_COUNT, "another process of one number");
        let elsewhere = Holder { host: "another".into(), ..ended(5000) };
        assert_eq!(elsewhere.calls_count_for(&ours, now), CALLS_COUNT, "by another machine's clock");
        assert!(ours.to_string().contains(&format!("process {}", ours.process)), "{ours}");
    }
}
