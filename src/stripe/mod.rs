//! Stripe over HTTP: the PIN key, card creation, and the list of a cardholder's cards.
//!
//! Duty: to make one call and say what its answer means. Never: to repeat a call by itself, to follow a redirect
//! (the API key would travel), or to let the key or a body into a log.

pub(crate) mod answer;
mod connect;
mod outgoing;
mod peer;
mod warm;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::{StripeConfig, seconds};
use crate::outcome::Card;
use crate::wipe::Wiped;
use connect::{Connector, Proxies};
use outgoing::{Departed, Outgoing, Stayed};
use peer::Peer;
use warm::Warm;
use wire::{Reply, Silence};

pub use answer::{Answer, LimitReason, Listed};
pub use outgoing::Leave;
pub use warm::Slot;

/// Who calls.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("embosser/", env!("CARGO_PKG_VERSION")));
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Room for every header of a call, so that none makes the map grow.
const HEADERS: usize = 8;

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
    /// TLS is not to be had: no certificate authorities, perhaps.
    #[error("TLS: {0}")]
    Tls(String),
}

/// The connections, with the account's credentials.
#[derive(Clone)]
pub struct Client {
    warm: Arc<Warm>,
    cards: Endpoint,
    key: Endpoint,
    /// What a call may take, its connection included.
    total: Duration,
    headers: HeaderMap,
    mode: Mode,
}

/// An address, parsed for those who name it and for those who call it.
#[derive(Clone)]
struct Endpoint {
    url: url::Url,
    /// Path and query.
    path: Uri,
    peer: Peer,
}

