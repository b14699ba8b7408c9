//! A job as a JSON document: what a sender writes, and how it becomes a [`Job`].
//!
//! Every problem is found, each with the path of what is wrong and a way out. Never: a value of the document in an error,
//! since any of them could be a PIN; a member's name is told only if it looks like a name. A member that stands there twice
//! is refused: readers differ in which of the two they take, and each is looked at for a PIN in clear.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::readable::Encoding;
use super::requests::requests_of;
use super::tree::{Repeated, Syntax, Tree, Wiped, wipe};
use crate::clock::Time;
use crate::job::{Batch, Job, JobId};
use crate::operation::{self, FieldProblem, Request};

/// The batch of jobs that name none.
const BATCH_USUAL: &str = "jobs";
/// Members of a job.
const MEMBERS: [&str; 8] =
    ["id", "batch", "operation", "deadline", "stripe_account", "card", "cardholder", "card_id"];
/// Longest name of a member that is told: longer than any of Stripe's, shorter than a piece of ciphertext that says anything.
const NAME_CHARACTERS_MAX: usize = 40;
/// Most repeated members that are told one by one.
const REPEATED_SHOWN_MAX: usize = 10;

/// A job, as JSON: a card to create, a cardholder, or both; or a change of a card.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
pub struct JobDocument {
    /// Names the job for ever: one id, one card. 1 to 255 bytes.
    #[schemars(length(min = 1, max = 255))]
    pub id: String,
    /// The batch it is counted under; `jobs` if absent. 1 to 255 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub batch: Option<String>,
    /// What to do; `create_card` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// After this moment the job must not be begun any more, and its PIN not be used; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub deadline: Option<String>,
    /// The connected account it is for; it must be the one that embosser acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stripe_account: Option<String>,
    /// Stripe's parameters of the card, nested as in its documentation: of a new one, or of what is changed of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub card: Option<RequestJson>,
    /// Stripe's parameters of a cardholder who is to be created: alone, or before the card, which is then theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "cardholder_schema")]
    pub cardholder: Option<RequestJson>,
    /// The card that `update_card` changes, `ic_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub card_id: Option<String>,
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Operation {
    /// Create a card, and first its cardholder if `cardholder` is given.
    CreateCard,
    /// Create a cardholder.
    CreateCardholder,
    /// Change the card `card_id`, its PIN for instance.
    UpdateCard,
}

/// A request's JSON. One of its texts may be a PIN's ciphertext, so all are wiped when it is dropped, and none is shown.
#[derive(Serialize)]
#[serde(transparent)]
pub struct RequestJson(Value);

impl From<Value> for RequestJson {
    fn from(card: Value) -> Self {
        Self(card)
    }
}

impl Drop for RequestJson {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for RequestJson {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RequestJson(redacted)")
    }
}

/// A schema that stands inside another document, which says what dialect it is.
fn inside(mut schema: Value) -> Value {
    if let Some(members) = schema.as_object_mut() {
        members.remove("$schema");
    }
    schema
}

fn cardholder_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = inside(operation::Operation::CreateCardholder.declaration().json_schema());
    schema["type"] = json!(["object", "null"]);
    schema.try_into().expect("a schema is an object")
}

/// What it holds depends on the operation: see [`json_schema`].
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": ["object", "null"] })
}

/// The schema of a job's document, for the queue and for HTTP.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(JobDocument).to_value();
    // What else must be there depends on the operation.
    schema["required"] = json!(["id"]);
    let is = |operation: operation::Operation| json!({ "required": ["operation"], "properties": { "operation": { "const": operation.word() } } });
    let card = |operation: operation::Operation, required: &[&str], absent: &str| {
        let card = inside(operation.declaration().json_schema());
        json!({ "required": required, "properties": { "card": card, absent: { "type": "null" } } })
    };
    schema["if"] = is(operation::Operation::CreateCardholder);
    schema["then"] = json!({
        "required": ["cardholder"],
        "properties": { "cardholder": { "type": "object" }, "card": { "type": "null" }, "card_id": { "type": "null" } },
    });
    schema["else"] = json!({
        "if": is(operation::Operation::UpdateCard),
        "then": card(operation::Operation::UpdateCard, &["card", "card_id"], "cardholder"),
        "else": card(operation::Operation::CreateCard, &["card"], "card_id"),
    });
    schema
}

