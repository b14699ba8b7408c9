//! A cell's value as the text that the cell shows.

use calamine::{CellErrorType, Data, DataRef, ExcelDateTime};

use super::format::Format;

/// Beyond this a number has digits that a spreadsheet does not keep.
const EXACT_BELOW: f64 = 1e15;

/// What a cell of a file that is held shows, where that does not depend on its format; none if it is empty.
pub(super) fn text_of(cell: &Data, format: Option<&Format>) -> Option<String> {
    Some(match cell {
        Data::Empty => return None,
        Data::String(text) | Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
        Data::Int(number) => whole(*number, format),
        Data::Float(number) => shown(*number, format),
        Data::Bool(is) => is.to_string(),
        Data::DateTime(time) => day(time),
        Data::Error(error) => word(error),
    })
}

/// The same of a cell that is lent.
pub(super) fn text_of_lent(cell: &DataRef<'_>, format: Option<&Format>) -> Option<String> {
    Some(match cell {
        DataRef::Empty => return None,
        DataRef::SharedString(text) => (*text).to_owned(),
        DataRef::String(text) | DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::Int(number) => whole(*number, format),
        DataRef::Float(number) => shown(*number, format),
        DataRef::Bool(is) => is.to_string(),
        DataRef::DateTime(time) => day(time),
        DataRef::Error(error) => word(error),
    })
}

/// A whole number as its cell shows it.
#[expect(clippy::cast_precision_loss, reason = "where it is lost, digits are lost in the sheet, too")]
fn whole(number: i64, format: Option<&Format>) -> String {
    format.and_then(|format| format.shown(number as f64)).unwrap_or_else(|| number.to_string())
}

/// A number as its cell shows it.
pub(super) fn shown(number: f64, format: Option<&Format>) -> String {
    if number.abs() >= EXACT_BELOW {
        // As the sheet has it: that digits are lost is told with the row.
        return format!("{number:E}").replace('E', "E+");
    }
    format.and_then(|format| format.shown(number)).unwrap_or_else(|| number.to_string())
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
pub(super) fn place((row, column): (u32, u32)) -> String {
    format!("{}{}", column_letters(column), row + 1)
}

/// A column as spreadsheets call it: `B`.
pub(super) fn column_letters(column: u32) -> String {
    let (mut letters, mut left) = (Vec::new(), column + 1);
    while left > 0 {
        let letter = u8::try_from((left - 1) % 26).unwrap_or(0);
        letters.insert(0, char::from(b'A' + letter));
        left = (left - 1) / 26;
    }
    letters.into_iter().collect()
}
