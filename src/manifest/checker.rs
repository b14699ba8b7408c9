//! What a check adds up over the rows: counts, names that stand twice, problems, the digest.
//!
//! The same for a file and for an upload, so that both come to the same verdict and the same digest.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::amounts::Amounts;
use super::checked::Excluded;
use super::header::Column;
use super::likeness::{Alike, Findings, Likeness};
use super::names::{Hasher, NameHash, Names, Repeat};
use super::people::WrongBeside;
use super::plan::{Good, Subject};
use super::printing;
use super::{
    CheckOptions, CheckReport, InvalidRow, Manifest, ManifestError, PROBLEMS_MAX, Problem, ROW_ID, Row, Rows,
};

/// A row that is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct GoodRow {
    pub(super) line: u64,
    /// The hashes of its name, if it has one.
    pub(super) name: Option<NameHash>,
    pub(super) good: Good,
    pub(super) likeness: Likeness,
}

/// Adds rows up, one after the other, in the manifest's order.
pub struct Checker {
    report: CheckReport,
    digest: Option<Sha256>,
    hasher: Hasher,
    names: Names,
    alike: Alike,
    amounts: Amounts,
    /// Columns, and what the file calls them, where that is something else.
    called: Vec<(String, String)>,
    /// Most problems that are kept until they are handed over.
    kept_max: usize,
}

impl Checker {
    /// With nothing added yet.
    #[must_use]
    pub fn new(options: &CheckOptions) -> Self {
        Self {
            report: CheckReport::default(),
            digest: options.digest.then(Sha256::new),
            hasher: Hasher::default(),
            names: Names::default(),
            alike: Alike::default(),
            amounts: Amounts::default(),
            called: Vec::new(),
            kept_max: PROBLEMS_MAX,
        }
    }

    /// For a caller that has each problem handed over, soon after it was found.
    pub(super) fn handing_over(options: &CheckOptions) -> Self {
        Self { kept_max: usize::MAX, ..Self::new(options) }
    }

