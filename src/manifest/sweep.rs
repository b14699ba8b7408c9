//! The fast way through a file: blocks of records judged side by side, added up in order.
//!
//! Guarantees: the same verdict, problems, lines and order as reading record by record. Each block proves that its
//! quotes and carriage returns stand where a well-formed CSV has them; if one cannot, the file is read record by record
//! from that block on. Memory is bounded by three rounds of [`ROUND_BLOCKS`] blocks each, one being read, one judged and
//! one added up, and the names.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::num::NonZeroU64;

use memchr::memchr_iter;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::blocks::{Block, Blocks, Cut};
use super::checker::Checker;
use super::marks::Marks;
use super::names::Hasher;
use super::plan::{Good, Plan};
use super::records::{Record, Records};
use super::{InvalidRow, Manifest};

/// Blocks judged together: enough that the cores end at about the same time.
const ROUND_BLOCKS: usize = 8;

/// Rows of one block that are told in full. Where more are wrong, problems are most of the work and of the memory, and
/// the file is read record by record instead.
const INVALID_MAX: usize = 256;

/// A row of a block, in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The hash of its name, if it has one.
    name: Option<NonZeroU64>,
    /// Counted from the block's first line, 0.
    line: u32,
    verdict: Verdict,
}

/// Whether a row is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good(Good),
    Invalid,
}

/// What a block came to. Its memory is used again.
#[derive(Default)]
struct Judged {
    rows: Vec<Seen>,
    /// Rows that are not valid, in order; lines and numbers as in `rows`.
    invalid: Vec<InvalidRow>,
    /// Of each good row its name and its request's fingerprint, where a digest is wanted.
    digested: Vec<u8>,
    lines: u64,
    odd: bool,
    scratch: Scratch,
}

/// What blocks are judged by.
struct Judge<'m> {
    manifest: &'m Manifest,
    plan: &'m Plan,
    hasher: Hasher,
    digests: bool,
}

/// A row's cells as ranges of the block's bytes, or of those that were unescaped.
#[derive(Default)]
struct Scratch {
    cells: Vec<Cell>,
    unescaped: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    start: usize,
    end: usize,
    unescaped: bool,
}

/// A place in a block, and what its judge needs there.
#[derive(Default)]
struct Slot {
    block: Block,
    marks: Marks,
    judged: Judged,
}

/// Blocks that go through the sweep together: read, then judged, then added up.
#[derive(Default)]
struct Round {
    slots: Vec<Slot>,
    /// How many of the slots hold a block.
    filled: usize,
    last: Option<Cut>,
}

/// Why a sweep ends.
enum Ended {
    /// All was read.
    AtEnd,
    /// From this offset on it must be read record by record.
    Odd(u64),
}

impl Round {
    fn read(&mut self, blocks: &mut Blocks<File>) {
        self.slots.resize_with(ROUND_BLOCKS, Slot::default);
        (self.filled, self.last) = (0, None);
        for slot in &mut self.slots {
            match blocks.next(&mut slot.block) {
                Cut::Whole => self.filled += 1,
                last => {
                    self.last = Some(last);
                    return;
                }
            }
        }
    }

    fn judge(&mut self, judge: &Judge<'_>) {
        self.slots[..self.filled].par_iter_mut().for_each(|slot| slot.judge(judge));
    }

    /// Adds its rows up; answers why the sweep ends, if it does.
    fn add_to(
        &mut self,
        checker: &mut Checker,
        (offset, line): &mut (u64, u64),
        added: &mut dyn FnMut(&mut Checker),
    ) -> Option<Ended> {
        for slot in &mut self.slots[..self.filled] {
            if slot.judged.odd {
                return Some(Ended::Odd(slot.block.offset));
            }
            slot.judged.add_to(checker, *line);
            *line += slot.judged.lines;
            *offset = slot.block.offset + slot.block.bytes().len() as u64;
            added(checker);
        }
        Some(if self.last? == Cut::End { Ended::AtEnd } else { Ended::Odd(*offset) })
    }

    /// About how many rows a file has, if all are like those of these blocks.
    fn rows_expected(&self, file_bytes: u64) -> u64 {
        let slots = &self.slots[..self.filled];
        let rows: usize = slots.iter().map(|slot| slot.judged.rows.len()).sum();
        let bytes: usize = slots.iter().map(|slot| slot.block.bytes().len()).sum();
        (file_bytes / bytes.max(1) as u64 + 1).saturating_mul(rows as u64)
    }
}

