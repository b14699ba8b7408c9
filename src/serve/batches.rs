//! The batches: those under way in memory, those of earlier runs from the ledger.
//!
//! Duty: to begin a batch once, whatever is uploaded twice; to say how each stands. Counts of a batch that is under
//! way are its own; of any other they are the ledger's, where a batch that was cut off shows as interrupted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Server;
use super::access::Caller;
use super::audit::{About, Action};
use super::batch::Batch;
use super::check::Checked;
use super::intake::Intake;
use super::limits::BATCHES_MAX;
use super::pending::record::Record;
use super::pending::{Pending, Stage};
use super::problem::{Kind, Problem};
use super::view::{BatchView, view_of};
use crate::clock::Time;
use crate::job;
use crate::killpoint;
use crate::ledger::{BatchCounts, BatchRow};
use crate::manifest::batch::{SecondCards, digest_of};
use crate::manifest::cancellation::UNDO;
use crate::manifest::recognise::Recognition;
use crate::outcome::Ended;
use crate::webhooks;

/// Ended batches whose history is kept; the ledger knows the others.
const ENDED_KEPT: usize = 100;

/// How old the ledger's counts may be: they are summed over all of its rows, and every open page asks for them.
const COUNTS_KEPT: Duration = Duration::from_secs(1);
/// Nor are they summed anew before so many times what that took.
const COUNTS_KEPT_TIMES: u32 = 10;

/// The ledger's counts, for a moment.
struct Counted {
    counts: Arc<Vec<BatchCounts>>,
    until: Instant,
}

/// Whether an upload began something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    Now,
    /// The same batch is under way.
    Before,
}

/// What is to begin, and by whom.
pub(super) struct Beginning<'a> {
    pub(super) name: job::Batch,
    pub(super) second: SecondCards,
    pub(super) by: &'a Caller,
    /// What the audit log has of it.
    pub(super) action: Action,
    /// The batch that waited for this, and who has approved it.
    pub(super) released: Option<(&'a Pending, Option<String>)>,
}

/// All batches of this process.
#[derive(Default)]
pub(super) struct Registry {
    batches: Mutex<HashMap<String, Arc<Batch>>>,
    /// Those that wait, and some that waited, by their names.
    pending: Mutex<HashMap<String, Arc<Pending>>>,
    /// Held while a batch begins: of two equal uploads at once the second meets the first one's batch.
    beginning: tokio::sync::Mutex<()>,
    /// When each upload that is being received came, by a number of its own.
    arriving: Mutex<HashMap<u64, Instant>>,
    /// What batches issue that the ledger did not have when one of those uploads was looked up in it.
    issuing: Mutex<Vec<(Arc<Batch>, Arc<Recognition>)>>,
    counted: tokio::sync::Mutex<Option<Counted>>,
}

