//! Records of a manifest, one after the other, from blocks of whole ones.
//!
//! Guarantees: the records are those of `csv::Reader` (blank lines are none, a line ends with LF, CRLF or CR), but for those
//! whose quotes are astray ([`super::quotes`]), and lines' ends within cells, which are blanks.

use std::io::{self, Read};
use std::sync::Arc;

use super::blocks::{Block, Blocks, Flaw, PIECE_BYTES, blank_lines};
use super::cutter::Cutter;
use super::edits::{Edited, Edits};
use super::filling::{Filled, Filling};

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'r> {
    /// The line it begins on, from 1.
    pub(super) line: u64,
    /// What keeps it from being read; it has no cells then.
    pub(super) flaw: Option<Flaw>,
    cells: &'r [u8],
    /// Where each cell ends.
    ends: &'r [usize],
    /// How many bytes stand between two cells: a delimiter, or nothing.
    between: usize,
    /// Of each cell whether it was empty and holds a default; nothing where none can.
    defaults: &'r [bool],
    /// Whether its card is sent to its person's own address because the columns file says so.
    pub(super) is_to_own_address: bool,
    /// Lines' ends in it, as in a cell of several lines.
    pub(super) lines: u64,
    /// Lines before it that spreadsheets show as none: ends of lines within cells. Told by whoever reads all records.
    pub(super) folded: u64,
}

impl<'r> Record<'r> {
    /// Of these cells, one after the other, and where each ends.
    pub(super) fn new(line: u64, cells: &'r [u8], ends: &'r [usize]) -> Self {
        Self {
            line,
            flaw: None,
            cells,
            ends,
            between: 0,
            defaults: &[],
            is_to_own_address: false,
            lines: 0,
            folded: 0,
        }
    }

    /// The same, some of whose cells are defaults.
    pub(super) fn with_defaults(self, defaults: &'r [bool]) -> Self {
        Self { defaults, ..self }
    }

    /// The same, whose card is sent to its person's own address.
    pub(super) fn to_own_address(self) -> Self {
        Self { is_to_own_address: true, ..self }
    }

    /// Of cells that stand in a line, a delimiter between two of them.
    pub(super) fn of_line(line: u64, cells: &'r [u8], ends: &'r [usize]) -> Self {
        Self { between: 1, ..Self::new(line, cells, ends) }
    }

    /// The same, with so many lines' ends in it.
    pub(super) fn of_lines(self, lines: u64) -> Self {
        Self { lines, ..self }
    }

    /// The same, after so many lines that spreadsheets show as none.
    pub(super) fn after(self, folded: u64) -> Self {
        Self { folded, ..self }
    }

    /// Whether a cell holds a default.
    pub(super) fn is_default(&self, at: usize) -> bool {
        self.defaults.get(at).is_some_and(|is_default| *is_default)
    }

    /// One that cannot be read.
    pub(super) fn flawed(line: u64, flaw: Flaw) -> Self {
        Self { flaw: Some(flaw), ..Self::new(line, &[], &[]) }
    }

    /// The cells as texts, by their place; nothing if the record cannot be read or one is not UTF-8.
    pub(super) fn texts(&self) -> Option<impl Fn(usize) -> &'r str + Copy + use<'r>> {
        let text = std::str::from_utf8(self.cells).ok().filter(|_| self.flaw.is_none())?;
        let (ends, between) = (self.ends, self.between);
        // A delimiter is never within a letter.
        let whole = between > 0 || ends.iter().all(|end| text.is_char_boundary(*end));
        whole.then_some(move |at: usize| {
            trimmed(&text[at.checked_sub(1).map_or(0, |before| ends[before] + between)..ends[at]])
        })
    }

    /// Puts the first cells as texts, in order; nothing if the record cannot be read or one is not UTF-8.
    pub(super) fn trimmed(&self, texts: &mut [&'r str]) -> Option<()> {
        let whole = std::str::from_utf8(self.cells).ok().filter(|_| self.flaw.is_none())?;
        let mut start = 0;
        for (text, end) in texts.iter_mut().zip(self.ends) {
            *text = trimmed(whole.get(start..*end)?);
            start = end + self.between;
        }
        Some(())
    }

    /// Whether there is nothing in it but blanks: spreadsheets have many such rows, of which nobody knows.
    pub(super) fn is_blank(&self) -> bool {
        let is_blank = |cell| std::str::from_utf8(cell).is_ok_and(|text| trimmed(text).is_empty());
        self.flaw.is_none() && self.iter().all(is_blank)
    }

    /// How many cells.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The cells, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'r [u8]> + use<'r> {
        let (cells, between) = (self.cells, self.between);
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let cell = &cells[start..*end];
            start = end + between;
            cell
        })
    }
}

/// A cell's text without the blanks around it: those that are seen, and those that nobody sees.
#[inline]
pub(super) fn trimmed(text: &str) -> &str {
    let is_seen = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_graphic);
    let bytes = text.as_bytes();
    if is_seen(bytes.first()) && is_seen(bytes.last()) {
        return text;
    }
    text.trim_matches(is_blank)
}

