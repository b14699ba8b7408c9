//! Whose the rows of a batch are, out of the file that they came from, and what became of them: told to the page, and kept nowhere.
//!
//! So people are found of whom the batch knows nothing, since their rows were left out of it.

use std::collections::HashMap;

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

/// Whose a row is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct NamedRowView {
    /// The data row, from 1.
    row: u64,
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
    /// How it ended; null if the batch knows nothing of it: it has not begun, was left out, or came into the file later.
    outcome: Option<OutcomeWord>,
    /// Why it has no effect: a code to switch on.
    code: Option<String>,
    /// The same in a sentence.
    message: Option<String>,
}

/// What became of a batch's rows, by their names and, for those without, by their numbers.
#[derive(Default)]
struct Ends {
    named: HashMap<String, EndOfRow>,
    numbered: HashMap<u64, EndOfRow>,
}

impl Ends {
    async fn of(server: &Server, batch: &Batch) -> Result<Self, Problem> {
        let mut ends = Self::default();
        let mut pages = server.parts.views.pages(server.scope(), batch, Only::default());
        while let Some(rows) = pages.next().await? {
            for row in &rows {
                let RowView { row, row_id, outcome, end, .. } = RowView::of_row(row);
                let end = EndOfRow { outcome: Some(outcome), code: end.code, message: end.message };
                match (row_id, row) {
                    (Some(name), _) => ends.named.insert(name, end),
                    (None, Some(number)) => ends.numbered.insert(number, end),
                    (None, None) => None,
                };
            }
        }
        Ok(ends)
    }

    /// That of a file's row. Numbers tell something in the very file alone.
    fn take(&mut self, row: &NamedRow, is_the_file: bool) -> EndOfRow {
        let end = match &row.row_id {
            Some(name) => self.named.remove(name),
            None if is_the_file => self.numbered.remove(&row.number),
            None => None,
        };
        end.unwrap_or_default()
    }
}

/// The names of a file's rows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct NamesView {
    /// The rows that have one, in the file's order.
    names: Vec<NamedRowView>,
    /// Whether it is, letter for letter, the file that was uploaded here as the batch, the only one, and nothing is known of the batch
    /// from before that upload: then a row's number tells whose it is, and what became of it, where it has no `row_id`. In any other
    /// file somebody else may stand there. (What commands issued under the batch's name after the upload is not noticed.)
    is_the_file: bool,
}

/// The names that stand in the upload; its rows are wiped.
pub(super) async fn of(
    server: &Server,
    batch: &Batch,
    (held, file): (Held, String),
) -> Result<NamesView, Problem> {
    let is_the_file = is_the_file(server, batch, &file).await?;
    let reading = held.reading.clone();
    let read = tokio::task::spawn_blocking(move || named_rows(held.into_reader(), &reading));
    match read.await {
        Ok(Ok(rows)) => {
            let mut ends = Ends::of(server, batch).await?;
            let view = |row: NamedRow| {
                let end = ends.take(&row, is_the_file);
                NamedRowView { row: row.number, row_id: row.row_id, person: row.person, end }
            };
            Ok(NamesView { names: rows.into_iter().map(view).collect(), is_the_file })
        }
        Ok(Err(error)) => {
            let error = error.to_string();
            Err(Problem::new(Kind::InvalidManifest, error.strip_prefix("upload: ").unwrap_or(&error)))
        }
        Err(_) => Err(Problem::new(Kind::Internal, "the names could not be read")),
    }
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
