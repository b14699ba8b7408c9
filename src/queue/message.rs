//! A job as a message: what comes with its document over AMQP, and how the two become a [`Job`].
//!
//! Bad messages are refused here, on their first delivery, with a code and the path of what is wrong. Never: a value
//! of the message in an error, since any of them could be a PIN.

use std::time::Duration;

use crate::clock::Time;
use crate::intake::document::{self, Problem, Rule, Wrong};
use crate::intake::readable;
use crate::job::{Job, Place};
use crate::outcome::Refusal;
use crate::stripe::error::scrub;

/// What came with the message, outside its body.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// When it was published, as far as that is known; never later than it came.
    pub published: Option<Time>,
    /// The manifest's row it came from.
    pub row: Option<u64>,
    /// That row's own id.
    pub row_id: Option<String>,
    /// How many rows of that manifest are published.
    pub rows: Option<u64>,
    /// The Stripe account that it is for.
    pub account: Option<String>,
    /// Whether it is for `live` or for `test` cards.
    pub mode: Option<String>,
}

impl Envelope {
    /// The manifest's row, if it came from one.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.row.map(|row| Place { row, row_id: self.row_id.clone() })
    }
}

/// Whom the worker acts for, and what it takes.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The Stripe account that it acts for, as far as that is known.
    pub account: Option<String>,
    /// Whether its cards are `live` or `test`; unknown, none is refused for it.
    pub mode: Option<String>,
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

/// Reads a message's body.
///
/// # Errors
/// Why it is no job.
pub fn job_of(body: &[u8], envelope: &Envelope, terms: &Terms) -> Result<Job, Box<NoJob>> {
    let (length, max) = (body.len(), terms.message_bytes_max);
    if length > max {
        let refusal = Refusal::own(
            "message_too_big",
            format!("the message has {length} bytes; at most {max} are taken"),
        );
        let (id, batch) = readable::names_at_head(body);
        return Err(Box::new(NoJob { id, batch, refusal }));
    }
    if let Some(refusal) = of_another(envelope, terms) {
        let (id, batch) = readable::names_at_head(body);
        return Err(Box::new(NoJob { id, batch, refusal }));
    }
    let mut job = document::decode(body, terms.account.as_deref()).map_err(|no| {
        let document::NoJob { id, batch, wrong } = *no;
        Box::new(NoJob { id, batch, refusal: refusal(&wrong) })
    })?;
    job.place = envelope.place();
    // What may be of any age is taken for older than any limit.
    let published = envelope.published.unwrap_or(Time::from_unix_ms(i64::MIN));
    let of_pin = job.pin.is_some().then(|| published.plus(terms.pin_age_max));
    job.deadline = job.deadline.into_iter().chain(of_pin).min();
    Ok(job)
}

/// Why the job is not this worker's, by what its publisher wrote beside it. A worker of another account that takes over would make
/// cards for the wrong people, and one with the other kind of key real cards where test ones are meant, or none where real ones are.
fn of_another(envelope: &Envelope, terms: &Terms) -> Option<Refusal> {
    let differs =
        |meant: &Option<String>, here: &Option<String>| meant.is_some() && here.is_some() && meant != here;
    if differs(&envelope.account, &terms.account) {
        return Some(Refusal::own("wrong_account", "the job is not for the account that embosser acts for"));
    }
    differs(&envelope.mode, &terms.mode).then(|| {
        let mode = terms.mode.as_deref().unwrap_or_default();
        Refusal::own(
            "wrong_mode",
            format!("the job is not for {mode} cards, which is what this worker makes"),
        )
    })
}

/// Every problem, under the first one's code.
fn refusal(wrong: &Wrong) -> Refusal {
    match wrong {
        Wrong::NotJson { line, column } => Refusal::own(
            "message_not_json",
            format!("the message is not JSON (line {line}, column {column})"),
        ),
        Wrong::Encoded(encoding) => {
            Refusal::own("message_not_json", format!("the message is not JSON: {}", encoding.words()))
        }
        Wrong::Follows => Refusal::own("message_not_json", "something follows the job"),
        Wrong::Invalid(problems) => {
            let code = problems.first().map_or("message_invalid", |problem| match problem.of {
                Rule::Job => "message_invalid",
                Rule::Account => "wrong_account",
                Rule::Card(code) => code,
            });
            let sentences: Vec<String> = problems.iter().map(sentence).collect();
            Refusal::own(code, scrub(&sentences.join("; ")))
        }
    }
}

fn sentence(problem: &Problem) -> String {
    let Problem { of, path, reason, suggestion } = problem;
    let hint = suggestion.as_ref().map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    match of {
        Rule::Card(_) => format!("card {path}: {reason}{hint}"),
        Rule::Job | Rule::Account if path.is_empty() => format!("{reason}{hint}"),
        Rule::Job | Rule::Account => format!("{path} {reason}{hint}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_unix_ms(1_000_000);

    fn read(body: &str) -> Result<Job, Box<NoJob>> {
        let terms = Terms {
            account: None,
            mode: None,
            pin_age_max: Duration::from_secs(60),
            message_bytes_max: 128 << 10,
        };
        let envelope = Envelope { published: Some(NOW), ..Envelope::default() };
        job_of(body.as_bytes(), &envelope, &terms)
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
    fn a_job_for_another_account_or_other_cards_is_refused_and_one_that_names_none_is_taken() {
        let body = format!(r#"{{"id": "a", "batch": "b", {CARD}}}"#);
        let own = |text: &str| Some(text.to_owned());
        let terms = Terms {
            account: own("acct_1"),
            mode: own("test"),
            pin_age_max: Duration::MAX,
            message_bytes_max: 128 << 10,
        };
        for (account, mode, code) in [
            (None, None, None),
            (own("acct_1"), own("test"), None),
            (own("acct_4711"), own("test"), Some("wrong_account")),
            (own("acct_1"), own("live"), Some("wrong_mode")),
        ] {
            let envelope = Envelope { account, mode, ..Envelope::default() };
            let no = job_of(body.as_bytes(), &envelope, &terms).err();
            assert_eq!(no.as_ref().map(|no| no.refusal.code.as_ref()), code, "{envelope:?}");
            assert!(no.is_none_or(|no| no.id.as_deref() == Some("a") && !format!("{no:?}").contains("4711")));
        }
    }

    #[test]
    fn a_deadline_at_the_end_of_time_is_one() {
        let body = format!(r#"{{"id": "a", "deadline": "9999-12-31T23:59:59Z", {CARD}}}"#);
        assert!(read(&body).unwrap().deadline > Some(NOW));
        assert!(read(&body.replace("9999-12-31T", "9999-13-31T")).is_err());
    }

    #[test]
    fn a_pin_of_unknown_age_is_past_any_deadline() {
        let terms =
            Terms { account: None, mode: None, pin_age_max: Duration::MAX, message_bytes_max: 128 << 10 };
        let job = job_of(with_pin().as_bytes(), &Envelope::default(), &terms).unwrap();
        assert!(job.deadline.is_some_and(|deadline| deadline < NOW));
    }

    #[test]
    fn the_job_without_its_pin_is_the_same_job() {
        let body = with_pin();
        let without = String::from_utf8(document::without_pin(body.as_bytes()).unwrap()).unwrap();
        assert!(!without.contains("encrypted_number"), "{without}");
        let (one, other) = (read(&body).unwrap(), read(&without).unwrap());
        assert_eq!((one.id.clone(), one.fingerprint()), (other.id.clone(), other.fingerprint()));
        assert!(one.pin.is_some() && other.pin.is_none());
    }
}
