//! How an ODS file shows its cells, as calamine does not tell: numbers, merged cells, rows and columns that are hidden, and
//! formulas that nobody has calculated.

use std::io::{BufReader, Cursor};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::format::of_text;
use super::{Looks, damaged, never_calculated};

/// A cell that is being read.
#[derive(Default)]
struct Cell {
    /// Its value, if that is a number.
    number: Option<f64>,
    has_formula: bool,
    has_type: bool,
    /// What it shows.
    text: String,
    /// Whether it shows anything, if only a text of no letter.
    has_text: bool,
    /// How many columns it stands for, and over how many columns and rows it is merged.
    columns: u32,
    spanned: (u32, u32),
}

/// Where in the file.
#[derive(Default)]
struct At {
    in_sheet: bool,
    row: u32,
    /// How many rows the one that is read stands for.
    rows: u32,
    column: u32,
    /// How many columns were declared so far.
    columns: u32,
    cell: Option<Cell>,
    in_text: bool,
}

/// What the cells of the sheet of that name look like.
///
/// # Errors
/// A sentence that says what is wrong with the file.
pub(super) fn looks(bytes: &[u8], sheet: &str) -> Result<Looks, String> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    // How much it unpacks to was looked at before.
    let content = archive.by_name("content.xml").map_err(|error| damaged(&error))?;
    let mut reader = Reader::from_reader(BufReader::new(content));
    let (mut looks, mut at, mut buffer) = (Looks::default(), At::default(), Vec::new());
    loop {
        match reader.read_event_into(&mut buffer).map_err(|error| damaged(&error))? {
            Event::Start(tag) => at.begin(&tag, sheet, &mut looks)?,
            Event::Empty(tag) => {
                at.begin(&tag, sheet, &mut looks)?;
                at.end(tag.name().as_ref(), &mut looks)?;
            }
            Event::End(tag) => at.end(tag.name().as_ref(), &mut looks)?,
            Event::Text(text) if at.in_text => {
                if let Some(cell) = &mut at.cell {
                    cell.text.push_str(&text);
                }
            }
            Event::Eof => return Ok(looks),
            _ => {}
        }
        buffer.clear();
    }
}

/// An attribute's value, if the tag has it.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let found = tag.try_get_attribute(name).map_err(|error| damaged(&error))?;
    Ok(found.map(|found| found.value.into_owned()))
}

/// How often something stands there: once at least.
fn count(tag: &BytesStart<'_>, name: &str) -> Result<u32, String> {
    Ok(attribute(tag, name)?.and_then(|count| count.parse().ok()).unwrap_or(1).max(1))
}

/// Whether a row or column is not shown, by a filter or because somebody said so.
fn is_hidden(tag: &BytesStart<'_>) -> Result<bool, String> {
    let visibility = attribute(tag, "table:visibility")?;
    Ok(matches!(visibility.as_deref(), Some("filter" | "collapse")))
}

impl At {
    fn begin(&mut self, tag: &BytesStart<'_>, sheet: &str, looks: &mut Looks) -> Result<(), String> {
        match tag.name().as_ref() {
            "table:table" => {
                let name = attribute(tag, "table:name")?;
                let name = name.as_deref().and_then(|name| quick_xml::escape::unescape(name).ok());
                *self = Self { in_sheet: name.is_some_and(|name| name == sheet), ..Self::default() };
            }
            _ if !self.in_sheet => {}
            "table:table-row" => {
                (self.column, self.rows) = (0, count(tag, "table:number-rows-repeated")?);
                if is_hidden(tag)? {
                    looks.hidden.add_rows(self.row, self.row.saturating_add(self.rows - 1));
                }
            }
            "table:table-column" => {
                let columns = count(tag, "table:number-columns-repeated")?;
                if is_hidden(tag)? {
                    let last = self.columns.saturating_add(columns - 1);
                    looks.hidden.add_columns(self.columns, last);
                }
                self.columns = self.columns.saturating_add(columns);
            }
            "table:table-cell" | "table:covered-table-cell" => {
                let number = attribute(tag, "office:value")?.and_then(|value| value.parse().ok());
                let kind = attribute(tag, "office:value-type")?;
                self.cell = Some(Cell {
                    number: number.filter(|_| matches!(kind.as_deref(), Some("float" | "currency"))),
                    has_formula: attribute(tag, "table:formula")?.is_some(),
                    has_type: kind.is_some(),
                    text: String::new(),
                    has_text: false,
                    columns: count(tag, "table:number-columns-repeated")?,
                    spanned: (
                        count(tag, "table:number-rows-spanned")?,
                        count(tag, "table:number-columns-spanned")?,
                    ),
                });
            }
            "text:p" => {
                self.in_text = true;
                if let Some(cell) = &mut self.cell {
                    cell.has_text = true;
                }
            }
            // A note beside a cell is none of its text.
            "office:annotation" => self.in_text = false,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, tag: &str, looks: &mut Looks) -> Result<(), String> {
        match tag {
            "text:p" => self.in_text = false,
            "table:table" => self.in_sheet = false,
            "table:table-row" => self.row = self.row.saturating_add(self.rows),
            "table:table-cell" | "table:covered-table-cell" => {
                let Some(cell) = self.cell.take() else { return Ok(()) };
                self.look(&cell, looks)?;
                self.column = self.column.saturating_add(cell.columns);
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&self, cell: &Cell, looks: &mut Looks) -> Result<(), String> {
        let here = (self.row, self.column);
        // What a formula came to may be a text of no letter, which has no type.
        if cell.has_formula && !cell.has_type && !cell.has_text {
            return Err(never_calculated(here));
        }
        let (rows, columns) = cell.spanned;
        if rows > 1 || columns > 1 {
            let end = (here.0.saturating_add(rows - 1), here.1.saturating_add(columns - 1));
            looks.merged.push((here, end));
        }
        let shown = cell.number.and_then(|number| of_text(&cell.text, number));
        let Some(shown) = cell.word().or(shown) else { return Ok(()) };
        for row in self.row..self.row.saturating_add(self.rows) {
            for column in self.column..self.column.saturating_add(cell.columns) {
                looks.words.insert((row, column), shown.clone());
            }
        }
        Ok(())
    }
}

impl Cell {
    /// The word that it shows for a number; of truth as other programs' files have it.
    fn word(&self) -> Option<String> {
        let is_word = !self.text.is_empty() && self.text.chars().all(char::is_alphabetic);
        let is_english = ["true", "false"].iter().any(|word| self.text.eq_ignore_ascii_case(word));
        let word = if is_english { self.text.to_lowercase() } else { self.text.clone() };
        (self.number.is_some() && is_word).then_some(word)
    }
}
