//! Webhooks: who wants to know is told when a batch was checked, waits for its approval, has finished, or was stopped.
//!
//! Duty: to write each event into the ledger before anybody is told ([`outbox`]), to deliver it signed, to each endpoint by itself, for
//! as long as it takes ([`sender`]), and to see that every run that was begun comes to an end that is told ([`run`], [`settle`]).
//! Never: a PIN, a secret, or what a row holds in an event ([`event`]). Guarantees: at least one delivery of each event, whatever
//! crashes; the same event always has the same id.

mod command;
mod endpoint;
mod event;
mod list;
mod outbox;
mod run;
mod sender;
mod settle;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

pub use command::Ran;
pub use endpoint::SIGNATURE_HEADER;
pub use event::{Counts, Event, Kind, State};
pub use list::Listed;
pub use run::{Begins, Carrier, End};
pub use sender::Pending;

use crate::clock::{Clock, Time};
use crate::config::{WebhooksConfig, seconds};
use crate::killpoint;
use crate::ledger::{Ledger, LedgerError, Scope};
use endpoint::Endpoint;
use event::{BatchObject, Data, IsBatch, IsEvent};
use outbox::Outbox;
use run::{Entry, Found, Target};

/// More often nobody takes the place of what was read.
const CHANGE_TRIES: u32 = 4;

/// What a file asks for, as far as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The batch's name.
    pub batch: String,
    /// Digest of what the file asks for.
    pub digest: Option<String>,
    /// Rows of the file.
    pub rows: u64,
    /// Those with a PIN.
    pub pins: u64,
}

/// A run of a batch whose end is still to be told. Once its last clone is dropped without one, because the batch never began or the
/// process ends, it gives no more signs of life, and whoever finds it in the ledger tells that it was stopped.
#[derive(Debug, Clone)]
#[must_use]
pub struct Run {
    scope: Scope,
    id: String,
    _alive: Arc<()>,
}

/// A run of this process.
struct Alive {
    /// As it stands in the ledger.
    entry: Entry,
    /// Whether anybody still has it.
    run: Weak<()>,
}

/// Who is told, read and ready; nothing is opened yet.
#[derive(Debug)]
pub struct Receivers {
    config: WebhooksConfig,
    endpoints: Vec<Arc<Endpoint>>,
}

impl Receivers {
    /// Reads the configuration's secrets.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn read(config: &WebhooksConfig) -> Result<Self, String> {
        let endpoints = config.endpoints.iter().enumerate();
        let endpoints = endpoints
            .map(|(at, endpoint)| Endpoint::of(at + 1, endpoint).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self { config: config.clone(), endpoints })
    }

    /// With this command instead of the configuration's.
    #[must_use]
    pub fn with_command(mut self, command: Option<String>) -> Self {
        self.config.command = command.or(self.config.command);
        self
    }
}

/// What tells them. Clones are the same one.
#[derive(Clone)]
pub struct Webhooks(Option<Arc<Inner>>);

struct Inner {
    config: WebhooksConfig,
    endpoints: Vec<Arc<Endpoint>>,
    http: reqwest::Client,
    ledger: Ledger,
    outbox: Outbox,
    clock: Clock,
    /// The runs of this process, by their names in the ledger.
    runs: tokio::sync::Mutex<HashMap<String, Alive>>,
    has_ended: AtomicBool,
    /// Commands under way.
    commands: tokio::sync::Mutex<JoinSet<()>>,
    /// Something new is to be delivered.
    wake: Notify,
}