impl Registry {
    fn batches(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Batch>>> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that this process received.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Batch>> {
        self.batches().get(name).cloned()
    }

    fn all_pending(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest of this name that waits, or waited in this process.
    pub(super) fn pending(&self, name: &str) -> Option<Arc<Pending>> {
        self.all_pending().get(name).cloned()
    }

    /// It waits from now on.
    pub(super) fn wait(&self, pending: Arc<Pending>) {
        let mut all = self.all_pending();
        all.insert(pending.name.to_string(), pending);
        let ended = all.values().filter(|pending| !pending.waits());
        let mut ended: Vec<_> = ended.map(|pending| (pending.received(), pending.name.to_string())).collect();
        ended.sort_unstable_by(|one, other| other.cmp(one));
        for (_, name) in ended.into_iter().skip(ENDED_KEPT) {
            all.remove(&name);
        }
    }

    /// Whoever holds this decides alone what begins and what waits.
    pub(super) async fn beginning(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.beginning.lock().await
    }

    /// How many batches are under way, and how many wait for their approval or start.
    pub(super) fn numbers(&self) -> (usize, usize) {
        let under_way = self.batches().values().filter(|batch| batch.is_under_way()).count();
        (under_way, self.all_pending().values().filter(|pending| pending.waits()).count())
    }

    /// Whether one more batch may begin, or wait.
    pub(super) fn has_room(&self) -> Result<(), Problem> {
        let (under_way, waiting) = self.numbers();
        if under_way + waiting < BATCHES_MAX {
            return Ok(());
        }
        let detail = format!(
            "as many batches as are allowed are under way or wait: {under_way} are under way, {waiting} wait for their approval or \
             start"
        );
        Err(Problem::new(Kind::Busy, detail))
    }

    /// How much memory batches take that wait, as the end of a sentence about memory.
    pub(super) fn waiting_words(&self) -> Option<String> {
        let waiting = self.all_pending();
        let waiting: Vec<_> = waiting.values().filter(|pending| pending.waits()).collect();
        let mib = waiting.iter().map(|pending| pending.bytes()).sum::<usize>().div_ceil(1 << 20);
        (!waiting.is_empty()).then(|| {
            format!(
                ". {} batches that wait for their approval or start take {mib} MiB of it: have them approved, rejected or cancelled",
                waiting.len()
            )
        })
    }

    /// A batch has begun: nothing of its name waits any more.
    fn waits_no_more(
        &self,
        server: &Server,
        name: &job::Batch,
        released: Option<(&Pending, Option<String>)>,
        now: Time,
    ) {
        match (released, self.pending(name.as_str())) {
            (Some((pending, approved_by)), _) => pending.begun(approved_by, now),
            (None, Some(waited)) => waited.begun(None, now),
            (None, None) => {}
        }
        // On a task of its own: whoever begins the batch may hang up, and it has begun all the same.
        let (of_task, name) = (server.clone(), name.clone());
        server.tasks.spawn(async move {
            if let Err(error) = Record::forget(&of_task, &name, now).await {
                tracing::error!(%error, batch = %name, "a batch has begun, and the ledger still says that it waits");
            }
        });
    }

    /// An upload that is to be issued begins to come.
    pub(super) fn arrival(&self) -> Arrival<'_> {
        let mut arriving = self.arriving();
        let number = arriving.keys().max().map_or(0, |last| last + 1);
        let came = Instant::now();
        arriving.insert(number, came);
        Arrival { registry: self, number, came }
    }

    fn arriving(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Instant>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issuing(&self) -> std::sync::MutexGuard<'_, Vec<(Arc<Batch>, Arc<Recognition>)>> {
        self.issuing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch has ended; `reason` if it was cut off.
    pub(super) fn ended(&self, batch: &Batch, reason: Option<String>) {
        batch.ended(reason);
        self.forget_rows();
    }

    /// What this process counted of a batch that has ended is not looked at any more: the ledger knows it.
    pub(super) fn forget_ended(&self, name: &str) {
        let mut batches = self.batches();
        if batches.get(name).is_some_and(|batch| !batch.is_under_way()) {
            batches.remove(name);
        }
    }

    /// Of batches whose rows every upload finds in the ledger.
    fn forget_rows(&self) {
        let oldest = self.arriving().values().min().copied().unwrap_or_else(Instant::now);
        self.issuing().retain(|(batch, _)| batch.was_under_way(oldest));
    }

    /// Begins a batch that was checked, unless it is under way.
    pub(super) async fn begin(
        &self,
        server: &Server,
        beginning: Beginning<'_>,
        checked: &Checked,
        arrival: &Arrival<'_>,
    ) -> Result<(Arc<Batch>, Begun), Problem> {
        let Beginning { name, second, by, action, released } = beginning;
        let _alone = self.beginning.lock().await;
        let began = server.clock().now();
        // PINs are as old as when they came.
        let received = released.as_ref().map_or(began, |(pending, _)| pending.received());
        if let Some((pending, _)) = &released
            && !pending.waits()
        {
            return Err(Problem::new(Kind::Conflict, "it waits no more: another file took its place"));
        }
        if let Some(earlier) = self.get(name.as_str()).filter(|earlier| earlier.is_under_way()) {
            return earlier.is_same(checked).map(|()| (earlier, Begun::Before));
        }
        if released.is_none() {
            self.has_room()?;
        }
        let recognition = &checked.recognition;
        if second == SecondCards::Refused
            && let Some((other, rows)) = self.shares_rows(recognition, arrival)
        {
            let name = other.name.as_str();
            let what = if other.is_under_way() {
                format!(
                    "are being issued just now as batch {name:?}. Wait until that has ended, and upload this file"
                )
            } else {
                format!("were issued as batch {name:?} while this file was being received. Upload it")
            };
            return Err(Problem::new(
                Kind::IssuedBefore,
                format!(
                    "{rows} of these rows {what} again: rows that have a card get no second one. Or upload it with \
                     second_cards=true if that is wanted"
                ),
            ));
        }
        let others = recognition.others(&server.parts.views, server.scope(), &name).await?;
        let about = About {
            rows: Some(checked.rows()),
            digest: Some(checked.file.clone()),
            detail: Some(checked.words(second).join(", ")).filter(|words| !words.is_empty()),
            ..About::batch(name.as_str())
        };
        server.record(by, action, about).await?;
        killpoint::pass("batch_recorded");
        let run = match &released {
            Some((pending, _)) => pending.take_run(),
            None => server.tell_checked(&name, checked, webhooks::State::Checked).await?,
        };
        let begins = others.begins(recognition);
        let row = BatchRow {
            scope: server.scope().clone(),
            batch: name.clone(),
            digest: digest_of(&checked.report),
            rows: begins.rows,
            // After its entry in the audit log: `names` tells by that what came before any upload.
            began: server.clock().now(),
        };
        let writing = async {
            server.parts.webhooks.begins(run.as_ref(), begins).await?;
            Record::begins(server, &name).await?;
            if !matches!(server.parts.intake, Intake::Line(_)) {
                server.parts.views.note_queue(server.scope(), &name).await?;
            }
            server.parts.views.write_batch(row).await
        };
        if let Err(error) = writing.await {
            match released {
                // It waits on.
                Some((pending, _)) => pending.put_run_back(run),
                None => server.tell_did_not_begin(run, checked.rows(), &error.to_string()).await,
            }
            return Err(error.into());
        }
        let batch = Arc::new(Batch::new(name, checked, others.rows, received, run));
        killpoint::pass("batch_written");
        self.issuing().push((batch.clone(), recognition.clone()));
        {
            let mut batches = self.batches();
            batches.insert(batch.name.to_string(), batch.clone());
            forget_oldest(&mut batches);
        }
        // Only then: whoever is told that it waits no more finds it under way, and not cut off.
        self.waits_no_more(server, &batch.name, released, began);
        Ok((batch, Begun::Now))
    }

    /// A batch that issues rows which these would issue too, and how many: they were not in the ledger when these were
    /// looked up in it. It may have ended meanwhile.
    fn shares_rows(&self, recognition: &Recognition, arrival: &Arrival<'_>) -> Option<(Arc<Batch>, u64)> {
        let issuing = self.issuing().clone();
        issuing.into_iter().filter(|(batch, _)| batch.was_under_way(arrival.came)).find_map(
            |(batch, theirs)| {
                let rows = recognition.shares_with(&theirs);
                (rows > 0).then_some((batch, rows))
            },
        )
    }

    /// The ledger's counts, at most a moment old. Those who ask at once share one answer.
    async fn counts(&self, server: &Server) -> Result<Arc<Vec<BatchCounts>>, Problem> {
        let mut counted = self.counted.lock().await;
        if let Some(counted) = counted.as_ref().filter(|counted| Instant::now() < counted.until) {
            return Ok(counted.counts.clone());
        }
        let began = Instant::now();
        let counts = Arc::new(server.parts.views.counts().await?);
        let until = Instant::now() + COUNTS_KEPT.max(began.elapsed() * COUNTS_KEPT_TIMES);
        *counted = Some(Counted { counts: counts.clone(), until });
        Ok(counts)
    }

    /// A row that waited for its PIN has ended.
    pub(super) fn pin_chosen(&self, batch: &str, ended: &Ended) {
        if let Some(batch) = self.get(batch) {
            batch.pin_chosen(ended);
        }
    }

    /// Told of each change of a batch that is under way or waits.
    pub(super) fn watch(&self, name: &str) -> Option<watch::Receiver<u64>> {
        match self.pending(name).filter(|pending| pending.waits()) {
            Some(pending) => Some(pending.watch()),
            None => self.get(name).map(|batch| batch.watch()),
        }
    }

    /// One batch as clients see it.
    pub(super) async fn view(&self, server: &Server, name: &str) -> Result<BatchView, Problem> {
        let view = self.view_alone(server, name).await?;
        if view.issued == 0 {
            return Ok(view);
        }
        let undone_by = format!("{name}{UNDO}");
        let cancelled = match self.get(&undone_by) {
            Some(batch) => batch.counts().issued,
            None => {
                let counts = self.counts(server).await?;
                let scope = server.scope().as_str();
                let of_undo = counts.iter().find(|counts| counts.batch == undone_by && counts.scope == scope);
                of_undo.map_or(0, |counts| counts.issued)
            }
        };
        Ok(BatchView { cancelled_cards: cancelled.min(view.issued), ..view })
    }

    /// The same without what another batch did to its cards since.
    async fn view_alone(&self, server: &Server, name: &str) -> Result<BatchView, Problem> {
        let (pace, now) = (server.pace_per_second(), server.clock().now());
        let received = self.get(name);
        let of_received = |batch: &Arc<Batch>| batch.view(pace, now);
        if let Some(batch) = received.as_ref().filter(|batch| batch.is_under_way()) {
            return Ok(of_received(batch));
        }
        let pending = self.pending(name).filter(|pending| !matches!(pending.stage(), Stage::Begun { .. }));
        if let (None, Some(batch)) = (&pending, &received) {
            return Ok(of_received(batch));
        }
        let issued = match &received {
            Some(batch) => Some(of_received(batch)),
            None => self
                .counts(server)
                .await?
                .iter()
                .find(|counts| counts.batch == name && counts.scope == server.scope().as_str())
                .map(|counts| view_of(counts.clone(), pace)),
        };
        if let Some(pending) = pending {
            return Ok(pending.record().view(name, pending.view(), issued, (pace, now)));
        }
        let record = Record::of(server, name).await?.map(Record::without_its_rows);
        match record {
            Some(record) => Ok(record.view(name, None, issued, (pace, now))),
            None => issued.ok_or_else(|| no_batch(name)),
        }
    }

    /// All of them, those last heard of first; without their histories, and what waits without its plan.
    pub(super) async fn list(&self, server: &Server) -> Result<Vec<BatchView>, Problem> {
        let counts = self.counts(server).await?;
        let records = Record::all(&server.parts.views, server.scope()).await?;
        let (pace, now) = (server.pace_per_second(), server.clock().now());
        let of_scope = counts.iter().filter(|counts| counts.scope == server.scope().as_str());
        let mut views: HashMap<String, BatchView> =
            of_scope.map(|counts| (counts.batch.clone(), view_of(counts.clone(), pace))).collect();
        let (batches, pending) = (self.batches().clone(), self.all_pending().clone());
        for (name, record) in records {
            if !batches.contains_key(&name) && !pending.contains_key(&name) {
                let issued = views.remove(&name);
                views.insert(name.clone(), record.without_its_rows().view(&name, None, issued, (pace, now)));
            }
        }
        views.extend(batches.iter().map(|(name, batch)| (name.clone(), batch.view(pace, now))));
        for (name, pending) in pending {
            let is_under_way = batches.get(&name).is_some_and(|batch| batch.is_under_way());
            if !is_under_way && !matches!(pending.stage(), Stage::Begun { .. }) {
                let issued = views.remove(&name);
                views.insert(name.clone(), pending.record().view(&name, None, issued, (pace, now)));
            }
        }
        let undone =
            views.iter().filter_map(|(name, view)| Some((name.strip_suffix(UNDO)?.to_owned(), view.issued)));
        for (name, cancelled) in undone.collect::<Vec<_>>() {
            if let Some(view) = views.get_mut(&name) {
                view.cancelled_cards = cancelled.min(view.issued);
            }
        }
        let mut views: Vec<BatchView> =
            views.into_values().map(|view| BatchView { history: None, ..view }).collect();
        views.sort_by(|one, other| (other.latest_ms, &other.batch).cmp(&(one.latest_ms, &one.batch)));
        Ok(views)
    }
}

/// An upload that is being received. Its rows are looked up in the ledger as they come: so what batches issue meanwhile is
/// remembered until it is done with.
pub(super) struct Arrival<'r> {
    registry: &'r Registry,
    number: u64,
    came: Instant,
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.registry.arriving().remove(&self.number);
        self.registry.forget_rows();
    }
}

/// What a name that nobody has is answered with.
pub(super) fn no_batch(name: &str) -> Problem {
    /// A name is quoted up to here.
    const QUOTED_MAX: usize = 80;
    let quoted: String = name.chars().take(QUOTED_MAX).collect();
    Problem::new(Kind::NotFound, format!("there is no batch {quoted:?}"))
}

fn forget_oldest(batches: &mut HashMap<String, Arc<Batch>>) {
    let mut ended: Vec<(Time, String)> = batches
        .values()
        .filter(|batch| !batch.is_under_way())
        .map(|batch| (batch.received, batch.name.to_string()))
        .collect();
    ended.sort_unstable_by(|one, other| other.cmp(one));
    for (_, name) in ended.into_iter().skip(ENDED_KEPT) {
        batches.remove(&name);
    }
}
