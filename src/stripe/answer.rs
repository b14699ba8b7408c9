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
        /// What equal refusals have in common: status, code, parameter, and the message without ids.
        same: String,
    },
    /// 403: the key lacks a permission. Nothing was done.
    Forbidden {
        /// Why.
        refusal: Refusal,
        /// Stripe's id of the request.
        request_id: Option<String>,
        /// What equal refusals have in common.
        same: String,
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
        /// Whether Stripe said no, and would say so again.
        is_definite: bool,
    },
}

/// Whose key it is.
#[derive(Debug)]
pub enum AccountAnswer {
    /// This account's, `acct_…`.
    Is(String),
    /// The key may not ask.
    Forbidden(String),
    /// The key is not accepted.
    KeyRejected(String),
    /// A limiter turned the question away.
    Limited(LimitReason),
    /// There is no answer this time.
    Failed(String),
}

/// Whether a card is the account's.
#[derive(Debug)]
pub enum CardAnswer {
    /// It is.
    Found(Box<ListedCard>),
    /// It is not.
    Missing,
    /// There is no answer this time.
    Failed(String),
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
    #[serde(rename = "type")]
    kind: Option<String>,
    currency: Option<String>,
    cardholder: Option<Cardholder>,
}

/// Only the entries that are ours are read.
#[derive(Deserialize, Default)]
struct Metadata {
    embosser_job: Option<String>,
    embosser_batch: Option<String>,
}

/// A cardholder in a card: the object, or only its id.
#[derive(Deserialize)]
#[serde(untagged)]
enum Cardholder {
    Id(String),
    Object { id: String },
}

#[derive(Deserialize)]
struct AccountBody {
    id: String,
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
            batch: body.metadata.embosser_batch,
            kind: body.kind,
            currency: body.currency,
            cardholder: body.cardholder.map(|cardholder| match cardholder {
                Cardholder::Id(id) | Cardholder::Object { id } => id,
            }),
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
                    let ListedCard { card, job, .. } = card.into();
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
            // Not a limiter's, so nothing tells how to slow down; many in a row are trouble all the same.
            None => Answer::Unknown { reason: told, trouble: true },
        },
        StatusCode::CONFLICT => Answer::InUse(told),
        status if status.is_server_error() && replayed => Answer::EndedBadly(told),
        // Something outside Stripe failed (docs.stripe.com/error-low-level): try again under the same key.
        StatusCode::FAILED_DEPENDENCY => Answer::Unknown { reason: told, trouble: true },
        status if status.is_client_error() => {
            of_client_error(status, headers, error, told, request_id, replayed)
        }
        _ => Answer::Unknown { reason: told, trouble: true },
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
    let same = same(status, &refusal, &error);
    if status == StatusCode::FORBIDDEN {
        return Answer::Forbidden { refusal, request_id, same };
    }
    Answer::Refused { refusal, request_id, replayed, same }
}

/// What a refusal has in common with others that say the same of other jobs: ids, numbers and what stands in quotes are
/// left out of its message.
fn same(status: StatusCode, refusal: &Refusal, error: &ErrorObject) -> String {
    let mut message = String::new();
    let mut quote = None;
    for word in refusal.message.split_inclusive(|letter: char| !letter.is_alphanumeric() && letter != '_') {
        let (text, end) = match word.char_indices().next_back() {
            Some((at, end)) if !end.is_alphanumeric() && end != '_' => (&word[..at], Some(end)),
            _ => (word, None),
        };
        if quote.is_none() && !text.is_empty() && !text.contains('_') && !text.contains(|letter: char| letter.is_ascii_digit()) {
            message.push_str(text);
            message.push(' ');
        }
        match end {
            Some(end @ ('\'' | '"' | '`')) => quote = if quote == Some(end) { None } else { quote.or(Some(end)) },
            _ => {}
        }
    }
    format!("{} {} {} {message}", status.as_u16(), refusal.code, error.param.as_deref().unwrap_or(""))
}

/// The meaning of the answer to whose key it is.
pub(super) fn of_account(status: StatusCode, headers: &HeaderMap, body: Result<Bytes, String>) -> AccountAnswer {
    let body = match body {
        Ok(body) => body,
        Err(reason) => return AccountAnswer::Failed(format!("the answer broke off: {reason}")),
    };
    if status.is_success() {
        return match serde_json::from_slice::<AccountBody>(&body) {
            Ok(account) if account.id.starts_with("acct_") => AccountAnswer::Is(account.id),
            _ => AccountAnswer::Forbidden(format!("{status}, but no account in the answer")),
        };
    }
    let error = serde_json::from_slice::<ErrorBody>(&body).ok().map(|body| body.error);
    let told = format!("{status}: {}", error.as_ref().map_or("no explanation".into(), message));
    match status {
        StatusCode::UNAUTHORIZED => AccountAnswer::KeyRejected(told),
        StatusCode::TOO_MANY_REQUESTS => match limit_reason(headers, error.as_ref()) {
            Some(reason) => AccountAnswer::Limited(reason),
            None => AccountAnswer::Failed(told),
        },
        status if status.is_client_error() => AccountAnswer::Forbidden(told),
        _ => AccountAnswer::Failed(told),
    }
}

