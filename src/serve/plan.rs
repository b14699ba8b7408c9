//! What the rows of an upload would do, as its check found.

use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Wrong;
use super::view::eta;
use crate::manifest::CheckReport;

/// What a check found, where nothing is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct PlanView {
    /// Data rows.
    pub(super) rows: u64,
    /// Those with a PIN.
    pub(super) pins: u64,
    /// Physical cards.
    pub(super) physical: u64,
    /// Virtual cards.
    pub(super) r#virtual: u64,
    /// Changes of cards.
    pub(super) changes: u64,
    /// Those of them that cancel the card.
    pub(super) cancels: u64,
    /// Cardholders to be created, alone or before their cards.
    pub(super) cardholders: u64,
    /// Rows that were issued before under another name, if this upload has a name: they would keep those cards.
    pub(super) known_before: u64,
    /// Seconds that issuing them will take.
    pub(super) eta_seconds: f64,
    /// What whoever sends these rows should know, in sentences: that a replacement inherits no PIN, for instance.
    pub(super) notes: Vec<String>,
    /// Things that may be wrong with rows.
    pub(super) warning_count: u64,
    /// The first of them.
    pub(super) warnings: Vec<Wrong>,
}

impl PlanView {
    /// Of a report, with its first `warnings_max` warnings.
    pub(super) fn of(
        report: &CheckReport,
        known_before: u64,
        pace_per_second: f64,
        warnings_max: usize,
    ) -> Self {
        let warnings = report.warnings.iter().take(warnings_max).cloned();
        Self {
            rows: report.rows,
            pins: report.pins,
            physical: report.physical,
            r#virtual: report.r#virtual,
            changes: report.changes,
            cancels: report.cancels,
            cardholders: report.cardholders,
            known_before,
            eta_seconds: eta(report.calls().saturating_sub(known_before), 0.0, pace_per_second),
            notes: report.notes(),
            warning_count: report.warning_count,
            warnings: warnings.map(Wrong::from).collect(),
        }
    }
}
