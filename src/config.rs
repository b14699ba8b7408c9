//! Every option: its default, its unit, and where it came from.
//!
//! Command line over environment over file over default. `config/embosser.toml` is the reference; a test holds
//! it and these defaults together. An unknown key is an error that names its line.

mod accounts;
mod approval;
mod declare;
mod environment;
mod metrics;
mod misplaced;
mod pin_page;
pub mod place;
pub mod range;
mod stripe_events;
mod webhooks;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use accounts::{AccountConfig, AccountMode, AccountsConfig, Sources};
pub use approval::ApprovalConfig;
pub use declare::Declare;
pub use metrics::MetricsConfig;
pub use pin_page::PinPageConfig;
use serde::{Deserialize, Serialize};
pub use stripe_events::StripeEventsConfig;
pub use webhooks::{EVENTS, EndpointConfig, WebhooksConfig};

/// All of embosser's options.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stripe's addresses, key and time-outs.
    pub stripe: StripeConfig,
    /// The accounts, where there are several.
    pub accounts: AccountsConfig,
    /// The account's limits.
    pub pace: PaceConfig,
    /// How often and how long a call is repeated.
    pub retry: RetryConfig,
    /// Where outcomes are recorded.
    pub ledger: LedgerConfig,
    /// The HTTP API and its page.
    pub http: HttpConfig,
    /// The broker that jobs come from.
    pub rabbitmq: RabbitmqConfig,
    /// The worker.
    pub worker: WorkerConfig,
    /// How long PINs may wait.
    pub pin: PinConfig,
    /// Whether somebody else looks at a batch before it is issued.
    pub approval: ApprovalConfig,
    /// The pages on which cardholders choose a PIN or look at theirs.
    pub pin_page: PinPageConfig,
    /// What Stripe tells by itself.
    pub stripe_events: StripeEventsConfig,
    /// Who is told of a batch.
    pub webhooks: WebhooksConfig,
    /// What metrics name.
    pub metrics: MetricsConfig,
}

/// `[stripe]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StripeConfig {
    /// Base address of the API.
    pub api_url: String,
    /// The PIN key endpoint, in full.
    pub key_url: String,
    /// File that holds the API key, when `STRIPE_API_KEY` does not.
    pub api_key_file: Option<PathBuf>,
    /// The connected account to act for (`Stripe-Account`), if any.
    pub account: Option<String>,
    /// The account that the key belongs to, where the key may not ask.
    pub account_id: Option<String>,
    /// What people call the account: it is shown with the id.
    pub account_name: Option<String>,
    /// Whether Stripe is asked all the same if the key is that account's: of several accounts two may have been mixed up. No option.
    #[serde(skip)]
    pub account_id_is_asked: bool,
    /// The API version that requests are written against (`Stripe-Version`).
    pub api_version: String,
    /// Bound on opening a connection, in seconds.
    pub connect_timeout_seconds: f64,
    /// Bound on one call from first byte to last, in seconds.
    pub total_timeout_seconds: f64,
    /// How long a call may go on running at Stripe after it was sent, in seconds.
    pub call_seconds_max: f64,
    /// How long a new card may be missing from Stripe's lists, in seconds.
    pub list_lag_seconds: f64,
    /// Equal refusals in a row, with no success between, after which no further row is spent.
    pub same_refusals_max: u32,
}

impl Default for StripeConfig {
    fn default() -> Self {
        Self {
            api_url: "https://api.stripe.com".into(),
            key_url: "https://issuing-key.stripe.com/v1/keys".into(),
            api_key_file: None,
            account: None,
            account_id: None,
            account_name: None,
            account_id_is_asked: false,
            api_version: "2026-07-29.dahlia".into(),
            connect_timeout_seconds: 5.0,
            total_timeout_seconds: 30.0,
            call_seconds_max: 120.0,
            list_lag_seconds: 60.0,
            same_refusals_max: 10,
        }
    }
}

/// `[pace]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PaceConfig {
    /// Calls per second that the account may make to one endpoint: each has this limit of its own.
    pub endpoint_per_second: f64,
    /// Calls per second that the account may make in all.
    pub account_per_second: f64,
    /// Most jobs in flight at once; 0 lets embosser work it out from the pace.
    pub concurrency: usize,
}

impl Default for PaceConfig {
    fn default() -> Self {
        Self { endpoint_per_second: 25.0, account_per_second: 25.0, concurrency: 0 }
    }
}

