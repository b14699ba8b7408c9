//! Why rows of a batch were refused, reason by reason, and what it takes that they are not refused again.

use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::problem::Problem;
use crate::job::Batch;
use crate::ledger::{Kind, Only};
use crate::outcome::Outcome;
use crate::remedy::Takes;

/// Reasons that are told apart; a batch has few.
const REASONS_MAX: usize = 50;

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
                        let takes = Takes::after(&code);
                        reasons.push(RefusedView { code, rows: 1, message, takes });
                    }
                }
            }
        }
        reasons.sort_by_key(|reason| (reason.takes, std::cmp::Reverse(reason.rows)));
        Ok(Self { reasons })
    }
}
