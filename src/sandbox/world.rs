//! What the sandbox knows and how it decides: keys, cards, idempotency, limits, faults.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{Faults, Options};
use crate::card::CardRequest;

/// The first key of every sandbox. It protects nothing: it is public, so that example manifests can hold PINs
/// that were encrypted beforehand.
const DEMO_KEY: &str = include_str!("demo_key.pem");

/// Stripe's window of rate limits.
const WINDOW: Duration = Duration::from_secs(1);

/// A card that was made, as tests judge it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct IssuedCard {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub cardholder: Option<String>,
    /// `metadata[embosser_job]`.
    pub job: Option<String>,
    /// The PIN that was set, decrypted.
    pub pin: Option<String>,
}

/// What the sandbox did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Account {
    /// Every card made.
    pub cards: Vec<IssuedCard>,
    /// Create calls that arrived.
    pub creates: u64,
    /// Saved answers given again.
    pub replays: u64,
    /// Keys served.
    pub key_fetches: u64,
    /// Calls that a limiter turned away.
    pub limited: u64,
    /// When each create call that was let through arrived, in seconds since the start.
    pub arrivals: Vec<f64>,
}

/// A request, read.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) account: String,
    pub(super) body: Bytes,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// What was decided on arrival.
pub(super) enum Begun {
    /// The answer; none cuts the connection.
    Told(Option<Told>),
    /// To be executed.
    Execute(Execution),
}

/// A create call under way.
pub(super) struct Execution {
    pub(super) latency: Duration,
    pub(super) jwe: Option<(String, Rsa<Private>)>,
    card: CardRequest,
    fault: Option<Fault>,
    limited_account: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ErrorBefore,
    ErrorAfter,
    DropBefore,
    DropAfter,
    Conflict,
    Html,
}

enum Saved {
    Running { body: Bytes },
    Ended { body: Bytes, told: Told, at: Duration },
}

