//! A manifest's bytes as records: the csv crate's parser, with a bound on a record and the line it begins on.
//!
//! Guarantees: the records are those of `csv::Reader` (blank lines are none, a line ends with LF, CRLF or CR); memory
//! is bounded whatever the file holds: of a record longer than [`RECORD_BYTES_MAX`] the rest is read and dropped, and
//! the next one is read as ever. What was read is wiped on drop.

use std::io::{self, Read};

use csv_core::ReadRecordResult;

use crate::wipe::Wiped;

/// Longest record, in bytes: all of Stripe's parameters at their longest need less.
pub(super) const RECORD_BYTES_MAX: usize = 1 << 20;
/// Most cells of a record; a header has fewer.
const CELLS_MAX: usize = 1 << 16;
/// Read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// Reads records, one after the other.
pub(super) struct Records<R> {
    source: R,
    core: csv_core::Reader,
    buffer: Wiped,
    /// What of the buffer is not yet parsed.
    unread: std::ops::Range<usize>,
    cells: Wiped,
    ends: Vec<usize>,
    /// The line of the next byte, from 1.
    line: u64,
    /// The last byte was a CR, which ends a line unless an LF follows.
    after_cr: bool,
    /// Nothing was read yet: a byte order mark may come.
    at_start: bool,
    /// Bytes read from the source.
    passed: u64,
}

/// What keeps a record from being read as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Longer than [`RECORD_BYTES_MAX`], or more cells than any header has.
    TooLong,
    /// The file ends inside quotes.
    QuoteOpen,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'r> {
    /// The line it begins on, from 1.
    pub(super) line: u64,
    /// What keeps it from being read; its cells mean nothing then.
    pub(super) flaw: Option<Flaw>,
    cells: &'r [u8],
    ends: &'r [usize],
}

impl<'r> Record<'r> {
    /// Of cells that stand one after the other, each up to its end.
    pub(super) fn of_cells(line: u64, cells: &'r [u8], ends: &'r [usize]) -> Self {
        Self { line, flaw: None, cells, ends }
    }

    /// The cells as texts, by their place; nothing if the record cannot be read or one is not UTF-8.
    pub(super) fn texts(&self) -> Option<impl Fn(usize) -> &'r str + use<'r>> {
        let text = std::str::from_utf8(self.cells).ok().filter(|_| self.flaw.is_none())?;
        let ends = self.ends;
        let whole = ends.iter().all(|end| text.is_char_boundary(*end));
        whole.then_some(move |at: usize| &text[at.checked_sub(1).map_or(0, |before| ends[before])..ends[at]])
    }

    /// How many cells.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The cells, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let cells = self.cells;
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let cell = &cells[start..*end];
            start = *end;
            cell
        })
    }
}

impl<R: Read> Records<R> {
    /// From a file's start.
    pub(super) fn new(source: R) -> Self {
        Self { at_start: true, ..Self::within(source, 1) }
    }

    /// From a record's start within a file, which stands on this line.
    pub(super) fn within(source: R, line: u64) -> Self {
        let mut core = csv_core::Reader::new();
        // It would take a byte order mark off its first bytes, which are not always the file's first.
        core.read_record(b"\n", &mut [0], &mut [0]);
        Self {
            source,
            core,
            buffer: Wiped::zeroed(BUFFER_BYTES),
            unread: 0..0,
            cells: Wiped::zeroed(4096),
            ends: vec![0; 64],
            line,
            after_cr: false,
            at_start: false,
            passed: 0,
        }
    }

    /// How many bytes were parsed.
    pub(super) fn offset(&self) -> u64 {
        self.passed - self.unread.len() as u64
    }

