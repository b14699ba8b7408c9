//! Whose each row of a file is, by the column of names that its headings tell: for a page that shows names which nobody keeps.
//!
//! Never: a cell that may hold a PIN or its ciphertext.

use std::io::Read;
use std::path::Path;

use super::headings::{column_called, says_cardholder};
use super::records::trimmed;
use super::stream::records_of;
use super::table::{Heading, has_a_cell_for_each, headings, is_open};
use super::text::ReadAs;
use super::{ManifestError, ROW_ID, Reading, titles};

/// Columns that tell a name, the best first; of several parts all are taken.
const NAMES: [&[&str]; 3] = [
    &["cardholder[name]"],
    &["cardholder[individual][first_name]", "cardholder[individual][last_name]"],
    &["shipping[name]"],
];
/// Longest name that is shown, in characters.
const NAME_MAX: usize = 200;

/// Whose a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRow {
    /// The data row's number, from 1.
    pub number: u64,
    /// The line it begins on, from 1.
    pub line: u64,
    /// Its name, where the file has them.
    pub row_id: Option<String>,
    /// Whose it is.
    pub person: String,
}

/// The rows of a file's text that say whose they are.
///
/// # Errors
/// If it cannot be read, has no header, no column of names, or more than `rows_max` rows with a name.
pub fn named_rows(
    source: impl Read,
    reading: &Reading,
    rows_max: usize,
) -> Result<Vec<NamedRow>, ManifestError> {
    let name = Path::new("upload");
    let (mut records, _) = records_of(name, source, reading, ReadAs::default())?;
    let names = titles::find(&mut records, name, reading)?.cells;
    let headings = headings(&names, reading);
    let row_id = place(&headings, ROW_ID);
    let Some(of_persons) = name_places(&headings) else {
        let reason = "none of its columns is one of names".to_owned();
        return Err(ManifestError::Shape { path: name.into(), reason });
    };
    records.change(reading.edits.clone(), None, names.len());
    let (mut number, mut rows) = (0, Vec::new());
    while let Some(record) =
        records.next().map_err(|source| ManifestError::Read { path: name.into(), source })?
    {
        if record.is_blank() {
            continue;
        }
        number += 1;
        // Where cells may stand in wrong columns, nobody's name is told.
        if record.flaw.is_some() || !has_a_cell_for_each(&record, &headings) {
            continue;
        }
        let text = |at: usize| {
            let text = trimmed(std::str::from_utf8(record.iter().nth(at)?).ok()?);
            (!text.is_empty() && is_open(headings.get(at), text, false)).then(|| text.to_owned())
        };
        // Some have Stripe's ids below "Cardholder".
        let is_name = |text: &String| !text.starts_with("ich_");
        let parts: Vec<String> = of_persons.iter().filter_map(|at| text(*at).filter(is_name)).collect();
        let person: String = parts.join(" ").chars().take(NAME_MAX).collect();
        if !person.is_empty() {
            if rows.len() == rows_max {
                let reason = format!("it has more than {rows_max} names: give it in parts");
                return Err(ManifestError::Shape { path: name.into(), reason });
            }
            rows.push(NamedRow { number, line: record.line, row_id: row_id.and_then(text), person });
        }
    }
    Ok(rows)
}

/// The headings of the columns that say whose a file's rows are; none if there are none, or if it cannot be read.
pub fn name_headings(source: impl Read, reading: &Reading) -> Vec<String> {
    let name = Path::new("upload");
    let Ok((mut records, _)) = records_of(name, source, reading, ReadAs::default()) else {
        return Vec::new();
    };
    let Ok(found) = titles::find(&mut records, name, reading) else { return Vec::new() };
    let headings = headings(&found.cells, reading);
    let places = name_places(&headings).unwrap_or_default();
    places.into_iter().filter_map(|at| Some(headings.get(at)?.heading.clone())).collect()
}

fn name_places(headings: &[Heading]) -> Option<Vec<usize>> {
    NAMES.iter().find_map(|columns| columns.iter().map(|column| place(headings, column)).collect())
}

fn place(headings: &[Heading], column: &str) -> Option<usize> {
    // One that is surely a name comes before one that may be an id.
    let is_it = |heading: &&Heading| means(heading) == Some(column);
    let sure = headings.iter().position(|heading| is_it(&heading) && !says_cardholder(&heading.heading));
    sure.or_else(|| headings.iter().position(|heading| is_it(&heading)))
}

/// The column that a heading is, or surely may be. A column of names that is left out of cards still tells names.
fn means(heading: &Heading) -> Option<&str> {
    let proposal = heading.proposal.as_deref().filter(|_| !heading.is_guess);
    heading.column.as_deref().or(proposal).or_else(|| column_called(&heading.heading))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manifest::columns::ColumnMap;

    #[test]
    fn names_are_told_by_their_rows_and_no_pin_is() {
        let named = |text: &str| named_rows(text.as_bytes(), &Reading::default(), 3);
        let rows =
            named("Personal-Nr.;Name;PIN\nE1;Ada Lovelace;4821\n;;\nE2;;1\nE3;eyJhbGci.x;2\nE4;Zoë;3\n")
                .unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (row.number, row.line, row.row_id.as_deref(), row.person.as_str()))
            .collect();
        // A row of empty cells has a line, and no number.
        assert_eq!(rows, [(1, 2, Some("E1"), "Ada Lovelace"), (4, 6, Some("E4"), "Zoë")]);
        let parts =
            "row_id,cardholder[individual][first_name],cardholder[individual][last_name]\na,Ada,Lovelace\n";
        assert_eq!(named(parts).unwrap()[0].person, "Ada Lovelace");
        let map = ColumnMap::parse("[columns]\n\"Full name\" = ''\n").unwrap();
        let left_out = Reading { columns: Some(Arc::new(map)), ..Reading::default() };
        let rows = named_rows("row_id,type,Full name\na,virtual,Ada\n".as_bytes(), &left_out, 3).unwrap();
        assert_eq!((rows[0].row_id.as_deref(), rows[0].person.as_str()), (Some("a"), "Ada"));
        let both = named("row_id,Cardholder,Name\na,ich_1,Ada\nb,ich_2,\n").unwrap();
        assert_eq!(both.iter().map(|row| row.person.as_str()).collect::<Vec<_>>(), ["Ada"]);
        let many = named("row_id,Name\na,A\nb,B\nc,C\nd,D\n").unwrap_err().to_string();
        assert!(many.contains("more than 3 names"), "{many}");
        let none = named("row_id,type\n1,virtual\n").unwrap_err().to_string();
        assert!(none.contains("none of its columns is one of names"), "{none}");
    }
}