/// `[retry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Most calls for one job in one run.
    pub attempts_max: u32,
    /// Longest time that one job is worked on in one run, in seconds, pauses of the whole line not counted.
    pub elapsed_seconds_max: f64,
    /// First wait before a repeated call, in seconds; it doubles, with jitter.
    pub backoff_seconds_min: f64,
    /// Longest wait before a repeated call, in seconds.
    pub backoff_seconds_max: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts_max: 24,
            elapsed_seconds_max: 600.0,
            backoff_seconds_min: 0.25,
            backoff_seconds_max: 8.0,
        }
    }
}

/// `[ledger]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// `sqlite://FILE` or `postgres://…`; empty: the user's own place ([`place`]).
    pub url: String,
    /// How long a database that is away is waited for, in seconds.
    pub patience_seconds: f64,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { url: String::new(), patience_seconds: 300.0 }
    }
}

/// Where jobs go that come over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobsTo {
    /// Down the line in the same process.
    #[default]
    Line,
    /// To RabbitMQ, for a worker with a test key.
    RabbitmqTest,
    /// To RabbitMQ, for a worker with a live key.
    RabbitmqLive,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port to listen on.
    pub listen: std::net::SocketAddr,
    /// Where the jobs go that `serve` takes in.
    #[serde(deserialize_with = "environment::word")]
    pub jobs_to: JobsTo,
    /// File of the bearer tokens, hashed; none: only this machine is served.
    pub tokens_file: Option<PathBuf>,
    /// Largest upload, in MiB.
    pub upload_mib_max: u64,
    /// Most rows of one upload.
    pub rows_max: u64,
    /// Memory for all rows that wait for their call, in MiB.
    pub held_mib_max: u64,
    /// Folder of columns files that uploads can name.
    pub columns_directory: Option<PathBuf>,
    /// Most uploads at once.
    pub uploads_max: usize,
    /// Longest time for a request's head, in seconds; also the longest that a connection rests between requests.
    pub header_seconds_max: f64,
    /// Longest pause inside an upload or a download, in seconds.
    pub idle_seconds_max: f64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 8080)),
            jobs_to: JobsTo::default(),
            tokens_file: None,
            upload_mib_max: 512,
            rows_max: 1_000_000,
            held_mib_max: 256,
            columns_directory: None,
            uploads_max: 128,
            header_seconds_max: 30.0,
            idle_seconds_max: 30.0,
        }
    }
}

/// A broker's address with its credentials: shown without them, whoever asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The address in full; for connecting, nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for BrokerUrl {
    fn from(url: &str) -> Self {
        Self(url.into())
    }
}

impl std::fmt::Debug for BrokerUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No credentials stand behind the last @, whether or not the whole is an address.
        formatter.write_str(self.0.rsplit('@').next().unwrap_or(""))
    }
}

/// A list, or one text, which whoever connects takes apart.
fn list_or_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<BrokerUrl>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<BrokerUrl>),
        Text(BrokerUrl),
    }
    match Written::deserialize(deserializer) {
        Ok(Written::List(urls)) => Ok(urls),
        Ok(Written::Text(url)) => Ok(vec![url]),
        // serde's own words would show what was found.
        Err(_) => Err(serde::de::Error::custom("urls is a list of addresses")),
    }
}

/// `[rabbitmq]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RabbitmqConfig {
    /// `amqp://` or `amqps://`, with user, password and virtual host.
    pub url: BrokerUrl,
    /// Those of a cluster's nodes instead, which are tried in turn; in an environment variable one text, between commas.
    #[serde(deserialize_with = "list_or_text")]
    pub urls: Vec<BrokerUrl>,
    /// File that holds the addresses instead, a line each, since they have a password in them.
    pub url_file: Option<PathBuf>,
    /// PEM file of the certificates that sign the broker's, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What the names of queues and exchanges begin with; one for each Stripe account.
    pub prefix: String,
    /// Whether missing queues and exchanges are made.
    pub declare: Declare,
    /// Most jobs in the queue; beyond it publishers wait.
    pub jobs_max: u32,
}

