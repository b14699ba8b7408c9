//! Stripe over HTTP: the PIN key, card creation, and questions: a cardholder's cards, one card, the account.
//!
//! Duty: to make one call and say what its answer means. Never: to repeat a call by itself, to follow a redirect
//! (the API key would travel), or to let the key or a body into a log.

mod address;
mod answer;
mod connect;
mod connection_limit;
pub(crate) mod error;
mod outgoing;
mod peer;
mod read;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::{StripeConfig, seconds};
use crate::operation::{Place, Request as Wanted};
use crate::wipe::Wiped;
use address::{address, host_and_port, is_loopback, is_stripes};
use connect::{Connector, Proxies};
use connection_limit::ConnectionLimit;
use outgoing::{Departed, Outgoing, Stayed};
use peer::Peer;
use wire::{Reply, Silence};

pub use address::host_of;
pub use answer::Answer;
pub use connection_limit::Slot;
pub use error::LimitReason;
pub use outgoing::Leave;
pub use read::{AccountAnswer, CardAnswer, ListFailure, Listed};

/// Who calls.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("embosser/", env!("CARGO_PKG_VERSION")));
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CARDS_PATH: &str = "/v1/issuing/cards";
const CARDHOLDERS_PATH: &str = "/v1/issuing/cardholders";
/// Room for every header of a call, so that none makes the map grow.
const HEADERS: usize = 8;

/// Whether a key moves real money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Any key whose prefix does not prove that it is a test key: `sk_live_…`, and `sk_org…`, which tells neither.
    Live,
    /// `sk_test_…`, `rk_test_…` and the like.
    Test,
}

