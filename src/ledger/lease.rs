//! Who calls Stripe for an account: one process at a time.
//!
//! A lease is an operating-system lock beside an SQLite file, or an advisory lock in PostgreSQL: both end with their
//! holder, however it ends. Beside it stands who holds it, for whoever finds it taken, and when the one before gave it
//! up: its last calls may still count in Stripe's second.
//!
//! The lease keeps two processes from sharing an account's pace, and results to one writer. It is not what keeps a job
//! from being called for twice: that is the ledger's compare-and-set, which holds even where a lease was lost unseen.

mod session;
#[cfg(feature = "killpoints")]
pub(super) mod simulated;

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::availability::Role;
use super::database::{Place, in_time};
use super::lease_file::{LockedFile, Taken};
use super::servers::Work;
use super::standing::{self, STANDING};
use super::{Ledger, LedgerError, Scope};
use crate::clock::{Boot, Clock, Moment};
use crate::config::place::file_of;
use session::Session;
pub(super) use session::{ENTRY, LostSessions};

/// How long the calls of whoever held it before may still count in Stripe's second, with the way to Stripe.
const CALLS_COUNT: Duration = Duration::from_millis(1250);

/// Commands that take leases.
const COMMANDS: [&str; 6] = ["cancel", "issue", "ledger", "serve", "track", "worker"];
/// This process, wherever its number is used again.
static INSTANCE: LazyLock<u64> = LazyLock::new(rand::random);
/// This start of this machine; empty where the system does not tell.
static BOOT: LazyLock<String> = LazyLock::new(|| {
    let found = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    found.map(|found| found.trim().to_owned()).unwrap_or_default()
});

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
    /// Which machine, and since which start of it: containers have names of their own, and share this.
    #[serde(default)]
    pub boot: String,
    /// Which command it runs.
    pub command: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// When it gave it up, if it did.
    #[serde(default)]
    pub ended_ms: Option<i64>,
    /// When that was since the machine's start, in milliseconds: nobody sets that clock.
    #[serde(default)]
    pub ended_boot_ms: Option<u64>,
    /// Until when calls of whoever held it before count, on that clock. A holder that did not hear that it has the lease asks again, and
    /// finds itself.
    #[serde(default)]
    pub waits_until_boot_ms: Option<u64>,
}

