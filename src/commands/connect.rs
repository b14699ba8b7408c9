//! To Stripe, or to a sandbox that is started here; and whose cards they are.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{Config, PaceConfig};
use crate::ledger::{Kind, Ledger, Only, Scope, State};
use crate::line::decision::Rules;
use crate::line::{LEASE_IDLE, Line, LookFirst, OnSameRefusals, Parts, Vet};
use crate::pace::{Answered as Paced, Pace, Waited};
use crate::sandbox::{self, Sandbox};
use crate::stripe::{AccountAnswer, CardAnswer, Client, Mode};

/// How long a first contact is tried for before a command that ends gives up.
pub const FIRST_CONTACT_MAX: Duration = Duration::from_secs(60);
/// Waits before the account is asked again.
const ASK_AGAIN: Backoff = Backoff::between(Duration::from_millis(250), Duration::from_secs(5));
/// Cards of a former scope that are looked for before its rows are taken for this account's.
const FORMER_CARDS: u32 = 3;

/// Where calls go.
pub struct Connected {
    /// To Stripe.
    pub client: Client,
    /// The sandbox, if it is one of our own.
    pub sandbox: Option<Sandbox>,
    /// `live` or `test`, and the host.
    mode: &'static str,
    host: String,
    /// The connected account that is acted for, or the key's own account, where that is configured.
    account: Option<String>,
    /// Tells keys apart, and nothing else of them.
    key_digest: String,
}

/// Why it is not known whose cards they are.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// The key or the ledger cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// Stripe or the ledger never answered: another time they may.
    #[error("{0}")]
    Unreachable(String),
}

impl From<crate::ledger::LedgerError> for ScopeError {
    fn from(error: crate::ledger::LedgerError) -> Self {
        let reason = error.to_string();
        if error.may_pass() { Self::Unreachable(reason) } else { Self::Unusable(reason) }
    }
}

/// For how long an account is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// So often at most, and no longer than that.
    Bounded(u32, Duration),
    /// For ever: a server waits for Stripe.
    Unbounded,
}

/// What a line is for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose {
    /// How long it is there.
    pub runs: Runs,
    /// Whether cards are looked for before the first call.
    pub reconcile_first: bool,
}

/// How long a line is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Until its manifest's rows have ended.
    ToAnEnd,
    /// Until it is told to stop.
    Forever,
}

/// A client for Stripe, or with `sandbox` for one that is started here.
///
/// # Errors
/// A sentence for the operator.
pub async fn connect(
    sandbox: bool,
    config: &mut Config,
    api_key: Option<SecretString>,
) -> Result<Connected, String> {
    if !sandbox {
        let key = api_key.ok_or(
            "no API key: set STRIPE_API_KEY, or stripe.api_key_file to a file that holds it (or try --sandbox)",
        )?;
        let client = Client::new(&config.stripe, &key).map_err(|error| error.to_string())?;
        let mode = if client.mode() == Mode::Live { "live" } else { "test" };
        let host = client.host();
        let account = config.stripe.account.clone().or_else(|| config.stripe.account_id.clone());
        let digest = Sha256::digest(key.expose_secret().trim().as_bytes());
        let key_digest = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        return Ok(Connected { client, sandbox: None, mode, host, account, key_digest });
    }
    if api_key.as_ref().is_some_and(|key| Mode::of(key) == Mode::Live) {
        return Err("--sandbox with a live key: unset STRIPE_API_KEY; the sandbox needs none".into());
    }
    let sandbox =
        Sandbox::start(sandbox::Options::default()).await.map_err(|error| format!("sandbox: {error}"))?;
    config.stripe.api_url = sandbox.api_url();
    config.stripe.key_url = sandbox.key_url();
    let client = Client::new(&config.stripe, &SecretString::from("sk_test_sandbox"))
        .map_err(|error| error.to_string())?;
    // A built-in sandbox has another port each time; its cards are one world all the same.
    let (mode, host, account) = ("test", "sandbox".to_owned(), config.stripe.account.clone());
    Ok(Connected { client, sandbox: Some(sandbox), mode, host, account, key_digest: String::new() })
}

impl Connected {
    /// The account's pace, which knows the hosts by name from its first call on.
    #[must_use]
    pub fn pace(&self, config: &PaceConfig) -> Pace {
        let pace = Pace::start(config);
        pace.name_hosts(&self.client.host(), &self.client.key_host());
        pace
    }

