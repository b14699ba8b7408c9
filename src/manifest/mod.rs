//! A manifest: a table whose columns are Stripe's parameters in bracket form, plus `row_id`. Its rows are cards to create, with
//! or without their cardholders, cardholders alone, or changes of cards ([`contents`]).
//!
//! Read as a stream, row by row, from its file each time; never held whole. Whoever issues it reads what was checked
//! ([`snapshot`]). Every problem names its line and column. Never: a PIN or a JWE in a problem, or in memory after it was read: buffers are wiped.

pub mod amounts;
pub mod batch;
mod blocks;
pub mod cancellation;
pub mod cancelled;
mod check;
pub mod checked;
mod checker;
mod code_page;
pub mod columns;
mod contents;
mod country_of_text;
mod cutter;
pub mod dates;
pub mod edits;
mod encoding;
pub mod file_names;
mod filling;
mod header;
mod headings;
mod ids;
pub mod known;
mod likeness;
mod lint;
mod mapping;
mod misread;
mod misshapen;
mod mixed_amounts;
mod names;
pub mod nearby;
mod nobody;
mod other_kinds;
mod own_address;
mod parts;
mod people;
pub mod persons;
mod plan;
mod printing;
mod problem;
pub mod proposal;
mod quotes;
mod reading;
pub mod recognise;
pub mod recognised;
mod records;
mod remembered;
mod report;
mod respelt;
mod row;
mod rows;
pub mod sheet;
pub mod snapshot;
mod stream;
pub mod table;
pub mod template;
mod text;
mod titles;
pub mod work;

use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::operation::Operation;
use amounts::AmountColumns;
use contents::Contents;
use filling::Filling;
use header::{Column, Header};
use likeness::Likes;
use lint::Lints;
use plan::Plan;
use records::Records;
use sheet::Sheet;
use snapshot::{Snapshot, Source};
use text::{ReadAs, Text};

pub use checker::Checker;
pub use problem::{Problem, Severity};
pub use reading::{NO_ENCODING, Reading};
pub use report::{CheckOptions, CheckReport, counted, waits};
pub use row::{InvalidRow, Row};
pub use rows::Rows;
pub use stream::ManifestStream;

/// Longest cell, in bytes: Stripe's longest value has 5,000 characters, of up to four bytes each.
const CELL_BYTES_MAX: usize = 20_000;
/// Most problems kept; their number is counted on.
pub(crate) const PROBLEMS_MAX: usize = 1000;
/// The column that names a row.
const ROW_ID: &str = "row_id";
/// The code of the problem that a file cannot be read on.
const UNREADABLE: &str = "unreadable";
/// Longest `row_id`, in bytes, so that it makes a job id together with a batch's name.
const ROW_ID_BYTES_MAX: usize = 200;

/// Why a manifest cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is not a manifest.
    #[error("{path}: {reason}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Its header has problems.
    #[error("{path}: {}", problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; "))]
    Header {
        /// The file.
        path: PathBuf,
        /// All of them.
        problems: Vec<Problem>,
    },
}

impl ManifestError {
    /// What is wrong, in the form of problems: of the header each, of the file as a whole one on line 1.
    #[must_use]
    pub fn into_problems(self) -> Vec<Problem> {
        let (code, reason) = match self {
            Self::Header { problems, .. } => return problems,
            Self::Read { source, .. } => (UNREADABLE, source.to_string()),
            Self::Shape { reason, .. } => ("not_a_manifest", reason),
        };
        vec![Problem::new(1, 0, "", code, reason)]
    }
}

/// A manifest whose header makes sense.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    reading: Reading,
    /// What its text is read as, once that is known and not UTF-8.
    read_as: ReadAs,
    /// What separates its cells.
    delimiter: u8,
    /// Lines before the first that a spreadsheet shows: that which declares the delimiter.
    declared: u64,
    /// The line of the headings, from 1.
    headings_line: u64,
    /// Rows above them with something in them.
    above: u64,
    /// What the file is held to; none: it is read as it is.
    snapshot: Option<Snapshot>,
    contents: Contents,
    columns: Vec<Column>,
    /// What is done to each record before it is read.
    filling: Option<Arc<Filling>>,
    /// The places of the columns that say whose a row is.
    person: Vec<usize>,
    /// Columns without a heading.
    blank_columns: u64,
    /// What is wrong with the header; empty unless the rows are only to be checked.
    header_problems: Vec<Problem>,
    /// Which rows are right is told by it, if there is one.
    plan: Option<Plan>,
    lints: Lints,
    likes: Likes,
    amounts: AmountColumns,
}

