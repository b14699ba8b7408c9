//! Stripe's error object: who turned a call away, and what may be kept of the explanation.
//!
//! Never: to keep a piece of what was sent, should Stripe quote it.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use crate::outcome::Refusal;

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

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

/// What Stripe says of an error.
#[derive(Deserialize)]
pub(super) struct ErrorObject {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<String>,
    decline_code: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

impl ErrorObject {
    /// None if the body has not Stripe's shape.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error)
    }

    /// Whether Stripe has no object of the id that was asked for.
    pub(super) fn is_missing(&self) -> bool {
        self.code.as_deref() == Some("resource_missing")
    }

    pub(super) fn refusal(&self, status: StatusCode) -> Refusal {
        let code = self.decline_code.clone().or_else(|| self.code.clone()).or_else(|| self.kind.clone());
        let code = code.unwrap_or_else(|| format!("http_{}", status.as_u16()));
        Refusal { code: scrub(&code).into(), message: self.message() }
    }

    pub(super) fn message(&self) -> String {
        let mut text = scrub(self.message.as_deref().unwrap_or("no explanation"));
        if let Some(param) = &self.param {
            text = format!("{text} (parameter {})", scrub(param));
        }
        text
    }

    /// By what two refusals are the same, whichever card each was for: status, code, parameter, and the message without
    /// its values.
    pub(super) fn same(&self, status: StatusCode) -> String {
        let code = self.refusal(status).code;
        let param = self.param.as_deref().map(|param| without_values(&scrub(param))).unwrap_or_default();
        let message = without_values(&scrub(self.message.as_deref().unwrap_or_default()));
        format!("{} {code} {param} {message}", status.as_u16())
    }
}

/// A status and its explanation in one line.
pub(super) fn sentence_of(status: StatusCode, error: Option<&ErrorObject>) -> String {
    format!("{status}: {}", error.map_or_else(|| "no explanation".into(), ErrorObject::message))
}

pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The limiter that a 429 is of; none if it is not a limiter's.
pub(super) fn limit_reason(headers: &HeaderMap, error: Option<&ErrorObject>) -> Option<LimitReason> {
    if let Some(reason) = header(headers, "stripe-rate-limited-reason") {
        return Some(LimitReason::of_header(reason));
    }
    // Before the header existed a limiter was told by its code; any other 429 is not a limiter's.
    error.filter(|error| error.code.as_deref() == Some("rate_limit")).map(|_| LimitReason::Other)
}

/// A sentence without what differs from card to card: quoted values, ids (`ich_1Nv…`, `req_…`) and numbers.
fn without_values(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut closing: Option<char> = None;
    let mut before = ' ';
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let ends = |next: Option<&char>| next.is_none_or(|next| !next.is_alphanumeric());
        match closing {
            Some(quote) if character == quote && ends(characters.peek()) => closing = None,
            Some(_) => {}
            // An apostrophe within a word quotes nothing.
            None if matches!(character, '"' | '\'' | '`') && !before.is_alphanumeric() => {
                closing = Some(character);
            }
            None => bare.push(character),
        }
        before = character;
    }
    let words = bare.split_whitespace().filter(|word| !is_id(word));
    let words = words.map(|word| word.chars().filter(|letter| !letter.is_ascii_digit()).collect::<String>());
    words.filter(|word| word.chars().any(char::is_alphanumeric)).collect::<Vec<_>>().join(" ")
}

/// A prefix in small letters, an underscore, and something with a digit or a capital in it.
fn is_id(word: &str) -> bool {
    let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
    let marked = |rest: &str| rest.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    word.split_once('_').is_some_and(|(prefix, rest)| {
        !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_lowercase()) && marked(rest)
    })
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
        // A word of Stripe's own, as `insufficient_funds_in_funding_account`: of 32 letters of a secret some are none of these.
        let is_word = run.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if run.len() >= SECRET_RUN_MIN && !is_word && !run.starts_with("req_") || run.starts_with("eyJ") {
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

    fn same(status: u16, message: &str, param: &str) -> String {
        let body = serde_json::json!({"error": {"type": "invalid_request_error", "code": "parameter_invalid",
            "message": message, "param": param}});
        let error = ErrorObject::read(body.to_string().as_bytes()).unwrap();
        error.same(StatusCode::from_u16(status).unwrap())
    }

    #[test]
    fn refusals_are_the_same_whichever_card_they_were_for() {
        let one = same(400, "No such cardholder: 'ich_1NvA'; see request req_Ab1, 3 of 20.", "cardholder");
        let other = same(400, "No such cardholder: 'ich_2XyB'; see request req_Zz9, 17 of 20.", "cardholder");
        assert_eq!(one, other);
        assert!(
            one.contains("No such cardholder") && !one.contains("ich_") && !one.contains("req_"),
            "{one}"
        );
        assert_eq!(same(400, "Card ic_1A is \"of Zoë Ng\".", ""), same(400, "Card ic_9z is \"of A B\".", ""));
        assert_eq!(same(400, "The line `a 1` is long.", ""), same(400, "The line `b` is long.", ""));
    }

    #[test]
    fn refusals_differ_by_status_code_parameter_and_words() {
        let one = same(400, "The cardholder's name isn't valid.", "name");
        for other in [
            same(402, "The cardholder's name isn't valid.", "name"),
            same(400, "The cardholder's name isn't valid.", "email"),
            same(400, "The cardholder's phone isn't valid.", "name"),
        ] {
            assert_ne!(one, other);
        }
        assert!(one.contains("cardholder's name isn't valid"), "an apostrophe quotes nothing: {one}");
        assert!(same(400, "Unknown parameter lifecycle_controls", "").contains("lifecycle_controls"));
    }

    #[test]
    fn a_long_word_of_stripes_stays_and_a_secret_of_its_length_does_not() {
        let words = "insufficient_funds_in_funding_account: no";
        assert_eq!(scrub(words), words);
        for secret in ["rk_test_abcdefghijklmnopqrstuvwxyz0abc", "abcdefghijklmnopqrstuvwxyzabcdefg-h"] {
            assert_eq!(scrub(&format!("key {secret} is wrong")), "key [removed] is wrong");
        }
    }

    #[test]
    fn a_message_that_quotes_a_jwe_loses_it() {
        let jwe = format!("eyJhbGciOiJSU0EtT0FFUCJ9.{}.x", "A".repeat(300));
        let quoted = format!("Invalid PIN: {jwe}, see docs");
        let clean = scrub(&quoted);
        assert!(!clean.contains("eyJ") && !clean.contains("AAAA"), "{clean}");
        assert!(clean.contains("Invalid PIN") && clean.contains("see docs"));
        assert!(!same(400, &quoted, &jwe).contains("AAAA"));
    }
}
