//! A small file as a table: its headings, with what each is taken for, and some of its rows as they are written.
//!
//! For a person who looks at it and mends it. Never: a cell that may hold a PIN or its ciphertext.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use super::contents::Contents;
use super::dates::DATE_OF_BIRTH;
use super::headings::says_cardholder;
use super::parts::Parts;
use super::proposal::{self, GUESS};
use super::records::{Record, trimmed};
use super::stream::records_of;
use super::text::ReadAs;
use super::{ManifestError, Reading, header, titles};
use crate::operation::PIN;
use crate::operation::pin_words::speaks_of_pin;

/// Longest text of a cell that is shown: what is longer is no name, and can be mended in the file alone.
const CELL_CHARACTERS_MAX: usize = 500;

/// A heading of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// As the file spells it.
    pub heading: String,
    /// The column that it is: by its name, or by the columns file. None: it is left out, or is no column.
    pub column: Option<String>,
    /// Whether the columns file leaves it out.
    pub is_left_out: bool,
    /// The column that it may be.
    pub proposal: Option<String>,
    /// Whether that is a guess by its letters alone.
    pub is_guess: bool,
    /// Whether cells under it may hold PINs: none of them is shown.
    pub holds_pins: bool,
}

/// A row as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// The line it begins on, from 1.
    pub line: u64,
    /// Its cells; none for one that is not shown.
    pub cells: Vec<Option<String>>,
}

/// Some of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// The headings, in the file's order.
    pub headings: Vec<Heading>,
    /// Columns that may be filled from several headings, and the places of these in the order in which they are read.
    pub joined: Vec<(String, Vec<usize>)>,
    /// The rows that were asked for, in the file's order.
    pub rows: Vec<TableRow>,
}

impl Table {
    /// Of a file's text: the rows that begin on these lines, and then others from the top, `rows_max` in all.
    ///
    /// # Errors
    /// If it cannot be read, or has no header.
    pub fn read(
        source: impl Read,
        reading: &Reading,
        lines: &BTreeSet<u64>,
        rows_max: usize,
    ) -> Result<Self, ManifestError> {
        let name = Path::new("upload");
        let (mut records, _) = records_of(name, source, reading, ReadAs::default())?;
        let names = titles::find(&mut records, name, reading)?.cells;
        let mut headings = headings(&names, reading);
        // What is written, with what was mended in it, and not what defaults and words make of it.
        records.change(reading.edits.clone(), None, names.len());
        let mut others_max = rows_max.saturating_sub(lines.len());
        let mut rows = Vec::new();
        while let Ok(Some(record)) = records.next() {
            if rows.len() >= rows_max {
                break;
            }
            if record.flaw.is_some() || record.is_blank() {
                continue;
            }
            if !lines.contains(&record.line) {
                if others_max == 0 {
                    continue;
                }
                others_max -= 1;
            }
            rows.push(row_of(&record, &headings));
        }
        for (at, heading) in headings.iter_mut().enumerate() {
            let first =
                rows.iter().filter_map(|row| row.cells.get(at)?.as_deref()).find(|cell| !cell.is_empty());
            let is_id = first.is_some_and(|cell| cell.starts_with("ich_"));
            if heading.proposal.is_some() && says_cardholder(&heading.heading) && is_id {
                heading.proposal = Some("cardholder".to_owned());
            }
        }
        let spelt: Vec<&str> = names.iter().map(String::as_str).collect();
        let joined = Parts::of(&spelt).joined.into_iter();
        let joined = joined.map(|(column, places)| (column.to_owned(), places)).collect();
        Ok(Self { headings, joined, rows })
    }
}

/// The heading of the column that tells why a row was refused. A file may be uploaded with it: it is left out.
pub const REASON: &str = "Why it was refused (embosser)";

