//! Errors as problem details (RFC 9457).
//!
//! Never: anything of a PIN's ciphertext. What a client sent is named by its line, column or field, not quoted.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::plan::PlanView;
use super::table::TableView;
use crate::ledger::LedgerError;
use crate::manifest::checked::Excluded;
use crate::manifest::{self, CheckReport, PROBLEMS_MAX, Severity};
use crate::operation::FieldProblem;

/// How long a client is asked to wait when something is full for the moment.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What kind of error it is: what the client does differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request is not understood.
    BadRequest,
    /// No token, or not a valid one.
    Unauthorized,
    /// The token lacks the role, or is for another account.
    Forbidden,
    /// Whoever uploaded a batch may not approve it.
    OwnApproval,
    /// A second look is required, which this cannot have.
    ApprovalRequired,
    /// The request comes from another site's page, or by a name that is not this machine's.
    CrossSite,
    /// There is no such thing.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// The upload paused for too long.
    TooSlow,
    /// It contradicts what is known.
    Conflict,
    /// It is not the file that was checked.
    FileChanged,
    /// These rows were issued under another name.
    IssuedBefore,
    /// Cards would be cancelled, and it was not said how many.
    CancelsUnsaid,
    /// A bound was passed.
    TooLarge,
    /// More rows than a spreadsheet is made of.
    TooManyRows,
    /// Neither CSV nor a form.
    UnsupportedMediaType,
    /// The manifest has invalid rows, or is none.
    InvalidManifest,
    /// PINs would be too old when they are used.
    PinsTooOld,
    /// The job is invalid.
    InvalidJob,
    /// A cardholder's link is unknown, used, revoked or expired.
    LinkUnusable,
    /// A PIN is encrypted under a key that is not the current one.
    StaleKey,
    /// What should be an encrypted PIN is none that Stripe takes.
    PinUnusable,
    /// Stripe refused the card.
    CardRefused,
    /// Nothing can be done at this moment, and it may be in a while.
    NotNow,
    /// Whether it was done is not known.
    Lost,
    /// A client asks too often.
    TooManyRequests,
    /// Full for the moment.
    Busy,
    /// The line has stopped, or the ledger does not serve.
    Unavailable,
    /// A bug.
    Internal,
}

impl Kind {
    /// Its status, the end of its URN, and its title.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as Http;
        match self {
            Self::BadRequest => (Http::BAD_REQUEST, "bad_request", "The request is not understood"),
            Self::Unauthorized => (Http::UNAUTHORIZED, "unauthorized", "A valid token is needed"),
            Self::Forbidden => (Http::FORBIDDEN, "forbidden", "The token does not allow it"),
            Self::OwnApproval => (Http::FORBIDDEN, "own_approval", "Somebody else must approve it"),
            Self::ApprovalRequired => (Http::FORBIDDEN, "approval_required", "A second look is required"),
            Self::CrossSite => (Http::FORBIDDEN, "cross_site", "Not from this page"),
            Self::NotFound => (Http::NOT_FOUND, "not_found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (Http::METHOD_NOT_ALLOWED, "method_not_allowed", "Not with this method")
            }
            Self::TooSlow => (Http::REQUEST_TIMEOUT, "too_slow", "The upload paused for too long"),
            Self::Conflict => (Http::CONFLICT, "conflict", "It contradicts what is known"),
            Self::FileChanged => (Http::CONFLICT, "file_changed", "It is not the file that was checked"),
            Self::IssuedBefore => {
                (Http::CONFLICT, "issued_before", "These rows were issued under another name")
            }
            Self::CancelsUnsaid => (Http::CONFLICT, "cancels_unsaid", "Cards would be cancelled"),
            Self::TooLarge => (Http::PAYLOAD_TOO_LARGE, "too_large", "The upload is too large"),
            Self::TooManyRows => {
                (Http::UNPROCESSABLE_ENTITY, "too_many_rows", "Too many rows for a spreadsheet")
            }
            Self::UnsupportedMediaType => {
                (Http::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "This type is not taken")
            }
            Self::InvalidManifest => {
                (Http::UNPROCESSABLE_ENTITY, "invalid_manifest", "The manifest is invalid")
            }
            Self::PinsTooOld => (Http::UNPROCESSABLE_ENTITY, "pins_too_old", "PINs would be too old by then"),
            Self::InvalidJob => (Http::UNPROCESSABLE_ENTITY, "invalid_job", "The job is invalid"),
            Self::LinkUnusable => (Http::NOT_FOUND, "link_unusable", "This link cannot be used"),
            Self::StaleKey => (Http::CONFLICT, "stale_key", "The PIN is encrypted under an old key"),
            Self::PinUnusable => (Http::UNPROCESSABLE_ENTITY, "pin_unusable", "This is no encrypted PIN"),
            Self::CardRefused => (Http::CONFLICT, "card_refused", "The card was refused"),
            Self::NotNow => (Http::SERVICE_UNAVAILABLE, "not_now", "Not at this moment"),
            Self::Lost => (Http::SERVICE_UNAVAILABLE, "lost", "How it ended is not known"),
            Self::TooManyRequests => (Http::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests"),
            Self::Busy => (Http::SERVICE_UNAVAILABLE, "busy", "Full for the moment"),
            Self::Unavailable => (Http::SERVICE_UNAVAILABLE, "unavailable", "Not able to serve"),
            Self::Internal => (Http::INTERNAL_SERVER_ERROR, "internal", "Something is wrong here"),
        }
    }
}

