//! Why the ledger cannot serve, in an operator's terms.

/// Why the ledger cannot serve. Shared by all the writes of one flush.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The address is neither SQLite nor PostgreSQL, or not an address.
    #[error("ledger address {url:?}: {reason}; use sqlite://FILE or postgres://HOST/DATABASE")]
    Address {
        /// What was given, without its password.
        url: String,
        /// The reason.
        reason: String,
    },
    /// Another process holds it.
    #[error("ledger {0} is locked by another process; end that one or wait, then run again")]
    Locked(String),
    /// It cannot be written to.
    #[error("ledger {0} is read-only; nothing can be issued without recording it first")]
    ReadOnly(String),
    /// The disk is full.
    #[error("ledger {0}: the disk is full; make room, then run again")]
    Full(String),
    /// The server does not answer, or its answer was lost.
    #[error("ledger {ledger} does not answer: {reason}")]
    Unreachable {
        /// Which ledger.
        ledger: String,
        /// What was seen of it.
        reason: String,
    },
    /// The server gave up what was asked, which took longer than one question may.
    #[error("ledger {ledger} did not answer in time: a statement took too long ({reason})")]
    TooSlow {
        /// Which ledger.
        ledger: String,
        /// The server's words.
        reason: String,
    },
    /// Servers answer, and none of them takes writes: a standby is not promoted yet, for instance.
    #[error("ledger {ledger}: no server takes writes ({reason})")]
    NoPrimary {
        /// Which ledger.
        ledger: String,
        /// What each host said.
        reason: String,
    },
    /// The server has no connection left.
    #[error(
        "ledger {ledger} has no connection left ({reason}); end some of its clients, or raise max_connections in postgresql.conf"
    )]
    TooManyConnections {
        /// Which ledger.
        ledger: String,
        /// The server's words.
        reason: String,
    },
    /// The database took back what was asked, since others write at the same time; it is asked again.
    #[error("ledger {ledger}: another process writes at the same time ({reason})")]
    Conflict {
        /// Which ledger.
        ledger: String,
        /// The server's words: a deadlock, or a serialization failure.
        reason: String,
    },
    /// A pooler stands before the server and gives each transaction another session.
    #[error(
        "ledger {0}: a connection pooler (as PgBouncer) with pool_mode = transaction or statement stands before the server, and a lease is held by a session; give embosser a pool with pool_mode = session, or the server's own address"
    )]
    Pooled(String),
    /// The file is on another machine.
    #[error(
        "ledger {ledger} is on a network file system ({kind}), where SQLite's locks and its write-ahead log do not hold; put it on a disk of this machine, or use postgres://HOST/DATABASE for several machines"
    )]
    NetworkFile {
        /// Which ledger.
        ledger: String,
        /// What kind of file system that is.
        kind: &'static str,
    },
    /// The file cannot have a write-ahead log.
    #[error(
        "ledger {ledger} cannot be kept with a write-ahead log (its journal mode stays {found}); put it on a file system of this machine that allows shared memory"
    )]
    Journal {
        /// Which ledger.
        ledger: String,
        /// The mode that it has.
        found: String,
    },
    /// There is none.
    #[error("there is no ledger at {0}")]
    Missing(String),
    /// It was written by an earlier embosser, and whoever opened it changes nothing.
    #[error(
        "ledger {ledger} is of version {found}, and is read from version {known} on; `embosser issue`, `serve` or `worker` \
         brings it there when it is next run"
    )]
    Older {
        /// Which ledger.
        ledger: String,
        /// Its version.
        found: i64,
        /// The version that can be read.
        known: i64,
    },
    /// It was written by a newer embosser.
    #[error(
        "ledger {ledger} is of version {found}, this embosser knows up to {known}; use the newer embosser"
    )]
    Newer {
        /// Which ledger.
        ledger: String,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// It was moved to another database.
    #[error(
        "ledger {ledger} was moved to {to}: name that one instead (--ledger, or ledger.url in the configuration), for every \
         embosser of this account; this one is written to no more"
    )]
    Moved {
        /// Which ledger.
        ledger: String,
        /// Where it is now.
        to: String,
    },
    /// It is being moved to another database, or that was interrupted.
    #[error(
        "ledger {ledger} is being moved to {to}: wait until that has ended; if nobody moves it any more, run `embosser ledger \
         move` with the same two addresses again, or with --abandon to go on with this one"
    )]
    Moving {
        /// Which ledger.
        ledger: String,
        /// Where to.
        to: String,
    },
    /// Another ledger is being moved into it, and not all of it is there.
    #[error(
        "ledger {ledger} holds a part only of the ledger {from}, which is being moved here: wait until that has ended; if \
         nobody moves it any more, run `embosser ledger move` with the same two addresses again, or, if that move was given up, \
         drop this database (or delete its file)"
    )]
    Receiving {
        /// Which ledger.
        ledger: String,
        /// Where the other one is.
        from: String,
    },
    /// A row that embosser cannot have written.
    #[error("ledger {ledger}: the row of job {job:?} cannot be read ({reason})")]
    Damaged {
        /// Which ledger.
        ledger: String,
        /// Which job.
        job: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It is not the database that was opened.
    #[error("ledger {0} was deleted or replaced while it was in use; put it back and run again")]
    Replaced(String),
    /// Any other failure of the database.
    #[error("ledger {ledger}: {reason}")]
    Database {
        /// Which ledger.
        ledger: String,
        /// The database's words.
        reason: String,
    },
    /// The ledger was closed while this was waiting.
    #[error("the ledger is closed")]
    Closed,
}

impl LedgerError {
    /// Whether it may serve another time: then whoever waits for it is to try again, else somebody must look.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Locked(_)
            | Self::ReadOnly(_)
            | Self::Full(_)
            | Self::Unreachable { .. }
            | Self::TooSlow { .. }
            | Self::NoPrimary { .. }
            | Self::TooManyConnections { .. }
            | Self::Conflict { .. }
            | Self::Database { .. }
            | Self::Closed => true,
            Self::Address { .. }
            | Self::Pooled(_)
            | Self::NetworkFile { .. }
            | Self::Journal { .. }
            | Self::Missing(_)
            | Self::Older { .. }
            | Self::Newer { .. }
            | Self::Moved { .. }
            | Self::Moving { .. }
            | Self::Receiving { .. }
            | Self::Damaged { .. }
            | Self::Replaced(_) => false,
        }
    }
}