impl Webhooks {
    /// Tells these, by way of this ledger. Where nobody is to be told, nothing is written.
    ///
    /// # Errors
    /// If TLS cannot be had.
    pub fn new(receivers: Receivers, ledger: &Ledger, clock: &Clock) -> Result<Self, String> {
        let Receivers { config, endpoints } = receivers;
        if endpoints.is_empty() && config.command.is_none() {
            return Ok(Self(None));
        }
        Ok(Self(Some(Arc::new(Inner {
            http: endpoint::client(&config)?,
            config,
            endpoints,
            ledger: ledger.clone(),
            outbox: Outbox::of(ledger),
            clock: clock.clone(),
            runs: tokio::sync::Mutex::default(),
            has_ended: AtomicBool::new(false),
            commands: tokio::sync::Mutex::default(),
            wake: Notify::new(),
        }))))
    }

    /// A file was checked and accepted: its rows are about to be issued, or wait, as `state` says. Once this returns, its events and
    /// that its end is still to be told survive a crash. None where nobody is to be told.
    ///
    /// # Errors
    /// If it could not be written down; then it must not begin.
    pub async fn checked(
        &self,
        scope: &Scope,
        about: About,
        carrier: Carrier,
        state: State,
    ) -> Result<Option<Run>, LedgerError> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let alive = Arc::new(());
        let of_runs = Arc::downgrade(&alive);
        let run = Run { scope: scope.clone(), id: new_id(), _alive: alive };
        let entry = inner.entry_of(about, carrier);
        let name = run::name_of(scope, &run.id);
        inner.ledger.set_metadata(&*name, entry.text()).await?;
        inner.runs.lock().await.insert(name, Alive { entry: entry.clone(), run: of_runs });
        killpoint::pass("run_recorded");
        let kinds = match state {
            State::AwaitingApproval => &[Kind::Checked, Kind::AwaitingApproval][..],
            _ => &[Kind::Checked][..],
        };
        for kind in kinds.iter().copied() {
            let counts = Counts::of_rows(entry.rows);
            let what = End { state, reason: None, counts, at_ms: entry.began_ms };
            inner.tell((scope, &run.id), &entry, kind, &what, &inner.targets(kind)).await?;
        }
        Ok(Some(run))
    }

    /// A run's rows are about to be issued. What its end is told by, if this process tells it no more, survives a crash once this
    /// returns. Nothing is done where nobody is to be told.
    ///
    /// # Errors
    /// If it could not be written down; then it must not begin.
    pub async fn begins(&self, run: Option<&Run>, begins: Begins) -> Result<(), LedgerError> {
        let (Some(inner), Some(run)) = (&self.0, run) else { return Ok(()) };
        if inner.change(run, |entry| Entry { begins: Some(begins), ..entry }).await? {
            return Ok(());
        }
        let reason = "other processes change what it has of a batch that is to begin".to_owned();
        Err(LedgerError::Database { ledger: inner.ledger.name().to_owned(), reason })
    }

    /// A run has come to its end. What cannot be written down now is told by whoever finds the run in the ledger later.
    pub async fn ended(&self, run: Run, end: End) {
        let Some(inner) = &self.0 else { return };
        inner.has_ended.store(true, Ordering::Relaxed);
        if let Err(error) = inner.ended(&run, end).await {
            tracing::error!(%error, run = run.id, "that a batch has ended cannot be written down for its webhooks yet");
        }
    }

    /// The same of a run that was written down, if it was.
    pub async fn ended_if(&self, run: Option<Run>, end: impl FnOnce() -> End) {
        if let Some(run) = run {
            self.ended(run, end()).await;
        }
    }

    /// Whether a run of this process has come to its end.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.has_ended.load(Ordering::Relaxed))
    }

    /// The runs that commands before this one have left are ended; who calls this holds the account's lease.
    ///
    /// # Errors
    /// If the ledger does not serve.
    pub async fn end_those_of_commands(&self, scope: &Scope) -> Result<(), LedgerError> {
        match &self.0 {
            Some(inner) => inner.settle_of_commands(scope).await,
            None => Ok(()),
        }
    }

    /// From here on a worker takes the batch to its end, whatever becomes of this process.
    pub async fn handed_to_worker(&self, run: Run) {
        let Some(inner) = &self.0 else { return };
        let changed = inner.change(&run, |entry| Entry { carrier: Carrier::Worker, ..entry }).await;
        match changed {
            Ok(true) => {}
            Ok(false) => tracing::warn!("that a worker goes on with a batch was written over each time"),
            Err(error) => tracing::warn!(%error, "that a worker goes on with a batch cannot be written down"),
        }
    }

    /// A command that was to issue a file has ended before any of it began.
    pub async fn never_began(&self, scope: &Scope, about: About, reason: &str) {
        let Some(inner) = &self.0 else { return };
        let now = inner.clock.now();
        let end = End::stopped(State::Interrupted, reason, Counts::of_rows(about.rows), now);
        let (scope, id) = (scope.clone(), new_id());
        let entry = Entry { end: Some(end), ..inner.entry_of(about, Carrier::Command) };
        let (name, value) = (run::name_of(&scope, &id), entry.text());
        let written = async {
            inner.ledger.set_metadata(&*name, &*value).await?;
            inner.tell_end(&Found { name, scope, id, entry, value }).await
        };
        if let Err(error) = written.await {
            tracing::error!(%error, "that a batch did not begin cannot be written down for its webhooks");
        }
    }

    /// A run of this process goes on without it: its end is written by whoever finds that the worker has come to it.
    pub async fn leave(&self, run: Run) {
        if let Some(inner) = &self.0 {
            inner.runs.lock().await.remove(&run::name_of(&run.scope, &run.id));
        }
    }

    /// Waits until no command is under way, each of which is bounded.
    pub async fn commands_ended(&self) {
        if let Some(inner) = &self.0 {
            let mut commands = inner.commands.lock().await;
            while commands.join_next().await.is_some() {}
        }
    }
}