impl Holder {
    pub(super) fn this_process(clock: &Clock) -> Self {
        // The first word is the command, unless options stand before it.
        let command =
            std::env::args().skip(1).find(|word| COMMANDS.contains(&word.as_str())).unwrap_or_default();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            host,
            process: std::process::id(),
            instance: *INSTANCE,
            boot: BOOT.clone(),
            command,
            since_ms: clock.now().unix_ms(),
            ended_ms: None,
            ended_boot_ms: None,
            waits_until_boot_ms: None,
        }
    }

    pub(super) fn unknown(clock: &Clock, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            process: 0,
            instance: 0,
            boot: String::new(),
            command: String::new(),
            since_ms: clock.now().unix_ms(),
            ended_ms: None,
            ended_boot_ms: None,
            waits_until_boot_ms: None,
        }
    }

    /// It takes the lease now. Answers how long it is to wait before a call.
    pub(super) fn takes(&mut self, before: Option<&Self>, now: Boot) -> Duration {
        let wait = before.map_or(Duration::ZERO, |before| before.calls_count_for(self, now));
        self.waits_until_boot_ms = u64::try_from((now.since_start() + wait).as_millis()).ok();
        wait
    }

    /// It gives the lease up now.
    pub(super) fn end(&mut self, clock: &Clock) {
        let Moment { wall, boot } = clock.moment();
        self.ended_ms = Some(wall.unix_ms());
        self.ended_boot_ms = u64::try_from(boot.since_start().as_millis()).ok();
    }

    /// How long `next` is to wait before a call, so that this holder's last ones count no more.
    pub(super) fn calls_count_for(&self, next: &Self, now: Boot) -> Duration {
        // One's own calls are known to one's own pace; those of the one before are not.
        if (&self.host, self.process, self.instance) == (&next.host, next.process, next.instance) {
            let until = self.waits_until_boot_ms.map(|ms| Boot::after(Duration::from_millis(ms)));
            return until.map_or(Duration::ZERO, |until| until.since(now)).min(CALLS_COUNT);
        }
        // Without an end it was killed, perhaps just now; by another start's clock its end tells nothing. The time of day may have been
        // set forward since, and is not asked.
        let is_same_start = !self.boot.is_empty() && self.boot == next.boot;
        let ended = self.ended_boot_ms.map(|ms| Boot::after(Duration::from_millis(ms)));
        match ended.filter(|ended| is_same_start && *ended <= now) {
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

/// The right to call for an account, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Lease {
    kind: Kind,
    clock: Clock,
    holder: Box<Holder>,
    calls_from: Duration,
}

#[derive(Debug)]
enum Kind {
    /// A locked file.
    File(LockedFile),
    /// A session of the database's, kept by a task of its own.
    Session(Session),
    /// As a locked file.
    #[cfg(feature = "killpoints")]
    Simulated(Box<simulated::Held>),
}

impl Ledger {
    /// Asks for the lease of an account.
    ///
    /// # Errors
    /// If it can neither be had nor be told who has it.
    pub async fn lease(&self, scope: &Scope, clock: &Clock) -> Result<Leased, LeaseError> {
        match &self.place {
            Place::File(url) => {
                let path = LockedFile::path(url, scope);
                let of_clock = clock.clone();
                let ledger = file_of(url).unwrap_or_default();
                let taking = tokio::task::spawn_blocking(move || LockedFile::take(path, &ledger, &of_clock));
                Ok(match taking.await.map_err(|_| LedgerError::Closed)?? {
                    Taken::Ours { file, holder, calls_from } => {
                        // A process may have had the file open since before it was moved away. The writer is asked, which no long
                        // question holds up; nothing is written.
                        if let Err(Some(standing)) = self.swap_metadata(STANDING, None, None).await? {
                            return Err(standing::refused(Some(&standing), &self.name).into());
                        }
                        let kind = Kind::File(file);
                        Leased::Ours(Lease {
                            kind,
                            clock: clock.clone(),
                            holder: Box::new(holder),
                            calls_from,
                        })
                    }
                    Taken::HeldBy(holder) => Leased::HeldBy(holder),
                })
            }
            Place::Servers(servers) => {
                let asking = session::take(servers, scope, clock, &self.lost_leases);
                let leased = in_time(&self.name, Work::Rows.answer_max(), asking).await;
                match &leased {
                    Err(LeaseError::Ledger(error)) if self.place.passes(error) => {
                        self.availability.is_away(Role::Lease, error);
                    }
                    Ok(_) => self.availability.serves(Role::Lease),
                    Err(_) => {}
                }
                leased
            }
            #[cfg(feature = "killpoints")]
            Place::Simulated(given) => given.lease(scope, clock).await,
        }
    }

    /// Nobody asks for a lease any more: that the database did not answer who asked is no news.
    pub(crate) fn lease_is_not_wanted(&self) {
        self.availability.forget(Role::Lease);
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
        let Kind::Session(session) = &self.kind else { return self.is_surely_ours() };
        session.is_ours(&self.clock).await
    }

    /// Whether that needs no question.
    #[must_use]
    pub fn is_surely_ours(&self) -> bool {
        match &self.kind {
            Kind::File(_) => true,
            Kind::Session(session) => session.is_surely_ours(&self.clock),
            #[cfg(feature = "killpoints")]
            Kind::Simulated(held) => held.is_alive(),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Kind::File(file) = &mut self.kind {
            self.holder.end(&self.clock);
            // For the next holder's first call only; without it, it waits a second.
            let _ = file.write(&self.holder);
        }
        // A session's task says so itself when nobody can ask it any more.
    }
}

/// A number for an account: two of a ledger's accounts never share one in practice, and would only wait for each other.
pub(super) fn number_of(scope: &Scope) -> i64 {
    let digest = Sha256::digest(format!("embosser lease {}", scope.as_str()));
    let mut number = [0; 8];
    number.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_of_another_process_count_for_a_while_after_its_end() {
        let clock = Clock::system();
        let now = Boot::after(Duration::from_secs(1000));
        let ours = Holder { boot: "this start".into(), ..Holder::this_process(&clock) };
        let ended = |ms_ago: i64| Holder {
            process: ours.process + 1,
            ended_ms: Some(0),
            ended_boot_ms: Some(1_000_000_u64.saturating_add_signed(-ms_ago)),
            ..ours.clone()
        };
        assert_eq!(ended(0).calls_count_for(&ours, now), CALLS_COUNT);
        assert_eq!(ended(1000).calls_count_for(&ours, now), Duration::from_millis(250));
        assert_eq!(ended(5000).calls_count_for(&ours, now), Duration::ZERO);
        assert_eq!(ended(-5000).calls_count_for(&ours, now), CALLS_COUNT, "it lies ahead");
        let killed = Holder { ended_ms: None, ended_boot_ms: None, ..ended(0) };
        assert_eq!(killed.calls_count_for(&ours, now), CALLS_COUNT);
        let own = Holder { process: ours.process, ..killed };
        assert_eq!(own.calls_count_for(&ours, now), Duration::ZERO);
        // It took the lease 200 ms after another one's end, and did not hear so: half a second later it finds itself.
        let mut first = ours.clone();
        assert_eq!(first.takes(Some(&ended(200)), now), Duration::from_millis(1050));
        let later = Boot::after(Duration::from_millis(1_000_500));
        assert_eq!(ours.clone().takes(Some(&first), later), Duration::from_millis(550));
        let of_a_container = Holder { instance: ours.instance ^ 1, ..own };
        assert_eq!(of_a_container.calls_count_for(&ours, now), CALLS_COUNT, "another process of one number");
        let elsewhere = Holder { boot: "another".into(), ..ended(5000) };
        assert_eq!(elsewhere.calls_count_for(&ours, now), CALLS_COUNT, "by another machine's clock");
        let nowhere = Holder { boot: String::new(), ..ended(5000) };
        assert_eq!(nowhere.calls_count_for(&nowhere.clone(), now), Duration::ZERO, "its own");
        let unknown = Holder { boot: String::new(), ..ours.clone() };
        assert_eq!(nowhere.calls_count_for(&unknown, now), CALLS_COUNT, "which start it was is not known");
        assert!(ours.to_string().contains(&format!("process {}", ours.process)), "{ours}");
    }
}
