//! What becomes of a batch that waits: it is approved, rejected, called off, started, or has waited for too long.
//!
//! Nothing that was known when it was checked is known after the wait. What begins is a [`Looked`], which only
//! [`look_again`] makes: its rows were checked anew and looked up in the ledger anew, and what other batches began since then is
//! held against them, as of an upload that has just come.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::record::Record;
use super::{Due, Pending, Stage};
use crate::manifest::batch::issued_as;
use crate::manifest::recognise::Recogniser;
use crate::serve::Server;
use crate::serve::access::Caller;
use crate::serve::audit::{About, Action};
use crate::serve::batches::{Arrival, Beginning, Begun};
use crate::serve::check::{self, Checked};
use crate::serve::held::Held;
use crate::serve::problem::{Kind, Problem};
use crate::serve::view::State;

/// Between two looks at a batch that waits: the machine may have slept, and its clock been set.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two tries to start one that cannot be started yet: the ledger fails, or memory is full.
const TRY_EVERY: Duration = Duration::from_secs(10);
/// Least wait between two.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(10);

/// Rows that were looked at again.
#[must_use]
struct Looked<'r> {
    checked: Checked,
    held: Held,
    arrival: Arrival<'r>,
}

/// Approves a batch: it begins, or waits for its start.
pub(in crate::serve) async fn approve(
    server: &Server,
    caller: Caller,
    name: &str,
    digest: String,
) -> Result<(), Problem> {
    let pending = &waiting(server, name).await?;
    let _one = pending.deciding.lock().await;
    // It may have been a long wait, while others decided.
    server.allow_again(&caller)?;
    server.ready()?;
    let who = caller.name();
    if pending.upload.submitter == who {
        let detail = format!("{who} uploaded this batch; somebody else must approve it");
        return Err(Problem::new(Kind::OwnApproval, detail));
    }
    if pending.upload.digest != digest {
        let detail = "the file was replaced, or is to be issued otherwise, since you looked at it: look at it again, and approve \
                      it with the digest that it has now";
        return Err(Problem::new(Kind::Conflict, detail));
    }
    match pending.stage() {
        // An answer may have been lost: it is done, and done once.
        Stage::Scheduled { approved_by: Some(by) } | Stage::Begun { approved_by: Some(by) } if by == who => {
            return Ok(());
        }
        _ => pending.can_be_decided()?,
    }
    if let Due::TooLate(reason) = pending.due(server.clock().moment()) {
        expire(server, pending, reason.clone()).await;
        return Err(Problem::new(Kind::Conflict, format!("it waits no more: {reason}")));
    }
    let now = server.clock().now();
    let Some(start) = pending.upload.start.filter(|start| *start > now) else {
        return begin(server, pending, (&caller, Action::BatchApproved), Some(who.to_owned())).await;
    };
    // What would keep it from beginning is told to whoever approves it, not at night.
    let Looked { checked, held, .. } = look_again(server, pending).await?;
    pending.put_back(held);
    let detail = Some(format!("starts at {}", start.in_utc()));
    server.record(&caller, Action::BatchApproved, About { detail, ..about(pending, &checked) }).await?;
    if !pending.approved(who, now) {
        return Err(Problem::new(
            Kind::Conflict,
            "it waits no more: another file took its place; look at that one",
        ));
    }
    pending.remember(server).await
}

/// Rejects a batch: its rows are wiped.
pub(in crate::serve) async fn reject(
    server: &Server,
    caller: Caller,
    name: &str,
    reason: String,
) -> Result<(), Problem> {
    let said = format!("{} rejected it: {reason}", caller.name());
    end(server, caller, name, (Action::BatchRejected, State::Rejected), (said, Some(reason))).await
}

/// Calls a batch off that has not begun: its rows are wiped.
pub(in crate::serve) async fn cancel(server: &Server, caller: Caller, name: &str) -> Result<(), Problem> {
    let said = format!("{} cancelled it before it began", caller.name());
    end(server, caller, name, (Action::BatchCancelled, State::Cancelled), (said, None)).await
}

async fn end(
    server: &Server,
    caller: Caller,
    name: &str,
    (action, state): (Action, State),
    (said, detail): (String, Option<String>),
) -> Result<(), Problem> {
    let pending = waiting(server, name).await?;
    let _one = pending.deciding.lock().await;
    server.allow_again(&caller)?;
    if !pending.waits() {
        pending.can_be_decided()?;
    }
    let digest = Some(pending.upload.file.clone());
    let about = About { rows: Some(pending.rows), digest, detail, ..About::batch(pending.name.as_str()) };
    server.record(&caller, action, about).await?;
    tracing::info!(batch = %pending.name, by = caller.name(), ?state, "a batch that waited was ended");
    pending.ended(state, said, server.clock().now());
    pending.remember(server).await
}

/// The batch of this name that waits, or waited in this process.
async fn waiting(server: &Server, name: &str) -> Result<Arc<Pending>, Problem> {
    if let Some(pending) = server.batches.pending(name) {
        return Ok(pending);
    }
    // One that is not known is told so.
    server.batches.view(server, name).await?;
    let lost = Record::of(server, name).await?.and_then(|record| record.without_its_rows().reason);
    let detail = match lost {
        Some(reason) => format!("no batch of this name waits: {reason}"),
        None => "no batch of this name waits for anything".to_owned(),
    };
    Err(Problem::new(Kind::Conflict, detail))
}

