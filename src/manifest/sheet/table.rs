//! A sheet's rows as CSV, written as they are whole.

use std::io::{self, Write};

use super::DELIMITER;

/// Rows of cells, written as they are whole.
pub(super) struct Table<W: Write> {
    out: csv::Writer<W>,
    /// The row whose cells are being added.
    row: u32,
    cells: Vec<String>,
    /// Most cells of a row so far: no row is written with fewer. A title has one, and the headings come after it.
    width: usize,
}

impl<W: Write> Table<W> {
    pub(super) fn new(out: W) -> Self {
        let out = csv::WriterBuilder::new().delimiter(DELIMITER).flexible(true).from_writer(out);
        Self { out, row: 0, cells: Vec::new(), width: 0 }
    }

    pub(super) fn add(&mut self, (row, column): (u32, u32), text: String) -> io::Result<()> {
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
        self.width = self.width.max(self.cells.len());
        // A record of no cell is none.
        self.cells.resize(self.width.max(1), String::new());
        self.out.write_record(&self.cells)?;
        self.cells.clear();
        self.row += 1;
        Ok(())
    }

    /// Writes the rest; answers how many rows there are.
    pub(super) fn finish(mut self) -> io::Result<u32> {
        if !self.cells.is_empty() {
            self.end_row()?;
        }
        self.out.flush().map(|()| self.row)
    }
}
