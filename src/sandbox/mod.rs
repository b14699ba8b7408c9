//! The sandbox: a stand-in for Stripe Issuing that behaves as Stripe documents it.
//!
//! It holds the private key, decrypts and checks PINs, honours idempotency keys, limits strictly, rotates its key
//! and injects faults on request. It keeps an account of all it did, by which embosser's promises are judged.
//! What it answers to is in [`world`], the server around it in [`server`], and the part of Stripe.js that shows a card's
//! details in [`elements`].

mod account;
mod cardholders;
mod cards;
mod designs;
mod elements;
mod faults;
mod forced;
mod identity;
mod keys;
mod lifecycle;
mod limits;
mod list;
mod memory;
mod pins;
mod request;
mod response;
mod server;
mod shipping;
mod world;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use world::World;

pub use account::{Account, Counts, IssuedCard, Seen};
pub use faults::Faults;
pub use forced::{Calls, Forced};
pub use keys::KeyEndpoint;

/// How the sandbox behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the stand-in for Stripe.js listens; none: at a free port of the same address.
    pub elements_listen: Option<SocketAddr>,
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
    /// How long an ephemeral key can be used (docs.stripe.com/issuing/elements: 15 minutes).
    pub ephemeral_key_lifetime: Duration,
    /// Whether the key endpoint lets pages of other origins read its answer.
    pub cors: bool,
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
            elements_listen: None,
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
            ephemeral_key_lifetime: Duration::from_secs(15 * 60),
            cors: true,
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
    elements_address: SocketAddr,
    world: Arc<Mutex<World>>,
    server: JoinHandle<()>,
    elements: JoinHandle<()>,
}

impl Sandbox {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let beside = SocketAddr::new(address.ip(), 0);
        let elements_listener = TcpListener::bind(options.elements_listen.unwrap_or(beside)).await?;
        let elements_address = elements_listener.local_addr()?;
        let world = Arc::new(Mutex::new(World::new(options)));
        let server = tokio::spawn(server::serve(listener, world.clone()));
        let elements = tokio::spawn(elements::serve(elements_listener, address.port()));
        Ok(Self { address, elements_address, world, server, elements })
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

    /// The origin of the stand-in for Stripe.js, whose script is at `/v3/` there: another origin than the API's.
    #[must_use]
    pub fn elements_url(&self) -> String {
        format!("http://{}", self.elements_address)
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

    /// What the next lists are answered: a status, in Stripe's form of an error; none: as usual.
    pub fn refuse_lists(&self, answers: impl IntoIterator<Item = Option<u16>>) {
        self.world().refused_lists.extend(answers);
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
        for server in [self.server, self.elements] {
            server.abort();
            let _ = server.await;
        }
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