/// Writes those of a file's rows, as they are written and with its headings, of which `reason_of` knows why they were refused,
/// and that beside them. It is given a row's name, where the file's headings tell it, and its number. Cells that may hold PINs are
/// left empty: each is encrypted anew. Answers how many rows there are.
///
/// # Errors
/// If it cannot be read, has no header, or more than `rows_max` of such rows.
pub fn write_refused(
    source: impl Read,
    reading: &Reading,
    mut reason_of: impl FnMut(Option<&str>, u64) -> Option<String>,
    rows_max: usize,
    out: impl io::Write,
) -> Result<usize, ManifestError> {
    let name = Path::new("upload");
    let shape = |reason: String| ManifestError::Shape { path: name.into(), reason };
    let (mut records, delimiter) = records_of(name, source, reading, ReadAs::default())?;
    let names = titles::find(&mut records, name, reading)?.cells;
    let headings = headings(&names, reading);
    let is_name = |heading: &Heading| {
        let proposal = heading.proposal.as_deref().filter(|_| !heading.is_guess);
        heading.column.as_deref().or(proposal) == Some(super::ROW_ID)
    };
    let name_at = headings.iter().position(is_name);
    // What an earlier file of this kind said is said anew.
    let is_kept = |at: usize| headings.get(at).is_some_and(|heading| heading.heading != REASON);
    records.change(reading.edits.clone(), None, names.len());
    // With the mark Excel reads letters beyond ASCII right.
    let mut out = out;
    let written = |error: csv::Error| shape(format!("the rows cannot be written: {error}"));
    out.write_all("\u{feff}".as_bytes()).map_err(|error| written(error.into()))?;
    // Whoever's Excel writes semicolons has one that opens no commas.
    let delimiter = if delimiter == b';' { delimiter } else { b',' };
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_writer(out);
    let kept = headings.iter().map(|heading| heading.heading.as_str()).filter(|heading| *heading != REASON);
    writer.write_record(kept.chain([REASON])).map_err(written)?;
    let (mut number, mut rows) = (0, 0);
    while let Some(record) =
        records.next().map_err(|source| ManifestError::Read { path: name.into(), source })?
    {
        if record.is_blank() {
            continue;
        }
        number += 1;
        let text = |at: usize| Some(trimmed(std::str::from_utf8(record.iter().nth(at)?).ok()?));
        let Some(reason) = reason_of(name_at.and_then(text), number) else { continue };
        rows += 1;
        if rows > rows_max {
            return Err(shape(format!(
                "more than {rows_max} of its rows were refused: mend the file itself"
            )));
        }
        let is_shifted = !has_a_cell_for_each(&record, &headings);
        let may_be_shown = |at: usize, text: &str| is_open(headings.get(at), text, is_shifted);
        let cells = (0..headings.len())
            .filter(|at| is_kept(*at))
            .map(|at| text(at).filter(|text| may_be_shown(at, text)).unwrap_or_default());
        writer.write_record(cells.chain([reason.as_str()])).map_err(written)?;
    }
    writer.flush().map_err(|error| written(error.into()))?;
    Ok(rows)
}

fn row_of(record: &Record<'_>, headings: &[Heading]) -> TableRow {
    // Where cells may stand in a wrong column, digits may be a PIN.
    let is_shifted = !has_a_cell_for_each(record, headings);
    let may_be_shown = |at: usize, text: &str| {
        is_open(headings.get(at), text, is_shifted) && text.chars().count() <= CELL_CHARACTERS_MAX
    };
    let cells = record.iter().enumerate().map(|(at, cell)| {
        let text = trimmed(std::str::from_utf8(cell).ok()?);
        may_be_shown(at, text).then(|| text.to_owned())
    });
    let mut cells: Vec<_> = cells.collect();
    while cells.len() > headings.len() && cells.last().is_some_and(|cell| cell.as_deref() == Some("")) {
        cells.pop();
    }
    TableRow { line: record.line, cells }
}

/// Whether a cell may be shown: never one that may be a PIN or its ciphertext, and none without a heading that says what it is.
pub(super) fn is_open(heading: Option<&Heading>, text: &str, is_shifted: bool) -> bool {
    let bare = text.trim_start_matches(['\'', '"', ' ']);
    if heading.is_some_and(|heading| heading.holds_pins) {
        return false;
    }
    text.is_empty()
        || (heading.is_some_and(|heading| !heading.heading.is_empty())
            && !bare.starts_with("eyJ")
            && !(is_shifted && bare.bytes().all(|byte| byte.is_ascii_digit())))
}

/// Whether a record has a cell under each heading, and none beside them that holds something.
pub(super) fn has_a_cell_for_each(record: &Record<'_>, headings: &[Heading]) -> bool {
    let is_blank = |cell: &[u8]| std::str::from_utf8(cell).is_ok_and(|text| trimmed(text).is_empty());
    record.len() >= headings.len() && record.iter().skip(headings.len()).all(is_blank)
}

