//! A spreadsheet's sheet as the text of a table: XLSX, XLS and ODS.
//!
//! Guarantees: what a text cell holds stays as it is, a number is what its cell shows, a date is its day, and each row has the
//! line that it has in the sheet. A file that unpacks to more than can be held is refused before it is. Never: a macro run, a
//! formula calculated, a link followed.

use std::collections::HashMap;
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use calamine::{
    CellErrorType, Data, DataRef, Dimensions, ExcelDateTime, Ods, OdsError, Reader, SheetType, SheetVisible,
    Style, Xls, XlsError, Xlsx, XlsxError,
};

use archive::{Archive, Kind};
use table::Table;

mod archive;
mod ods;
mod table;
mod xls;

/// Beginning of an archive, as XLSX and ODS are.
const ARCHIVE: &[u8] = b"PK\x03\x04";
/// Beginning of Microsoft's older container: an XLS, or anything with a password.
const CONTAINER: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
/// What separates the cells of what is written.
pub const DELIMITER: u8 = b',';
/// So much of a beginning tells a spreadsheet.
pub const START_BYTES: usize = 8;
/// Beyond this a number has digits that a spreadsheet does not keep.
const EXACT_BELOW: f64 = 1e15;

/// Rows that a sheet can have: of an XLS, and of all others.
const ROWS_MAX: [u32; 2] = [65_536, 1_048_576];

const PASSWORD: &str = "the spreadsheet has a password; open it, take the password off and save it (in Excel: File, Info, \
                        Protect Workbook)";

/// Whether bytes that begin so are a spreadsheet's.
#[must_use]
pub fn is_spreadsheet(start: &[u8]) -> bool {
    start.starts_with(ARCHIVE) || start.starts_with(CONTAINER)
}

/// A sheet that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Its name.
    pub name: String,
    /// What is in the file and not in the rows that were read, in words.
    pub notes: Vec<String>,
}

/// A cell's row and column, from 0.
type Place = (u32, u32);

/// What is known of a sheet's cells beside their values.
#[derive(Debug, Default)]
struct Looks {
    /// Of numbers that are shown with zeros before them: how many digits.
    digits: HashMap<Place, usize>,
    /// Of numbers that are shown as words what they show: `TRUE` is a number to some programs.
    words: HashMap<Place, String>,
    /// Cells that are merged, by the first and the last of them.
    merged: Vec<(Place, Place)>,
    has_macros: bool,
}

/// Writes the sheet of that name, or the first that is shown, as CSV with commas.
///
/// # Errors
/// A sentence that says what the file is and what to do, or why it could not be written.
pub fn write_csv(bytes: &[u8], sheet: Option<&str>, out: impl Write) -> Result<Sheet, String> {
    // The library that reads an XLS computes lengths from what stands in the file, and panics where a damaged one lies.
    catch_unwind(AssertUnwindSafe(|| of_bytes(bytes, sheet, out)))
        .unwrap_or_else(|_| Err(damaged(&"what stands in it contradicts itself")))
}

fn of_bytes(bytes: &[u8], sheet: Option<&str>, out: impl Write) -> Result<Sheet, String> {
    if bytes.starts_with(CONTAINER) {
        return of_container(bytes, sheet, out);
    }
    let archive = Archive::inspect(bytes)?;
    match archive.kind {
        Kind::Xlsx => of_xlsx(bytes, sheet, &archive, out),
        Kind::Ods => {
            let mut ods: Ods<_> = open(bytes).map_err(|error| match error {
                OdsError::Password => PASSWORD.to_owned(),
                error => damaged(&error),
            })?;
            let name = chosen(&ods, sheet)?;
            let looks = Looks { has_macros: archive.has_macros, ..ods::looks(bytes, &name)? };
            of_range(&mut ods, name, looks, out)
        }
    }
}

fn open<'b, R: Reader<Cursor<&'b [u8]>>>(bytes: &'b [u8]) -> Result<R, R::Error> {
    R::new(Cursor::new(bytes))
}