/// Whether a letter takes no ink.
pub(super) fn is_blank(letter: char) -> bool {
    // Zero-width space and joiners, direction marks, word joiner, soft hyphen, byte order mark.
    const UNSEEN: [char; 8] =
        ['\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2060}', '\u{ad}', '\u{feff}'];
    letter.is_whitespace() || UNSEEN.contains(&letter)
}

/// Takes records off whole records' bytes. Its memory, which is wiped on drop, is used again.
pub(super) struct Parser {
    cutter: Cutter,
    edits: Option<Arc<Edits>>,
    edited: Edited,
    filling: Option<Arc<Filling>>,
    filled: Filled,
}

impl Parser {
    /// For cells that are separated so.
    pub(super) fn new(delimiter: u8) -> Self {
        let (filled, edited) = (Filled::default(), Edited::default());
        Self { cutter: Cutter::new(delimiter), edits: None, edited, filling: None, filled }
    }

    /// Edits and fills each record from now on, of a file with so many columns, those that edits add among them.
    pub(super) fn change(
        &mut self,
        edits: Option<Arc<Edits>>,
        filling: Option<Arc<Filling>>,
        columns: usize,
    ) {
        let added = edits.as_ref().map_or(0, |edits| edits.columns_added());
        self.cutter.columns = columns.saturating_sub(added);
        (self.edits, self.filling) = (edits, filling);
    }

    /// Takes the next record off these bytes, the first of which stands on this line; none if there is no more.
    pub(super) fn next<'r, 'b: 'r>(&'r mut self, bytes: &mut &'b [u8], line: &mut u64) -> Option<Record<'r>> {
        let record = self.cutter.next(bytes, line)?;
        let lines = record.lines;
        let record = match &self.edits {
            Some(edits) => self.edited.edit(edits, record),
            None => record,
        };
        let record = match &self.filling {
            Some(filling) if record.flaw.is_none() && !record.is_blank() => self.filled.fill(filling, record),
            _ => record,
        };
        Some(Record { lines, ..record })
    }
}

/// Reads records, one after the other.
pub(super) struct Records<R> {
    blocks: Blocks<R>,
    block: Block,
    parser: Parser,
    /// How many of the block's bytes were parsed.
    parsed: usize,
    line: u64,
    /// Lines so far that spreadsheets show as none.
    folded: u64,
}

impl<R> Records<R> {
    /// Edited rows that were not met so far.
    pub(super) fn edits_left(&self) -> usize {
        let edits = self.parser.edits.as_ref().map_or(0, |edits| edits.rows());
        edits.saturating_sub(self.parser.edited.rows)
    }
}

/// How far records were taken off a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    parsed: usize,
    line: u64,
    folded: u64,
}

impl<R: Read> Records<R> {
    /// How far they were taken off: what is looked at after it with [`Self::look_on`] can be gone back to.
    pub(super) fn place(&self) -> Place {
        Place { parsed: self.parsed, line: self.line, folded: self.folded }
    }

