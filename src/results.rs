//! The results CSV: one line per row of the manifest.
//!
//! Lines are appended as rows end, so that a look at the file shows how far a run has come; at the end the file is
//! put into the manifest's order in one step. What the ledger already knew is written too, so after a resumed run
//! the file is complete.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::outcome::{Ended, Outcome};

/// The columns, in order.
pub const COLUMNS: [&str; 11] = [
    "row",
    "row_id",
    "job_id",
    "outcome",
    "card_id",
    "last4",
    "expiry",
    "attempts",
    "error_code",
    "error_message",
    "request_id",
];

/// How stale the file on disk may be while a run goes on.
const FLUSH_EVERY: Duration = Duration::from_millis(500);
/// Read at once when the lines are put into order.
const READ_BYTES: usize = 256 << 10;

/// One row's line.
#[derive(Debug)]
pub struct Line<'a> {
    /// The data row's number in the manifest, from 1.
    pub row: u64,
    /// Its `row_id`, if it has one.
    pub row_id: Option<&'a str>,
    /// Its job.
    pub job_id: &'a str,
    /// What became of it.
    pub ended: &'a Ended,
}

impl Line<'_> {
    /// The line's cells, none of which a spreadsheet would run.
    #[must_use]
    pub fn cells(&self) -> [Cow<'_, str>; 11] {
        let (card, refusal) = match &self.ended.outcome {
            Outcome::Issued(card) => (Some(card), None),
            Outcome::Refused(refusal) | Outcome::Unresolved(refusal) => (None, Some(refusal)),
        };
        [
            self.row.to_string().into(),
            neutral(self.row_id.unwrap_or("")),
            neutral(self.job_id),
            self.ended.outcome.word().into(),
            card.map_or("".into(), |card| neutral(&card.id)),
            card.map_or("".into(), |card| neutral(&card.last4)),
            card.map_or("".into(), |card| format!("{:02}/{}", card.exp_month, card.exp_year).into()),
            self.ended.attempts.to_string().into(),
            refusal.map_or("".into(), |refusal| neutral(&refusal.code)),
            refusal.map_or("".into(), |refusal| neutral(&refusal.message)),
            neutral(self.ended.request_id.as_deref().unwrap_or("")),
        ]
    }
}

/// A cell that begins like a formula gets an apostrophe (owasp.org, CSV injection).
fn neutral(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}").into() } else { text.into() }
}

/// Writes the file.
pub struct Results {
    path: PathBuf,
    file: BufWriter<File>,
    /// Row, offset and length of each line written, to put them in order without keeping them.
    lines: Vec<(u64, u64, u32)>,
    offset: u64,
    /// The latest line; its memory is used again.
    bytes: Vec<u8>,
    flushed: Instant,
}

impl Results {
    /// Begins the file, over the one of an earlier run; any other file is left alone.
    ///
    /// # Errors
    /// If it cannot be written, or something else is there.
    pub fn create(path: &Path) -> io::Result<Self> {
        let header = record(&COLUMNS)?;
        if let Ok(mut earlier) = File::open(path) {
            let mut start = vec![0; header.len()];
            let matches = earlier.read_exact(&mut start).is_ok() && start == header;
            if !matches && earlier.metadata()?.len() > 0 {
                return Err(io::Error::other(
                    "a file is there that is not an embosser results file; move it or pass --results FILE",
                ));
            }
        }
        let mut file =
            BufWriter::new(File::options().read(true).write(true).create(true).truncate(true).open(path)?);
        file.write_all(&header)?;
        let offset = header.len() as u64;
        let (lines, bytes) = (Vec::new(), Vec::new());
        Ok(Self { path: path.into(), file, lines, offset, bytes, flushed: Instant::now() })
    }

    /// Appends a row's line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, line: &Line<'_>) -> io::Result<()> {
        self.bytes.clear();
        record_into(&mut self.bytes, &line.cells())?;
        self.file.write_all(&self.bytes)?;
        self.lines.push((line.row, self.offset, u32::try_from(self.bytes.len()).map_err(io::Error::other)?));
        self.offset += self.bytes.len() as u64;
        if self.flushed.elapsed() > FLUSH_EVERY {
            self.file.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// Puts the lines into the manifest's order.
    ///
    /// # Errors
    /// If it cannot be written; then the file stays as it is, complete but in the order of ending.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        if self.lines.is_sorted_by_key(|(row, ..)| *row) {
            return self.file.get_ref().sync_all();
        }
        self.lines.sort_unstable();
        let ordered_path = self.path.with_extension("csv.tmp");
        let mut ordered = BufWriter::new(File::create(&ordered_path)?);
        ordered.write_all(&record(&COLUMNS)?)?;
        let mut reader = BufReader::with_capacity(READ_BYTES, File::open(&self.path)?);
        let mut line = Vec::new();
        let mut at = 0;
        for (_, offset, length) in &self.lines {
            // Rows end about in their order, so the next line is mostly in what was read already.
            reader.seek_relative(offset.cast_signed() - at)?;
            line.resize(*length as usize, 0);
            reader.read_exact(&mut line)?;
            ordered.write_all(&line)?;
            at = offset.cast_signed() + i64::from(*length);
        }
        ordered.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&ordered_path, &self.path)
    }
}

/// One CSV line.
///
/// # Errors
/// Never in practice: writing to memory.
pub fn record(cells: &[impl AsRef<str>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    record_into(&mut bytes, cells)?;
    Ok(bytes)
}

fn record_into(bytes: &mut Vec<u8>, cells: &[impl AsRef<str>]) -> io::Result<()> {
    /// Longer than most lines; the writer's own buffer is made anew for each.
    const LINE_BYTES: usize = 256;
    let mut writer = csv::WriterBuilder::new().buffer_capacity(LINE_BYTES).from_writer(bytes);
    writer.write_record(cells.iter().map(AsRef::as_ref)).map_err(io::Error::other)?;
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Card, Refusal};

    fn ended(outcome: Outcome) -> Ended {
        Ended { outcome, attempts: 1, request_id: Some("req_1".into()), recorded_before: false, note: None }
    }

    #[test]
    fn rows_come_in_the_manifests_order_and_no_cell_is_a_formula() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.results.csv");
        let card = Card { id: "ic_1".into(), last4: "4242".into(), exp_month: 8, exp_year: 2030 };
        let issued = ended(Outcome::Issued(card));
        let refused = ended(Outcome::Refused(Refusal::own("x", "=HYPERLINK(\"http://a\")")));
        let mut results = Results::create(&path).unwrap();
        results.append(&Line { row: 2, row_id: Some("@b"), job_id: "n/@b", ended: &refused }).unwrap();
        results.append(&Line { row: 1, row_id: None, job_id: "n/row 1", ended: &issued }).unwrap();
        results.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "1,,n/row 1,issued,ic_1,4242,08/2030,1,,,req_1");
        assert!(lines[2].starts_with("2,'@b,n/@b,refused,,,,1,x,\"'=HYPERLINK"), "{}", lines[2]);
        // And again over the earlier one, but not over anything else.
        Results::create(&path).unwrap();
        std::fs::write(
            &path,
            "my own notes, which are longer than the header would have been, so to say: yes they are, really",
        )
        .unwrap();
        assert!(Results::create(&path).is_err());
    }
}
