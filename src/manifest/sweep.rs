//! The fast way through a file: blocks of records judged side by side, added up in order.
//!
//! Guarantees: the same verdict, problems, lines and order as reading record by record. Each block proves that its
//! quotes and carriage returns stand where a well-formed CSV has them; if one cannot, the file is read record by record
//! from that block on. Memory is bounded by [`ROUND_BLOCKS`] blocks twice over, one round judged while the next is
//! read, and the names.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::num::NonZeroU64;

use memchr::{memchr, memchr_iter, memchr2};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::blocks::{Block, Blocks, Cut};
use super::checker::Checker;
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
    lines: u64,
    odd: bool,
    scratch: Scratch,
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
    judged: Judged,
}

/// What was read for one round.
#[derive(Default)]
struct Round {
    slots: Vec<Slot>,
    /// How many of the slots hold a block.
    filled: usize,
    last: Option<Cut>,
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
        (mut offset, mut line): (u64, u64),
        checker: &mut Checker,
        added: &mut dyn FnMut(&mut Checker),
    ) -> std::io::Result<Option<Records<File>>> {
        let open = |offset| {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(offset))?;
            std::io::Result::Ok(file)
        };
        let file = open(offset)?;
        let file_bytes = file.metadata()?.len();
        let mut blocks = Blocks::new(file, offset);
        let hasher = checker.hasher();
        let (mut round, mut next) = (Round::default(), Round::default());
        round.read(&mut blocks);
        loop {
            let Round { slots, filled, last } = &mut round;
            let more = last.is_none();
            rayon::join(
                || slots[..*filled].par_iter_mut().for_each(|slot| slot.judge(self, plan, &hasher)),
                || {
                    if more {
                        next.read(&mut blocks)
                    }
                },
            );
            if checker.rows() == 0 && plan.row_id_column().is_some() {
                checker.expect(rows_expected(&slots[..*filled], file_bytes));
            }
            for slot in &mut slots[..*filled] {
                if slot.judged.odd {
                    offset = slot.block.offset;
                    return Ok(Some(Records::within(open(offset)?, line)));
                }
                slot.judged.add_to(checker, line);
                line += slot.judged.lines;
                offset = slot.block.offset + slot.block.bytes().len() as u64;
                added(checker);
            }
            match last {
                Some(Cut::End) => return Ok(None),
                Some(_) => return Ok(Some(Records::within(open(offset)?, line))),
                None => std::mem::swap(&mut round, &mut next),
            }
        }
    }
}

/// How many rows a file has, if all are like those of its first blocks.
fn rows_expected(slots: &[Slot], file_bytes: u64) -> u64 {
    let rows: usize = slots.iter().map(|slot| slot.judged.rows.len()).sum();
    let bytes: usize = slots.iter().map(|slot| slot.block.bytes().len()).sum();
    (file_bytes / bytes.max(1) as u64 + 1).saturating_mul(rows as u64)
}

impl Slot {
    fn judge(&mut self, manifest: &Manifest, plan: &Plan, hasher: &Hasher) {
        let Self { block, judged } = self;
        judged.rows.clear();
        judged.invalid.clear();
        judged.lines = 0;
        judged.odd = judged.judge(block, manifest, plan, hasher).is_none();
    }
}

impl Judged {
    /// Judges every row; nothing if the block is not as well-formed as it must be.
    fn judge(&mut self, block: &Block, manifest: &Manifest, plan: &Plan, hasher: &Hasher) -> Option<()> {
        let bytes = block.bytes();
        std::str::from_utf8(bytes).ok()?;
        let has_returns = memchr(b'\r', bytes).is_some();
        let mut split = Split { bytes, at: 0, quotes: 0, returns: 0, lines: 0 };
        while split.skip_blank_lines() {
            let line = split.lines;
            let scratch = &mut self.scratch;
            split.record(scratch)?;
            let cell = |at: usize| scratch.cell(bytes, at);
            let counted = scratch.cells.len() == manifest.columns.len();
            let good = if counted { plan.judge(cell) } else { None };
            let row_id = plan.row_id_column().filter(|_| counted).map(cell).filter(|name| !name.is_empty());
            let name = row_id.and_then(|name| NonZeroU64::new(hasher.hash(name)));
            let verdict = match good {
                Some(good) => Verdict::Good(good),
                None => self.long_way(bytes, manifest, line)?,
            };
            self.rows.push(Seen { name, line: u32::try_from(line).ok()?, verdict });
        }
        self.lines = split.lines;
        // Every quote was one around a cell or doubled within one, every return before a line's end or within quotes.
        let returns = if has_returns { memchr_iter(b'\r', bytes).count() } else { 0 };
        (split.quotes == block.quotes && split.returns == returns).then_some(())
    }

