//! A Stripe account that embosser acts for: its key and mode, whose it is, and the line that its jobs go down. Each has limits,
//! a circuit and a lease of its own, so that several in one process do not wait for one another.

mod identity;

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::clock::Clock;
use crate::config::{Config, PaceConfig, StripeConfig};
use crate::content::hex;
use crate::ledger::{Ledger, Scope};
use crate::line::decision::Rules;
use crate::line::{LEASE_IDLE, Line, LookFirst, OnSameRefusals, Parts, Vet};
use crate::metrics;
use crate::pace::{Pace, Pacer};
use crate::pin_links::{LinksWhen, PinLinks, reconcile_first};
use crate::stripe::{Client, ClientError, Mode};

pub use identity::{Patience, ScopeError};

/// How to reach an account: where, with which key.
#[derive(Debug, Clone)]
pub struct Access {
    client: Client,
    /// As the ledger's scopes name it.
    host: String,
    /// The connected account that is acted for, or the key's own account, where that is configured.
    id: Option<String>,
    /// Tells keys apart, and nothing else of them; none for a sandbox of this process, whose port is another each time.
    key_digest: Option<String>,
    /// Whether Stripe is asked if the key is the configured account's.
    id_is_asked: bool,
}

/// An account, and what is needed to act for it.
pub struct Account {
    access: Access,
    line: Arc<Line>,
}

/// What a line is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// How long it is there.
    pub runs: Runs,
    /// How long it is asked for whose account it is.
    pub patience: Patience,
    /// Whether cards are looked for before the first call.
    pub reconcile_first: bool,
    /// When jobs whose cardholders choose the PIN get their links.
    pub links: LinksWhen,
}

/// How long a line is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Until its manifest's rows have ended.
    ToAnEnd,
    /// Until it is told to stop.
    Forever,
}

impl Access {
    /// With a key.
    ///
    /// # Errors
    /// If key or configuration make no client.
    pub fn with_key(config: &StripeConfig, key: &SecretString) -> Result<Self, ClientError> {
        let client = Client::new(config, key)?;
        let digest = Sha256::digest(key.expose_secret().trim().as_bytes());
        Ok(Self {
            host: client.host(),
            client,
            id: config.account.clone().or_else(|| config.account_id.clone()),
            key_digest: Some(hex(&digest[..8])),
            id_is_asked: config.account_id_is_asked && config.account.is_none(),
        })
    }

    /// To a sandbox of this process. Its cards are one world, whatever its port.
    ///
    /// # Errors
    /// If the configuration makes no client.
    pub fn to_sandbox(config: &StripeConfig) -> Result<Self, ClientError> {
        let client = Client::new(config, &SecretString::from("sk_test_sandbox"))?;
        let (host, id) = ("sandbox".to_owned(), config.account.clone());
        Ok(Self { client, host, id, key_digest: None, id_is_asked: false })
    }

    /// Whether it has the same key as another.
    #[must_use]
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.key_digest == other.key_digest
    }

    /// Live, unless the key is proven to be a test key.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.client.mode()
    }

    /// How it is called.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where calls go.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The mode as the ledger's scopes name it.
    fn mode_word(&self) -> &'static str {
        if self.mode() == Mode::Live { "live" } else { "test" }
    }

    /// The account's pace, which knows the hosts by name from its first call on. The pacer may be that of others, too.
    #[must_use]
    pub fn pace(&self, config: &PaceConfig, pacer: &Pacer) -> Pace {
        let pace = Pace::with(config, pacer);
        pace.name_hosts(&self.client.host(), &self.client.key_host());
        pace
    }
}

impl Account {
    /// Opens it: finds out whose account it is, and sets up its line.
    ///
    /// # Errors
    /// If whose account it is cannot be known.
    pub async fn open(
        access: Access,
        config: &Config,
        ledger: &Ledger,
        pace: Pace,
        purpose: Purpose,
    ) -> Result<Self, ScopeError> {
        let scope = access.scope(ledger, &pace, purpose.patience).await?;
        metrics::account(scope.account().unwrap_or("unknown"), scope.mode());
        if purpose.reconcile_first {
            // Jobs that wait for a PIN go on when this run has ended: that is to be known then.
            reconcile_first(ledger, &scope).await?;
        }
        let (lease_idle, on_same_refusals) = match purpose.runs {
            // The lease is held for the whole run, and no longer.
            Runs::ToAnEnd => (Duration::ZERO, OnSameRefusals::Stop),
            Runs::Forever => (LEASE_IDLE, OnSameRefusals::Wait),
        };
        let clock = Clock::system();
        let pin_links = PinLinks::of(&config.pin_page, purpose.links, (ledger, &scope, &clock));
        let line = Line::new(Parts {
            client: access.client.clone(),
            pace,
            ledger: ledger.clone(),
            scope,
            clock,
            retry: config.retry.clone(),
            rules: Rules::of(&config.stripe),
            look_first: if purpose.reconcile_first { LookFirst::Yes } else { LookFirst::No },
            vet: Vet::Yes,
            lease_idle,
            pin_links,
            same_refusals: (config.stripe.same_refusals_max, on_same_refusals),
        });
        Ok(Self { access, line: Arc::new(line) })
    }

    /// How it is reached.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The line of its jobs.
    #[must_use]
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// Whose the ledger's rows are.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.line.parts().scope
    }
}
