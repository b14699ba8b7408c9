//! A manifest: a CSV whose columns are Stripe's parameters in bracket form, plus `row_id`.
//!
//! Read as a stream, row by row, from its file each time; never held whole. Every problem names its line and
//! column. Never: a PIN or a JWE in a problem.
//!
//! A cell's memory is the csv crate's while a row is read; it is written over by the next row, not wiped.

pub mod batch;
mod checker;
mod stream;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::card::{self, CardRequest, params};
use crate::pin::PinJwe;

pub use checker::Checker;
pub use stream::{ManifestStream, StreamedRows};

/// Longest cell, in bytes: Stripe's longest value has 5,000 characters, of up to four bytes each.
const CELL_BYTES_MAX: usize = 20_000;
/// Most problems kept; their number is counted on.
const PROBLEMS_MAX: usize = 1000;
/// The column that names a row.
const ROW_ID: &str = "row_id";
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

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file's line, from 1.
    pub line: u64,
    /// The data row's number, from 1; 0 for the header.
    pub row: u64,
    /// The column's name.
    pub column: String,
    /// A code to switch on.
    pub code: &'static str,
    /// What is wrong.
    pub reason: String,
    /// A near match.
    pub suggestion: Option<String>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "line {}, column {}: {}", self.line, self.column, self.reason)?;
        if let Some(suggestion) = &self.suggestion {
            write!(formatter, " (did you mean {suggestion}?)")?;
        }
        Ok(())
    }
}

/// A row that can be a job.
#[derive(Debug)]
pub struct Row {
    /// The data row's number, from 1.
    pub number: u64,
    /// Its line in the file, from 1.
    pub line: u64,
    /// Its name, if the manifest has them.
    pub row_id: Option<String>,
    /// What to ask Stripe for.
    pub card: CardRequest,
    /// The encrypted PIN.
    pub pin: Option<PinJwe>,
}

/// A row that cannot.
#[derive(Debug)]
pub struct InvalidRow {
    /// The data row's number, from 1.
    pub number: u64,
    /// Its line in the file, from 1.
    pub line: u64,
    /// Its name, if it could be read.
    pub row_id: Option<String>,
    /// Why.
    pub problems: Vec<Problem>,
}

/// What to find out besides problems.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Whether to digest the rows, PINs left out.
    pub digest: bool,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// Data rows.
    pub rows: u64,
    /// Those with problems.
    pub invalid_rows: u64,
    /// Those with a PIN.
    pub pins: u64,
    /// Physical cards among the valid rows.
    pub physical: u64,
    /// Virtual cards among them.
    pub r#virtual: u64,
    /// All problems.
    pub problem_count: u64,
    /// The first of them.
    pub problems: Vec<Problem>,
    /// SHA-256 over the valid rows without their PINs.
    #[serde(skip)]
    pub digest: Option<[u8; 32]>,
}

/// A manifest whose header makes sense.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    columns: Vec<String>,
    row_id_column: Option<usize>,
}

impl Manifest {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    /// If it is no manifest: all problems of the header at once.
    pub fn open(path: &Path) -> Result<Self, ManifestError> {
        let shape = |reason: String| ManifestError::Shape { path: path.into(), reason };
        let mut start = [0; 4096];
        let length = read_start(path, &mut start)?;
        sniff(&start[..length]).map_err(shape)?;
        let mut reader = reader(path)?;
        let columns = columns_of(reader.byte_headers(), path)?;
        let row_id_column = columns.iter().position(|name| name == ROW_ID);
        Ok(Self { path: path.into(), columns, row_id_column })
    }

    /// The rows, from the first; blocks on the file.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub fn rows(&self) -> Result<Rows<'_>, ManifestError> {
        let mut reader = reader(&self.path)?;
        reader
            .byte_headers()
            .map_err(|error| ManifestError::Shape { path: self.path.clone(), reason: error.to_string() })?;
        Ok(Rows { manifest: self, reader, record: csv::ByteRecord::new(), number: 0, ended: false })
    }

    /// Reads every row and tells every problem.
    ///
    /// # Errors
    /// If the file cannot be read, or has no rows.
    pub fn check(
        &self,
        options: &CheckOptions,
        progress: &dyn Fn(u64),
    ) -> Result<CheckReport, ManifestError> {
        /// Between two calls of `progress`.
        const PROGRESS_ROWS: u64 = 10_000;
        let mut checker = Checker::new(options);
        for row in self.rows()? {
            checker.add(&row);
            if checker.rows().is_multiple_of(PROGRESS_ROWS) {
                progress(checker.rows());
            }
        }
        checker.finish(&self.path)
    }
}