    /// Says what is wrong with the row in the scratch; nothing if too many are.
    fn long_way(&mut self, bytes: &[u8], manifest: &Manifest, line: u64) -> Option<Verdict> {
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
                Some(Verdict::Invalid)
            }
            // The plan said nothing of a row that is right after all.
            Ok(row) => {
                Some(Verdict::Good(Good { physical: row.card.kind() == "physical", pin: row.pin.is_some() }))
            }
        }
    }

    /// Adds the rows up, the first of which stands on this line.
    fn add_to(&mut self, checker: &mut Checker, first_line: u64) {
        let mut invalid = self.invalid.drain(..);
        let before = checker.rows();
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

/// Goes through a block, cell by cell.
struct Split<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Quotes that stood where they should.
    quotes: usize,
    /// Carriage returns that did.
    returns: usize,
    /// Ends of lines that were passed.
    lines: u64,
}

impl Split<'_> {
    /// Moves to a record; false at the block's end.
    #[inline]
    fn skip_blank_lines(&mut self) -> bool {
        loop {
            match self.bytes.get(self.at) {
                None => return false,
                Some(b'\n') => self.lines += 1,
                Some(b'\r') if self.bytes.get(self.at + 1) == Some(&b'\n') => self.returns += 1,
                Some(_) => return true,
            }
            self.at += 1;
        }
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

    /// A cell without quotes; true if another follows.
    #[inline]
    fn plain(&mut self, scratch: &mut Scratch) -> bool {
        let start = self.at;
        let end =
            memchr2(b',', b'\n', &self.bytes[start..]).map_or(self.bytes.len(), |length| start + length);
        self.at = (end + 1).min(self.bytes.len());
        let more = self.bytes.get(end) == Some(&b',');
        let mut cell_end = end;
        if !more && end < self.bytes.len() && end > start && self.bytes[end - 1] == b'\r' {
            cell_end -= 1;
            self.returns += 1;
        }
        scratch.cells.push(Cell { start, end: cell_end, unescaped: false });
        more
    }

    /// A cell in quotes; true if another follows.
    fn quoted(&mut self, scratch: &mut Scratch) -> Option<bool> {
        let open = self.at;
        let unescaped_start = scratch.unescaped.len();
        let (mut from, mut doubled) = (open + 1, false);
        let close = loop {
            let close = from + memchr(b'"', &self.bytes[from..])?;
            if self.bytes.get(close + 1) != Some(&b'"') {
                break close;
            }
            // One of the two belongs to the text.
            scratch.unescaped.extend_from_slice(&self.bytes[from..=close]);
            (from, doubled) = (close + 2, true);
            self.quotes += 2;
        };
        self.quotes += 2;
        let cell = if doubled {
            scratch.unescaped.extend_from_slice(&self.bytes[from..close]);
            Cell { start: unescaped_start, end: scratch.unescaped.len(), unescaped: true }
        } else {
            Cell { start: open + 1, end: close, unescaped: false }
        };
        scratch.cells.push(cell);
        let inside = &self.bytes[open..close];
        self.lines += memchr_iter(b'\n', inside).count() as u64;
        for at in memchr_iter(b'\r', inside) {
            self.returns += 1;
            // One that ends a line by itself; `close` is a byte, so there is one after each.
            self.lines += u64::from(self.bytes[open + at + 1] != b'\n');
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
        self.at = close + 1 + after;
        Some(more)
    }
}
