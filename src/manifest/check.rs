//! A file's check: its rows are judged by all cores, block by block, and added up in their order.
//!
//! Guarantees: the verdict, problems, lines and order of reading row by row. Memory is bounded by three blocks, of which
//! one is read, one is judged and one is added up, and by the names.

use rayon::prelude::*;

use super::amounts::Amounts;
use super::blocks::{Block, Blocks};
use super::checker::{Checker, GoodRow};
use super::names::Hasher;
use super::plan::Good;
use super::records::{Parser, Record};
use super::remembered::Remembered;
use super::rows::unreadable;
use super::{Manifest, ManifestError};

/// Read at once: pieces for several cores. Of twice as much a check takes 10 MB more.
const BLOCK_BYTES: usize = 512 << 10;

/// How rows are judged.
struct Rules<'m> {
    manifest: &'m Manifest,
    hasher: Hasher,
    /// Whether a digest is wanted.
    digest: bool,
}

/// A row of a piece.
#[derive(Debug, Clone, Copy)]
enum Judged {
    /// Its line, and the hash of its name if it has one.
    Good(GoodRow),
    /// The same, and there is something to tell of it all the same: where it begins.
    Odd(GoodRow, (usize, u64)),
    /// What is wrong with it is found when it is added up: problems of many rows at once would take too much memory. So
    /// here is where it begins: byte of the piece and line, blank ones before it included.
    Invalid { at: usize, line: u64 },
}

/// What the rows of one piece came to. Its memory is used again.
#[derive(Default)]
struct Verdicts {
    rows: Vec<Judged>,
    /// Of each good row its name and its request's fingerprint, where a digest is wanted.
    digested: Vec<u8>,
    /// Rows without anything in them.
    blank: u64,
    /// Those of the good rows.
    amounts: Amounts,
    /// Of records with several lines how many rows there were up to each, and how many lines' ends are in it.
    folds: Vec<(usize, u64)>,
}

impl Verdicts {
    fn judge(&mut self, (piece, mut line): (&[u8], u64), judge: &mut Judge, rules: &Rules<'_>) {
        let Judge { parser, remembered } = judge;
        self.rows.clear();
        self.digested.clear();
        self.blank = 0;
        self.amounts.clear();
        self.folds.clear();
        let mut unparsed = piece;
        loop {
            let begin = (piece.len() - unparsed.len(), line);
            let Some(record) = parser.next(&mut unparsed, &mut line) else { return };
            let lines = record.lines;
            if record.is_blank() {
                self.blank += 1;
                self.fold(lines);
                continue;
            }
            let judged = rules.judge(&record, remembered, (&mut self.digested, &mut self.amounts));
            self.rows.push(match judged {
                Some((row, false)) => Judged::Good(row),
                Some((row, true)) => Judged::Odd(row, begin),
                None => Judged::Invalid { at: begin.0, line: begin.1 },
            });
            self.fold(lines);
        }
    }
}

impl Verdicts {
    /// A record with so many lines' ends in it.
    fn fold(&mut self, lines: u64) {
        if lines > 0 {
            self.folds.push((self.rows.len(), lines));
        }
    }
}

impl Rules<'_> {
    /// What is known of a row that is right, and whether there is something to tell of it; nothing if something is wrong with
    /// it.
    fn judge(
        &self,
        record: &Record<'_>,
        remembered: &mut Remembered,
        (digested, amounts): (&mut Vec<u8>, &mut Amounts),
    ) -> Option<(GoodRow, bool)> {
        let line = record.line;
        let hash = |name: &str| self.hasher.hash(name);
        if !self.digest
            && let Some((name, good, likeness)) = self.manifest.judge_by_plan(record, remembered, amounts)
        {
            return Some((GoodRow { line, name: name.map(hash), good, likeness }, false));
        }
        self.manifest.look_at_amounts(record, &mut amounts.written);
        let row = self.manifest.row(record, 0).ok()?;
        amounts.add(&row);
        if self.digest {
            row.digest(|bytes| digested.extend_from_slice(bytes));
        }
        let (name, good, likeness) = (row.row_id.as_deref().map(hash), Good::of(&row), row.likeness);
        Some((GoodRow { line, name, good, likeness }, !row.warnings.is_empty()))
    }
}

/// What judges one piece after the other.
struct Judge {
    parser: Parser,
    remembered: Remembered,
}

/// A block, and what its rows came to.
#[derive(Default)]
struct Round {
    block: Block,
    /// As many as the block has pieces, or more.
    verdicts: Vec<Verdicts>,
}

