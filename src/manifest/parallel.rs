//! The fast way through a file: blocks of records judged side by side, added up in order.
//!
//! Guarantees: the same verdict, problems, lines and order as reading record by record. Each block proves that its
//! quotes and carriage returns stand where a well-formed CSV has them; if one cannot, the file is read record by record
//! from that block on. Memory is bounded by three rounds of [`ROUND_BLOCKS`] blocks each, one being read, one judged and
//! one added up, and the names.

use std::num::NonZeroU64;

use memchr::memchr_iter;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::blocks::{Block, Blocks, Cut};
use super::checker::Checker;
use super::delimiters::Delimiters;
use super::names::Hasher;
use super::plan::{Good, Plan};
use super::records::{Record, Records};
use super::snapshot::Source;
use super::split::{Scratch, Split};
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

/// A place in a block, and what its judge needs there.
#[derive(Default)]
struct Slot {
    block: Block,
    delimiters: Delimiters,
    judged: Judged,
}

/// Blocks that are checked together: read, then judged, then added up.
#[derive(Default)]
struct Round {
    slots: Vec<Slot>,
    /// How many of the slots hold a block.
    filled: usize,
    last: Option<Cut>,
}

/// Why the check by blocks ends.
enum Ended {
    /// All was read.
    AtEnd,
    /// From this offset on it must be read record by record.
    Odd(u64),
}

impl Round {
    fn read(&mut self, blocks: &mut Blocks<Source>) {
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

    /// Adds its rows up; answers why the check by blocks ends, if it does.
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
    pub(super) fn check_blocks(
        &self,
        plan: &Plan,
        mut at: (u64, u64),
        checker: &mut Checker,
        added: &mut dyn FnMut(&mut Checker),
    ) -> std::io::Result<Option<Records<Source>>> {
        let source = self.source_at(at.0)?;
        let file_bytes = source.length()?;
        let mut blocks = Blocks::new(source, at.0);
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
                Some(Ended::Odd(offset)) => return Ok(Some(Records::within(self.source_at(offset)?, at.1))),
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
        let Self { block, delimiters, judged } = self;
        judged.rows.clear();
        judged.invalid.clear();
        judged.digested.clear();
        judged.lines = 0;
        judged.odd = judged.judge(block, delimiters, judge).is_none();
    }
}

impl Judged {
    /// Judges every row; nothing if the block is not as well-formed as it must be.
    fn judge(&mut self, block: &Block, delimiters: &mut Delimiters, judge: &Judge<'_>) -> Option<()> {
        let Judge { manifest, plan, hasher, digests } = judge;
        let bytes = block.bytes();
        simdutf8::basic::from_utf8(bytes).ok()?;
        delimiters.find(bytes);
        let (has_returns, delimiters) = (delimiters.has_returns(), delimiters.places());
        let mut split = Split { bytes, delimiters, has_returns, at: 0, quotes: 0, returns: 0, lines: 0 };
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
