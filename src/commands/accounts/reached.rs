//! How each of several accounts is reached: its configuration, as if there were no other, and its key.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Stripe, key_of, of_account};
use crate::account::{Access, Account, Purpose, ScopeError};
use crate::config::{AccountConfig, Config};
use crate::ledger::Ledger;
use crate::pace::Pacer;
use crate::sandbox::{self, Sandbox};

/// How long calls of a pace that was may count, in periods of its limit: Stripe's second, or the time of one call where less than
/// one a second may be made; with the way to Stripe.
const CALLS_COUNT: f64 = 1.25;

/// One of them, before anybody was asked about it.
pub struct OneOf {
    /// `acct_…`
    pub id: String,
    /// As if there were no other.
    pub config: Config,
    /// To Stripe, or to the sandbox; none where nobody is called.
    pub access: Option<Access>,
    /// Whether this process may have called for it before.
    pub was_here: bool,
}

impl OneOf {
    /// This process may have called for it a moment ago.
    pub(super) fn again(self) -> Self {
        Self { was_here: true, ..self }
    }

    /// Opens it, with a pace of its own; none if it is to stop meanwhile.
    ///
    /// # Errors
    /// Its key or the ledger cannot be used.
    pub async fn open(
        self,
        ledger: &Ledger,
        pacer: &Pacer,
        purpose: Purpose,
        stop: &CancellationToken,
    ) -> Result<Option<Account>, ScopeError> {
        let Self { config, access, was_here, .. } = self;
        let Some(access) = access else {
            return Err(ScopeError::Unusable("nobody is called for it here".into()));
        };
        let pace = access.pace(&config.pace, pacer);
        if was_here {
            // Another pace knows of the latest calls.
            let per_second = config.pace.endpoint_per_second.min(config.pace.account_per_second);
            pace.hold(Duration::from_secs_f64(CALLS_COUNT / per_second.min(1.0)));
        }
        tokio::select! {
            opened = Account::open(access, &config, ledger, pace, purpose) => opened.map(Some),
            () = stop.cancelled() => Ok(None),
        }
    }
}

/// From what the accounts are read.
pub struct Reach {
    /// What is configured.
    pub config: Config,
    /// What the command line says of their limits: it wins over each account's own.
    pub rate: Option<f64>,
    /// Whom they call.
    pub stripe: Stripe,
}

impl Reach {
    /// How each of the accounts is reached by that configuration.
    ///
    /// # Errors
    /// If a key cannot be read or is of the other mode: it is said before anything has begun.
    pub fn reached(&self, config: &Config, accounts: &[AccountConfig]) -> Result<Vec<OneOf>, String> {
        let mut all = Vec::with_capacity(accounts.len());
        for account in accounts {
            let mut own = of_account(config, account, self.stripe);
            if let Some(rate) = self.rate {
                (own.pace.endpoint_per_second, own.pace.account_per_second) = (rate, rate);
            }
            let access = match self.stripe {
                Stripe::Sandbox => Access::to_sandbox(&own.stripe).map(Some),
                Stripe::Itself => Access::with_key(&own.stripe, &key_of(account, config)?).map(Some),
                Stripe::Nobody => Ok(None),
            };
            let access = access.map_err(|error| format!("account {}: {error}", account.id))?;
            all.push(OneOf { id: account.id.clone(), config: own, access, was_here: false });
        }
        Ok(all)
    }
}

/// A sandbox that all of them call.
///
/// # Errors
/// It cannot be started.
pub async fn start_sandbox(config: &mut Config) -> Result<Sandbox, String> {
    let sandbox = Sandbox::start(sandbox::Options::default()).await;
    let sandbox = sandbox.map_err(|error| format!("sandbox: {error}"))?;
    config.stripe.api_url = sandbox.api_url();
    config.stripe.key_url = sandbox.key_url();
    Ok(sandbox)
}
