//! The results as a spreadsheet: every cell what it is, `0042` and `08/2030` too, and a sheet that sums them up.

use rust_xlsxwriter::{Format, FormatBorder, Workbook, Worksheet, XlsxError};

use super::{COLUMNS, Line, NUMBERS};
use crate::ledger::BatchCounts;

/// How wide columns are, in letters; others have the program's own width.
const WIDTHS: [(&str, f64); 12] = [
    ("row_id", 16.0),
    ("job_id", 28.0),
    ("card_id", 30.0),
    ("error_message", 60.0),
    ("note", 40.0),
    ("cardholder_id", 30.0),
    ("pin_link", 40.0),
    ("person", 28.0),
    ("tracking_number", 24.0),
    ("tracking_url", 40.0),
    ("eta", 22.0),
    ("cancelled_by", 28.0),
];

/// Lines, as they are added.
pub struct ResultsWorkbook {
    workbook: Workbook,
    row: u32,
}

impl ResultsWorkbook {
    /// With the headings.
    ///
    /// # Errors
    /// Never in practice: writing to memory.
    pub fn begin() -> Result<Self, XlsxError> {
        let mut workbook = Workbook::new();
        let sheet = workbook.add_worksheet();
        sheet.set_name("Results")?;
        headings(sheet, &COLUMNS)?;
        for (name, width) in WIDTHS {
            if let Some(column) = (0..).zip(COLUMNS).find_map(|(at, column)| (column == name).then_some(at)) {
                sheet.set_column_width(column, width)?;
            }
        }
        Ok(Self { workbook, row: 0 })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If a sheet can have no more rows.
    pub fn add(&mut self, line: &Line<'_>) -> Result<(), XlsxError> {
        self.row += 1;
        let sheet = self.workbook.worksheet_from_index(0)?;
        for ((column, name), text) in (0..).zip(COLUMNS).zip(line.texts()) {
            match text.parse::<u32>() {
                Ok(number) if NUMBERS.contains(&name) => {
                    sheet.write_number(self.row, column, number)?;
                }
                _ if text.is_empty() => {}
                // As a text it is never run as a formula, nor taken for a number or a date.
                _ => {
                    sheet.write_string(self.row, column, text)?;
                }
            }
        }
        Ok(())
    }

    /// The file. `counts`: what the ledger has of the batch.
    ///
    /// # Errors
    /// Never in practice: writing to memory.
    pub fn finish(
        mut self,
        batch: &str,
        scope: &str,
        counts: Option<&BatchCounts>,
    ) -> Result<Vec<u8>, XlsxError> {
        let last = u16::try_from(COLUMNS.len() - 1).unwrap_or(u16::MAX);
        self.workbook.worksheet_from_index(0)?.autofilter(0, 0, self.row, last)?;
        let sheet = self.workbook.add_worksheet();
        sheet.set_name("Summary")?;
        sheet.set_column_width(0, 28)?;
        sheet.set_column_width(1, 40)?;
        let bold = Format::new().set_bold();
        let mut at = 0;
        let mut next = |sheet: &mut Worksheet, name: &str| -> Result<u32, XlsxError> {
            sheet.write_string_with_format(at, 0, name, &bold)?;
            at += 1;
            Ok(at - 1)
        };
        let written = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        for (name, text) in [("Batch", batch), ("Whose cards", scope), ("Written", &written)] {
            let row = next(sheet, name)?;
            sheet.write_string(row, 1, text)?;
        }
        let rows = counts.and_then(|counts| counts.rows).unwrap_or(self.row.into());
        let mut all = vec![("Rows", rows)];
        if let Some(counts) = counts {
            all.extend([
                ("Issued", counts.issued),
                ("Refused", counts.refused),
                ("End not known yet", counts.unresolved),
                ("Waiting for a PIN", counts.awaiting_pin),
            ]);
        }
        for (name, count) in all {
            let row = next(sheet, name)?;
            sheet.write_number(row, 1, u32::try_from(count).unwrap_or(u32::MAX))?;
        }
        self.workbook.save_to_buffer()
    }
}

/// A first row that stays when the others move.
pub(crate) fn headings(sheet: &mut Worksheet, names: &[&str]) -> Result<(), XlsxError> {
    let bold = Format::new().set_bold().set_border_bottom(FormatBorder::Thin);
    for (column, name) in (0..).zip(names) {
        sheet.write_string_with_format(0, column, *name, &bold)?;
    }
    sheet.set_freeze_panes(1, 0)?;
    Ok(())
}
