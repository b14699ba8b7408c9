//! A job as a message: what a sender writes, and how it becomes a [`Job`].
//!
//! Bad messages are refused here, on their first delivery, with a code and the path of what is wrong. Never: a value
//! of the message in an error or in `Debug`, since any of them could be a PIN; the names of members are told.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;
use zeroize::Zeroize as _;

use crate::card::CardRequest;
use crate::clock::Time;
use crate::job::{Batch, Job, JobId, Place};
use crate::outcome::Refusal;
use crate::stripe::error::scrub;

/// The batch of jobs that name none; that of `serve`, too.
const BATCH_USUAL: &str = "jobs";

/// One card to create, as JSON.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobMessage {
    /// Names the job for ever: one id, one card. 1 to 255 bytes.
    #[schemars(length(min = 1, max = 255))]
    pub id: String,
    /// The batch it is counted under; `jobs` if absent. 1 to 255 bytes.
    #[serde(default = "batch_usual")]
    #[schemars(length(min = 1, max = 255))]
    pub batch: String,
    /// What to do; `create_card` if absent.
    #[serde(default)]
    pub operation: Operation,
    /// After this moment the job must not be begun any more, and its PIN not be used; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub deadline: Option<String>,
    /// The connected account it is for; it must be the one that the worker acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe_account: Option<String>,
    /// Stripe's parameters of card creation, nested as in its documentation.
    #[schemars(schema_with = "card_schema")]
    pub card: CardJson,
}

/// What can be asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Create a card.
    #[default]
    CreateCard,
}

fn batch_usual() -> String {
    BATCH_USUAL.into()
}

/// A card's JSON. One of its texts is a PIN's ciphertext, so all are wiped when it is dropped, and none is shown.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct CardJson(Value);

impl From<Value> for CardJson {
    fn from(card: Value) -> Self {
        Self(card)
    }
}

impl Drop for CardJson {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for CardJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CardJson(redacted)")
    }
}

fn card_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = crate::card::schema::json_schema();
    // It stands inside another document, which says these.
    if let Some(members) = schema.as_object_mut() {
        members.remove("$schema");
    }
    schema.try_into().expect("the card's schema is an object")
}

/// What came with the message, outside its body.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// When it was published, as far as anybody says so.
    pub published: Option<Time>,
    /// The manifest's row it came from.
    pub row: Option<u64>,
    /// That row's own id.
    pub row_id: Option<String>,
}

/// Whom the worker acts for, and what it takes.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The connected account, if it acts for one.
    pub account: Option<String>,
    /// Longest time from publishing to the use of a PIN.
    pub pin_age_max: Duration,
    /// Largest message, in bytes.
    pub message_bytes_max: usize,
}

/// A message that is no job, and as much of its name as could be read.
#[derive(Debug)]
pub struct NoJob {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its batch, if it has one.
    pub batch: Option<String>,
    /// What is wrong with it.
    pub refusal: Refusal,
}

/// Only what names a job, for messages in which everything else is wrong.
#[derive(Default, Deserialize)]
struct Names {
    #[serde(default)]
    id: Option<Name>,
    #[serde(default)]
    batch: Option<Name>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Other(IgnoredAny),
}

impl NoJob {
    fn new(body: &[u8], code: &'static str, reason: &str) -> Self {
        let names: Names = serde_json::from_slice(body).unwrap_or_default();
        let name = |name: Option<Name>| match name? {
            Name::Text(text) => JobId::new(text.as_str()).is_ok().then_some(text),
            Name::Other(_) => None,
        };
        Self { id: name(names.id), batch: name(names.batch), refusal: Refusal::own(code, scrub(reason)) }
    }
}

