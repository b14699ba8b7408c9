//! Jobs that are sent one by one, for services that do not speak AMQP.
//!
//! A job that was accepted waits in memory, as a row of a batch does: its sender asks after it, and sends it again if
//! it is not known any more. However often it is sent, its id gets one card.
//!
//! Never: a value of the JSON in an error; it may be a PIN's ciphertext.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::Request;
use axum::http::header;
use futures_util::StreamExt as _;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::Server;
use super::access::Caller;
use super::audit::{About, Action};
use super::limits::{JOB_BYTES_MAX, JOBS_MAX};
use super::problem::{Kind, Problem, Wrong};
use super::results::{EndView, OutcomeWord, RowView};
use crate::intake::document;
use crate::job::{Content, Job, JobId};
use crate::ledger::State;
use crate::operation::PIN_CHOICE;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobState {
    /// It waits for its call, or the call is under way.
    Waiting,
    /// It has a card.
    Issued,
    /// The card was changed.
    Updated,
    /// There is exactly one cardholder.
    Created,
    /// It has none.
    Refused,
    /// Its end is not known yet. Send it again.
    Unresolved,
    /// Its cardholder is to choose the PIN.
    AwaitingPin,
}

/// A job as clients see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct JobView {
    /// Its id.
    pub(super) id: String,
    /// How it stands.
    pub(super) state: JobState,
    /// What came of it.
    #[serde(flatten)]
    pub(super) end: EndView,
}

impl JobView {
    fn waiting(id: &JobId) -> Self {
        Self { id: id.to_string(), state: JobState::Waiting, end: EndView::default() }
    }
}

impl From<RowView> for JobView {
    fn from(row: RowView) -> Self {
        let state = match row.outcome {
            OutcomeWord::Issued => JobState::Issued,
            OutcomeWord::Updated => JobState::Updated,
            OutcomeWord::Created => JobState::Created,
            OutcomeWord::Refused => JobState::Refused,
            OutcomeWord::Unresolved => JobState::Unresolved,
            OutcomeWord::AwaitingPin => JobState::AwaitingPin,
        };
        Self { id: row.job, state, end: row.end }
    }
}

/// The jobs that wait or are under way.
#[derive(Default)]
pub(super) struct Jobs(Mutex<HashMap<JobId, Content>>);

/// One of them, until it is dropped.
struct UnderWay {
    server: Server,
    id: JobId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.server.jobs.lock().remove(&self.id);
    }
}

impl Jobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of sending a job.
pub(super) enum Sent {
    /// It waits for its call.
    Accepted(JobView),
    /// It has its card already.
    Known(JobView),
}

/// Takes a job in.
pub(super) async fn submit(server: &Server, caller: &Caller, request: Request) -> Result<Sent, Problem> {
    let job = decode(&read(server, request, "job", JOB_BYTES_MAX).await?, server.parts.account.as_deref())?;
    if job.chooses_pin
        && let Err(reason) = server.takes_choices()
    {
        let wrong = Wrong::new(format!("card.{PIN_CHOICE}"), "no_pin_page", reason);
        return Err(Problem::new(Kind::InvalidJob, "the job cannot wait for a PIN here; nothing was issued")
            .with(vec![wrong]));
    }
    server.ready()?;
    let different = || {
        Problem::new(
            Kind::Conflict,
            "this id is that of a job with other content; send that one as it was, or, if a second card is wanted, a job of its own",
        )
    };
    let known = server.parts.views.look_up(server.scope(), &job.id).await?;
    if let Some(row) = &known {
        if !job.asks_for(row.content) && !matches!(row.state, State::Refused(_) | State::AwaitingPin) {
            return Err(different());
        }
        if matches!(row.state, State::Done(_)) {
            let mut view = RowView::of_row(row);
            view.end.note = crate::line::note_beside(&job, row);
            return Ok(Sent::Known(view.into()));
        }
    }
    let view = JobView::waiting(&job.id);
    {
        let mut under_way = server.jobs.lock();
        match under_way.get(&job.id) {
            Some(content) if *content == job.content() => return Ok(Sent::Accepted(view)),
            Some(_) => return Err(different()),
            None if under_way.len() >= JOBS_MAX => {
                return Err(Problem::new(Kind::Busy, "as many jobs as are allowed wait for their call"));
            }
            None => under_way.insert(job.id.clone(), job.content()),
        };
    }
    let under_way = UnderWay { server: server.clone(), id: job.id.clone() };
    let about = About { batch: Some(job.batch.to_string()), ..About::job(job.id.as_str()) };
    server.record(caller, Action::JobSent, about).await?;
    server.parts.intake.take(server, job, under_way).await?;
    Ok(Sent::Accepted(view))
}

