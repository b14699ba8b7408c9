//! `[accounts]`: the Stripe accounts that one embosser acts for, where there are several.
//!
//! Each has a key and limits of its own, and queues of its own. [`Config::of_account`] is the configuration of one of them, as
//! if it were the only one: whatever acts for one account needs to know of no other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::misplaced::{NO_FILE, is_secret};
use super::range::{NAME_FOR_PEOPLE, PER_SECOND_MAX, above_zero_up_to, is_account_id, is_name_for_people};
use super::{Config, ConfigError, place_of};

/// Most accounts of one embosser. Each has nine queues, and a connection of a worker's, at the broker.
const ACCOUNTS_MAX: usize = 1000;
/// Longest prefix of queues' names: 255 bytes of AMQP, less what the longest queue's name adds.
const PREFIX_BYTES_MAX: usize = 64;

/// `[accounts]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccountsConfig {
    /// The accounts.
    pub list: Vec<AccountConfig>,
    /// Folder of files, `*.toml`, with an account each, beside the list.
    pub directory: Option<PathBuf>,
    /// Calls per second of all of them together, in one process; none: each has its own limits alone.
    pub platform_per_second: Option<f64>,
}

/// One of several accounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// Stripe's id of it.
    pub id: String,
    /// What people call it: it is shown with the id.
    #[serde(default)]
    pub name: Option<String>,
    /// File that holds its own API key. Without this and `api_key_variable`, the platform's key acts for it (`Stripe-Account`).
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// Environment variable that holds its own API key.
    #[serde(default)]
    pub api_key_variable: Option<String>,
    /// Whether its cards are real: what the key must be.
    #[serde(default)]
    pub mode: Option<AccountMode>,
    /// Calls per second to one endpoint; none: `pace.endpoint_per_second`.
    #[serde(default)]
    pub endpoint_per_second: Option<f64>,
    /// Calls per second in all; none: `pace.account_per_second`.
    #[serde(default)]
    pub account_per_second: Option<f64>,
    /// What the names of its queues begin with; none: `rabbitmq.prefix`, a dot and the id.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// Whether an account's cards are real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountMode {
    /// They are.
    Live,
    /// They are for trials.
    Test,
}

/// The files that say what accounts there are.
#[derive(Debug, Clone)]
pub struct Sources {
    files: Vec<PathBuf>,
    directory: Option<PathBuf>,
}

impl Sources {
    /// All of them at this moment, with those that the folder has now.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let of_folder = self.directory.as_deref().and_then(|directory| files_in(directory).ok());
        self.files.iter().cloned().chain(of_folder.unwrap_or_default()).collect()
    }
}

/// An account, and where it stands in the configuration.
struct Placed {
    account: AccountConfig,
    place: String,
}

impl AccountsConfig {
    /// Whether any are configured.
    #[must_use]
    pub fn are_configured(&self) -> bool {
        !self.list.is_empty() || self.directory.is_some()
    }
}

impl AccountConfig {
    /// Whether it has an API key of its own; else the platform's acts for it.
    #[must_use]
    pub fn has_own_key(&self) -> bool {
        self.api_key_file.is_some() || self.api_key_variable.is_some()
    }

    /// What the names of its queues begin with.
    #[must_use]
    pub fn prefix(&self, config: &Config) -> String {
        self.prefix.clone().unwrap_or_else(|| format!("{}.{}", config.rabbitmq.prefix, self.id))
    }

    /// What is wrong with it by itself.
    fn problem(&self, config: &Config) -> Option<String> {
        if let Some(name) = self.name.as_deref().filter(|name| !is_name_for_people(name)) {
            return Some(format!("name = {name:?}: {NAME_FOR_PEOPLE}"));
        }
        if self.api_key_file.is_some() && self.api_key_variable.is_some() {
            return Some("it has an api_key_file and an api_key_variable; keep one of them".into());
        }
        if self.api_key_file.as_deref().is_some_and(is_secret) {
            return Some(format!("api_key_file {NO_FILE}"));
        }
        if self.api_key_variable.as_deref().is_some_and(|name| !is_variable(name)) {
            // It may be the key itself.
            return Some(
                "api_key_variable must be the name of an environment variable, like STRIPE_KEY_OF_ONE".into(),
            );
        }
        for (option, value) in [
            ("endpoint_per_second", self.endpoint_per_second),
            ("account_per_second", self.account_per_second),
        ] {
            if let Some(value) = value
                && !above_zero_up_to(value, PER_SECOND_MAX)
            {
                return Some(format!("{option} = {value}: must be above 0 and up to 100,000"));
            }
        }
        let prefix = self.prefix(config);
        (!is_prefix(&prefix)).then(|| {
            format!("its queues' names would begin with {prefix:?}: set prefix to 1 to 64 letters, digits, and . _ -")
        })
    }
}