impl Inner {
    fn endpoint(&self, id: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    fn targets(&self, kind: Kind) -> Vec<Target> {
        let wanting = self.endpoints.iter().filter(|endpoint| endpoint.wants(kind));
        wanting.map(|endpoint| Target { id: endpoint.id.clone(), host: endpoint.host.clone() }).collect()
    }

    /// Who is told of a run's end: who was to be told as it began. If one of those has another address by now, or is none of this
    /// configuration's, then also whoever it names for such an event: the new address is among them.
    fn targets_of(&self, entry: &Entry, kind: Kind) -> Vec<Target> {
        let mut targets = entry.targets(kind).to_vec();
        if targets.iter().any(|target| self.endpoint(&target.id).is_none()) {
            let others = self.targets(kind).into_iter();
            let others: Vec<_> = others.filter(|target| !targets.contains(target)).collect();
            targets.extend(others);
        }
        targets
    }

    fn entry_of(&self, about: About, carrier: Carrier) -> Entry {
        Entry {
            finished_to: self.targets(Kind::Finished),
            stopped_to: self.targets(Kind::Stopped),
            batch: about.batch,
            digest: about.digest,
            rows: about.rows,
            pins: about.pins,
            began_ms: self.clock.now().unix_ms(),
            carrier,
            beat: 0,
            begins: None,
            is_settled: false,
            end: None,
        }
    }

    /// Writes an event down for these, and runs the command for it.
    async fn tell(
        &self,
        (scope, run): (&Scope, &str),
        entry: &Entry,
        kind: Kind,
        what: &End,
        targets: &[Target],
    ) -> Result<(), LedgerError> {
        let event = Event {
            id: event::id_of(run, kind, entry.is_settled),
            object: IsEvent::Event,
            kind,
            created: what.at_ms.div_euclid(1000),
            livemode: event::is_live(scope),
            account: scope.account().map(str::to_owned),
            data: Data {
                object: BatchObject {
                    object: IsBatch::Batch,
                    batch: entry.batch.clone(),
                    run: run.to_owned(),
                    state: what.state,
                    reason: what.reason.as_deref().map(event::short),
                    digest: entry.digest.clone(),
                    pins: entry.pins,
                    counts: what.counts,
                    url: event::page_of(self.config.page_url.as_deref(), &entry.batch),
                },
            },
        };
        for target in targets {
            self.outbox.add((&target.id, &target.host), &event).await?;
        }
        killpoint::pass("event_recorded");
        self.wake.notify_one();
        // A command may do what commands do, and its end is awaited by nobody but who ends.
        if matches!(kind, Kind::Finished | Kind::Stopped) || entry.carrier != Carrier::Command {
            self.run_command(event).await;
        }
        Ok(())
    }

    async fn run_command(&self, event: Event) {
        let Some(command) = self.config.command.clone() else { return };
        let time_max = seconds(self.config.command_seconds_max);
        let mut commands = self.commands.lock().await;
        while commands.try_join_next().is_some() {}
        commands.spawn_blocking(move || {
            let (batch, kind) = (&event.data.object.batch, event.kind.word());
            match command::run(&command, &event, time_max) {
                Ran::Well => tracing::info!(batch, kind, "the notify command ended well"),
                Ran::Badly(reason) => tracing::warn!(batch, kind, reason, "the notify command failed"),
            }
        });
    }

    /// Makes what stands in the ledger of a run of this process another, also where another process took this one for gone and
    /// has told its end, or taken it out. False if others changed it each time.
    async fn change(&self, run: &Run, change: impl FnOnce(Entry) -> Entry) -> Result<bool, LedgerError> {
        let name = run::name_of(&run.scope, &run.id);
        let mut runs = self.runs.lock().await;
        let Some(Alive { entry, .. }) = runs.get_mut(&name) else { return Ok(true) };
        let (next, mut known) = (change(entry.clone()), Some(entry.text()));
        for _ in 0..CHANGE_TRIES {
            match self.ledger.swap_metadata(&*name, known, Some(next.text())).await? {
                Ok(()) => {
                    *entry = next;
                    return Ok(true);
                }
                Err(found) => known = found,
            }
        }
        Ok(false)
    }

    async fn ended(&self, run: &Run, end: End) -> Result<(), LedgerError> {
        let name = run::name_of(&run.scope, &run.id);
        let mut runs = self.runs.lock().await;
        // It gives no more signs of life: if the rest fails, it is found.
        let Some(Alive { entry, .. }) = runs.remove(&name) else { return Ok(()) };
        let mut known = Some(entry.text());
        let entry = Entry { end: Some(end), ..entry };
        let value = entry.text();
        for _ in 0..CHANGE_TRIES {
            match self.ledger.swap_metadata(&*name, known, Some(value.clone())).await? {
                Ok(()) => break,
                // Another process took this one for gone; what became of it is known here.
                Err(found) => known = found,
            }
        }
        drop(runs);
        killpoint::pass("end_recorded");
        self.tell_end(&Found { name, scope: run.scope.clone(), id: run.id.clone(), entry, value }).await
    }

    /// Tells the end that stands in a run, and takes the run out.
    async fn tell_end(&self, found: &Found) -> Result<(), LedgerError> {
        let Some(end) = &found.entry.end else { return Ok(()) };
        let (kind, run) = (end.kind(), (&found.scope, &*found.id));
        self.tell(run, &found.entry, kind, end, &self.targets_of(&found.entry, kind)).await?;
        let _ = self.ledger.swap_metadata(&*found.name, Some(found.value.clone()), None).await?;
        Ok(())
    }
}

/// A run's id, which no other has.
fn new_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl End {
    /// It was stopped, for this reason.
    #[must_use]
    pub fn stopped(state: State, reason: impl Into<String>, counts: Counts, at: Time) -> Self {
        Self { state, reason: Some(reason.into()), counts, at_ms: at.unix_ms() }
    }
}

/// How long a command that ends tries to deliver what is left.
pub const DELIVER_AT_END: Duration = Duration::from_secs(10);
