//! What webhooks are told of this server's batches: that one was checked, and how it ended, whether it began or not.

use std::sync::Arc;

use super::Server;
use super::batch::Batch;
use super::check::Checked;
use super::pending::{Pending, Stage};
use super::view::{BatchView, State};
use crate::job;
use crate::ledger::LedgerError;
use crate::manifest::batch::digest_of;
use crate::webhooks::{self, About, Carrier, Counts, End, Run};

impl Server {
    /// A file was checked and is about to begin, or waits; once this returns, nothing of that is lost.
    ///
    /// # Errors
    /// If it could not be written down; then it must not begin, or wait.
    pub(super) async fn tell_checked(
        &self,
        name: &job::Batch,
        checked: &Checked,
        state: webhooks::State,
    ) -> Result<Option<Run>, LedgerError> {
        let about = About {
            batch: name.to_string(),
            digest: digest_of(&checked.report),
            rows: checked.rows(),
            pins: checked.report.pins,
        };
        self.parts.webhooks.checked(self.scope(), about, Carrier::Server, state).await
    }

    /// A batch has ended.
    pub(super) async fn tell_ended(&self, batch: &Batch) {
        let Some(run) = batch.take_run() else { return };
        let view = batch.view(self.pace_per_second(), self.clock().now());
        let end = End {
            state: state_of(view.state),
            counts: counts_of(&view),
            reason: view.reason,
            at_ms: self.clock().now().unix_ms(),
        };
        self.parts.webhooks.ended(run, end).await;
    }

    /// All of a batch's jobs are in the queue: from here on a worker takes it to its end.
    pub(super) async fn tell_queued(&self, batch: &Batch) {
        if let Some(run) = batch.run() {
            self.parts.webhooks.handed_to_worker(run).await;
        }
    }

    /// This server stops, and the worker goes on with a batch: its end is told by whoever sees it.
    pub(super) async fn leave_to_worker(&self, batch: &Batch) {
        if let Some(run) = batch.take_run() {
            self.parts.webhooks.leave(run).await;
        }
    }

    /// A batch that waited waits no more. If it has not begun, its end is told.
    pub(super) async fn tell_waits_no_more(&self, pending: &Arc<Pending>) {
        let Some(run) = pending.take_run() else { return };
        let (state, reason) = match pending.stage() {
            Stage::Ended { state, reason } => (state, reason),
            Stage::Begun { .. } => {
                (State::Cancelled, "a file of its name has begun, which takes its place".to_owned())
            }
            Stage::AwaitingApproval | Stage::Scheduled { .. } => (
                State::Interrupted,
                "the server was stopped while it waited: nothing of it was issued. Upload the file again"
                    .to_owned(),
            ),
        };
        let counts = Counts::of_rows(pending.rows());
        let end = End::stopped(state_of(state), reason, counts, self.clock().now());
        self.parts.webhooks.ended(run, end).await;
    }

    /// A batch could not begin after all.
    pub(super) async fn tell_did_not_begin(&self, run: Option<Run>, rows: u64, reason: &str) {
        let Some(run) = run else { return };
        let reason = format!("it could not begin: {reason}");
        let counts = Counts::of_rows(rows);
        let end = End::stopped(webhooks::State::Interrupted, reason, counts, self.clock().now());
        self.parts.webhooks.ended(run, end).await;
    }
}

fn state_of(state: State) -> webhooks::State {
    match state {
        State::AwaitingApproval => webhooks::State::AwaitingApproval,
        State::Scheduled => webhooks::State::Scheduled,
        State::Finished => webhooks::State::Finished,
        State::Cancelled => webhooks::State::Cancelled,
        State::Rejected => webhooks::State::Rejected,
        State::Expired => webhooks::State::Expired,
        State::Running | State::Paused | State::Cancelling | State::Interrupted | State::Open => {
            webhooks::State::Interrupted
        }
    }
}

fn counts_of(view: &BatchView) -> Counts {
    Counts {
        rows: view.rows.unwrap_or(0),
        issued: view.issued,
        refused: view.refused,
        cancelled_rows: view.cancelled_rows,
        unresolved: view.unresolved,
        awaiting_pin: view.awaiting_pin,
        waiting: view.waiting,
    }
}
