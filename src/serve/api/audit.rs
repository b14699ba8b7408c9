//! The endpoints of the audit log. None changes or deletes an entry.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::place;
use crate::clock::Time;
use crate::ledger::{AuditEntry, AuditQuery, Order};
use crate::results;
use crate::serve::access::Audit;
use crate::serve::extract::Query;
use crate::serve::problem::{Kind, Problem};
use crate::serve::{Server, download};

/// Entries of one answer, and how many if nothing is said.
const ENTRIES_MAX: u32 = 1000;
const ENTRIES_USUAL: u32 = 100;
/// Longest text that entries are searched for.
const SEARCHED_BYTES_MAX: usize = 255;

/// Which entries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditFilter {
    /// Only those about this batch.
    batch: Option<String>,
    /// Only what this token's holder did.
    who: Option<String>,
    /// Only those with this in their batch, job, action or detail, or in who did it.
    #[param(max_length = 255)]
    q: Option<String>,
    /// Only those since then: a day, as 2026-12-01, or a time, as 2026-12-01T05:00Z.
    #[param(example = "2026-12-01")]
    since: Option<String>,
}

/// Which entries of those.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditPage {
    /// Only those about this batch.
    batch: Option<String>,
    /// Only what this token's holder did.
    who: Option<String>,
    /// Only those with this in their batch, job, action or detail, or in who did it.
    #[param(max_length = 255)]
    q: Option<String>,
    /// Only those since then: a day, as 2026-12-01, or a time, as 2026-12-01T05:00Z.
    #[param(example = "2026-12-01")]
    since: Option<String>,
    /// The `next` of the answer before this one.
    after: Option<String>,
    /// Most entries of this answer.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// One thing that somebody did.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct EntryView {
    /// Counts the log's entries.
    id: u64,
    /// When, in UTC.
    #[schema(format = DateTime)]
    time: String,
    /// Who: a token's name; `this machine` where there are no tokens; `this server` for what it did by itself; `a cardholder`.
    who: String,
    /// The role that let them.
    role: Option<String>,
    /// What they did.
    #[schema(example = "batch_begun")]
    action: String,
    /// With which batch.
    batch: Option<String>,
    /// With which job or card.
    job: Option<String>,
    /// How many rows that was about.
    rows: Option<u64>,
    /// SHA-256 of the file as it was uploaded, in hexadecimal.
    digest: Option<String>,
    /// What else there is to know.
    detail: Option<String>,
}

impl From<AuditEntry> for EntryView {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { id, time, who, role, action, batch, job, rows, digest, detail, .. } = entry;
        Self { id, time: time.in_utc(), who, role, action, batch, job, rows, digest, detail }
    }
}

/// Entries, the latest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct AuditView {
    /// The entries.
    entries: Vec<EntryView>,
    /// Give this as `after` for those before; null if these were the first of all.
    next: Option<String>,
}

fn query_of(server: &Server, filter: AuditFilter, order: Order) -> Result<AuditQuery, Problem> {
    let since = filter.since.as_deref().map(|since| {
        let wrong = "`since` is neither a day, as 2026-12-01, nor a time, as 2026-12-01T05:00Z";
        Time::from_words(since).ok_or_else(|| Problem::new(Kind::BadRequest, wrong))
    });
    // PostgreSQL's texts hold no NUL, so no entry is about such a batch.
    let text = |text: Option<String>| text.map(|text| text.replace('\0', "\u{fffd}"));
    let scope = server.scope();
    if filter.q.as_ref().is_some_and(|q| q.len() > SEARCHED_BYTES_MAX) {
        return Err(Problem::new(Kind::BadRequest, format!("`q` has at most {SEARCHED_BYTES_MAX} bytes")));
    }
    Ok(AuditQuery {
        scopes: vec![scope.clone(), scope.without_account()],
        batch: text(filter.batch),
        who: text(filter.who),
        with: text(filter.q).map(|q| q.trim().to_owned()).filter(|q| !q.is_empty()),
        since: since.transpose()?,
        after: None,
        order,
    })
}

/// List what was done over HTTP, by whom: the latest first, page by page.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit", params(AuditPage), security(("token" = ["audit"]), ("token" = ["operate"]), ("token" = ["approve"])),
    responses((status = 200, body = AuditView))
)]
pub(super) async fn list_audit(
    _: Audit,
    State(server): State<Server>,
    Query(page): Query<AuditPage>,
) -> Result<Json<AuditView>, Problem> {
    let AuditPage { batch, who, q, since, after, limit } = page;
    let mut query = query_of(&server, AuditFilter { batch, who, q, since }, Order::Newest)?;
    let after = after.map(|after| {
        let wrong = "`after` is not the `next` of an earlier answer";
        after.parse().map_err(|_| Problem::new(Kind::BadRequest, wrong))
    });
    query.after = after.transpose()?;
    let limit = limit.unwrap_or(ENTRIES_USUAL);
    if !(1..=ENTRIES_MAX).contains(&limit) {
        return Err(Problem::new(Kind::BadRequest, format!("`limit` is from 1 to {ENTRIES_MAX}")));
    }
    // One more than asked for tells whether there are more.
    let mut entries = server.parts.views.audit_entries(query, limit + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(AuditView { entries: entries.into_iter().map(EntryView::from).collect(), next }))
}

/// Download what was done over HTTP, by whom: in the order in which it was done.
#[utoipa::path(
    get, path = "/v1/audit.csv", tag = "audit", params(AuditFilter), security(("token" = ["audit"]), ("token" = ["operate"]), ("token" = ["approve"])),
    responses((status = 200, body = String, content_type = "text/csv; charset=utf-8"))
)]
pub(super) async fn download_audit(
    Audit(caller): Audit,
    State(server): State<Server>,
    Query(filter): Query<AuditFilter>,
) -> Result<Response, Problem> {
    let place = place(&server.parts.capacity.downloads, "as many downloads as are allowed are under way")?;
    let mut query = query_of(&server, filter, Order::Oldest)?;
    tracing::info!(by = caller.name(), "the audit log is downloaded");
    Ok(download::csv(&server, "audit.csv", place, async move |server, pages| {
        pages.send(results::audit_head()).await?;
        loop {
            let entries = server.parts.views.next_audit_entries(&mut query).await;
            let entries = entries.map_err(|error| error.to_string())?;
            if entries.is_empty() {
                return Ok(pages);
            }
            let mut lines = Vec::new();
            for entry in &entries {
                lines.extend(results::audit_line(entry));
            }
            pages.send(lines).await?;
        }
    }))
}