impl Config {
    /// The accounts that are configured, from the list and from the folder's files; none if `[accounts]` has none, and the one
    /// account is that of `[stripe]`.
    ///
    /// # Errors
    /// Says which account is wrong, and where it stands.
    pub fn accounts(&self) -> Result<Vec<AccountConfig>, ConfigError> {
        if !self.accounts.are_configured() {
            return Ok(Vec::new());
        }
        let stripe = &self.stripe;
        if stripe.account.is_some() || stripe.account_id.is_some() || stripe.account_name.is_some() {
            return Err(wrong(
                "[accounts]",
                "stripe.account, stripe.account_id and stripe.account_name name the one account where there is only one: leave them out",
            ));
        }
        let listed = self.accounts.list.iter().enumerate().map(|(index, account)| Placed {
            account: account.clone(),
            place: format!("accounts.list, number {}", index + 1),
        });
        let mut all: Vec<Placed> = listed.collect();
        if let Some(directory) = &self.accounts.directory {
            all.extend(read_directory(directory)?);
        }
        if all.is_empty() {
            return Err(wrong("accounts.directory", "there is no file *.toml in it, so there is no account"));
        }
        if all.len() > ACCOUNTS_MAX {
            let reason = format!("{} accounts; one embosser takes up to {ACCOUNTS_MAX}", all.len());
            return Err(wrong("[accounts]", &reason));
        }
        self.are_sound(&all)?;
        Ok(all.into_iter().map(|placed| placed.account).collect())
    }

    /// What says what accounts there are: the configuration's own `file`, the accounts' files, and those of their keys.
    #[must_use]
    pub fn sources_of_accounts(&self, file: Option<&Path>) -> Sources {
        // As long as one of them is wrong, that is to be mended first.
        let keys = self.accounts().unwrap_or_default().into_iter().filter_map(|account| account.api_key_file);
        let own = file.map(Path::to_owned).into_iter().chain(self.stripe.api_key_file.clone());
        Sources { files: own.chain(keys).collect(), directory: self.accounts.directory.clone() }
    }

    /// Each of them by itself, and whether two would get in each other's way.
    fn are_sound(&self, all: &[Placed]) -> Result<(), ConfigError> {
        let (mut ids, mut prefixes) = (HashMap::new(), HashMap::new());
        for Placed { account, place } in all {
            if !is_account_id(&account.id) {
                // It may be a key that was put in the wrong place.
                return Err(wrong(
                    place,
                    "id must be an account's id, like acct_1Abc (what stands there is not shown)",
                ));
            }
            let place = format!("{place} ({})", account.id);
            if let Some(reason) = account.problem(self) {
                return Err(wrong(&place, &reason));
            }
            if let Some(before) = ids.insert(account.id.as_str(), place.clone()) {
                return Err(wrong(
                    &place,
                    &format!("the same account stands in {before}, too: keep one of them"),
                ));
            }
            let prefix = account.prefix(self);
            if let Some(before) = prefixes.insert(prefix.clone(), place.clone()) {
                let reason = format!(
                    "its queues' names begin with {prefix:?}, as those of {before}: each account has its own"
                );
                return Err(wrong(&place, &reason));
            }
        }
        Ok(())
    }

    /// The configuration of one of its accounts, as if that were the only one.
    #[must_use]
    pub fn of_account(&self, account: &AccountConfig) -> Self {
        let mut config = self.clone();
        let named = Some(account.id.clone());
        config.stripe.account_name.clone_from(&account.name);
        if account.has_own_key() {
            config.stripe.api_key_file.clone_from(&account.api_key_file);
            config.stripe.account_id = named;
            config.stripe.account_id_is_asked = true;
        } else {
            config.stripe.account = named;
        }
        let pace = &mut config.pace;
        pace.endpoint_per_second = account.endpoint_per_second.unwrap_or(pace.endpoint_per_second);
        pace.account_per_second = account.account_per_second.unwrap_or(pace.account_per_second);
        if let Some(together) = self.accounts.platform_per_second {
            pace.account_per_second = pace.account_per_second.min(together);
        }
        config.rabbitmq.prefix = account.prefix(self);
        // Where `serve` has this account's pages, alone or beside others.
        if let Some(url) = &mut config.pin_page.url {
            *url = format!("{}/accounts/{}", url.trim_end_matches('/'), account.id);
        }
        config.accounts = AccountsConfig::default();
        config
    }
}

fn wrong(place: &str, reason: &str) -> ConfigError {
    ConfigError::Account { place: place.to_owned(), reason: reason.to_owned() }
}

/// The folder's accounts, in the order of their files' names.
fn read_directory(directory: &Path) -> Result<Vec<Placed>, ConfigError> {
    files_in(directory)?.iter().map(|path| read_file(path)).collect()
}

/// The folder's files of accounts, in the order of their names.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let to_error = |source| ConfigError::Read { path: directory.into(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(to_error)? {
        let path = entry.map_err(to_error)?.path();
        // What an editor keeps beside a file begins with a dot, or has another ending.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|ending| ending == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Placed, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
    let account = toml::from_str(&text)
        .map_err(|error| ConfigError::File { path: path.into(), reason: place_of(&error, &text) })?;
    Ok(Placed { account, place: path.display().to_string() })
}