/// Reads a message's body.
///
/// # Errors
/// Why it is no job.
pub fn job_of(body: &[u8], envelope: &Envelope, terms: &Terms, now: Time) -> Result<Job, Box<NoJob>> {
    let no = |code, reason: &str| Box::new(NoJob::new(body, code, reason));
    let (length, max) = (body.len(), terms.message_bytes_max);
    if length > max {
        let refusal = Refusal::own(
            "message_too_big",
            format!("the message has {length} bytes; at most {max} are taken"),
        );
        return Err(Box::new(NoJob { id: None, batch: None, refusal }));
    }
    let message = parse(body)?;
    let invalid = |member: &str, reason: &str| no("message_invalid", &format!("{member} {reason}"));
    let id = JobId::new(message.id.as_str()).map_err(|error| invalid("id", &error.to_string()))?;
    let batch = Batch::new(message.batch.as_str()).map_err(|error| invalid("batch", &error.to_string()))?;
    if message.stripe_account.is_some() && message.stripe_account != terms.account {
        return Err(no("wrong_account", "stripe_account is not the account that this worker acts for"));
    }
    let given = message.deadline.as_deref().map(str::parse::<jiff::Timestamp>).transpose();
    let given = given.map_err(|_| invalid("deadline", "is not a time such as 2031-01-31T12:00:00Z"))?;
    let card = CardRequest::from_json(&message.card.0).map_err(|problems| card_refused(body, &problems))?;
    let place = envelope.row.map(|row| Place { row, row_id: envelope.row_id.clone() });
    let mut job = Job::new(id, batch, place, card, None);
    let given = given.map(|given| Time::from_unix_ms(given.as_millisecond()));
    let pins = job.pin.is_some().then(|| {
        // A sender's clock that is ahead must not lengthen a PIN's life.
        envelope.published.unwrap_or(now).min(now).plus(terms.pin_age_max)
    });
    job.deadline = given.into_iter().chain(pins).min();
    Ok(job)
}

/// Every problem of the card, under the first one's code.
fn card_refused(body: &[u8], problems: &[crate::card::FieldProblem]) -> Box<NoJob> {
    let told: Vec<String> = problems
        .iter()
        .map(|problem| {
            let hint = problem.suggestion.as_ref().map(|near| format!(" (did you mean {near}?)"));
            format!("card {}: {}{}", problem.path, problem.reason, hint.unwrap_or_default())
        })
        .collect();
    let code = problems.first().map_or("message_invalid", |problem| problem.code);
    Box::new(NoJob::new(body, code, &told.join("; ")))
}

fn parse(body: &[u8]) -> Result<JobMessage, Box<NoJob>> {
    let no = |code, reason: &str| Box::new(NoJob::new(body, code, reason));
    let mut json = serde_json::Deserializer::from_slice(body);
    let message = serde_path_to_error::deserialize::<_, JobMessage>(&mut json).map_err(|error| {
        let (code, reason) = explain(&error);
        no(code, &reason)
    })?;
    json.end().map_err(|_| no("message_not_json", "something follows the job"))?;
    // An array of the members' values would be read as well; nobody means that.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(no("message_invalid", "a job is a JSON object"));
    }
    Ok(message)
}

/// A code and a reason without serde's own words, which quote values.
fn explain(error: &serde_path_to_error::Error<serde_json::Error>) -> (&'static str, String) {
    let (path, inner) = (error.path().to_string(), error.inner());
    if inner.classify() != Category::Data {
        let (line, column) = (inner.line(), inner.column());
        return ("message_not_json", format!("the message is not JSON (line {line}, column {column})"));
    }
    let words = inner.to_string();
    let named = |prefix: &str| Some(words.strip_prefix(prefix)?.split('`').next()?.to_owned());
    let reason = if let Some(name) = named("unknown field `") {
        format!("{name}: a job has id, batch, operation, deadline, stripe_account and card, and nothing else")
    } else if let Some(name) = named("missing field `") {
        format!("{name} is missing")
    } else if let Some(name) = named("duplicate field `") {
        format!("{name} stands there twice")
    } else if words.starts_with("unknown variant `") {
        format!("{path}: there is only create_card")
    } else if path == "." {
        "a job is a JSON object".to_owned()
    } else {
        format!("{path} has the wrong type")
    };
    ("message_invalid", reason)
}

/// The same job without its PIN, for one that will not be called for any more. None if it is no job.
#[must_use]
pub fn without_pin(body: &[u8]) -> Option<Vec<u8>> {
    let mut message = parse(body).ok()?;
    if let Value::Object(members) = &mut message.card.0
        && let Some(mut pin) = members.remove("pin")
    {
        wipe(&mut pin);
    }
    serde_json::to_vec(&message).ok()
}