impl Manifest {
    /// Adds all rows of a file up, or all until its form is odd, and answers the records from there; `added` is called
    /// after each block. The rows begin at this offset, on this line.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub(super) fn sweep(
        &self,
        plan: &Plan,
        mut at: (u64, u64),
        checker: &mut Checker,
        added: &mut dyn FnMut(&mut Checker),
    ) -> std::io::Result<Option<Records<File>>> {
        let open = |offset| {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(offset))?;
            std::io::Result::Ok(file)
        };
        let file = open(at.0)?;
        let file_bytes = file.metadata()?.len();
        let mut blocks = Blocks::new(file, at.0);
        let judge = Judge { manifest: self, plan, hasher: checker.hasher(), digests: checker.digests() };
        // While one round is judged, the one before it is added up and the one after it is read.
        let mut rounds: [Round; 3] = Default::default();
        rounds[1].read(&mut blocks);
        loop {
            let [before, judged, after] = &mut rounds;
            let more = judged.last.is_none();
            if checker.rows() == 0 && plan.row_id_column().is_some() {
                checker.expect(before.rows_expected(file_bytes));
            }
            let ended = rayon::in_place_scope(|scope| {
                scope.spawn(|_| judged.judge(&judge));
                let ended = before.add_to(checker, &mut at, added);
                if more && ended.is_none() {
                    after.read(&mut blocks);
                }
                ended
            });
            match ended {
                Some(Ended::AtEnd) => return Ok(None),
                Some(Ended::Odd(offset)) => return Ok(Some(Records::within(open(offset)?, at.1))),
                None => rounds.rotate_left(1),
            }
        }
    }
}

impl Judge<'_> {
    /// Whether a row is right, and what its request comes to if that is wanted; nothing if the plan cannot tell.
    #[inline]
    fn by_plan<'c>(&self, cell: impl Fn(usize) -> &'c [u8]) -> Option<(Good, Option<[u8; 32]>)> {
        let good = self.plan.judge(&cell)?;
        let fingerprint = if self.digests { Some(self.plan.fingerprint(&cell)?) } else { None };
        Some((good, fingerprint))
    }
}

impl Slot {
    fn judge(&mut self, judge: &Judge<'_>) {
        let Self { block, marks, judged } = self;
        judged.rows.clear();
        judged.invalid.clear();
        judged.digested.clear();
        judged.lines = 0;
        judged.odd = judged.judge(block, marks, judge).is_none();
    }
}

impl Judged {
    /// Judges every row; nothing if the block is not as well-formed as it must be.
    fn judge(&mut self, block: &Block, marks: &mut Marks, judge: &Judge<'_>) -> Option<()> {
        let Judge { manifest, plan, hasher, digests } = judge;
        let bytes = block.bytes();
        simdutf8::basic::from_utf8(bytes).ok()?;
        marks.find(bytes);
        let (has_returns, marks) = (marks.has_returns(), marks.places());
        let mut split = Split { bytes, marks, has_returns, at: 0, quotes: 0, returns: 0, lines: 0 };
        let columns = manifest.columns.len();
        while split.skip_blank_lines() {
            let line = split.lines;
            let plain = split.plain_record(columns);
            let by_plan = plain.as_ref().and_then(|row| judge.by_plan(|at| row.cell(bytes, at)));
            let (name, verdict, fingerprint) = if let (Some(row), Some((good, fingerprint))) =
                (&plain, by_plan)
            {
                split.pass(row);
                let name = plan.row_id_column().map(|at| row.cell(bytes, at));
                (name, Verdict::Good(good), fingerprint)
            } else {
                split.record(&mut self.scratch)?;
                let counted = self.scratch.cells.len() == columns;
                let by_plan = counted.then(|| judge.by_plan(|at| self.scratch.cell(bytes, at))).flatten();
                let (verdict, fingerprint) = match by_plan {
                    Some((good, fingerprint)) => (Verdict::Good(good), fingerprint),
                    None => self.long_way(bytes, manifest, line)?,
                };
                let name = plan.row_id_column().filter(|_| counted).map(|at| self.scratch.cell(bytes, at));
                (name, verdict, fingerprint)
            };
            if let Some(fingerprint) = fingerprint.filter(|_| *digests) {
                self.digested.extend_from_slice(name.unwrap_or_default());
                self.digested.extend_from_slice(&fingerprint);
            }
            let name =
                name.filter(|name| !name.is_empty()).and_then(|name| NonZeroU64::new(hasher.hash(name)));
            self.rows.push(Seen { name, line: u32::try_from(line).ok()?, verdict });
        }
        self.lines = split.lines;
        // Every quote was one around a cell or doubled within one, every return before a line's end or within quotes.
        let returns = if has_returns { memchr_iter(b'\r', bytes).count() } else { 0 };
        (split.quotes == block.quotes && split.returns == returns).then_some(())
    }

