//! What a call does: idempotency, validation and the draw of a fault before it, and what is saved after it.

use std::time::Duration;

use openssl::pkey::Private;
use openssl::rsa::Rsa;
use serde_json::{Map, Value};

use super::{Begun, World};
use crate::operation::{FieldProblem, Operation, Request};
use crate::sandbox::account::{CardChange, IssuedCard, MadeCardholder};
use crate::sandbox::cards::Making;
use crate::sandbox::faults::Mishap;
use crate::sandbox::forced::Calls;
use crate::sandbox::memory::Remembered;
use crate::sandbox::request::{ApiRequest, last_part, livemode};
use crate::sandbox::response::{ApiResponse, Cut, Fault};

/// A call under way.
pub(in crate::sandbox) struct Execution {
    pub(in crate::sandbox) latency: Duration,
    pub(in crate::sandbox) jwe: Option<(String, String, Rsa<Private>)>,
    effect: Effect,
    mishap: Option<Mishap>,
    seen: usize,
}

/// What a call is to do, and the JWE that it brings.
pub(super) type Wanted = (Effect, Option<String>);

/// What a call is to do.
pub(super) enum Effect {
    Make { request: Request, metadata: Map<String, Value> },
    Update { id: String, pairs: Vec<(String, String)> },
    MakeEphemeralKey { card: String, nonce: String },
}

impl World {
    /// Memory, validation and the draw of a fault, and then execution.
    pub(super) fn begin_effect(
        &mut self,
        request: &ApiRequest,
        seen: usize,
        of: fn(&mut Self, &ApiRequest) -> Result<Wanted, Fault>,
    ) -> Result<Begun, Fault> {
        let name = request.idempotency_key.clone().map(|key| (request.account.clone(), key));
        if let Some(name) = &name {
            let (now, window) = (self.now(), self.options.idempotency_window);
            match self.memory.ask(name, request.parameters(), now, window) {
                Remembered::Nothing => {}
                Remembered::Refused(fault) => return Err(fault),
                Remembered::Replay(response) => {
                    self.account.replays += 1;
                    return Ok(Begun::Answered(self.respond(request, seen, response)));
                }
            }
        }
        if let Some(forced) = self.forced(Calls::Changes, request) {
            return Ok(Begun::Answered(self.forced_response(request, seen, &forced)));
        }
        let (effect, jwe) = of(self, request)?;
        let mishap = self.options.faults.draw(&mut self.dice);
        match mishap {
            Some(Mishap::DropBefore) => return Ok(Begun::Answered(None)),
            Some(Mishap::Conflict) => return Err(Fault::in_use()),
            Some(Mishap::LockTimeout) => {
                // A 429 that is no limiter's: it has no reason header.
                let message = "This object cannot be accessed right now because another API request or Stripe \
                               process is currently accessing it.";
                return Err(Fault::of(429, "invalid_request_error", Some("lock_timeout"), message));
            }
            Some(Mishap::Html) => {
                return Ok(Begun::Answered(self.respond(request, seen, ApiResponse::page(502))));
            }
            _ => {}
        }
        if let Some(name) = name {
            self.memory.begins(name, request.parameters());
        }
        self.limits.begins(&request.account, &request.endpoint());
        self.executing += 1;
        self.account.at_once_max = self.account.at_once_max.max(self.executing);
        let delay = if mishap == Some(Mishap::Delay) { self.options.delay } else { Duration::ZERO };
        Ok(Begun::Execute(Box::new(Execution {
            latency: self.options.latency + delay,
            jwe: jwe.map(|jwe| (jwe, self.keys.kid(), self.keys.key())),
            effect,
            mishap,
            seen,
        })))
    }

    pub(super) fn making(&mut self, request: &ApiRequest) -> Result<Wanted, Fault> {
        let (mut card, metadata) = new_object(Operation::CreateCard, request)?;
        if let Some(cardholder) = &card.cardholder {
            self.cardholder_exists(&request.account, cardholder, "cardholder")?;
        }
        self.cards.may_make(&request.account, &card)?;
        let jwe = card.take_pin().map(|pin| pin.expose().to_owned());
        Ok((Effect::Make { request: card, metadata }, jwe))
    }

    pub(super) fn making_cardholder(&mut self, request: &ApiRequest) -> Result<Wanted, Fault> {
        let (request, metadata) = new_object(Operation::CreateCardholder, request)?;
        Ok((Effect::Make { request, metadata }, None))
    }

    pub(super) fn updating(&mut self, request: &ApiRequest) -> Result<Wanted, Fault> {
        let id = last_part(&request.path).to_owned();
        let pairs = request.pairs();
        self.cards.changed(&request.account, &id, &pairs)?;
        let jwe = pairs.iter().find(|(path, _)| path == crate::operation::PIN).map(|(_, jwe)| jwe.clone());
        Ok((Effect::Update { id, pairs }, jwe))
    }

