//! A small upload as a table, for the page on which it is looked at and mended.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use super::held::Held;
use crate::manifest::table::{Heading, Table, TableRow};
use crate::manifest::{CheckReport, Problem};

/// Most rows of a table.
pub(super) const TABLE_ROWS_MAX: usize = 500;
/// Largest upload of which one is made, in bytes of its text: who has more rows mends them in the file.
pub(super) const TABLE_BYTES_MAX: usize = 4 << 20;

/// A heading of an upload.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct HeadingView {
    /// As the file spells it.
    heading: String,
    /// The column that it is: by its name, or by the columns file; null if it is left out, or is no column.
    column: Option<String>,
    /// Whether the columns file leaves it out.
    left_out: bool,
    /// The column that it may be.
    proposal: Option<String>,
    /// Whether that is a guess by its letters alone.
    guess: bool,
    /// Whether cells under it may hold PINs: they are null.
    holds_pins: bool,
}

/// A column that may be filled from several headings, a blank between two.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct JoinedView {
    /// Its name.
    column: String,
    /// The headings, as the file spells them, in the order in which they are read.
    headings: Vec<String>,
}

/// A row of an upload as it is written.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TableRowView {
    /// The file's line, from 1.
    line: u64,
    /// Its cells; null for one that is not shown.
    cells: Vec<Option<String>>,
}

/// Some of a small upload, as it is written, with what was mended in it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct TableView {
    /// Its headings, in order.
    headings: Vec<HeadingView>,
    /// Columns that some of them may fill together, as `[joined]` of a columns file has it.
    joined: Vec<JoinedView>,
    /// The rows of which something is told, and others from the top, as many as were asked for.
    rows: Vec<TableRowView>,
}

impl From<Table> for TableView {
    fn from(table: Table) -> Self {
        let heading = |heading: Heading| {
            let Heading { heading, column, is_left_out, proposal, is_guess, holds_pins } = heading;
            HeadingView { heading, column, left_out: is_left_out, proposal, guess: is_guess, holds_pins }
        };
        let row = |TableRow { line, cells }: TableRow| TableRowView { line, cells };
        let joined = |(column, places): (String, Vec<usize>)| {
            let heading = |at: usize| table.headings.get(at).map(|heading| heading.heading.clone());
            JoinedView { column, headings: places.into_iter().filter_map(heading).collect() }
        };
        Self {
            joined: table.joined.into_iter().map(joined).collect(),
            headings: table.headings.into_iter().map(heading).collect(),
            rows: table.rows.into_iter().map(row).collect(),
        }
    }
}

/// The table of a checked upload: first of all the rows of which the report tells something. None if it is no table, or cannot be
/// read: what is wrong with it is told by the report.
pub(super) fn table_of(held: Held, report: &CheckReport, rows_max: usize) -> Option<TableView> {
    let reading = held.reading.clone();
    let with_problems = report.problems.iter().chain(&report.warnings).map(|Problem { line, .. }| *line);
    let mut lines = BTreeSet::new();
    for line in with_problems {
        if lines.len() == rows_max {
            break;
        }
        lines.insert(line);
    }
    Table::read(held.into_reader(), &reading, &lines, rows_max).ok().map(TableView::from)
}
