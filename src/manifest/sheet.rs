//! A spreadsheet's sheet as the text of a table: XLSX, XLS and ODS.
//!
//! Guarantees: what a text cell holds stays as it is, a number is what its cell shows, a date is its day, and each row has the
//! line that it has in the sheet. A file that unpacks to more than can be held is refused before it is. Never: a macro run, a
//! formula calculated, a link followed.

use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use calamine::{Data, DataRef, Dimensions, Ods, OdsError, Reader, Style, Xls, XlsError, Xlsx, XlsxError};

use super::{Problem, Reading, Severity, titles};
use archive::{Archive, Kind};
use cells::{place, text_of, text_of_lent};
use choice::{AreHeadings, Choice, ROWS_LOOKED_AT, choose};
use format::Format;
use hidden::Hidden;
use table::{Table, Written};

mod archive;
mod cells;
mod choice;
mod format;
mod hidden;
mod ods;
mod table;
mod xls;
mod xlsx;

/// Beginning of an archive, as XLSX and ODS are.
const ARCHIVE: &[u8] = b"PK\x03\x04";
/// Beginning of Microsoft's older container: an XLS, or anything with a password.
const CONTAINER: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
/// What separates the cells of what is written.
pub const DELIMITER: u8 = b',';
/// So much of a beginning tells a spreadsheet.
pub const START_BYTES: usize = 8;

/// Rows that a sheet can have: of an XLS, and of all others.
const ROWS_MAX: [u32; 2] = [65_536, 1_048_576];

/// Columns that a sheet can have, of an XLS and of all others.
const COLUMNS_OF_XLS_MAX: u32 = 256;
const COLUMNS_MAX: u32 = 16_384;

const PASSWORD: &str = "the spreadsheet has a password; open it, take the password off and save it (in Excel: File, Info, \
                        Protect Workbook)";

/// Whether bytes that begin so are a spreadsheet's.
#[must_use]
pub fn is_spreadsheet(start: &[u8]) -> bool {
    start.starts_with(ARCHIVE) || start.starts_with(CONTAINER)
}

/// A sheet that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheet {
    /// Its name.
    pub name: String,
    /// What is in the file and not in the rows that were read, in words.
    pub notes: Vec<String>,
    /// The lines of rows that it does not show.
    hidden: Vec<u64>,
    /// Sheets with a table, which is not read.
    tables: Vec<String>,
    /// Sheets in which something stands, and which are not read.
    others: Vec<String>,
}

impl Sheet {
    /// What may be wrong with the choice of what was read, where the headings stand on this line.
    pub(super) fn warnings(&self, headings_line: u64) -> Vec<Problem> {
        let tables = (!self.tables.is_empty()).then(|| {
            let (has, them) =
                if self.tables.len() == 1 { ("has", "that one") } else { ("have", "one of them") };
            let reason = format!(
                "the spreadsheet's {} {has} rows, too, which are not read: only those of {:?} are. Read {them} with --sheet (over \
                 HTTP ?sheet=), or put all rows into one sheet",
                named(&self.tables),
                self.name
            );
            let problem = Problem::new(headings_line, 0, "", "other_sheets", reason);
            Problem { severity: Severity::Warning, ..problem }
        });
        let below: Vec<u64> = self.hidden.iter().copied().filter(|line| *line > headings_line).collect();
        tables.into_iter().chain(hidden::warning(&below)).collect()
    }

    /// What is said where this sheet has no headings and another one may.
    pub(super) fn way_out(&self) -> Option<String> {
        (!self.others.is_empty()).then(|| {
            format!(
                "; this is {:?} of the spreadsheet, which has {}, too: name the one to read with --sheet (over HTTP ?sheet=)",
                self.name,
                named(&self.others)
            )
        })
    }
}

