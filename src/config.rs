//! Every option: its default, its unit, and where it came from.
//!
//! Command line over environment over file over default. `config/embosser.toml` is the reference; a test holds
//! it and these defaults together. An unknown key is an error that names its line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All of embosser's options.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stripe's addresses, key and time-outs.
    pub stripe: StripeConfig,
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
    /// Calls per second that the account may make to the card endpoint.
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
    /// `sqlite://FILE` or `postgres://…`.
    pub url: String,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self { url: "sqlite://embosser.db".into() }
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
    pub jobs_to: JobsTo,
    /// File of the bearer tokens, hashed; none: only this machine is served.
    pub tokens_file: Option<PathBuf>,
    /// Largest upload, in MiB.
    pub upload_mib_max: u64,
    /// Most rows of one upload.
    pub rows_max: u64,
    /// Memory for all rows that wait for their call, in MiB.
    pub held_mib_max: u64,
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

/// `[rabbitmq]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RabbitmqConfig {
    /// `amqp://` or `amqps://`, with user, password and virtual host.
    pub url: BrokerUrl,
    /// File that holds the address instead, since it has a password in it.
    pub url_file: Option<PathBuf>,
    /// PEM file of the certificates that sign the broker's, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What the names of queues and exchanges begin with; one for each Stripe account.
    pub prefix: String,
    /// Whether missing queues and exchanges are made; else they are only checked.
    pub declare: bool,
    /// Most jobs in the queue; beyond it publishers wait.
    pub jobs_max: u32,
}

impl Default for RabbitmqConfig {
    fn default() -> Self {
        Self {
            url: BrokerUrl::from("amqp://guest:guest@127.0.0.1:5672/%2f"),
            url_file: None,
            ca_file: None,
            prefix: "embosser".into(),
            declare: true,
            jobs_max: 100_000,
        }
    }
}

/// `[worker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
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
        /// TOML's own explanation, with line and column.
        reason: String,
    },
    /// An environment variable is wrong.
    #[error("environment: {0}")]
    Environment(String),
    /// A value is out of its range.
    #[error("{key} = {value}: {reason}")]
    Value {
        /// The option, dotted.
        key: &'static str,
        /// What it was.
        value: String,
        /// What it must be.
        reason: &'static str,
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
                .map_err(|error| ConfigError::File { path: path.into(), reason: error.to_string() })?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let environment = config::Environment::with_prefix("EMBOSSER").prefix_separator("__").separator("__");
        let config: Self = builder
            .add_source(environment)
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| ConfigError::Environment(error.to_string()))?;
        config.checked()
    }

    /// Holds every value against its range.
    ///
    /// # Errors
    /// Names the first option that is out of its range.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let positive = [
            ("pace.endpoint_per_second", self.pace.endpoint_per_second, 100_000.0),
            ("pace.account_per_second", self.pace.account_per_second, 100_000.0),
            ("stripe.connect_timeout_seconds", self.stripe.connect_timeout_seconds, 3600.0),
            ("stripe.total_timeout_seconds", self.stripe.total_timeout_seconds, 3600.0),
            ("retry.elapsed_seconds_max", self.retry.elapsed_seconds_max, 82_800.0),
            ("retry.backoff_seconds_min", self.retry.backoff_seconds_min, 3600.0),
            ("retry.backoff_seconds_max", self.retry.backoff_seconds_max, 3600.0),
            ("worker.drain_seconds", self.worker.drain_seconds, 3600.0),
            // Both below RabbitMQ's consumer timeout, 30 minutes, after which it takes its deliveries back.
            ("worker.job_seconds_max", self.worker.job_seconds_max, 900.0),
            ("worker.held_seconds_max", self.worker.held_seconds_max, 900.0),
            ("worker.watchdog_seconds", self.worker.watchdog_seconds, 3600.0),
            // Below the 23 hours for which Stripe's idempotency keys are trusted.
            ("pin.max_age_seconds", self.pin.max_age_seconds, 82_799.0),
            ("http.header_seconds_max", self.http.header_seconds_max, 3600.0),
            ("http.idle_seconds_max", self.http.idle_seconds_max, 3600.0),
        ];
        for (key, value, max) in positive {
            if !(value.is_finite() && value > 0.0 && value <= max) {
                let reason = "must be above 0 and not absurdly large";
                return Err(ConfigError::Value { key, value: value.to_string(), reason });
            }
        }
        for (key, value) in [
            ("stripe.call_seconds_max", self.stripe.call_seconds_max),
            ("stripe.list_lag_seconds", self.stripe.list_lag_seconds),
        ] {
            // What is not a number is in no range.
            if !(0.1..=3600.0).contains(&value) {
                let reason = "must be from 0.1 to 3600";
                return Err(ConfigError::Value { key, value: value.to_string(), reason });
            }
        }
        if !(1..=10_000).contains(&self.stripe.same_refusals_max) {
            let (key, value) = ("stripe.same_refusals_max", self.stripe.same_refusals_max.to_string());
            return Err(ConfigError::Value { key, value, reason: "must be from 1 to 10000" });
        }
        if self.stripe.account_id.as_deref().is_some_and(|id| !is_account_id(id)) {
            // It may be a key that was put in the wrong place.
            let (key, value) = ("stripe.account_id", "(not shown)".into());
            return Err(ConfigError::Value { key, value, reason: "must be an account's id, like acct_1Abc" });
        }
        if self.retry.attempts_max == 0 {
            let (key, value) = ("retry.attempts_max", "0".into());
            return Err(ConfigError::Value { key, value, reason: "must be at least 1" });
        }
        let whole = [
            ("http.upload_mib_max", self.http.upload_mib_max, 65_536),
            ("http.rows_max", self.http.rows_max, 100_000_000),
            ("http.held_mib_max", self.http.held_mib_max, 65_536),
            // Each upload is checked on a thread of its own, of which there are 512.
            ("http.uploads_max", self.http.uploads_max as u64, 384),
            ("rabbitmq.jobs_max", self.rabbitmq.jobs_max.into(), 100_000_000),
            ("worker.message_kib_max", self.worker.message_kib_max, 16_384),
        ];
        for (key, value, max) in whole {
            if value == 0 || value > max {
                let reason = "must be at least 1 and not absurdly large";
                return Err(ConfigError::Value { key, value: value.to_string(), reason });
            }
        }
        self.checked_name()?;
        Ok(self)
    }

    /// Queue names are short strings of AMQP, and stand in log lines and on command lines.
    fn checked_name(&self) -> Result<(), ConfigError> {
        /// 255 bytes of AMQP, less what the longest queue's name adds.
        const PREFIX_BYTES_MAX: usize = 64;
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let prefix = &self.rabbitmq.prefix;
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(fine) {
            let reason = "must be 1 to 64 letters, digits, and . _ -";
            return Err(ConfigError::Value { key: "rabbitmq.prefix", value: prefix.clone(), reason });
        }
        Ok(())
    }
}

/// Whether this can be an account's id.
fn is_account_id(text: &str) -> bool {
    /// Longer than any of Stripe's ids.
    const BYTES_MAX: usize = 64;
    text.len() <= BYTES_MAX
        && text.strip_prefix("acct_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}
