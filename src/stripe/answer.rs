//! What Stripe's answers mean.
//!
//! Written against docs.stripe.com/error-low-level, /idempotent-requests and /rate-limits. The rule that matters: an
//! answer that cannot be understood is *unknown*, never a no.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::ListedCard;
use crate::outcome::{Card, Refusal};

/// Longest message that is kept of an error, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 400;
/// A run of this many base64url characters in an error message could be a piece of a JWE, and is cut out.
const SECRET_RUN_MIN: usize = 32;

/// Which limiter turned a call away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitReason {
    /// `global-rate`
    GlobalRate,
    /// `global-concurrency`
    GlobalConcurrency,
    /// `endpoint-rate`
    EndpointRate,
    /// `endpoint-concurrency`
    EndpointConcurrency,
    /// `resource-specific`
    ResourceSpecific,
    /// A reason that is newer than this embosser.
    Other,
}

impl LimitReason {
    fn of_header(value: &str) -> Self {
        match value {
            "global-rate" => Self::GlobalRate,
            "global-concurrency" => Self::GlobalConcurrency,
            "endpoint-rate" => Self::EndpointRate,
            "endpoint-concurrency" => Self::EndpointConcurrency,
            "resource-specific" => Self::ResourceSpecific,
            _ => Self::Other,
        }
    }

    /// As Stripe writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::GlobalRate => "global-rate",
            Self::GlobalConcurrency => "global-concurrency",
            Self::EndpointRate => "endpoint-rate",
            Self::EndpointConcurrency => "endpoint-concurrency",
            Self::ResourceSpecific => "resource-specific",
            Self::Other => "other",
        }
    }
}

/// What a create call's answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A card.
    Issued {
        /// The card.
        card: Card,
        /// `metadata[embosser_job]`, where the answer has it.
        job: Option<String>,
        /// Stripe's id of the request.
        request_id: Option<String>,
        /// Whether it is an earlier call's saved answer.
        replayed: bool,
    },
    /// A definite no.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Stripe's id of the request.
        request_id: Option<String>,
        /// Whether it is an earlier call's saved answer.
        replayed: bool,
    },
    /// 403: the key lacks a permission. Nothing was done.
    Forbidden {
        /// Why.
        refusal: Refusal,
        /// Stripe's id of the request.
        request_id: Option<String>,
    },
    /// 401: the key is not accepted. Nothing was done.
    KeyRejected(String),
    /// A limiter's 429. Nothing was done.
    Limited(LimitReason),
    /// The call never left. Nothing was done.
    NotSent(String),
    /// The call was held back at the moment when it would have left ([`super::Leave::Stay`]). Nothing was done.
    HeldBack,
    /// 409: the first call under this key is still running.
    InUse(String),
    /// The key was used before with another body.
    BodyDiffers,
    /// The saved 5xx of the first call: it ended, how is to be looked up.
    EndedBadly(String),
    /// No telling.
    Unknown {
        /// What came instead of an answer.
        reason: String,
        /// Whether Stripe itself seems to be in trouble (counts towards pausing the line).
        trouble: bool,
    },
}

impl Answer {
    /// The connection gave none.
    pub(super) fn no_answer(reason: String) -> Self {
        Self::Unknown { reason, trouble: true }
    }
}

/// One page of cards.
#[derive(Debug)]
pub enum Listed {
    /// The page.
    Page {
        /// Its cards.
        cards: Vec<ListedCard>,
        /// Whether more follow.
        more: bool,
    },
    /// It could not be had; nothing is proven by that.
    Failed {
        /// Why.
        reason: String,
        /// The limiter that turned it away, if one did.
        limited: Option<LimitReason>,
        /// Whether the API key was not accepted.
        key_rejected: bool,
    },
}

#[derive(Deserialize)]
struct CardBody {
    id: String,
    #[serde(default)]
    last4: String,
    #[serde(default)]
    exp_month: u32,
    #[serde(default)]
    exp_year: u32,
    #[serde(default)]
    metadata: Metadata,
}

/// Only the one entry that is ours is read.
#[derive(Deserialize, Default)]
struct Metadata {
    embosser_job: Option<String>,
}

