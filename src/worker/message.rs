//! A job as a message: what a sender writes, and how it becomes a [`Job`].
//!
//! Bad messages are refused here, on their first delivery, with a code and the path of what is wrong. No error quotes
//! what could be a PIN.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::card::CardRequest;
use crate::clock::Time;
use crate::job::{Batch, Job, JobId, Place};
use crate::outcome::Refusal;
use crate::stripe::answer::scrub;

/// Largest message. A card with every parameter at its limit is smaller.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// One card to create, as JSON.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobMessage {
    /// Names the job for ever: one id, one card. 1 to 255 bytes.
    #[schemars(length(min = 1, max = 255))]
    pub id: String,
    /// The batch it is counted under. 1 to 255 bytes.
    #[schemars(length(min = 1, max = 255))]
    pub batch: String,
    /// What to do.
    pub operation: Operation,
    /// After this moment the PIN must not be used any more; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub deadline: Option<String>,
    /// The connected account it is for; it must be the one that the worker acts for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe_account: Option<String>,
    /// Stripe's parameters of card creation, nested as in its documentation.
    #[schemars(schema_with = "card_schema")]
    pub card: serde_json::Value,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Create a card.
    CreateCard,
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
    /// When it was published, if the sender says so.
    pub published: Option<Time>,
    /// The manifest's row it came from.
    pub row: Option<u64>,
    /// That row's own id.
    pub row_id: Option<String>,
}

/// Whom the worker acts for, and how long PINs may wait.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The connected account, if it acts for one.
    pub account: Option<String>,
    /// Longest time from publishing to the use of a PIN.
    pub pin_age_max: Duration,
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
    id: Option<String>,
    batch: Option<String>,
}

impl NoJob {
    fn new(body: &[u8], code: &'static str, reason: &str) -> Self {
        let names: Names = serde_json::from_slice(body).unwrap_or_default();
        let name = |text: Option<String>| text.filter(|text| JobId::new(text.as_str()).is_ok());
        Self { id: name(names.id), batch: name(names.batch), refusal: Refusal::own(code, scrub(reason)) }
    }
}

/// Reads a message's body.
///
/// # Errors
/// Why it is no job.
pub fn job_of(body: &[u8], envelope: &Envelope, terms: &Terms, now: Time) -> Result<Job, Box<NoJob>> {
    let no = |code, reason: &str| Box::new(NoJob::new(body, code, reason));
    if body.len() > MESSAGE_BYTES_MAX {
        let refusal = Refusal::own(
            "message_too_big",
            format!("the message has {} bytes; at most {MESSAGE_BYTES_MAX} are taken", body.len()),
        );
        return Err(Box::new(NoJob { id: None, batch: None, refusal }));
    }
    let message = parse(body)?;
    let id =
        JobId::new(message.id.as_str()).map_err(|error| no("message_invalid", &format!("id {error}")))?;
    let batch = Batch::new(message.batch.as_str())
        .map_err(|error| no("message_invalid", &format!("batch {error}")))?;
    if message.stripe_account.is_some() && message.stripe_account != terms.account {
        return Err(no("wrong_account", "stripe_account is not the account that this worker acts for"));
    }
    let deadline = deadline(message.deadline.as_deref(), envelope, terms, now)
        .map_err(|reason| no("message_invalid", &format!("deadline {reason}")))?;
    let card = CardRequest::from_json(&message.card).map_err(|problems| {
        let told: Vec<String> = problems
            .iter()
            .map(|problem| {
                let hint = problem.suggestion.as_ref().map(|near| format!(" (did you mean {near}?)"));
                format!("card {}: {}{}", problem.path, problem.reason, hint.unwrap_or_default())
            })
            .collect();
        let code = problems.first().map_or("message_invalid", |problem| problem.code);
        no(code, &told.join("; "))
    })?;
    wipe(message.card);
    let place = envelope.row.map(|row| Place { row, row_id: envelope.row_id.clone() });
    let mut job = Job::new(id, batch, place, card, None);
    job.deadline = Some(deadline);
    Ok(job)
}