impl From<operation::Operation> for Operation {
    fn from(operation: operation::Operation) -> Self {
        match operation {
            operation::Operation::CreateCard => Self::CreateCard,
            operation::Operation::CreateCardholder => Self::CreateCardholder,
            operation::Operation::UpdateCard => Self::UpdateCard,
        }
    }
}

/// What is wrong with one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of which rule.
    pub of: Rule,
    /// Where: a member of the job, a parameter of the card in Stripe's bracket form, or the path of a repeated member with
    /// dots. Empty: the whole.
    pub path: String,
    /// What is wrong, to be read after the path.
    pub reason: String,
    /// A near match.
    pub suggestion: Option<String>,
}

/// Whose rule a document breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A job's.
    Job,
    /// That of the account which is acted for.
    Account,
    /// The card's parameters', with their own code.
    Card(&'static str),
}

/// Why a document is no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is not JSON from here on.
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// It is in an encoding that is not taken.
    Encoded(Encoding),
    /// Something stands after the job.
    Follows,
    /// It is JSON, and these are wrong with it; never empty.
    Invalid(Vec<Problem>),
}

/// A document that is no job, and as much of its name as could be read.
#[derive(Debug)]
pub struct NoJob {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its batch, if it has one.
    pub batch: Option<String>,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// Reads a document, for the connected account that is acted for, if any.
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(body: &[u8], account: Option<&str>) -> Result<Job, Box<NoJob>> {
    let mut tree = Tree::parse(body).map_err(|syntax| {
        let wrong = match (syntax, Encoding::of(body)) {
            (Syntax::At { .. }, Some(encoding)) => Wrong::Encoded(encoding),
            (Syntax::At { line, column }, None) => Wrong::NotJson { line, column },
            (Syntax::Follows, _) => Wrong::Follows,
        };
        Box::new(NoJob { id: None, batch: None, wrong })
    })?;
    let repeated = repeated(std::mem::take(&mut tree.repeated));
    let Value::Object(members) = &tree.root.0 else {
        let wrong = Wrong::Invalid(vec![problem("", "a job is a JSON object")]);
        return Err(Box::new(NoJob { id: None, batch: None, wrong }));
    };
    job_of(members, repeated, account).map_err(|problems| {
        let name = |member: &str| members.get(member)?.as_str().filter(|name| JobId::new(*name).is_ok());
        let (id, batch) = (name("id").map(ToOwned::to_owned), name("batch").map(ToOwned::to_owned));
        Box::new(NoJob { id, batch, wrong: Wrong::Invalid(problems) })
    })
}

/// The same job without its PIN, for one that will not be called for any more. None if it is no object.
#[must_use]
pub fn without_pin(body: &[u8]) -> Option<Vec<u8>> {
    let mut tree = Tree::parse(body).ok()?;
    if let Some(Value::Object(card)) = tree.root.0.as_object_mut()?.get_mut("card")
        && let Some(pin) = card.remove("pin")
    {
        drop(Wiped(pin));
    }
    serde_json::to_vec(&tree.root.0).ok()
}

/// A moment. The last one of the year 9999, which many write for *never*, is past what the library can hold, and no less a time.
fn moment(text: &str) -> Result<jiff::Timestamp, ()> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let pieces = jiff::fmt::temporal::Pieces::parse(text).map_err(|_| ())?;
    let is_moment = pieces.time().is_some() && pieces.offset().is_some();
    if is_moment && pieces.date().year() == 9999 { Ok(jiff::Timestamp::MAX) } else { Err(()) }
}

pub(super) fn problem(path: &str, reason: &str) -> Problem {
    Problem { of: Rule::Job, path: path.to_owned(), reason: reason.to_owned(), suggestion: None }
}

impl Problem {
    /// Of a parameter; a cardholder's are told with the member that they stand in.
    pub(super) fn of(member: &str, problem: FieldProblem) -> Self {
        let FieldProblem { path, code, reason, suggestion } = problem;
        let path = match (member, path.split_once('[')) {
            ("card", _) => path,
            (member, _) if path.is_empty() => member.to_owned(),
            (member, Some((name, rest))) => format!("{member}[{name}][{rest}"),
            (member, None) => format!("{member}[{path}]"),
        };
        Self { of: Rule::Card(code), path, reason, suggestion }
    }
}