/// Sheets by their names.
fn named(sheets: &[String]) -> String {
    let names: Vec<_> = sheets.iter().map(|name| format!("{name:?}")).collect();
    format!("sheet{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// What is said of a file that has a cell where no sheet has one.
fn beyond(cell: &str) -> String {
    format!(
        "the spreadsheet is damaged: it says that it has a cell {cell}, and no sheet is as large as that; open it in a spreadsheet \
         program, save it anew, and take that file"
    )
}

/// A cell's row and column, from 0.
type Place = (u32, u32);

/// What is known of a sheet's cells beside their values.
#[derive(Debug, Default)]
struct Looks {
    /// Formats that show more than a number.
    formats: Vec<Format>,
    /// Which of them numbers have.
    format_of: HashMap<Place, usize>,
    /// Of numbers that are shown as something else what they show: `TRUE` is a number to some programs.
    words: HashMap<Place, String>,
    /// Cells that are merged, by the first and the last of them.
    merged: Vec<(Place, Place)>,
    has_macros: bool,
    hidden: Hidden,
}

/// Writes the sheet that is to be read, or the first with a table, as CSV with commas.
///
/// # Errors
/// A sentence that says what the file is and what to do, or why it could not be written.
pub fn write_csv(bytes: &[u8], reading: &Reading, out: impl Write) -> Result<Sheet, String> {
    let are_headings = |cells: &[String]| titles::are_headings(cells, reading.columns.as_deref());
    let wanted = Wanted { sheet: reading.sheet.as_deref(), are_headings: &are_headings };
    // The library that reads an XLS computes lengths from what stands in the file, and panics where a damaged one lies.
    catch_unwind(AssertUnwindSafe(|| of_bytes(bytes, wanted, out)))
        .unwrap_or_else(|_| Err(damaged(&"what stands in it contradicts itself")))
}

/// What is to be read.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    sheet: Option<&'a str>,
    are_headings: AreHeadings<'a>,
}

fn of_bytes(bytes: &[u8], wanted: Wanted<'_>, out: impl Write) -> Result<Sheet, String> {
    if bytes.starts_with(CONTAINER) {
        return of_container(bytes, wanted, out);
    }
    let archive = Archive::inspect(bytes)?;
    match archive.kind {
        Kind::Xlsx => of_xlsx(bytes, wanted, &archive, out),
        Kind::Ods => {
            let mut ods: Ods<_> = open(bytes).map_err(|error| match error {
                OdsError::Password => PASSWORD.to_owned(),
                error => damaged(&error),
            })?;
            let choice = chosen_of_held(&mut ods, wanted)?;
            let looks = Looks { has_macros: archive.has_macros, ..ods::looks(bytes, &choice.name)? };
            of_range(&mut ods, choice, looks, (wanted, out))
        }
    }
}

fn open<'b, R: Reader<Cursor<&'b [u8]>>>(bytes: &'b [u8]) -> Result<R, R::Error> {
    R::new(Cursor::new(bytes))
}

fn damaged(error: &dyn std::fmt::Display) -> String {
    format!("the spreadsheet is damaged ({error}); open it in a spreadsheet program and save it again")
}

/// Which sheet is read of a file that is held as a whole anyway.
fn chosen_of_held<'b, R>(workbook: &mut R, wanted: Wanted<'_>) -> Result<Choice, String>
where
    R: Reader<Cursor<&'b [u8]>>,
{
    let sheets = workbook.sheets_metadata().to_vec();
    choose(&sheets, wanted.sheet, wanted.are_headings, &mut |name| {
        let Ok(range) = workbook.worksheet_range(name) else { return Vec::new() };
        let texts = |row: &[Data]| -> Vec<String> {
            row.iter().map(|cell| text_of(cell, None).unwrap_or_default()).collect()
        };
        let has_some = |row: &Vec<String>| row.iter().any(|text| !text.trim().is_empty());
        range.rows().map(texts).filter(has_some).take(ROWS_LOOKED_AT).collect()
    })
}