/// The sandbox's state.
pub(super) struct World {
    options: Options,
    began: Instant,
    ahead: Duration,
    faults: StdRng,
    key_number: u32,
    key: Rsa<Private>,
    cards: Vec<(String, Value)>,
    saved: HashMap<(String, String), Saved>,
    windows: HashMap<String, VecDeque<Instant>>,
    running: HashMap<String, usize>,
    account: Account,
    requests: u64,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        Self {
            began: Instant::now(),
            ahead: Duration::ZERO,
            faults: StdRng::seed_from_u64(options.seed),
            key_number: 1,
            key: Rsa::private_key_from_pem(DEMO_KEY.as_bytes())
                .expect("the demo key is a valid file of the source"),
            cards: Vec::new(),
            saved: HashMap::new(),
            windows: HashMap::new(),
            running: HashMap::new(),
            account: Account::default(),
            requests: 0,
            options,
        }
    }

    pub(super) fn account(&self) -> Account {
        self.account.clone()
    }

    pub(super) fn rotate_key(&mut self) {
        self.key_number += 1;
        self.key = Rsa::generate(2048).expect("OpenSSL makes keys as long as it has randomness");
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.options.faults = faults;
    }

    fn kid(&self) -> String {
        format!("sandbox-demo-{}", self.key_number)
    }

    /// Everything up to execution: limits, authentication, idempotency, validation, in Stripe's order.
    pub(super) fn begin(&mut self, asked: &Asked) -> Begun {
        self.requests += 1;
        if asked.path == "/v1/keys" {
            return Begun::Told(Some(self.serve_key()));
        }
        if asked.path == "/_sandbox/account" {
            let body = serde_json::to_string(&self.account).unwrap_or_default();
            return Begun::Told(Some(Told { status: 200, headers: Vec::new(), body }));
        }
        if let Some(told) = self.limit(asked) {
            return Begun::Told(Some(told));
        }
        let authorized = asked.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        if !authorized.is_some_and(|key| key.starts_with("sk_") || key.starts_with("rk_")) {
            return Begun::Told(Some(self.error(
                401,
                "invalid_request_error",
                None,
                "Invalid API Key provided",
                None,
            )));
        }
        match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", "/v1/issuing/cards") => self.begin_create(asked),
            ("GET", "/v1/issuing/cards") => Begun::Told(Some(self.list(asked))),
            ("GET", path) if path.starts_with("/v1/issuing/cards/") => {
                Begun::Told(Some(self.retrieve(asked)))
            }
            _ => {
                let message = format!("Unrecognized request URL ({}: {}).", asked.method, asked.path);
                Begun::Told(Some(self.error(404, "invalid_request_error", None, &message, None)))
            }
        }
    }

    fn serve_key(&mut self) -> Told {
        self.account.key_fetches += 1;
        let url_safe = |bytes: Vec<u8>| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let pem = self.key.public_key_to_pem().unwrap_or_default();
        let body = json!({
            "key_id": self.kid(),
            "jwk": {"kty": "RSA", "use": "enc", "kid": self.kid(), "n": url_safe(self.key.n().to_vec()),
                "e": url_safe(self.key.e().to_vec())},
            "pkcs8": String::from_utf8_lossy(&pem),
        });
        if self.faults.random_bool(self.options.faults.rotate) {
            self.rotate_key();
        }
        Told {
            status: 200,
            headers: vec![("content-type", "application/json".into())],
            body: body.to_string(),
        }
    }

    fn limit(&mut self, asked: &Asked) -> Option<Told> {
        let now = Instant::now();
        let endpoint = format!("{} {} {}", asked.account, asked.method, asked.path);
        let limits = [
            (endpoint, self.options.endpoint_per_second, "endpoint-rate"),
            (asked.account.clone(), self.options.account_per_second, "global-rate"),
        ];
        let mut reason = None;
        for (name, limit, word) in &limits {
            let window = self.windows.entry(name.clone()).or_default();
            while window.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
                window.pop_front();
            }
            if limit.is_some_and(|limit| window.len() >= limit) {
                reason = Some(*word);
            }
        }
        let running = self.running.get(&asked.account).copied().unwrap_or(0);
        if self.options.account_concurrency.is_some_and(|limit| running >= limit) {
            reason = Some("global-concurrency");
        }
        let Some(reason) = reason else {
            for (name, limit, _) in limits {
                if limit.is_some() {
                    self.windows.entry(name).or_default().push_back(now);
                }
            }
            return None;
        };
        self.account.limited += 1;
        let mut told = self.error(
            429,
            "invalid_request_error",
            Some("rate_limit"),
            "Request rate limit exceeded.",
            None,
        );
        told.headers.push(("stripe-rate-limited-reason", reason.into()));
        Some(told)
    }

    fn begin_create(&mut self, asked: &Asked) -> Begun {
        self.account.creates += 1;
        self.account.arrivals.push(self.began.elapsed().as_secs_f64());
        if let Some(told) = self.remembered(asked) {
            return Begun::Told(Some(told));
        }
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
        let pairs_for_check =
            pairs.iter().filter(|(path, _)| !path.starts_with("metadata[embosser_")).cloned().collect();
        let mut card = match CardRequest::from_pairs(pairs_for_check) {
            Ok(card) => card,
            Err(problems) => {
                let problem = problems.into_iter().next();
                let (path, reason) =
                    problem.map_or_else(Default::default, |problem| (problem.path, problem.reason));
                let message = format!("Invalid {path}: {reason}");
                return Begun::Told(Some(self.error(
                    400,
                    "invalid_request_error",
                    Some("parameter_invalid"),
                    &message,
                    Some(&path),
                )));
            }
        };
        let fault = self.draw();
        match fault {
            Some(Fault::DropBefore) => return Begun::Told(None),
            Some(Fault::Conflict) => {
                let message =
                    "This object cannot be accessed right now because another request is accessing it.";
                return Begun::Told(Some(self.error(
                    409,
                    "invalid_request_error",
                    Some("lock_timeout"),
                    message,
                    None,
                )));
            }
            Some(Fault::Html) => {
                let headers = vec![("content-type", "text/html".into())];
                return Begun::Told(Some(Told {
                    status: 502,
                    headers,
                    body: "<html>Bad gateway</html>".into(),
                }));
            }
            _ => {}
        }
        let jwe = card.take_pin().map(|pin| pin.expose().to_owned());
        if let Some(jwe) = &jwe
            && !jwe_has_kid(jwe, &self.kid())
        {
            let message = "The PIN was not encrypted under the current key.";
            return Begun::Told(Some(self.error(
                400,
                "invalid_request_error",
                None,
                message,
                Some("pin[encrypted_number]"),
            )));
        }
        if let Some(key) = &asked.idempotency_key {
            self.saved
                .insert((asked.account.clone(), key.clone()), Saved::Running { body: asked.body.clone() });
        }
        *self.running.entry(asked.account.clone()).or_default() += 1;
        let key = self.key.clone();
        Begun::Execute(Execution {
            latency: self.options.latency,
            jwe: jwe.map(|jwe| (jwe, key)),
            card,
            fault,
            limited_account: asked.account.clone(),
        })
    }

    /// What Stripe remembers under the request's idempotency key.
    fn remembered(&mut self, asked: &Asked) -> Option<Told> {
        let name = (asked.account.clone(), asked.idempotency_key.clone()?);
        let now = self.began.elapsed() + self.ahead;
        let expired = matches!(self.saved.get(&name),
            Some(Saved::Ended { at, .. }) if now.saturating_sub(*at) >= self.options.idempotency_window);
        if expired {
            self.saved.remove(&name);
        }
        let (same, told) = match self.saved.get(&name)? {
            Saved::Running { body } => (*body == asked.body, None),
            Saved::Ended { body, told, .. } => (*body == asked.body, Some(told.clone())),
        };
        if !same {
            let message = format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 Try using a key other than '{}' if you meant to execute a different request.",
                name.1
            );
            return Some(self.error(400, "idempotency_error", None, &message, None));
        }
        let Some(mut told) = told else {
            let message = "There is currently another in-progress request using this Idempotent Key.";
            return Some(self.error(
                409,
                "invalid_request_error",
                Some("idempotency_key_in_use"),
                message,
                None,
            ));
        };
        self.account.replays += 1;
        told.headers.push(("idempotent-replayed", "true".into()));
        Some(told)
    }

    fn draw(&mut self) -> Option<Fault> {
        let faults = self.options.faults;
        let chances = [
            (faults.error_before, Fault::ErrorBefore),
            (faults.error_after, Fault::ErrorAfter),
            (faults.drop_before, Fault::DropBefore),
            (faults.drop_after, Fault::DropAfter),
            (faults.conflict, Fault::Conflict),
            (faults.html, Fault::Html),
        ];
        chances.into_iter().find(|(chance, _)| self.faults.random_bool(*chance)).map(|(_, fault)| fault)
    }

    /// The effect, what is saved, and the answer.
    pub(super) fn finish(
        &mut self,
        asked: &Asked,
        execution: Execution,
        pin: Result<Option<String>, String>,
    ) -> Option<Told> {
        if let Some(running) = self.running.get_mut(&execution.limited_account) {
            *running = running.saturating_sub(1);
        }
        let failed = |world: &mut Self| {
            world.error(
                500,
                "api_error",
                None,
                "Sorry! There was an error while talking to one of our backends.",
                None,
            )
        };
        let told = match (execution.fault, pin) {
            (Some(Fault::ErrorBefore), _) => failed(self),
            (_, Err(reason)) => {
                let message = format!("The encrypted PIN {reason}.");
                self.error(400, "invalid_request_error", None, &message, Some("pin[encrypted_number]"))
            }
            (fault, Ok(pin)) => {
                let body = self.make(asked, &execution.card, pin);
                if fault == Some(Fault::ErrorAfter) {
                    failed(self)
                } else {
                    let headers =
                        vec![("content-type", "application/json".into()), ("request-id", self.request_id())];
                    Told { status: 200, headers, body }
                }
            }
        };
        if let Some(key) = &asked.idempotency_key {
            let at = self.began.elapsed() + self.ahead;
            let saved = Saved::Ended { body: asked.body.clone(), told: told.clone(), at };
            self.saved.insert((asked.account.clone(), key.clone()), saved);
        }
        (execution.fault != Some(Fault::DropAfter)).then_some(told)
    }

    fn make(&mut self, asked: &Asked, card: &CardRequest, pin: Option<String>) -> String {
        let pairs: BTreeMap<String, String> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
        let metadata: serde_json::Map<String, Value> = pairs
            .iter()
            .filter_map(|(path, value)| {
                let key = path.strip_prefix("metadata[")?.strip_suffix(']')?;
                Some((key.to_owned(), Value::String(value.clone())))
            })
            .collect();
        let id = format!("ic_sandbox{:08}", self.cards.len() + 1);
        self.account.cards.push(IssuedCard {
            id: id.clone(),
            cardholder: card.cardholder.clone(),
            job: metadata.get("embosser_job").and_then(Value::as_str).map(str::to_owned),
            pin,
        });
        let object = json!({
            "id": id, "object": "issuing.card", "brand": "Visa", "cancellation_reason": null,
            "cardholder": {"id": card.cardholder, "object": "issuing.cardholder"},
            "created": (self.began.elapsed() + self.ahead).as_secs(),
            "currency": pairs.get("currency"), "exp_month": 8, "exp_year": 2030,
            "last4": format!("{:04}", (self.cards.len() + 1) % 10_000), "livemode": false, "metadata": metadata,
            "status": pairs.get("status").map_or("inactive", String::as_str), "type": pairs.get("type"),
        });
        let text = object.to_string();
        self.cards.push((asked.account.clone(), object));
        text
    }

    fn list(&mut self, asked: &Asked) -> Told {
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(asked.query.as_bytes()).into_owned().collect();
        let limit = query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(10_usize).clamp(1, 100);
        let mut matching: Vec<&Value> = self
            .cards
            .iter()
            .rev()
            .filter(|(account, _)| *account == asked.account)
            .map(|(_, card)| card)
            .filter(|card| {
                query.get("cardholder").is_none_or(|wanted| card["cardholder"]["id"] == wanted.as_str())
            })
            .collect();
        if let Some(after) = query.get("starting_after") {
            let at = matching
                .iter()
                .position(|card| card["id"] == after.as_str())
                .map_or(matching.len(), |at| at + 1);
            matching.drain(..at);
        }
        let more = matching.len() > limit;
        matching.truncate(limit);
        let body = json!({"object": "list", "url": "/v1/issuing/cards", "has_more": more, "data": matching});
        Told { status: 200, headers: vec![("request-id", self.request_id())], body: body.to_string() }
    }

    fn retrieve(&mut self, asked: &Asked) -> Told {
        let id = asked.path.rsplit('/').next().unwrap_or("").to_owned();
        let found =
            self.cards.iter().find(|(account, card)| *account == asked.account && card["id"] == id.as_str());
        match found.map(|(_, card)| card.to_string()) {
            Some(body) => Told { status: 200, headers: vec![("request-id", self.request_id())], body },
            None => {
                let message = format!("No such issuing card: '{id}'");
                self.error(404, "invalid_request_error", Some("resource_missing"), &message, Some("card"))
            }
        }
    }

    fn request_id(&self) -> String {
        format!("req_sandbox{:08}", self.requests)
    }

    fn error(&self, status: u16, kind: &str, code: Option<&str>, message: &str, param: Option<&str>) -> Told {
        let mut error = json!({"type": kind, "message": message});
        for (name, value) in [("code", code), ("param", param)] {
            if let Some(value) = value {
                error[name] = value.into();
            }
        }
        let headers = vec![("content-type", "application/json".into()), ("request-id", self.request_id())];
        Told { status, headers, body: json!({ "error": error }).to_string() }
    }
}

fn jwe_has_kid(jwe: &str, kid: &str) -> bool {
    let header = jwe.split('.').next().unwrap_or("");
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<Value>(&json).is_ok_and(|header| header["kid"] == kid)
}

/// Decrypts a PIN, as Stripe would, and checks that it is one.
pub(super) fn decrypt(jwe: &str, key: &Rsa<Private>) -> Result<String, String> {
    let der = key.private_key_to_der().map_err(|error| error.to_string())?;
    let decrypter = josekit::jwe::RSA_OAEP.decrypter_from_der(der).map_err(|error| error.to_string())?;
    let (pin, header) = josekit::jwe::deserialize_compact(jwe, &decrypter)
        .map_err(|_| "could not be decrypted".to_owned())?;
    if header.content_encryption() != Some("A128CBC-HS256") {
        return Err("is not encrypted with A128CBC-HS256".into());
    }
    let pin = String::from_utf8(pin).map_err(|_| "is not four digits".to_owned())?;
    if pin.len() == 4 && pin.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(pin)
    } else {
        Err("is not four digits".into())
    }
}