/// Looks at its rows again: nothing is known of them any more.
async fn look_again<'s>(server: &'s Server, pending: &Arc<Pending>) -> Result<Looked<'s>, Problem> {
    let arrival = server.batches.arrival();
    let Some(held) = pending.now().held.take() else {
        return Err(Problem::new(Kind::Conflict, "its rows are not held any more; upload the file again"));
    };
    let (name, second) = (pending.name.clone(), pending.upload.second);
    let (ledger, scope) = (server.parts.views.clone(), server.scope().clone());
    let recogniser =
        Recogniser::new(ledger, scope, name.clone(), second, Handle::current()).trying(pending.upload.again);
    let (budget, rows_max, file) =
        (server.parts.capacity.budget.clone(), server.limits.rows_max, pending.upload.file.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let checked = check::again(&held, &name, recogniser, &budget, (rows_max, file));
        (held, checked)
    });
    let Ok((held, checked)) = looking.await else {
        let reason = "its rows were lost by a bug, which has been logged: nothing of it was issued. Upload the file again";
        pending.ended(State::Interrupted, reason.to_owned(), server.clock().now());
        return Err(Problem::new(Kind::Internal, reason));
    };
    let refused = match checked {
        Err(stopped) => server.problem_of(stopped),
        Ok(checked) if !checked.can_be_issued(pending.upload.skips_invalid) => {
            Problem::of_report(checked.report)
        }
        Ok(checked) => match checked.recognition.is_wholly(&pending.name) {
            None => return Ok(Looked { checked, held, arrival }),
            Some(other) => {
                let detail = issued_as(&pending.name, other);
                Problem::new(Kind::IssuedBefore, format!("{detail}. Reject it"))
            }
        },
    };
    pending.put_back(held);
    Err(refused)
}

/// It begins.
async fn begin(
    server: &Server,
    pending: &Arc<Pending>,
    (by, action): (&Caller, Action),
    approved_by: Option<String>,
) -> Result<(), Problem> {
    let Looked { checked, held, arrival } = look_again(server, pending).await?;
    let beginning = Beginning {
        name: pending.name.clone(),
        second: pending.upload.second,
        by,
        action,
        released: Some((pending, approved_by)),
    };
    match server.batches.begin(server, beginning, &checked, &arrival).await {
        Ok((batch, Begun::Now)) => server.go(batch, held, checked.recognition),
        // The same file is under way under this name: what waited is that.
        Ok((_, Begun::Before)) => pending.begun(None, server.clock().now()),
        Err(problem) => {
            pending.put_back(held);
            return Err(problem);
        }
    }
    Ok(())
}

fn about(pending: &Pending, checked: &Checked) -> About {
    let digest = Some(checked.file.clone());
    About { rows: Some(checked.rows()), digest, ..About::batch(pending.name.as_str()) }
}

impl Pending {
    /// Its rows are held on, unless it ended meanwhile: then they are wiped.
    fn put_back(&self, held: Held) {
        let mut now = self.now();
        if matches!(now.stage, Stage::AwaitingApproval | Stage::Scheduled { .. }) {
            now.held = Some(held);
        }
    }
}

/// It has waited for too long: its rows are wiped.
async fn expire(server: &Server, pending: &Pending, reason: String) {
    let said = format!("{reason}; nothing of it was issued. Upload the file again");
    pending.ended(State::Expired, said, server.clock().now());
    tracing::warn!(batch = %pending.name, reason, "a batch that waited is dropped");
    let about =
        About { rows: Some(pending.rows), detail: Some(reason), ..About::batch(pending.name.as_str()) };
    let recorded = server.record(&Caller::THIS_SERVER, Action::BatchExpired, about).await;
    if recorded.is_err() || pending.remember(server).await.is_err() {
        tracing::error!(batch = %pending.name, "that a batch was dropped could not be written down");
    }
}

/// Sees to a batch as long as it waits: to its start, and to its end if nobody decides about it.
pub(super) async fn keep(server: Server, pending: Arc<Pending>) {
    while_it_waits(&server, &pending).await;
    server.tell_waits_no_more(&pending).await;
}

async fn while_it_waits(server: &Server, pending: &Arc<Pending>) {
    let mut changed = pending.watch();
    loop {
        changed.borrow_and_update();
        let wait = match pending.due(server.clock().moment()) {
            Due::Nothing => return,
            Due::Wait(left) => left.clamp(LOOK_AFTER_MIN, LOOK_EVERY),
            Due::Start | Due::TooLate(_) => {
                see_to(server, pending).await;
                TRY_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = changed.changed() => {}
            () = server.stopping.cancelled() => return,
        }
    }
}

async fn see_to(server: &Server, pending: &Arc<Pending>) {
    let _one = pending.deciding.lock().await;
    // Somebody may have decided about it meanwhile.
    match pending.due(server.clock().moment()) {
        Due::Wait(_) | Due::Nothing => {}
        Due::TooLate(reason) => expire(server, pending, reason).await,
        Due::Start => {
            let by = (&Caller::THIS_SERVER, Action::BatchBegun);
            let Stage::Scheduled { approved_by } = pending.stage() else { return };
            let started = match server.ready() {
                Ok(()) => begin(server, pending, by, approved_by).await,
                Err(problem) => Err(problem),
            };
            match started {
                Ok(()) => {}
                Err(problem) if problem.may_pass() => {
                    tracing::warn!(batch = %pending.name, reason = problem.detail(), "a batch cannot start yet");
                }
                Err(problem) => {
                    let reason = format!("it could not start: {}", problem.detail());
                    tracing::error!(batch = %pending.name, reason, "a batch that waited is dropped");
                    pending.ended(State::Interrupted, reason, server.clock().now());
                    if pending.remember(server).await.is_err() {
                        tracing::error!(batch = %pending.name, "that a batch was dropped could not be written down");
                    }
                }
            }
        }
    }
}