/// Problem details, RFC 9457.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// A URN that names the kind of problem.
    #[serde(rename = "type")]
    #[serde(serialize_with = "as_urn")]
    #[schema(value_type = String, example = "urn:embosser:problem:invalid_manifest")]
    kind: Kind,
    /// The same in a word, to switch on.
    #[serde(serialize_with = "as_word")]
    #[schema(value_type = String, example = "invalid_manifest")]
    code: Kind,
    /// The kind in words.
    #[serde(serialize_with = "as_title")]
    #[schema(value_type = String)]
    title: Kind,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong with this request and what to do.
    #[schema(value_type = String)]
    detail: Box<str>,
    /// Cards that would be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancels: Option<u32>,
    /// Rows that were read, for a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u32>,
    /// Rows with problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    invalid_rows: Option<u32>,
    /// How many problems there are in all; `problems` holds the first 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem_count: Option<u32>,
    /// How many warnings there are in all; `problems` holds the first 1000 of them, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning_count: Option<u32>,
    /// Each thing that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Wrong>,
    /// Some of the upload as a table, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Box<TableView>>,
    /// Rows that contradict each other, the first 1000: while there are any, rows with problems cannot be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Contradiction>>)]
    contradictions: Option<Box<Contradictions>>,
    /// What the rows that are right would do, where the others can be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Box<PlanView>>,
    /// Seconds after which it may be tried again.
    #[serde(skip)]
    retry_after: Option<u32>,
}

fn as_urn<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("urn:embosser:problem:{}", kind.parts().1))
}

fn as_word<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.parts().1)
}

fn as_title<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.parts().2)
}

/// A row that does not go together with one before it: which of the two is meant only their writer knows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Contradiction {
    /// Its line, from 1.
    line: u64,
    /// The line of the row before it.
    first_line: u64,
    /// The problem's code.
    code: String,
}

/// Several of them; there is at least one.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
struct Contradictions(Vec<Contradiction>);

impl Contradictions {
    /// The first of those that a report tells.
    fn of(report: &CheckReport) -> Option<Box<Self>> {
        let first: Vec<_> = report.excluded.iter().take(PROBLEMS_MAX).map(Contradiction::from).collect();
        (!first.is_empty()).then(|| Box::new(Self(first)))
    }
}

impl From<&Excluded> for Contradiction {
    fn from(&Excluded { line, first, code, .. }: &Excluded) -> Self {
        Self { line, first_line: first, code: code.into() }
    }
}

/// One thing that is wrong with a manifest or a job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Wrong {
    /// The file's line, from 1; absent for a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// The data row, from 1; 0 for the header; absent for a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) row: Option<u64>,
    /// Whether it keeps the manifest from being issued.
    pub(super) severity: Severity,
    /// The row's `row_id`, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) row_id: Option<String>,
    /// The column, or the parameter in Stripe's bracket form.
    pub(super) column: String,
    /// A code to switch on.
    pub(super) code: String,
    /// What is wrong.
    pub(super) reason: String,
    /// What stands there; absent where it may be a PIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found: Option<String>,
    /// A near match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) suggestion: Option<String>,
}

