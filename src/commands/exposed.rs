//! Warns at the start of files that every user of this machine can read or change, and should not.

use std::path::Path;

use crate::config::Config;
use crate::config::place::file_of;
use crate::files::{OpenToAll, open_to_all};

/// Warns of the files that the configuration names, and of an SQLite ledger.
pub fn warn(config: &Config) {
    let named = [
        ("stripe.api_key_file", &config.stripe.api_key_file),
        ("http.tokens_file", &config.http.tokens_file),
        ("rabbitmq.url_file", &config.rabbitmq.url_file),
        ("stripe_events.secret_file", &config.stripe_events.secret_file),
    ];
    for (option, file) in named {
        if let Some(file) = file {
            warn_of(option, file);
        }
    }
    for account in config.accounts().unwrap_or_default() {
        if let Some(file) = &account.api_key_file {
            warn_of("an account's api_key_file", file);
        }
    }
    for endpoint in &config.webhooks.endpoints {
        if let Some(file) = &endpoint.secret_file {
            warn_of("a webhook's secret_file", file);
        }
    }
    if let Some(ledger) = file_of(&config.ledger.url) {
        // What was written last is in the -wal file until it is moved on.
        for ending in ["", "-wal"] {
            let mut file = ledger.clone().into_os_string();
            file.push(ending);
            warn_of("the ledger", Path::new(&file));
        }
    }
}

/// Warns of a configuration file with a secret in it: a password, or an address of a webhook with more than a place, which is
/// often what lets its caller in.
pub fn warn_of_configuration(file: &Path) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    let Ok(config) = toml::from_str::<Config>(&text) else { return };
    let defaults = Config::default();
    let has_password = |url: &str, default: &str| {
        url != default && url::Url::parse(url).is_ok_and(|url| url.password().is_some())
    };
    if has_password(config.rabbitmq.url.expose(), defaults.rabbitmq.url.expose())
        || has_password(&config.ledger.url, &defaults.ledger.url)
    {
        warn_of("the configuration, which has a password in it,", file);
        return;
    }
    let may_hold_token = |url: &str| {
        url::Url::parse(url)
            .is_ok_and(|url| url.query().is_some() || url.password().is_some() || !url.username().is_empty())
    };
    if config.webhooks.endpoints.iter().any(|endpoint| may_hold_token(&endpoint.url)) {
        warn_of("the configuration, which has a webhook's address with what may be a secret in it,", file);
    }
}

fn warn_of(what: &str, file: &Path) {
    let can = match open_to_all(file) {
        None => return,
        Some(OpenToAll::Read) => "read",
        Some(OpenToAll::Write) => "change",
    };
    let file = file.display();
    tracing::warn!(
        "every user of this machine can {can} {what} {file}: close it to them with chmod o= '{file}'"
    );
}
