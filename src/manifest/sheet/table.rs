//! A sheet's rows as CSV, written as they are whole.

use std::io::{self, Write};

use super::super::records::trimmed;
use super::cells::place;
use super::choice::{AreHeadings, ROWS_LOOKED_AT};
use super::hidden::Hidden;
use super::{COLUMNS_MAX, DELIMITER, ROWS_MAX, beyond};

/// Rows of cells, written as they are whole.
pub(super) struct Table<'a, W: Write> {
    out: csv::Writer<W>,
    /// The row whose cells are being added.
    row: u32,
    cells: Vec<String>,
    /// No row with something in it is written with fewer cells: as many as the headings, or as the longest of the first rows.
    width: usize,
    /// Rows that may be the headings or stand above them; none are once the headings were met.
    first_left: usize,
    are_headings: AreHeadings<'a>,
    hidden: &'a Hidden,
    /// The lines of rows with something in them that are not shown.
    hidden_lines: Vec<u64>,
}

/// What was written.
pub(super) struct Written {
    /// How many rows there are.
    pub(super) rows: u32,
    /// How many columns the headings have.
    pub(super) columns: usize,
    /// The lines of rows with something in them that are not shown.
    pub(super) hidden_lines: Vec<u64>,
}

impl<'a, W: Write> Table<'a, W> {
    pub(super) fn new(out: W, are_headings: AreHeadings<'a>, hidden: &'a Hidden) -> Self {
        let out = csv::WriterBuilder::new().delimiter(DELIMITER).flexible(true).from_writer(out);
        let (cells, hidden_lines) = Default::default();
        Self { out, row: 0, cells, width: 0, first_left: ROWS_LOOKED_AT, are_headings, hidden, hidden_lines }
    }

    /// Adds a cell; one with nothing but blanks is none.
    pub(super) fn add(&mut self, (row, column): (u32, u32), text: String) -> io::Result<()> {
        if trimmed(&text).is_empty() {
            return Ok(());
        }
        // All before it would be held: rows and columns that no program makes are those of a file that is damaged, or means harm.
        if row >= ROWS_MAX[1] || column >= COLUMNS_MAX {
            return Err(io::Error::other(beyond(&place((row, column)))));
        }
        if row < self.row {
            return Err(io::Error::other("the sheet's rows are in no order; save it again"));
        }
        while self.row < row {
            self.end_row()?;
        }
        let column = column as usize;
        if column >= self.cells.len() {
            self.cells.resize(column + 1, String::new());
        }
        // A line's end inside a cell is the writer's way of wrapping it. Without it each row is one line.
        self.cells[column] = if text.contains(['\r', '\n']) {
            text.replace("\r\n", " ").replace(['\r', '\n'], " ")
        } else {
            text
        };
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.row += 1;
        if self.cells.is_empty() {
            // A record of no cell is none.
            return self.out.write_record(["", ""]).map_err(Into::into);
        }
        if self.hidden.has_row(self.row - 1) {
            self.hidden_lines.push(self.row.into());
        }
        if self.first_left > 0 {
            let are_headings = (self.are_headings)(&self.cells);
            self.first_left = if are_headings { 0 } else { self.first_left - 1 };
            // What stands beside the table further down makes no row longer.
            self.width = if are_headings { self.cells.len() } else { self.width.max(self.cells.len()) };
        }
        self.cells.resize(self.width.max(self.cells.len()), String::new());
        self.out.write_record(&self.cells)?;
        self.cells.clear();
        Ok(())
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> io::Result<Written> {
        if !self.cells.is_empty() {
            self.end_row()?;
        }
        self.out.flush()?;
        Ok(Written { rows: self.row, columns: self.width, hidden_lines: self.hidden_lines })
    }
}