/// What a file's first bytes tell: nothing in it, or not the text that a manifest is.
fn sniff(start: &[u8]) -> Result<(), String> {
    if start.is_empty() {
        return Err("the file is empty; it needs a header row and a row for each card".into());
    }
    if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) || start.contains(&0) {
        return Err("the file is UTF-16 or not text; save it as \"CSV UTF-8\"".into());
    }
    Ok(())
}

/// The columns that a header names, if they make sense.
fn columns_of(header: csv::Result<&csv::ByteRecord>, path: &Path) -> Result<Vec<String>, ManifestError> {
    let shape = |reason: &str| ManifestError::Shape { path: path.into(), reason: reason.into() };
    let header = header.map_err(|error| shape(&error.to_string()))?;
    let mut columns = Vec::new();
    for cell in header {
        let name = std::str::from_utf8(cell)
            .map_err(|_| shape("the header is not UTF-8; save it as \"CSV UTF-8\""))?;
        columns.push(name.trim().to_owned());
    }
    if columns.iter().all(String::is_empty) {
        return Err(shape("the first line is empty; it must name the columns"));
    }
    if columns.len() == 1 && columns[0].contains(';') {
        return Err(shape("the columns are separated by semicolons; save it with commas"));
    }
    let problems = header_problems(&columns);
    if !problems.is_empty() {
        return Err(ManifestError::Header { path: path.into(), problems });
    }
    Ok(columns)
}

fn read_start(path: &Path, start: &mut [u8]) -> Result<usize, ManifestError> {
    let read = |source| ManifestError::Read { path: path.into(), source };
    let mut file = File::open(path).map_err(read)?;
    let mut length = 0;
    loop {
        match file.read(&mut start[length..]).map_err(read)? {
            0 => return Ok(length),
            more => length += more,
        }
    }
}

fn reader(path: &Path) -> Result<csv::Reader<LineBound<File>>, ManifestError> {
    let file = File::open(path).map_err(|source| ManifestError::Read { path: path.into(), source })?;
    Ok(csv_reader(file))
}

fn csv_reader<R: Read>(inner: R) -> csv::Reader<LineBound<R>> {
    csv::ReaderBuilder::new().flexible(true).from_reader(LineBound { inner, since_break: 0 })
}

/// Stops a file whose rows do not end (an unbalanced quote, a cell of megabytes) before it fills the memory.
struct LineBound<R> {
    inner: R,
    since_break: usize,
}

/// Longest run of bytes without a line break: a row of many long cells.
const RUN_BYTES_MAX: usize = 4 << 20;

impl<R: Read> Read for LineBound<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        match memchr::memrchr(b'\n', &buffer[..length]) {
            Some(at) => self.since_break = length - at - 1,
            None => self.since_break += length,
        }
        if self.since_break > RUN_BYTES_MAX {
            return Err(io::Error::other("a line is longer than 4 MiB; no manifest's is"));
        }
        Ok(length)
    }
}

fn header_problems(columns: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, name) in columns.iter().enumerate() {
        let mut wrong = |code, reason: String, suggestion| {
            let column = if name.is_empty() { format!("{}", index + 1) } else { name.clone() };
            problems.push(Problem { line: 1, row: 0, column, code, reason, suggestion });
        };
        if name.is_empty() {
            wrong("unnamed_column", "has no name".into(), None);
        } else if columns[..index].contains(name) {
            wrong("duplicate_column", "stands twice in the header".into(), None);
        } else if name != ROW_ID
            && let Err(problem) = params::known(name)
        {
            wrong(problem.code, problem.reason, problem.suggestion);
        }
    }
    problems
}

