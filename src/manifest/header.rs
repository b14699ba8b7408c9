//! The first line: which columns there are, and all that is wrong with it at once.
//!
//! Never: a cell that may be a PIN or a JWE in a problem. A file without a header has a person's data in its first line.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::operation::kind::{Kind, nearest};
use crate::operation::pin_words::speaks_of_pin;
use crate::operation::{FieldProblem, Operation, PIN};

use super::blocks::Flaw;
use super::columns::{ColumnMap, compared};
use super::contents::{CARD, Contents};
use super::dates::DATE_OF_BIRTH;
use super::filling::Filling;
use super::headings::column_called;
use super::records::{Record, Records, trimmed};
use super::rows::may_be_a_pin;
use super::table::REASON;
use super::titles::{self, Headings};
use super::{ManifestError, Problem, ROW_ID, Reading};

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// The row's name.
    RowId,
    /// The id of the card that is changed.
    Card,
    /// A parameter of one of the row's requests.
    Parameter(Part, Kind),
    /// A date of birth, from which three parameters are filled.
    Date,
    /// Nothing that is read: the header's problems say why.
    Nothing,
    /// Nothing that is wanted: the columns file leaves it out.
    LeftOut,
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
    /// Its name.
    pub(super) name: String,
    /// What the file calls it, if not so and if it is read.
    pub(super) heading: Option<String>,
    /// The parameter's, among those of its operation; otherwise the name.
    pub(super) path: String,
    pub(super) holds: Holds,
}

/// The columns and what is wrong with them.
#[derive(Debug)]
pub(super) struct Header {
    /// Its line, from 1.
    pub(super) line: u64,
    /// Rows above it with something in them.
    pub(super) above: u64,
    pub(super) contents: Contents,
    /// Without those at the end that have no heading: many programs write no cells for them.
    pub(super) columns: Vec<Column>,
    /// What is done to each record, if anything is.
    pub(super) filling: Option<Arc<Filling>>,
    /// The places of the columns that say whose a row is.
    pub(super) person: Vec<usize>,
    /// Columns without a heading.
    pub(super) blank_columns: u64,
    pub(super) problems: Vec<Problem>,
}

/// Reads up to the end of the header, above which so many rows have something in them.
pub(super) fn pass<R: Read>(records: &mut Records<R>, above: u64) -> io::Result<()> {
    for _ in 0..=above {
        while records.next()?.is_some_and(|record| record.is_blank()) {}
    }
    Ok(())
}

/// Reads the headings.
pub(super) fn read<R: Read>(
    records: &mut Records<R>,
    path: &Path,
    reading: &Reading,
) -> Result<Header, ManifestError> {
    let Headings { cells, line, above } = titles::find(records, path, reading)?;
    let headings: Vec<&str> = cells.iter().map(String::as_str).collect();
    let header = Header { above, ..columns(&headings, line, reading) };
    let explains = |problem: &Problem| problem.suggestion.is_some() || problem.code == "pin_in_clear";
    let is_unread = |column: &Column| matches!(column.holds, Holds::Nothing | Holds::Blank | Holds::LeftOut);
    if header.columns.iter().all(is_unread) && !header.problems.iter().any(explains) {
        let way_out = reading.made_of.as_ref().and_then(|sheet| sheet.way_out()).unwrap_or_default();
        let reason = format!(
            "the first line names no column that is known here; is the row of headings missing?{way_out}"
        );
        // What is called by its place cannot be named in a columns file: it is no heading that anybody wrote.
        let is_heading = |(at, cell): (usize, &&str)| shown(at, cell) == **cell;
        let mut written = headings.iter().enumerate().filter(|(_, cell)| !cell.is_empty()).peekable();
        if reading.asks_headings && written.peek().is_some() && written.all(is_heading) {
            let problem = Problem::new(line, 0, "", "no_heading_known", reason);
            let problems = std::iter::once(problem).chain(header.problems).collect();
            return Ok(Header { problems, ..header });
        }
        return Err(ManifestError::Shape { path: path.into(), reason });
    }
    Ok(header)
}

/// The cells of the first record, and its line.
pub(super) fn headings<R: Read>(
    records: &mut Records<R>,
    path: &Path,
) -> Result<(Vec<String>, u64), ManifestError> {
    let shape = |reason: &str| ManifestError::Shape { path: path.into(), reason: reason.into() };
    loop {
        return match records.next() {
            Ok(Some(record)) if record.is_blank() => continue,
            Ok(Some(record)) => headings_of(&record, path),
            Ok(None) => Err(shape("there is nothing but blank lines; it needs a header row")),
            Err(source) => Err(ManifestError::Read { path: path.into(), source }),
        };
    }
}

