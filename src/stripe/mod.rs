//! Stripe over HTTP: the PIN key, card creation, and questions: a cardholder's cards, one card, the account.
//!
//! Duty: to make one call and say what its answer means. Never: to repeat a call by itself, to follow a redirect
//! (the API key would travel), or to let the key or a body into a log.

mod address;
mod answer;
pub(crate) mod error;
mod mode;
mod outgoing;
mod read;
#[cfg(feature = "killpoints")]
pub mod simulated;
mod standing;
mod timed;
mod transport;

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Body, Request};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::config::{StripeConfig, seconds};
use crate::operation::{Operation, Place, Request as Wanted};
use crate::simulation::{Mutation, is_broken};
use address::{address, host_and_port, is_stripes};
use outgoing::{Departed, Outgoing, Question};
use timed::Timed;
use transport::Reply;

pub use address::host_of;
pub use answer::Answer;
pub use error::LimitReason;
pub use mode::Mode;
pub use outgoing::{Leave, Leaving};
pub use read::{AccountAnswer, EphemeralKeyAnswer, FoundAnswer, ListFailure, Listed};
pub use standing::{AccountStanding, CardStanding, Design, SecondLine, StandingAnswer};

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const CARDS_PATH: &str = "/v1/issuing/cards";
const CARDHOLDERS_PATH: &str = "/v1/issuing/cardholders";
/// Room for every header of a call, so that none makes the map grow.
const HEADERS: usize = 8;

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
    http: reqwest::Client,
    #[cfg(feature = "killpoints")]
    simulated: Option<std::sync::Arc<dyn simulated::Transport>>,
    api_url: url::Url,
    key_url: url::Url,
    /// What a call may take, its connection included.
    total: Duration,
    headers: HeaderMap,
    mode: Mode,
}

/// Why a call has no answer.
enum Silence {
    /// It was held back at the moment when it would have left.
    HeldBack,
    /// It never left.
    NotSent(String),
    /// It left, or part of it.
    NoAnswer(String),
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("api_url", &self.api_url.as_str()).finish_non_exhaustive()
    }
}