fn parse(body: &[u8]) -> Result<JobMessage, Box<NoJob>> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let message: JobMessage = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let inner = error.inner();
        let code = if inner.is_syntax() || inner.is_eof() { "message_not_json" } else { "message_invalid" };
        Box::new(NoJob::new(body, code, &format!("{}: {inner}", error.path())))
    })?;
    json.end().map_err(|error| {
        Box::new(NoJob::new(body, "message_not_json", &format!("something follows the job: {error}")))
    })?;
    Ok(message)
}

/// The earlier of the sender's deadline and the longest age.
fn deadline(text: Option<&str>, envelope: &Envelope, terms: &Terms, now: Time) -> Result<Time, String> {
    // A clock that is ahead must not lengthen a PIN's life.
    let published = envelope.published.unwrap_or(now).min(now);
    let latest = published.plus(terms.pin_age_max);
    let Some(text) = text else { return Ok(latest) };
    let given: jiff::Timestamp =
        text.parse().map_err(|_| "is not a time such as 2026-01-31T12:00:00Z".to_owned())?;
    Ok(Time::from_unix_ms(given.as_millisecond()).min(latest))
}

/// Overwrites the strings of a JSON value: one of them is a PIN's ciphertext.
pub(crate) fn wipe(value: serde_json::Value) {
    match value {
        serde_json::Value::String(text) => drop(Zeroizing::new(text)),
        serde_json::Value::Array(items) => items.into_iter().for_each(wipe),
        serde_json::Value::Object(members) => members.into_iter().for_each(|(_, value)| wipe(value)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms { account: None, pin_age_max: Duration::from_secs(60) }
    }

    fn read(body: &str) -> Result<Job, Box<NoJob>> {
        job_of(body.as_bytes(), &Envelope::default(), &terms(), Time::from_unix_ms(1_000_000))
    }

    const CARD: &str = r#""card": {"type": "virtual", "currency": "eur"}"#;

    #[test]
    fn a_job_is_read_and_its_pin_has_a_deadline() {
        let body = format!(r#"{{"id": "a", "batch": "b", "operation": "create_card", {CARD}}}"#);
        let job = read(&body).unwrap();
        assert_eq!((job.id.as_str(), job.batch.as_str()), ("a", "b"));
        assert_eq!(job.deadline, Some(Time::from_unix_ms(1_060_000)));
        let earlier = body.replace("\"batch\"", "\"deadline\": \"1970-01-01T00:16:45Z\", \"batch\"");
        assert_eq!(read(&earlier).unwrap().deadline, Some(Time::from_unix_ms(1_005_000)));
        let later = body.replace("\"batch\"", "\"deadline\": \"2070-01-01T00:00:00Z\", \"batch\"");
        assert_eq!(read(&later).unwrap().deadline, Some(Time::from_unix_ms(1_060_000)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_path_and_never_quoted() {
        let good = format!(r#"{{"id": "a", "batch": "b", "operation": "create_card", {CARD}}}"#);
        let jwe = format!("eyJ{}", "x".repeat(60));
        for (body, code, words) in [
            ("not json".to_owned(), "message_not_json", "line 1"),
            (good.clone() + "x", "message_not_json", "follows"),
            (good.replace("\"id\"", "\"jd\""), "message_invalid", "jd"),
            (good.replace("\"a\"", "7"), "message_invalid", "id"),
            (good.replace("\"a\"", "\"\""), "message_invalid", "id is empty"),
            (good.replace("create_card", "destroy"), "message_invalid", "operation"),
            (good.replace("virtual", &jwe), "enum", "card type"),
            (good.replace("\"batch\"", "\"deadline\": \"soon\", \"batch\""), "message_invalid", "deadline"),
            (
                good.replace("\"batch\"", "\"stripe_account\": \"acct_2\", \"batch\""),
                "wrong_account",
                "account",
            ),
        ] {
            let no = read(&body).unwrap_err();
            assert!(no.refusal.message.contains(words), "{body}: {:?}", no.refusal);
            assert!(!no.refusal.message.contains("xxxxxxxx"), "{:?}", no.refusal);
            if code != "enum" {
                assert_eq!(no.refusal.code, code, "{body}");
                let named = !matches!(code, "message_not_json") && !words.contains("id") && words != "jd";
                assert!(!named || no.id.as_deref() == Some("a"), "{no:?}");
            }
        }
        assert_eq!(read(&" ".repeat(MESSAGE_BYTES_MAX + 1)).unwrap_err().refusal.code, "message_too_big");
    }
}