fn job_of(
    members: &Map<String, Value>,
    mut problems: Vec<Problem>,
    account: Option<&str>,
) -> Result<Job, Vec<Problem>> {
    let unknown = members.keys().filter(|member| !MEMBERS.contains(&member.as_str()));
    problems.extend(unknown.map(|member| {
        let all = "a job has id, batch, operation, deadline, stripe_account, card, cardholder and card_id, and nothing else";
        problem(shown(member), all)
    }));
    let mut text = |member: &str| match members.get(member) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => {
            problems.push(problem(member, "has the wrong type; it is a text"));
            None
        }
    };
    let (id, batch, operation) = (text("id"), text("batch"), text("operation"));
    let (of_account, deadline, card_id) = (text("stripe_account"), text("deadline"), text("card_id"));
    if id.is_none() && members.get("id").is_none_or(Value::is_null) {
        problems.push(problem("id", "is missing"));
    }
    let mut read = |member: &str, error: String| problems.push(problem(member, &error));
    let id = id.and_then(|id| JobId::new(id).map_err(|error| read("id", error.to_string())).ok());
    let batch = Batch::new(batch.unwrap_or(BATCH_USUAL));
    let batch = batch.map_err(|error| read("batch", error.to_string())).ok();
    let usual = operation::Operation::CreateCard;
    let operation = operation.map_or(usual, |word| {
        // What else is wrong is told as of a card to create, which most jobs are.
        operation::Operation::of_word(word).unwrap_or_else(|| {
            let words = operation::Operation::ALL.map(operation::Operation::word);
            read("operation", format!("is none of {}", words.join(", ")));
            usual
        })
    });
    let deadline = deadline.map(moment).transpose();
    let deadline =
        deadline.map_err(|()| read("deadline", "is not a time such as 2031-01-31T12:00:00Z".into())).ok();
    if of_account.is_some() && of_account != account {
        let reason = "is not the account that embosser acts for";
        problems.push(Problem { of: Rule::Account, ..problem("stripe_account", reason) });
    }
    let requests = requests_of(members, operation, card_id, &mut problems);
    match (id, batch, deadline, requests) {
        (Some(id), Some(batch), Some(deadline), Some((first, request))) if problems.is_empty() => {
            let mut job = Job::new(id, batch, None, request, None);
            if let Some(first) = first {
                job = job.after(first);
            }
            job.deadline = deadline.map(|moment| Time::from_unix_ms(moment.as_millisecond()));
            Ok(job)
        }
        _ => Err(problems),
    }
}

/// What is wrong about members that stand there twice: that they do, and a PIN in clear in any of them.
fn repeated(members: Vec<Repeated>) -> Vec<Problem> {
    let (mut problems, mut pins, more) = (Vec::new(), Vec::new(), members.len() > REPEATED_SHOWN_MAX);
    for Repeated { path, earlier } in members {
        let segments: Vec<&str> = path.iter().map(|segment| shown(segment)).collect();
        let repeated = problem(&segments.join("."), "stands there twice; give each member once");
        if problems.len() < REPEATED_SHOWN_MAX && !problems.contains(&repeated) {
            problems.push(repeated);
        }
        if path.first().is_some_and(|member| member == "card")
            && let Err(found) =
                Request::from_json(operation::Operation::CreateCard, &within(&path[1..], earlier).0)
        {
            let of_pin =
                |problem: &FieldProblem| problem.code == "pin_in_clear" || problem.path.starts_with("pin");
            pins.extend(found.into_iter().filter(of_pin).map(|field| Problem::of("card", field)));
        }
    }
    if more {
        problems.push(problem("", "more members stand there twice"));
    }
    pins.truncate(REPEATED_SHOWN_MAX);
    problems.extend(pins);
    problems
}