/// The rows of a manifest.
pub struct Rows<'m> {
    manifest: &'m Manifest,
    reader: csv::Reader<LineBound<File>>,
    record: csv::ByteRecord,
    number: u64,
    ended: bool,
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, InvalidRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = next_row(self.manifest, &mut self.reader, &mut self.record, self.number + 1);
        self.number += 1;
        // Nothing after an unreadable place can be read: the rows before it stand.
        self.ended = !matches!(next, Next::Row(_));
        next.into_item()
    }
}

/// What the reader came upon.
enum Next {
    End,
    Row(Result<Row, InvalidRow>),
    Unreadable(InvalidRow),
}

impl Next {
    fn into_item(self) -> Option<Result<Row, InvalidRow>> {
        match self {
            Self::End => None,
            Self::Row(row) => Some(row),
            Self::Unreadable(row) => Some(Err(row)),
        }
    }
}

fn next_row<R: Read>(
    manifest: &Manifest,
    reader: &mut csv::Reader<LineBound<R>>,
    record: &mut csv::ByteRecord,
    number: u64,
) -> Next {
    let line = reader.position().line();
    match reader.read_byte_record(record) {
        Ok(false) => Next::End,
        Ok(true) => {
            let line = record.position().map_or(line, csv::Position::line);
            Next::Row(manifest.row(record, number, line))
        }
        Err(error) => {
            let problem = Problem {
                line,
                row: number,
                column: String::new(),
                code: "unreadable",
                reason: format!("the file cannot be read on from here: {error}"),
                suggestion: None,
            };
            Next::Unreadable(InvalidRow { number, line, row_id: None, problems: vec![problem] })
        }
    }
}

impl Manifest {
    fn row(&self, record: &csv::ByteRecord, number: u64, line: u64) -> Result<Row, InvalidRow> {
        let mut problems = Vec::new();
        let mut wrong = |column: &str, code, reason: String| {
            problems.push(Problem {
                line,
                row: number,
                column: column.into(),
                code,
                reason,
                suggestion: None,
            });
        };
        let columns = &self.columns;
        if record.len() != columns.len() {
            let reason = format!("the row has {} cells, the header {}", record.len(), columns.len());
            wrong("", "cell_count", reason);
        }
        let mut pairs = Vec::with_capacity(columns.len());
        let mut row_id = None;
        for (index, (name, cell)) in columns.iter().zip(record.iter()).enumerate() {
            if cell.len() > CELL_BYTES_MAX {
                wrong(name, "cell_too_long", format!("the cell has more than {CELL_BYTES_MAX} bytes"));
                continue;
            }
            let Ok(text) = std::str::from_utf8(cell) else {
                wrong(name, "not_utf8", "the cell is not UTF-8; save the file as \"CSV UTF-8\"".into());
                continue;
            };
            if text.is_empty() {
                continue;
            }
            if Some(index) == self.row_id_column {
                if text.len() > ROW_ID_BYTES_MAX
                    || text.chars().any(char::is_control)
                    || text.trim().is_empty()
                {
                    wrong(
                        name,
                        "row_id",
                        format!("has 1 to {ROW_ID_BYTES_MAX} bytes, and no control characters"),
                    );
                } else {
                    row_id = Some(text.to_owned());
                }
                continue;
            }
            pairs.push((name.clone(), text.to_owned()));
        }
        if self.row_id_column.is_some() && row_id.is_none() && problems.is_empty() {
            let reason = "is empty; with a row_id column each row needs one".into();
            let column = ROW_ID.into();
            problems.push(Problem { line, row: number, column, code: "row_id", reason, suggestion: None });
        }
        let card = CardRequest::from_pairs(pairs);
        match card {
            Ok(mut card) if problems.is_empty() => {
                let pin = card.take_pin();
                Ok(Row { number, line, row_id, card, pin })
            }
            Ok(_) => Err(InvalidRow { number, line, row_id, problems }),
            Err(fields) => {
                problems.extend(fields.into_iter().map(|field| of_field(line, number, field)));
                Err(InvalidRow { number, line, row_id, problems })
            }
        }
    }
}

fn of_field(line: u64, row: u64, field: card::FieldProblem) -> Problem {
    let card::FieldProblem { path, code, reason, suggestion } = field;
    Problem { line, row, column: path, code, reason, suggestion }
}