    /// The next record, if it is one of the block that was read; no other block is.
    pub(super) fn look_on(&mut self) -> Option<Record<'_>> {
        if self.block_is_parsed() {
            return None;
        }
        self.take()
    }

    /// The next record of the block.
    fn take(&mut self) -> Option<Record<'_>> {
        let mut unparsed = &self.block.bytes()[self.parsed..];
        let before = unparsed.len();
        let record = self.parser.next(&mut unparsed, &mut self.line);
        self.parsed += before - unparsed.len();
        let folded = self.folded;
        self.folded += record.map_or(0, |record| record.lines);
        record.map(|record| record.after(folded))
    }

    /// Takes them off from there again.
    pub(super) fn go_back(&mut self, Place { parsed, line, folded }: Place) {
        (self.parsed, self.line, self.folded) = (parsed, line, folded);
    }

    /// From a file's start, its cells separated so.
    pub(super) fn new(source: R, delimiter: u8) -> Self {
        let blocks = Blocks::new(source, PIECE_BYTES, delimiter);
        Self {
            blocks,
            block: Block::default(),
            parser: Parser::new(delimiter),
            parsed: 0,
            line: 1,
            folded: 0,
        }
    }

    /// Edits and fills each record from now on: the header was read, with so many columns.
    pub(super) fn change(
        &mut self,
        edits: Option<Arc<Edits>>,
        filling: Option<Arc<Filling>>,
        columns: usize,
    ) {
        self.parser.change(edits, filling, columns);
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
        while self.block_is_parsed() {
            if let Some((line, flaw)) = self.block.flaw.take() {
                return Ok(Some(Record::flawed(line, flaw).after(self.folded)));
            }
            (self.parsed, self.line) = (0, self.blocks.line());
            let more = self.blocks.next(&mut self.block);
            if !matches!(more, Ok(true)) {
                self.line = self.blocks.line();
                return more.map(|_| None);
            }
        }
        Ok(self.take())
    }

    /// Lines so far that spreadsheets show as none.
    pub(super) fn folded(&self) -> u64 {
        self.folded
    }

    /// So many lines more that spreadsheets show as none.
    pub(super) fn fold(&mut self, lines: u64) {
        self.folded += lines;
    }

    /// Whether nothing but blank lines is left of the block.
    fn block_is_parsed(&self) -> bool {
        let unparsed = &self.block.bytes()[self.parsed..];
        blank_lines(unparsed) == unparsed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::RECORD_BYTES_MAX;
    use super::super::cutter::CELLS_MAX;
    use super::*;
    use proptest::prelude::*;

    type Read = Vec<(u64, Result<Vec<Vec<u8>>, Flaw>)>;

    fn read(bytes: &[u8]) -> Read {
        read_separated(bytes, b',')
    }

    fn read_separated(bytes: &[u8], delimiter: u8) -> Read {
        let mut records = Records::new(bytes, delimiter);
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
    fn a_record_has_as_many_cells_at_most_with_quotes_as_without() {
        for quotes in ["", "\"\""] {
            for (cells, flaw) in [(CELLS_MAX, None), (CELLS_MAX + 1, Some(Flaw::TooLong))] {
                let text = format!("{quotes}{}\nb", ",".repeat(cells - 1));
                let mut records = Records::new(text.as_bytes(), b',');
                let record = records.next().unwrap().unwrap();
                assert_eq!((record.flaw, record.len()), (flaw, if flaw.is_none() { cells } else { 0 }));
                assert_eq!(records.next().unwrap().unwrap().line, 2);
            }
        }
    }

    #[test]
    fn after_a_record_that_is_too_long_the_next_is_read() {
        let mut text = b"a,b\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 10 << 20));
        text.extend(b"\nc,d\n\"");
        text.extend(b"x\r\n,\"\"".repeat(1 << 20));
        text.extend(b"\"\r\ne,f\r\n");
        text.extend(std::iter::repeat_n(b'x', RECORD_BYTES_MAX + 1));
        text.extend(b"\rg,h\n\"");
        text.extend(std::iter::repeat_n(b'\n', 2 << 20));
        let mut records = Records::new(text.as_slice(), b',');
        let mut flaws = Vec::new();
        while let Some(record) = records.next().unwrap() {
            flaws.push((record.line, record.flaw, record.len()));
        }
        let after = 5 + (1 << 20);
        assert_eq!(
            flaws,
            [
                (1, None, 2),
                (2, Some(Flaw::TooLong), 0),
                (3, None, 2),
                (4, Some(Flaw::TooLong), 0),
                (after, None, 2),
                (after + 1, Some(Flaw::TooLong), 0),
                (after + 2, None, 2),
                (after + 3, Some(Flaw::QuoteOpen), 0),
            ]
        );
        assert!(records.parser.cutter.held() <= 2 * RECORD_BYTES_MAX);
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

    /// A cell with blanks for its lines' ends.
    fn unfolded(cell: &[u8]) -> Vec<u8> {
        let text = String::from_utf8(cell.to_vec()).unwrap();
        text.replace("\r\n", " ").replace(['\r', '\n'], " ").into_bytes()
    }

    #[test]
    fn a_lines_end_within_a_cell_is_a_blank() {
        let cells = |text: &str| read(text.as_bytes()).remove(0).1.unwrap();
        for text in ["\"a\r\nb\",c,\"\n\"", "\"a\nb\",c,\"\r\n\"", "\"a\rb\",c,\"\r\""] {
            assert_eq!(cells(text), [&b"a b"[..], b"c", b" "], "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_records_are_those_of_the_csv_crate(
            text in "[a\",;\r\n\u{feff}é]{0,40}", at_once in 1_usize..5, block in 3_usize..50, semicolon: bool,
        ) {
            let delimiter = if semicolon { b';' } else { b',' };
            let mut theirs = Vec::new();
            let mut reader = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .delimiter(delimiter)
                .from_reader(text.as_bytes());
            for record in reader.byte_records() {
                theirs.push(record.unwrap().iter().map(unfolded).collect::<Vec<_>>());
            }
                // Blocks that are smaller than a record, too.
            let mut records = Records::new(Pieces(text.as_bytes(), at_once), delimiter);
            records.blocks = Blocks::new(Pieces(text.as_bytes(), at_once), block, delimiter);
            let (mut ours, mut lines) = (Vec::new(), Vec::new());
            let mut open = false;
            while let Some(record) = records.next().unwrap() {
                open |= record.flaw == Some(Flaw::QuoteOpen);
                if matches!(record.flaw, Some(Flaw::TextAfterQuote { .. })) {
                    // The csv crate takes it as it comes.
                    theirs[ours.len()].clear();
                }
                lines.push(record.line);
                ours.push(record.iter().map(<[u8]>::to_vec).collect::<Vec<_>>());
            }
            let whole: Vec<u64> = read_separated(text.as_bytes(), delimiter).into_iter().map(|(line, _)| line).collect();
            prop_assert_eq!(lines, whole);
            if open {
                // The csv crate takes the rest of the file for the cell.
                ours.pop();
                theirs.pop();
            }
            prop_assert_eq!(ours, theirs);
        }
    }
}
