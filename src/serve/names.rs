//! Whose the rows of a batch are, out of the file that they came from, and what became of them: told to the page, and kept nowhere.
//!
//! So people are found of whom the batch knows nothing, since their rows were left out of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::Server;
use super::audit::Action;
use super::held::Held;
use super::problem::{Kind, Problem};
use super::results::{OutcomeWord, RowView};
use crate::job::Batch;
use crate::ledger::{AuditQuery, Only, Order};
use crate::manifest::file_names::{NamedRow, named_rows};

/// Most names of one answer: they are held in memory, outside what is set aside for uploads.
const ROWS_MAX: usize = 100_000;

/// Whose a row is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct NamedRowView {
    /// The data row, from 1.
    row: u64,
    /// The line of the file on which it begins, from 1: as a check and a spreadsheet count.
    line: u64,
    /// Its `row_id`, where the file has them.
    row_id: Option<String>,
    /// Whose it is.
    person: String,
    #[serde(flatten)]
    end: EndOfRow,
}

/// What became of a row.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
struct EndOfRow {
    /// How it ended; null if the batch knows nothing of it: it has not begun, was left out, came into the file later, or has its card
    /// from another batch.
    outcome: Option<OutcomeWord>,
    /// Why it has no effect: a code to switch on.
    code: Option<String>,
    /// The same in a sentence.
    message: Option<String>,
}

/// What became of a file's rows, in their order, as far as the batch knows; and whether it knows any of them.
async fn ends_of(
    server: &Server,
    batch: &Batch,
    rows: &[NamedRow],
    is_the_file: bool,
) -> Result<(Vec<EndOfRow>, bool), Problem> {
    // In the very file a row's number tells which it is, under whatever name the batch has it.
    let (mut named, mut numbered) = (HashMap::new(), HashMap::new());
    for (at, row) in rows.iter().enumerate() {
        match &row.row_id {
            _ if is_the_file => drop(numbered.insert(row.number, at)),
            Some(name) => drop(named.insert(name.as_str(), at)),
            None => {}
        }
    }
    let (mut ends, mut is_known) = (vec![EndOfRow::default(); rows.len()], false);
    let mut pages = server.parts.views.pages(server.scope(), batch, Only::default());
    while let Some(known) = pages.next().await? {
        for row in &known {
            let RowView { row, row_id, outcome, end, .. } = RowView::of_row(row);
            let by_name = row_id.as_deref().and_then(|name| named.get(name));
            let Some(at) = row.and_then(|number| numbered.get(&number)).or(by_name) else { continue };
            ends[*at] = EndOfRow { outcome: Some(outcome), code: end.code, message: end.message };
            is_known = true;
        }
    }
    Ok((ends, is_known))
}

/// The names of a file's rows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct NamesView {
    /// The rows that have one, in the file's order; without those whose `row_id` stands in the file more than once.
    names: Vec<NamedRowView>,
    /// Such a `row_id`: of its rows it is not known whose the batch's is.
    ambiguous: Vec<String>,
    /// Whether it is, letter for letter, the file that was uploaded here as the batch, the only one, and nothing is known of the batch
    /// from before that upload: then a row's number tells whose it is, and what became of it, where it has no `row_id`. In any other
    /// file somebody else may stand there. (What commands issued under the batch's name after the upload is not noticed.)
    is_the_file: bool,
    /// Whether what became of its rows is told at all: the batch knows some of them, or it is the file.
    is_known: bool,
}

/// The names that stand in the upload; its rows are wiped.
pub(super) async fn of(
    server: &Server,
    batch: &Batch,
    (held, file): (Held, String),
) -> Result<NamesView, Problem> {
    let is_the_file = is_the_file(server, batch, &file).await?;
    let reading = held.reading.clone();
    let read = tokio::task::spawn_blocking(move || named_rows(held.into_reader(), &reading, ROWS_MAX));
    match read.await {
        Ok(Ok(mut rows)) => {
            let ambiguous = more_than_once(&rows);
            rows.retain(|row| row.row_id.as_ref().is_none_or(|id| !ambiguous.contains(id)));
            let (ends, is_known) = ends_of(server, batch, &rows, is_the_file).await?;
            let view = |(row, end): (NamedRow, EndOfRow)| NamedRowView {
                row: row.number,
                line: row.line,
                row_id: row.row_id,
                person: row.person,
                end,
            };
            let names = rows.into_iter().zip(ends).map(view).collect();
            let ambiguous = ambiguous.into_iter().collect();
            Ok(NamesView { names, ambiguous, is_the_file, is_known: is_known || is_the_file })
        }
        Ok(Err(error)) => {
            let error = error.to_string();
            Err(Problem::new(Kind::InvalidManifest, error.strip_prefix("upload: ").unwrap_or(&error)))
        }
        Err(_) => Err(Problem::new(Kind::Internal, "the names could not be read")),
    }
}

/// Which `row_id` more than one of these rows has.
fn more_than_once(rows: &[NamedRow]) -> BTreeSet<String> {
    let mut once = HashSet::new();
    rows.iter().filter_map(|row| row.row_id.as_ref()).filter(|id| !once.insert(*id)).cloned().collect()
}

/// Whether everything that was uploaded as the batch was the file of this SHA-256, and the batch began with that. Commands and jobs of a
/// queue have no entry in the audit log, so a batch that is older than its first entry began with one of them, from a file that nobody
/// knows.
async fn is_the_file(server: &Server, batch: &Batch, file: &str) -> Result<bool, Problem> {
    let begins = [Action::BatchBegun, Action::BatchApproved].map(Action::word);
    let mut query = AuditQuery {
        scopes: vec![server.scope().clone(), server.scope().without_account()],
        batch: Some(batch.to_string()),
        order: Order::Oldest,
        ..AuditQuery::default()
    };
    let counts = server.parts.views.counts_of(server.scope(), batch).await?;
    let Some(began) = counts.and_then(|counts| counts.began) else { return Ok(false) };
    let mut is_known = false;
    loop {
        let entries = server.parts.views.next_audit_entries(&mut query).await?;
        if entries.is_empty() {
            return Ok(is_known);
        }
        for entry in entries.iter().filter(|entry| begins.contains(&entry.action.as_str())) {
            let is_first = !is_known;
            if entry.digest.as_deref() != Some(file) || (is_first && began < entry.time) {
                return Ok(false);
            }
            is_known = true;
        }
    }
}
