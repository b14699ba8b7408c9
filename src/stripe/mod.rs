//! Stripe over HTTP: the PIN key, card creation, and the list of a cardholder's cards.
//!
//! Duty: to make one call and say what its answer means. Never: to repeat a call by itself, to follow a redirect
//! (the API key would travel), or to let the key or a body into a log.

pub(crate) mod answer;
mod outgoing;

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::{StripeConfig, seconds};
use crate::outcome::Card;

pub use answer::{Answer, LimitReason, Listed};

/// Connections kept open to each host while idle; as many as may ever be in flight.
const IDLE_CONNECTIONS_MAX: usize = 1024;
/// How long an idle connection is kept: below the 60 s after which load balancers tend to close theirs.
const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(50);
/// Most bytes read of an answer. A page of 100 cards is about 400 KB; anything far beyond is not Stripe's.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Whether a key moves real money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `sk_live_…` or `rk_live_…`.
    Live,
    /// Anything else.
    Test,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An address is not one.
    #[error("stripe.{option} = {value:?} is not an http or https address: {reason}")]
    Address {
        /// The option.
        option: &'static str,
        /// Its value.
        value: String,
        /// The reason.
        reason: String,
    },
    /// A live key, and an address that is not Stripe's.
    #[error(
        "a live key is only ever sent to https://*.stripe.com, not to {0}; use a test key, or unset stripe.api_url"
    )]
    LiveKeyElsewhere(String),
    /// The key, the account or the version has characters that no header can carry.
    #[error("{0} has characters that cannot be sent in a header (a line break from a file, perhaps)")]
    Header(&'static str),
    /// The HTTP client could not be built.
    #[error("HTTP client: {0}")]
    Http(String),
}

/// A connection pool with the account's credentials.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    cards_url: url::Url,
    key_url: url::Url,
    headers: HeaderMap,
    mode: Mode,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("cards_url", &self.cards_url.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes the pool. No connection is opened yet.
    ///
    /// # Errors
    /// If an address or the key cannot be used, or a live key would leave Stripe.
    pub fn new(config: &StripeConfig, api_key: &SecretString) -> Result<Self, ClientError> {
        let api_url = address("api_url", &config.api_url)?;
        let key_url = address("key_url", &config.key_url)?;
        let mode = mode_of(api_key);
        if mode == Mode::Live {
            for url in [&api_url, &key_url] {
                if !is_stripes(url) {
                    return Err(ClientError::LiveKeyElsewhere(url.host_str().unwrap_or("").to_owned()));
                }
            }
        }
        let mut cards_url = api_url.clone();
        cards_url.set_path(&format!("{}/v1/issuing/cards", api_url.path().trim_end_matches('/')));
        Ok(Self {
            http: http_client(config, is_loopback(&api_url))?,
            cards_url,
            key_url,
            headers: headers(config, api_key)?,
            mode,
        })
    }

    /// Whether the key moves real money.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The API's host and port, as the ledger's scope names it.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.cards_url.host_str().unwrap_or("");
        self.cards_url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Fetches the key that PINs must be encrypted under at this moment: the endpoint's document as it came.
    ///
    /// # Errors
    /// A sentence saying what went wrong. No card can have come of it.
    pub async fn pin_key(&self) -> Result<Bytes, String> {
        let mut request = Request::begin("pin_key", "GET", &self.key_url);
        let response = self.http.get(self.key_url.clone()).send().await.map_err(|error| brief(&error))?;
        let status = request.answered(&response);
        let body = read(response).await?;
        if status.is_success() { Ok(body) } else { Err(format!("the key endpoint answered {status}")) }
    }

    /// Makes one create call. `body` is wiped once it is no longer needed; `leaves` is called when it is about to be
    /// written to a connection, and never if it is not.
    pub async fn create_card(
        &self,
        idempotency_key: &str,
        body: Zeroizing<Vec<u8>>,
        leaves: impl FnOnce() + Send + Sync + Unpin + 'static,
    ) -> Answer {
        let request = self
            .http
            .post(self.cards_url.clone())
            .headers(self.headers.clone())
            .header("idempotency-key", idempotency_key)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(reqwest::Body::wrap(outgoing::Outgoing::new(Bytes::from_owner(body), leaves)));
        let mut timed = Request::begin("create_card", "POST", &self.cards_url);
        match request.send().await {
            Err(error) if error.is_connect() || error.is_builder() => Answer::NotSent(brief(&error)),
            Err(error) => Answer::no_answer(brief(&error)),
            Ok(response) => {
                let status = timed.answered(&response);
                let headers = response.headers().clone();
                answer::of_create(status, &headers, read(response).await)
            }
        }
    }

    /// One page of the cards of a cardholder, or of the account's cards made since a moment.
    pub async fn list_cards(
        &self,
        cardholder: Option<&str>,
        created_since_unix_seconds: Option<i64>,
        starting_after: Option<&str>,
    ) -> Listed {
        let mut url = self.cards_url.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", "100");
            if let Some(cardholder) = cardholder {
                query.append_pair("cardholder", cardholder);
            }
            if let Some(since) = created_since_unix_seconds {
                query.append_pair("created[gte]", &since.to_string());
            }
            if let Some(after) = starting_after {
                query.append_pair("starting_after", after);
            }
        }
        let mut timed = Request::begin("list_cards", "GET", &self.cards_url);
        match self.http.get(url).headers(self.headers.clone()).send().await {
            Err(error) => Listed::Failed { reason: brief(&error), limited: None, key_rejected: false },
            Ok(response) => {
                let status = timed.answered(&response);
                let headers = response.headers().clone();
                answer::of_list(status, &headers, read(response).await)
            }
        }
    }
}

