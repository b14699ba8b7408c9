//! A manifest as it was when it was checked: what is read later is what was checked, or it is an error.
//!
//! A file may be saved over while it is being issued, in place even, under the reader's feet: then one row's card could
//! get another's PIN. So the file is read once before the check, and of each piece a keyed hash is kept; every later
//! read takes a piece into memory of its own, holds it against its hash, and only then hands it out. What comes from
//! standard input has no later read, and is held whole.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::sheet::{self, Sheet};
use super::{ManifestError, Reading, open, start_of};

/// Bytes of a piece: what is verified, and handed out, at once.
const PIECE_BYTES: usize = 64 << 10;
/// Most that is taken from standard input: it stays in memory until the last row was read.
const HELD_BYTES_MAX: u64 = 1 << 30;

/// The file is not what it was.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the file changed since it was checked; nothing more is issued")]
pub struct Changed;

/// What a manifest was. Clones are the same one.
#[derive(Clone)]
pub struct Snapshot(Arc<Seen>);

impl std::fmt::Debug for Snapshot {
    /// Without what it holds.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Snapshot({:?})", self.0.path)
    }
}

struct Seen {
    /// The file; what messages call it, where it is none.
    path: PathBuf,
    bytes: Bytes,
    /// The sheet of which these are the text, if the file is a spreadsheet.
    sheet: Option<Arc<Sheet>>,
}

enum Bytes {
    /// In the file, and what each of its pieces comes to under a key that nobody knows.
    InFile { key: RandomState, hashes: Vec<u64> },
    /// Here.
    Held(Vec<Zeroizing<Vec<u8>>>),
}

impl Snapshot {
    /// Of a file as it is now; reads it whole, and blocks.
    ///
    /// # Errors
    /// If it cannot be read, or not more than once.
    pub fn of(path: &Path, reading: &Reading) -> Result<Self, ManifestError> {
        let read = |source| ManifestError::Read { path: path.into(), source };
        let mut file = open(path)?;
        if sheet::is_spreadsheet(&start_of(&mut file).map_err(read)?) {
            return Self::held(path, file, reading);
        }
        let (key, mut hashes) = (RandomState::new(), Vec::new());
        let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
        loop {
            let filled = fill(&mut file, &mut piece).map_err(read)?;
            if filled == 0 {
                break;
            }
            hashes.push(hash(&key, &piece[..filled]));
        }
        Ok(Self(Arc::new(Seen { path: path.into(), bytes: Bytes::InFile { key, hashes }, sheet: None })))
    }

    /// Of what can be read only once, as standard input; reads it to its end, and blocks.
    ///
    /// # Errors
    /// If it cannot be read, or is too much to be held.
    pub fn held(name: &Path, mut source: impl Read, reading: &Reading) -> Result<Self, ManifestError> {
        let shape = |reason| ManifestError::Shape { path: name.into(), reason };
        let mut pieces = Pieces::default();
        loop {
            let mut piece = Zeroizing::new(vec![0; PIECE_BYTES]);
            let filled = fill(&mut source, &mut piece)
                .map_err(|source| ManifestError::Read { path: name.into(), source })?;
            if filled == 0 {
                break;
            }
            pieces.write_all(&piece[..filled]).map_err(|error| shape(error.to_string()))?;
        }
        let mut sheet = None;
        if pieces.0.first().is_some_and(|first| sheet::is_spreadsheet(first)) {
            let spreadsheet = pieces.whole();
            pieces = Pieces::default();
            let read = sheet::write_csv(&spreadsheet, reading, &mut pieces);
            sheet = Some(Arc::new(read.map_err(shape)?));
        }
        Ok(Self(Arc::new(Seen { path: name.into(), bytes: Bytes::Held(pieces.0), sheet })))
    }

    /// The sheet of which it is the text, if the file is a spreadsheet.
    #[must_use]
    pub fn sheet(&self) -> Option<&Arc<Sheet>> {
        self.0.sheet.as_ref()
    }

    /// What it is a snapshot of.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Its bytes from the first.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub(super) fn reader(&self) -> io::Result<Verified> {
        let file = match &self.0.bytes {
            Bytes::Held(_) => None,
            Bytes::InFile { .. } => Some(File::open(&self.0.path)?),
        };
        let piece = Zeroizing::new(vec![0; PIECE_BYTES]);
        Ok(Verified { seen: self.0.clone(), file, next: 0, piece, unread: 0..0 })
    }
}

/// Bytes that are held in pieces of one length, all but the last; none is ever moved, and all are wiped.
#[derive(Default)]
struct Pieces(Vec<Zeroizing<Vec<u8>>>);

