//! Cells as a columns file has them: words that stand for values, and defaults where nothing stands.
//!
//! The record that comes out is as if the file had been written so. Its memory, which may hold a JWE, is wiped on drop.

use zeroize::Zeroizing;

use super::blocks::Flaw;
use super::columns::{Words, compared};
use super::records::{Record, trimmed};

/// What is done to each record.
#[derive(Debug, Default)]
pub(super) struct Filling {
    /// The file's own columns; those after them are defaults'.
    pub(super) own: usize,
    /// Of each column.
    pub(super) columns: Vec<Filler>,
}

/// What is done to a cell.
#[derive(Debug, Default, Clone)]
pub(super) struct Filler {
    /// What it holds if it would be empty.
    pub(super) default: Option<String>,
    /// What words in it stand for.
    pub(super) words: Option<Words>,
}

/// A record's cells, filled; the memory is used again.
#[derive(Default)]
pub(super) struct Filled {
    cells: Zeroizing<Vec<u8>>,
    ends: Vec<usize>,
}

impl Filling {
    /// Whether it changes nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.columns.iter().all(|filler| filler.default.is_none() && filler.words.is_none())
    }

    /// The most bytes that it adds to a record.
    fn growth(&self) -> usize {
        let longest = |filler: &Filler| {
            let words = filler.words.iter().flat_map(|words| words.values());
            words.chain(&filler.default).map(String::len).max().unwrap_or(0)
        };
        self.columns.iter().map(longest).sum()
    }
}

impl Filled {
    /// The record with its cells filled. One that has other cells than the file has columns is flawed: nothing can be said of them.
    pub(super) fn fill<'f>(&'f mut self, filling: &Filling, record: Record<'_>) -> Record<'f> {
        if let Some(flaw) = record.flaw {
            return Record::flawed(record.line, flaw);
        }
        let is_blank = |cell: &[u8]| text_of(cell).is_some_and(str::is_empty);
        if record.len() < filling.own || !record.iter().skip(filling.own).all(is_blank) {
            return Record::flawed(record.line, Flaw::CellCount(record.len()));
        }
        let room = record.iter().map(<[u8]>::len).sum::<usize>() + filling.growth();
        if self.cells.capacity() < room {
            self.cells = Zeroizing::new(Vec::with_capacity(room.next_power_of_two()));
        }
        self.cells.clear();
        self.ends.clear();
        let own = record.iter().take(filling.own).map(Some);
        for (cell, filler) in own.chain(std::iter::repeat(None)).zip(&filling.columns) {
            self.cells.extend_from_slice(filler.fill(cell.unwrap_or_default()));
            self.ends.push(self.cells.len());
        }
        Record::new(record.line, &self.cells, &self.ends)
    }
}

impl Filler {
    fn fill<'c>(&'c self, cell: &'c [u8]) -> &'c [u8] {
        if self.default.is_none() && self.words.is_none() {
            return cell;
        }
        let Some(text) = text_of(cell) else { return cell };
        let meant = self.words.as_ref().and_then(|words| words.get(&compared(text)));
        let text = meant.map_or(text, String::as_str);
        match &self.default {
            Some(default) if text.is_empty() => default.as_bytes(),
            _ => text.as_bytes(),
        }
    }
}

/// A cell's text, if it is one.
fn text_of(cell: &[u8]) -> Option<&str> {
    std::str::from_utf8(cell).ok().map(trimmed)
}
