//! A manifest that can be read only once: an upload as it arrives, or rows that are held in memory.
//!
//! Its rows and its problems are those that the same bytes have as a file.

use std::io::{self, Cursor, Read};
use std::path::Path;

use super::records::Records;
use super::rows::Rows;
use super::{Manifest, ManifestError, START_BYTES, header};

/// A manifest whose header makes sense, on a source that is read once.
pub struct ManifestStream<R> {
    manifest: Manifest,
    records: Records<Start<R>>,
}

/// The bytes that were looked at, and then the rest.
pub(super) type Start<R> = io::Chain<Cursor<Vec<u8>>, R>;

impl Manifest {
    /// Reads the header from any source; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Manifest::open`].
    pub fn read<R: Read>(name: &Path, source: R) -> Result<ManifestStream<R>, ManifestError> {
        let (manifest, records) = Self::begin(name, source)?;
        Ok(ManifestStream { manifest: manifest.sound()?, records })
    }

    /// Reads the header; what is wrong with it is kept.
    pub(super) fn begin<R: Read>(
        name: &Path,
        mut source: R,
    ) -> Result<(Self, Records<Start<R>>), ManifestError> {
        let mut start = Vec::new();
        let read = |source| ManifestError::Read { path: name.into(), source };
        source.by_ref().take(START_BYTES).read_to_end(&mut start).map_err(read)?;
        header::sniff(&start).map_err(|reason| ManifestError::Shape { path: name.into(), reason })?;
        let mut records = Records::new(Cursor::new(start).chain(source));
        let header = header::read(&mut records, name)?;
        Ok((Self::of_header(name, header)?, records))
    }
}

impl<R: Read> ManifestStream<R> {
    /// Its rows, each once; blocks on the source.
    #[must_use]
    pub fn rows(self) -> Rows<Manifest, impl Read> {
        Rows::new(self.manifest, self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        for row in Manifest::read(&path, text.as_bytes()).unwrap().rows() {
            checker.add(&row);
        }
        let of_stream = checker.finish(&path).unwrap();
        assert_eq!(of_file.problem_count, 2);
        assert_eq!(of_stream.problems, of_file.problems);
        assert_eq!((of_stream.digest, of_stream.rows), (of_file.digest, of_file.rows));
    }

    #[test]
    fn what_is_no_manifest_is_told_from_its_start() {
        let said = |bytes: &[u8]| match Manifest::read(Path::new("a"), bytes) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(said(b"").contains("empty"));
        assert!(said(b"\xff\xfea\0").contains("UTF-16"));
        assert!(said(b"a;b\n").contains("semicolons"));
        assert!(said(b"pin\n1234\n").contains("in the clear"));
    }
}
