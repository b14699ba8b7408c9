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

use super::several::{Common, Ended, OneOf, Shared};
use super::watched::Watched;
use crate::account::Access;
use crate::config::{AccountsConfig, Config};
use crate::metrics;

/// The accounts that are worked for.
pub(super) struct Accounts {
    shared: Shared,
    common: Common,
    stop: CancellationToken,
    working: JoinSet<(String, Ended)>,
    running: HashMap<String, Running>,
    /// What ended all of them, and whether it may pass.
    with_all: Option<(String, bool)>,
}

/// One of them.
struct Running {
    config: Config,
    access: Access,
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

impl Accounts {
    /// None yet.
    pub(super) fn new(shared: Shared, common: Common, stop: CancellationToken) -> Self {
        let (working, running) = (JoinSet::new(), HashMap::new());
        Self { shared, common, stop, working, running, with_all: None }
    }

    /// Begins to work for all of these.
    pub(super) fn begin_all(&mut self, all: Vec<OneOf>) {
        let ids = all.iter().map(|one| one.id.as_str());
        metrics::name_accounts(ids, self.shared.config.metrics.accounts_max);
        all.into_iter().for_each(|one| self.begin(one));
    }

    fn begin(&mut self, one: OneOf) {
        self.common.standings.opening(&one.id);
        let stop = self.stop.child_token();
        let (config, access) = (one.config.clone(), one.access.clone());
        let running = Running { config, access, stop: stop.clone(), then: Then::Nothing };
        self.running.insert(one.id.clone(), running);
        let (id, span) = (one.id.clone(), tracing::info_span!("account", id = %one.id));
        let working = one.work(self.shared.args.purpose(), self.common.clone(), stop);
        self.working.spawn(async move { (id, working.await) }.instrument(span));
    }

    /// Whether nothing is worked for any more.
    pub(super) fn is_empty(&self) -> bool {
        self.working.is_empty()
    }

    /// What ended all of them, and whether it may pass.
    pub(super) fn ended_with_all(&mut self) -> Option<(String, bool)> {
        self.with_all.take()
    }

    /// Waits until one of them has ended, and does what follows.
    pub(super) async fn next_end(&mut self) {
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
                self.common.standings.gone(&id);
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
    pub(super) fn reload(&mut self, file: Option<&Path>, watched: &mut Watched) {
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
        let mut config = self.shared.config.clone();
        let together = config.accounts.platform_per_second;
        if fresh.accounts.platform_per_second != together {
            tracing::warn!("accounts.platform_per_second stays as it was until the worker is started again");
        }
        config.accounts = AccountsConfig { platform_per_second: together, ..fresh.accounts };
        config.pace = fresh.pace;
        config.stripe.api_key_file = fresh.stripe.api_key_file;
        if !config.accounts.are_configured() {
            return Err(
                "[accounts] has none any more: start the worker again to work for the account of [stripe]"
                    .into(),
            );
        }
        let accounts = config.accounts().map_err(|error| error.to_string())?;
        let all = self.shared.reached(&config, &accounts)?;
        self.shared.config = config;
        Ok(all)
    }

    fn change_to(&mut self, all: Vec<OneOf>) {
        let ids = all.iter().map(|one| one.id.as_str());
        metrics::name_accounts(ids, self.shared.config.metrics.accounts_max);
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
                    if matches!(running.then, Then::Nothing) && self.common.standings.has_halted(&one.id) {
                        running.then = Then::Anew(Box::new(one));
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
        for (id, _) in self.common.standings.all_stopped() {
            if !configured.contains(&id) {
                self.common.standings.gone(&id);
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
        let is_now = self.config == one.config && self.access.has_key_of(&one.access);
        match &self.then {
            Then::Nothing => is_now,
            Then::Gone => false,
            Then::Anew(next) => next.config == one.config && next.access.has_key_of(&one.access),
        }
    }
}
