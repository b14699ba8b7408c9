//! What calamine does not tell of an XLS: how its cells show numbers, what it hides, and how far apart its cells stand.
//!
//! Of the file's records (Microsoft, "[MS-XLS]: Excel Binary File Format") those are read that name formats, cells, rows and
//! columns. What is not understood is left out: a number then is what it is.

use std::collections::{HashMap, HashSet};
use std::io::{Cursor, Read as _, Write as _};

use zeroize::Zeroizing;

use super::cells::place;
use super::format::{Format, built_in};
use super::hidden::Hidden;
use super::{COLUMNS_OF_XLS_MAX, Looks, Place, ROWS_MAX, beyond, damaged};

const BEGIN_OF_PART: u16 = 0x0809;
/// A cell with nothing but a format.
const BLANK: u16 = 0x0201;
const BOUND_SHEET: u16 = 0x0085;
const COLUMNS: u16 = 0x007d;
const DIMENSIONS: u16 = 0x0200;
const END_OF_PART: u16 = 0x000a;
const EXTENDED_FORMAT: u16 = 0x00e0;
const FORMAT: u16 = 0x041e;
const FORMULA: u16 = 0x0006;
const LABEL: u16 = 0x0204;
const LABEL_OF_RUNS: u16 = 0x00d6;
const LABEL_OF_TABLE: u16 = 0x00fd;
const NUMBERS: u16 = 0x00bd;
const NUMBER: u16 = 0x0203;
const ROW: u16 = 0x0208;
const SMALL_NUMBER: u16 = 0x027e;
const TEXTS: u16 = 0x00fc;
const TRUTH_OR_ERROR: u16 = 0x0205;

/// Most places of a sheet, up to its last row and column, that are held whatever stands in them: all of a sheet are held.
const PLACES_ALWAYS: u64 = 1 << 22;
/// Beyond that at least one place of so many must have something in it.
const PLACES_PER_CELL_MAX: u64 = 32;