impl Client {
    /// No connection is opened yet.
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
        Ok(Self {
            http: transport::client(config, &api_url, &key_url)?,
            #[cfg(feature = "killpoints")]
            simulated: None,
            api_url,
            key_url,
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
        host_and_port(&self.api_url)
    }

    /// The host and port where PIN keys are fetched.
    #[must_use]
    pub fn key_host(&self) -> String {
        host_and_port(&self.key_url)
    }

    /// Fetches the key that PINs must be encrypted under at this moment: the endpoint's document as it came.
    ///
    /// # Errors
    /// A sentence saying what went wrong. No card can have come of it.
    pub async fn pin_key(&self) -> Result<Bytes, String> {
        // Without the API key, which is none of that server's business.
        let reply = self.send("pin_key", Request::new(Method::GET, self.key_url.clone())).await?;
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

    /// Makes one call that changes something. `body` is wiped once it is no longer needed.
    ///
    /// `leaves` is called when the body is about to be written to a connection, and never if it is not. On
    /// [`Leave::Stay`] none of it is written, so the call has no effect, and the answer is [`Answer::HeldBack`]. A call
    /// that nobody waits for any more (its future was dropped) does not leave if it had not left by then.
    ///
    /// # Panics
    /// If the idempotency key has characters that no header can carry.
    pub async fn change(
        &self,
        wanted: &Wanted,
        idempotency_key: &str,
        body: Zeroizing<Vec<u8>>,
        leaves: impl FnOnce() -> Leave + Send + Sync + 'static,
    ) -> Answer {
        let operation = wanted.operation();
        match self.post(operation.word(), &wanted.path(), idempotency_key, body, leaves).await {
            Ok(Reply { status, headers, body }) => Answer::of_change(operation, status, &headers, body),
            Err(Silence::HeldBack) => Answer::HeldBack,
            Err(Silence::NotSent(reason)) => Answer::NotSent(reason),
            Err(Silence::NoAnswer(reason)) if is_broken(Mutation::TakeSilenceForNothing) => {
                Answer::NotSent(reason)
            }
            Err(Silence::NoAnswer(reason)) => Answer::Unknown { reason, trouble: true, heard: false },
        }
    }

    /// One page of a place's objects: of those made since a moment, where that is all of the account's. As with every question,
    /// `leaving` is called when a connection takes it.
    pub async fn list(
        &self,
        place: &Place,
        created_since_unix_seconds: Option<i64>,
        starting_after: Option<&str>,
        leaving: Leaving,
    ) -> Listed {
        let (operation, path, filter) = match place {
            Place::Card(id) => return read::as_list(self.card(id, leaving).await),
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
        let mut url = self.at(path);
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
        match self.get(operation, url, leaving).await {
            Err(reason) => Listed::Failed { reason, failure: ListFailure::Passing },
            Ok(Reply { status, headers, body }) => Listed::of_answer(status, &headers, body),
        }
    }

    /// One card.
    pub async fn card(&self, id: &str, leaving: Leaving) -> FoundAnswer {
        self.one("get_card", CARDS_PATH, Operation::CreateCard, id, leaving).await
    }

    /// One cardholder.
    pub async fn cardholder(&self, id: &str, leaving: Leaving) -> FoundAnswer {
        self.one("get_cardholder", CARDHOLDERS_PATH, Operation::CreateCardholder, id, leaving).await
    }

    /// One of a list, which that operation makes.
    async fn one(
        &self,
        question: &'static str,
        list: &str,
        made_by: Operation,
        id: &str,
        leaving: Leaving,
    ) -> FoundAnswer {
        match self.get(question, self.at_one(list, id), leaving).await {
            Err(reason) => FoundAnswer::Failed(reason),
            Ok(Reply { status, headers, body }) => {
                read::of_one(made_by.declaration().id_prefix, status, &headers, body)
            }
        }
    }

    /// How a card stands; beside it which limiter turned the question away, if one did.
    pub async fn standing(&self, id: &str, leaving: Leaving) -> (StandingAnswer, Option<LimitReason>) {
        self.stand("get_card", self.at_one(CARDS_PATH, id), leaving).await
    }

    /// How a design stands, with its physical bundle; beside it the same.
    pub async fn design(&self, id: &str, leaving: Leaving) -> (StandingAnswer<Design>, Option<LimitReason>) {
        let mut url = self.at_one("/v1/issuing/personalization_designs", id);
        url.query_pairs_mut().append_pair("expand[]", "physical_bundle");
        self.stand("get_design", url, leaving).await
    }

    /// What the account may do; beside it the same.
    pub async fn account_standing(
        &self,
        leaving: Leaving,
    ) -> (StandingAnswer<AccountStanding>, Option<LimitReason>) {
        self.stand("get_account", self.at("/v1/account"), leaving).await
    }

    async fn stand<T: standing::Standing>(
        &self,
        question: &'static str,
        url: reqwest::Url,
        leaving: Leaving,
    ) -> (StandingAnswer<T>, Option<LimitReason>) {
        match self.get(question, url, leaving).await {
            Err(reason) => (StandingAnswer::Failed(reason), None),
            Ok(Reply { status, headers, body }) => read::of_standing(status, &headers, body),
        }
    }

    /// The address of one of a list.
    fn at_one(&self, list: &str, id: &str) -> reqwest::Url {
        let mut url = self.at(list);
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(id);
        }
        url
    }

    /// Whose account the key is of; with a connected account configured, that one's.
    pub async fn account(&self, leaving: Leaving) -> AccountAnswer {
        match self.get("get_account", self.at("/v1/account"), leaving).await {
            Err(reason) => AccountAnswer::Failed(reason),
            Ok(Reply { status, headers, body }) => read::of_account(status, &headers, body),
        }
    }

    /// Makes a key by which a page with this nonce shows one card. It changes nothing that would have to be done once.
    pub async fn ephemeral_key(&self, card: &str, nonce: &str, leaving: Leaving) -> EphemeralKeyAnswer {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("issuing_card", card)
            .append_pair("nonce", nonce)
            .finish();
        let mut request = Request::new(Method::POST, self.at("/v1/ephemeral_keys"));
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        let leaves = || {
            leaving();
            Leave::Go
        };
        let (outgoing, departures) = Outgoing::new(Bytes::from(body), leaves);
        *request.body_mut() = Some(Body::wrap(outgoing));
        let reply = self.send("ephemeral_key", request).await;
        drop(departures);
        match reply {
            Err(reason) => EphemeralKeyAnswer::Failed(reason),
            Ok(Reply { status, headers, body }) => read::of_ephemeral_key(status, &headers, body),
        }
    }

    /// Where PIN keys are fetched, in full.
    #[must_use]
    pub fn key_address(&self) -> &str {
        self.key_url.as_str()
    }

    /// Where Stripe's API is.
    #[must_use]
    pub fn api_address(&self) -> &str {
        self.api_url.as_str()
    }

    /// A path of the API's.
    fn at(&self, path: &str) -> url::Url {
        let mut url = self.api_url.clone();
        url.set_path(&format!("{}{path}", self.api_url.path().trim_end_matches('/')));
        url
    }

    /// Asks the API for something to be done, once at most.
    async fn post(
        &self,
        operation: &'static str,
        path: &str,
        idempotency_key: &str,
        body: Zeroizing<Vec<u8>>,
        leaves: impl FnOnce() -> Leave + Send + Sync + 'static,
    ) -> Result<Reply, Silence> {
        let (outgoing, departures) = Outgoing::new(Bytes::from_owner(body), leaves);
        let mut request = Request::new(Method::POST, self.at(path));
        *request.headers_mut() = self.headers.clone();
        let key = HeaderValue::from_str(idempotency_key).expect("it is made of letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        *request.body_mut() = Some(Body::wrap(outgoing));
        let reply = self.send(operation, request).await;
        match (departures.end(), reply) {
            // Whatever a server says to a request that it has not got.
            (Departed::HeldBack, _) => Err(Silence::HeldBack),
            (_, Ok(reply)) => Ok(reply),
            (Departed::NeverPolled, Err(reason)) => Err(Silence::NotSent(reason)),
            (Departed::Yes, Err(reason)) => Err(Silence::NoAnswer(reason)),
        }
    }

    /// Asks the API a question.
    async fn get(&self, operation: &'static str, url: url::Url, leaving: Leaving) -> Result<Reply, String> {
        let mut request = Request::new(Method::GET, url);
        *request.headers_mut() = self.headers.clone();
        *request.body_mut() = Some(Body::wrap(Question::new(leaving)));
        self.send(operation, request).await
    }

    async fn send(&self, operation: &'static str, request: Request) -> Result<Reply, String> {
        let mut timed = Timed::begin(operation, request.method(), request.url());
        #[cfg(feature = "killpoints")]
        let reply = match &self.simulated {
            Some(transport) => transport.send(request).await,
            None => transport::send(&self.http, request).await,
        };
        #[cfg(not(feature = "killpoints"))]
        let reply = transport::send(&self.http, request).await;
        timed.status = reply.as_ref().ok().map(|reply| reply.status.as_u16());
        reply
    }
}

fn headers(config: &StripeConfig, api_key: &SecretString) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
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
            assert_eq!(client.account(Box::new(|| {})).await, AccountAnswer::Is("acct_1".into()));
            assert!(matches!(client.card("ic_1/../x", Box::new(|| {})).await, FoundAnswer::Found(_)));
            let base = base.trim_end_matches('/');
            let expected = [format!("{base}/v1/account"), format!("{base}/v1/issuing/cards/ic_1%2F..%2Fx")];
            assert_eq!(server.await.unwrap(), expected);
        }
    }
}