impl Default for RabbitmqConfig {
    fn default() -> Self {
        Self {
            url: BrokerUrl::from("amqp://guest:guest@127.0.0.1:5672/%2f"),
            urls: Vec::new(),
            url_file: None,
            ca_file: None,
            prefix: "embosser".into(),
            declare: Declare::Missing,
            jobs_max: 100_000,
        }
    }
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Address and port of the worker's health and metrics.
    pub listen: std::net::SocketAddr,
    /// How long calls in flight may take to end after SIGTERM, in seconds.
    pub drain_seconds: f64,
    /// Longest time that one job is worked on before it waits on the retry ladder instead, in seconds.
    pub job_seconds_max: f64,
    /// Longest time that jobs are held while Stripe is down, in seconds.
    pub held_seconds_max: f64,
    /// After so long without a delivery the broker is asked whether there should have been one, in seconds.
    pub watchdog_seconds: f64,
    /// Largest job message, in KiB.
    pub message_kib_max: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 8081)),
            drain_seconds: 35.0,
            job_seconds_max: 20.0,
            held_seconds_max: 300.0,
            watchdog_seconds: 20.0,
            message_kib_max: 128,
        }
    }
}

/// `[pin]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PinConfig {
    /// Longest time from a job's publishing to the use of its PIN, in seconds.
    pub max_age_seconds: f64,
}

impl Default for PinConfig {
    fn default() -> Self {
        Self { max_age_seconds: 3600.0 }
    }
}

/// Seconds from the configuration as a `Duration`; validated to be finite and positive on load.
#[must_use]
pub fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

/// Why the configuration cannot be used; the text says where.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file's text is wrong: syntax, an unknown key, a wrong type.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// TOML's own explanation, with line and column, and without the line itself: it may hold a password.
        reason: String,
    },
    /// An environment variable is wrong.
    #[error("environment: {0}")]
    Environment(String),
    /// One of several accounts is wrong.
    #[error("{place}: {reason}")]
    Account {
        /// Where it stands.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A value is out of its range.
    #[error("{key} = {value}: {reason}")]
    Value {
        /// The option, dotted.
        key: &'static str,
        /// What it was.
        value: String,
        /// What it must be.
        reason: String,
    },
}

impl Config {
    /// Reads the file (if any), then the environment over it.
    ///
    /// # Errors
    /// Says which file, line, variable or option is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder().add_source(
            config::Config::try_from(&Self::default())
                .expect("the defaults are plain values, which serialise"),
        );
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.into(), source })?;
            // Parsed on its own first: only then does an unknown key's error carry its line.
            toml::from_str::<Self>(&text)
                .map_err(|error| ConfigError::File { path: path.into(), reason: place_of(&error, &text) })?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        if let Some((found, meant)) = environment::misspelt(names) {
            let reason = format!("{found} is no option; {meant} is meant, with two underscores each");
            return Err(ConfigError::Environment(reason));
        }
        let environment = config::Environment::with_prefix("EMBOSSER").prefix_separator("__").separator("__");
        let config: Self = builder
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| ConfigError::Environment(without_values(&error.to_string())))?;
        config.checked()
    }
}

/// Where a file is wrong, and how.
fn place_of(error: &toml::de::Error, text: &str) -> String {
    let message = without_values(error.message());
    let Some(span) = error.span() else { return message };
    let before = &text[..text.floor_char_boundary(span.start)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

/// The message without the text that was found where something else was expected: it may be an address with a password.
fn without_values(message: &str) -> String {
    const FOUND: &str = "string \"";
    const EXPECTED: &str = "\", expected";
    match (message.find(FOUND), message.rfind(EXPECTED)) {
        (Some(found), Some(expected)) if found + FOUND.len() <= expected => {
            format!("{}a text{}", &message[..found], &message[expected + 1..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_shown_without_what_may_be_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("embosser.toml");
        for (text, said) in [
            ("[rabbitmq]\nurll = \"amqp://u:SECRET@h\"\n", "line 2, column 1: unknown field `urll`"),
            ("[rabbitmq]\nurl = \"amqp://u:SECRET@h\n", "line 2"),
            ("ledger = \"postgres://u:SECRET@h/d\"\n", "line 1, column 10: invalid type: a text, expected"),
            ("[pace]\nconcurrency = \"SECRET\"\n", "line 2, column 15: invalid type: a text, expected"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Config::load(Some(&path)).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("SECRET"), "{error}");
        }
        let environment =
            "invalid type: string \"postgres://u:SECRET@h\", expected struct LedgerConfig for key `ledger`";
        assert_eq!(
            without_values(environment),
            "invalid type: a text, expected struct LedgerConfig for key `ledger`"
        );
    }
}
