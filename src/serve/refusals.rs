//! Why rows of a batch were refused, reason by reason, and what it takes that they are not refused again.

use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::problem::Problem;
use crate::job::Batch;
use crate::ledger::{Kind, Only};
use crate::outcome::Outcome;

/// Reasons that are told apart; a batch has few.
const REASONS_MAX: usize = 50;
/// Refused for what was so at that time, and not for what the row asks for.
const PASSING: [&str; 13] = [
    "api_key_rejected",
    "cancelled",
    "cut_off",
    "held_up",
    "interrupted",
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
pub(super) enum Takes {
    /// Nothing: the same file again.
    Nothing,
    /// A PIN that is encrypted anew.
    NewPin,
    /// The row must be mended, or what it names at Stripe.
    Mending,
}

/// Rows that were refused for one reason.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RefusedView {
    /// The reason's code.
    code: String,
    /// How many rows.
    rows: u64,
    /// What the first of them was told.
    message: String,
    /// What it takes that they are not refused again.
    takes: Takes,
}

/// Why rows were refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RefusalsView {
    /// The reasons: first those that take the least, then those of the most rows.
    reasons: Vec<RefusedView>,
}

impl RefusalsView {
    /// Those of a batch.
    pub(super) async fn of(server: &Server, batch: &Batch) -> Result<Self, Problem> {
        let mut reasons: Vec<RefusedView> = Vec::new();
        let mut pages = server.parts.views.pages(server.scope(), batch, Only::of(Kind::Refused));
        while let Some(rows) = pages.next().await? {
            for row in rows {
                let Outcome::Refused(refusal) = row.ended().outcome else { continue };
                match reasons.iter().position(|reason| reason.code == refusal.code) {
                    Some(at) => reasons[at].rows += 1,
                    None if reasons.len() == REASONS_MAX => {}
                    None => {
                        let (code, message) = (refusal.code.into_owned(), refusal.message);
                        let takes = takes(&code);
                        reasons.push(RefusedView { code, rows: 1, message, takes });
                    }
                }
            }
        }
        reasons.sort_by_key(|reason| (reason.takes, std::cmp::Reverse(reason.rows)));
        Ok(Self { reasons })
    }
}

fn takes(code: &str) -> Takes {
    match code {
        code if PASSING.contains(&code) => Takes::Nothing,
        code if OF_PINS.contains(&code) => Takes::NewPin,
        _ => Takes::Mending,
    }
}