impl Mode {
    /// Of a key.
    #[must_use]
    pub fn of(api_key: &SecretString) -> Self {
        let (kind, rest) = api_key.expose_secret().trim_start().split_once('_').unwrap_or_default();
        let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase());
        if is_kind && rest.starts_with("test_") { Self::Test } else { Self::Live }
    }
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
        "a live key is only ever sent to https://*.stripe.com, not to {0}; use a test key (sk_test_…, rk_test_…: any other \
         counts as live), or unset stripe.api_url"
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
    connections: Arc<ConnectionLimit>,
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
        let mode = Mode::of(api_key);
        if mode == Mode::Live {
            for url in [&api_url, &key_url] {
                if !is_stripes(url) {
                    return Err(ClientError::LiveKeyElsewhere(url.host_str().unwrap_or("").to_owned()));
                }
            }
        }
        let mut cards_url = api_url.clone();
        cards_url.set_path(&format!("{}{CARDS_PATH}", api_url.path().trim_end_matches('/')));
        let proxies = if is_loopback(&api_url) { Proxies::None } else { Proxies::OfEnvironment };
        let tls = tls([&api_url, &key_url].iter().any(|url| url.scheme() == "https"))?;
        let connector = Connector::new(tls, proxies, seconds(config.connect_timeout_seconds));
        let cards = Endpoint::of("api_url", cards_url, &connector, None)?;
        let key = Endpoint::of("key_url", key_url, &connector, Some(&cards))?;
        Ok(Self {
            connections: Arc::new(ConnectionLimit::new()),
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
        host_and_port(&self.cards.url)
    }

    /// The host and port where PIN keys are fetched.
    #[must_use]
    pub fn key_host(&self) -> String {
        host_and_port(&self.key.url)
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

    /// The longest that a call is waited for.
    #[must_use]
    pub fn call_max(&self) -> Duration {
        self.total
    }

    /// Waits for a call's place, a moment at most: before its permit, as a permit is for a call that leaves at once.
    pub async fn slot(&self) -> Slot<'_> {
        self.connections.slot().await
    }

    /// Makes one call that changes something, in its place. `body` is wiped once it is no longer needed.
    ///
    /// `leaves` is called when the body is about to be written to a connection, and never if it is not. On
    /// [`Leave::Stay`] none of it is written, so the call has no effect, and the answer is [`Answer::HeldBack`]. A call
    /// that nobody waits for any more (its future was dropped) does not leave if it had not left by then.
    ///
    /// # Panics
    /// If the idempotency key has characters that no header can carry.
    pub async fn post(
        &self,
        _slot: Slot<'_>,
        wanted: &Wanted,
        idempotency_key: &str,
        body: Wiped,
        leaves: impl FnOnce() -> Leave + Send + 'static,
    ) -> Answer {
        let (outgoing, departures) = Outgoing::new(Bytes::from_owner(body), leaves);
        let mut request = Box::new(Request::new(outgoing));
        *request.method_mut() = Method::POST;
        let url = self.url_of(&wanted.path());
        *request.uri_mut() = match url[url::Position::BeforePath..].parse() {
            Ok(path) => path,
            Err(_) => return Answer::NotSent("the address of what is asked for cannot be sent".into()),
        };
        *request.headers_mut() = self.headers.clone();
        let key = HeaderValue::from_str(idempotency_key).expect("it is made of letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        let reply = self.send(wanted.operation().word(), &self.cards, request).await;
        match (reply, departures.end()) {
            // Whatever a server says to a request that it has not got.
            (_, Departed::No(Stayed::HeldBack)) => Answer::HeldBack,
            (Err(Silence::NotSent(reason)), _)
            | (Err(Silence::NoAnswer(reason)), Departed::No(Stayed::NeverAsked)) => Answer::NotSent(reason),
            (Err(Silence::NoAnswer(reason)), Departed::Yes) => {
                Answer::Unknown { reason, trouble: true, heard: false }
            }
            (Ok(Reply { status, headers, body }), _) => {
                answer::of_change(wanted.operation(), status, &headers, body)
            }
        }
    }

    /// One page of a place's objects: of those made since a moment, where that is all of the account's.
    pub async fn list(
        &self,
        place: &Place,
        created_since_unix_seconds: Option<i64>,
        starting_after: Option<&str>,
    ) -> Listed {
        let (operation, path, filter) = match place {
            Place::Card(id) => return read::as_list(self.card(id).await),
            Place::Cards => ("list_cards", CARDS_PATH, None),
            Place::CardsOf(cardholder) => ("list_cards", CARDS_PATH, Some(("cardholder", cardholder))),
            Place::Cardholders => ("list_cardholders", CARDHOLDERS_PATH, None),
            Place::CardholdersByEmail(email) => {
                ("list_cardholders", CARDHOLDERS_PATH, Some(("email", email)))
            }
            Place::CardholdersByPhone(phone) => {
                ("list_cardholders", CARDHOLDERS_PATH, Some(("phone_number", phone)))
            }
        };
        let mut url = self.url_of(path);
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", "100");
            if let Some((name, value)) = filter {
                query.append_pair(name, value);
            }
            if let Some(since) = created_since_unix_seconds {
                query.append_pair("created[gte]", &since.to_string());
            }
            if let Some(after) = starting_after {
                query.append_pair("starting_after", after);
            }
        }
        match self.get(operation, &url).await {
            Err(reason) => Listed::Failed { reason, failure: ListFailure::Passing },
            Ok(Reply { status, headers, body }) => read::of_list(status, &headers, body),
        }
    }

    /// One card.
    pub async fn card(&self, id: &str) -> CardAnswer {
        let mut url = self.cards.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(id);
        }
        match self.get("get_card", &url).await {
            Err(reason) => CardAnswer::Failed(reason),
            Ok(Reply { status, headers, body }) => read::of_card(status, &headers, body),
        }
    }

    /// Whose account the key is of; with a connected account configured, that one's.
    pub async fn account(&self) -> AccountAnswer {
        let url = self.url_of("/v1/account");
        match self.get("get_account", &url).await {
            Err(reason) => AccountAnswer::Failed(reason),
            Ok(Reply { status, headers, body }) => read::of_account(status, &headers, body),
        }
    }

    /// The address of a path of the API.
    fn url_of(&self, path: &str) -> url::Url {
        let mut url = self.cards.url.clone();
        let base = url.path().strip_suffix(CARDS_PATH).unwrap_or_default();
        url.set_path(&format!("{base}{path}"));
        url
    }

    /// Asks the API something.
    async fn get(&self, operation: &'static str, url: &url::Url) -> Result<Reply, String> {
        let mut request = Box::new(Request::new(Outgoing::default()));
        let path = url[url::Position::BeforePath..].parse();
        *request.uri_mut() = path.map_err(|_| "the address of what is asked for is too long".to_owned())?;
        *request.headers_mut() = self.headers.clone();
        self.send(operation, &self.cards, request).await.map_err(Silence::reason)
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

/// What TLS trusts: the system's certificate authorities; none where nothing speaks TLS, as reading them takes a while.
fn tls(needed: bool) -> Result<rustls::ClientConfig, ClientError> {
    let to_error = |error: rustls::Error| ClientError::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    // For every other TLS client of the process; a second call finds one installed.
    let _ = rustls::crypto::CryptoProvider::install_default((*provider).clone());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(to_error)?;
    if !needed {
        return Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth());
    }
    let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(to_error)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_live_unless_its_prefix_proves_that_it_is_a_test_key() {
        let mode = |key: &str| Mode::of(&key.to_owned().into());
        for key in ["sk_test_1", "rk_test_1", "pk_test_1", "\nsk_test_1"] {
            assert_eq!(mode(key), Mode::Test, "{key}");
        }
        for key in [
            "sk_live_1",
            "rk_live_1",
            "sk_org_1",
            "sk_org_test_1",
            "test_1",
            "_test_1",
            "sk1_test_1",
            "sk_tests",
            "",
        ] {
            assert_eq!(mode(key), Mode::Live, "{key}");
        }
    }

    /// A server that answers each request with its own path, as an account's id.
    async fn listed_under(api_url_path: &str) -> (Client, tokio::task::JoinHandle<Vec<String>>) {
        use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api_url = format!("http://{}{api_url_path}", listener.local_addr().unwrap());
        let config = StripeConfig { key_url: api_url.clone(), api_url, ..StripeConfig::default() };
        let client = Client::new(&config, &"sk_test_1".to_owned().into()).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let (mut asked, mut line) = (Vec::new(), String::new());
            while asked.len() < 2 {
                line.clear();
                stream.read_line(&mut line).await.unwrap();
                if line.starts_with("GET ") {
                    asked.push(line.split(' ').nth(1).unwrap().to_owned());
                }
                if line == "\r\n" {
                    // An account and a card in one: each reads what it is asked for.
                    let id = if asked.len() == 1 { "acct_1" } else { "ic_1" };
                    let body = format!("{{\"id\":\"{id}\"}}");
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.get_mut().write_all((head + &body).as_bytes()).await.unwrap();
                }
            }
            line.clear();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
                line.clear();
            }
            stream
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"id\":\"ic_1\"}")
                .await
                .unwrap();
            asked
        });
        (client, server)
    }

    #[tokio::test]
    async fn the_account_and_a_card_are_asked_for_where_the_api_is() {
        for base in ["", "/stand-in/"] {
            let (client, server) = listed_under(base).await;
            assert_eq!(client.account().await, AccountAnswer::Is("acct_1".into()));
            assert!(matches!(client.card("ic_1/../x").await, CardAnswer::Found(_)));
            let base = base.trim_end_matches('/');
            let expected = [format!("{base}/v1/account"), format!("{base}/v1/issuing/cards/ic_1%2F..%2Fx")];
            assert_eq!(server.await.unwrap(), expected);
        }
    }
}
