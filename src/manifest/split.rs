//! A block's records as cells: those without quotes where they stand, the others unescaped.
//!
//! Quotes and carriage returns are counted where they stand as they should, so that the check by blocks can prove that all do.

use memchr::memchr_iter;

/// A row's cells as ranges of the block's bytes, or of those that were unescaped.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) cells: Vec<Cell>,
    unescaped: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    start: usize,
    end: usize,
    unescaped: bool,
}

impl Scratch {
    #[inline]
    pub(super) fn cell<'b>(&'b self, bytes: &'b [u8], at: usize) -> &'b [u8] {
        let Cell { start, end, unescaped } = self.cells[at];
        if unescaped { &self.unescaped[start..end] } else { &bytes[start..end] }
    }
}

/// A record without quotes, as the delimiters behind its cells.
pub(super) struct PlainRecord<'b> {
    start: usize,
    delimiters: &'b [u32],
    /// Where its last cell ends: before the line feed, or the carriage return before that.
    end: usize,
}

impl PlainRecord<'_> {
    #[inline]
    pub(super) fn cell<'b>(&self, bytes: &'b [u8], at: usize) -> &'b [u8] {
        let start = if at == 0 { self.start } else { self.delimiters[at - 1] as usize + 1 };
        let end = if at + 1 == self.delimiters.len() { self.end } else { self.delimiters[at] as usize };
        &bytes[start..end]
    }
}

/// Goes through a block, cell by cell.
pub(super) struct Split<'b> {
    pub(super) bytes: &'b [u8],
    /// Places of the commas, quotes and line feeds that are not passed yet.
    pub(super) delimiters: &'b [u32],
    pub(super) has_returns: bool,
    pub(super) at: usize,
    /// Quotes that stood where they should.
    pub(super) quotes: usize,
    /// Carriage returns that did.
    pub(super) returns: usize,
    /// Ends of lines that were passed.
    pub(super) lines: u64,
}

impl<'b> Split<'b> {
    /// The next mark's place and the mark.
    #[inline]
    fn next_mark(&mut self) -> Option<(usize, u8)> {
        let (place, rest) = self.delimiters.split_first()?;
        self.delimiters = rest;
        let place = *place as usize;
        Some((place, self.bytes[place]))
    }

    /// Moves to a record; false at the block's end.
    #[inline]
    pub(super) fn skip_blank_lines(&mut self) -> bool {
        loop {
            match self.bytes.get(self.at) {
                None => return false,
                Some(b'\n') => {
                    self.next_mark();
                    self.lines += 1;
                }
                Some(b'\r') if self.bytes.get(self.at + 1) == Some(&b'\n') => self.returns += 1,
                Some(_) => return true,
            }
            self.at += 1;
        }
    }

    /// The record that begins here, if it has this many cells, none with quotes, and a line's end; it is not passed yet.
    #[inline]
    pub(super) fn plain_record(&self, cells: usize) -> Option<PlainRecord<'b>> {
        let delimiters = self.delimiters.get(..cells)?;
        let (last, others) = delimiters.split_last()?;
        let is = |place: u32, mark: u8| self.bytes[place as usize] == mark;
        if !is(*last, b'\n') || !others.iter().all(|place| is(*place, b',')) {
            return None;
        }
        let last = *last as usize;
        let end = if last > self.at && self.bytes[last - 1] == b'\r' { last - 1 } else { last };
        Some(PlainRecord { start: self.at, delimiters, end })
    }

    /// Passes such a record.
    #[inline]
    pub(super) fn pass(&mut self, record: &PlainRecord<'_>) {
        let (passed, rest) = self.delimiters.split_at(record.delimiters.len());
        self.at = passed.last().map_or(self.at, |last| *last as usize + 1);
        self.returns += self.at - 1 - record.end;
        self.delimiters = rest;
        self.lines += 1;
    }

    /// Splits one record; nothing if it is malformed.
    #[inline]
    pub(super) fn record(&mut self, scratch: &mut Scratch) -> Option<()> {
        scratch.cells.clear();
        scratch.unescaped.clear();
        loop {
            let more = if self.bytes.get(self.at) == Some(&b'"') {
                self.quoted(scratch)?
            } else {
                self.plain(scratch)
            };
            if !more {
                self.lines += 1;
                return Some(());
            }
        }
    }

    /// A cell without quotes; true if another follows. A quote that it has all the same is missed in the count.
    #[inline]
    fn plain(&mut self, scratch: &mut Scratch) -> bool {
        let start = self.at;
        let (end, more) = loop {
            match self.next_mark() {
                Some((place, b',')) => break (place, true),
                Some((place, b'\n')) => break (place, false),
                Some(_) => {}
                None => {
                    self.at = self.bytes.len();
                    scratch.cells.push(Cell { start, end: self.at, unescaped: false });
                    return false;
                }
            }
        };
        self.at = end + 1;
        let mut cell_end = end;
        if !more && end > start && self.bytes[end - 1] == b'\r' {
            cell_end -= 1;
            self.returns += 1;
        }
        scratch.cells.push(Cell { start, end: cell_end, unescaped: false });
        more
    }

    /// A cell in quotes; true if another follows.
    fn quoted(&mut self, scratch: &mut Scratch) -> Option<bool> {
        let (open, _) = self.next_mark()?;
        let unescaped_start = scratch.unescaped.len();
        let (mut from, mut doubled) = (open + 1, false);
        let close = loop {
            match self.next_mark()? {
                (place, b'"') if self.bytes.get(place + 1) == Some(&b'"') => {
                    // One of the two belongs to the text.
                    scratch.unescaped.extend_from_slice(&self.bytes[from..=place]);
                    (from, doubled) = (place + 2, true);
                    self.quotes += 2;
                    self.next_mark();
                }
                (place, b'"') => break place,
                (_, b'\n') => self.lines += 1,
                _ => {}
            }
        };
        self.quotes += 2;
        let cell = if doubled {
            scratch.unescaped.extend_from_slice(&self.bytes[from..close]);
            Cell { start: unescaped_start, end: scratch.unescaped.len(), unescaped: true }
        } else {
            Cell { start: open + 1, end: close, unescaped: false }
        };
        scratch.cells.push(cell);
        if self.has_returns {
            for at in memchr_iter(b'\r', &self.bytes[open..close]) {
                self.returns += 1;
                // One that ends a line by itself; `close` is a byte, so there is one after each.
                self.lines += u64::from(self.bytes[open + at + 1] != b'\n');
            }
        }
        let (after, more) = match &self.bytes[close + 1..] {
            [] => (0, false),
            [b',', ..] => (1, true),
            [b'\n', ..] => (1, false),
            [b'\r', b'\n', ..] => {
                self.returns += 1;
                (2, false)
            }
            // The cell goes on after its quotes: only a reader of records knows how.
            _ => return None,
        };
        if after > 0 {
            self.next_mark();
        }
        self.at = close + 1 + after;
        Some(more)
    }
}
