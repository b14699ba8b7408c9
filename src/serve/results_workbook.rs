//! A batch's results as a spreadsheet.
//!
//! A spreadsheet is whole before its first byte can be sent, so that it is bounded in rows, and so are those that are made or sent
//! at once: a CSV has neither bound. Never: a file on disk.

use axum::http::HeaderValue;
use axum::response::Response;
use rust_xlsxwriter::XlsxError;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, spawn_blocking};

use super::Server;
use super::download::{self, Pages};
use super::problem::{Kind, Problem};
use super::results::Ends;
use crate::job;
use crate::ledger::Only;
use crate::manifest::cancelled::cancelled;
use crate::results::{Line, ResultsWorkbook};

/// Most rows of a spreadsheet.
const ROWS_MAX: u64 = 50_000;
/// Sent at once: a client that takes no more for a while is given up, and a slow one is not.
const PIECE_BYTES: usize = 64 << 10;
const XLSX: HeaderValue =
    HeaderValue::from_static("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet");

/// All rows as a spreadsheet, with a sheet that sums the batch up; `place` is given back once it was sent.
pub(super) async fn xlsx(
    server: &Server,
    batch: &job::Batch,
    outcome: Option<Ends>,
    place: OwnedSemaphorePermit,
) -> Result<Response, Problem> {
    let counts = server.parts.views.counts_of(server.scope(), batch).await?;
    let mut workbook = ResultsWorkbook::begin().map_err(unmade)?;
    let mut rows = 0;
    let only = Only { kind: outcome.map(Into::into), ..Only::default() };
    let mut pages = server.parts.views.pages(server.scope(), batch, only);
    while let Some(page) = pages.next().await? {
        rows += page.len() as u64;
        if rows > ROWS_MAX {
            return Err(too_many());
        }
        let shipping = server.parts.views.shipping_of_rows(server.scope(), &page).await?;
        let cancelled = cancelled(&server.parts.views, server.scope(), &page).await?;
        let adding = spawn_blocking(move || -> Result<_, XlsxError> {
            for row in &page {
                let ended = row.ended();
                workbook
                    .add(&Line::of_row(row, &ended).with_shipping(&shipping).with_cancelled(&cancelled))?;
            }
            Ok(workbook)
        });
        workbook = adding.await.map_err(broken)?.map_err(unmade)?;
    }
    let (name, scope) = (batch.to_string(), server.scope().as_str().to_owned());
    let finishing = spawn_blocking(move || workbook.finish(&name, &scope, counts.as_ref()));
    let bytes = finishing.await.map_err(broken)?.map_err(unmade)?;
    let name = format!("{batch}.{}.xlsx", Ends::file_word(outcome));
    Ok(download::file(server, (&name, XLSX), place, move |_, pages| send(bytes, pages)))
}

async fn send(bytes: Vec<u8>, pages: Pages) -> Result<Pages, String> {
    for piece in bytes.chunks(PIECE_BYTES) {
        pages.send(piece.to_vec()).await?;
    }
    Ok(pages)
}

fn too_many() -> Problem {
    let reason = format!(
        "a spreadsheet of results has at most {ROWS_MAX} rows: download them as CSV, which Excel opens as well, or only those \
         that ended in one way (`outcome`)"
    );
    Problem::new(Kind::TooManyRows, reason)
}

fn unmade(error: XlsxError) -> Problem {
    Problem::new(Kind::Internal, format!("the spreadsheet could not be made: {error}"))
}

fn broken(_: JoinError) -> Problem {
    Problem::new(Kind::Internal, "the spreadsheet could not be made")
}
