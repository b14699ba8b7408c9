//! What the answer to a call that changes something means.
//!
//! Written against docs.stripe.com/error-low-level, /idempotent-requests and /rate-limits. The rule that matters: an
//! answer that cannot be understood is *unknown*, never a no.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::error::{ErrorObject, LimitReason, header, limit_reason, sentence_of};
use crate::operation::{Found, Operation};
use crate::outcome::Refusal;
use crate::simulation::{Mutation, is_broken};

/// What such a call's answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What was asked for was done.
    Done {
        /// What was made or changed, and what tells whose it is, as far as the answer has it.
        found: Box<Found>,
        /// Stripe's id of the request.
        request_id: Option<String>,
        /// Whether it is an earlier call's saved answer.
        replayed: bool,
    },
    /// A definite no.
    Refused {
        /// Why.
        refusal: Refusal,
        /// By what refusals are the same, whichever card each was for: status, code, parameter, message without values.
        same: String,
        /// Stripe's id of the request.
        request_id: Option<String>,
        /// Whether it is an earlier call's saved answer.
        replayed: bool,
    },
    /// 403: the key lacks a permission. Nothing was done.
    Forbidden {
        /// Why.
        refusal: Refusal,
        /// By what refusals are the same, whichever card each was for: status, code, parameter, message without values.
        same: String,
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
        /// Whether somebody answered at all.
        heard: bool,
    },
}

impl Answer {
    /// The meaning of the answer to an operation's call; of a body that broke off there is the reason.
    #[must_use]
    pub fn of_change(
        operation: Operation,
        status: StatusCode,
        headers: &HeaderMap,
        body: Result<Bytes, String>,
    ) -> Self {
        let id_prefix = operation.declaration().id_prefix;
        let request_id = header(headers, "request-id").map(str::to_owned);
        let replayed =
            header(headers, "idempotent-replayed").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if status.is_success() {
            return match body {
                Err(reason) => Self::Unknown {
                    reason: format!("the answer broke off: {reason}"),
                    trouble: false,
                    heard: true,
                },
                Ok(body) => match serde_json::from_slice::<Found>(&body) {
                    Ok(found) if found.id.starts_with(id_prefix) => {
                        Self::Done { found: Box::new(found), request_id, replayed }
                    }
                    _ => Self::Unknown {
                        reason: format!("{status}, but no id of the form {id_prefix}… in the answer"),
                        trouble: true,
                        heard: true,
                    },
                },
            };
        }
        let error = body.ok().and_then(|body| ErrorObject::read(&body));
        let sentence = sentence_of(status, error.as_ref());
        match status {
            // Without Stripe's error object it is some proxy's, which knows no key of Stripe's.
            StatusCode::UNAUTHORIZED if error.is_some() => Self::KeyRejected(sentence),
            // One that is no limiter's says that Stripe is too busy with something: fewer calls help there, too.
            StatusCode::TOO_MANY_REQUESTS => limit_reason(headers, error.as_ref())
                .map_or(Self::Unknown { reason: sentence, trouble: true, heard: true }, Self::Limited),
            StatusCode::CONFLICT => Self::InUse(sentence),
            status if status.is_server_error() || status == StatusCode::FAILED_DEPENDENCY => {
                if is_broken(Mutation::BelieveError)
                    && let Some(error) = &error
                {
                    let (refusal, same) = (error.refusal(status), error.same(status));
                    return Self::Refused { refusal, same, request_id, replayed: false };
                }
                // 424: something that Stripe itself depends on failed.
                if replayed {
                    Self::EndedBadly(sentence)
                } else {
                    Self::Unknown { reason: sentence, trouble: true, heard: true }
                }
            }
            status if status.is_client_error() => {
                of_client_error(status, headers, error, sentence, request_id, replayed)
            }
            _ => Self::Unknown { reason: sentence, trouble: error.is_none(), heard: true },
        }
    }
}

