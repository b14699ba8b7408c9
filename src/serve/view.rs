//! A batch as clients see it, wherever its counts come from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::history::History;
use super::pending::HeldView;
use crate::clock::Time;
use crate::ledger::BatchCounts;

/// How a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// It was checked, and is issued once somebody else has approved it.
    AwaitingApproval,
    /// It was checked, and is issued from its start on.
    Scheduled,
    /// Its rows are being issued.
    Running,
    /// No further row begins until it is resumed.
    Paused,
    /// What has begun ends; the rest is being refused.
    Cancelling,
    /// It was cancelled, and every row has ended.
    Cancelled,
    /// Every row has ended.
    Finished,
    /// It was cut off, or some rows' end is not known. Upload the same file again to finish it.
    Interrupted,
    /// Somebody rejected it: nothing of the upload was issued.
    Rejected,
    /// It waited for too long for its approval or start: nothing of the upload was issued. Upload the file again.
    Expired,
    /// Jobs that were sent one by one, or through a queue: more may be on their way.
    Open,
}

impl State {
    /// Whether a batch that is not under way may change by itself all the same.
    pub(super) fn may_go_on(self) -> bool {
        matches!(self, Self::AwaitingApproval | Self::Scheduled | Self::Open)
    }
}

/// A batch as clients see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct BatchView {
    /// Its name.
    pub(super) batch: String,
    /// How it stands.
    pub(super) state: State,
    /// Why it was interrupted, rejected or dropped, if this server knows.
    pub(super) reason: Option<String>,
    /// Rows of its manifests, each counted once; null for jobs that were sent one by one.
    pub(super) rows: Option<u64>,
    /// Rows with a PIN; null if this server did not receive it.
    pub(super) pins: Option<u64>,
    /// Rows with a card.
    pub(super) issued: u64,
    /// Cards of it that the batch which undoes it, `BATCH.cancel`, has cancelled since. They count as issued, too.
    pub(super) cancelled_cards: u64,
    /// Rows without one.
    pub(super) refused: u64,
    /// Those of them that somebody cancelled before they had begun: neither Stripe nor embosser refused them.
    pub(super) cancelled_rows: u64,
    /// Rows whose end is not known yet.
    pub(super) unresolved: u64,
    /// Rows whose cardholders have not chosen their PINs yet.
    pub(super) awaiting_pin: u64,
    /// Rows that have not ended.
    pub(super) waiting: u64,
    /// Rows that an earlier run had ended already.
    pub(super) recorded_before: u64,
    /// Rows of this upload that were issued before under another name: they keep those cards and get no second ones; null
    /// if this server did not receive it.
    pub(super) known_before: Option<u64>,
    /// Rows with a note: what is different from what was asked for, such as a change of a card that exists.
    pub(super) noted: u64,
    /// Calls beyond each row's first.
    pub(super) retried: u64,
    /// Rows that ended a second, of late.
    pub(super) rate_per_second: f64,
    /// Calls a second that Stripe's limits allow at present.
    pub(super) pace_per_second: f64,
    /// Seconds until it is finished, at the present rate; null if it is not proceeding.
    pub(super) eta_seconds: Option<f64>,
    /// Age of the oldest PIN that waits for its call, in seconds; null if none waits.
    pub(super) oldest_pin_age_seconds: Option<f64>,
    /// When it began, in milliseconds since 1970; null if this server did not receive it.
    pub(super) began_ms: Option<i64>,
    /// When it was last heard of, in milliseconds since 1970.
    pub(super) latest_ms: Option<i64>,
    /// How it went over time; null if this server did not receive it.
    pub(super) history: Option<History>,
    /// What an upload took the place of, in words, in the answer to it alone: the same batch that waited for its start, for
    /// instance, and begins now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replaced: Option<String>,
    /// What waits for its approval or start; null if nothing does, and in a list.
    pub(super) held: Option<Box<HeldView>>,
}

/// Seconds for so many rows: at the rate they go at, or at the pace while none has ended yet.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(super) fn eta(rows: u64, rate_per_second: f64, pace_per_second: f64) -> f64 {
    /// A rate below this tells nothing.
    const RATE_MIN: f64 = 0.01;
    rows as f64 / if rate_per_second > RATE_MIN { rate_per_second } else { pace_per_second.max(RATE_MIN) }
}

/// A batch of the ledger's.
pub(super) fn view_of(counts: BatchCounts, pace_per_second: f64) -> BatchView {
    let rows = counts.rows_at_least();
    let BatchCounts {
        batch,
        issued,
        refused,
        cancelled,
        unresolved,
        awaiting_pin,
        noted,
        latest,
        is_manifests,
        ..
    } = counts;
    let state = match rows {
        None => State::Open,
        Some(rows) if issued + refused + awaiting_pin >= rows => State::Finished,
        Some(_) if !is_manifests => State::Open,
        Some(_) => State::Interrupted,
    };
    BatchView {
        rows,
        issued,
        refused,
        cancelled_rows: cancelled,
        unresolved,
        awaiting_pin,
        waiting: rows.unwrap_or(0).saturating_sub(issued + refused + unresolved + awaiting_pin),
        noted,
        latest_ms: latest.map(Time::unix_ms),
        ..BatchView::nothing(&batch, state, pace_per_second)
    }
}

impl BatchView {
    /// A batch of which no more than this is known.
    pub(super) fn nothing(batch: &str, state: State, pace_per_second: f64) -> Self {
        Self {
            batch: batch.to_owned(),
            state,
            reason: None,
            rows: None,
            pins: None,
            issued: 0,
            cancelled_cards: 0,
            refused: 0,
            cancelled_rows: 0,
            unresolved: 0,
            awaiting_pin: 0,
            waiting: 0,
            recorded_before: 0,
            known_before: None,
            noted: 0,
            retried: 0,
            rate_per_second: 0.0,
            pace_per_second,
            eta_seconds: None,
            oldest_pin_age_seconds: None,
            began_ms: None,
            latest_ms: None,
            history: None,
            replaced: None,
            held: None,
        }
    }
}