impl Pieces {
    /// All of them as one.
    fn whole(self) -> Zeroizing<Vec<u8>> {
        let mut whole = Zeroizing::new(Vec::with_capacity(self.0.len() * PIECE_BYTES));
        self.0.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.last().is_none_or(|last| last.len() == PIECE_BYTES) {
            if (self.0.len() * PIECE_BYTES) as u64 >= HELD_BYTES_MAX {
                let most = HELD_BYTES_MAX >> 20;
                return Err(io::Error::other(format!(
                    "has more than {most} MiB; save it to a CSV file first"
                )));
            }
            self.0.push(Zeroizing::new(Vec::with_capacity(PIECE_BYTES)));
        }
        let Some(last) = self.0.last_mut() else { return Ok(0) };
        let length = bytes.len().min(PIECE_BYTES - last.len());
        last.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands out a snapshot's bytes, none that was not verified.
pub(super) struct Verified {
    seen: Arc<Seen>,
    file: Option<File>,
    /// The piece after the one in memory.
    next: usize,
    piece: Zeroizing<Vec<u8>>,
    unread: std::ops::Range<usize>,
}

impl Verified {
    /// Takes the next piece into memory; false at the end.
    fn load(&mut self) -> io::Result<bool> {
        self.unread = 0..0;
        let filled = match (&self.seen.bytes, &mut self.file) {
            (Bytes::Held(pieces), _) => {
                let Some(piece) = pieces.get(self.next) else { return Ok(false) };
                self.piece[..piece.len()].copy_from_slice(piece);
                piece.len()
            }
            (Bytes::InFile { key, hashes }, Some(file)) => {
                let filled = fill(file, &mut self.piece)?;
                let expected = hashes.get(self.next);
                if filled == 0 && expected.is_none() {
                    return Ok(false);
                }
                if expected != Some(&hash(key, &self.piece[..filled])) {
                    return Err(io::Error::other(Changed));
                }
                filled
            }
            (Bytes::InFile { .. }, None) => return Err(io::Error::other(Changed)),
        };
        self.next += 1;
        self.unread = 0..filled;
        Ok(true)
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || (self.unread.is_empty() && !self.load()?) {
            return Ok(0);
        }
        let length = buffer.len().min(self.unread.len());
        let from = self.unread.start;
        buffer[..length].copy_from_slice(&self.piece[from..from + length]);
        self.unread.start += length;
        Ok(length)
    }
}

/// Where a manifest's bytes come from.
pub(super) enum Source {
    /// The file as it is.
    File(File),
    /// The file as it was.
    Snapshot(Verified),
}

impl Source {
    /// About how many bytes there are in all.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File(file) => file.metadata().map_or(0, |known| known.len()),
            Self::Snapshot(verified) => {
                let pieces = match &verified.seen.bytes {
                    Bytes::InFile { hashes, .. } => hashes.len(),
                    Bytes::Held(pieces) => pieces.len(),
                };
                (pieces * PIECE_BYTES) as u64
            }
        }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Snapshot(verified) => verified.read(buffer),
        }
    }
}

fn hash(key: &RandomState, bytes: &[u8]) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// Reads until the buffer is full or the source at its end.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{CheckOptions, Manifest};

    const LENGTH: usize = 3 * PIECE_BYTES + 1234;

    fn bytes() -> Vec<u8> {
        (0..LENGTH).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    fn read(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        snapshot.reader()?.read_to_end(&mut read).map(|_| read)
    }

    #[test]
    fn it_gives_the_bytes_that_it_saw() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes()).unwrap();
        let of_file = Snapshot::of(file.path(), &Reading::default()).unwrap();
        let held =
            Snapshot::held(Path::new("standard input"), bytes().as_slice(), &Reading::default()).unwrap();
        for snapshot in [of_file, held] {
            assert!(read(&snapshot).unwrap() == bytes());
        }
    }

    #[test]
    fn whatever_changed_is_an_error_and_what_was_before_it_is_as_it_was() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let changed = |with: &dyn Fn(&mut Vec<u8>)| {
            std::fs::write(file.path(), bytes()).unwrap();
            let snapshot = Snapshot::of(file.path(), &Reading::default()).unwrap();
            let mut other = bytes();
            with(&mut other);
            std::fs::write(file.path(), other).unwrap();
            let mut read = Vec::new();
            let error = snapshot.reader().and_then(|mut reader| reader.read_to_end(&mut read)).unwrap_err();
            assert!(error.to_string().contains("changed since it was checked"), "{error}");
            assert!(bytes().starts_with(&read));
            read.len()
        };
        assert_eq!(changed(&|other| other[PIECE_BYTES + 5] ^= 1), PIECE_BYTES);
        assert_eq!(changed(&|other| other.truncate(2 * PIECE_BYTES)), 2 * PIECE_BYTES);
        assert_eq!(changed(&|other| other.truncate(LENGTH - 1)), 3 * PIECE_BYTES);
        assert_eq!(changed(&|other| other.push(b'x')), 3 * PIECE_BYTES);
        assert_eq!(changed(&|other| other.extend(bytes())), 3 * PIECE_BYTES);
        assert_eq!(changed(&|other| other.clear()), 0);
        // One whose length is whole pieces, and that grew.
        std::fs::write(file.path(), &bytes()[..PIECE_BYTES]).unwrap();
        let snapshot = Snapshot::of(file.path(), &Reading::default()).unwrap();
        std::fs::write(file.path(), &bytes()[..=PIECE_BYTES]).unwrap();
        assert!(read(&snapshot).is_err());
    }

    #[test]
    fn a_snapshot_is_checked_as_its_file_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut text = "row_id,type,currency,cardholder\n".to_owned();
        for row in 0..20_000 {
            let kind = if row % 5000 == 7 { "virtuel" } else { "virtual" };
            text += &format!("{row},{kind},eur,\"ich_\"\"{}\"\n", row % 9);
        }
        std::fs::write(file.path(), &text).unwrap();
        let options = CheckOptions { digest: true };
        let plain = Manifest::open(file.path()).unwrap().check(&options, &|_| {}).unwrap();
        let of_file = Snapshot::of(file.path(), &Reading::default()).unwrap();
        for snapshot in [of_file, Snapshot::held(file.path(), text.as_bytes(), &Reading::default()).unwrap()]
        {
            let manifest = Manifest::open_held(snapshot, &Reading::default()).unwrap();
            let report = manifest.check(&options, &|_| {}).unwrap();
            assert_eq!((report.rows, report.digest), (20_000, plain.digest));
            assert_eq!(report.problems, plain.problems);
            assert_eq!(manifest.rows().unwrap().count(), 20_000);
        }
    }
}
