//! What it takes that a row which was refused is not refused again, and which of those rows are tried again.
//!
//! Decided by the refusal's code alone, so that whoever shows a batch and whoever carries it say the same.

use serde::Serialize;
use utoipa::ToSchema;

use crate::outcome::Refusal;

/// Refused for what was so at that time, and not for what the row asks for: also where the account has no money, or Stripe has paused it.
const PASSING: [&str; 18] = [
    "account_closed",
    "account_invalid",
    "api_key_rejected",
    "balance_insufficient",
    "cancelled",
    "cut_off",
    "held_up",
    "insufficient_funds",
    "interrupted",
    "lock_timeout",
    "no_answer",
    "no_pin_page",
    "other_process",
    "pin_key_unavailable",
    "rate_limited",
    "still_running",
    "stripe_error",
    "stripe_unreachable",
];
/// Refused for a PIN that was too old, or encrypted under a key that is no more.
const OF_PINS: [&str; 2] = ["expired", "stale_key"];

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// Nothing: the same file again.
    Nothing,
    /// A PIN that is encrypted anew.
    NewPin,
    /// The row must be mended, or what it names at Stripe.
    Mending,
}

impl Takes {
    /// What it takes after a refusal with this code.
    #[must_use]
    pub fn after(code: &str) -> Self {
        match code {
            code if PASSING.contains(&code) => Self::Nothing,
            code if OF_PINS.contains(&code) => Self::NewPin,
            _ => Self::Mending,
        }
    }
}

/// Which rows that were refused are tried again when their file comes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TryAgain {
    /// All of them: the file may have been mended.
    #[default]
    All,
    /// Only those for which it takes nothing: the others stay refused, and are not called for.
    Unchanged,
}

impl TryAgain {
    /// Whether a row that was refused so stays refused.
    #[must_use]
    pub fn leaves(self, refusal: &Refusal) -> bool {
        self == Self::Unchanged && Takes::after(&refusal.code) != Takes::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_passed_is_tried_again_as_it_is() {
        for (code, left) in [
            ("stripe_error", false),
            ("insufficient_funds", false),
            ("stale_key", true),
            ("resource_missing", true),
        ] {
            let refusal = Refusal::own(code, "no");
            assert_eq!(TryAgain::Unchanged.leaves(&refusal), left, "{code}");
            assert!(!TryAgain::All.leaves(&refusal), "{code}");
        }
    }
}
