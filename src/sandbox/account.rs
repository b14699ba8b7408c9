//! What the sandbox did, for those who judge from outside, and how they steer it under `/_sandbox/`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::request::{ApiRequest, last_part};
use super::response::ApiResponse;
use super::world::World;
use super::{Faults, Forced, KeyEndpoint};

/// A card that was made, as tests judge it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct IssuedCard {
    /// Its id.
    pub id: String,
    /// The Stripe account that it belongs to.
    pub account: String,
    /// Whose it is.
    pub cardholder: Option<String>,
    /// `metadata[embosser_job]`.
    pub job: Option<String>,
    /// The PIN that was set, decrypted.
    pub pin: Option<String>,
    /// The idempotency key of the call that made it.
    pub idempotency_key: Option<String>,
}

/// A cardholder that was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MadeCardholder {
    /// Its id.
    pub id: String,
    /// The Stripe account that it belongs to.
    pub account: String,
    /// `metadata[embosser_job]`.
    pub job: Option<String>,
    /// Its e-mail address.
    pub email: Option<String>,
}

/// A change of a card that was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CardChange {
    /// The card's id.
    pub card: String,
    /// `metadata[embosser_change]`, as the call gave it.
    pub job: Option<String>,
    /// The PIN that was set, decrypted.
    pub pin: Option<String>,
    /// The idempotency key of the call.
    pub idempotency_key: Option<String>,
}

/// What the sandbox did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Account {
    /// Every card made.
    pub cards: Vec<IssuedCard>,
    /// Every cardholder made.
    pub cardholders: Vec<MadeCardholder>,
    /// Every change of a card that was made.
    pub changes: Vec<CardChange>,
    /// Create calls that the limiters let through.
    pub creates: u64,
    /// Saved answers given again.
    pub replays: u64,
    /// Keys served.
    pub key_fetches: u64,
    /// Ephemeral keys made.
    pub ephemeral_keys: u64,
    /// Calls that a limiter turned away.
    pub limited: u64,
    /// The same, by the reason given.
    pub limited_by: BTreeMap<String, u64>,
    /// Most calls that were executed at once.
    pub at_once_max: usize,
    /// When each create call that was let through arrived, in seconds since the start.
    pub arrivals: Vec<f64>,
}

impl Account {
    /// A card's PIN was set.
    pub(super) fn pin_is(&mut self, id: &str, pin: &str) {
        if let Some(card) = self.cards.iter_mut().find(|card| card.id == id) {
            card.pin = Some(pin.to_owned());
        }
    }
}

/// How much the sandbox did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Cards made.
    pub cards: usize,
    /// Create calls that the limiters let through.
    pub creates: u64,
    /// Saved answers given again.
    pub replays: u64,
    /// Keys served.
    pub key_fetches: u64,
    /// Calls that a limiter turned away.
    pub limited: u64,
}

/// A request that came, for those who look from outside.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Seen {
    /// Milliseconds since the start.
    pub ms: f64,
    /// The account that it was for.
    pub account: String,
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The answer's status; none while it is executed, or if the connection was cut.
    pub status: Option<u16>,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
}

/// What is told to those who judge from outside, under `/_sandbox/`.
pub(super) fn control(world: &mut World, request: &ApiRequest) -> ApiResponse {
    match (request.method.as_str(), last_part(&request.path)) {
        ("GET", "account") => {
            ApiResponse::new(200, &serde_json::to_value(world.account()).unwrap_or_default())
        }
        ("GET", "requests") => ApiResponse::new(200, &serde_json::to_value(world.seen()).unwrap_or_default()),
        ("POST", _) if request.path.starts_with("/_sandbox/cards/") => {
            match world.at_terminal(&request.path, &request.body) {
                Ok(told) => ApiResponse::new(200, &told),
                Err(reason) => ApiResponse::new(400, &json!({"error": reason})),
            }
        }
        ("POST", order) => match steer(world, order, &request.body) {
            Ok(()) => ApiResponse::new(200, &json!({"ok": true})),
            Err(reason) => ApiResponse::new(400, &json!({"error": reason})),
        },
        _ => ApiResponse::new(404, &json!({"error": format!("GET account, requests; POST {ORDERS}")})),
    }
}

/// What can be ordered.
const ORDERS: &str =
    "rotate, advance, list_lag, rate, faults, force, key_endpoint, cards/{card}/enter_pin, cards/{card}/atm";

fn steer(world: &mut World, order: &str, body: &[u8]) -> Result<(), String> {
    match order {
        "rotate" => world.rotate_key(),
        "advance" => world.advance(seconds(body)?),
        "list_lag" => world.options.list_lag = seconds(body)?,
        "rate" => {
            let rates: Value = read(body)?;
            let whole = |name: &str| rates[name].as_u64().and_then(|limit| usize::try_from(limit).ok());
            world.options.endpoint_per_second = whole("endpoint");
            world.options.account_per_second = whole("account");
        }
        "faults" => world.set_faults(read::<Faults>(body)?),
        "force" => world.options.answer_all = read::<Option<Forced>>(body)?,
        "key_endpoint" => world.set_key_endpoint(read::<KeyEndpoint>(body)?),
        _ => return Err(format!("there is no {order}; there are {ORDERS}")),
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// The time that `{"seconds": N}` names.
fn seconds(body: &[u8]) -> Result<Duration, String> {
    let named: Value = read(body)?;
    let seconds = named["seconds"].as_f64().ok_or("a time is {\"seconds\": N}")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