impl Round {
    /// Judges all pieces at once, each with a judge of its own.
    fn judge(&mut self, judges: &mut Vec<Judge>, rules: &Rules<'_>) {
        let pieces: Vec<_> = self.block.pieces().collect();
        self.verdicts.resize_with(pieces.len().max(self.verdicts.len()), Verdicts::default);
        let manifest = rules.manifest;
        let judge = || Judge {
            parser: manifest.parser(),
            remembered: Remembered::of(&manifest.columns, &manifest.likes),
        };
        judges.resize_with(pieces.len().max(judges.len()), judge);
        let verdicts = self.verdicts.par_iter_mut().zip(judges).zip(pieces);
        // Each piece by itself, so that none waits behind another while a thread has nothing to do.
        verdicts.with_max_len(1).for_each(|((verdicts, judge), piece)| verdicts.judge(piece, judge, rules));
    }
}

/// Adds rounds up, one after the other.
struct Adder<'a> {
    manifest: &'a Manifest,
    checker: &'a mut Checker,
    parser: Parser,
    /// Records that are no rows: the headings, and what stands above them.
    header_left: u64,
    /// Lines so far that spreadsheets show as none.
    folded: u64,
}

impl Adder<'_> {
    fn add(&mut self, round: &Round) {
        for ((piece, _), verdicts) in round.block.pieces().zip(&round.verdicts) {
            self.checker.add_digested(&verdicts.digested);
            self.checker.add_blank(verdicts.blank);
            self.checker.add_amounts(&verdicts.amounts);
            let mut folds = verdicts.folds.iter().peekable();
            for (at, row) in verdicts.rows.iter().enumerate() {
                while let Some((_, lines)) = folds.next_if(|(rows, _)| *rows <= at) {
                    self.folded += lines;
                }
                if self.header_left > 0 {
                    self.header_left -= 1;
                    continue;
                }
                match *row {
                    Judged::Good(row) => self.checker.add_good(row),
                    Judged::Odd(row, (at, mut begin)) => {
                        self.checker.add_good(row);
                        let number = self.checker.rows();
                        let again = self.parser.next(&mut &piece[at..], &mut begin);
                        let folded = self.folded;
                        let row = again.map(|record| self.manifest.row(&record.after(folded), number));
                        if let Some(Ok(row)) = row {
                            self.checker.add_warnings(&row.warnings);
                        }
                    }
                    Judged::Invalid { at, mut line } => {
                        if let Some(record) = self.parser.next(&mut &piece[at..], &mut line) {
                            let number = self.checker.rows() + 1;
                            self.checker.add(&self.manifest.row(&record.after(self.folded), number));
                        }
                    }
                }
            }
            self.folded += folds.map(|(_, lines)| lines).sum::<u64>();
        }
        if let Some((line, flaw)) = round.block.flaw {
            let number = self.checker.rows() + 1;
            let record = Record::flawed(line, flaw).after(self.folded);
            self.checker.add(&self.manifest.row(&record, number));
        }
    }
}

impl Manifest {
    /// For its rows, as they are to be read.
    fn parser(&self) -> Parser {
        let mut parser = Parser::new(self.delimiter);
        parser.change(self.reading.edits.clone(), self.filling.clone(), self.own_columns());
        parser
    }

    /// Adds all rows of the file up; `added` is called after each block.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub(super) fn check_rows(
        &self,
        checker: &mut Checker,
        added: &mut dyn FnMut(&mut Checker),
    ) -> Result<(), ManifestError> {
        let source = self.source()?;
        let length = source.length();
        let mut blocks = Blocks::new(self.text(source)?, BLOCK_BYTES, self.delimiter);
        let rules = Rules { manifest: self, hasher: checker.hasher(), digest: checker.digests() };
        let parser = self.parser();
        let (header_left, folded) = (self.above + 1, self.declared);
        let mut adder = Adder { manifest: self, checker, parser, header_left, folded };
        // While one round is judged, the one before it is added up and the one after it is read.
        let (mut rounds, mut judges): ([Round; 3], Vec<Judge>) = Default::default();
        let mut is_read = blocks.next(&mut rounds[1].block);
        loop {
            let [before, current, after] = &mut rounds;
            let next = rayon::in_place_scope(|scope| {
                let more = matches!(is_read, Ok(true));
                if more {
                    scope.spawn(|_| current.judge(&mut judges, &rules));
                }
                let is_first = adder.checker.rows() == 0;
                adder.add(before);
                if is_first {
                    adder.checker.expect(length / BLOCK_BYTES as u64 * adder.checker.rows());
                }
                added(adder.checker);
                if more { blocks.next(&mut after.block) } else { Ok(false) }
            });
            match std::mem::replace(&mut is_read, next) {
                Ok(true) => rounds.rotate_left(1),
                Ok(false) => return Ok(()),
                Err(error) => {
                    let number = adder.checker.rows() + 1;
                    adder.checker.add(&Err(unreadable(blocks.line(), number, &error)));
                    return Ok(());
                }
            }
        }
    }
}