    /// Says what is wrong with the row in the scratch, or what its request comes to; nothing if too many are wrong.
    fn long_way(
        &mut self,
        bytes: &[u8],
        manifest: &Manifest,
        line: u64,
    ) -> Option<(Verdict, Option<[u8; 32]>)> {
        let cells_length = (0..self.scratch.cells.len()).map(|at| self.scratch.cell(bytes, at).len()).sum();
        let (mut cells, mut ends) = (Zeroizing::new(Vec::with_capacity(cells_length)), Vec::new());
        for at in 0..self.scratch.cells.len() {
            cells.extend_from_slice(self.scratch.cell(bytes, at));
            ends.push(cells.len());
        }
        let number = self.rows.len() as u64 + 1;
        match manifest.row(&Record::of_cells(line, &cells, &ends), number) {
            Err(_) if self.invalid.len() >= INVALID_MAX => None,
            Err(invalid) => {
                self.invalid.push(invalid);
                Some((Verdict::Invalid, None))
            }
            // The plan said nothing of a row that is right after all.
            Ok(row) => {
                let good = Good { physical: row.card.kind() == "physical", pin: row.pin.is_some() };
                Some((Verdict::Good(good), Some(row.card.fingerprint())))
            }
        }
    }

    /// Adds the rows up, the first of which stands on this line.
    fn add_to(&mut self, checker: &mut Checker, first_line: u64) {
        checker.add_digested(&self.digested);
        let mut invalid = self.invalid.drain(..);
        let before = checker.rows();
        checker.expect_names(self.rows.iter().filter_map(|seen| seen.name));
        for seen in &self.rows {
            let line = first_line + u64::from(seen.line);
            match seen.verdict {
                Verdict::Good(good) => checker.add_good(line, seen.name, good),
                Verdict::Invalid => {
                    let mut row = invalid.next().expect("each invalid row of a block was put there");
                    row.line = line;
                    row.number += before;
                    for problem in &mut row.problems {
                        (problem.line, problem.row) = (line, row.number);
                    }
                    checker.add(&Err(row));
                }
            }
        }
    }
}

impl Scratch {
    #[inline]
    fn cell<'b>(&'b self, bytes: &'b [u8], at: usize) -> &'b [u8] {
        let Cell { start, end, unescaped } = self.cells[at];
        if unescaped { &self.unescaped[start..end] } else { &bytes[start..end] }
    }
}

/// A record without quotes, as the marks behind its cells.
struct PlainRecord<'b> {
    start: usize,
    marks: &'b [u32],
    /// Where its last cell ends: before the line feed, or the carriage return before that.
    end: usize,
}

impl PlainRecord<'_> {
    #[inline]
    fn cell<'b>(&self, bytes: &'b [u8], at: usize) -> &'b [u8] {
        let start = if at == 0 { self.start } else { self.marks[at - 1] as usize + 1 };
        let end = if at + 1 == self.marks.len() { self.end } else { self.marks[at] as usize };
        &bytes[start..end]
    }
}

/// Goes through a block, cell by cell.
struct Split<'b> {
    bytes: &'b [u8],
    /// Places of the commas, quotes and line feeds that are not passed yet.
    marks: &'b [u32],
    has_returns: bool,
    at: usize,
    /// Quotes that stood where they should.
    quotes: usize,
    /// Carriage returns that did.
    returns: usize,
    /// Ends of lines that were passed.
    lines: u64,
}

impl<'b> Split<'b> {
    /// The next mark's place and the mark.
    #[inline]
    fn next_mark(&mut self) -> Option<(usize, u8)> {
        let (place, rest) = self.marks.split_first()?;
        self.marks = rest;
        let place = *place as usize;
        Some((place, self.bytes[place]))
    }

    /// Moves to a record; false at the block's end.
    #[inline]
    fn skip_blank_lines(&mut self) -> bool {
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
    fn plain_record(&self, cells: usize) -> Option<PlainRecord<'b>> {
        let marks = self.marks.get(..cells)?;
        let (last, others) = marks.split_last()?;
        let is = |place: u32, mark: u8| self.bytes[place as usize] == mark;
        if !is(*last, b'\n') || !others.iter().all(|place| is(*place, b',')) {
            return None;
        }
        let last = *last as usize;
        let end = if last > self.at && self.bytes[last - 1] == b'\r' { last - 1 } else { last };
        Some(PlainRecord { start: self.at, marks, end })
    }

    /// Passes such a record.
    #[inline]
    fn pass(&mut self, record: &PlainRecord<'_>) {
        let (passed, rest) = self.marks.split_at(record.marks.len());
        self.at = passed.last().map_or(self.at, |last| *last as usize + 1);
        self.returns += self.at - 1 - record.end;
        self.marks = rest;
        self.lines += 1;
    }

    /// Splits one record; nothing if it is malformed.
    #[inline]
    fn record(&mut self, scratch: &mut Scratch) -> Option<()> {
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
