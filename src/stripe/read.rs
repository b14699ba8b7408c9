//! What Stripe's answers to questions mean: a page of cards, one card, the account.
//!
//! Questions change nothing, so here a failure proves nothing: neither that a card is there nor that none is.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::error::{ErrorObject, LimitReason, limit_reason, sentence_of};
use super::standing::{Standing, StandingAnswer};
use crate::clock::Time;
use crate::operation::Found;

/// One page of a list.
#[derive(Debug)]
pub enum Listed {
    /// The page.
    Page {
        /// Its objects.
        found: Vec<Found>,
        /// Whether more follow. A page that says so has at least one object.
        more: bool,
    },
    /// It could not be had; nothing is proven by that.
    Failed {
        /// Why.
        reason: String,
        /// What that means for the next try.
        failure: ListFailure,
    },
}

/// Why a page could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFailure {
    /// Another time it may.
    Passing,
    /// A limiter's 429.
    Limited(LimitReason),
    /// 401: the key is not accepted.
    KeyRejected,
    /// The key may not list cards, or there is no such list.
    Forbidden,
    /// Stripe does not know what the list is narrowed by, or goes on from: a cardholder, for instance.
    Missing,
    /// Stripe says no to this question otherwise.
    Refused,
}

/// What came of asking for one card or cardholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundAnswer {
    /// It is there.
    Found(Box<Found>),
    /// This account has none of that id.
    Missing,
    /// The key may not read it, or Stripe refuses otherwise.
    Forbidden(String),
    /// 401: the key is not accepted.
    KeyRejected(String),
    /// A limiter's 429.
    Limited(LimitReason),
    /// It could not be had; nothing is proven by that.
    Failed(String),
}

/// Whose account the key is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountAnswer {
    /// This one's, `acct_…`.
    Is(String),
    /// The key may not ask, or Stripe refuses otherwise.
    Forbidden(String),
    /// 401: the key is not accepted.
    KeyRejected(String),
    /// A limiter's 429.
    Limited(LimitReason),
    /// It could not be had.
    Failed(String),
}

