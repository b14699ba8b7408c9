//! The sandbox: a stand-in for Stripe Issuing that behaves as Stripe documents it.
//!
//! It holds the private key, decrypts and checks PINs, honours idempotency keys, limits strictly, rotates its key
//! and injects faults on request. It keeps an account of all it did, by which embosser's promises are judged.
//! What it answers to is in [`world`]; this file is the server around it.

mod account;
mod cardholders;
mod cards;
mod faults;
mod forced;
mod identity;
mod keys;
mod limits;
mod list;
mod memory;
mod request;
mod response;
mod world;

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use request::ApiRequest;
use response::{ApiResponse, Cut};
use world::World;

pub use account::{Account, Counts, IssuedCard, Seen};
pub use faults::Faults;
pub use forced::{Calls, Forced};
pub use keys::KeyEndpoint;

/// Largest request body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// How the sandbox behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Strict limit on calls of one endpoint in any second.
    pub endpoint_per_second: Option<usize>,
    /// Strict limit on all calls of one account in any second.
    pub account_per_second: Option<usize>,
    /// Most calls of one endpoint at once.
    pub endpoint_concurrency: Option<usize>,
    /// Most calls of one account at once.
    pub account_concurrency: Option<usize>,
    /// How long a card creation takes.
    pub latency: Duration,
    /// Seed of the faults.
    pub seed: u64,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// How long the PIN keys are, in bits; those other than 2048 begin with a key of their own instead of the demo key.
    pub key_bits: u32,
    /// How the key endpoint is.
    pub key_endpoint: KeyEndpoint,
    /// What calls are answered, whatever they ask for; none: each gets its own answer.
    pub answer_all: Option<Forced>,
    /// How much longer a call takes that meets the fault of that name, by the sandbox's clock.
    pub delay: Duration,
    /// How long a new card is missing from lists; by its id it is there at once.
    pub list_lag: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
    /// The only API key that is accepted; none: every secret or restricted one.
    pub api_key: Option<String>,
    /// Whether the key may create and change.
    pub may_write: bool,
    /// Whether the key may ask whose it is (`GET /v1/account`); many restricted keys may not.
    pub may_read_account: bool,
    /// The cardholders that exist besides those that are made; none: every `ich_…`.
    pub cardholders: Option<HashSet<String>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            endpoint_per_second: None,
            account_per_second: None,
            endpoint_concurrency: None,
            account_concurrency: None,
            latency: Duration::ZERO,
            seed: 1,
            faults: Faults::default(),
            key_bits: keys::DEMO_KEY_BITS,
            key_endpoint: KeyEndpoint::Up,
            answer_all: None,
            delay: Duration::from_secs(2),
            list_lag: Duration::ZERO,
            idempotency_window: Duration::from_secs(24 * 3600),
            api_key: None,
            may_write: true,
            may_read_account: true,
            cardholders: None,
        }
    }
}

/// A running sandbox.
pub struct Sandbox {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    server: JoinHandle<()>,
}

