//! What a check adds up over the rows: counts, names that stand twice, problems, the digest.
//!
//! The same for a file and for an upload, so that both come to the same verdict and the same digest.

use std::num::NonZeroU64;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::names::{Hasher, Names};
use super::plan::{Good, Subject};
use super::{
    CheckOptions, CheckReport, InvalidRow, Manifest, ManifestError, PROBLEMS_MAX, Problem, ROW_ID, Row, Rows,
};

/// Adds rows up, one after the other, in the manifest's order.
pub struct Checker {
    report: CheckReport,
    digest: Option<Sha256>,
    hasher: Hasher,
    names: Names,
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
    }

    /// Adds the next row, of which is known that it is right, and the hash of its name.
    pub(super) fn add_good(&mut self, line: u64, name: Option<NonZeroU64>, good: Good) {
        self.report.rows += 1;
        match name.and_then(|name| self.names.insert(name.get(), line)) {
            None => self.count(good),
            Some(first) => self.add_invalid(&[], Some(name_twice(line, self.report.rows, first))),
        }
    }

    fn count(&mut self, good: Good) {
        let report = &mut self.report;
        let count = match good.subject {
            Subject::Physical => &mut report.physical,
            Subject::Virtual => &mut report.r#virtual,
            Subject::Change => &mut report.changes,
            Subject::Cardholder => &mut report.cardholders,
        };
        *count += 1;
        report.cardholders += u64::from(good.person);
        report.pins += u64::from(good.pin);
        report.cancels += u64::from(good.cancels);
        report.pins_to_choose += u64::from(good.chooses);
        report.replacements += u64::from(good.replaces);
        report.replacements_without_pin += u64::from(good.replaces && !good.pin && !good.chooses);
    }

    /// Adds rows without anything in them, which are no rows.
    pub(super) fn add_blank(&mut self, rows: u64) {
        self.report.blank_rows += rows;
    }

    /// Adds how the file's text is read, once all of it was.
    pub(super) fn add_text(&mut self, manifest: &Manifest) {
        self.report.sheet = self.report.sheet.take().or_else(|| manifest.sheet().map(str::to_owned));
        self.report.read_as = manifest.read_as();
        self.report.blank_columns = manifest.blank_columns();
        self.report.separated_by = manifest.separated_by();
    }

    /// Adds what is to be told of a file beside its rows, once all of these were read.
    pub fn add_rest<M: std::borrow::Borrow<Manifest>, R>(&mut self, rows: &Rows<M, R>) {
        self.add_blank(rows.blank_rows());
        self.add_text(rows.manifest());
    }

    /// Adds what is wrong with the header.
    pub(super) fn add_header(&mut self, problems: &[Problem]) {
        self.add_problems(problems, None);
    }

    /// Adds the next row.
    pub fn add(&mut self, row: &Result<Row, InvalidRow>) {
        self.report.rows += 1;
        let (line, number, row_id) = match row {
            Ok(row) => (row.line, row.number, row.row_id.as_deref()),
            Err(row) => (row.line, row.number, row.row_id.as_deref()),
        };
        let twice = row_id
            .and_then(|row_id| self.names.insert(self.hasher.hash(row_id.as_bytes()), line))
            .map(|first| name_twice(line, number, first));
        match row {
            Ok(row) => {
                self.add_warnings(&row.warnings);
                if let Some(digest) = &mut self.digest {
                    row.digest(|bytes| digest.update(bytes));
                }
                if twice.is_none() {
                    self.count(Good::of(row));
                }
                self.add_invalid(&[], twice);
            }
            Err(row) => {
                self.add_warnings(&row.warnings);
                self.add_invalid(&row.problems, twice);
            }
        }
    }

    fn add_invalid(&mut self, problems: &[Problem], twice: Option<Problem>) {
        if !problems.is_empty() || twice.is_some() {
            self.report.invalid_rows += 1;
            self.add_problems(problems, twice);
        }
    }

    fn add_problems(&mut self, problems: &[Problem], twice: Option<Problem>) {
        let report = &mut self.report;
        report.problem_count += problems.len() as u64 + u64::from(twice.is_some());
        let room = self.kept_max.saturating_sub(report.problems.len());
        report.problems.extend(problems.iter().cloned().chain(twice).take(room));
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
    pub fn finish(self, path: &Path) -> Result<CheckReport, ManifestError> {
        let Self { mut report, digest, .. } = self;
        if report.rows == 0 && report.problem_count == 0 {
            return Err(ManifestError::Shape {
                path: path.into(),
                reason: "there is a header but no row".into(),
            });
        }
        report.digest = digest.map(|digest| digest.finalize().into());
        Ok(report)
    }
}

fn name_twice(line: u64, row: u64, first: u64) -> Problem {
    let reason = format!("the same row_id as on line {first}; each row needs its own");
    Problem::new(line, row, ROW_ID, "duplicate_row_id", reason)
}
