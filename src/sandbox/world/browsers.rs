//! What browsers ask the API for: nonces with a publishable key, and one card with an ephemeral key; and the ephemeral keys
//! that servers make for them.

use serde_json::{Value, json};

use super::World;
use super::effect::{Effect, Wanted};
use crate::sandbox::elements::NoUse;
use crate::sandbox::identity;
use crate::sandbox::request::{ApiRequest, CARDS, api_key_of, is_one_of, last_part, livemode};
use crate::sandbox::response::{ApiResponse, Fault};

/// Where ephemeral keys are made.
pub(super) const EPHEMERAL_KEYS: &str = "/v1/ephemeral_keys";
/// The first version of the API whose ephemeral keys Issuing Elements know.
const VERSION_MIN: &str = "2020-03-02";

impl World {
    /// The answer to what a browser asks for; none if it is not one of these calls.
    pub(super) fn for_browsers(&mut self, request: &ApiRequest) -> Result<Option<ApiResponse>, Fault> {
        let key = request.authorization.as_deref().and_then(api_key_of);
        match (request.method.as_str(), request.path.as_str(), key) {
            ("POST", "/v1/ephemeral_key_nonces", _) => self.nonce(request).map(Some),
            ("GET", path, Some(secret)) if is_one_of(CARDS, path) && secret.starts_with("ek_") => {
                self.shown_card(request, &secret).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn nonce(&mut self, request: &ApiRequest) -> Result<ApiResponse, Fault> {
        let pairs = request.pairs();
        let given = |name: &str| pairs.iter().find(|(path, _)| path == name).map(|(_, value)| value.clone());
        // Stripe.js gives its key in the body, so that browsers need no leave to send it; other clients give a header.
        let key = given("key").or_else(|| request.authorization.as_deref().and_then(api_key_of));
        let Some(key) = key.filter(|key| key.starts_with("pk_")) else {
            return Err(Fault::of(401, "invalid_request_error", None, "Invalid API Key provided"));
        };
        let account =
            identity::account_of(given("_stripe_account").as_deref(), Some(&format!("Bearer {key}")));
        let (public, private) = self.ephemeral_keys.nonce(&account, given("issuing_card"));
        let body = json!({"object": "ephemeral_key_nonce", "public_nonce": public, "private_nonce": private});
        Ok(ApiResponse::new(200, &body))
    }

    /// A card with those of its details that were asked for.
    fn shown_card(&mut self, request: &ApiRequest, secret: &str) -> Result<ApiResponse, Fault> {
        let id = last_part(&request.path);
        let (mut nonce, mut expand) = (String::new(), Vec::new());
        for (name, value) in url::form_urlencoded::parse(request.query.as_bytes()) {
            if name == "ephemeral_key_private_nonce" {
                nonce = value.into_owned();
            } else if name.starts_with("expand[") {
                expand.push(value.into_owned());
            }
        }
        let account = self.ephemeral_keys.account_of(secret, id, &nonce, self.now()).map_err(NoUse::fault)?;
        let mut card = self.cards.find(account, id)?.clone();
        for field in expand {
            let of_virtual_cards = field == "number" || field == "cvc";
            if of_virtual_cards && card["type"] != "virtual" {
                let message = format!("Only virtual cards have a {field} that can be shown.");
                return Err(Fault::invalid(None, "expand", message));
            }
            match field.as_str() {
                "number" => card["number"] = number_of(&card).into(),
                "cvc" => card["cvc"] = cvc_of(&card).into(),
                "pin.number" => card["pin"] = json!({"number": self.pins.at_issuer(id)}),
                _ => {}
            }
        }
        Ok(ApiResponse::new(200, &card))
    }

    /// A key to be made: which card it is for, with which nonce.
    pub(super) fn making_ephemeral_key(&mut self, request: &ApiRequest) -> Result<Wanted, Fault> {
        let version = request.version.as_deref().unwrap_or_default();
        if version.is_empty() {
            let message =
                "An ephemeral key is made for one version of the API: give the header Stripe-Version.";
            return Err(Fault::of(400, "invalid_request_error", None, message));
        }
        if version < VERSION_MIN {
            let message = format!("Ephemeral keys of cards need Stripe-Version {VERSION_MIN} or later.");
            return Err(Fault::of(400, "invalid_request_error", None, &message));
        }
        let (mut card, mut nonce) = (None, None);
        for (path, value) in request.pairs() {
            match path.as_str() {
                "issuing_card" => card = Some(value),
                "nonce" => nonce = Some(value),
                path if path.starts_with("expand[") => {}
                _ => {
                    let message = format!("Received unknown parameter: {path}");
                    return Err(Fault::invalid(Some("parameter_unknown"), &path, message));
                }
            }
        }
        let missing = |name: &str| {
            Fault::invalid(Some("parameter_missing"), name, format!("Missing required param: {name}."))
        };
        let card = card.ok_or_else(|| missing("issuing_card"))?;
        let nonce = nonce.ok_or_else(|| missing("nonce"))?;
        self.cards
            .find(&request.account, &card)
            .map_err(|_| Fault::missing("issuing card", "issuing_card", &card))?;
        self.ephemeral_keys.may_make(&request.account, &card, &nonce)?;
        Ok((Effect::MakeEphemeralKey { card, nonce }, None))
    }

    pub(super) fn make_ephemeral_key(
        &mut self,
        request: &ApiRequest,
        card: &str,
        nonce: &str,
    ) -> ApiResponse {
        let lifetime = self.options.ephemeral_key_lifetime;
        let (created, expires) = (self.unix_seconds(), self.now() + lifetime);
        let of = (request.account.as_str(), card);
        match self.ephemeral_keys.make(of, nonce, expires, livemode(request)) {
            Err(fault) => fault.response(),
            Ok((id, secret)) => {
                self.account.ephemeral_keys += 1;
                let object = json!({
                    "id": id, "object": "ephemeral_key", "associated_objects": [{"type": "issuing.card", "id": card}],
                    "created": created, "expires": created + lifetime.as_secs(), "livemode": livemode(request),
                    "secret": secret,
                });
                ApiResponse::new(200, &object)
            }
        }
    }

    /// `DELETE /v1/ephemeral_keys/{id}`: the key shows nothing any more.
    pub(super) fn end_ephemeral_key(&mut self, request: &ApiRequest) -> Result<Value, Fault> {
        let (id, now) = (last_part(&request.path), self.now());
        if self.ephemeral_keys.end(&request.account, id, now) {
            Ok(
                json!({"id": id, "object": "ephemeral_key", "livemode": livemode(request), "created": self.unix_seconds(),
                "expires": self.unix_seconds()}),
            )
        } else {
            Err(Fault::missing("ephemeral key", "id", id))
        }
    }
}

/// A browser asks whether it may send a header to another origin.
pub(super) fn preflight() -> ApiResponse {
    let headers = vec![
        ("access-control-allow-methods", "GET, POST".to_owned()),
        ("access-control-allow-headers", "authorization, content-type, stripe-version".to_owned()),
    ];
    ApiResponse { status: 204, headers, ..ApiResponse::nothing() }
}

/// A number that is no real card's: its last four digits are the card's own.
fn number_of(card: &Value) -> String {
    format!("400000999000{}", card["last4"].as_str().unwrap_or_default())
}

/// Three digits that a replacement does not share with the card it replaces.
fn cvc_of(card: &Value) -> String {
    let id = card["id"].as_str().unwrap_or_default();
    let number: u32 = id.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(0);
    format!("{:03}", (number * 7 + 100) % 1000)
}
