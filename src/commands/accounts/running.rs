//! Which accounts are worked for, as the configuration says: one that comes is begun, one that goes is stopped, and one that has
//! changed is stopped and then begun anew.
//!
//! Guarantees: an account has one line at a time, so that nothing calls beside its pace. Whoever is stopped lets its calls end and
//! hands the rest back to its queue. What is wrong with a configuration that is read anew changes nothing.

use std::collections::HashMap;
use std::path::Path;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::reached::{OneOf, Reach};
use super::watched::Watched;
use crate::account::{Access, ScopeError};
use crate::config::{AccountsConfig, Config};
use crate::line::Halt;
use crate::metrics;

/// How the work for an account ended.
pub enum Ended {
    /// It was told to.
    Told,
    /// By itself, for a reason that is its own.
    Alone(String),
    /// The ledger that all share does not serve.
    WithAll {
        /// Why.
        reason: String,
        /// Whether it may serve again.
        may_pass: bool,
    },
}

impl From<Halt> for Ended {
    fn from(halt: Halt) -> Self {
        let reason = halt.to_string();
        match halt {
            Halt::Key(_) | Halt::SameRefusals(_) | Halt::Unreachable(_) => Self::Alone(reason),
            Halt::Ledger { may_pass, .. } => Self::WithAll { reason, may_pass },
        }
    }
}

impl From<ScopeError> for Ended {
    fn from(error: ScopeError) -> Self {
        match error {
            ScopeError::Unusable(reason) => Self::Alone(reason),
            // Stripe is asked for ever; so it is the ledger.
            ScopeError::Unreachable(reason) => Self::WithAll { reason, may_pass: true },
        }
    }
}

/// What is done for each account.
pub trait Work: Clone + Send + 'static {
    /// Does it until it is told to stop.
    fn work(self, one: OneOf, stop: CancellationToken) -> impl Future<Output = Ended> + Send;

    /// An account is being opened.
    fn is_opening(&self, one: &OneOf);

    /// Nothing is done for an account any more, nor is to be.
    fn is_gone(&self, account: &str);

    /// Whether an account's line has stopped by itself, or is about to.
    fn has_halted(&self, account: &str) -> bool;

    /// Those whose work ended by itself, and why.
    fn all_stopped(&self) -> Vec<(String, String)>;
}

/// The accounts that are worked for.
pub struct Accounts<W> {
    reach: Reach,
    work: W,
    stop: CancellationToken,
    working: JoinSet<(String, Ended)>,
    running: HashMap<String, Running>,
    /// What ended all of them, and whether it may pass.
    with_all: Option<(String, bool)>,
}

/// One of them.
struct Running {
    config: Config,
    access: Option<Access>,
    stop: CancellationToken,
    /// What is to become of it when it has ended.
    then: Then,
}

/// What follows an account's end.
enum Then {
    /// Nothing was decided: it ends by itself, or with all.
    Nothing,
    /// It is configured no more.
    Gone,
    /// It is configured in another way.
    Anew(Box<OneOf>),
}

impl<W: Work> Accounts<W> {
    /// None yet.
    #[must_use]
    pub fn new(reach: Reach, work: W, stop: CancellationToken) -> Self {
        let (working, running) = (JoinSet::new(), HashMap::new());
        Self { reach, work, stop, working, running, with_all: None }
    }

    /// Begins to work for all of these.
    pub fn begin_all(&mut self, all: Vec<OneOf>) {
        let ids = all.iter().map(|one| one.id.as_str());
        metrics::name_accounts(ids, self.reach.config.metrics.accounts_max);
        all.into_iter().for_each(|one| self.begin(one));
    }

    fn begin(&mut self, one: OneOf) {
        self.work.is_opening(&one);
        let stop = self.stop.child_token();
        let (config, access) = (one.config.clone(), one.access.clone());
        let running = Running { config, access, stop: stop.clone(), then: Then::Nothing };
        self.running.insert(one.id.clone(), running);
        let (id, span) = (one.id.clone(), tracing::info_span!("account", id = %one.id));
        let working = self.work.clone().work(one, stop);
        self.working.spawn(async move { (id, working.await) }.instrument(span));
    }

    /// Whether nothing is worked for any more.
    pub fn is_empty(&self) -> bool {
        self.working.is_empty()
    }

    /// What ended all of them, and whether it may pass.
    pub fn ended_with_all(&mut self) -> Option<(String, bool)> {
        self.with_all.take()
    }