impl Endpoint {
    /// On the connections of another one, if that has the same server.
    fn of(
        option: &'static str,
        url: url::Url,
        connector: &Connector,
        other: Option<&Self>,
    ) -> Result<Self, ClientError> {
        let uri: Uri = url.as_str().parse().map_err(|error: http::uri::InvalidUri| ClientError::Address {
            option,
            value: url.to_string(),
            reason: error.to_string(),
        })?;
        let same = other.map(|other| &other.peer).filter(|peer| peer.is_at(&uri));
        let peer = same.cloned().unwrap_or_else(|| Peer::new(&uri, connector.clone()));
        Ok(Self { url, path: uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from), peer })
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("cards", &self.cards.url.as_str()).finish_non_exhaustive()
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
        let proxies = if is_loopback(&api_url) { Proxies::None } else { Proxies::OfEnvironment };
        let tls = tls([&api_url, &key_url].iter().any(|url| url.scheme() == "https"))?;
        let connector = Connector::new(tls, proxies, seconds(config.connect_timeout_seconds));
        let cards = Endpoint::of("api_url", cards_url, &connector, None)?;
        let key = Endpoint::of("key_url", key_url, &connector, Some(&cards))?;
        Ok(Self {
            warm: Arc::new(Warm::new()),
            cards,
            key,
            total: seconds(config.total_timeout_seconds),
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
        let host = self.cards.url.host_str().unwrap_or("");
        self.cards.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Fetches the key that PINs must be encrypted under at this moment: the endpoint's document as it came.
    ///
    /// # Errors
    /// A sentence saying what went wrong. No card can have come of it.
    pub async fn pin_key(&self) -> Result<Bytes, String> {
        let mut request = Box::new(Request::new(Outgoing::default()));
        *request.uri_mut() = self.key.path.clone();
        request.headers_mut().insert(USER_AGENT, AGENT);
        let _slot = self.slot().await;
        let reply = self.send("pin_key", &self.key, request).await.map_err(Silence::reason)?;
        let body = reply.body?;
        if reply.status.is_success() {
            Ok(body)
        } else {
            Err(format!("the key endpoint answered {}", reply.status))
        }
    }

    /// Waits for a call's place, a moment at most: before its permit, as a permit is for a call that leaves at once.
    pub async fn slot(&self) -> Slot<'_> {
        self.warm.slot().await
    }

    /// Makes one create call, in its place. `body` is wiped once it is no longer needed.
    ///
    /// `leaves` is called when the body is about to be written to a connection, and never if it is not. On
    /// [`Leave::Stay`] none of it is written, so the call has no effect, and the answer is [`Answer::HeldBack`]. A call
    /// that nobody waits for any more (its future was dropped) does not leave if it had not left by then.
    ///
    /// # Panics
    /// If the idempotency key has characters that no header can carry.
    pub async fn create_card(
        &self,
        _slot: Slot<'_>,
        idempotency_key: &str,
        body: Wiped,
        leaves: impl FnOnce() -> Leave + Send + 'static,
    ) -> Answer {
        let (outgoing, departures) = Outgoing::new(Bytes::from_owner(body), leaves);
        let mut request = Box::new(Request::new(outgoing));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.cards.path.clone();
        *request.headers_mut() = self.headers.clone();
        let key = HeaderValue::from_str(idempotency_key).expect("it is made of letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        let reply = self.send("create_card", &self.cards, request).await;
        match (reply, departures.end()) {
            // Whatever a server says to a request that it has not got.
            (_, Departed::No(Stayed::HeldBack)) => Answer::HeldBack,
            (Err(Silence::NotSent(reason)), _)
            | (Err(Silence::NoAnswer(reason)), Departed::No(Stayed::NeverAsked)) => Answer::NotSent(reason),
            (Err(Silence::NoAnswer(reason)), Departed::Yes) => Answer::no_answer(reason),
            (Ok(Reply { status, headers, body }), _) => answer::of_create(status, &headers, body),
        }
    }

    /// One page of the cards of a cardholder, or of the account's cards made since a moment.
    pub async fn list_cards(
        &self,
        cardholder: Option<&str>,
        created_since_unix_seconds: Option<i64>,
        starting_after: Option<&str>,
    ) -> Listed {
        let mut url = self.cards.url.clone();
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
        let mut request = Box::new(Request::new(Outgoing::default()));
        let failed = |reason| Listed::Failed { reason, limited: None, key_rejected: false };
        match url[url::Position::BeforePath..].parse() {
            Ok(path) => *request.uri_mut() = path,
            Err(_) => return failed("the list's address is too long".into()),
        }
        *request.headers_mut() = self.headers.clone();
        match self.send("list_cards", &self.cards, request).await {
            Err(silence) => failed(silence.reason()),
            Ok(Reply { status, headers, body }) => answer::of_list(status, &headers, body),
        }
    }

    async fn send(
        &self,
        operation: &'static str,
        to: &Endpoint,
        request: Box<Request<Outgoing>>,
    ) -> Result<Reply, Silence> {
        let mut timed = Timed::begin(operation, request.method(), &to.url);
        let reply = wire::call(&to.peer, request, self.total).await;
        timed.status = reply.as_ref().ok().map(|reply| reply.status.as_u16());
        reply
    }
}

/// A request under way; its duration is told when it ends, however it ends.
struct Timed {
    operation: &'static str,
    began: Instant,
    status: Option<u16>,
    span: tracing::Span,
}

impl Timed {
    fn begin(operation: &'static str, method: &Method, url: &url::Url) -> Self {
        let span = crate::trace::requesting(method.as_str(), url);
        Self { operation, began: Instant::now(), status: None, span }
    }
}

impl Drop for Timed {
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

/// What TLS trusts: the system's certificate authorities; none where nothing speaks TLS, as reading them takes a while.
fn tls(needed: bool) -> Result<rustls::ClientConfig, ClientError> {
    let told = |error: rustls::Error| ClientError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // For every other TLS client of the process; a second call finds one installed.
    let _ = rustls::crypto::CryptoProvider::install_default((*provider).clone());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(told)?;
    if !needed {
        return Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
    }
    let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(told)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn headers(config: &StripeConfig, api_key: &SecretString) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(USER_AGENT, AGENT);
    let bearer = Zeroizing::new(format!("Bearer {}", api_key.expose_secret().trim()));
    let mut authorization = HeaderValue::from_str(&bearer).map_err(|_| ClientError::Header("the API key"))?;
    authorization.set_sensitive(true);
    headers.insert(AUTHORIZATION, authorization);
    let version =
        HeaderValue::from_str(&config.api_version).map_err(|_| ClientError::Header("stripe.api_version"))?;
    headers.insert(HeaderName::from_static("stripe-version"), version);
    if let Some(account) = &config.account {
        let account = HeaderValue::from_str(account).map_err(|_| ClientError::Header("stripe.account"))?;
        headers.insert(HeaderName::from_static("stripe-account"), account);
    }
    Ok(headers)
}
