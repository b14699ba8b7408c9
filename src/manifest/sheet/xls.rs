//! Number formats of an XLS, which calamine keeps to itself: which cells show zeros before their numbers.
//!
//! Of the file's records (Microsoft, "[MS-XLS]: Excel Binary File Format") those are read that name formats and the cells with
//! numbers. What is not understood is left out: a number then is what it is.

use std::collections::HashMap;
use std::io::{Cursor, Read as _};

use super::{Looks, zeros_of};

const BOUND_SHEET: u16 = 0x0085;
const END_OF_PART: u16 = 0x000a;
const EXTENDED_FORMAT: u16 = 0x00e0;
const FORMAT: u16 = 0x041e;
const FORMULA: u16 = 0x0006;
const NUMBERS: u16 = 0x00bd;
const NUMBER: u16 = 0x0203;
const SMALL_NUMBER: u16 = 0x027e;

/// What the cells of the sheet of that name look like.
pub(super) fn looks(bytes: &[u8], sheet: &str) -> Looks {
    let Ok(mut container) = cfb::CompoundFile::open(Cursor::new(bytes)) else { return Looks::default() };
    let has_macros = container.is_storage("/_VBA_PROJECT_CUR");
    let mut workbook = Vec::new();
    let read = container.open_stream("/Workbook").map(|stream| {
        // A stream has no more than the file that it is in.
        stream.take(bytes.len() as u64).read_to_end(&mut workbook)
    });
    let digits = match read {
        Ok(Ok(_)) => digits_of(&workbook, sheet).unwrap_or_default(),
        _ => HashMap::new(),
    };
    Looks { digits, has_macros, ..Looks::default() }
}

/// The records from a place on, up to the end of what begins there.
struct Records<'w>(&'w [u8]);

impl<'w> Iterator for Records<'w> {
    type Item = (u16, &'w [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, length) = (u16_at(self.0, 0)?, usize::from(u16_at(self.0, 2)?));
        let data = self.0.get(4..4 + length)?;
        self.0 = &self.0[4 + length..];
        (kind != END_OF_PART).then_some((kind, data))
    }
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

/// Of the cells with zeros before their numbers how many digits they show.
fn digits_of(workbook: &[u8], sheet: &str) -> Option<HashMap<(u32, u32), usize>> {
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
    let zeros: Vec<Option<usize>> =
        formats.iter().map(|code| codes.get(code).and_then(|code| zeros_of(code))).collect();
    let mut digits = HashMap::new();
    let mut add = |row: u16, column: u16, format: Option<u16>| {
        let shown = format.and_then(|format| zeros.get(usize::from(format)).copied().flatten());
        digits.extend(shown.map(|shown| ((row.into(), column.into()), shown)));
    };
    for (kind, data) in Records(workbook.get(begins? as usize..)?) {
        if !matches!(kind, NUMBER | SMALL_NUMBER | FORMULA | NUMBERS) {
            continue;
        }
        let (row, column) = (u16_at(data, 0)?, u16_at(data, 2)?);
        if kind != NUMBERS {
            add(row, column, u16_at(data, 4));
            continue;
        }
        // Several in a row: of each the format and four bytes of number; the last column's number ends the record.
        let cells = data.get(4..data.len().checked_sub(2)?)?.chunks_exact(6);
        (column..=u16::MAX).zip(cells).for_each(|(column, cell)| add(row, column, u16_at(cell, 0)));
    }
    Some(digits)
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