fn is_variable(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(fine) && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Whether names of queues can begin so: they are short strings of AMQP, and stand in log lines and on command lines.
pub(super) fn is_prefix(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= PREFIX_BYTES_MAX && text.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(toml: &str) -> Result<Vec<AccountConfig>, String> {
        toml::from_str::<Config>(toml).unwrap().accounts().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_with_an_account_is_told_with_its_place_and_no_key_is_shown() {
        let one = "[[accounts.list]]\nid = \"acct_1\"\n";
        for (toml, expected) in [
            (one.replace("acct_1", "sk_test_SECRET"), "accounts.list, number 1: id must be"),
            (
                format!("{one}{one}"),
                "number 2 (acct_1): the same account stands in accounts.list, number 1 (acct_1)",
            ),
            (
                format!("{one}api_key_variable = \"sk_test_SECRET\"\n"),
                "number 1 (acct_1): api_key_variable must be",
            ),
            (
                format!("{one}api_key_file = \"sk_test_SECRET0123456789\"\n"),
                "number 1 (acct_1): api_key_file must be the name of a file",
            ),
            (format!("{one}api_key_variable = \"A\"\napi_key_file = \"b\"\n"), "keep one of them"),
            (format!("{one}account_per_second = 0.0\n"), "account_per_second = 0: must be above 0"),
            (format!("{one}name = \"\"\n"), "name = \"\": must be 1 to 60 characters"),
            (format!("{one}name = \"\\u202Eemca\"\n"), "must be 1 to 60 characters"),
            (format!("{one}prefix = \"a b\"\n"), "set prefix to 1 to 64 letters"),
            (
                format!("{one}prefix = \"a\"\n[[accounts.list]]\nid = \"acct_2\"\nprefix = \"a\"\n"),
                "number 2 (acct_2): its queues' names begin with \"a\", as those of accounts.list, number 1 (acct_1)",
            ),
            (format!("{one}[stripe]\naccount_id = \"acct_1\"\n"), "leave them out"),
        ] {
            let error = accounts(&toml).unwrap_err();
            assert!(error.contains(expected) && !error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn without_accounts_there_is_the_one_of_before() {
        assert_eq!(accounts(""), Ok(Vec::new()));
    }

    #[test]
    fn a_folder_has_a_file_for_each_account() {
        let folder = tempfile::tempdir().unwrap();
        let config = || format!("[accounts]\ndirectory = {:?}\n", folder.path().to_str().unwrap());
        assert!(accounts(&config()).unwrap_err().contains("no file *.toml"));
        std::fs::write(folder.path().join("b.toml"), "id = \"acct_2\"\nprefix = \"two\"\n").unwrap();
        std::fs::write(folder.path().join("a.toml"), "id = \"acct_1\"\nmode = \"test\"\n").unwrap();
        for ignored in [".a.toml", "a.toml~", "README"] {
            std::fs::write(folder.path().join(ignored), "?").unwrap();
        }
        let ids: Vec<_> = accounts(&config()).unwrap().into_iter().map(|account| account.id).collect();
        assert_eq!(ids, ["acct_1", "acct_2"]);
        std::fs::write(folder.path().join("c.toml"), "id = \"acct_3\"\nrate = 5\n").unwrap();
        let error = accounts(&config()).unwrap_err();
        assert!(error.contains("c.toml: line 2, column 1: unknown field `rate`"), "{error}");
    }

    #[test]
    fn one_of_several_is_as_if_it_were_the_only_one() {
        let config: Config = toml::from_str(
            "[stripe]\napi_key_file = \"platform\"\n[pace]\nendpoint_per_second = 20.0\n\
             [accounts]\nplatform_per_second = 10.0\n[[accounts.list]]\nid = \"acct_1\"\naccount_per_second = 7.0\n\
             [[accounts.list]]\nid = \"acct_2\"\napi_key_file = \"own\"\nprefix = \"two\"\n",
        )
        .unwrap();
        let [one, two] = &config.accounts().unwrap()[..] else { panic!() };
        let (one, two) = (config.of_account(one), config.of_account(two));
        assert_eq!(one.stripe.account.as_deref(), Some("acct_1"));
        assert_eq!((one.stripe.account_id, one.stripe.api_key_file), (None, Some("platform".into())));
        assert_eq!((one.pace.endpoint_per_second, one.pace.account_per_second), (20.0, 7.0));
        assert_eq!(two.pace.account_per_second, 10.0, "no more alone than all may together");
        assert_eq!((one.rabbitmq.prefix.as_str(), two.rabbitmq.prefix.as_str()), ("embosser.acct_1", "two"));
        assert_eq!((two.stripe.account, two.stripe.account_id.as_deref()), (None, Some("acct_2")));
        assert_eq!(two.stripe.api_key_file, Some("own".into()));
        assert!(!two.accounts.are_configured());
    }
}