/// Which sheet is read of a file that is read as a stream.
fn chosen_of_xlsx(xlsx: &mut Xlsx<Cursor<&[u8]>>, wanted: Wanted<'_>) -> Result<Choice, String> {
    let sheets = xlsx.sheets_metadata().to_vec();
    choose(&sheets, wanted.sheet, wanted.are_headings, &mut |name| {
        let mut rows: Vec<(u32, Vec<String>)> = Vec::new();
        let Ok(mut cells) = xlsx.worksheet_cells_reader(name) else { return Vec::new() };
        while let Ok(Some(cell)) = cells.next_cell() {
            let text = text_of_lent(cell.get_value(), None).filter(|text| !text.trim().is_empty());
            let Some(text) = text else { continue };
            let (row, _) = cell.get_position();
            let is_enough = rows.len() == ROWS_LOOKED_AT;
            match rows.last_mut() {
                Some((last, cells)) if *last == row => cells.push(text),
                _ if is_enough => break,
                _ => rows.push((row, vec![text])),
            }
        }
        rows.into_iter().map(|(_, cells)| cells).collect()
    })
}

fn of_container(bytes: &[u8], wanted: Wanted<'_>, out: impl Write) -> Result<Sheet, String> {
    let smaller = xls::held_easily(bytes)?;
    let bytes = smaller.as_ref().map_or(bytes, |smaller| smaller.as_slice());
    match open::<Xls<_>>(bytes) {
        Ok(mut xls) => {
            let choice = chosen_of_held(&mut xls, wanted)?;
            let merged = xls.merge_cells_by_sheet_name(&choice.name).map_err(|error| damaged(&error))?;
            let merged = merged.iter().map(ends).collect();
            let looks = Looks { merged, ..xls::looks(bytes, &choice.name) };
            of_range(&mut xls, choice, looks, (wanted, out))
        }
        Err(XlsError::Password) => Err(PASSWORD.to_owned()),
        Err(error) => match open::<Xlsx<_>>(bytes) {
            Err(XlsxError::Password) => Err(PASSWORD.to_owned()),
            _ => Err(damaged(&error)),
        },
    }
}

/// A file that is held as a whole anyway.
fn of_range<'b, R>(
    workbook: &mut R,
    choice: Choice,
    looks: Looks,
    (wanted, out): (Wanted<'_>, impl Write),
) -> Result<Sheet, String>
where
    R: Reader<Cursor<&'b [u8]>>,
    R::Error: std::fmt::Display,
{
    none_over_rows(&looks.merged)?;
    let range = workbook.worksheet_range(&choice.name).map_err(|error| damaged(&error))?;
    let (first_row, first_column) = range.start().unwrap_or_default();
    let mut table = Table::new(out, wanted.are_headings, &looks.hidden);
    for (row, column, cell) in range.used_cells() {
        let offset =
            |first: u32, place: usize| first.saturating_add(u32::try_from(place).unwrap_or(u32::MAX));
        let place = (offset(first_row, row), offset(first_column, column));
        let word = match cell {
            Data::Int(_) | Data::Float(_) => looks.words.get(&place).cloned(),
            _ => None,
        };
        let format = looks.format_of.get(&place).map(|at| &looks.formats[*at]);
        let Some(text) = word.or_else(|| text_of(cell, format)) else { continue };
        table.add(place, text).map_err(|error| error.to_string())?;
    }
    let written = table.finish().map_err(|error| error.to_string())?;
    Ok(looks.sheet(choice, written))
}

