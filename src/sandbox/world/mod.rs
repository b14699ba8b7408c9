//! What the sandbox knows, and the order in which it decides: limits, authentication, memory, validation, faults, effect.
//!
//! Faults are drawn from the seed, one draw for each call that would be executed: a call that a limiter, the memory or
//! validation answers draws none, so that the n-th execution meets the same fault in each run with one seed.

mod access;
mod browsers;
mod effect;
mod terminal;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::account::{Account, Seen};
use super::cardholders::Cardholders;
use super::cards::{Cards, Making};
use super::designs::DESIGNS;
use super::elements::EphemeralKeys;
use super::faults::ListMishap;
use super::forced::{Calls, Forced};
use super::keys::{KeyEndpoint, Keys};
use super::limits::Limits;
use super::memory::Memory;
use super::pins::Pins;
use super::request::{ApiRequest, CARDHOLDERS, CARDS, is_one_of, last_part, livemode};
use super::response::{ApiResponse, Fault};
use super::shipping::Move;
use super::{Faults, Options, cardholders, designs, identity, list};
use crate::operation::{Operation, Request};
use access::may_not;
use browsers::EPHEMERAL_KEYS;
use effect::Execution;

/// Requests that are remembered one by one.
const REQUESTS_MAX: usize = 100_000;
/// What was decided on arrival.
pub(super) enum Begun {
    /// The answer; none cuts the connection.
    Answered(Option<ApiResponse>),
    /// No answer, until something changes.
    Silent(Arc<Notify>),
    /// To be executed.
    Execute(Box<Execution>),
}