#[derive(Deserialize)]
struct ListBody {
    data: Vec<Found>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
struct AccountBody {
    id: String,
}

/// What is not the answer that was asked for.
enum Not {
    Missing(String),
    Forbidden(String),
    KeyRejected(String),
    Limited(LimitReason),
    Failed(String),
}

/// What an error answer to a question means. A definite no is one that Stripe itself gives: a proxy's page is none.
fn of_error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Not {
    let error = ErrorObject::read(body);
    let sentence = sentence_of(status, error.as_ref());
    match status {
        StatusCode::UNAUTHORIZED if error.is_some() => Not::KeyRejected(sentence),
        StatusCode::TOO_MANY_REQUESTS => {
            limit_reason(headers, error.as_ref()).map_or(Not::Failed(sentence), Not::Limited)
        }
        StatusCode::CONFLICT | StatusCode::FAILED_DEPENDENCY => Not::Failed(sentence),
        _ if error.is_none() => Not::Failed(sentence),
        StatusCode::NOT_FOUND => Not::Missing(sentence),
        // What a list is narrowed by is a parameter, and is missing with a 400.
        StatusCode::BAD_REQUEST if error.as_ref().is_some_and(ErrorObject::is_missing) => {
            Not::Missing(sentence)
        }
        status if status.is_client_error() => Not::Forbidden(sentence),
        _ => Not::Failed(sentence),
    }
}

/// What asking for an ephemeral key came to.
pub enum EphemeralKeyAnswer {
    /// Its secret.
    Made(String),
    /// A definite no.
    Refused(String),
    /// The API key is not accepted.
    KeyRejected(String),
    /// A limiter turned it away.
    Limited(LimitReason),
    /// Stripe could not be reached or is in trouble.
    Failed(String),
}

#[derive(Deserialize)]
struct EphemeralKeyBody {
    secret: String,
}

/// The meaning of an answer to a call for an ephemeral key.
pub(super) fn of_ephemeral_key(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Bytes, String>,
) -> EphemeralKeyAnswer {
    let body = match body {
        Ok(body) => body,
        Err(reason) => return EphemeralKeyAnswer::Failed(reason),
    };
    if status.is_success() {
        return match serde_json::from_slice::<EphemeralKeyBody>(&body) {
            Ok(key) => EphemeralKeyAnswer::Made(key.secret),
            Err(_) => EphemeralKeyAnswer::Failed(format!("{status}, but no key in the answer")),
        };
    }
    match of_error(status, headers, &body) {
        Not::KeyRejected(reason) => EphemeralKeyAnswer::KeyRejected(reason),
        Not::Limited(reason) => EphemeralKeyAnswer::Limited(reason),
        Not::Missing(reason) | Not::Forbidden(reason) => EphemeralKeyAnswer::Refused(reason),
        Not::Failed(reason) => EphemeralKeyAnswer::Failed(reason),
    }
}

/// The meaning of the answer to a question for how something stands.
pub(super) fn of_standing<T: Standing>(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Bytes, String>,
) -> (StandingAnswer<T>, Option<LimitReason>) {
    let failed = |reason: String| (StandingAnswer::Failed(reason), None);
    let body = match body {
        Ok(body) => body,
        Err(reason) => return failed(format!("the answer broke off: {reason}")),
    };
    if status.is_success() {
        return match serde_json::from_slice::<T>(&body) {
            Ok(mut standing) => {
                let date = headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
                standing.was_told(date.and_then(Time::from_http_date));
                (StandingAnswer::Found(Box::new(standing)), None)
            }
            Err(_) => failed(format!("{status}, but something else in the answer")),
        };
    }
    match of_error(status, headers, &body) {
        Not::Missing(_) => (StandingAnswer::Missing, None),
        Not::Limited(reason) => (StandingAnswer::Failed("Stripe limits".into()), Some(reason)),
        Not::Forbidden(reason) | Not::KeyRejected(reason) | Not::Failed(reason) => failed(reason),
    }
}

impl Listed {
    /// The meaning of the answer to a question for a list; of a body that broke off there is the reason.
    #[must_use]
    pub fn of_answer(status: StatusCode, headers: &HeaderMap, body: Result<Bytes, String>) -> Self {
        let failed = |reason: String, failure| Self::Failed { reason, failure };
        let body = match body {
            Ok(body) => body,
            Err(reason) => return failed(format!("the list broke off: {reason}"), ListFailure::Passing),
        };
        if status.is_success() {
            return match serde_json::from_slice::<ListBody>(&body) {
                // Where more are promised and none are there, how to go on is not known, and that was not the end.
                Ok(list) if list.has_more && list.data.is_empty() => failed(
                    "a page of the list is empty, though more are to follow".into(),
                    ListFailure::Passing,
                ),
                Ok(list) => Self::Page { found: list.data, more: list.has_more },
                // JSON that is no list may be what there always is in its place; anything else may be a proxy's page.
                Err(_) => {
                    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
                    let failure = if is_json { ListFailure::Forbidden } else { ListFailure::Passing };
                    failed(format!("{status}, but no list in the answer"), failure)
                }
            };
        }
        match of_error(status, headers, &body) {
            Not::KeyRejected(reason) => failed(reason, ListFailure::KeyRejected),
            Not::Limited(limit) => {
                failed(format!("Stripe limits: {}", limit.word()), ListFailure::Limited(limit))
            }
            Not::Forbidden(reason) if status == StatusCode::FORBIDDEN => {
                failed(reason, ListFailure::Forbidden)
            }
            Not::Missing(reason) => failed(reason, ListFailure::Missing),
            Not::Forbidden(reason) => failed(reason, ListFailure::Refused),
            Not::Failed(reason) => failed(reason, ListFailure::Passing),
        }
    }
}

/// The meaning of the answer to a question for one card or cardholder, whose ids begin so.
pub(super) fn of_one(
    id_prefix: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Bytes, String>,
) -> FoundAnswer {
    let body = match body {
        Ok(body) => body,
        Err(reason) => return FoundAnswer::Failed(format!("the answer broke off: {reason}")),
    };
    if status.is_success() {
        return match serde_json::from_slice::<Found>(&body) {
            Ok(found) if found.id.starts_with(id_prefix) => FoundAnswer::Found(Box::new(found)),
            _ => FoundAnswer::Failed(format!("{status}, but no {id_prefix}… in the answer")),
        };
    }
    match of_error(status, headers, &body) {
        Not::Missing(_) => FoundAnswer::Missing,
        Not::Forbidden(reason) => FoundAnswer::Forbidden(reason),
        Not::KeyRejected(reason) => FoundAnswer::KeyRejected(reason),
        Not::Limited(limit) => FoundAnswer::Limited(limit),
        Not::Failed(reason) => FoundAnswer::Failed(reason),
    }
}

/// One card as a list of its own: empty if there is no such card.
pub(super) fn as_list(answer: FoundAnswer) -> Listed {
    let failed = |reason, failure| Listed::Failed { reason, failure };
    match answer {
        FoundAnswer::Found(found) => Listed::Page { found: vec![*found], more: false },
        FoundAnswer::Missing => Listed::Page { found: Vec::new(), more: false },
        FoundAnswer::Forbidden(reason) => failed(reason, ListFailure::Forbidden),
        FoundAnswer::KeyRejected(reason) => failed(reason, ListFailure::KeyRejected),
        FoundAnswer::Limited(limit) => {
            failed(format!("Stripe limits: {}", limit.word()), ListFailure::Limited(limit))
        }
        FoundAnswer::Failed(reason) => failed(reason, ListFailure::Passing),
    }
}

/// The meaning of the answer to a question for the account.
pub(super) fn of_account(
    status: StatusCode,
    headers: &HeaderMap,
    body: Result<Bytes, String>,
) -> AccountAnswer {
    let body = match body {
        Ok(body) => body,
        Err(reason) => return AccountAnswer::Failed(format!("the answer broke off: {reason}")),
    };
    if status.is_success() {
        return match serde_json::from_slice::<AccountBody>(&body) {
            Ok(account) if account.id.starts_with("acct_") => AccountAnswer::Is(account.id),
            // JSON that is no account will be none the next time; anything else may be a proxy's page.
            _ if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok() => {
                AccountAnswer::Forbidden(format!("{status}, but no account in the answer"))
            }
            _ => AccountAnswer::Failed(format!("{status}, but no account in the answer")),
        };
    }
    match of_error(status, headers, &body) {
        Not::Missing(reason) | Not::Forbidden(reason) => AccountAnswer::Forbidden(reason),
        // Whoever has no such page says so in a form of his own.
        Not::Failed(reason) if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
            AccountAnswer::Forbidden(reason)
        }
        Not::KeyRejected(reason) => AccountAnswer::KeyRejected(reason),
        Not::Limited(limit) => AccountAnswer::Limited(limit),
        Not::Failed(reason) => AccountAnswer::Failed(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: &str = r#"{"error":{"type":"invalid_request_error","message":"no"}}"#;
    const CARD: &str = r#"{"id":"ic_1","type":"virtual","currency":"eur","status":"active","last4":"4242",
        "exp_month":1,"exp_year":2030,"cardholder":{"id":"ich_1","name":"A B"},
        "metadata":{"embosser_job":"b/1","embosser_batch":"b","other":"x"}}"#;

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    fn list(code: u16, body: &str) -> Listed {
        Listed::of_answer(status(code), &HeaderMap::new(), Ok(Bytes::from(body.to_owned())))
    }

    fn card(code: u16, body: &str) -> FoundAnswer {
        of_one("ic_", status(code), &HeaderMap::new(), Ok(Bytes::from(body.to_owned())))
    }

    fn account(code: u16, body: &str) -> AccountAnswer {
        of_account(status(code), &HeaderMap::new(), Ok(Bytes::from(body.to_owned())))
    }

    #[test]
    fn an_empty_page_with_more_to_follow_is_not_the_end() {
        assert!(matches!(list(200, r#"{"data":[],"has_more":true}"#), Listed::Failed { .. }));
        assert!(matches!(list(200, r#"{"data":[],"has_more":false}"#), Listed::Page { more: false, .. }));
        let page = format!(r#"{{"data":[{CARD}],"has_more":true}}"#);
        assert!(matches!(list(200, &page), Listed::Page { more: true, found } if found.len() == 1));
        for body in ["", "{}", "<html>", r#"{"data":{}}"#] {
            assert!(matches!(list(200, body), Listed::Failed { .. }), "{body}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_from_what_is_refused() {
        let failure = |code, of: &str| {
            let body =
                format!(r#"{{"error":{{"type":"invalid_request_error","code":"{of}","message":"no"}}}}"#);
            match list(code, &body) {
                Listed::Failed { failure, .. } => failure,
                page @ Listed::Page { .. } => panic!("{page:?}"),
            }
        };
        assert_eq!(failure(400, "resource_missing"), ListFailure::Missing);
        assert_eq!(failure(404, "resource_missing"), ListFailure::Missing);
        assert_eq!(failure(400, "parameter_invalid_integer"), ListFailure::Refused);
        assert_eq!(failure(403, "more_permissions_required"), ListFailure::Forbidden);
        let missing = r#"{"error":{"type":"invalid_request_error","code":"resource_missing"}}"#;
        assert_eq!([400, 404].map(|code| card(code, missing)), [FoundAnswer::Missing, FoundAnswer::Missing]);
    }

    #[test]
    fn a_listed_card_says_whose_it_is_and_what_it_is() {
        let FoundAnswer::Found(found) = card(200, CARD) else { panic!("found") };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!((found.metadata.job, found.metadata.batch), (some("b/1"), some("b")));
        assert_eq!((found.kind, found.currency), (some("virtual"), some("eur")));
        assert_eq!((found.cardholder, found.status), (some("ich_1"), some("active")));
        let by_id = CARD.replace(r#"{"id":"ich_1","name":"A B"}"#, r#""ich_1""#);
        assert!(matches!(card(200, &by_id), FoundAnswer::Found(found) if found.cardholder == some("ich_1")));
        assert!(matches!(card(200, r#"{"id":"ic_1"}"#), FoundAnswer::Found(found) if found.kind.is_none()));
    }

    #[test]
    fn only_stripes_own_404_means_that_a_card_is_missing() {
        assert_eq!(card(404, ERROR), FoundAnswer::Missing);
        for (code, body) in [
            (404, "<html>"),
            (401, "<html>"),
            (200, "{}"),
            (500, ERROR),
            (424, ERROR),
            (409, ERROR),
            (302, ""),
        ] {
            assert!(matches!(card(code, body), FoundAnswer::Failed(_)), "{code} {body}");
        }
        assert!(matches!(card(403, ERROR), FoundAnswer::Forbidden(_)));
        assert!(matches!(card(401, ERROR), FoundAnswer::KeyRejected(_)));
    }

    #[test]
    fn an_account_is_named_or_it_is_said_why_not() {
        assert_eq!(account(200, r#"{"id":"acct_1","object":"account"}"#), AccountAnswer::Is("acct_1".into()));
        for code in [400, 402, 403, 404] {
            assert!(matches!(account(code, ERROR), AccountAnswer::Forbidden(_)), "{code}");
        }
        assert!(matches!(account(401, ERROR), AccountAnswer::KeyRejected(_)));
        for (code, body) in [(200, "{}"), (404, "<html>"), (405, "no")] {
            assert!(
                matches!(account(code, body), AccountAnswer::Forbidden(_)),
                "{code} {body}: no such question"
            );
        }
        for (code, body) in [(403, "<html>"), (200, "<html>"), (500, ERROR), (424, ERROR), (429, ERROR)] {
            assert!(matches!(account(code, body), AccountAnswer::Failed(_)), "{code} {body}");
        }
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("stripe-rate-limited-reason"),
            http::HeaderValue::from_static("global-rate"),
        )]);
        let limited = of_account(status(429), &headers, Ok(Bytes::new()));
        assert_eq!(limited, AccountAnswer::Limited(LimitReason::GlobalRate));
    }
}