fn of_xlsx(bytes: &[u8], wanted: Wanted<'_>, archive: &Archive, out: impl Write) -> Result<Sheet, String> {
    let mut xlsx: Xlsx<_> = open(bytes).map_err(|error| match error {
        XlsxError::Password => PASSWORD.to_owned(),
        error => damaged(&error),
    })?;
    let choice = chosen_of_xlsx(&mut xlsx, wanted)?;
    let name = &choice.name;
    if archive.has_formulas {
        every_formula_has_its_value(&mut xlsx, name)?;
    }
    let mut looks = Looks { has_macros: archive.has_macros, ..Looks::default() };
    if archive.has_hidden {
        looks.hidden = xlsx::hidden(bytes, name);
    }
    if archive.has_merged {
        let merged = xlsx.merge_cells_by_sheet_name(name).map_err(|error| damaged(&error))?;
        looks.merged = merged.iter().map(ends).collect();
        none_over_rows(&looks.merged)?;
    }
    let mut cells = xlsx.worksheet_cells_reader(name).map_err(|error| damaged(&error))?;
    // The reader lends its styles only while nothing is read.
    let formats: Vec<Option<Format>> = cells.styles().iter().map(format_of).collect();
    let mut table = Table::new(out, wanted.are_headings, &looks.hidden);
    while let Some((cell, style)) = cells.next_cell_with_style_id().map_err(|error| damaged(&error))? {
        let format = formats.get(style).and_then(Option::as_ref);
        let Some(text) = text_of_lent(cell.get_value(), format) else { continue };
        table.add(cell.get_position(), text).map_err(|error| error.to_string())?;
    }
    let written = table.finish().map_err(|error| error.to_string())?;
    Ok(looks.sheet(choice, written))
}

/// What a style's format shows beside the number.
fn format_of(style: &Style) -> Option<Format> {
    let format = style.number_format.as_ref()?;
    // Of some the library knows the number alone.
    let known = format.format_id.filter(|_| format.format_code == "General").and_then(format::built_in);
    Format::of(known.unwrap_or(&format.format_code))
}

/// A formula that no program has calculated has no value, and its cell would be taken for an empty one.
fn every_formula_has_its_value(xlsx: &mut Xlsx<Cursor<&[u8]>>, name: &str) -> Result<(), String> {
    let mut cells = xlsx.worksheet_cells_reader(name).map_err(|error| damaged(&error))?;
    while let Some(cell) = cells.next_cell_with_formula_metadata().map_err(|error| damaged(&error))? {
        if cell.formula.is_some() && cell.value == DataRef::Empty {
            return Err(never_calculated(cell.pos));
        }
    }
    Ok(())
}

fn ends(cells: &Dimensions) -> (Place, Place) {
    (cells.start, cells.end)
}

/// In one row merged cells are a title; over several, only the first of them has what the others seem to have.
fn none_over_rows(merged: &[(Place, Place)]) -> Result<(), String> {
    match merged.iter().find(|(start, end)| end.0 > start.0 && start.0 > 0) {
        None => Ok(()),
        Some((start, end)) => Err(format!(
            "the cells {}:{} are merged, so that only the first of these rows has what is in them; unmerge them, and \
             fill them in for each row",
            place(*start),
            place(*end)
        )),
    }
}

fn never_calculated(cell: Place) -> String {
    format!(
        "cell {} holds a formula that was never calculated; open the file in a spreadsheet program and save it there",
        place(cell)
    )
}

impl Looks {
    /// What is told of the sheet, which was written.
    fn sheet(&self, choice: Choice, written: Written) -> Sheet {
        let Written { rows, columns, hidden_lines } = written;
        let mut notes = Vec::new();
        notes.extend(choice.note);
        if self.has_macros {
            notes.push("its macros were not run".to_owned());
        }
        // The first row may be a title.
        if let Some((start, end)) = self.merged.iter().find(|(start, _)| start.0 > 0) {
            let (start, end) = (place(*start), place(*end));
            notes.push(format!("merged cells {start}:{end}, of which {start} alone has what is in them"));
        }
        match self.hidden.columns(u32::try_from(columns).unwrap_or(u32::MAX)).as_slice() {
            [] => {}
            [one] => notes.push(format!("column {one} is hidden, and is read, too")),
            several => notes.push(format!("columns {} are hidden, and are read, too", several.join(", "))),
        }
        if ROWS_MAX.contains(&rows) {
            notes.push(format!(
                "row {rows} is the last that a sheet can have, so rows of a longer table would be missing from it"
            ));
        }
        let (tables, others) = (choice.tables, choice.others);
        Sheet { name: choice.name, notes, hidden: hidden_lines, tables, others }
    }
}