impl From<manifest::Problem> for Wrong {
    fn from(problem: manifest::Problem) -> Self {
        let manifest::Problem { severity, line, row, row_id, column, code, reason, found, suggestion } =
            problem;
        Self {
            line: Some(line),
            row: Some(row),
            severity,
            row_id,
            found,
            suggestion,
            ..Self::new(column, code, reason)
        }
    }
}

impl From<FieldProblem> for Wrong {
    fn from(problem: FieldProblem) -> Self {
        let FieldProblem { path, code, reason, suggestion } = problem;
        Self { suggestion, ..Self::new(path, code, reason) }
    }
}

impl Wrong {
    /// Of no file.
    pub(super) fn new(column: String, code: &str, reason: String) -> Self {
        Self {
            line: None,
            row: None,
            severity: Severity::Problem,
            row_id: None,
            column,
            code: code.into(),
            reason,
            found: None,
            suggestion: None,
        }
    }
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, ..) = kind.parts();
        Self {
            kind,
            code: kind,
            title: kind,
            status: status.as_u16(),
            detail: detail.into().into_boxed_str(),
            cancels: None,
            rows: None,
            invalid_rows: None,
            problem_count: None,
            warning_count: None,
            problems: Vec::new(),
            table: None,
            contradictions: None,
            plan: None,
            retry_after: None,
        }
    }

    /// What is wrong, in words.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the same may go well in a while.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.kind, Kind::Busy | Kind::Unavailable | Kind::NotNow | Kind::TooLarge)
    }

    /// Its kind in a word.
    pub(super) fn code(&self) -> &'static str {
        self.kind.parts().1
    }

    /// With the seconds after which it may be tried again.
    #[must_use]
    pub(super) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = u32::try_from(seconds).ok();
        self
    }

    /// A manifest with invalid rows.
    #[must_use]
    pub(super) fn of_report(report: CheckReport) -> Self {
        let detail = if report.problem_count == 0 {
            format!(
                "{} rows have {} warnings, and nothing is issued while there are any (strict); nothing was issued",
                report.rows, report.warning_count
            )
        } else if report.invalid_rows > 0 {
            format!(
                "{} of {} rows are invalid; nothing was issued. Mend them and upload the file again",
                report.invalid_rows, report.rows
            )
        } else {
            "the header is wrong; nothing was issued. Mend it and upload the file again".to_owned()
        };
        Self {
            contradictions: Contradictions::of(&report),
            rows: u32::try_from(report.rows).ok(),
            invalid_rows: u32::try_from(report.invalid_rows).ok(),
            problem_count: u32::try_from(report.problem_count).ok(),
            warning_count: u32::try_from(report.warning_count).ok(),
            problems: report.problems.into_iter().chain(report.warnings).map(Wrong::from).collect(),
            ..Self::new(Kind::InvalidManifest, detail)
        }
    }

    /// With some of the upload as a table.
    #[must_use]
    pub(super) fn with_table(mut self, table: Option<TableView>) -> Self {
        self.table = table.map(Box::new);
        self
    }

    /// With what the rows that are right would do. Then none of them is missing for a contradiction.
    #[must_use]
    pub(super) fn with_plan(mut self, plan: Option<PlanView>) -> Self {
        if plan.is_some() {
            self.contradictions = None;
        }
        self.plan = plan.map(Box::new);
        self
    }

    /// With how many cards would be cancelled.
    #[must_use]
    pub(super) fn with_cancels(mut self, cancels: u64) -> Self {
        self.cancels = u32::try_from(cancels).ok();
        self
    }

    /// With each thing that is wrong.
    #[must_use]
    pub(super) fn with(mut self, problems: Vec<Wrong>) -> Self {
        self.problem_count = u32::try_from(problems.len()).ok();
        self.problems = problems;
        self
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        tracing::error!(%error, "the ledger does not serve");
        Self::new(Kind::Unavailable, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"embosser\""));
        }
        if retry_after.is_some() || status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = retry_after.unwrap_or(RETRY_AFTER_SECONDS);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
