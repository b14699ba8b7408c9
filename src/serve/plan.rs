//! What the rows of an upload would do, as its check found.

use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Wrong;
use super::view::eta;
use crate::manifest::CheckReport;
use crate::manifest::recognise::Recognition;
use crate::manifest::work::Work;

/// What a check found, where nothing is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct PlanView {
    /// Of a check: the SHA-256 of the file as it came, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file_sha256: Option<String>,
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
    /// Rows that have their card in the batch of this name already, if this upload has one: nothing is called for them.
    pub(super) done_before: u64,
    /// Rows that were refused in it and are not tried again, if only those are that need no change: nothing is called for them.
    pub(super) stay_refused: u64,
    /// Rows that have their card there, or whose call was begun, and ask for something else now: that is not applied.
    pub(super) changed_since: u64,
    /// The first of them.
    pub(super) first_changed: Vec<String>,
    /// What is left to be done of all this: without rows that are done, stay refused or were issued under another name.
    pub(super) to_do: Work,
    /// What would be done beside that if second cards were wanted: that of the rows that were issued under another name.
    pub(super) second_cards: Work,
    /// The batch that every row was issued in, where they all were in one and under other ids. If that is another batch than
    /// this, an upload is refused unless second cards are wanted.
    pub(super) issued_as: Option<String>,
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
    /// Of a report and what the ledger knows of its rows, with its first `warnings_max` warnings.
    pub(super) fn of(
        report: &CheckReport,
        recognition: &Recognition,
        pace_per_second: f64,
        warnings_max: usize,
    ) -> Self {
        let (known_before, done_before) = (recognition.len() as u64, recognition.rows_done());
        let (stay_refused, changed) = (recognition.rows_that_stay_refused(), recognition.changed());
        let warnings = report.warnings.iter().take(warnings_max).cloned();
        let (to_do, second_cards) = recognition.left_of(report);
        Self {
            file_sha256: None,
            rows: report.rows,
            pins: report.pins,
            physical: report.physical,
            r#virtual: report.r#virtual,
            changes: report.changes,
            cancels: report.cancels,
            cardholders: report.cardholders,
            known_before,
            done_before,
            stay_refused,
            changed_since: changed.rows,
            first_changed: changed.first.clone(),
            to_do,
            second_cards,
            issued_as: recognition.issued_as().map(ToString::to_string),
            eta_seconds: eta(
                report.calls().saturating_sub(known_before + done_before + stay_refused),
                0.0,
                pace_per_second,
            ),
            notes: report.notes(),
            warning_count: report.warning_count,
            warnings: warnings.map(Wrong::from).collect(),
        }
    }
}
