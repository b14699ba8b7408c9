//! A manifest's bytes as blocks of whole records, so that several threads can parse them at once.
//!
//! Guarantees: a block ends where a record ends for the csv crate; memory is bounded whatever the source holds: of a
//! record that is longer than [`RECORD_BYTES_MAX`] the rest is read and dropped, and the one after it is read as ever.
//! What was read is wiped on drop.

use std::io::{self, Read};
use std::ops::Range;

use memchr::{memchr, memchr2, memchr2_iter, memrchr2};
use zeroize::Zeroizing;

/// Longest record, in bytes of the file: all of Stripe's parameters at their longest need less.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;
/// A piece has about so many bytes, or one record: enough that handing it to another thread costs little beside it.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Room for the longest record and the beginning of the next one.
const BLOCK_BYTES_MAX: usize = RECORD_BYTES_MAX + PIECE_BYTES;
/// Excel writes it before the first byte of "CSV UTF-8".
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What keeps a record from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Longer than [`RECORD_BYTES_MAX`], or more cells than any header has.
    TooLong,
    /// The file ends inside quotes.
    QuoteOpen,
    /// It has this many cells, and the header another number of columns.
    CellCount(usize),
    /// Text stands after a quote that closes a cell; so many lines after its first the record ends.
    TextAfterQuote { lines: u64 },
    /// What stands between two quotes are rows; so many lines after its first the record ends.
    RowsInQuotes { lines: u64 },
}

/// Whole records, or one that cannot be read.
#[derive(Default)]
pub(super) struct Block {
    bytes: Zeroizing<Vec<u8>>,
    pieces: Vec<Piece>,
    /// The line on which a record begins that cannot be read, and what is wrong with it.
    pub(super) flaw: Option<(u64, Flaw)>,
}

/// Whole records of a block.
#[derive(Debug, Clone)]
struct Piece {
    range: Range<usize>,
    line: u64,
}

impl Block {
    /// The whole records' bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.pieces.last().map_or(0, |piece| piece.range.end)]
    }

    /// The same in pieces: the bytes of each, and the line of the first of them.
    pub(super) fn pieces(&self) -> impl ExactSizeIterator<Item = (&[u8], u64)> {
        self.pieces.iter().map(|piece| (&self.bytes[piece.range.clone()], piece.line))
    }

    /// Makes room for so many bytes; the smaller buffer is wiped.
    fn grow(&mut self, bytes: usize) {
        let mut longer = Zeroizing::new(vec![0; bytes]);
        longer[..self.bytes.len()].copy_from_slice(&self.bytes);
        self.bytes = longer;
    }
}

/// Reads blocks from a source.
pub(super) struct Blocks<R> {
    source: R,
    /// How long a block is, unless a record is longer.
    block_bytes: usize,
    /// What separates cells.
    delimiter: u8,
    /// Read, but not handed out: the beginning of the next block.
    rest: Zeroizing<Vec<u8>>,
    /// The line of its first byte, from 1.
    line: u64,
    at_start: bool,
    at_end: bool,
    failed: Option<io::Error>,
}

impl<R: Read> Blocks<R> {
    /// From a file's start, so many bytes at once.
    pub(super) fn new(source: R, block_bytes: usize, delimiter: u8) -> Self {
        let rest = Zeroizing::new(Vec::new());
        Self { source, block_bytes, delimiter, rest, line: 1, at_start: true, at_end: false, failed: None }
    }

    /// The line of the byte after those that were handed out, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Reads the next block into `block`, whose memory is used again; false at the end.
    ///
    /// # Errors
    /// The source's own, once all records before it were handed out.
    pub(super) fn next(&mut self, block: &mut Block) -> io::Result<bool> {
        block.pieces.clear();
        block.flaw = None;
        if self.at_end && self.failed.is_none() && self.rest.is_empty() {
            return Ok(false);
        }
        let length = self.rest.len().max(self.block_bytes.min(PIECE_BYTES));
        if block.bytes.len() < length {
            block.grow(length);
        }
        let mut filled = self.rest.len();
        block.bytes[..filled].copy_from_slice(&self.rest);
        self.rest.clear();
        let mut scan = Scan::new(self.delimiter);
        loop {
            filled = self.fill(&mut block.bytes, filled);
            if !self.at_end && block.bytes.len() < self.block_bytes {
                block.grow(self.block_bytes);
                continue;
            }
            let is_last = self.at_end && self.failed.is_none();
            scan.find_ends(&block.bytes[..filled], is_last);
            if is_last && !scan.quoted {
                scan.end_at(filled);
            }
            if let Some(end) = scan.ends.last().copied() {
                self.keep(&block.bytes[end..filled]);
                self.hand_out(block, &scan.ends);
                return Ok(true);
            }
            if self.at_end || block.bytes.len() >= BLOCK_BYTES_MAX {
                break;
            }
            block.grow((block.bytes.len() * 2).min(BLOCK_BYTES_MAX));
        }
        // No record ends in the whole block.
        let bytes = &block.bytes[..filled];
        if let Some(error) = self.failed.take() {
            self.line += line_ends(bytes, filled);
            return Err(error);
        }
        if bytes.is_empty() {
            return Ok(false);
        }
        let line = self.line + line_ends(bytes, blank_lines(bytes));
        block.flaw = Some((line, self.drop_record(block, filled, scan)));
        Ok(true)
    }