/// The file, or the same without cells that hold nothing but blanks where these make a sheet too large to be held: the library that
/// reads it holds all places up to the last cell.
///
/// # Errors
/// A sentence that names a cell far away from all others, or says that this cannot be told.
pub(super) fn held_easily(bytes: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    // What cannot be looked through here is not given to the library, which would make room for whatever it found.
    let mut container = cfb::CompoundFile::open(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    let Some(name) = ["/Workbook", "/Book"].into_iter().find(|name| container.is_stream(name)) else {
        return Ok(None);
    };
    let workbook = stream(&mut container, name, bytes.len()).map_err(|error| damaged(&error))?;
    let mut workbook = Zeroizing::new(workbook);
    let Err(reason) = is_held_easily(&workbook) else { return Ok(None) };
    let blanks = blank_texts(&workbook);
    let mut at = 0;
    while let Some((kind, data, next)) = record_at(&workbook, at) {
        let index = data.get(6..10).and_then(|index| index.first_chunk()).copied().map(u32::from_le_bytes);
        if kind == LABEL_OF_TABLE && index.is_some_and(|index| blanks.contains(&index)) {
            workbook[at..at + 2].copy_from_slice(&BLANK.to_le_bytes());
        }
        at = next;
    }
    is_held_easily(&workbook)?;
    let written = cfb::CompoundFile::open(Cursor::new(bytes.to_vec())).and_then(|mut container| {
        container.open_stream("/Workbook")?.write_all(&workbook)?;
        container.flush()?;
        Ok(Zeroizing::new(container.into_inner().into_inner()))
    });
    written.map(Some).map_err(|_| reason)
}

/// Which of the workbook's texts are nothing but blanks, as far as its first record of texts goes.
fn blank_texts(workbook: &[u8]) -> HashSet<u32> {
    let mut blanks = HashSet::new();
    let Some((_, texts)) = Records(workbook).find(|(kind, _)| *kind == TEXTS) else { return blanks };
    // After the counts each has the number of its letters and flags.
    let (mut at, mut index) = (8, 0);
    while let (Some(letters), Some(flags)) = (u16_at(texts, at), texts.get(at + 2).copied()) {
        let number = |at: usize| u16_at(texts, at).map(usize::from);
        let mut begin = at + 3;
        let (mut runs, mut phonetics) = (0, 0);
        if flags & 8 != 0 {
            runs = 4 * number(begin).unwrap_or(0);
            begin += 2;
        }
        if flags & 4 != 0 {
            phonetics = number(begin).unwrap_or(0) + (number(begin + 2).unwrap_or(0) << 16);
            begin += 4;
        }
        let width = 1 + usize::from(flags & 1);
        let Some(text) = texts.get(begin..begin + usize::from(letters) * width) else { break };
        if text.chunks(width).all(|letter| matches!(letter, [b' ' | 0xa0] | [b' ' | 0xa0, 0])) {
            blanks.insert(index);
        }
        (at, index) = (begin + text.len() + runs + phonetics, index + 1);
    }
    blanks
}

/// Whether its sheets can be held.
fn is_held_easily(workbook: &[u8]) -> Result<(), String> {
    let (mut cells, mut last, mut farthest) = (0_u64, (0, 0), (0, 0));
    let mut at = 0;
    while let Some((kind, data, next)) = record_at(workbook, at) {
        at = next;
        if kind == BEGIN_OF_PART {
            (cells, last) = (0, (0, 0));
            continue;
        }
        // Where nothing was read yet, room is made for as much as the sheet says that it has.
        if kind == DIMENSIONS {
            let end = u32_at(data, 4).zip(u16_at(data, 10).map(u32::from));
            if let Some((rows, columns)) = end.filter(|end| end.0 > ROWS_MAX[0] || end.1 > COLUMNS_OF_XLS_MAX)
            {
                return Err(beyond(&place((rows.saturating_sub(1), columns.saturating_sub(1)))));
            }
        }
        let is_cell = matches!(
            kind,
            NUMBER
                | SMALL_NUMBER
                | FORMULA
                | NUMBERS
                | LABEL
                | LABEL_OF_RUNS
                | LABEL_OF_TABLE
                | TRUTH_OR_ERROR
        );
        let Some(here) = u16_at(data, 0).zip(u16_at(data, 2)).filter(|_| is_cell) else { continue };
        if u32::from(here.1) >= COLUMNS_OF_XLS_MAX {
            return Err(beyond(&place((here.0.into(), here.1.into()))));
        }
        // Several cells in one record are told by its length.
        cells += if kind == NUMBERS { (data.len() as u64).saturating_sub(6) / 6 } else { 1 };
        if here.0 > last.0 || here.1 > last.1 {
            farthest = here;
        }
        last = (here.0.max(last.0), here.1.max(last.1));
        let places = (u64::from(last.0) + 1) * (u64::from(last.1) + 1);
        if places > PLACES_ALWAYS && places > (cells + 1) * PLACES_PER_CELL_MAX {
            return Err(format!(
                "cell {} stands far away from all others, and the sheet counts as large as that, which is more than can be held; clear \
                 it, or copy the table into a new sheet and save that",
                place((farthest.0.into(), farthest.1.into()))
            ));
        }
    }
    Ok(())
}

/// What the cells of the sheet of that name look like.
pub(super) fn looks(bytes: &[u8], sheet: &str) -> Looks {
    let looks = workbook(bytes).and_then(|workbook| looks_of(&workbook, sheet)).unwrap_or_default();
    let container = cfb::CompoundFile::open(Cursor::new(bytes));
    Looks { has_macros: container.is_ok_and(|container| container.is_storage("/_VBA_PROJECT_CUR")), ..looks }
}

/// The stream of the workbook's records.
fn workbook(bytes: &[u8]) -> Option<Vec<u8>> {
    stream(&mut cfb::CompoundFile::open(Cursor::new(bytes)).ok()?, "/Workbook", bytes.len()).ok()
}

/// A stream of a container. It has no more than the file that it is in.
fn stream(
    container: &mut cfb::CompoundFile<Cursor<&[u8]>>,
    name: &str,
    bytes_max: usize,
) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    container.open_stream(name)?.take(bytes_max as u64).read_to_end(&mut read)?;
    Ok(read)
}