fn headings_of(record: &Record<'_>, path: &Path) -> Result<(Vec<String>, u64), ManifestError> {
    let shape = |reason: &str| ManifestError::Shape { path: path.into(), reason: reason.into() };
    match record.flaw {
        None | Some(Flaw::CellCount(_) | Flaw::RowsInQuotes { .. }) => {}
        Some(Flaw::TextAfterQuote { .. }) => {
            return Err(shape(
                "the header has text after a quote that closes a cell; is that quote, or the one before it, one too many?",
            ));
        }
        Some(Flaw::TooLong) => {
            return Err(shape("the first line does not end; is a quote in it never closed?"));
        }
        Some(Flaw::QuoteOpen) => return Err(shape("a quote that is opened in the header is never closed")),
    }
    let names =
        cells_of(record).ok_or_else(|| shape("the header is damaged: it is partly UTF-8 and partly not"))?;
    Ok((names, record.line))
}

/// A record's cells as texts, if they can be read as such.
pub(super) fn cells_of(record: &Record<'_>) -> Option<Vec<String>> {
    if matches!(record.flaw, Some(Flaw::TooLong | Flaw::QuoteOpen | Flaw::TextAfterQuote { .. })) {
        return None;
    }
    record.iter().map(|cell| Some(trimmed(std::str::from_utf8(cell).ok()?).to_owned())).collect()
}

/// What the names of the first line make, one column after the other.
pub(super) struct Naming<'m> {
    line: u64,
    pub(super) contents: Contents,
    map: Option<&'m ColumnMap>,
    pub(super) seen: BTreeSet<String>,
    pub(super) columns: Vec<Column>,
    problems: Vec<Problem>,
}

fn columns(headings: &[&str], line: u64, reading: &Reading) -> Header {
    let (map, person) = (reading.columns.as_deref(), reading.person.as_slice());
    let column_of = |heading| map.and_then(|map| map.column_of(heading));
    let mut names: Vec<&str> = headings.iter().map(|heading| column_of(heading).unwrap_or(heading)).collect();
    names.extend(map.iter().flat_map(|map| map.defaults()).map(|(column, _)| column));
    names.extend(map.iter().flat_map(|map| map.joined()).map(|(column, _)| column));
    let contents = Contents::of_names(&names);
    let (seen, columns, problems) = Default::default();
    let mut naming = Naming { line, contents, map, seen, columns, problems };
    for (index, heading) in headings.iter().enumerate() {
        naming.add(index, heading, column_of(heading));
    }
    let is_blank = |column: &Column| column.holds == Holds::Blank;
    let blank_columns = naming.columns.iter().filter(|column| is_blank(column)).count() as u64;
    while naming.columns.last().is_some_and(is_blank) {
        naming.columns.pop();
    }
    let person =
        naming.person(headings, if person.is_empty() { map.map_or(&[], ColumnMap::person) } else { person });
    let none = ColumnMap::default();
    let filling = naming.filling(map.unwrap_or(&none), headings, &person, reading.dates);
    let filling = (!filling.is_idle()).then_some(filling);
    naming.look_for_what_is_missing();
    let Naming { columns, problems, .. } = naming;
    Header {
        line,
        above: 0,
        contents,
        columns,
        filling: filling.map(Arc::new),
        person,
        blank_columns,
        problems,
    }
}

