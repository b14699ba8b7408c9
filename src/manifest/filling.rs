//! Cells as a columns file has them: words that stand for values, cells that are one together, and defaults where nothing stands.
//!
//! The record that comes out is as if the file had been written so. Its memory, which may hold a JWE, is wiped on drop.

use jiff::civil::Date;
use zeroize::Zeroizing;

use super::blocks::Flaw;
use super::columns::{Words, compared};
use super::dates::DateColumn;
use super::own_address::OwnAddress;
use super::records::{Record, trimmed};

/// What is done to each record.
#[derive(Debug, Default, Clone)]
pub(super) struct Filling {
    /// The file's own columns; those after them are defaults'.
    pub(super) own: usize,
    /// Of each column.
    columns: Vec<Filler>,
    /// The most bytes that it adds to a record.
    growth: usize,
    /// How many columns are joined of others.
    joined: usize,
    /// Whether and how physical cards are sent to their person's own address.
    pub(super) own_address: Option<OwnAddress>,
    /// The column of dates of birth, from which others are filled.
    pub(super) date: Option<DateColumn>,
}

/// What is done to a cell.
#[derive(Debug, Default, Clone)]
pub(super) struct Filler {
    /// What it holds if it would be empty.
    pub(super) default: Option<String>,
    /// What words in it stand for.
    pub(super) words: Option<Words>,
    /// Whether it is left out, whatever it holds: it is empty then.
    pub(super) leaves_out: bool,
    /// The places of the file's own cells that it holds, a blank between two.
    pub(super) joins: Vec<usize>,
    /// Which part of the row's date of birth it holds.
    pub(super) part_of_date: Option<PartOfDate>,
}

/// A number of a date's.
#[derive(Debug, Clone, Copy)]
pub(super) enum PartOfDate {
    Day,
    Month,
    Year,
}

/// A record's cells, filled; the memory is used again.
#[derive(Default)]
pub(super) struct Filled {
    cells: Zeroizing<Vec<u8>>,
    ends: Vec<usize>,
    /// Which of them are defaults.
    defaults: Vec<bool>,
    /// The cells once more, with copies of some.
    copied: Zeroizing<Vec<u8>>,
}

impl Filling {
    /// Of so many columns of the file's own, and what is done to each and to those after them.
    pub(super) fn new(own: usize, columns: Vec<Filler>) -> Self {
        let joins = || columns.iter().map(|filler| filler.joins.len());
        let growth = columns.iter().map(Filler::longest).sum::<usize>() + joins().sum::<usize>();
        let joined = joins().filter(|places| *places > 0).count();
        Self { own, columns, growth, joined, own_address: None, date: None }
    }

    /// Whether it changes nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.own_address.is_none() && self.columns.iter().all(Filler::is_idle)
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
        let bytes = record.iter().map(<[u8]>::len).sum::<usize>();
        // A cell may be part of each column that is joined.
        let room = bytes * (1 + filling.joined) + filling.growth;
        if self.cells.capacity() < room {
            self.cells = Zeroizing::new(Vec::with_capacity(room.next_power_of_two()));
        }
        self.cells.clear();
        self.ends.clear();
        self.defaults.clear();
        let mut born = None;
        let own = record.iter().take(filling.own).map(Some);
        for (cell, filler) in own.chain(std::iter::repeat(None)).zip(&filling.columns) {
            let begin = self.cells.len();
            if let (Some(part), Some(date)) = (filler.part_of_date, &filling.date) {
                born = if self.ends.len() == date.day { self.date(date) } else { born };
                self.cells.extend_from_slice(born.map(|born| part.of(born)).unwrap_or_default().as_bytes());
                self.ends.push(self.cells.len());
                self.defaults.push(false);
                continue;
            }
            let cell = if filler.joins.is_empty() {
                cell.unwrap_or_default()
            } else {
                self.join(&filler.joins, &record);
                &[]
            };
            let is_joined = self.cells.len() > begin;
            let (text, is_default) = match filler.instead_of(&self.cells[begin..]).filter(|_| is_joined) {
                Some(word) => {
                    self.cells.truncate(begin);
                    (word.as_bytes(), false)
                }
                None if is_joined => (&[][..], false),
                None => filler.fill(cell),
            };
            self.cells.extend_from_slice(text);
            self.ends.push(self.cells.len());
            self.defaults.push(is_default);
        }
        let is_to_own = filling.own_address.as_ref().is_some_and(|own| self.send_to_own(own));
        let filled = Record::new(record.line, &self.cells, &self.ends).with_defaults(&self.defaults);
        if is_to_own { filled.to_own_address() } else { filled }
    }
}