impl Manifest {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    /// If it is no manifest: all problems of the header at once.
    pub fn open(path: &Path) -> Result<Self, ManifestError> {
        Self::inspect(path, &Reading::default())?.sound()
    }

    /// As [`Self::open`], of what the snapshot is of: check and rows read what it saw, or fail.
    ///
    /// # Errors
    /// As [`Self::open`], and if the file changed meanwhile.
    pub fn open_held(snapshot: Snapshot, reading: &Reading) -> Result<Self, ManifestError> {
        let path = snapshot.path().to_owned();
        Self::inspect_held(path, snapshot, reading)?.sound()
    }

    fn inspect_held(path: PathBuf, snapshot: Snapshot, reading: &Reading) -> Result<Self, ManifestError> {
        let source =
            snapshot.reader().map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        let (mut manifest, _) = Self::begin(&path, source, &reading.of_text(&snapshot))?;
        manifest.snapshot = Some(snapshot);
        manifest.settle_dates()?;
        Ok(manifest)
    }

    /// As [`Self::open`], but for a check: the rows can be checked though the header has problems, all but those of a
    /// PIN in the clear.
    ///
    /// # Errors
    /// If it is no manifest, or a column holds PINs in the clear.
    pub fn inspect(path: &Path, reading: &Reading) -> Result<Self, ManifestError> {
        let mut file = open(path)?;
        let read = |source| ManifestError::Read { path: path.into(), source };
        if sheet::is_spreadsheet(&start_of(&mut file).map_err(read)?) {
            return Self::inspect_held(path.into(), Snapshot::of(path, reading)?, reading);
        }
        let (mut manifest, _) = Self::begin(path, file, reading)?;
        manifest.settle_dates()?;
        Ok(manifest)
    }

    fn of_header(
        path: &Path,
        header: Header,
        reading: &Reading,
        read_as: ReadAs,
        (delimiter, declared): (u8, u64),
    ) -> Result<Self, ManifestError> {
        let Header { line, above, contents, columns, filling, person, blank_columns, problems } = header;
        if problems.iter().any(|problem| problem.code == "pin_in_clear") {
            return Err(ManifestError::Header { path: path.into(), problems });
        }
        let plan = Plan::of(contents, &columns);
        let likes = Likes::of(&columns);
        let amounts = AmountColumns::of(&columns);
        let today = jiff::Zoned::now();
        let lints = Lints::of(&columns, (today.year().into(), today.month().into()));
        Ok(Self {
            path: path.into(),
            reading: reading.clone(),
            read_as,
            delimiter,
            declared,
            headings_line: line,
            above,
            snapshot: None,
            contents,
            columns,
            filling,
            person,
            blank_columns,
            header_problems: problems,
            plan,
            lints,
            likes,
            amounts,
        })
    }

    /// The same, but every row is judged by the rules of requests: what the plan is held against.
    #[must_use]
    pub fn without_plan(mut self) -> Self {
        self.plan = None;
        self
    }

