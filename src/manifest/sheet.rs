//! A spreadsheet's sheet as the text of a table: XLSX, XLS and ODS.
//!
//! Guarantees: what a text cell holds stays as it is, a number is what its cell shows, a date is its day, and each row has the
//! line that it has in the sheet. A file that unpacks to more than can be held is refused before it is. Never: a macro run, a
//! formula calculated, a link followed.

use std::io::{self, Cursor, Read, Write};

use calamine::{
    CellErrorType, Data, DataRef, ExcelDateTime, Ods, OdsError, Reader, SheetType, SheetVisible, Style, Xls,
    XlsError, Xlsx, XlsxError,
};
use memchr::memmem;

/// Beginning of an archive, as XLSX and ODS are.
const ARCHIVE: &[u8] = b"PK\x03\x04";
/// Beginning of Microsoft's older container: an XLS, or anything with a password.
const CONTAINER: &[u8] = &[0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];
/// What separates the cells of what is written.
pub const DELIMITER: u8 = b',';
/// So much of a beginning tells a spreadsheet.
pub const START_BYTES: usize = 8;
/// Most that the sheets of a file may unpack to; they are read as a stream.
const SHEETS_BYTES_MAX: u64 = 2 << 30;
/// Most that all the rest may: the texts of all cells are held.
const REST_BYTES_MAX: u64 = 256 << 20;
/// Most cells of an ODS file, repeated ones counted as often as they are: all of them are held.
const CELLS_MAX: u64 = 10_000_000;
/// Beyond this a number has digits that a spreadsheet does not keep.
const EXACT_BELOW: f64 = 1e15;

const TOO_LARGE: &str = "the spreadsheet unpacks to more than can be held; save the sheet as CSV (in Excel: Save as, CSV \
                         UTF-8), which may be of any size";
const PASSWORD: &str = "the spreadsheet has a password; open it, take the password off and save it (in Excel: File, Info, \
                        Protect Workbook)";

/// Whether bytes that begin so are a spreadsheet's.
#[must_use]
pub fn is_spreadsheet(start: &[u8]) -> bool {
    start.starts_with(ARCHIVE) || start.starts_with(CONTAINER)
}

/// Writes the sheet of that name, or the first that is shown, as CSV with commas; answers the sheet's name.
///
/// # Errors
/// A sentence that says what the file is and what to do, or why it could not be written.
pub fn write_csv(bytes: &[u8], sheet: Option<&str>, out: impl Write) -> Result<String, String> {
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
            of_range(&mut ods, sheet, out)
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

fn of_container(bytes: &[u8], sheet: Option<&str>, out: impl Write) -> Result<String, String> {
    match open::<Xls<_>>(bytes) {
        Ok(mut xls) => of_range(&mut xls, sheet, out),
        Err(XlsError::Password) => Err(PASSWORD.to_owned()),
        Err(error) => match open::<Xlsx<_>>(bytes) {
            Err(XlsxError::Password) => Err(PASSWORD.to_owned()),
            _ => Err(damaged(&error)),
        },
    }
}

/// A file that is held as a whole anyway.
fn of_range<'b, R>(workbook: &mut R, sheet: Option<&str>, out: impl Write) -> Result<String, String>
where
    R: Reader<Cursor<&'b [u8]>>,
    R::Error: std::fmt::Display,
{
    let name = chosen(workbook, sheet)?;
    let range = workbook.worksheet_range(&name).map_err(|error| damaged(&error))?;
    let (first_row, first_column) = range.start().unwrap_or_default();
    let mut table = Table::new(out);
    for (row, cells) in (first_row..).zip(range.rows()) {
        for (column, cell) in (first_column..).zip(cells) {
            let text = match cell {
                Data::Empty => continue,
                Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
                Data::Int(number) => number.to_string(),
                Data::Float(number) => shown(*number, None),
                Data::Bool(is) => is.to_string(),
                Data::DateTime(time) => day(time),
                Data::Error(error) => word(error),
            };
            table.add((row, column), text).map_err(|error| error.to_string())?;
        }
    }
    table.finish().map_err(|error| error.to_string())?;
    Ok(name)
}

fn of_xlsx(bytes: &[u8], sheet: Option<&str>, archive: &Archive, out: impl Write) -> Result<String, String> {
    let mut xlsx: Xlsx<_> = open(bytes).map_err(|error| match error {
        XlsxError::Password => PASSWORD.to_owned(),
        error => damaged(&error),
    })?;
    let name = chosen(&xlsx, sheet)?;
    if archive.has_formulas {
        every_formula_has_its_value(&mut xlsx, &name)?;
    }
    if archive.has_merged {
        let merged = xlsx.merge_cells_by_sheet_name(&name).map_err(|error| damaged(&error))?;
        // In one row it is a title; over several, only the first of them has what the others seem to have.
        if let Some(over) = merged.iter().find(|cells| cells.end.0 > cells.start.0 && cells.start.0 > 0) {
            return Err(format!(
                "the cells {}:{} are merged, so that only the first of these rows has what is in them; unmerge them, and \
                 fill them in for each row",
                place(over.start),
                place(over.end)
            ));
        }
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
            DataRef::Int(number) => number.to_string(),
            DataRef::Float(number) => shown(*number, formats.get(style).copied().flatten()),
            DataRef::Bool(is) => is.to_string(),
            DataRef::DateTime(time) => day(time),
            DataRef::Error(error) => word(error),
        };
        table.add(cell.get_position(), text).map_err(|error| error.to_string())?;
    }
    table.finish().map_err(|error| error.to_string())?;
    Ok(name)
}