    /// Reads until the buffer is full or the source at its end; answers how much of it is full.
    fn fill(&mut self, buffer: &mut [u8], mut filled: usize) -> usize {
        while filled < buffer.len() && !self.at_end {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => self.at_end = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => (self.at_end, self.failed) = (true, Some(error)),
            }
            if self.at_start && (filled >= BYTE_ORDER_MARK.len() || self.at_end) {
                self.at_start = false;
                if buffer[..filled].starts_with(BYTE_ORDER_MARK) {
                    buffer.copy_within(BYTE_ORDER_MARK.len()..filled, 0);
                    filled -= BYTE_ORDER_MARK.len();
                }
            }
        }
        filled
    }

    /// Keeps the beginning of the next block; a buffer that is too small for it is wiped.
    fn keep(&mut self, rest: &[u8]) {
        if self.rest.capacity() < rest.len() {
            self.rest = Zeroizing::new(Vec::with_capacity(rest.len()));
        }
        self.rest.extend_from_slice(rest);
    }

    /// Makes pieces of the records that end here.
    fn hand_out(&mut self, block: &mut Block, ends: &[usize]) {
        let mut start = 0;
        for end in ends {
            block.pieces.push(Piece { range: start..*end, line: self.line });
            self.line += line_ends(&block.bytes[start..], end - start);
            start = *end;
        }
    }

    /// Reads on to the end of a record that is longer than the block; answers what is wrong with it.
    fn drop_record(&mut self, block: &mut Block, mut filled: usize, mut scan: Scan) -> Flaw {
        loop {
            let bytes = &block.bytes[..filled];
            if let Some(end) = scan.find_first_end(bytes, self.at_end) {
                self.line += line_ends(bytes, end);
                self.keep(&bytes[end..]);
                return Flaw::TooLong;
            }
            if self.at_end {
                self.line += line_ends(bytes, filled);
                return if scan.quoted { Flaw::QuoteOpen } else { Flaw::TooLong };
            }
            // The last byte stays: what the next one means depends on it.
            let dropped = filled - 1;
            self.line += line_ends(bytes, dropped);
            scan.at -= dropped;
            block.bytes.copy_within(dropped..filled, 0);
            filled = self.fill(&mut block.bytes, 1);
        }
    }
}

/// Looks for the ends of records as the csv crate sees them: a quote opens a cell only where the cell begins, and
/// closes it unless a second one follows; a line's end outside quotes ends the record.
#[derive(Debug)]
struct Scan {
    delimiter: u8,
    /// How many bytes were looked at.
    at: usize,
    quoted: bool,
    /// Where pieces end, each before the line's end that ends its last record.
    ends: Vec<usize>,
}

impl Scan {
    fn new(delimiter: u8) -> Self {
        Self { delimiter, at: 0, quoted: false, ends: Vec::new() }
    }

    /// Finds the ends of pieces. The last of them is the last end of a record.
    fn find_ends(&mut self, bytes: &[u8], at_end: bool) {
        while let Some(run) = self.next_unquoted(bytes, at_end) {
            let start = run.start;
            if let Some(found) = memrchr2(b'\r', b'\n', &bytes[run]) {
                let end = start + found;
                // Of CR and LF both belong to the next piece.
                let is_second = bytes[end] == b'\n' && end > 0 && bytes[end - 1] == b'\r';
                self.end_at(end - usize::from(is_second));
            }
        }
    }

    /// A record ends here: a new piece, unless the latest one is small.
    fn end_at(&mut self, end: usize) {
        let before = self.ends.len().checked_sub(2).map_or(0, |index| self.ends[index]);
        match self.ends.last_mut() {
            Some(last) if *last - before < PIECE_BYTES / 2 => *last = end.max(*last),
            Some(last) if *last == end => {}
            None if end == 0 => {}
            _ => self.ends.push(end),
        }
    }

    /// Finds the first end of a record after those bytes that were looked at.
    fn find_first_end(&mut self, bytes: &[u8], at_end: bool) -> Option<usize> {
        while let Some(run) = self.next_unquoted(bytes, at_end) {
            if let Some(found) = memchr2(b'\r', b'\n', &bytes[run.clone()]) {
                return Some(run.start + found);
            }
        }
        None
    }

    /// The next bytes outside quotes, at most a piece of them; none once all bytes were looked at.
    fn next_unquoted(&mut self, bytes: &[u8], at_end: bool) -> Option<Range<usize>> {
        while self.quoted {
            let Some(found) = memchr(b'"', &bytes[self.at..]) else {
                self.at = bytes.len();
                return None;
            };
            let quote = self.at + found;
            match bytes.get(quote + 1) {
                Some(b'"') => self.at = quote + 2,
                // Whether it closes the cell is told by a byte that is not read yet.
                None if !at_end => {
                    self.at = quote;
                    return None;
                }
                _ => (self.at, self.quoted) = (quote + 1, false),
            }
        }
        let start = self.at;
        let end = bytes.len().min(start + PIECE_BYTES);
        if start == end {
            return None;
        }
        let Some(found) = memchr(b'"', &bytes[start..end]) else {
            self.at = end;
            return Some(start..end);
        };
        let quote = start + found;
        self.at = quote + 1;
        self.quoted = quote == 0 || [self.delimiter, b'\r', b'\n'].contains(&bytes[quote - 1]);
        Some(start..quote)
    }
}

/// How many lines end within the first `length` bytes: with CR, LF, or both; in quotes as well.
pub(super) fn line_ends(bytes: &[u8], length: usize) -> u64 {
    let ends = memchr2_iter(b'\r', b'\n', &bytes[..length]);
    ends.filter(|at| bytes[*at] == b'\n' || bytes.get(at + 1) != Some(&b'\n')).count() as u64
}

/// How many of the first bytes end lines with nothing on them.
pub(super) fn blank_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}