/// A request under way; its duration is told when it ends, however it ends.
struct Request {
    operation: &'static str,
    began: Instant,
    status: Option<u16>,
    span: tracing::Span,
}

impl Request {
    fn begin(operation: &'static str, method: &'static str, url: &url::Url) -> Self {
        let span = crate::trace::requesting(method, url);
        Self { operation, began: Instant::now(), status: None, span }
    }

    fn answered(&mut self, response: &reqwest::Response) -> reqwest::StatusCode {
        let status = response.status();
        self.status = Some(status.as_u16());
        status
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        crate::trace::answered(&self.span, self.status);
        crate::metrics::stripe_request(self.operation, self.status, self.began.elapsed());
    }
}

/// A card in a list, with what tells whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCard {
    /// The card.
    pub card: Card,
    /// Its `metadata[embosser_job]`.
    pub job: Option<String>,
}

fn address(option: &'static str, value: &str) -> Result<url::Url, ClientError> {
    let wrong = |reason: String| ClientError::Address { option, value: value.to_owned(), reason };
    let url = url::Url::parse(value).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("it needs http:// or https:// and a host".into()));
    }
    Ok(url)
}

fn is_stripes(url: &url::Url) -> bool {
    let host = url.host_str().unwrap_or("");
    url.scheme() == "https" && (host == "stripe.com" || host.ends_with(".stripe.com"))
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn mode_of(api_key: &SecretString) -> Mode {
    let key = api_key.expose_secret();
    if key.starts_with("sk_live") || key.starts_with("rk_live") { Mode::Live } else { Mode::Test }
}

fn http_client(config: &StripeConfig, loopback: bool) -> Result<reqwest::Client, ClientError> {
    // One provider for every TLS client of the process; a second call finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("embosser/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(seconds(config.connect_timeout_seconds))
        .timeout(seconds(config.total_timeout_seconds))
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_CONNECTION_KEPT)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never());
    let builder = if loopback { builder.no_proxy() } else { builder };
    builder.build().map_err(|error| ClientError::Http(error.to_string()))
}

fn headers(config: &StripeConfig, api_key: &SecretString) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    let bearer = Zeroizing::new(format!("Bearer {}", api_key.expose_secret().trim()));
    let mut authorization = HeaderValue::from_str(&bearer).map_err(|_| ClientError::Header("the API key"))?;
    authorization.set_sensitive(true);
    headers.insert(reqwest::header::AUTHORIZATION, authorization);
    let version =
        HeaderValue::from_str(&config.api_version).map_err(|_| ClientError::Header("stripe.api_version"))?;
    headers.insert(HeaderName::from_static("stripe-version"), version);
    if let Some(account) = &config.account {
        let account = HeaderValue::from_str(account).map_err(|_| ClientError::Header("stripe.account"))?;
        headers.insert(HeaderName::from_static("stripe-account"), account);
    }
    Ok(headers)
}

async fn read(mut response: reqwest::Response) -> Result<Bytes, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| brief(&error))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long to be Stripe's".into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// An HTTP error's causes in one line, without the address (which may carry a query).
fn brief(error: &reqwest::Error) -> String {
    use std::error::Error as _;
    if error.is_timeout() {
        return if error.is_connect() { "connecting timed out" } else { "no answer in time" }.into();
    }
    let mut text = if error.is_connect() { "cannot connect" } else { "connection failed" }.to_owned();
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.source().is_none() {
            text = format!("{text}: {cause}");
        }
        source = cause.source();
    }
    text
}
