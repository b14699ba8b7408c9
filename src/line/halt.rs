//! Why the line stopped by itself.

use crate::ledger::LedgerError;

/// Why the whole line stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Stripe does not accept the key.
    #[error("Stripe refuses the API key: {0}")]
    Key(String),
    /// Outcomes can no longer be recorded.
    #[error("{reason}")]
    Ledger {
        /// Why.
        reason: String,
        /// Whether it may serve another time; else somebody must look.
        may_pass: bool,
    },
    /// Stripe refuses every card alike.
    #[error("Stripe refuses every card alike, so no further row was tried: {0}")]
    SameRefusals(String),
    /// Stripe never answered at all.
    #[error("{0}")]
    Unreachable(String),
}

impl From<&LedgerError> for Halt {
    fn from(error: &LedgerError) -> Self {
        Self::Ledger { reason: error.to_string(), may_pass: error.may_pass() }
    }
}