/// A formula that no program has calculated has no value, and its cell would be taken for an empty one.
fn every_formula_has_its_value(xlsx: &mut Xlsx<Cursor<&[u8]>>, name: &str) -> Result<(), String> {
    let mut cells = xlsx.worksheet_cells_reader(name).map_err(|error| damaged(&error))?;
    while let Some(cell) = cells.next_cell_with_formula_metadata().map_err(|error| damaged(&error))? {
        if cell.formula.is_some() && cell.value == DataRef::Empty {
            return Err(format!(
                "cell {} holds a formula that was never calculated; open the file in a spreadsheet program and save it \
                 there",
                place(cell.pos)
            ));
        }
    }
    Ok(())
}

/// How many digits a format fills up with zeros: `00000` shows 2138 as 02138.
fn leading_zeros(style: &Style) -> Option<usize> {
    let code = style.number_format.as_ref()?.format_code.as_str();
    (code.len() > 1 && code.bytes().all(|letter| letter == b'0')).then_some(code.len())
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
fn place((row, column): (u32, u32)) -> String {
    let (mut letters, mut left) = (Vec::new(), column + 1);
    while left > 0 {
        let letter = u8::try_from((left - 1) % 26).unwrap_or(0);
        letters.insert(0, char::from(b'A' + letter));
        left = (left - 1) / 26;
    }
    format!("{}{}", letters.into_iter().collect::<String>(), row + 1)
}

/// Rows of cells, written as they are whole.
struct Table<W: Write> {
    out: csv::Writer<W>,
    /// The row whose cells are being added.
    row: u32,
    cells: Vec<String>,
    /// How many cells the first row has that has any: no row is written with fewer.
    width: usize,
}

impl<W: Write> Table<W> {
    fn new(out: W) -> Self {
        let out = csv::WriterBuilder::new().delimiter(DELIMITER).flexible(true).from_writer(out);
        Self { out, row: 0, cells: Vec::new(), width: 0 }
    }

    fn add(&mut self, (row, column): (u32, u32), text: String) -> io::Result<()> {
        if row < self.row {
            return Err(io::Error::other("the sheet's rows are in no order; save it again"));
        }
        while self.row < row {
            self.end_row()?;
        }
        let column = column as usize;
        if column >= self.cells.len() {
            self.cells.resize(column + 1, String::new());
        }
        // A line's end inside a cell is the writer's way of wrapping it. Without it each row is one line.
        self.cells[column] = if text.contains(['\r', '\n']) {
            text.replace("\r\n", " ").replace(['\r', '\n'], " ")
        } else {
            text
        };
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        if self.width == 0 && self.cells.iter().any(|cell| !cell.is_empty()) {
            self.width = self.cells.len();
        }
        // A record of no cell is none.
        self.cells.resize(self.cells.len().max(self.width).max(1), String::new());
        self.out.write_record(&self.cells)?;
        self.cells.clear();
        self.row += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if !self.cells.is_empty() {
            self.end_row()?;
        }
        self.out.flush()
    }
}

/// What is known of an archive before anything of it is held.
struct Archive {
    kind: Kind,
    /// Whether any of its sheets has a formula.
    has_formulas: bool,
    /// Whether any of its sheets has merged cells.
    has_merged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Xlsx,
    Ods,
}

impl Archive {
    /// Unpacks all of it once, and holds none of it but what its cells are counted in: what an archive says of its own size
    /// need not be true.
    fn inspect(bytes: &[u8]) -> Result<Self, String> {
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let has = |name: &str| archive.index_for_name(name).is_some();
        let kind = match (has("xl/workbook.xml"), has("xl/workbook.bin"), has("content.xml")) {
            (true, ..) => Kind::Xlsx,
            (_, true, _) => return Err("an .xlsb workbook is not read; save it as .xlsx".to_owned()),
            (.., true) => Kind::Ods,
            _ => return Err("the file is an archive and no spreadsheet; unpack it first".to_owned()),
        };
        let (mut sheets_left, mut rest_left) = (SHEETS_BYTES_MAX, REST_BYTES_MAX);
        let (mut has_formulas, mut has_merged) = (false, false);
        for index in 0..archive.len() {
            let mut part = archive.by_index(index).map_err(|error| match error {
                zip::result::ZipError::UnsupportedArchive(reason) if reason.contains("assword") => {
                    PASSWORD.to_owned()
                }
                error => damaged(&error),
            })?;
            let name = part.name().map_err(|error| damaged(&error))?.into_owned();
            if kind == Kind::Ods && name == "content.xml" {
                let mut content = Vec::new();
                let read = part.by_ref().take(rest_left + 1).read_to_end(&mut content);
                if read.map_err(|error| damaged(&error))? as u64 > rest_left || cells_of(&content) > CELLS_MAX
                {
                    return Err(TOO_LARGE.to_owned());
                }
                rest_left -= content.len() as u64;
                continue;
            }
            let is_sheet = name.starts_with("xl/worksheets/");
            let left = if is_sheet { &mut sheets_left } else { &mut rest_left };
            let mut chunk = vec![0; 64 << 10];
            // A tag may be cut in two.
            let mut kept = 0;
            loop {
                let read = part.read(&mut chunk[kept..]).map_err(|error| damaged(&error))?;
                if read == 0 {
                    break;
                }
                *left = left.checked_sub(read as u64).ok_or(TOO_LARGE)?;
                let filled = kept + read;
                if is_sheet {
                    let has = |tag: &[u8]| memmem::find(&chunk[..filled], tag).is_some();
                    has_formulas |= has(b"<f>") || has(b"<f ");
                    has_merged |= has(b"<mergeCell ");
                }
                kept = filled.min(b"<mergeCell".len());
                chunk.copy_within(filled - kept..filled, 0);
            }
        }
        Ok(Self { kind, has_formulas, has_merged })
    }
}

/// How many cells an ODS file's largest table has at most, up to its last row and column with something in it.
fn cells_of(content: &[u8]) -> u64 {
    let repeated = |tag: &[u8], attribute: &[u8]| {
        let tag = &tag[..memchr::memchr(b'>', tag).unwrap_or(tag.len())];
        let value = memmem::find(tag, attribute).map(|at| &tag[at + attribute.len()..]);
        let digits =
            value.map(|value| value.iter().take_while(|byte| byte.is_ascii_digit()).copied().collect());
        let digits: Vec<u8> = digits.unwrap_or_default();
        std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(1)
    };
    let (mut most, mut rows, mut filled_rows, mut width) = (0, 0_u64, 0, 0_u64);
    let row_starts: Vec<usize> = memmem::find_iter(content, b"<table:table-row").collect();
    for (at, start) in row_starts.iter().enumerate() {
        let row = &content[*start..row_starts.get(at + 1).copied().unwrap_or(content.len())];
        rows = rows.saturating_add(repeated(row, b"table:number-rows-repeated=\""));
        let (mut columns, mut filled) = (0_u64, 0);
        for cell in memmem::find_iter(row, b"table-cell")
            .filter(|at| row[..*at].ends_with(b"<table:") || row[..*at].ends_with(b"<table:covered-"))
        {
            columns = columns.saturating_add(repeated(&row[cell..], b"table:number-columns-repeated=\""));
            let rest = &row[cell..];
            let tag = &rest[..memchr::memchr(b'>', rest).unwrap_or(rest.len())];
            if memmem::find(tag, b"office:").is_some() || !tag.ends_with(b"/") {
                filled = columns;
            }
        }
        if filled > 0 {
            (filled_rows, width) = (rows, width.max(filled));
        }
        if memmem::find(row, b"</table:table>").is_some() {
            most = filled_rows.saturating_mul(width).max(most);
            (rows, filled_rows, width) = (0, 0, 0);
        }
    }
    filled_rows.saturating_mul(width).max(most)
}