/// The meaning of the answer to a question for one card.
pub(super) fn of_card(status: StatusCode, body: Result<Bytes, String>) -> CardAnswer {
    match body {
        Err(reason) => CardAnswer::Failed(format!("the answer broke off: {reason}")),
        Ok(body) if status.is_success() => match serde_json::from_slice::<CardBody>(&body) {
            Ok(card) => CardAnswer::Found(Box::new(card.into())),
            Err(_) => CardAnswer::Failed(format!("{status}, but no card in the answer")),
        },
        Ok(_) if status == StatusCode::NOT_FOUND => CardAnswer::Missing,
        Ok(body) => {
            let error = serde_json::from_slice::<ErrorBody>(&body).ok().map(|body| body.error);
            CardAnswer::Failed(format!("{status}: {}", error.as_ref().map_or("no explanation".into(), message)))
        }
    }
}

/// The meaning of a list call's answer.
pub(super) fn of_list(status: StatusCode, headers: &HeaderMap, body: Result<Bytes, String>) -> Listed {
    let failed = |reason: String, limited, key_rejected| Listed::Failed {
        reason,
        limited,
        key_rejected,
        is_definite: status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS,
    };
    let body = match body {
        Ok(body) => body,
        Err(reason) => return failed(format!("the list broke off: {reason}"), None, false),
    };
    if status.is_success() {
        return match serde_json::from_slice::<ListBody>(&body) {
            // Whoever took this for the end would miss the rest.
            Ok(list) if list.has_more && list.data.is_empty() => {
                failed("the list says that there is more, and has nothing".into(), None, false)
            }
            Ok(list) => Listed::Page {
                cards: list.data.into_iter().map(ListedCard::from).collect(),
                more: list.has_more,
            },
            // JSON that is no list will be none the next time; anything else may be a proxy's page.
            Err(_) => Listed::Failed {
                reason: format!("{status}, but no list in the answer"),
                limited: None,
                key_rejected: false,
                is_definite: serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok(),
            },
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
        assert!(matches!(create(429, &[], lock), Answer::Unknown { trouble: true, .. }));
    }

    #[test]
    fn every_5xx_is_trouble_unless_it_is_remembered_and_424_is_no_refusal() {
        let error = r#"{"error":{"type":"api_error","message":"oops"}}"#;
        for status in [424, 500, 502, 503, 504] {
            for body in [error, "<html>"] {
                assert!(matches!(create(status, &[], body), Answer::Unknown { trouble: true, .. }), "{status} {body}");
            }
        }
    }

    #[test]
    fn what_is_said_of_everybody_is_told_without_ids() {
        let same_of = |body: &'static str| match create(400, &[], body) {
            Answer::Refused { same, .. } => same,
            other => panic!("{other:?}"),
        };
        let one = same_of(r#"{"error":{"type":"invalid_request_error","code":"resource_missing","param":"cardholder",
            "message":"No such cardholder: 'ich_1ABC'; a request 'req_17' was 12 ms late"}}"#);
        let other = same_of(r#"{"error":{"type":"invalid_request_error","code":"resource_missing","param":"cardholder",
            "message":"No such cardholder: 'ich_2DEF'; a request 'req_18' was 7 ms late"}}"#);
        assert_eq!(one, other);
        assert!(one.contains("such") && one.contains("resource_missing"), "{one}");
        let currency = same_of(r#"{"error":{"type":"invalid_request_error","param":"currency",
            "message":"Invalid currency"}}"#);
        assert_ne!(one, currency);
    }

    #[test]
    fn a_list_that_has_more_and_nothing_is_no_list() {
        let list = |body: &'static str| of_list(StatusCode::OK, &HeaderMap::new(), Ok(Bytes::from_static(body.as_bytes())));
        assert!(matches!(list(r#"{"data":[],"has_more":false}"#), Listed::Page { more: false, .. }));
        assert!(matches!(list(r#"{"data":[],"has_more":true}"#), Listed::Failed { .. }));
        let card = r#"{"data":[{"id":"ic_1","type":"virtual","currency":"eur","cardholder":{"id":"ich_1"},
            "metadata":{"embosser_job":"b/1","embosser_batch":"b"}}],"has_more":false}"#;
        let Listed::Page { cards, .. } = list(card) else { panic!("a page") };
        assert_eq!(cards[0].cardholder.as_deref(), Some("ich_1"));
        assert_eq!((cards[0].job.as_deref(), cards[0].batch.as_deref()), (Some("b/1"), Some("b")));
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