fn damaged(error: &dyn std::fmt::Display) -> String {
    format!("the spreadsheet is damaged ({error}); open it in a spreadsheet program and save it again")
}

/// Which of them is read.
fn chosen<'b, R: Reader<Cursor<&'b [u8]>>>(workbook: &R, wanted: Option<&str>) -> Result<String, String> {
    let sheets = workbook.sheets_metadata();
    let tables = || sheets.iter().filter(|sheet| sheet.typ == SheetType::WorkSheet);
    let found = match wanted {
        Some(wanted) => tables().find(|sheet| sheet.name == wanted),
        None => tables().find(|sheet| sheet.visible == SheetVisible::Visible).or_else(|| tables().next()),
    };
    found.map(|sheet| sheet.name.clone()).ok_or_else(|| match wanted {
        None => "the spreadsheet has no sheet with cells".to_owned(),
        Some(wanted) => {
            let names: Vec<_> = tables().map(|sheet| format!("{:?}", sheet.name)).collect();
            format!("the spreadsheet has no sheet {wanted:?}, but {}", names.join(", "))
        }
    })
}

fn of_container(bytes: &[u8], sheet: Option<&str>, out: impl Write) -> Result<Sheet, String> {
    match open::<Xls<_>>(bytes) {
        Ok(mut xls) => {
            let name = chosen(&xls, sheet)?;
            let merged = xls.merge_cells_by_sheet_name(&name).map_err(|error| damaged(&error))?;
            let merged = merged.iter().map(ends).collect();
            let looks = Looks { merged, ..xls::looks(bytes, &name) };
            of_range(&mut xls, name, looks, out)
        }
        Err(XlsError::Password) => Err(PASSWORD.to_owned()),
        Err(error) => match open::<Xlsx<_>>(bytes) {
            Err(XlsxError::Password) => Err(PASSWORD.to_owned()),
            _ => Err(damaged(&error)),
        },
    }
}

/// A file that is held as a whole anyway.
fn of_range<'b, R>(workbook: &mut R, name: String, looks: Looks, out: impl Write) -> Result<Sheet, String>
where
    R: Reader<Cursor<&'b [u8]>>,
    R::Error: std::fmt::Display,
{
    none_over_rows(&looks.merged)?;
    let range = workbook.worksheet_range(&name).map_err(|error| damaged(&error))?;
    let (first_row, first_column) = range.start().unwrap_or_default();
    let mut table = Table::new(out);
    for (row, cells) in (first_row..).zip(range.rows()) {
        for (column, cell) in (first_column..).zip(cells) {
            let text = match cell {
                Data::Empty => continue,
                Data::Int(_) | Data::Float(_) if looks.words.contains_key(&(row, column)) => {
                    looks.words[&(row, column)].clone()
                }
                Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
                Data::Int(number) => whole(*number, looks.digits.get(&(row, column)).copied()),
                Data::Float(number) => shown(*number, looks.digits.get(&(row, column)).copied()),
                Data::Bool(is) => is.to_string(),
                Data::DateTime(time) => day(time),
                Data::Error(error) => word(error),
            };
            table.add((row, column), text).map_err(|error| error.to_string())?;
        }
    }
    let rows = table.finish().map_err(|error| error.to_string())?;
    Ok(Sheet { name, notes: looks.notes(rows) })
}

