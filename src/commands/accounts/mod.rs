//! Which account a command acts for, and with which key: that of `[stripe]`, or one of `[accounts]`.

pub mod reached;
pub mod running;
pub mod watched;

use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{AccountConfig, AccountMode, Config};
use crate::stripe::Mode;

/// The platform's, or the only account's.
const VARIABLE: &str = "STRIPE_API_KEY";
/// Ids that an error lists; a platform may have hundreds.
const LISTED_MAX: usize = 20;

/// Whom a command calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stripe {
    /// Stripe, with a key.
    Itself,
    /// A sandbox in this process (`--sandbox`), which needs none.
    Sandbox,
    /// Nobody: it only publishes.
    Nobody,
}

impl Stripe {
    /// By `--sandbox`.
    #[must_use]
    pub fn of(sandbox: bool) -> Self {
        if sandbox { Self::Sandbox } else { Self::Itself }
    }
}

/// `--account`
#[derive(Debug, Clone, Default, clap::Args)]
pub struct AccountArgs {
    /// Which of the configured accounts it is for (acct_…), where there are several.
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
}

/// The configuration of the account that a command is for, as if there were no other, and its API key, if there is one.
///
/// # Errors
/// If no account is named and there are several, or another one is named than are configured, or its key cannot be read.
pub fn one(
    config: &Config,
    args: &AccountArgs,
    stripe: Stripe,
) -> Result<(Config, Option<SecretString>), String> {
    let Some(account) = named(config, args)? else { return Ok((config.clone(), platform_key(config)?)) };
    let key = match stripe {
        Stripe::Itself => Some(key_of(&account, config)?),
        Stripe::Sandbox | Stripe::Nobody => None,
    };
    Ok((of_account(config, &account, stripe), key))
}

/// The configuration of one of several accounts, as if there were no other.
#[must_use]
pub fn of_account(config: &Config, account: &AccountConfig, stripe: Stripe) -> Config {
    let mut config = config.of_account(account);
    if stripe == Stripe::Sandbox {
        // It has no keys of accounts.
        config.stripe.account = Some(account.id.clone());
    }
    config
}

/// The same without a key, for a command that only publishes.
///
/// # Errors
/// As [`one`], but for the key.
pub fn one_without_key(config: &Config, args: &AccountArgs) -> Result<Config, String> {
    Ok(named(config, args)?.map_or_else(|| config.clone(), |account| config.of_account(&account)))
}

/// The account that is named; none where only that of `[stripe]` is configured.
fn named(config: &Config, args: &AccountArgs) -> Result<Option<AccountConfig>, String> {
    let mut accounts = config.accounts().map_err(|error| error.to_string())?;
    let Some(wanted) = &args.account else {
        return match accounts.len() {
            0 | 1 => Ok(accounts.pop()),
            _ => Err(format!(
                "several accounts are configured; say which one with --account: {}",
                ids(&accounts)
            )),
        };
    };
    if accounts.is_empty() {
        let known = config.stripe.account.as_ref().or(config.stripe.account_id.as_ref());
        return match known {
            Some(known) if known == wanted => Ok(None),
            Some(known) => Err(format!("--account {wanted}: the configuration's account is {known}")),
            None => Err(format!(
                "--account {wanted}: no accounts are configured; add them to [accounts], or leave --account out to act for \
                 the account of the API key"
            )),
        };
    }
    let at = accounts.iter().position(|account| account.id == *wanted);
    match at {
        Some(at) => Ok(Some(accounts.swap_remove(at))),
        None => {
            Err(format!("--account {wanted}: it is not among the configured accounts: {}", ids(&accounts)))
        }
    }
}

fn ids(accounts: &[AccountConfig]) -> String {
    let listed: Vec<_> = accounts.iter().take(LISTED_MAX).map(|account| account.id.as_str()).collect();
    let more = accounts.len().saturating_sub(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", listed.join(", "))
}

/// The key that acts for an account: its own, or the platform's.
///
/// # Errors
/// If there is none, or one of the other mode.
pub fn key_of(account: &AccountConfig, config: &Config) -> Result<SecretString, String> {
    let id = &account.id;
    let key = match (&account.api_key_file, &account.api_key_variable) {
        (Some(file), _) => read(file, &format!("account {id}: api_key_file {}", file.display()))?,
        (None, Some(variable)) => {
            let place = format!("account {id}: the environment variable {variable} (api_key_variable)");
            let key = std::env::var(variable).map_err(|_| format!("{place} is not set"))?;
            secret_key(&key, &place)?
        }
        (None, None) => platform_key(config)?.ok_or_else(|| {
            format!(
                "account {id}: no API key: set {VARIABLE} or stripe.api_key_file to the platform's key, or the account's \
                 api_key_file or api_key_variable to its own"
            )
        })?,
    };
    let (is, wanted) = (Mode::of(&key), account.mode);
    match (is, wanted) {
        (Mode::Live, Some(AccountMode::Test)) => Err(format!(
            "account {id}: mode is test, and its key counts as live (only sk_test_… and rk_test_… prove that they are not); \
             nothing was done"
        )),
        (Mode::Test, Some(AccountMode::Live)) => {
            Err(format!("account {id}: mode is live, and its key is a test key; nothing was done"))
        }
        _ => Ok(key),
    }
}

/// The key from the environment or the configured file; never from an argument, which every user of the machine
/// could read.
fn platform_key(config: &Config) -> Result<Option<SecretString>, String> {
    if let Ok(key) = std::env::var(VARIABLE)
        && !key.trim().is_empty()
    {
        return secret_key(&key, VARIABLE).map(Some);
    }
    let Some(file) = &config.stripe.api_key_file else { return Ok(None) };
    read(file, &format!("stripe.api_key_file {}", file.display())).map(Some)
}

fn read(file: &Path, place: &str) -> Result<SecretString, String> {
    let key: SecretString =
        std::fs::read_to_string(file).map_err(|error| format!("{place}: {error}"))?.into();
    secret_key(key.expose_secret(), place)
}

/// A key that can be one of Stripe's secret ones: anything else would be sent to Stripe only to be refused.
fn secret_key(key: &str, place: &str) -> Result<SecretString, String> {
    let key = key.trim();
    let (kind, rest) = key.split_once('_').unwrap_or_default();
    if kind.is_empty() || rest.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return Err(format!(
            "{place} holds no key of Stripe's: a secret or restricted key begins with sk_ or rk_, as in rk_live_… and sk_test_…"
        ));
    }
    Ok(key.to_owned().into())
}
