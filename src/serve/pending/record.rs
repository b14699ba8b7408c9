//! What the ledger remembers of a batch that waits: how many rows it has and how it stands, so that a server that was stopped
//! can say what it lost. Never: anything of its rows.

use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::job::Batch;
use crate::ledger::{Ledger, LedgerError, Scope};
use crate::serve::problem::Problem;
use crate::serve::view::{BatchView, State};
use crate::serve::{Server, pending::HeldView};

/// Records that are read at once.
const PAGE: u32 = 1000;

/// A batch that waits, or that never began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::serve) struct Record {
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) rows: u64,
    pub(super) pins: u64,
    pub(super) received_ms: i64,
    pub(super) latest_ms: i64,
}

/// Under which name of the ledger's metadata a batch's record stands.
pub(super) fn name_of(scope: &Scope, batch: &str) -> String {
    format!("held:{}|{batch}", scope.as_str())
}

impl Record {
    /// As it stands in the ledger.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts always serialise")
    }

    /// That of a batch, if there is one.
    pub(in crate::serve) async fn of(server: &Server, batch: &str) -> Result<Option<Self>, Problem> {
        if Batch::new(batch).is_err() {
            return Ok(None);
        }
        let text = server.parts.views.metadata(&name_of(server.scope(), batch)).await?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Says that a batch is about to begin, if the ledger says that it waits: from here on nobody may say that nothing of it was
    /// issued.
    pub(in crate::serve) async fn begins(server: &Server, batch: &Batch) -> Result<(), LedgerError> {
        let (ledger, name) = (&server.parts.views, name_of(server.scope(), batch.as_str()));
        let record = ledger.metadata(&name).await?;
        if let Some(record) = record.and_then(|text| serde_json::from_str::<Self>(&text).ok()) {
            let begins = Self { state: State::Running, reason: None, ..record };
            ledger.set_metadata(name, begins.text()).await?;
        }
        Ok(())
    }

    /// Takes that of a batch that began at that time out of the ledger, whoever wrote it. What came later waits.
    pub(in crate::serve) async fn forget(
        server: &Server,
        batch: &Batch,
        began: Time,
    ) -> Result<(), LedgerError> {
        let (ledger, name) = (&server.parts.views, name_of(server.scope(), batch.as_str()));
        let Some(text) = ledger.metadata(&name).await? else { return Ok(()) };
        let record: Option<Self> = serde_json::from_str(&text).ok();
        if record.is_none_or(|record| record.received_ms <= began.unix_ms()) {
            // One that was changed meanwhile is of an upload that came since.
            let _ = ledger.swap_metadata(name, Some(text), None).await?;
        }
        Ok(())
    }

    /// All of them, by their batches.
    pub(in crate::serve) async fn all(
        ledger: &Ledger,
        scope: &Scope,
    ) -> Result<Vec<(String, Self)>, LedgerError> {
        let prefix = name_of(scope, "");
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = ledger.metadata_page(&prefix, &after, PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(all) };
            after.clone_from(last);
            all.extend(page.into_iter().filter_map(|(name, text)| {
                Some((name.strip_prefix(&prefix)?.to_owned(), serde_json::from_str(&text).ok()?))
            }));
        }
    }

    /// The same where this process does not hold its rows.
    pub(in crate::serve) fn without_its_rows(self) -> Self {
        let lost = |waited_for: &str| {
            format!(
                "it waited for {waited_for}, and the server that held its rows was stopped or is another one than this: nothing of it \
                 was issued. Upload the file again"
            )
        };
        let reason = match self.state {
            State::AwaitingApproval => lost("its approval"),
            State::Scheduled => lost("its start"),
            State::Running => "the server was stopped in the moment in which it began. Upload the file again: rows that have their card \
                               get no second one"
                .to_owned(),
            _ => return self,
        };
        Self { state: State::Interrupted, reason: Some(reason), ..self }
    }

    /// As clients see it; `issued` is what they see of the batch of this name that was issued before.
    pub(in crate::serve) fn view(
        self,
        batch: &str,
        held: Option<HeldView>,
        issued: Option<BatchView>,
        (pace_per_second, now): (f64, Time),
    ) -> BatchView {
        let received = Time::from_unix_ms(self.received_ms);
        let waits = matches!(self.state, State::AwaitingApproval | State::Scheduled);
        let view = match issued {
            // What waits is this upload, whatever was issued before it.
            Some(issued) if !waits => issued,
            _ => BatchView {
                rows: Some(self.rows),
                pins: Some(self.pins),
                waiting: if waits { self.rows } else { 0 },
                oldest_pin_age_seconds: (waits && self.pins > 0).then(|| now.since(received).as_secs_f64()),
                began_ms: Some(self.received_ms),
                ..BatchView::nothing(batch, self.state, pace_per_second)
            },
        };
        BatchView {
            state: self.state,
            reason: self.reason,
            latest_ms: view.latest_ms.max(Some(self.latest_ms)),
            held: held.map(Box::new),
            ..view
        }
    }
}