impl Naming<'_> {
    /// Adds the column under a heading, and which one it is by the columns file: none if that says nothing of it.
    fn add(&mut self, index: usize, heading: &str, mapped: Option<&str>) {
        let name = mapped.unwrap_or(heading);
        let holds = match mapped {
            _ if heading.is_empty() => Ok(Holds::Blank),
            // What embosser wrote itself, for whoever mends the rows.
            None if heading == REASON => Ok(Holds::LeftOut),
            // Whatever it is made, and though it be left out: such a file is not to be.
            Some(mapped) if mapped != PIN && heading != mapped && speaks_of_pin(heading) => {
                let reason = "speaks of PINs, so that the columns file can make it pin[encrypted_number] and nothing else: PINs \
                              in the clear are refused anywhere. If the column holds something else, give it another heading";
                Err(FieldProblem::new(heading, "pin_in_clear", reason))
            }
            Some("") => Ok(Holds::LeftOut),
            // It is read as a part of another column.
            None if self.map.is_some_and(|map| map.joins(heading)) && self.holds_of(name).is_err() => {
                Ok(Holds::LeftOut)
            }
            _ if !self.seen.insert(name.to_owned()) => {
                let reason = match mapped {
                    Some(name) => format!("is {name} by the columns file, and so is another column"),
                    None if self.has_other_heading(name) => {
                        format!("is the column {name}, and by the columns file so is another heading")
                    }
                    None => "stands twice in the header".to_owned(),
                };
                Err(FieldProblem::new(heading, "duplicate_column", reason))
            }
            _ => self.holds_of(name).map_err(|problem| match mapped {
                Some(name) => {
                    let name = if may_be_a_pin(name) { "something".into() } else { format!("{name:?}") };
                    let reason = format!("is {name} by the columns file, which {}", problem.reason);
                    FieldProblem { reason, ..problem }
                }
                None if self.map.is_some() && problem.code == "unknown_parameter" => FieldProblem {
                    reason: format!(
                        "{}, and the columns file says nothing of it: add it there, with an empty text to leave it out",
                        problem.reason
                    ),
                    ..problem
                },
                None => problem,
            }),
        };
        let holds = holds.unwrap_or_else(|problem| {
            self.tell(&shown(index, heading), problem);
            Holds::Nothing
        });
        self.push(name, heading, holds);
    }

    /// Whether a column before this one is it under another heading.
    fn has_other_heading(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name && column.heading.is_some())
    }

    pub(super) fn push(&mut self, name: &str, heading: &str, holds: Holds) {
        let path = match holds {
            Holds::Parameter(part, _) => self.contents.path_of(part, name),
            _ => name.to_owned(),
        };
        let is_other = heading != name && holds != Holds::LeftOut;
        let heading = is_other.then(|| heading.to_owned());
        self.columns.push(Column { name: name.to_owned(), heading, path, holds });
    }

    pub(super) fn tell(&mut self, column: &str, problem: FieldProblem) {
        let FieldProblem { code, reason, suggestion, .. } = problem;
        self.problems.push(Problem { suggestion, ..Problem::new(self.line, 0, column, code, reason) });
    }

    /// What a column of this name holds.
    pub(super) fn holds_of(&self, name: &str) -> Result<Holds, FieldProblem> {
        if name == ROW_ID {
            return Ok(Holds::RowId);
        }
        if name == CARD && self.contents.operation == Operation::UpdateCard {
            return Ok(Holds::Card);
        }
        if name == DATE_OF_BIRTH && self.contents.has_date_of_birth() {
            return Ok(Holds::Date);
        }
        let known = self.contents.kind_of(name).map(|(part, kind)| Holds::Parameter(part, kind));
        // What people call a column comes before what is spelt like it: Country is no currency.
        let is_possible = |column: &&str| {
            self.contents.operation != Operation::UpdateCard || !column.starts_with("cardholder")
        };
        known.map_err(|problem| FieldProblem {
            suggestion: own_column_like(name)
                .filter(|_| problem.code == "unknown_parameter")
                .filter(is_possible)
                .map(str::to_owned)
                .or(problem.suggestion),
            ..problem
        })
    }

    /// The places of the columns under these headings, or of these names, that say whose a row is.
    fn person(&mut self, headings: &[&str], wanted: &[String]) -> Vec<usize> {
        let mut places = Vec::new();
        for wanted in wanted {
            let is_it = |heading: &str| compared(heading) == compared(wanted);
            let of_heading = headings.iter().position(|heading| is_it(heading));
            let place = of_heading.or_else(|| self.columns.iter().position(|column| column.name == *wanted));
            match place.and_then(|at| Some((at, self.columns.get(at)?))) {
                Some((_, column)) if column.name == PIN || speaks_of_pin(wanted) => {
                    let reason = "is to say whose a row is, and speaks of PINs: name the column of the name";
                    self.tell(wanted, FieldProblem::new("", "not_a_person", reason));
                }
                Some((at, _)) => places.push(at),
                None => {
                    let suggestion = nearest(wanted, headings.iter().copied());
                    let reason = "is to say whose a row is, and the manifest has no such column";
                    self.tell(
                        wanted,
                        FieldProblem { suggestion, ..FieldProblem::new("", "missing_heading", reason) },
                    );
                }
            }
        }
        places
    }

    fn look_for_what_is_missing(&mut self) {
        let contents = self.contents;
        for (part, needed) in contents.always_required() {
            let column = contents.column_of(part, needed);
            if !self.seen.contains(column.as_str()) {
                let who = if contents.is_person(part) { "cardholder who is created" } else { "card" };
                let reason = format!("is no column of the header, and every {who} needs it");
                self.tell(&column, FieldProblem::new("", "missing_column", reason));
            }
        }
        let is_no_change = |column: &Column| {
            matches!(column.holds, Holds::RowId | Holds::Card | Holds::Blank | Holds::LeftOut)
        };
        if contents.operation == Operation::UpdateCard && self.columns.iter().all(is_no_change) {
            let reason = "the header has no column of what is to be changed";
            self.tell("", FieldProblem::new("", "missing_column", reason));
        }
    }
}

/// The column that a name may mean, where it is like no parameter's.
fn own_column_like(name: &str) -> Option<&'static str> {
    let letters: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    if letters == "card" || letters == "cardid" { Some(CARD) } else { column_called(name) }
}

/// What a problem calls a column: its name, or its place where the name may be a person's data.
pub(super) fn shown(index: usize, name: &str) -> String {
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
