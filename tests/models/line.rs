//! embosser's line, with nothing but what locks.

#[path = "../../src/line/job_locks.rs"]
pub(crate) mod job_locks;
#[path = "../../src/line/lease.rs"]
mod lease;
#[path = "lease_is_given_up.rs"]
pub(crate) mod lease_is_given_up;
#[path = "../../src/line/refusals.rs"]
mod refusals;
#[path = "refusals_wake.rs"]
pub(crate) mod refusals_wake;

use super::ledger::LedgerError;

/// Why a job could not go on.
#[derive(Debug)]
enum Stop {
    Closed,
    Ledger(LedgerError),
    Lease(String),
}