impl Filled {
    /// Copies a person's name and address to where the card is sent, if it is to be sent there; answers whether it is.
    fn send_to_own(&mut self, own: &OwnAddress) -> bool {
        let cell = |at: usize| {
            let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            let cell = &self.cells[begin..self.ends[at]];
            text_of(cell).map_or(cell, str::as_bytes)
        };
        if !own.is_meant(cell) {
            return false;
        }
        // Each cell is copied once at most, and never beyond the capacity: a vector that grows leaves an unwiped copy behind.
        let room = self.cells.len() * 2;
        if self.copied.capacity() < room {
            self.copied = Zeroizing::new(Vec::with_capacity(room.next_power_of_two()));
        }
        self.copied.clear();
        let mut ends = Vec::with_capacity(self.ends.len());
        for at in 0..self.ends.len() {
            self.copied.extend_from_slice(cell(own.copied_to(at).unwrap_or(at)));
            ends.push(self.copied.len());
        }
        self.ends = ends;
        std::mem::swap(&mut self.cells, &mut self.copied);
        true
    }

    /// The date that stands in its column, which is filled already.
    fn date(&self, column: &DateColumn) -> Option<Date> {
        column.date_of(text_of(self.cell(column.at))?).ok()
    }

    /// A cell that is filled.
    fn cell(&self, at: usize) -> &[u8] {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.cells[begin..self.ends[at]]
    }

    /// Adds a record's cells at these places as one, a blank between two that hold something.
    fn join(&mut self, places: &[usize], record: &Record<'_>) {
        let begin = self.cells.len();
        for at in places {
            let cell = record.iter().nth(*at).unwrap_or_default();
            // What is no text is told of the column.
            let cell = text_of(cell).map_or(cell, str::as_bytes);
            if !cell.is_empty() && self.cells.len() > begin {
                self.cells.push(b' ');
            }
            self.cells.extend_from_slice(cell);
        }
    }
}

impl PartOfDate {
    fn of(self, date: Date) -> String {
        match self {
            Self::Day => date.day().to_string(),
            Self::Month => date.month().to_string(),
            Self::Year => date.year().to_string(),
        }
    }
}

impl Filler {
    fn is_idle(&self) -> bool {
        self.default.is_none()
            && self.words.is_none()
            && !self.leaves_out
            && self.joins.is_empty()
            && self.part_of_date.is_none()
    }

    /// What a word stands for; none if that is what it says.
    fn instead_of(&self, cell: &[u8]) -> Option<&str> {
        self.words.as_ref()?.get(&compared(text_of(cell)?)).map(String::as_str)
    }

    /// Bytes of the longest text that it puts into a cell.
    fn longest(&self) -> usize {
        /// A year's digits, with its sign.
        const PART_BYTES_MAX: usize = 5;
        if self.part_of_date.is_some() {
            return PART_BYTES_MAX;
        }
        let words = self.words.iter().flat_map(|words| words.values());
        words.chain(&self.default).map(String::len).max().unwrap_or(0)
    }

    /// What a cell holds then, and whether that is the default.
    fn fill<'c>(&'c self, cell: &'c [u8]) -> (&'c [u8], bool) {
        if self.leaves_out {
            return (&[], false);
        }
        if self.is_idle() {
            return (cell, false);
        }
        let Some(text) = text_of(cell) else { return (cell, false) };
        let meant = self.words.as_ref().and_then(|words| words.get(&compared(text)));
        let text = meant.map_or(text, String::as_str);
        match &self.default {
            Some(default) if text.is_empty() => (default.as_bytes(), !default.is_empty()),
            _ => (text.as_bytes(), false),
        }
    }
}

/// A cell's text, if it is one.
fn text_of(cell: &[u8]) -> Option<&str> {
    std::str::from_utf8(cell).ok().map(trimmed)
}