fn of_client_error(
    status: StatusCode,
    headers: &HeaderMap,
    error: Option<ErrorObject>,
    sentence: String,
    request_id: Option<String>,
    replayed: bool,
) -> Answer {
    let Some(error) = error else {
        // A proxy's page, or not Stripe at all.
        return Answer::Unknown {
            reason: format!("{sentence} (not Stripe's error shape)"),
            trouble: true,
            heard: true,
        };
    };
    if error.kind.as_deref() == Some("idempotency_error") {
        return if error.code.as_deref() == Some("idempotency_key_in_use") {
            Answer::InUse(sentence)
        } else {
            Answer::BodyDiffers
        };
    }
    if header(headers, "stripe-should-retry") == Some("true") {
        return Answer::Unknown { reason: sentence, trouble: false, heard: true };
    }
    let (refusal, same) = (error.refusal(status), error.same(status));
    if status == StatusCode::FORBIDDEN {
        return Answer::Forbidden { refusal, same, request_id };
    }
    Answer::Refused { refusal, same, request_id, replayed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn create(status: u16, pairs: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer::of_change(
            Operation::CreateCard,
            status,
            &headers(pairs),
            Ok(Bytes::from_static(body.as_bytes())),
        )
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
    fn a_5xx_or_a_424_is_never_a_refusal_and_counts_as_trouble() {
        let replayed = [("idempotent-replayed", "true")];
        for status in [424, 500, 502, 503, 504] {
            for body in [r#"{"error":{"type":"api_error","message":"oops"}}"#, "<html>", ""] {
                let fresh = create(status, &[], body);
                assert!(matches!(fresh, Answer::Unknown { trouble: true, .. }), "{status} {body}");
                // What Stripe remembers is no news of how it does now.
                assert!(matches!(create(status, &replayed, body), Answer::EndedBadly(_)), "{status} {body}");
            }
        }
    }

    #[test]
    fn a_refusal_says_by_what_it_is_the_same_as_others() {
        let refused = |status, cardholder: &str| {
            let body = format!(
                r#"{{"error":{{"type":"invalid_request_error","code":"not_enabled",
                "message":"Cardholder {cardholder} cannot have cards, as your account may not issue yet."}}}}"#
            );
            Answer::of_change(
                Operation::CreateCard,
                StatusCode::from_u16(status).unwrap(),
                &headers(&[]),
                Ok(body.into()),
            )
        };
        let same = |answer| match answer {
            Answer::Refused { same, .. } | Answer::Forbidden { same, .. } => same,
            other => panic!("{other:?}"),
        };
        assert_eq!(same(refused(400, "ich_1Ab")), same(refused(400, "ich_2Cd")));
        assert_eq!(same(refused(403, "ich_1Ab")), same(refused(403, "ich_2Cd")));
        assert_ne!(same(refused(400, "ich_1Ab")), same(refused(402, "ich_1Ab")));
    }

    #[test]
    fn a_client_error_that_is_not_stripes_is_unknown() {
        for status in [400, 401, 403, 404, 418] {
            assert!(matches!(create(status, &[], "<html>not found</html>"), Answer::Unknown { .. }));
        }
    }

    #[test]
    fn an_error_is_stripes_though_it_has_no_type() {
        for body in [r#"{"error":{"type":null,"message":"no"}}"#, r#"{"error":{"message":"no"}}"#] {
            let Answer::Refused { refusal, .. } = create(400, &[], body) else { panic!("{body}") };
            assert_eq!((refusal.code.as_ref(), refusal.message.as_str()), ("http_400", "no"));
            assert!(matches!(create(401, &[], body), Answer::KeyRejected(_)), "{body}");
        }
    }

    #[test]
    fn the_same_key_with_another_body_is_told_apart_from_a_refusal() {
        let body = r#"{"error":{"type":"idempotency_error","message":"other parameters"}}"#;
        assert_eq!(create(400, &[], body), Answer::BodyDiffers);
    }
}