/// Overwrites the strings of a JSON value.
fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_unix_ms(1_000_000);

    fn read(body: &str) -> Result<Job, Box<NoJob>> {
        let terms =
            Terms { account: None, pin_age_max: Duration::from_secs(60), message_bytes_max: 128 << 10 };
        job_of(body.as_bytes(), &Envelope::default(), &terms, NOW)
    }

    const CARD: &str = r#""card": {"type": "virtual", "currency": "eur"}"#;

    fn with_pin() -> String {
        let key = include_bytes!("../sandbox/demo_key.pem");
        let key = openssl::rsa::Rsa::private_key_from_pem(key).unwrap();
        let url_safe = |bytes: Vec<u8>| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
        };
        let document = serde_json::json!({"key_id": "k",
            "jwk": {"kty": "RSA", "n": url_safe(key.n().to_vec()), "e": url_safe(key.e().to_vec())}});
        let jwe = crate::encrypt::encrypt_pin("1234", document.to_string().as_bytes()).unwrap();
        format!(
            r#"{{"id": "a", "card": {{"type": "virtual", "currency": "eur", "pin": {{"encrypted_number": "{jwe}"}}}}}}"#
        )
    }

    #[test]
    fn a_job_is_read_and_its_pin_has_a_deadline() {
        let body = format!(r#"{{"id": "a", "batch": "b", "operation": "create_card", {CARD}}}"#);
        let job = read(&body).unwrap();
        assert_eq!((job.id.as_str(), job.batch.as_str()), ("a", "b"));
        assert_eq!(job.deadline, None, "only a PIN grows old");
        let body = with_pin();
        let job = read(&body).unwrap();
        assert_eq!((job.batch.as_str(), job.deadline), ("jobs", Some(Time::from_unix_ms(1_060_000))));
        let earlier = body.replace("\"card\"", "\"deadline\": \"1970-01-01T00:16:45Z\", \"card\"");
        assert_eq!(read(&earlier).unwrap().deadline, Some(Time::from_unix_ms(1_005_000)));
        let later = body.replace("\"card\"", "\"deadline\": \"2070-01-01T00:00:00Z\", \"card\"");
        assert_eq!(read(&later).unwrap().deadline, Some(Time::from_unix_ms(1_060_000)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path_and_no_value_is_quoted() {
        let good = format!(r#"{{"id": "a", "batch": "b", "operation": "create_card", {CARD}}}"#);
        let member = |text: &str| good.replace("\"batch\"", &format!("{text}, \"batch\""));
        for (body, code, words, id) in [
            ("not json".to_owned(), "message_not_json", "line 1", None),
            (good.clone() + "x", "message_not_json", "follows", None),
            (good[..40].to_owned(), "message_not_json", "line 1", None),
            ("[]".to_owned(), "message_invalid", "", None),
            ("\"secret4711\"".to_owned(), "message_invalid", "object", None),
            (good.replace("\"id\"", "\"jd\""), "message_invalid", "jd", None),
            (good.replace("\"a\"", "4711"), "message_invalid", "id has the wrong type", None),
            (good.replace("\"a\"", "\"\""), "message_invalid", "id is empty", None),
            (good.replace("create_card", "secret4711"), "message_invalid", "operation", Some("a")),
            (good.replace("virtual", "secret4711"), "not_allowed", "card type", Some("a")),
            (good.replace("\"type\"", "\"pin\": 4711, \"type\""), "pin_in_clear", "card pin", Some("a")),
            (member("\"pin\": \"4711\""), "message_invalid", "pin", Some("a")),
            (member("\"deadline\": \"4711\""), "message_invalid", "deadline", Some("a")),
            (member("\"deadline\": 4711"), "message_invalid", "deadline", Some("a")),
            (member("\"stripe_account\": \"acct_4711\""), "wrong_account", "account", Some("a")),
        ] {
            let no = read(&body).unwrap_err();
            assert_eq!((no.refusal.code.as_ref(), no.id.as_deref()), (code, id), "{body}: {no:?}");
            assert!(no.refusal.message.contains(words), "{body}: {no:?}");
            assert!(!format!("{no:?}").contains("4711"), "{no:?}");
        }
        assert_eq!(read(&" ".repeat(1 << 20)).unwrap_err().refusal.code, "message_too_big");
    }

    #[test]
    fn the_job_without_its_pin_is_the_same_job() {
        let body = with_pin();
        let without = String::from_utf8(without_pin(body.as_bytes()).unwrap()).unwrap();
        assert!(!without.contains("encrypted_number"), "{without}");
        let (one, other) = (read(&body).unwrap(), read(&without).unwrap());
        assert_eq!((one.id.clone(), one.fingerprint()), (other.id.clone(), other.fingerprint()));
        assert!(one.pin.is_some() && other.pin.is_none());
        assert!(!format!("{:?}", parse(body.as_bytes()).unwrap()).contains("eyJ"));
    }
}
