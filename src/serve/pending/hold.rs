//! A batch is held: kept as it was checked, until it is approved or its start comes.

use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use super::record::name_of;
use super::release::keep;
use super::{Now, Pending, Stage, Upload, diff};
use crate::clock::{Moment, Time};
use crate::config::seconds;
use crate::intake::start::latest_with_pins;
use crate::job::{self, Fingerprint};
use crate::manifest::batch::{SecondCards, digest_of};
use crate::serve::Server;
use crate::serve::access::Caller;
use crate::serve::audit::{About, Action};
use crate::serve::batches::Registry;
use crate::serve::check::Checked;
use crate::serve::held::Held;
use crate::serve::plan::PlanView;
use crate::serve::problem::{Kind, Problem, Wrong};
use crate::serve::view::State;
use crate::webhooks;

/// Warnings that are kept of a batch that waits; a check tells them all.
const WARNINGS_MAX: usize = 20;

/// An upload that was checked and is not to begin at once.
pub(in crate::serve) struct Arrived {
    pub(in crate::serve) name: job::Batch,
    pub(in crate::serve) checked: Checked,
    pub(in crate::serve) held: Held,
    pub(in crate::serve) second: SecondCards,
    /// Whether rows with problems are left out.
    pub(in crate::serve) skips_invalid: bool,
    pub(in crate::serve) start: Option<Time>,
    pub(in crate::serve) by: Caller,
    /// When it began to come: its PINs are as old as that at least.
    pub(in crate::serve) received: Moment,
}

impl Arrived {
    /// What an approval of it names.
    fn digest(&self) -> String {
        let start = self.start.map(Time::unix_ms);
        let content = digest_of(&self.checked.report);
        let reading = &self.held.reading;
        let whole = Zeroizing::new(format!(
            "{} {content:?} {reading:?} {:?} {:?} {} {start:?}",
            self.checked.file,
            self.second,
            self.checked.recognition.again(),
            self.skips_invalid
        ));
        Fingerprint(Sha256::digest(whole.as_bytes()).into()).to_hex()
    }

    /// Whether its PINs are young enough when it starts.
    fn pins_last(&self, pin_seconds_max: f64) -> Result<(), Problem> {
        let (pins, Some(start)) = (self.checked.report.pins, self.start) else { return Ok(()) };
        let latest = latest_with_pins(self.received.wall, pin_seconds_max);
        if pins == 0 || start <= latest {
            return Ok(());
        }
        let minutes = pin_seconds_max / 60.0;
        Err(Problem::new(
            Kind::PinsTooOld,
            format!(
                "{pins} of these rows have PINs, which may wait for {minutes:.0} minutes (pin.max_age_seconds): it must start by {}; \
                 nothing was kept. Upload it with an earlier start, or later",
                latest.in_utc()
            ),
        ))
    }
}

impl Registry {
    /// Holds a batch that was checked; the same again is held once.
    pub(in crate::serve) async fn hold(&self, server: &Server, arrived: Arrived) -> Result<(), Problem> {
        arrived.pins_last(server.parts.pin.max_age_seconds)?;
        let digest = arrived.digest();
        let Arrived { name, checked, held, second, skips_invalid, start, by, received } = arrived;
        let (held, diff) = compared(server, &name, held).await?;
        let _alone = self.beginning().await;
        if let Some(running) = self.get(name.as_str()).filter(|running| running.is_under_way()) {
            return running.is_same(&checked);
        }
        let earlier = self.pending(name.as_str()).filter(|earlier| earlier.waits());
        if earlier.as_ref().is_some_and(|earlier| earlier.upload.digest == digest) {
            return Ok(());
        }
        self.has_room()?;
        let upload = Upload {
            digest,
            file: checked.file.clone(),
            submitter: by.name().to_owned(),
            second,
            again: checked.recognition.again(),
            skips_invalid,
            changes: checked.words(second),
            start,
        };
        let required = server.parts.approval.required;
        let about = About {
            rows: Some(checked.rows()),
            digest: Some(upload.file.clone()),
            detail: upload.words(),
            ..About::batch(name.as_str())
        };
        server.record(&by, if required { Action::BatchHeld } else { Action::BatchScheduled }, about).await?;
        let stage = match required {
            true => Stage::AwaitingApproval,
            false => Stage::Scheduled { approved_by: None },
        };
        let state = match required {
            true => webhooks::State::AwaitingApproval,
            false => webhooks::State::Scheduled,
        };
        let run = server.tell_checked(&name, &checked, state).await?;
        let pending = Arc::new(Pending {
            rows: checked.rows(),
            pins: checked.report.pins,
            plan: PlanView {
                rows: checked.rows(),
                ..PlanView::of(&checked.report, &checked.recognition, server.pace_per_second(), WARNINGS_MAX)
            },
            diff,
            left_out: checked.unusable,
            warnings: checked.report.warnings.iter().cloned().map(Wrong::from).collect(),
            received,
            approval_max: std::time::Duration::from_secs_f64(server.parts.approval.hours * 3600.0),
            start_max: (checked.report.pins > 0).then(|| seconds(server.parts.pin.max_age_seconds)),
            now: Now { stage, held: Some(held), latest: received.wall }.into(),
            run: Mutex::new(run),
            deciding: tokio::sync::Mutex::default(),
            changed: tokio::sync::watch::Sender::new(0),
            name,
            upload,
        });
        if let Err(problem) = pending.remember(server).await {
            server.tell_did_not_begin(pending.take_run(), pending.rows, problem.detail()).await;
            return Err(problem);
        }
        if let Some(earlier) = earlier {
            earlier.ended(State::Cancelled, "another file took its place".to_owned(), received.wall);
        }
        tracing::info!(batch = %pending.name, rows = pending.rows, by = by.name(), "a batch is held");
        self.wait(pending.clone());
        server.tasks.spawn(keep(server.clone(), pending));
        Ok(())
    }
}

impl Upload {
    /// How it is to be issued, where that is not as usual.
    pub(in crate::serve) fn words(&self) -> Option<String> {
        let start = self.start.map(|start| format!("starts at {}", start.in_utc()));
        let words: Vec<_> = start.into_iter().chain(self.changes.iter().cloned()).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

impl Pending {
    /// Writes down how it stands, in the ledger.
    pub(super) async fn remember(&self, server: &Server) -> Result<(), Problem> {
        let name = name_of(server.scope(), self.name.as_str());
        Ok(server.parts.views.set_metadata(name, self.record().text()).await?)
    }
}

async fn compared(
    server: &Server,
    name: &job::Batch,
    held: Held,
) -> Result<(Held, Option<diff::DiffView>), Problem> {
    let (ledger, scope, name) = (server.parts.views.clone(), server.scope().clone(), name.clone());
    let (share, runtime) = (server.parts.capacity.budget.share(), Handle::current());
    let comparing = tokio::task::spawn_blocking(move || {
        let diff = diff::of(&held, (&ledger, &scope, &name), share, &runtime);
        (held, diff)
    });
    let (held, diff) = comparing.await.map_err(|error| {
        tracing::error!(%error, "a comparison failed");
        Problem::new(Kind::Internal, "the comparison with the batch before failed; nothing was kept")
    })?;
    Ok((held, diff.map_err(|stopped| server.problem_of(stopped))?))
}