    /// What its rows are about.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.contents.operation
    }

    /// Whether columns were named that say whose a row is.
    #[must_use]
    pub fn names_persons(&self) -> bool {
        !self.person.is_empty()
    }

    /// What the file calls a column.
    #[must_use]
    pub fn heading_of<'m>(&'m self, column: &'m str) -> &'m str {
        let known = self.columns.iter().find(|known| known.name == column);
        known.and_then(|known| known.heading.as_deref()).unwrap_or(column)
    }

    /// Without problems in the header.
    fn sound(self) -> Result<Self, ManifestError> {
        if self.header_problems.is_empty() {
            return Ok(self);
        }
        Err(ManifestError::Header { path: self.path, problems: self.header_problems })
    }

    /// The rows, from the first; blocks on the file.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub fn rows(&self) -> Result<Rows<&Self, impl Read + use<>>, ManifestError> {
        Ok(Rows::new(self, self.records()?))
    }

    /// Its records, from the first row's.
    fn records(&self) -> Result<Records<Text<Source>>, ManifestError> {
        let mut records = Records::new(self.text(self.source()?)?, self.delimiter);
        records.fold(self.declared);
        header::pass(&mut records, self.above)
            .map_err(|source| ManifestError::Read { path: self.path.clone(), source })?;
        records.change(self.reading.edits.clone(), self.filling.clone(), self.own_columns());
        Ok(records)
    }

    /// How many columns the file has itself, without those of the columns file's defaults.
    fn own_columns(&self) -> usize {
        self.filling.as_ref().map_or(self.columns.len(), |filling| filling.own)
    }

    /// The same text, once more.
    fn text(&self, source: Source) -> Result<Text<Source>, ManifestError> {
        Text::of(&self.path, source, &self.reading, self.read_as.clone())
    }

    /// What separates its cells, if no commas do.
    #[must_use]
    pub fn separated_by(&self) -> Option<&'static str> {
        match self.delimiter {
            b';' => Some("semicolons"),
            b'\t' => Some("tabs"),
            b'|' => Some("vertical bars"),
            _ => None,
        }
    }

    /// Whether it has a column of amounts.
    fn has_amounts(&self) -> bool {
        !self.amounts.is_empty()
    }

    /// The sheet that its rows are from, if it is a spreadsheet.
    #[must_use]
    pub fn sheet(&self) -> Option<&Sheet> {
        self.reading.made_of.as_deref()
    }

    /// What its text was saved as, if it was read and is not UTF-8.
    #[must_use]
    pub fn read_as(&self) -> Option<&'static str> {
        self.read_as.get().map(|saved_as| encoding::called(saved_as.encoding))
    }

    /// What is to be told of how its text was saved, once it was read.
    fn doubt_of_encoding(&self) -> Option<Problem> {
        let reason = self.read_as.get()?.doubt()?;
        let problem = Problem::new(self.headings_line, 0, "", "encoding", reason);
        Some(Problem { severity: Severity::Warning, ..problem })
    }

    /// Its bytes, from the first.
    fn source(&self) -> Result<Source, ManifestError> {
        let opened = match &self.snapshot {
            Some(snapshot) => snapshot.reader().map(Source::Snapshot),
            None => File::open(&self.path).map(Source::File),
        };
        opened.map_err(|source| ManifestError::Read { path: self.path.clone(), source })
    }

    /// Reads every row and tells every problem, of which the report keeps the first.
    ///
    /// # Errors
    /// If the file cannot be read, or has no rows.
    pub fn check(
        &self,
        options: &CheckOptions,
        progress: &dyn Fn(u64),
    ) -> Result<CheckReport, ManifestError> {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let mut report = self.check_each(options, progress, &mut |found| {
            let kept = if found.severity == Severity::Problem { &mut problems } else { &mut warnings };
            if kept.len() < PROBLEMS_MAX {
                kept.push(found);
            }
        })?;
        (report.problems, report.warnings) = (problems, warnings);
        Ok(report)
    }

    /// Reads every row and hands every problem over, in the order of lines; the report keeps none.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_each(
        &self,
        options: &CheckOptions,
        progress: &dyn Fn(u64),
        each: &mut dyn FnMut(Problem),
    ) -> Result<CheckReport, ManifestError> {
        let mut checker = Checker::handing_over(options);
        checker.call_columns(self);
        checker.add_header(&self.header_problems);
        checker.hand_over(each);
        self.check_rows(&mut checker, &mut |checker| {
            checker.hand_over(each);
            progress(checker.rows());
        })?;
        checker.add_text(self);
        checker.end_of_rows(Some(each));
        if checker.wants_example() {
            checker.add_examples(self.rows()?.filter_map(Result::ok));
        }
        checker.finish(&self.path)
    }
}

/// The first bytes of a file, which are read again afterwards.
fn start_of(file: &mut File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(sheet::START_BYTES as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start)
}

/// Opens a file that can be read more than once.
fn open(path: &Path) -> Result<File, ManifestError> {
    let read = |source| ManifestError::Read { path: path.into(), source };
    // Told before it is opened: to open a pipe is to wait for its writer.
    let kind = std::fs::metadata(path).map_err(read)?;
    let reason = match (kind.is_dir(), kind.is_file()) {
        (true, _) => "is a folder, not a manifest",
        (_, true) => return File::open(path).map_err(read),
        (_, false) => "is not a regular file; a manifest is read more than once, so save it to a file first",
    };
    Err(ManifestError::Shape { path: path.into(), reason: reason.into() })
}