#[derive(Deserialize)]
struct ListBody {
    data: Vec<CardBody>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(rename = "type", default)]
    kind: String,
    code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

impl From<CardBody> for ListedCard {
    fn from(body: CardBody) -> Self {
        Self {
            card: Card { id: body.id, last4: body.last4, exp_month: body.exp_month, exp_year: body.exp_year },
            job: body.metadata.embosser_job,
        }
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn limit_reason(headers: &HeaderMap, error: Option<&ErrorObject>) -> Option<LimitReason> {
    if let Some(reason) = header(headers, "stripe-rate-limited-reason") {
        return Some(LimitReason::of_header(reason));
    }
    // Before the header existed a limiter was told by its code; any other 429 is not a limiter's.
    error.filter(|error| error.code.as_deref() == Some("rate_limit")).map(|_| LimitReason::Other)
}

/// The meaning of a create call's answer.
pub(super) fn of_create(status: StatusCode, headers: &HeaderMap, body: Result<Bytes, String>) -> Answer {
    let request_id = header(headers, "request-id").map(str::to_owned);
    let replayed =
        header(headers, "idempotent-replayed").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if status.is_success() {
        return match body {
            Err(reason) => {
                Answer::Unknown { reason: format!("the answer broke off: {reason}"), trouble: false }
            }
            Ok(body) => match serde_json::from_slice::<CardBody>(&body) {
                Ok(card) if card.id.starts_with("ic_") => {
                    let ListedCard { card, job } = card.into();
                    Answer::Issued { card, job, request_id, replayed }
                }
                _ => {
                    Answer::Unknown { reason: format!("{status}, but no card in the answer"), trouble: true }
                }
            },
        };
    }
    let error =
        body.ok().and_then(|body| serde_json::from_slice::<ErrorBody>(&body).ok()).map(|body| body.error);
    let told = format!("{status}: {}", error.as_ref().map_or("no explanation".into(), message));
    match status {
        StatusCode::UNAUTHORIZED => Answer::KeyRejected(told),
        StatusCode::TOO_MANY_REQUESTS => match limit_reason(headers, error.as_ref()) {
            Some(reason) => Answer::Limited(reason),
            None => Answer::Unknown { reason: told, trouble: false },
        },
        StatusCode::CONFLICT => Answer::InUse(told),
        status if status.is_server_error() && replayed => Answer::EndedBadly(told),
        status if status.is_client_error() => {
            of_client_error(status, headers, error, told, request_id, replayed)
        }
        _ => Answer::Unknown { reason: told, trouble: error.is_none() },
    }
}

fn of_client_error(
    status: StatusCode,
    headers: &HeaderMap,
    error: Option<ErrorObject>,
    told: String,
    request_id: Option<String>,
    replayed: bool,
) -> Answer {
    let Some(error) = error else {
        // A proxy's page, or not Stripe at all.
        return Answer::Unknown { reason: format!("{told} (not Stripe's error shape)"), trouble: true };
    };
    if error.kind == "idempotency_error" {
        return if error.code.as_deref() == Some("idempotency_key_in_use") {
            Answer::InUse(told)
        } else {
            Answer::BodyDiffers
        };
    }
    if header(headers, "stripe-should-retry") == Some("true") {
        return Answer::Unknown { reason: told, trouble: false };
    }
    let refusal = refusal(status, &error);
    if status == StatusCode::FORBIDDEN {
        return Answer::Forbidden { refusal, request_id };
    }
    Answer::Refused { refusal, request_id, replayed }
}

/// The meaning of a list call's answer.
pub(super) fn of_list(status: StatusCode, headers: &HeaderMap, body: Result<Bytes, String>) -> Listed {
    let failed = |reason: String, limited, key_rejected| Listed::Failed { reason, limited, key_rejected };
    let body = match body {
        Ok(body) => body,
        Err(reason) => return failed(format!("the list broke off: {reason}"), None, false),
    };
    if status.is_success() {
        return match serde_json::from_slice::<ListBody>(&body) {
            Ok(list) => Listed::Page {
                cards: list.data.into_iter().map(ListedCard::from).collect(),
                more: list.has_more,
            },
            Err(_) => failed(format!("{status}, but no list in the answer"), None, false),
        };
    }
    let error = serde_json::from_slice::<ErrorBody>(&body).ok().map(|body| body.error);
    let told = format!("{status}: {}", error.as_ref().map_or("no explanation".into(), message));
    let limited =
        (status == StatusCode::TOO_MANY_REQUESTS).then(|| limit_reason(headers, error.as_ref())).flatten();
    failed(told, limited, status == StatusCode::UNAUTHORIZED)
}

fn refusal(status: StatusCode, error: &ErrorObject) -> Refusal {
    let code = error.decline_code.clone().or_else(|| error.code.clone()).unwrap_or_else(|| {
        if error.kind.is_empty() { format!("http_{}", status.as_u16()) } else { error.kind.clone() }
    });
    Refusal { code: scrub(&code).into(), message: message(error) }
}

fn message(error: &ErrorObject) -> String {
    let mut text = scrub(error.message.as_deref().unwrap_or("no explanation"));
    if let Some(param) = &error.param {
        text = format!("{text} (parameter {})", scrub(param));
    }
    text
}

/// Cuts out whatever could be a piece of a JWE or a key, should Stripe quote what it was sent; and shortens.
pub(crate) fn scrub(text: &str) -> String {
    let of_secret = |character: char| {
        character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '+' | '=')
    };
    let mut clean = String::with_capacity(text.len().min(MESSAGE_CHARACTERS_MAX));
    let mut run = String::new();
    for character in text.chars().chain(std::iter::once(' ')) {
        if of_secret(character) {
            run.push(character);
            continue;
        }
        if run.len() >= SECRET_RUN_MIN && !run.starts_with("req_") || run.starts_with("eyJ") {
            clean.push_str("[removed]");
        } else {
            clean.push_str(&run);
        }
        run.clear();
        clean.push(if character.is_control() { ' ' } else { character });
    }
    clean.trim_end().chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn create(status: u16, pairs: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        of_create(status, &headers(pairs), Ok(Bytes::from_static(body.as_bytes())))
    }

    #[test]
    fn a_success_without_a_card_is_unknown_never_a_card() {
        for body in ["<html>", "", "{\"id\":", "{\"id\":\"ich_1\"}", "[]"] {
            assert!(matches!(create(200, &[], body), Answer::Unknown { .. }), "{body}");
        }
    }

    #[test]
    fn a_429_is_a_limiters_only_with_a_reason() {
        let reason = [("stripe-rate-limited-reason", "endpoint-rate")];
        assert_eq!(create(429, &reason, "{}"), Answer::Limited(LimitReason::EndpointRate));
        assert_eq!(create(429, &reason, "<html>"), Answer::Limited(LimitReason::EndpointRate));
        let lock = r#"{"error":{"type":"invalid_request_error","code":"lock_timeout","message":"busy"}}"#;
        assert!(matches!(create(429, &[], lock), Answer::Unknown { trouble: false, .. }));
    }

    #[test]
    fn a_500_is_never_a_refusal() {
        let body = r#"{"error":{"type":"api_error","message":"oops"}}"#;
        assert!(matches!(create(500, &[], body), Answer::Unknown { .. }));
        let replayed = [("idempotent-replayed", "true")];
        assert!(matches!(create(500, &replayed, body), Answer::EndedBadly(_)));
    }

    #[test]
    fn a_client_error_that_is_not_stripes_is_unknown() {
        for status in [400, 403, 404, 418] {
            assert!(matches!(create(status, &[], "<html>not found</html>"), Answer::Unknown { .. }));
        }
    }

    #[test]
    fn the_same_key_with_another_body_is_told_apart_from_a_refusal() {
        let body = r#"{"error":{"type":"idempotency_error","message":"other parameters"}}"#;
        assert_eq!(create(400, &[], body), Answer::BodyDiffers);
    }

    #[test]
    fn a_message_that_quotes_a_jwe_loses_it() {
        let jwe = format!("eyJhbGciOiJSU0EtT0FFUCJ9.{}.x", "A".repeat(300));
        let quoted = format!("Invalid PIN: {jwe}, see docs");
        let clean = scrub(&quoted);
        assert!(!clean.contains("eyJ") && !clean.contains("AAAA"), "{clean}");
        assert!(clean.contains("Invalid PIN") && clean.contains("see docs"));
    }
}