/// The record at a place: its kind, what is in it, and where the next begins.
fn record_at(workbook: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let (kind, length) = (u16_at(workbook, at)?, usize::from(u16_at(workbook, at + 2)?));
    let data = workbook.get(at + 4..at + 4 + length)?;
    Some((kind, data, at + 4 + length))
}

/// The records from a place on, up to the end of what begins there.
struct Records<'w>(&'w [u8]);

impl<'w> Iterator for Records<'w> {
    type Item = (u16, &'w [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, data, next) = record_at(self.0, 0)?;
        self.0 = &self.0[next..];
        (kind != END_OF_PART).then_some((kind, data))
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

fn looks_of(workbook: &[u8], sheet: &str) -> Option<Looks> {
    let (mut codes, mut formats, mut begins) = (HashMap::new(), Vec::new(), None);
    for (kind, data) in Records(workbook) {
        match kind {
            FORMAT => {
                codes.extend(u16_at(data, 0).zip(text(data.get(2..)?, 2)));
            }
            // The second number names the format's code.
            EXTENDED_FORMAT => formats.push(u16_at(data, 2)?),
            BOUND_SHEET if text(data.get(6..)?, 1).as_deref() == Some(sheet) => {
                begins = data.first_chunk().map(|place| u32::from_le_bytes(*place));
            }
            _ => {}
        }
    }
    let known = |id: &u16| codes.get(id).map(String::as_str).or_else(|| built_in((*id).into()));
    let (mut looks, mut places) = (Looks::default(), Vec::new());
    for id in &formats {
        let format = known(id).and_then(Format::of);
        places.push(format.is_some().then_some(looks.formats.len()));
        looks.formats.extend(format);
    }
    let (mut format_of, mut hidden) = (HashMap::<Place, usize>::new(), Hidden::default());
    let mut add = |row: u16, column: u16, format: Option<u16>| {
        let shown = format.and_then(|format| places.get(usize::from(format)).copied().flatten());
        format_of.extend(shown.map(|shown| ((row.into(), column.into()), shown)));
    };
    for (kind, data) in Records(workbook.get(begins? as usize..)?) {
        let (Some(row), Some(column)) = (u16_at(data, 0), u16_at(data, 2)) else { continue };
        match kind {
            NUMBER | SMALL_NUMBER | FORMULA => add(row, column, u16_at(data, 4)),
            NUMBERS => {
                // Several in a row: of each the format and four bytes of number; the last column's number ends the record.
                let cells = data.get(4..data.len().checked_sub(2)?)?.chunks_exact(6);
                (column..=u16::MAX).zip(cells).for_each(|(column, cell)| add(row, column, u16_at(cell, 0)));
            }
            // Without height, or the column without width.
            ROW if u16_at(data, 12).is_some_and(|flags| flags & 0x20 != 0) => {
                hidden.add_rows(row.into(), row.into());
            }
            COLUMNS if u16_at(data, 8).is_some_and(|flags| flags & 1 != 0) => {
                hidden.add_columns(row.into(), column.into());
            }
            _ => {}
        }
    }
    (looks.format_of, looks.hidden) = (format_of, hidden);
    Some(looks)
}

/// A text, whose length is told in so many bytes.
fn text(data: &[u8], length_bytes: usize) -> Option<String> {
    let letters = match length_bytes {
        1 => usize::from(*data.first()?),
        _ => usize::from(u16_at(data, 0)?),
    };
    let (is_wide, data) = (data.get(length_bytes)? & 1 == 1, data.get(length_bytes + 1..)?);
    if is_wide {
        let units =
            data.get(..letters * 2)?.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        return char::decode_utf16(units).collect::<Result<_, _>>().ok();
    }
    Some(data.get(..letters)?.iter().copied().map(char::from).collect())
}