    /// Rows added so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.report.rows
    }

    /// Rows with problems so far.
    #[must_use]
    pub fn invalid_rows(&self) -> u64 {
        self.report.invalid_rows
    }

    /// As this checker hashes names.
    pub(super) fn hasher(&self) -> Hasher {
        self.hasher.clone()
    }

    /// Whether it wants to be told what rows come to, with [`Self::add_digested`].
    pub(super) fn digests(&self) -> bool {
        self.digest.is_some()
    }

    /// Adds what the next good rows come to: of each its name and its request's fingerprint.
    pub(super) fn add_digested(&mut self, rows: &[u8]) {
        if let Some(digest) = &mut self.digest {
            digest.update(rows);
        }
    }

    /// About so many rows will come in all.
    pub(super) fn expect(&mut self, rows: u64) {
        self.names.expect(rows);
        self.alike.expect(rows);
    }

    /// Adds what is told of rows beside each other, once all of them were added.
    pub(super) fn end_of_rows(&mut self, mut each: Option<&mut dyn FnMut(Problem)>) {
        let names = std::mem::take(&mut self.names);
        let duplicates: Vec<_> = names.duplicates().collect();
        let lines: Vec<u64> = duplicates.iter().map(|(row, _)| row.line).collect();
        let Findings { problems, warnings, warning_count, boxes, people, shared } =
            self.alike.findings(&names.near(), &lines);
        self.report.cardholders = self.report.cardholders.saturating_sub(shared);
        // Both in the order of their lines, and so is what is told.
        let mut problems = problems.into_iter().peekable();
        for (Repeat { line, number, first }, good) in duplicates {
            while let Some(wrong) = problems.next_if(|wrong| wrong.problem.line < line) {
                self.add_of_person(wrong, &mut each);
            }
            self.report.excluded.push(Excluded { number, line, code: "duplicate_row_id", first });
            let reason = format!("the same row_id as on line {first}; each row needs its own");
            let problem = Problem::new(line, number, ROW_ID, "duplicate_row_id", reason);
            self.add_late(problem, good, &mut each);
        }
        for wrong in problems {
            self.add_of_person(wrong, &mut each);
        }
        let warnings: Vec<Problem> = warnings.into_iter().map(|warning| self.called(warning)).collect();
        self.add_warnings(&warnings);
        self.report.warning_count += warning_count - warnings.len() as u64;
        self.report.boxes = boxes.or(self.report.boxes.take());
        self.report.people = people.or(self.report.people.take());
        if let Some(each) = each {
            self.hand_over(each);
        }
    }

    /// Adds what is wrong with a row whose cardholder is a row's before it, and so is taken off already.
    fn add_of_person(&mut self, wrong: WrongBeside, each: &mut Option<&mut dyn FnMut(Problem)>) {
        let WrongBeside { problem, good, first } = wrong;
        let (number, line, code) = (problem.row, problem.line, problem.code);
        self.report.excluded.push(Excluded { number, line, code, first });
        self.add_late(problem, Some(Good { person: false, ..good }), each);
    }

    /// Adds what is wrong with a row beside others; `good`: what it counts as, if it is right otherwise.
    fn add_late(&mut self, problem: Problem, good: Option<Good>, each: &mut Option<&mut dyn FnMut(Problem)>) {
        if let Some(good) = good {
            self.count(good, |count| *count -= 1);
            self.report.invalid_rows += 1;
        }
        self.add_problems(&[self.called(problem)]);
        if let Some(each) = each.as_mut().filter(|_| self.report.problems.len() >= PROBLEMS_MAX) {
            self.hand_over(each);
        }
    }

    /// Whether there are physical cards, and none was seen of which could be told what is printed.
    pub(super) fn wants_example(&self) -> bool {
        self.report.printed.is_none() && self.report.physical > 0
    }

    /// Looks for a row of which can be told what is printed.
    pub(super) fn add_examples(&mut self, rows: impl Iterator<Item = Row>) {
        /// Where only a row far on has a physical card, nobody misses the example.
        const ROWS_MAX: usize = 1000;
        self.report.printed = rows.take(ROWS_MAX).find_map(|row| printing::example(&row));
    }

    /// Adds the next row, of which is known that it is right.
    pub(super) fn add_good(&mut self, GoodRow { line, name, good, likeness }: GoodRow) {
        self.report.rows += 1;
        if let Some(name) = name {
            self.names.add(name, line, self.report.rows, Some(good));
        }
        self.alike.add(likeness, good, (line, self.report.rows));
        self.count(good, |count| *count += 1);
    }

    fn count(&mut self, good: Good, one: impl Fn(&mut u64)) {
        let report = &mut self.report;
        one(match good.subject {
            Subject::Physical => &mut report.physical,
            Subject::Virtual => &mut report.r#virtual,
            Subject::Change => &mut report.changes,
            Subject::Cardholder => &mut report.cardholders,
        });
        let replaces_without = good.replaces && !good.pin && !good.chooses;
        for (is, count) in [
            (good.person, &mut report.cardholders),
            (good.pin, &mut report.pins),
            (good.cancels, &mut report.cancels),
            (good.chooses, &mut report.pins_to_choose),
            (good.replaces, &mut report.replacements),
            (replaces_without, &mut report.replacements_without_pin),
            (good.to_own_address, &mut report.to_own_addresses),
        ] {
            if is {
                one(count);
            }
        }
    }

    /// Adds rows without anything in them, which are no rows.
    pub(super) fn add_blank(&mut self, rows: u64) {
        self.report.blank_rows += rows;
    }

    /// Adds the amounts of good rows.
    pub(super) fn add_amounts(&mut self, amounts: &Amounts) {
        self.amounts.add_all(amounts);
    }

    /// Calls columns what the manifest's file calls them.
    pub(super) fn call_columns(&mut self, manifest: &Manifest) {
        let called = |column: &Column| Some((column.name.clone(), column.heading.clone()?));
        self.called = manifest.columns.iter().filter_map(called).collect();
    }

    fn called(&self, problem: Problem) -> Problem {
        let called = self.called.iter().find(|(column, _)| *column == problem.column);
        let column = called.map(|(_, heading)| heading.clone()).unwrap_or(problem.column);
        Problem { column, ..problem }
    }

    /// Adds how the file's text is read, once all of it was.
    pub(super) fn add_text(&mut self, manifest: &Manifest) {
        self.report.sheet = self.report.sheet.take().or_else(|| manifest.sheet().cloned());
        self.report.read_as = manifest.read_as();
        self.add_warnings(manifest.doubt_of_encoding().as_slice());
        if let Some(sheet) = manifest.sheet() {
            self.add_warnings(&sheet.warnings(manifest.headings_line));
        }
        let mixed =
            self.amounts.written.warnings(&manifest.amounts, &manifest.columns, manifest.headings_line);
        self.add_warnings(&mixed);
        self.report.has_amounts = manifest.has_amounts();
        self.report.headings_line = (manifest.above > 0).then_some(manifest.headings_line);
        self.report.blank_columns = manifest.blank_columns;
        self.report.separated_by = manifest.separated_by();
    }

    /// Adds what is to be told of a file beside its rows, once all of these were read.
    pub fn add_rest<M: std::borrow::Borrow<Manifest>, R>(&mut self, rows: &Rows<M, R>) {
        self.add_blank(rows.blank_rows());
        self.amounts.written.add_all(rows.written());
        self.add_text(rows.manifest());
        self.call_columns(rows.manifest());
    }

    /// Adds what is wrong with the header.
    pub(super) fn add_header(&mut self, problems: &[Problem]) {
        self.add_problems(problems);
    }

    /// Adds the next row.
    pub fn add(&mut self, row: &Result<Row, InvalidRow>) {
        self.report.rows += 1;
        let (line, number, row_id) = match row {
            Ok(row) => (row.line, row.number, row.row_id.as_deref()),
            Err(row) => (row.line, row.number, row.row_id.as_deref()),
        };
        if let Some(row_id) = row_id {
            let good = row.as_ref().ok().map(Good::of);
            self.names.add(self.hasher.hash(row_id), line, number, good);
        }
        match row {
            Ok(row) => {
                self.add_warnings(&row.warnings);
                self.amounts.add(row);
                if let Some(digest) = &mut self.digest {
                    row.digest(|bytes| digest.update(bytes));
                }
                self.alike.add(row.likeness, Good::of(row), (line, number));
                if self.report.printed.is_none() {
                    self.report.printed = printing::example(row);
                }
                self.count(Good::of(row), |count| *count += 1);
            }
            Err(row) => {
                self.add_warnings(&row.warnings);
                self.report.invalid_rows += 1;
                self.add_problems(&row.problems);
            }
        }
    }

    fn add_problems(&mut self, problems: &[Problem]) {
        let report = &mut self.report;
        report.problem_count += problems.len() as u64;
        let room = self.kept_max.saturating_sub(report.problems.len());
        report.problems.extend(problems.iter().take(room).cloned());
    }

    /// Adds what may be wrong with a row.
    pub(super) fn add_warnings(&mut self, warnings: &[Problem]) {
        let report = &mut self.report;
        report.warning_count += warnings.len() as u64;
        let room = self.kept_max.saturating_sub(report.warnings.len());
        report.warnings.extend(warnings.iter().take(room).cloned());
    }

    /// Hands over, line by line, what was added since it was last called; it is kept no longer.
    pub(super) fn hand_over(&mut self, each: &mut dyn FnMut(Problem)) {
        let mut added: Vec<_> =
            self.report.problems.drain(..).chain(self.report.warnings.drain(..)).collect();
        added.sort_by_key(|problem| problem.line);
        added.into_iter().for_each(each);
    }

    /// The report over all of them.
    ///
    /// # Errors
    /// If there was no row, and nothing else to tell.
    pub fn finish(mut self, path: &Path) -> Result<CheckReport, ManifestError> {
        self.end_of_rows(None);
        let Self { mut report, digest, amounts, .. } = self;
        if report.rows == 0 && report.problem_count == 0 {
            return Err(ManifestError::Shape {
                path: path.into(),
                reason: "there is a header but no row".into(),
            });
        }
        report.cut_off = (report.physical > 0).then(|| printing::next_cut_off(jiff::Timestamp::now()));
        report.amounts = amounts.words();
        report.digest = digest.map(|digest| digest.finalize().into());
        Ok(report)
    }
}
