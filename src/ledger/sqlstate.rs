//! What PostgreSQL's errors mean, in the operator's terms, by their SQLSTATE (PostgreSQL's appendix A).

use sqlx::error::DatabaseError;

use super::LedgerError;

/// What to do where TLS fails.
const TLS: &str = "name the file of its certificate's authority in ledger.url (sslrootcert=FILE), or, where the network is trusted, say \
                   sslmode=require (encrypted, and no certificate is checked) or sslmode=disable";

/// Says in the operator's terms what an error means.
pub(super) fn meaning(ledger: &str, error: &sqlx::Error) -> LedgerError {
    let unreachable = |reason: String| LedgerError::Unreachable { ledger: ledger.into(), reason };
    match error {
        sqlx::Error::Database(error) => of_state(ledger, error.as_ref()),
        // The driver's words tell how many bytes it was about to read.
        sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            unreachable("the connection was closed".into())
        }
        sqlx::Error::Io(error) => unreachable(error.to_string()),
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => unreachable(error.to_string()),
        sqlx::Error::Tls(error) => unreachable(format!("TLS: {error}; {TLS}")),
        _ => super::store::database(ledger, error.to_string()),
    }
}

fn of_state(ledger: &str, error: &dyn DatabaseError) -> LedgerError {
    let reason = || error.message().to_owned();
    let unreachable = |reason: String| LedgerError::Unreachable { ledger: ledger.into(), reason };
    match error.code().as_deref().unwrap_or_default() {
        // What a trigger of the database's raised.
        "P0001" => super::standing::told_by(error.message(), ledger)
            .unwrap_or_else(|| super::store::database(ledger, reason())),
        "25006" => LedgerError::ReadOnly(ledger.into()),
        "53100" => LedgerError::Full(ledger.into()),
        "53300" => LedgerError::TooManyConnections { ledger: ledger.into(), reason: reason() },
        "55P03" => LedgerError::Locked(ledger.into()),
        "40P01" | "40001" => LedgerError::Conflict { ledger: ledger.into(), reason: reason() },
        // Statements are prepared in one session and executed in another: only a pooler does that.
        "42P05" | "26000" => LedgerError::Pooled(ledger.into()),
        "57014" => LedgerError::TooSlow { ledger: ledger.into(), reason: reason() },
        // 57P: it is shutting down, starting, or ends a session; 08: a connection; 53: it has too little of something.
        code if ["57P", "08", "53"].iter().any(|class| code.starts_with(class)) => unreachable(reason()),
        _ => super::store::database(ledger, error.to_string()),
    }
}

/// Whether a failure may pass by itself, so that whoever asked is to wait and ask again on a new connection.
pub(super) fn passes(error: &LedgerError) -> bool {
    match error {
        LedgerError::Unreachable { .. }
        | LedgerError::TooSlow { .. }
        | LedgerError::ReadOnly(_)
        | LedgerError::NoPrimary { .. }
        | LedgerError::TooManyConnections { .. }
        | LedgerError::Locked(_)
        | LedgerError::Conflict { .. }
        | LedgerError::Full(_) => true,
        LedgerError::Address { .. }
        | LedgerError::Missing(_)
        | LedgerError::Older { .. }
        | LedgerError::Newer { .. }
        | LedgerError::Moved { .. }
        | LedgerError::Moving { .. }
        | LedgerError::Receiving { .. }
        | LedgerError::Damaged { .. }
        | LedgerError::Replaced(_)
        | LedgerError::Pooled(_)
        | LedgerError::NetworkFile { .. }
        | LedgerError::Journal { .. }
        | LedgerError::Database { .. }
        | LedgerError::Closed => false,
    }
}