    /// Whose cards they are: the account that the key belongs to is asked for once and remembered in the ledger.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn scope(&self, ledger: &Ledger, pace: &Pace, patience: Patience) -> Result<Scope, ScopeError> {
        let former = Scope::new(self.mode, &self.host, None);
        if self.sandbox.is_some() || self.account.is_some() {
            return Ok(Scope::new(self.mode, &self.host, self.account.as_deref()));
        }
        let remembered = ledger.account_of(self.mode, &self.host, &self.key_digest).await?;
        let account = match remembered {
            Some(account) => account,
            None => {
                let Some(account) = self.ask(pace, patience).await? else {
                    return self.without_account(ledger, former).await;
                };
                ledger.remember_account(self.mode, &self.host, &self.key_digest, &account).await?;
                account
            }
        };
        let scope = Scope::new(self.mode, &self.host, Some(&account));
        self.adopt(ledger, pace, &former, &scope).await?;
        Ok(scope)
    }

    /// The account's line.
    #[must_use]
    pub fn line(&self, config: &Config, pace: Pace, ledger: &Ledger, scope: &Scope, of: Purpose) -> Line {
        let (lease_idle, on_same_refusals) = match of.runs {
            // The lease is held for the whole run, and no longer.
            Runs::ToAnEnd => (Duration::ZERO, OnSameRefusals::Stop),
            Runs::Forever => (LEASE_IDLE, OnSameRefusals::Wait),
        };
        Line::new(Parts {
            client: self.client.clone(),
            pace,
            ledger: ledger.clone(),
            scope: scope.clone(),
            clock: Clock::system(),
            retry: config.retry.clone(),
            rules: Rules::of(&config.stripe),
            look_first: if of.reconcile_first { LookFirst::Yes } else { LookFirst::No },
            vet: Vet::Yes,
            lease_idle,
            same_refusals: (config.stripe.same_refusals_max, on_same_refusals),
        })
    }

    /// Where calls go.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Without an account's id: unless the ledger has rows of one for this host, which may be this one's or not.
    async fn without_account(&self, ledger: &Ledger, former: Scope) -> Result<Scope, ScopeError> {
        let known = ledger.accounts(self.mode, &self.host).await?;
        if known.is_empty() {
            return Ok(former);
        }
        Err(ScopeError::Unusable(format!(
            "this key may not ask which account it belongs to, and the ledger has cards of {}: set stripe.account_id to \
             this key's account",
            known.join(", ")
        )))
    }

    /// The account's id; none if it cannot be asked for.
    async fn ask(&self, pace: &Pace, patience: Patience) -> Result<Option<String>, ScopeError> {
        let began = std::time::Instant::now();
        let (mut backoff, mut tries) = (ASK_AGAIN, 0);
        loop {
            tries += 1;
            let Some(answer) = paced(pace, self.client.account(), |answer| match answer {
                AccountAnswer::Limited(reason) => Paced::Limited(*reason),
                AccountAnswer::Failed(reason) => Paced::Failed(reason.clone()),
                _ => Paced::Accepted,
            })
            .await
            else {
                return Err(ScopeError::Unreachable(
                    "stopped before Stripe was asked whose key it is".into(),
                ));
            };
            let reason = match answer {
                AccountAnswer::Is(account) => return Ok(Some(account)),
                AccountAnswer::Forbidden(reason) => {
                    eprintln!(
                        "embosser: this key may not ask which account it belongs to ({reason}); set stripe.account_id = \
                         \"acct_…\", so that another account's rows in this ledger are never taken for this one's"
                    );
                    return Ok(None);
                }
                AccountAnswer::KeyRejected(reason) => {
                    return Err(ScopeError::Unusable(format!(
                        "stopped: Stripe refuses the API key: {reason}"
                    )));
                }
                AccountAnswer::Limited(reason) => format!("Stripe limits: {}", reason.word()),
                AccountAnswer::Failed(reason) => reason,
            };
            if let Patience::Bounded(tries_max, time_max) = patience
                && (tries >= tries_max || began.elapsed() > time_max)
            {
                return Err(ScopeError::Unreachable(format!(
                    "{} never answered ({reason}); nothing was issued. Look at the network and at stripe.api_url, then run \
                     it again",
                    self.host
                )));
            }
            tracing::warn!(host = self.host, reason, "Stripe does not answer; trying again");
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// Rows from before accounts were part of the scope become this account's, if their cards are in it.
    async fn adopt(
        &self,
        ledger: &Ledger,
        pace: &Pace,
        former: &Scope,
        scope: &Scope,
    ) -> Result<(), ScopeError> {
        let counts = ledger.counts().await?;
        let of_former: Vec<_> = counts.iter().filter(|counts| counts.scope == former.as_str()).collect();
        if of_former.is_empty() {
            return Ok(());
        }
        for counts in &of_former {
            let batch = crate::job::Batch::new(counts.batch.clone())
                .map_err(|error| ScopeError::Unusable(format!("a batch's name in the ledger {error}")))?;
            let page = ledger.batch_page(former, &batch, None, Only::of(Kind::Issued), FORMER_CARDS).await?;
            for row in page {
                let State::Issued(card) = &row.state else { continue };
                let paced = paced(pace, self.client.card(&card.id), |answer| match answer {
                    CardAnswer::Failed(reason) => Paced::Failed(reason.clone()),
                    CardAnswer::Limited(reason) => Paced::Limited(*reason),
                    _ => Paced::Accepted,
                });
                match paced.await {
                    Some(CardAnswer::Found(_)) => {
                        tracing::info!(
                            from = former.as_str(),
                            to = scope.as_str(),
                            "rows of the ledger get their account"
                        );
                        return Ok(ledger.rename_scope(former, scope).await?);
                    }
                    // Another account's.
                    Some(CardAnswer::Missing) => return Ok(()),
                    Some(CardAnswer::Limited(limit)) => {
                        return Err(ScopeError::Unreachable(format!(
                            "Stripe limits: {}; run it again",
                            limit.word()
                        )));
                    }
                    Some(
                        CardAnswer::Failed(reason)
                        | CardAnswer::Forbidden(reason)
                        | CardAnswer::KeyRejected(reason),
                    ) => {
                        return Err(ScopeError::Unreachable(format!(
                            "whose the ledger's cards are could not be asked: {reason}; run it again"
                        )));
                    }
                    None => {
                        return Err(ScopeError::Unreachable(
                            "stopped before Stripe was asked whose the ledger's cards are".into(),
                        ));
                    }
                }
            }
        }
        // No card was made in it: whatever was begun is looked for in this account.
        Ok(ledger.rename_scope(former, scope).await?)
    }
}

/// One call at the account's pace; none if the line is closing.
async fn paced<T>(pace: &Pace, call: impl Future<Output = T>, meaning: impl Fn(&T) -> Paced) -> Option<T> {
    loop {
        let turn = pace.turn().await.ok()?;
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        permit.departure().left();
        let answer = call.await;
        permit.answered(meaning(&answer));
        return Some(answer);
    }
}
