//! Files of people: CSV in any encoding, spreadsheets, what their headings mean, and cells that were mended.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use embosser::manifest::columns::ColumnMap;
use embosser::manifest::edits::Edits;
use embosser::manifest::sheet::{is_spreadsheet, write_csv};
use embosser::manifest::snapshot::Snapshot;
use embosser::manifest::{CheckOptions, Manifest, Reading};

use super::secrets::split;

/// Few bytes at a time, as a slow upload has them.
struct Slowly<'d>(Cursor<&'d [u8]>);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let room = buffer.len().min(31);
        self.0.read(&mut buffer[..room])
    }
}

/// How many rows there are, and on which lines those with a problem begin; none if it is no manifest.
fn rows(source: impl Read, reading: &Reading) -> Option<Vec<(u64, bool)>> {
    let stream = Manifest::read(Path::new("fuzzed.csv"), source, reading).ok()?;
    let lines = stream.rows().map(|row| match row {
        Ok(row) => (row.line, true),
        Err(invalid) => (invalid.line, false),
    });
    Some(lines.collect())
}

/// A manifest: however it arrives, it has the same rows.
pub(super) fn csv(data: &[u8]) {
    let reading = Reading::default();
    let whole = rows(Cursor::new(data), &reading);
    assert_eq!(rows(Slowly(Cursor::new(data)), &reading), whole);
    if let Some(whole) = whole {
        assert!(whole.is_sorted_by(|one, next| one.0 < next.0), "two rows on one line: {whole:?}");
    }
}

/// A spreadsheet: what is read of it is a CSV.
pub(super) fn spreadsheet(data: &[u8]) {
    let mut text = Vec::new();
    match write_csv(data, &Reading::default(), &mut text) {
        Ok(_) => {
            assert!(is_spreadsheet(data));
            std::str::from_utf8(&text).expect("the CSV of a spreadsheet is UTF-8");
            let _ =
                rows(Cursor::new(text.as_slice()), &Reading { delimiter: Some(b','), ..Reading::default() });
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A columns file, applied to a file that has its headings.
pub(super) fn columns_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(map) = ColumnMap::parse(text) else { return };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let headings: Vec<String> = map.headings().map(|(heading, _)| heading.to_owned()).collect();
    if headings.is_empty() {
        return;
    }
    writer.write_record(&headings).unwrap();
    writer.write_record(headings.iter().map(|_| "x")).unwrap();
    let file = writer.into_inner().unwrap();
    let reading = Reading { columns: Some(Arc::new(map)), ..Reading::default() };
    let _ = rows(Cursor::new(file.as_slice()), &reading);
}

/// Edits in the first line, the upload after it, held and checked as `serve` does.
pub(super) fn upload(data: &[u8]) {
    let (edits, file) = split(data, b'\n');
    let edits = std::str::from_utf8(edits).ok().and_then(|edits| Edits::parse(edits).ok());
    let cells = edits.as_ref().map_or(0, Edits::cells);
    let reading = Reading { edits: edits.map(Arc::new), ..Reading::default() };
    let Ok(snapshot) = Snapshot::held(Path::new("fuzzed.csv"), Cursor::new(file), &reading) else { return };
    let Ok(manifest) = Manifest::open_held(snapshot, &reading) else { return };
    if let Ok(report) = manifest.check(&CheckOptions::default(), &|_| {}) {
        let read = manifest.rows().unwrap().count() as u64;
        assert_eq!(report.rows, read, "with {cells} edits");
    }
}
