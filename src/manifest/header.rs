//! The first line: which columns there are, and all that is wrong with it at once.
//!
//! Never: a cell that may be a PIN or a JWE in a problem. A file without a header has a person's data in its first line.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use crate::operation::Operation;
use crate::operation::kind::Kind;

use super::blocks::Flaw;
use super::contents::{CARD, Contents};
use super::records::{Record, Records, trimmed};
use super::{ManifestError, Problem, ROW_ID};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// The row's name.
    RowId,
    /// The id of the card that is changed.
    Card,
    /// A parameter of one of the row's requests.
    Parameter(Part, Kind),
    /// Nothing that is read: the header's problems say why.
    Nothing,
    /// Nothing at all: it has no heading, and is a column only because spreadsheets write such ones.
    Blank,
}

/// Which of a row's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The cardholder who is created before the card.
    First,
    /// What the row is about.
    Last,
}

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// As the header has it.
    pub(super) name: String,
    /// The parameter's, among those of its operation; otherwise the name.
    pub(super) path: String,
    pub(super) holds: Holds,
}

/// The columns and what is wrong with them.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) contents: Contents,
    /// Without those at the end that have no heading: many programs write no cells for them.
    pub(super) columns: Vec<Column>,
    /// Columns without a heading.
    pub(super) blank_columns: u64,
    pub(super) problems: Vec<Problem>,
}

/// Reads up to the end of the header.
pub(super) fn pass<R: Read>(records: &mut Records<R>) -> io::Result<()> {
    while records.next()?.is_some_and(|record| record.is_blank()) {}
    Ok(())
}

/// Reads the first record.
pub(super) fn read<R: Read>(records: &mut Records<R>, path: &Path) -> Result<Header, ManifestError> {
    let shape = |reason: &str| ManifestError::Shape { path: path.into(), reason: reason.into() };
    loop {
        return match records.next() {
            Ok(Some(record)) if record.is_blank() => continue,
            Ok(Some(record)) => of_record(&record, path),
            Ok(None) => Err(shape("there is nothing but blank lines; it needs a header row")),
            Err(source) => Err(ManifestError::Read { path: path.into(), source }),
        };
    }
}

fn of_record(record: &Record<'_>, path: &Path) -> Result<Header, ManifestError> {
    let shape = |reason: &str| ManifestError::Shape { path: path.into(), reason: reason.into() };
    match record.flaw {
        None => {}
        Some(Flaw::TooLong) => {
            return Err(shape("the first line does not end; is a quote in it never closed?"));
        }
        Some(Flaw::QuoteOpen) => return Err(shape("a quote that is opened in the header is never closed")),
    }
    let mut names = Vec::with_capacity(record.len());
    for cell in record.iter() {
        let name = std::str::from_utf8(cell)
            .map_err(|_| shape("the header is damaged: it is partly UTF-8 and partly not"))?;
        names.push(trimmed(name));
    }
    let header = columns(&names, record.line);
    let explains = |problem: &Problem| problem.suggestion.is_some() || problem.code == "pin_in_clear";
    if header.columns.iter().all(|column| matches!(column.holds, Holds::Nothing | Holds::Blank))
        && !header.problems.iter().any(explains)
    {
        return Err(shape("the first line names no parameter of Stripe's; is the header row missing?"));
    }
    Ok(header)
}

fn columns(names: &[&str], line: u64) -> Header {
    let contents = Contents::of_names(names);
    let (mut columns, mut problems): (Vec<Column>, Vec<Problem>) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let mut wrong = |code, reason: String, suggestion| {
            problems.push(Problem { suggestion, ..Problem::new(line, 0, shown(index, name), code, reason) });
            Holds::Nothing
        };
        let holds = if name.is_empty() {
            Holds::Blank
        } else if !seen.insert(*name) {
            wrong("duplicate_column", "stands twice in the header".into(), None)
        } else if *name == ROW_ID {
            Holds::RowId
        } else if *name == CARD && contents.operation == Operation::UpdateCard {
            Holds::Card
        } else {
            match contents.kind_of(name) {
                Ok((part, kind)) => Holds::Parameter(part, kind),
                Err(problem) => {
                    let suggestion = problem.suggestion.or_else(|| own_column_like(name).map(str::to_owned));
                    wrong(problem.code, problem.reason, suggestion)
                }
            }
        };
        let path = match holds {
            Holds::Parameter(part, _) => contents.path_of(part, name),
            _ => (*name).to_owned(),
        };
        columns.push(Column { name: (*name).to_owned(), path, holds });
    }
    for (part, needed) in contents.always_required() {
        let column = contents.column_of(part, needed);
        if !seen.contains(column.as_str()) {
            let who = if contents.is_person(part) { "cardholder who is created" } else { "card" };
            let reason = format!("is no column of the header, and every {who} needs it");
            problems.push(Problem::new(line, 0, column, "missing_column", reason));
        }
    }
    let names_no_change =
        columns.iter().all(|column| matches!(column.holds, Holds::RowId | Holds::Card | Holds::Blank));
    if contents.operation == Operation::UpdateCard && names_no_change {
        let reason = "the header has no column of what is to be changed";
        problems.push(Problem::new(line, 0, "", "missing_column", reason));
    }
    let is_blank = |column: &Column| column.holds == Holds::Blank;
    let blank_columns = columns.iter().filter(|column| is_blank(column)).count() as u64;
    while columns.last().is_some_and(is_blank) {
        columns.pop();
    }
    Header { contents, columns, blank_columns, problems }
}

/// The column of embosser's own that a name may mean.
fn own_column_like(name: &str) -> Option<&'static str> {
    let letters: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    match letters.as_str() {
        "rowid" | "row" | "id" | "rowno" | "rownumber" => Some(ROW_ID),
        "card" | "cardid" => Some(CARD),
        _ => None,
    }
}

/// What a problem calls a column: its name, or its place where the name may be a person's data.
fn shown(index: usize, name: &str) -> String {
    /// No parameter's name is longer; a metadata key has 40 characters.
    const NAME_CHARACTERS_MAX: usize = 64;
    let digits = name.chars().filter(char::is_ascii_digit).count();
    let letters = name.chars().filter(|letter| letter.is_alphabetic()).count();
    let like_a_name =
        name.chars().count() <= NAME_CHARACTERS_MAX && letters > digits && !name.starts_with("eyJ");
    if like_a_name && !name.chars().any(char::is_control) {
        name.to_owned()
    } else {
        format!("number {}", index + 1)
    }
}
