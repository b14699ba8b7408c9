//! What the sandbox did, for those who judge from outside, and how they steer it under `/_sandbox/`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Faults;
use super::asked::{Asked, last_part};
use super::told::Told;
use super::world::World;

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

/// What the sandbox did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Account {
    /// Every card made.
    pub cards: Vec<IssuedCard>,
    /// Create calls that the limiters let through.
    pub creates: u64,
    /// Saved answers given again.
    pub replays: u64,
    /// Keys served.
    pub key_fetches: u64,
    /// Calls that a limiter turned away.
    pub limited: u64,
    /// The same, by the reason given.
    pub limited_by: BTreeMap<String, u64>,
    /// Most calls that were executed at once.
    pub at_once_max: usize,
    /// When each create call that was let through arrived, in seconds since the start.
    pub arrivals: Vec<f64>,
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
pub(super) fn control(world: &mut World, asked: &Asked) -> Told {
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let told = match (asked.method.as_str(), last_part(&asked.path)) {
        ("GET", "account") => serde_json::to_value(world.account()).unwrap_or_default(),
        ("GET", "requests") => serde_json::to_value(world.seen()).unwrap_or_default(),
        ("POST", "rotate") => {
            world.rotate_key();
            json!({"ok": true})
        }
        ("POST", "advance") => {
            world.advance(seconds(&body));
            json!({"ok": true})
        }
        ("POST", "list_lag") => {
            world.options.list_lag = seconds(&body);
            json!({"ok": true})
        }
        ("POST", "rate") => {
            let whole = |name: &str| body[name].as_u64().and_then(|limit| usize::try_from(limit).ok());
            world.options.endpoint_per_second = whole("endpoint");
            world.options.account_per_second = whole("account");
            json!({"ok": true})
        }
        ("POST", "faults") => match serde_json::from_value::<Faults>(body) {
            Ok(faults) => {
                world.set_faults(faults);
                json!({"ok": true})
            }
            Err(error) => return Told::new(400, &json!({"error": error.to_string()})),
        },
        _ => {
            return Told::new(
                404,
                &json!({"error": "account, requests, rotate, advance, list_lag, rate, faults"}),
            );
        }
    };
    Told::new(200, &told)
}

/// The time that a body names; none is zero.
fn seconds(body: &Value) -> Duration {
    Duration::try_from_secs_f64(body["seconds"].as_f64().unwrap_or(0.0)).unwrap_or_default()
}
