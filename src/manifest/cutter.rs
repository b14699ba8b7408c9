//! Bytes cut into records and these into cells, as they are written.
//!
//! Not by `csv::Reader`: its buffers grow with a record and are not wiped, and it tells neither the line that a record begins on
//! nor that quotes are astray. A record without a quote is cut at its delimiters where it stands; one with quotes goes from
//! cell to cell, by whole stretches and not by bytes.

use memchr::{memchr, memchr3};
use zeroize::Zeroizing;

use super::blocks::{Flaw, RECORD_BYTES_MAX, blank_lines, line_ends};
use super::quotes::{self, Quotes};
use super::records::Record;

/// Most cells of a record; a header has fewer.
pub(super) const CELLS_MAX: usize = 1 << 16;

/// Cuts bytes into records and these into cells, as they are written.
pub(super) struct Cutter {
    delimiter: u8,
    /// How many columns the file has; 0 before that is known.
    pub(super) columns: usize,
    /// The cells of a record with quotes, without these.
    cells: Zeroizing<Vec<u8>>,
    ends: Vec<usize>,
}

impl Cutter {
    /// For cells that are separated so.
    pub(super) fn new(delimiter: u8) -> Self {
        Self { delimiter, columns: 0, cells: Zeroizing::new(Vec::new()), ends: Vec::new() }
    }

    /// The next record of these bytes, the first of which stands on this line; none if there is no more.
    pub(super) fn next<'r, 'b: 'r>(&'r mut self, bytes: &mut &'b [u8], line: &mut u64) -> Option<Record<'r>> {
        // Blank lines are skipped here, so that a record's line is its own.
        let blank = blank_lines(bytes);
        *line += line_ends(bytes, blank);
        *bytes = &bytes[blank..];
        if bytes.is_empty() {
            return None;
        }
        let end = memchr3(b'"', b'\r', b'\n', bytes).unwrap_or(bytes.len());
        if bytes.get(end) == Some(&b'"') {
            return Some(self.parse(bytes, line));
        }
        // The line's end is skipped with the blank lines after it.
        let (record, rest) = bytes.split_at(end);
        *bytes = rest;
        Some(self.cut(record, *line))
    }

    /// Bytes that are held for cells that are copied.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.cells.capacity()
    }

    /// A record without quotes: its cells are where they stand.
    fn cut<'r>(&'r mut self, record: &'r [u8], line: u64) -> Record<'r> {
        self.ends.clear();
        find(self.delimiter, record, &mut self.ends);
        self.ends.push(record.len());
        if record.len() > RECORD_BYTES_MAX || self.ends.len() > CELLS_MAX {
            return Record::flawed(line, Flaw::TooLong);
        }
        Record::of_line(line, record, &self.ends)
    }

    /// A record with quotes, off these bytes: its cells are copied.
    fn parse(&mut self, bytes: &mut &[u8], line: &mut u64) -> Record<'_> {
        if self.cells.capacity() < bytes.len() {
            // No cell is longer than what it is written as. Rounded up, so that it is seldom done.
            self.cells = Zeroizing::new(Vec::with_capacity(bytes.len().next_power_of_two()));
        }
        self.cells.clear();
        self.ends.clear();
        let mut quotes = Quotes::new(self.delimiter, self.columns);
        let mut at = 0;
        loop {
            let inside = bytes[at..].starts_with(b"\"").then(|| at + 1..quotes::closing(bytes, at + 1));
            if let Some(inside) = inside.clone() {
                at = bytes.len().min(inside.end + 1);
                self.copy_unquoted(&bytes[inside]);
            }
            let after = at;
            at += memchr3(self.delimiter, b'\r', b'\n', &bytes[at..]).unwrap_or(bytes.len() - at);
            self.cells.extend_from_slice(&bytes[after..at]);
            if let Some(inside) = inside {
                quotes.look(bytes, inside, after..at, self.ends.len());
            }
            self.ends.push(self.cells.len());
            if bytes.get(at) != Some(&self.delimiter) {
                break;
            }
            at += 1;
        }
        let begins = *line;
        // The line's end is skipped with the blank lines after it.
        let (record, rest) = bytes.split_at(at);
        *bytes = rest;
        let lines = line_ends(record, record.len());
        *line += lines;
        let is_too_long = record.len() > RECORD_BYTES_MAX || self.ends.len() > CELLS_MAX;
        let flaw = if is_too_long { Some(Flaw::TooLong) } else { quotes.flaw(record, lines) };
        if let Some(flaw) = flaw {
            return Record::flawed(begins, flaw).of_lines(lines);
        }
        if lines > 0 {
            unfold(&mut self.cells, &mut self.ends);
        }
        let cells = self.ends.last().copied().unwrap_or(0);
        Record::new(begins, &self.cells[..cells], &self.ends).of_lines(lines)
    }

    /// Copies what stands inside a cell's quotes; of two in it, one is meant.
    fn copy_unquoted(&mut self, mut inside: &[u8]) {
        while let Some(quote) = memchr(b'"', inside) {
            self.cells.extend_from_slice(&inside[..=quote]);
            inside = inside.get(quote + 2..).unwrap_or_default();
        }
        self.cells.extend_from_slice(inside);
    }
}

/// Where a byte stands. Delimiters stand near each other, or far apart where there is a long cell: to look for each by itself would cost
/// more than to tell stretches without any, and to take the others word by word.
fn find(wanted: u8, bytes: &[u8], found: &mut Vec<usize>) {
    const STRETCH: usize = 32;
    const WORD: usize = 8;
    const LOW: u64 = u64::from_ne_bytes([0x7f; WORD]);
    let all = u64::from_ne_bytes([wanted; WORD]);
    let (stretches, rest) = bytes.as_chunks::<STRETCH>();
    for (stretch, bytes) in stretches.iter().enumerate() {
        if !bytes.iter().fold(false, |any, byte| any | (*byte == wanted)) {
            continue;
        }
        for (at, word) in bytes.as_chunks::<WORD>().0.iter().enumerate() {
            let differs = u64::from_le_bytes(*word) ^ all;
            // The highest bit of each byte that does not differ: no carry leaves a byte.
            let mut same = !(((differs & LOW) + LOW) | differs | LOW);
            while same != 0 {
                found.push(stretch * STRETCH + at * WORD + same.trailing_zeros() as usize / 8);
                same &= same - 1;
            }
        }
    }
    let before = bytes.len() - rest.len();
    found.extend(rest.iter().enumerate().filter(|(_, byte)| **byte == wanted).map(|(at, _)| before + at));
}

/// Makes each line's end within a cell a blank, CR and LF together one: it is the writer's way of wrapping the cell, and the same table
/// has others in other formats, or none.
fn unfold(cells: &mut [u8], ends: &mut [usize]) {
    let (mut read, mut written) = (0, 0);
    for end in ends {
        while read < *end {
            let is_pair = cells[read] == b'\r' && read + 1 < *end && cells[read + 1] == b'\n';
            cells[written] = if matches!(cells[read], b'\r' | b'\n') { b' ' } else { cells[read] };
            read += 1 + usize::from(is_pair);
            written += 1;
        }
        *end = written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_delimiter_is_found_and_nothing_else(
            bytes in prop::collection::vec(prop_oneof![Just(b','), Just(b'-'), Just(0xac), any::<u8>()], 0..150),
        ) {
            let mut found = Vec::new();
            find(b',', &bytes, &mut found);
            prop_assert_eq!(found, memchr::memchr_iter(b',', &bytes).collect::<Vec<_>>());
        }
    }
}