    /// The line of the next byte, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next record, or none at the end.
    ///
    /// # Errors
    /// The source's own.
    pub(super) fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        if !self.skip_blank_lines()? {
            return Ok(None);
        }
        let line = self.line;
        let (mut cells, mut ends, mut flaw) = (0, 0, None);
        loop {
            let at_end = self.unread.is_empty() && !self.fill()?;
            // At the end of the file a line break closes a record, unless it stands inside quotes.
            let input = if at_end { b"\n" } else { &self.buffer[self.unread.clone()] };
            let (result, read, written, ended) =
                self.core.read_record(input, &mut self.cells[cells..], &mut self.ends[ends..]);
            if !at_end {
                let parsed = self.unread.start..self.unread.start + read;
                self.unread.start += read;
                self.count_lines(parsed);
            }
            (cells, ends) = (cells + written, ends + ended);
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::OutputFull if cells < RECORD_BYTES_MAX => {
                    let length = (self.cells.len() * 2).min(RECORD_BYTES_MAX);
                    self.grow_cells(length);
                }
                ReadRecordResult::OutputEndsFull if ends < CELLS_MAX => self.ends.resize(ends * 2, 0),
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    flaw = Some(Flaw::TooLong);
                    (cells, ends) = (0, 0);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End if at_end => {
                    flaw = Some(Flaw::QuoteOpen);
                    break;
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
            }
        }
        if flaw.is_some() {
            (cells, ends) = (0, 0);
        }
        Ok(Some(Record { line, flaw, cells: &self.cells[..cells], ends: &self.ends[..ends] }))
    }

    /// Moves to a byte that begins a record; false if there is none. Blank lines are skipped here, so that a record's
    /// line is its own.
    fn skip_blank_lines(&mut self) -> io::Result<bool> {
        loop {
            if self.unread.is_empty() && !self.fill()? {
                return Ok(false);
            }
            let start = self.unread.start;
            let bytes = &self.buffer[self.unread.clone()];
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.unread.start += blank;
            self.count_lines(start..start + blank);
            if !self.unread.is_empty() {
                if self.after_cr {
                    (self.line, self.after_cr) = (self.line + 1, false);
                }
                return Ok(true);
            }
        }
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        self.unread = 0..0;
        while self.unread.is_empty() || (self.at_start && self.unread.end < MARK.len()) {
            match self.source.read(&mut self.buffer[self.unread.end..]) {
                Ok(0) => break,
                Ok(read) => {
                    self.unread.end += read;
                    self.passed += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if std::mem::take(&mut self.at_start) && self.buffer[self.unread.clone()].starts_with(MARK) {
            self.unread.start = MARK.len();
            return if self.unread.is_empty() { self.fill() } else { Ok(true) };
        }
        Ok(!self.unread.is_empty())
    }

    /// Counts the ends of lines, inside quotes as well.
    fn count_lines(&mut self, parsed: std::ops::Range<usize>) {
        let bytes = &self.buffer[parsed];
        let Some(first) = bytes.first() else { return };
        let mut lines = memchr::memchr_iter(b'\n', bytes).count() as u64;
        if self.after_cr && *first != b'\n' {
            lines += 1;
        }
        self.after_cr = false;
        for at in memchr::memchr_iter(b'\r', bytes) {
            match bytes.get(at + 1) {
                Some(b'\n') => {}
                Some(_) => lines += 1,
                None => self.after_cr = true,
            }
        }
        self.line += lines;
    }

    /// A longer buffer for cells; the shorter one is wiped, not left behind by a move.
    fn grow_cells(&mut self, length: usize) {
        let mut longer = Wiped::zeroed(length);
        longer[..self.cells.len()].copy_from_slice(&self.cells);
        self.cells = longer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = Vec<(u64, Result<Vec<Vec<u8>>, Flaw>)>;

    fn read(bytes: &[u8]) -> Read {
        let mut records = Records::new(bytes);
        let mut all = Vec::new();
        while let Some(record) = records.next().unwrap() {
            let cells = record.iter().map(<[u8]>::to_vec).collect();
            all.push((record.line, record.flaw.map_or(Ok(cells), Err)));
        }
        all
    }

    fn lines(text: &str) -> Vec<u64> {
        read(text.as_bytes()).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_record_has_the_line_it_begins_on() {
        assert_eq!(lines("a\nb\nc"), [1, 2, 3]);
        assert_eq!(lines("a\r\nb\r\n\r\nc\r\n"), [1, 2, 4]);
        assert_eq!(lines("\n\na\n\n\nb"), [3, 6]);
        assert_eq!(lines("a\rb\r\rc"), [1, 2, 4]);
        assert_eq!(lines("\"a\n\n\",1\r\nb"), [1, 4]);
    }

    #[test]
    fn an_open_quote_is_told_with_its_line() {
        assert_eq!(read(b"a\n\"b\nc\n"), [(1, Ok(vec![b"a".to_vec()])), (2, Err(Flaw::QuoteOpen))]);
        assert_eq!(read(b"\"a\"").len(), 1);
        assert_eq!(read(b"\"a\"\"")[0].1, Err(Flaw::QuoteOpen));
    }

    #[test]
    fn after_a_record_that_is_too_long_the_next_is_read() {
        let mut text = b"a,b\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 10 << 20));
        text.extend(b"\nc,d\n");
        let mut records = Records::new(text.as_slice());
        let mut flaws = Vec::new();
        while let Some(record) = records.next().unwrap() {
            flaws.push((record.line, record.flaw, record.len()));
        }
        assert_eq!(flaws, [(1, None, 2), (2, Some(Flaw::TooLong), 0), (3, None, 2)]);
        assert!(records.cells.len() <= RECORD_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn the_records_are_those_of_the_csv_crate(text in "[a\",\r\n\u{feff}é]{0,40}", piece in 1_usize..5) {
            let mut theirs = Vec::new();
            let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            for record in reader.byte_records() {
                theirs.push(record.unwrap().iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
            }
            let mut records = Records::new(Pieces(text.as_bytes(), piece));
            let mut ours = Vec::new();
            let mut open = false;
            while let Some(record) = records.next().unwrap() {
                open |= record.flaw == Some(Flaw::QuoteOpen);
                ours.push(record.iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
            }
            if open {
                // The csv crate takes the rest of the file for the cell.
                ours.pop();
                theirs.pop();
            }
            prop_assert_eq!(ours, theirs);
        }
    }

    /// A source that gives a few bytes at once.
    struct Pieces<'b>(&'b [u8], usize);

    impl io::Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len()).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }
}