    /// The effect, what is saved, and the answer.
    pub(in crate::sandbox) fn finish(
        &mut self,
        request: &ApiRequest,
        execution: Execution,
        pin: Result<Option<String>, String>,
    ) -> Option<ApiResponse> {
        self.limits.ends(&request.account, &request.endpoint());
        self.executing -= 1;
        let Execution { effect, mishap, seen, .. } = execution;
        let failed = Fault::backend().response();
        let name = request.idempotency_key.clone().map(|key| (request.account.clone(), key));
        let response = match (mishap, pin) {
            (Some(Mishap::ErrorBefore), _) => failed,
            (_, Err(reason)) => {
                // Validation: it is not saved.
                if let Some(name) = &name {
                    self.memory.forgets(name);
                }
                let fault =
                    Fault::invalid(None, crate::operation::PIN, format!("The encrypted PIN {reason}."));
                return self.respond(request, seen, fault.response());
            }
            (mishap, Ok(pin)) => {
                let response = self.effect(request, effect, pin);
                if mishap == Some(Mishap::ErrorAfter) { failed } else { response }
            }
        };
        if let Some(name) = name {
            self.memory.ends(name, request.parameters(), response.clone(), self.now());
        }
        match mishap {
            Some(Mishap::DropAfter) => None,
            Some(Mishap::Empty) => self.respond(request, seen, ApiResponse::nothing()),
            Some(Mishap::HalfBody) => {
                self.respond(request, seen, ApiResponse { cut: Cut::HalfWay, ..response })
            }
            _ => self.respond(request, seen, response),
        }
    }

    fn effect(&mut self, request: &ApiRequest, effect: Effect, pin: Option<String>) -> ApiResponse {
        match effect {
            Effect::Update { id, pairs } => {
                let updated = self.cards.update(&request.account, &id, &pairs);
                let response =
                    updated.map_or_else(|fault| fault.response(), |card| ApiResponse::new(200, card));
                if response.status != 200 {
                    return response;
                }
                if let Some(pin) = &pin {
                    self.pins.set(&id, pin);
                    self.account.pin_is(&id, pin);
                }
                if pairs.iter().any(|(path, value)| path == "status" && value == "active") {
                    self.pins.activated(&id);
                }
                let job = pairs.into_iter().find(|(path, _)| path == "metadata[embosser_change]");
                self.account.changes.push(CardChange {
                    card: id,
                    job: job.map(|(_, job)| job),
                    pin,
                    idempotency_key: request.idempotency_key.clone(),
                });
                response
            }
            Effect::MakeEphemeralKey { card, nonce } => self.make_ephemeral_key(request, &card, &nonce),
            Effect::Make { request: wanted, metadata } => {
                let making = Making {
                    account: &request.account,
                    created: self.unix_seconds(),
                    made_at: self.now(),
                    livemode: livemode(request),
                    metadata,
                };
                if wanted.operation() == Operation::CreateCardholder {
                    let object = self.cardholders.make(&wanted, making);
                    let text = |value: &Value| value.as_str().map(str::to_owned);
                    self.account.cardholders.push(MadeCardholder {
                        id: text(&object["id"]).unwrap_or_default(),
                        account: request.account.clone(),
                        job: text(&object["metadata"]["embosser_job"]),
                        email: text(&object["email"]),
                    });
                    return ApiResponse::new(200, object);
                }
                let whose = wanted.cardholder.as_deref();
                let cardholder = whose.and_then(|id| self.cardholders.find(&request.account, id));
                let object = self.cards.make(&wanted, cardholder, making);
                let id = object["id"].as_str().unwrap_or_default().to_owned();
                self.pins.made(&id, pin.as_deref(), livemode(request));
                self.account.cards.push(IssuedCard {
                    id,
                    account: request.account.clone(),
                    cardholder: wanted.cardholder.clone(),
                    job: object["metadata"]["embosser_job"].as_str().map(str::to_owned),
                    pin,
                    idempotency_key: request.idempotency_key.clone(),
                });
                ApiResponse::new(200, object)
            }
        }
    }
}

/// What is to be made, and its metadata. What embosser itself adds to that, its users may not give: the table of parameters
/// leaves it out.
fn new_object(operation: Operation, request: &ApiRequest) -> Result<(Request, Map<String, Value>), Fault> {
    let (metadata, others): (Vec<_>, Vec<_>) =
        request.pairs().into_iter().partition(|(path, _)| path.starts_with("metadata["));
    let metadata = entries(metadata)?;
    let wanted = Request::from_pairs(operation, others).map_err(|problems| {
        problems.first().map_or_else(|| Fault::invalid(None, "", "Invalid request"), fault_of)
    })?;
    Ok((wanted, metadata))
}

/// A problem as Stripe words it.
fn fault_of(problem: &FieldProblem) -> Fault {
    let path = problem.path.as_str();
    let (code, message) = match problem.code {
        "unknown_parameter" => (Some("parameter_unknown"), format!("Received unknown parameter: {path}")),
        "missing" => (Some("parameter_missing"), format!("Missing required param: {path}.")),
        "wrong_type" | "not_an_integer" => {
            (Some("parameter_invalid_integer"), format!("Invalid {path}: {}", problem.reason))
        }
        _ => (None, format!("Invalid {path}: {}", problem.reason)),
    };
    Fault::invalid(code, path, message)
}

fn entries(pairs: Vec<(String, String)>) -> Result<Map<String, Value>, Fault> {
    const ENTRIES_MAX: usize = 50;
    let mut entries = Map::new();
    for (path, value) in pairs {
        let key = path.strip_prefix("metadata[").and_then(|key| key.strip_suffix(']')).unwrap_or("");
        if key.is_empty() || key.chars().count() > 40 || key.contains(['[', ']']) {
            return Err(Fault::invalid(None, &path, "Metadata keys have 1 to 40 characters and no brackets"));
        }
        if value.chars().count() > 500 {
            return Err(Fault::invalid(None, &path, "Metadata values have up to 500 characters"));
        }
        entries.insert(key.to_owned(), value.into());
    }
    if entries.len() > ENTRIES_MAX {
        return Err(Fault::invalid(None, "metadata", "You can have up to 50 metadata keys"));
    }
    Ok(entries)
}