/// How a job stands.
pub(super) async fn view(server: &Server, id: &str) -> Result<JobView, Problem> {
    let unknown = || {
        let detail = "this job is not known; if it was accepted, the server was stopped before it began: send it again";
        Problem::new(Kind::NotFound, detail)
    };
    let id = JobId::new(id).map_err(|_| unknown())?;
    if server.jobs.lock().contains_key(&id) {
        return Ok(JobView::waiting(&id));
    }
    let row = server.parts.views.look_up(server.scope(), &id).await?.ok_or_else(unknown)?;
    Ok(RowView::of_row(&row).into())
}

/// A request's JSON; `what` it is, for its sender.
pub(super) async fn read(
    server: &Server,
    request: Request,
    what: &str,
    bytes_max: usize,
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if !json {
        return Err(Problem::new(Kind::UnsupportedMediaType, format!("send the {what} as application/json")));
    }
    // With its whole room from the beginning, so that no unwiped copy is left behind by growing.
    let mut body = Zeroizing::new(Vec::with_capacity(bytes_max));
    let mut pieces = request.into_body().into_data_stream();
    loop {
        let piece = tokio::time::timeout(server.limits.idle_max, pieces.next())
            .await
            .map_err(|_| Problem::new(Kind::TooSlow, format!("the {what} brought nothing for too long")))?;
        let Some(piece) = piece else { return Ok(body) };
        let piece = piece.map_err(|_| Problem::new(Kind::BadRequest, format!("the {what} ended early")))?;
        if body.len() + piece.len() > bytes_max {
            return Err(Problem::new(Kind::TooLarge, format!("a {what} has at most {bytes_max} bytes")));
        }
        body.extend_from_slice(&piece);
    }
}

fn decode(body: &[u8], account: Option<&str>) -> Result<Job, Problem> {
    document::decode(body, account).map_err(|no| match no.wrong {
        document::Wrong::NotJson { line, column } => {
            Problem::new(Kind::BadRequest, format!("the job is not JSON (line {line}, column {column})"))
        }
        document::Wrong::Encoded(encoding) => {
            Problem::new(Kind::BadRequest, format!("the job is not JSON: {}", encoding.words()))
        }
        document::Wrong::Follows => Problem::new(Kind::BadRequest, "something follows the job"),
        document::Wrong::Invalid(problems) => {
            Problem::new(Kind::InvalidJob, "the job is invalid; nothing was issued")
                .with(problems.into_iter().map(Wrong::from).collect())
        }
    })
}

impl From<document::Problem> for Wrong {
    fn from(problem: document::Problem) -> Self {
        let document::Problem { of, path, reason, suggestion } = problem;
        let code = match of {
            document::Rule::Job | document::Rule::Account => "invalid",
            document::Rule::Card(code) => code,
        };
        Self { suggestion, ..Self::new(path, code, reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: &str) -> String {
        match decode(json.as_bytes(), None) {
            Ok(job) => format!("{} in {}", job.id, job.batch),
            Err(problem) => serde_json::to_string(&problem).unwrap(),
        }
    }

    #[test]
    fn a_job_is_taken_as_stripe_names_it() {
        let card = r#"{"type": "virtual", "currency": "eur", "metadata": {"a": "b"}}"#;
        assert_eq!(said(&format!(r#"{{"id": "a/1", "card": {card}}}"#)), "a/1 in jobs");
        let whole = r#""operation": "create_card", "batch": "b""#;
        assert_eq!(said(&format!(r#"{{"id": "a/1", {whole}, "card": {card}}}"#)), "a/1 in b");
        assert!(
            said(&format!(r#"{{"id": "1", "stripe_account": "acct_1", "card": {card}}}"#))
                .contains("account")
        );
        assert!(
            said(&format!(r#"{{"id": "1", "operation": "burn", "card": {card}}}"#)).contains("create_card")
        );
        assert!(said(&format!(r#"{{"id": 1, "card": {card}, "deadline": "soon"}}"#)).contains("deadline"));
    }

    #[test]
    fn no_error_quotes_a_value() {
        let secret = "eyJhbGciOiJSU0EtT0FFUCJ9.secret";
        for json in [
            format!(
                r#"{{"id": "1", "card": {{"type": "virtual", "pin": {{"encrypted_number": "{secret}"}}}}}}"#
            ),
            format!(r#"{{"id": "1", "card": "{secret}"}}"#),
            format!(r#"{{"id": ["{secret}"], "card": {{}}, "{secret}": 1}}"#),
            format!(r#"{{"id": "1", "deadline": "{secret}", "card": {{"colour": "{secret}"}}}}"#),
            format!(r#"{{"id": "1", "card": {{"status": "{secret}"}}}}"#),
            format!(r#""{secret}"#),
        ] {
            let said = said(&json);
            assert!(said.contains("problem:") && !said.contains("secret"), "{said}");
        }
    }
}