pub(super) fn headings(names: &[String], reading: &Reading) -> Vec<Heading> {
    let map = reading.columns.as_deref();
    let mapped = |heading: &str| map.and_then(|map| map.column_of(heading));
    let spelt: Vec<&str> = names.iter().map(String::as_str).collect();
    let meant = Parts::of(&spelt).called;
    let called: Vec<&str> =
        spelt.iter().zip(&meant).map(|(name, meant)| mapped(name).or(*meant).unwrap_or(name)).collect();
    let defaults = map.iter().flat_map(|map| map.defaults()).map(|(column, _)| column);
    let contents = Contents::of_names(&called.iter().copied().chain(defaults).collect::<Vec<_>>());
    let mut given = BTreeSet::new();
    let headings = names.iter().enumerate().map(|(at, name)| {
        let mapped = mapped(name);
        let is_left_out = mapped == Some("");
        let named = mapped.filter(|column| !column.is_empty()).or_else(|| {
            let is_column = mapped.is_none()
                && (matches!(name.as_str(), super::ROW_ID | super::contents::CARD)
                    || (name == DATE_OF_BIRTH && contents.has_date_of_birth())
                    || contents.kind_of(name).is_ok());
            is_column.then_some(name.as_str())
        });
        let column = named.map(str::to_owned);
        let proposed = match &column {
            None if !is_left_out && !name.is_empty() => proposal::column_of(contents, name, meant[at]),
            _ => None,
        };
        let is_guess = proposed.as_ref().is_some_and(|(_, note)| *note == GUESS);
        let proposal = proposed.map(|(column, _)| column);
        // What is not like a heading may be a row's cell: a file without headings begins with one.
        let heading = if name.is_empty() { String::new() } else { header::shown(at, name) };
        let holds_pins = [&column, &proposal].into_iter().flatten().any(|column| column == PIN)
            || speaks_of_pin(name)
            || heading != *name;
        Heading { heading, column, is_left_out, proposal, is_guess, holds_pins }
    });
    let mut headings: Vec<Heading> = headings.collect();
    given.extend(headings.iter().filter_map(|heading| heading.column.clone()));
    // One column is filled from one heading: the first that is proposed for it.
    for heading in &mut headings {
        if heading.proposal.as_ref().is_some_and(|column| !given.insert(column.clone())) {
            (heading.proposal, heading.is_guess) = (None, false);
        }
    }
    headings
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manifest::columns::ColumnMap;
    use crate::manifest::edits::Edits;

    #[test]
    fn headings_are_told_and_no_cell_that_may_hold_a_pin_is_shown() {
        let text = "Name;PIN;type;Gehalt;pin[encrypted_number];Mail\nAda;1234;virtual;1;eyJhbGci.x;eyJ.a\n;;;;;\nBob;;virtual;2;;b@example.com\n";
        let map = ColumnMap::parse("[columns]\nGehalt = ''\n").unwrap();
        let edits = Edits::parse(r#"[{"line":4,"column":1,"value":"Rob"}]"#).unwrap();
        let reading =
            Reading { columns: Some(Arc::new(map)), edits: Some(Arc::new(edits)), ..Reading::default() };
        let table = Table::read(text.as_bytes(), &reading, &BTreeSet::new(), 10).unwrap();
        let columns: Vec<_> = table
            .headings
            .iter()
            .map(|heading| (heading.column.as_deref(), heading.proposal.as_deref(), heading.is_left_out))
            .collect();
        assert_eq!(
            columns,
            [
                (None, Some("cardholder[name]"), false),
                (None, None, false),
                (Some("type"), None, false),
                (None, None, true),
                (Some(PIN), None, false),
                (None, Some("cardholder[email]"), false),
            ]
        );
        let rows: Vec<_> = table
            .rows
            .iter()
            .map(|row| {
                (row.line, row.cells.iter().map(|cell| cell.as_deref().unwrap_or("-")).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            rows,
            [
                (2, vec!["Ada", "-", "virtual", "1", "-", "-"]),
                (4, vec!["Rob", "-", "virtual", "2", "-", "b@example.com"])
            ]
        );
    }

    #[test]
    fn what_may_be_a_pin_is_shown_nowhere() {
        let shown = |text: &str| {
            let table = Table::read(text.as_bytes(), &Reading::default(), &BTreeSet::new(), 10).unwrap();
            let headings = table.headings.into_iter().map(|heading| Some(heading.heading));
            let cells = table.rows.into_iter().flat_map(|row| row.cells);
            headings.chain(cells).flatten().collect::<Vec<_>>().join("|")
        };
        // A file without headings, a column without one, a row whose cells are shifted, and quotes before a ciphertext.
        for text in [
            "7,Card,eyJhbGci.4821,4821\n8,Card,eyJhbGci.4822,4822\n",
            "row_id,type,,\n1,virtual,4821,\n",
            "row_id,name,pin[encrypted_number],type\n1,Doe, Jane,4821,virtual\n1,4821\n",
            "row_id,type\n1,'eyJ4821\n2,\"\"\"eyJ4821\"\n",
        ] {
            let shown = shown(text);
            assert!(!shown.contains("4821") && !shown.contains("eyJ"), "{text}: {shown}");
        }
    }

    #[test]
    fn rows_that_are_asked_for_come_before_others() {
        let text: String =
            (0..100).fold("row_id,type\n".to_owned(), |text, row| text + &format!("{row},virtual\n"));
        let lines = BTreeSet::from([50, 101]);
        let table = Table::read(text.as_bytes(), &Reading::default(), &lines, 4).unwrap();
        let lines: Vec<u64> = table.rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [2, 3, 50, 101]);
    }

    #[test]
    fn whether_a_cardholder_is_a_name_or_an_id_is_told_by_what_stands_there() {
        let meant = |cell: &str| {
            let text = format!("Card holder,type\n{cell},virtual\n");
            let table = Table::read(text.as_bytes(), &Reading::default(), &BTreeSet::new(), 10).unwrap();
            table.headings[0].proposal.clone()
        };
        assert_eq!(meant("Ada Lovelace").as_deref(), Some("cardholder[name]"));
        assert_eq!(meant("ich_1MzFMzK8F4fqH0lBmFq8CjbU").as_deref(), Some("cardholder"));
    }
}
