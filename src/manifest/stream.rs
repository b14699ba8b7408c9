//! A manifest that can be read only once: an upload as it arrives, or rows that are held in memory.
//!
//! Its rows and its problems are those that the same bytes have as a file.

use std::io::Read;
use std::path::Path;

use super::dates::{Shown, look};
use super::records::Records;
use super::rows::Rows;
use super::text::{ReadAs, Text};
use super::{Manifest, ManifestError, Reading, header};

/// A manifest whose header makes sense, on a source that is read once.
pub struct ManifestStream<R> {
    manifest: Manifest,
    records: Records<Text<R>>,
}

impl Manifest {
    /// Reads the header from any source; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Manifest::open`].
    pub fn read<R: Read>(
        name: &Path,
        source: R,
        reading: &Reading,
    ) -> Result<ManifestStream<R>, ManifestError> {
        let (manifest, records) = Self::begin(name, source, reading)?;
        Ok(ManifestStream { manifest: manifest.sound()?, records })
    }

    /// Reads the header; what is wrong with it is kept.
    pub(super) fn begin<R: Read>(
        name: &Path,
        source: R,
        reading: &Reading,
    ) -> Result<(Self, Records<Text<R>>), ManifestError> {
        let read_as = ReadAs::default();
        let (mut records, delimiter) = records_of(name, source, reading, read_as.clone())?;
        let declared = records.folded();
        let header = header::read(&mut records, name, reading)?;
        let filling = header.filling.clone();
        let manifest = Self::of_header(name, header, reading, read_as, (delimiter, declared))?;
        records.change(reading.edits.clone(), filling, manifest.own_columns());
        Ok((manifest, records))
    }
}

/// A source's records, from the header on, and what separates their cells.
pub(super) fn records_of<R: Read>(
    name: &Path,
    source: R,
    reading: &Reading,
    read_as: ReadAs,
) -> Result<(Records<Text<R>>, u8), ManifestError> {
    let text = Text::of(name, source, reading, read_as)?;
    if text.is_empty() {
        let reason = "the file is empty; it needs a header row and a row for each card".into();
        return Err(ManifestError::Shape { path: name.into(), reason });
    }
    let (delimiter, declared) = (text.delimiter(), u64::from(text.is_declared()));
    let mut records = Records::new(text, delimiter);
    records.fold(declared);
    Ok((records, delimiter))
}

impl<R: Read> ManifestStream<R> {
    /// Whether how its dates are read is told by all of them only: then it is to be read once for that, and once more for its rows.
    #[must_use]
    pub fn wants_dates(&self) -> bool {
        self.manifest.filling.as_ref().and_then(|filling| filling.date).is_some_and(|date| date.is_open())
    }

    /// What its dates show of their order; blocks on the source, to its end.
    #[must_use]
    pub fn look_at_dates(mut self) -> Shown {
        let date = self.manifest.filling.as_ref().and_then(|filling| filling.date);
        date.map_or(Shown::Neither, |date| look(&mut self.records, date.at))
    }

    /// Its rows, each once; blocks on the source.
    #[must_use]
    pub fn rows(self) -> Rows<Manifest, impl Read> {
        Rows::new(self.manifest, self.records)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::manifest::columns::ColumnMap;
    use crate::manifest::{CheckOptions, Checker};

    #[test]
    fn an_upload_and_the_same_file_come_to_one_verdict() {
        let text = "row_id,type,currency,cardholder\n1,virtual,eur,ich_1\n2,virtuel,eur,ich_1\n1,virtual,usd,ich_1\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let options = CheckOptions { digest: true };
        let of_file = Manifest::open(&path).unwrap().check(&options, &|_| {}).unwrap();
        let mut checker = Checker::new(&options);
        for row in Manifest::read(&path, text.as_bytes(), &Reading::default()).unwrap().rows() {
            checker.add(&row);
        }
        let of_stream = checker.finish(&path).unwrap();
        assert_eq!(of_file.problem_count, 2);
        assert_eq!(of_stream.problems, of_file.problems);
        assert_eq!((of_stream.digest, of_stream.rows), (of_file.digest, of_file.rows));
    }

    /// Rows that were looked at for headings are rows all the same.
    #[test]
    fn a_file_of_one_known_heading_loses_no_row_as_an_upload() {
        let text: String = (1..=8).fold("card\n".to_owned(), |text, card| text + &format!("ic_{card}\n"));
        let map = ColumnMap::parse("[defaults]\nstatus = 'inactive'\n").unwrap();
        let reading = Reading { columns: Some(Arc::new(map)), ..Reading::default() };
        let stream = Manifest::read(Path::new("a"), text.as_bytes(), &reading).unwrap();
        let rows: Vec<(u64, u64)> =
            stream.rows().map(|row| row.unwrap()).map(|row| (row.number, row.line)).collect();
        assert_eq!(rows, (1..=8).map(|row| (row, row + 1)).collect::<Vec<_>>());
        // What a row above the headings says of PINs is not looked past.
        let group = ",,,,PIN\nrow_id,type,currency,cardholder,Code\n1,virtual,eur,ich_1,4821\n";
        let refused = Manifest::read(Path::new("a"), group.as_bytes(), &Reading::default());
        assert!(refused.is_err_and(|error| error.to_string().contains("in the clear")));
    }

    #[test]
    fn what_is_no_manifest_is_told_from_its_start() {
        let said = |bytes: &[u8]| match Manifest::read(Path::new("a"), bytes, &Reading::default()) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said(b"").contains("empty"));
        assert!(said(b"\x00\x01\x02\x03").contains("not text"));
        assert!(said(b"PK\x03\x04").contains("archive"));
        assert!(said(b"pin\n1234\n").contains("in the clear"));
    }
}