    /// Waits until one of them has ended, and does what follows.
    pub async fn next_end(&mut self) {
        let (id, ended) = match self.working.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => return self.end_all(format!("an account's worker ended: {error}"), false),
            None => return,
        };
        if let Ended::WithAll { reason, may_pass } = ended {
            // The others would notice only with their next job.
            return self.end_all(reason, may_pass);
        }
        let Some(running) = self.running.remove(&id) else { return };
        match running.then {
            Then::Anew(one) if !self.stop.is_cancelled() => self.begin(one.again()),
            Then::Gone => {
                self.work.is_gone(&id);
                metrics::account_is_gone(&id);
            }
            Then::Anew(_) | Then::Nothing => {}
        }
    }

    fn end_all(&mut self, reason: String, may_pass: bool) {
        self.stop.cancel();
        self.with_all.get_or_insert((reason, may_pass));
    }

    /// Reads the configuration anew, and does what it says of accounts.
    pub fn reload(&mut self, file: Option<&Path>, watched: &mut Watched) {
        watched.about_to_be_read();
        if self.stop.is_cancelled() {
            return;
        }
        match self.read(file, watched) {
            Ok(all) => self.change_to(all),
            Err(reason) => {
                tracing::error!(reason, "the configuration is not taken; all goes on as before");
            }
        }
    }

    /// The accounts, with their keys and limits, as they are configured now. All other options stay as they were at the start.
    fn read(&mut self, file: Option<&Path>, watched: &mut Watched) -> Result<Vec<OneOf>, String> {
        let fresh = Config::load(file).map_err(|error| error.to_string())?;
        // Also if it cannot be taken: what it names is what has to be mended.
        watched.named_by(file, &fresh);
        let mut config = self.reach.config.clone();
        let together = config.accounts.platform_per_second;
        if fresh.accounts.platform_per_second != together {
            tracing::warn!("accounts.platform_per_second stays as it was until embosser is started again");
        }
        config.accounts = AccountsConfig { platform_per_second: together, ..fresh.accounts };
        config.pace = fresh.pace;
        config.stripe.api_key_file = fresh.stripe.api_key_file;
        if !config.accounts.are_configured() {
            return Err(
                "[accounts] has none any more: start embosser again to act for the account of [stripe]"
                    .into(),
            );
        }
        let accounts = config.accounts().map_err(|error| error.to_string())?;
        let all = self.reach.reached(&config, &accounts)?;
        self.reach.config = config;
        Ok(all)
    }

    fn change_to(&mut self, all: Vec<OneOf>) {
        let ids = all.iter().map(|one| one.id.as_str());
        metrics::name_accounts(ids, self.reach.config.metrics.accounts_max);
        let (mut begun, mut changed, mut gone) = (0, 0, 0);
        let configured: Vec<String> = all.iter().map(|one| one.id.clone()).collect();
        for one in all {
            match self.running.get_mut(&one.id) {
                None => {
                    // It may have stopped by itself a moment ago.
                    self.begin(one.again());
                    begun += 1;
                }
                // One that has halted lets its calls end yet: what halted it may be mended.
                Some(running) if running.is_as(&one) => {
                    if matches!(running.then, Then::Nothing) && self.work.has_halted(&one.id) {
                        running.then = Then::Anew(Box::new(one));
                        // A server goes on to tell what its batches came to, until it is told to stop.
                        running.stop.cancel();
                        changed += 1;
                    }
                }
                Some(running) => {
                    running.then = Then::Anew(Box::new(one));
                    running.stop.cancel();
                    changed += 1;
                }
            }
        }
        for (id, running) in &mut self.running {
            if !configured.contains(id) && !matches!(running.then, Then::Gone) {
                running.then = Then::Gone;
                running.stop.cancel();
                gone += 1;
            }
        }
        // One that had stopped by itself is not running, and yet shown.
        for (id, _) in self.work.all_stopped() {
            if !configured.contains(&id) {
                self.work.is_gone(&id);
                metrics::account_is_gone(&id);
                gone += 1;
            }
        }
        tracing::info!(begun, changed, gone, "the accounts were read anew");
    }
}

impl Running {
    /// Whether nothing of it has changed, in what it is or in what it is to become.
    fn is_as(&self, one: &OneOf) -> bool {
        let is_now = self.config == one.config && has_key_of(&self.access, &one.access);
        match &self.then {
            Then::Nothing => is_now,
            Then::Gone => false,
            Then::Anew(next) => next.config == one.config && has_key_of(&next.access, &one.access),
        }
    }
}

fn has_key_of(one: &Option<Access>, other: &Option<Access>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.has_key_of(other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}