impl Sandbox {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let world = Arc::new(Mutex::new(World::new(options)));
        let server = tokio::spawn(serve(listener, world.clone()));
        Ok(Self { address, world, server })
    }

    /// For `stripe.api_url`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For `stripe.key_url`.
    #[must_use]
    pub fn key_url(&self) -> String {
        format!("http://{}/v1/keys", self.address)
    }

    /// What it did so far.
    #[must_use]
    pub fn account(&self) -> Account {
        self.world().account().clone()
    }

    /// How much it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let world = self.world();
        let account = world.account();
        Counts {
            cards: account.cards.len(),
            creates: account.creates,
            replays: account.replays,
            key_fetches: account.key_fetches,
            limited: account.limited,
        }
    }

    /// The requests that came, the latest 100,000 of them.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.world().seen().iter().cloned().collect()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a new key the current one.
    pub fn rotate_key(&self) {
        self.world().rotate_key();
    }

    /// Moves its clock ahead: idempotency keys grow old, new cards come into lists, and calls under way end when their
    /// time is over.
    pub fn advance(&self, by: Duration) {
        self.world().advance(by);
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world().set_faults(faults);
    }

    /// What calls are answered from now on, whatever they ask for; none: each gets its own answer again.
    pub fn force(&self, answer: Option<Forced>) {
        self.world().options.answer_all = answer;
    }

    /// How the key endpoint is from now on; who waits for a silent one is cut off.
    pub fn set_key_endpoint(&self, key_endpoint: KeyEndpoint) {
        self.world().set_key_endpoint(key_endpoint);
    }

    /// How much longer calls take from now on that meet the fault `delay`.
    pub fn set_delay(&self, delay: Duration) {
        self.world().options.delay = delay;
    }

    /// Calls under way.
    #[must_use]
    pub fn executing(&self) -> usize {
        self.world().executing()
    }

    /// Gives a cardholder of `acct_sandbox` so many cards that no job asked for: long lists to look through. The account
    /// of what was done does not count them.
    pub fn stock(&self, cardholder: &str, count: usize) {
        self.world().stock(cardholder, count);
    }

    /// How long a new card is missing from lists from now on.
    pub fn set_list_lag(&self, list_lag: Duration) {
        self.world().options.list_lag = list_lag;
    }

    /// Stops it; connections are cut.
    pub async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, world: Arc<Mutex<World>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let world = world.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(world.clone(), request));
            // A cut connection ends here with an error, which is the point.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is cut")]
struct Gone;

async fn answer(
    world: Arc<Mutex<World>>,
    request: Request<Incoming>,
) -> Result<Response<axum::body::Body>, Gone> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(axum::body::Body::new(body), BODY_BYTES_MAX).await.map_err(|_| Gone)?;
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let request = ApiRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or("").to_owned(),
        authorization: header("authorization"),
        idempotency_key: header("idempotency-key"),
        version: header("stripe-version"),
        account: identity::account_of(
            header("stripe-account").as_deref(),
            header("authorization").as_deref(),
        ),
        body,
    };
    // On a task of its own: a client that hangs up does not stop what was begun.
    let response = tokio::spawn(act(world, request)).await.map_err(|_| Gone)?;
    let Some(response) = response else { return Err(Gone) };
    Ok(http_response(response).unwrap_or_else(|never| match never {}))
}

async fn act(world: Arc<Mutex<World>>, request: ApiRequest) -> Option<ApiResponse> {
    let lock = || world.lock().unwrap_or_else(PoisonError::into_inner);
    if request.path.starts_with("/_sandbox/") {
        return Some(account::control(&mut lock(), &request));
    }
    let begun = lock().begin(&request);
    let mut execution = match begun {
        world::Begun::Answered(response) => return response,
        world::Begun::Execute(execution) => execution,
        world::Begun::Silent(changed) => {
            changed.notified().await;
            return None;
        }
    };
    pass(&world, execution.latency).await;
    let pin = match execution.jwe.take() {
        None => Ok(None),
        Some((jwe, kid, key)) => {
            tokio::task::spawn_blocking(move || keys::decrypt(&jwe, &kid, &key).map(Some))
                .await
                .unwrap_or_else(|_| Err("could not be decrypted".into()))
        }
    };
    lock().finish(&request, *execution, pin)
}

/// Waits for so long by the sandbox's clock: a test that moves it ahead makes a long call end at once.
async fn pass(world: &Mutex<World>, time: Duration) {
    let lock = || world.lock().unwrap_or_else(PoisonError::into_inner);
    let (until, changed) = {
        let world = lock();
        (world.now() + time, world.changed.clone())
    };
    loop {
        // Listening begins before the look at the clock, so that no change between the two is missed.
        let mut change = std::pin::pin!(changed.notified());
        change.as_mut().enable();
        let left = until.saturating_sub(lock().now());
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = change => {}
        }
    }
}

fn http_response(answer: ApiResponse) -> Result<Response<axum::body::Body>, Infallible> {
    let body = match answer.cut {
        Cut::Whole => axum::body::Body::from(Bytes::from(answer.body)),
        Cut::HalfWay => half_of(&answer.body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// Half a body, and then the connection ends.
fn half_of(body: &str) -> axum::body::Body {
    let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let pieces = futures_util::stream::iter([Ok(half), Err(Gone)]);
    axum::body::Body::from_stream(pieces)
}
