//! Bytes cut into records and these into cells, as they are written: by the csv crate's parser where there are quotes.
//!
//! csv-core and not `csv::Reader`: the latter's buffers grow with a record and are not wiped, and it does not tell the line
//! that a record begins on. A record without a quote needs no parser, and is cut at its delimiters where it stands.

use csv_core::ReadRecordResult;
use memchr::{memchr_iter, memchr3};
use zeroize::Zeroizing;

use super::blocks::{Flaw, RECORD_BYTES_MAX, blank_lines, line_ends};
use super::quotes;
use super::records::Record;

/// Most cells of a record; a header has fewer.
pub(super) const CELLS_MAX: usize = 1 << 16;

/// Cuts bytes into records and these into cells, as they are written.
pub(super) struct Cutter {
    core: csv_core::Reader,
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
        let mut core = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        // It would take a byte order mark off its first bytes, which are not always the file's first.
        core.read_record(b"\n", &mut [0], &mut [0]);
        Self { core, delimiter, columns: 0, cells: Zeroizing::new(Vec::new()), ends: Vec::new() }
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
        self.cells.len()
    }

    /// A record without quotes: its cells are where they stand.
    fn cut<'r>(&'r mut self, record: &'r [u8], line: u64) -> Record<'r> {
        self.ends.clear();
        self.ends.extend(memchr_iter(self.delimiter, record));
        self.ends.push(record.len());
        if record.len() > RECORD_BYTES_MAX || self.ends.len() > CELLS_MAX {
            return Record::flawed(line, Flaw::TooLong);
        }
        Record::of_line(line, record, &self.ends)
    }

    /// A record with quotes, off these bytes: its cells are copied.
    fn parse(&mut self, bytes: &mut &[u8], line: &mut u64) -> Record<'_> {
        if self.cells.len() <= bytes.len() {
            // No cell is longer than what it is written as, and the parser wants one byte of room left. Rounded up, so that
            // it is seldom done.
            self.cells = Zeroizing::new(vec![0; (bytes.len() + 1).next_power_of_two()]);
        }
        self.ends.resize(self.ends.len().clamp(64, CELLS_MAX), 0);
        let begins = *line;
        let (mut read, mut cells, mut ends, mut flaw) = (0, 0, 0, None);
        loop {
            // Whole records end without a line's end.
            let input = if read == bytes.len() { b"\n" } else { &bytes[read..] };
            let (result, taken, written, ended) =
                self.core.read_record(input, &mut self.cells[cells..], &mut self.ends[ends..]);
            read = bytes.len().min(read + taken);
            (cells, ends) = (cells + written, ends + ended);
            match result {
                ReadRecordResult::Record => break,
                ReadRecordResult::OutputEndsFull if ends < CELLS_MAX => {
                    self.ends.resize((ends * 2).min(CELLS_MAX), 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    flaw = Some(Flaw::TooLong);
                    (cells, ends) = (0, 0);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {}
                ReadRecordResult::OutputFull => unreachable!("there is room for all bytes"),
            }
        }
        *line += line_ends(bytes, read);
        let (record, rest) = bytes.split_at(read);
        *bytes = rest;
        if read > RECORD_BYTES_MAX {
            flaw = Some(Flaw::TooLong);
        }
        let has_end = record.ends_with(b"\n") || record.ends_with(b"\r");
        // Of CR and LF the second may be left for the next record: then the line's end is counted there.
        let is_cut = record.ends_with(b"\r") && rest.starts_with(b"\n");
        let lines = (*line - begins).saturating_sub(u64::from(has_end && !is_cut));
        let flaw = flaw.or_else(|| quotes::flaw(record, self.delimiter, (self.columns, lines)));
        if let Some(flaw) = flaw {
            return Record::flawed(begins, flaw).of_lines(lines);
        }
        if lines > 0 {
            unfold(&mut self.cells, &mut self.ends[..ends]);
        }
        let cells = self.ends[..ends].last().copied().unwrap_or(cells);
        Record::new(begins, &self.cells[..cells], &self.ends[..ends]).of_lines(lines)
    }
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