/// The value alone, in objects of these names.
fn within(names: &[String], mut value: Wiped) -> Wiped {
    let inner = std::mem::take(&mut value.0);
    let nest = |inner, name: &String| Value::Object(Map::from_iter([(name.clone(), inner)]));
    Wiped(names.iter().rev().fold(inner, nest))
}

/// A member's name if it is like one. What is not may be a value that came to stand in a name's place.
fn shown(name: &str) -> &str {
    let of_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let index = name.len() <= 3 && name.bytes().all(|byte| byte.is_ascii_digit());
    let fine = begins && name.len() <= NAME_CHARACTERS_MAX && name.chars().all(of_name) || index;
    if fine { name } else { "(a member whose name is not shown)" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(body: &str) -> (Option<String>, Vec<Problem>) {
        let no = decode(body.as_bytes(), None).unwrap_err();
        match no.wrong {
            Wrong::Invalid(problems) => (no.id, problems),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_stands_there_twice_is_refused_with_its_path() {
        for (body, path) in [
            (r#"{"id": "a", "id": "b", "card": {"type": "virtual", "currency": "eur"}}"#, "id"),
            (
                r#"{"id": "a", "card": {"type": "virtual", "currency": "eur", "type": "virtual"}}"#,
                "card.type",
            ),
            (
                r#"{"id": "a", "card": {"type": "virtual", "currency": "eur", "metadata": {"a": "1", "a": "2"}}}"#,
                "card.metadata.a",
            ),
            (
                r#"{"id": "a", "card": {"type": "virtual", "currency": "eur",
                    "spending_controls": {"spending_limits": [{"amount": 1, "amount": 2, "interval": "daily"}]}}}"#,
                "card.spending_controls.spending_limits.0.amount",
            ),
            (r#"{"id": "a", "card": {}, "card": {"type": "virtual", "currency": "eur"}}"#, "card"),
        ] {
            let (id, problems) = wrong(body);
            assert!(id.is_some());
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!((problems[0].of, problems[0].path.as_str()), (Rule::Job, path));
            assert!(problems[0].reason.contains("stands there twice"), "{problems:?}");
        }
    }

    #[test]
    fn a_pin_in_clear_is_found_in_whichever_copy_it_stands() {
        let card = r#""type": "virtual", "currency": "eur""#;
        for copies in [
            r#""pin": "4711", "pin": null"#,
            r#""pin": {"number": "4711"}, "pin": {}"#,
            r#""pin": {}, "pin": {"number": "4711"}"#,
            r#""pin": {"number": "4711", "number": null}"#,
            r#""pin": "4711", "pin": null, "pin": null"#,
        ] {
            let (_, problems) = wrong(&format!(r#"{{"id": "a", "card": {{{card}, {copies}}}}}"#));
            assert!(problems[0].reason.contains("twice"), "{problems:?}");
            assert!(
                problems.iter().any(|problem| problem.of == Rule::Card("pin_in_clear")),
                "{copies}: {problems:?}"
            );
            assert!(!format!("{problems:?}").contains("4711"));
        }
        let (_, problems) =
            wrong(&format!(r#"{{"id": "a", "card": {{"pin": "4711"}}, "card": {{{card}}}}}"#));
        assert!(problems.iter().any(|problem| problem.of == Rule::Card("pin_in_clear")), "{problems:?}");
    }

    #[test]
    fn every_problem_is_told_and_no_value() {
        let (_, problems) = wrong(
            r#"{"4711": 1, "prio": 2, "id": 4711, "batch": "", "operation": "burn4711", "deadline": "4711",
                "stripe_account": "acct_4711", "card": {"type": "virtuel4711"}}"#,
        );
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        for path in ["prio", "id", "batch", "operation", "deadline", "stripe_account", "type", "currency"] {
            assert!(paths.contains(&path), "{path}: {problems:?}");
        }
        assert!(!format!("{problems:?}").contains("4711"), "{problems:?}");
    }

    #[test]
    fn absent_and_null_are_the_same() {
        let body = r#"{"id": "a", "batch": null, "operation": null, "deadline": null, "stripe_account": null,
            "card": {"type": "virtual", "currency": "eur"}}"#;
        let job = decode(body.as_bytes(), None).unwrap();
        assert_eq!((job.batch.as_str(), job.deadline), ("jobs", None));
    }
}