/// The sandbox's state.
pub(super) struct World {
    pub(super) options: Options,
    /// Tells calls under way that the clock or a switch was moved.
    pub(super) changed: Arc<Notify>,
    began: Instant,
    ahead: Duration,
    dice: StdRng,
    keys: Keys,
    cards: Cards,
    pins: Pins,
    ephemeral_keys: EphemeralKeys,
    memory: Memory,
    limits: Limits,
    account: Account,
    executing: usize,
    cardholders: Cardholders,
    requests: u64,
    seen: VecDeque<Seen>,
    forgotten: usize,
    /// What the next lists are answered instead of what is in them.
    pub(super) refused_lists: VecDeque<Option<u16>>,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        Self {
            changed: Arc::new(Notify::new()),
            began: Instant::now(),
            ahead: Duration::ZERO,
            dice: StdRng::seed_from_u64(options.seed),
            keys: Keys::new(options.key_bits),
            cards: Cards::default(),
            pins: Pins::default(),
            ephemeral_keys: EphemeralKeys::default(),
            memory: Memory::default(),
            limits: Limits::default(),
            account: Account::default(),
            executing: 0,
            cardholders: Cardholders::default(),
            requests: 0,
            seen: VecDeque::new(),
            forgotten: 0,
            refused_lists: VecDeque::new(),
            options,
        }
    }

    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn seen(&self) -> &VecDeque<Seen> {
        &self.seen
    }

    pub(super) fn rotate_key(&mut self) {
        self.keys.rotate();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.ahead += by;
        self.changed.notify_waiters();
    }

    pub(super) fn set_key_endpoint(&mut self, key_endpoint: KeyEndpoint) {
        self.options.key_endpoint = key_endpoint;
        self.changed.notify_waiters();
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.options.faults = faults;
    }

    /// Everything up to execution, in Stripe's order.
    pub(super) fn begin(&mut self, request: &ApiRequest) -> Begun {
        let seen = self.see(request);
        if request.method == "OPTIONS" {
            return Begun::Answered(self.respond(request, seen, browsers::preflight()));
        }
        if request.path == "/v1/keys" {
            return match self.options.key_endpoint {
                KeyEndpoint::Up => {
                    let document = self.keys_document();
                    Begun::Answered(self.respond(request, seen, document))
                }
                KeyEndpoint::Unavailable => {
                    Begun::Answered(self.respond(request, seen, ApiResponse::page(503)))
                }
                KeyEndpoint::Silent => Begun::Silent(self.changed.clone()),
            };
        }
        let decided = self.decide(request, seen);
        match decided {
            Ok(begun) => begun,
            Err(fault) => Begun::Answered(self.respond(request, seen, fault.response())),
        }
    }

    fn keys_document(&mut self) -> ApiResponse {
        self.account.key_fetches += 1;
        let response = ApiResponse::new(200, &self.keys.document());
        if self.dice.random_bool(self.options.faults.rotate) {
            self.keys.rotate();
        }
        response
    }

    fn decide(&mut self, request: &ApiRequest, seen: usize) -> Result<Begun, Fault> {
        self.limit(request)?;
        if let Some(answer) = self.for_browsers(request)? {
            return Ok(Begun::Answered(self.respond(request, seen, answer)));
        }
        self.authenticate(request)?;
        if let Some(forced) = self.forced(Calls::All, request) {
            return Ok(Begun::Answered(self.forced_response(request, seen, &forced)));
        }
        let pairs = || -> Vec<(String, String)> {
            url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect()
        };
        let answer = match (request.method.as_str(), request.path.as_str()) {
            ("POST", CARDS) => {
                self.account.creates += 1;
                self.account.arrivals.push(self.began.elapsed().as_secs_f64());
                return self.begin_effect(request, seen, Self::making);
            }
            ("POST", path) if is_one_of(CARDS, path) => {
                return self.begin_effect(request, seen, Self::updating);
            }
            ("GET", CARDS) => self.list(request, &pairs())?,
            ("GET", path) if is_one_of(CARDS, path) => {
                self.cards.find(&request.account, last_part(path))?.clone()
            }
            ("GET", "/v1/account") if !self.options.may_read_account => {
                return Err(may_not("rak_accounts_kyc_basic_read"));
            }
            ("GET", "/v1/account") => identity::object(&request.account, self.unix_seconds()),
            ("GET", path) if is_one_of(DESIGNS, path) => {
                let is_expanded = pairs().iter().any(|(name, _)| name.starts_with("expand["));
                designs::object(last_part(path), is_expanded, self.unix_seconds(), livemode(request))?
            }
            ("POST", CARDHOLDERS) => {
                return self.begin_effect(request, seen, Self::making_cardholder);
            }
            ("POST", EPHEMERAL_KEYS) => {
                return self.begin_effect(request, seen, Self::making_ephemeral_key);
            }
            ("DELETE", path) if is_one_of(EPHEMERAL_KEYS, path) => self.end_ephemeral_key(request)?,
            ("GET", CARDHOLDERS) => self.list(request, &pairs())?,
            ("POST", _) if let Some((card, moves)) = Move::of(request) => {
                let now = self.unix_seconds();
                self.cards.ship(&request.account, card, moves, now)?.clone()
            }
            ("GET", path) if is_one_of(CARDHOLDERS, path) => {
                let id = last_part(path);
                self.cardholder_exists(&request.account, id, "cardholder")?;
                match self.cardholders.find(&request.account, id) {
                    Some(made) => made.clone(),
                    None => cardholders::object(id, self.unix_seconds(), livemode(request)),
                }
            }
            _ => {
                let message = format!("Unrecognized request URL ({}: {}).", request.method, request.path);
                return Err(Fault::of(404, "invalid_request_error", None, &message));
            }
        };
        Ok(Begun::Answered(self.respond(request, seen, ApiResponse::new(200, &answer))))
    }

    /// A page of cards or cardholders, or what goes wrong with it.
    fn list(&mut self, request: &ApiRequest, query: &[(String, String)]) -> Result<Value, Fault> {
        if let Some(Some(status)) = self.refused_lists.pop_front() {
            let message = "This list is not to be had at this moment.";
            return Err(Fault::of(status, "invalid_request_error", None, message));
        }
        if let (CARDS, Some((name, id))) =
            (request.path.as_str(), query.iter().find(|(name, _)| name == "cardholder"))
        {
            // What a list is narrowed by is a parameter, so it is missing with a 400.
            self.cardholder_exists(&request.account, id, name)
                .map_err(|missing| Fault { status: 400, ..missing })?;
        }
        match self.options.faults.draw_for_list(&mut self.dice) {
            Some(ListMishap::Error) => Err(Fault::backend()),
            Some(ListMishap::EmptyPage) => Ok(list::page(&request.path, &[], true)),
            None => {
                let made_by = self.now().checked_sub(self.options.list_lag);
                if request.path == CARDHOLDERS {
                    self.cardholders.list(&request.account, query, made_by)
                } else {
                    self.cards.list(&request.account, query, made_by)
                }
            }
        }
    }

    fn limit(&mut self, request: &ApiRequest) -> Result<(), Fault> {
        let asked_at = Instant::now();
        let limited = self.limits.ask(&self.options, &request.account, &request.endpoint(), asked_at);
        limited.map_err(|reason| {
            self.account.limited += 1;
            *self.account.limited_by.entry(reason.to_owned()).or_default() += 1;
            let message = "Request rate limit exceeded. Learn more at https://stripe.com/docs/rate-limits.";
            Fault {
                reason: Some(reason),
                ..Fault::of(429, "invalid_request_error", Some("rate_limit"), message)
            }
        })
    }

    fn forced(&self, calls: Calls, request: &ApiRequest) -> Option<Forced> {
        let is_its = |forced: &Forced| {
            forced.calls == calls && forced.account.as_ref().is_none_or(|account| *account == request.account)
        };
        self.options.answer_all.clone().filter(is_its)
    }

    fn forced_response(&mut self, request: &ApiRequest, seen: usize, forced: &Forced) -> Option<ApiResponse> {
        if request.method == "POST" && forced.calls == Calls::All && request.path == CARDS {
            self.account.creates += 1;
        }
        let response = forced.response(request, self.requests);
        if let (true, Some(key)) = (forced.saved, &request.idempotency_key) {
            let name = (request.account.clone(), key.clone());
            self.memory.ends(name, request.parameters(), response.clone(), self.now());
        }
        self.respond(request, seen, response)
    }

    fn cardholder_exists(&self, account: &str, id: &str, param: &str) -> Result<(), Fault> {
        let made = self.cardholders.find(account, id).is_some();
        let known = match &self.options.cardholders {
            None => id.starts_with("ich_"),
            Some(listed) => listed.contains(id),
        };
        if made || known { Ok(()) } else { Err(Fault::missing("issuing cardholder", param, id)) }
    }

    /// Cards that no job asked for.
    pub(super) fn stock(&mut self, cardholder: &str, count: usize) {
        let pairs = [("cardholder", cardholder), ("currency", "eur"), ("type", "virtual")];
        let pairs = pairs.map(|(path, value)| (path.to_owned(), value.to_owned()));
        let card = Request::from_pairs(Operation::CreateCard, pairs.into())
            .expect("these three parameters make a card");
        for _ in 0..count {
            let making = Making {
                account: identity::OF_ANY_KEY,
                created: self.unix_seconds(),
                made_at: self.now(),
                livemode: false,
                metadata: Map::new(),
            };
            self.cards.make(&card, None, making);
        }
    }

    /// Calls under way.
    pub(super) fn executing(&self) -> usize {
        self.executing
    }

    /// Time since the start, moved ahead as tests wish.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed() + self.ahead
    }

    /// Time of day, moved ahead as tests wish.
    fn unix_seconds(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        (since + self.ahead).as_secs()
    }

    fn see(&mut self, request: &ApiRequest) -> usize {
        self.requests += 1;
        if self.seen.len() == REQUESTS_MAX {
            self.seen.pop_front();
            self.forgotten += 1;
        }
        self.seen.push_back(Seen {
            ms: self.began.elapsed().as_secs_f64() * 1000.0,
            account: request.account.clone(),
            method: request.method.clone(),
            path: request.path.clone(),
            status: None,
            idempotency_key: request.idempotency_key.clone(),
        });
        self.forgotten + self.seen.len() - 1
    }

    /// An answer on its way, with the headers that every answer has.
    fn respond(
        &mut self,
        request: &ApiRequest,
        seen: usize,
        mut response: ApiResponse,
    ) -> Option<ApiResponse> {
        if let Some(seen) = seen.checked_sub(self.forgotten).and_then(|index| self.seen.get_mut(index)) {
            seen.status = Some(response.status);
        }
        // Browsers may read every answer of the API's; of the key's, unless a test has it otherwise.
        if request.path != "/v1/keys" || self.options.cors {
            response.headers.push(("access-control-allow-origin", "*".to_owned()));
        }
        response.headers.push(("request-id", format!("req_sandbox{:08}", self.requests)));
        if let Some(version) = &request.version {
            response.headers.push(("stripe-version", version.clone()));
        }
        if let Some(key) = &request.idempotency_key {
            response.headers.push(("idempotency-key", key.clone()));
        }
        Some(response)
    }
}