fn of_xlsx(bytes: &[u8], sheet: Option<&str>, archive: &Archive, out: impl Write) -> Result<Sheet, String> {
    let mut xlsx: Xlsx<_> = open(bytes).map_err(|error| match error {
        XlsxError::Password => PASSWORD.to_owned(),
        error => damaged(&error),
    })?;
    let name = chosen(&xlsx, sheet)?;
    if archive.has_formulas {
        every_formula_has_its_value(&mut xlsx, &name)?;
    }
    let mut looks = Looks { has_macros: archive.has_macros, ..Looks::default() };
    if archive.has_merged {
        let merged = xlsx.merge_cells_by_sheet_name(&name).map_err(|error| damaged(&error))?;
        looks.merged = merged.iter().map(ends).collect();
        none_over_rows(&looks.merged)?;
    }
    let mut cells = xlsx.worksheet_cells_reader(&name).map_err(|error| damaged(&error))?;
    // The reader lends its styles only while nothing is read.
    let formats: Vec<Option<usize>> = cells.styles().iter().map(leading_zeros).collect();
    let mut table = Table::new(out);
    while let Some((cell, style)) = cells.next_cell_with_style_id().map_err(|error| damaged(&error))? {
        let text = match cell.get_value() {
            DataRef::Empty => continue,
            DataRef::SharedString(text) => (*text).to_owned(),
            DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
            DataRef::Int(number) => whole(*number, formats.get(style).copied().flatten()),
            DataRef::Float(number) => shown(*number, formats.get(style).copied().flatten()),
            DataRef::Bool(is) => is.to_string(),
            DataRef::DateTime(time) => day(time),
            DataRef::Error(error) => word(error),
        };
        table.add(cell.get_position(), text).map_err(|error| error.to_string())?;
    }
    let rows = table.finish().map_err(|error| error.to_string())?;
    Ok(Sheet { name, notes: looks.notes(rows) })
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
    /// What a person should be told, of a sheet with so many rows.
    fn notes(&self, rows: u32) -> Vec<String> {
        let mut notes = Vec::new();
        if self.has_macros {
            notes.push("its macros were not run".to_owned());
        }
        // The first row may be a title.
        if let Some((start, end)) = self.merged.iter().find(|(start, _)| start.0 > 0) {
            let (start, end) = (place(*start), place(*end));
            notes.push(format!("merged cells {start}:{end}, of which {start} alone has what is in them"));
        }
        if ROWS_MAX.contains(&rows) {
            notes.push(format!(
                "row {rows} is the last that a sheet can have, so rows of a longer table would be missing from it"
            ));
        }
        notes
    }
}

/// How many digits a format fills up with zeros: `00000` shows 2138 as 02138.
fn leading_zeros(style: &Style) -> Option<usize> {
    zeros_of(&style.number_format.as_ref()?.format_code)
}

fn zeros_of(code: &str) -> Option<usize> {
    (code.len() > 1 && code.bytes().all(|letter| letter == b'0')).then_some(code.len())
}

/// A whole number as its cell shows it.
fn whole(number: i64, digits: Option<usize>) -> String {
    let digits = digits.unwrap_or(0);
    format!("{number:0digits$}")
}

/// A number as its cell shows it.
fn shown(number: f64, digits: Option<usize>) -> String {
    if number.abs() >= EXACT_BELOW {
        // As the sheet has it: that digits are lost is told with the row.
        return format!("{number:E}").replace('E', "E+");
    }
    match digits {
        Some(digits) => format!("{number:0digits$.0}"),
        None => number.to_string(),
    }
}

/// A date as ISO 8601 has it, with its time if it has one.
fn day(time: &ExcelDateTime) -> String {
    if time.is_duration() {
        return shown(time.as_f64(), None);
    }
    let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
    match (hour, minute, second) {
        (0, 0, 0) => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"),
    }
}

/// What a cell shows whose formula failed.
fn word(error: &CellErrorType) -> String {
    error.to_string()
}

/// A cell's place as spreadsheets call it: `B3`.
fn place((row, column): Place) -> String {
    let (mut letters, mut left) = (Vec::new(), column + 1);
    while left > 0 {
        let letter = u8::try_from((left - 1) % 26).unwrap_or(0);
        letters.insert(0, char::from(b'A' + letter));
        left = (left - 1) / 26;
    }
    format!("{}{}", letters.into_iter().collect::<String>(), row + 1)
}
