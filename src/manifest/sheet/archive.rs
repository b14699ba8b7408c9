//! An archive, as XLSX and ODS are, before anything of it is held: what it is, and that it is no bomb.

use std::io::{Cursor, Read as _};

use memchr::memmem;

use super::{PASSWORD, damaged};

/// Most that the sheets of a file may unpack to; they are read as a stream.
const SHEETS_BYTES_MAX: u64 = 2 << 30;
/// Most that all the rest may: the texts of all cells are held.
const REST_BYTES_MAX: u64 = 256 << 20;
/// Most cells of an ODS file, repeated ones counted as often as they are: all of them are held.
const CELLS_MAX: u64 = 10_000_000;

/// So much of a piece is looked at again with the next one.
const TAG_BYTES_KEPT: usize = 64;
/// Least that a text of a workbook's takes: `<si/>`.
const TEXT_BYTES_MIN: u64 = 5;

const TOO_LARGE: &str = "the spreadsheet unpacks to more than can be held; save the sheet as CSV (in Excel: Save as, CSV \
                         UTF-8), which may be of any size";

/// What is known of an archive before anything of it is held.
pub(super) struct Archive {
    pub(super) kind: Kind,
    /// Whether any of its sheets has a formula.
    pub(super) has_formulas: bool,
    /// Whether any of its sheets has merged cells.
    pub(super) has_merged: bool,
    /// Whether any of its sheets has something that is not shown.
    pub(super) has_hidden: bool,
    /// Whether there are macros in it.
    pub(super) has_macros: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Xlsx,
    Ods,
}

impl Archive {
    /// Unpacks all of it once, and holds none of it but what its cells are counted in: what an archive says of its own size
    /// need not be true.
    pub(super) fn inspect(bytes: &[u8]) -> Result<Self, String> {
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
        let is_writing = is_writing(&mut archive);
        let has = |name: &str| archive.index_for_name(name).is_some();
        let kind = match (has("xl/workbook.xml"), has("xl/workbook.bin"), has("content.xml")) {
            (true, ..) => Kind::Xlsx,
            (_, true, _) => return Err("an .xlsb workbook is not read; save it as .xlsx".to_owned()),
            (.., true) if is_writing => return Err(no_spreadsheet("a text document")),
            (.., true) => Kind::Ods,
            _ if has("word/document.xml") => return Err(no_spreadsheet("a Word document")),
            _ if has("ppt/presentation.xml") => return Err(no_spreadsheet("a presentation")),
            _ if has("Index/Document.iwa") => {
                return Err(
                    "the file is of Apple's Numbers or Pages; in Numbers: File, Export To, Excel".to_owned()
                );
            }
            _ => return Err("the file is an archive and no spreadsheet; unpack it first".to_owned()),
        };
        let has_macros = archive.file_names().flatten().any(|name| {
            name == "xl/vbaProject.bin" || (name.starts_with("Basic/") && name.ends_with("script-lb.xml"))
        });
        let (mut sheets_left, mut rest_left) = (SHEETS_BYTES_MAX, REST_BYTES_MAX);
        let (mut has_formulas, mut has_merged, mut has_hidden) = (false, false, false);
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
            let (mut bytes, mut texts) = (0_u64, 0_u64);
            // A tag may be cut in two.
            let mut kept = 0;
            loop {
                let read = part.read(&mut chunk[kept..]).map_err(|error| damaged(&error))?;
                if read == 0 {
                    break;
                }
                *left = left.checked_sub(read as u64).ok_or(TOO_LARGE)?;
                let filled = kept + read;
                if kind == Kind::Xlsx {
                    texts = texts.max(number_of(&chunk[..filled], b"uniqueCount"));
                }
                bytes += read as u64;
                if is_sheet {
                    let has = |tag: &[u8]| memmem::find(&chunk[..filled], tag).is_some();
                    has_formulas |= has(b"<f>") || has(b"<f ");
                    has_merged |= has(b"<mergeCell ");
                    has_hidden |= has(b" hidden=\"1\"") || has(b" hidden=\"true\"");
                }
                kept = filled.min(TAG_BYTES_KEPT);
                chunk.copy_within(filled - kept..filled, 0);
            }
            // The reader makes room for as many texts as a part says that it has.
            if texts > bytes / TEXT_BYTES_MIN {
                return Err(damaged(&format!("{name} says that it has {texts} texts in {bytes} bytes")));
            }
        }
        Ok(Self { kind, has_formulas, has_merged, has_hidden, has_macros })
    }
}

/// What is said of a file that is something else, whatever it is called.
fn no_spreadsheet(what: &str) -> String {
    format!(
        "the file is {what} and no spreadsheet, whatever its name says; copy its table into a spreadsheet and save that"
    )
}

/// Whether an archive of OpenDocument's is a text, as it says itself.
fn is_writing(archive: &mut zip::ZipArchive<Cursor<&[u8]>>) -> bool {
    const KIND: &[u8] = b"application/vnd.oasis.opendocument.text";
    let mut kind = Vec::new();
    let part = archive.by_name("mimetype").ok();
    part.is_some_and(|part| part.take(100).read_to_end(&mut kind).is_ok()) && kind.starts_with(KIND)
}

/// The number that an attribute has; 0 if there is no such attribute.
fn number_of(chunk: &[u8], attribute: &[u8]) -> u64 {
    let Some(at) = memmem::find(chunk, attribute) else { return 0 };
    let between = |byte: &&u8| byte.is_ascii_whitespace() || matches!(**byte, b'=' | b'"' | b'\'');
    let value =
        chunk[at + attribute.len()..].iter().skip_while(between).take_while(|byte| byte.is_ascii_digit());
    value.fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
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
