//! Files that are for their owner alone, and that are whole or not there at all.
//!
//! Results name people's cards and hold links, manifests hold ciphertext, and the ledger says who has which card. So what this
//! program makes has mode 0600, and a folder 0700, whatever the shell's umask is. A file that was there keeps its mode: who
//! opened it to others meant it, and so did who gave it to a group.
//!
//! A file that takes another's place is written beside it first, so its folder must be writable. If the program is killed or stopped by
//! a signal in between, what was there stays, and `.….draft` is left beside it: delete it.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, fchown};

/// Its owner may read and write it, and nobody else anything.
const OWNER_ONLY: u32 = 0o600;
/// What a file's group may do with it.
const BY_GROUP: u32 = 0o070;
/// What everybody on the machine may do with a file: read it, or write to it.
const READ_OR_WRITE_BY_ALL: u32 = 0o006;
/// What everybody on the machine needs of a folder to reach what is in it.
const ENTER_BY_ALL: u32 = 0o001;

/// Which file stands at a path, and in which state: it is read anew when that is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// None if there is no such file.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (file.dev(), file.ino()),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// From now on nothing that this process makes can be used by others, whoever makes it: also files of libraries, such as
/// SQLite's. To be called before the first thread starts.
pub fn keep_from_others() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

/// Opens a file that is not there yet, for its owner alone.
///
/// # Errors
/// If there is one, or it cannot be made.
pub fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path)
}

/// Writes a file that is not there yet, for its owner alone.
///
/// # Errors
/// If there is one, or it cannot be written whole; then there is none.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_new(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
    written
}

/// Adds a line to a file, which is made for its owner alone if it is not there. A line before it that was not ended is.
///
/// # Errors
/// If it cannot be read or written.
pub fn add_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(OWNER_ONLY).open(path)?;
    let is_in_a_line = match file.seek(io::SeekFrom::End(0))? {
        0 => false,
        end => {
            let mut last = [0];
            file.read_exact_at(&mut last, end - 1)?;
            last != *b"\n"
        }
    };
    let begin = if is_in_a_line { "\n" } else { "" };
    // In one piece: whoever reads it meanwhile sees all of it or nothing.
    file.write_all(format!("{begin}{line}\n").as_bytes())?;
    file.sync_all()
}

/// A file that is written beside its place and put there once it is whole. Dropped before that, it is removed. Where a pipe
/// or a device is at the place, it is written to directly.
#[derive(Debug)]
pub struct Draft {
    file: File,
    target: PathBuf,
    /// Where it is until then; none if it is written directly.
    beside: Option<PathBuf>,
}

impl Draft {
    /// Begins it. A symbolic link stays one: what it leads to is replaced; and what is there keeps its mode.
    ///
    /// # Errors
    /// If nothing can be written there.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let there = match std::fs::metadata(path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(there) = &there
            && !there.is_file()
        {
            let file = OpenOptions::new().write(true).open(path)?;
            return Ok(Self { file, target: path.into(), beside: None });
        }
        let target = if there.is_some() { std::fs::canonicalize(path)? } else { path.to_owned() };
        // Hidden, and of a name of its own: two who write at once do not write into each other's.
        let beside = folder_of(&target).join(format!(".{:016x}.draft", rand::random::<u64>()));
        let file = create_new(&beside)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", beside.display())))?;
        let draft = Self { file, target, beside: Some(beside) };
        if let Some(there) = there {
            draft.file.set_permissions(kept(&draft.file, &there))?;
        }
        Ok(draft)
    }

    /// Puts it to its place, whatever is there.
    ///
    /// # Errors
    /// If that cannot be done; then what was there stays.
    pub fn put(self) -> io::Result<()> {
        self.put_by(|beside, target| std::fs::rename(beside, target))
    }

    /// Puts it to its place if nothing is there.
    ///
    /// # Errors
    /// `AlreadyExists` if something is; or if that cannot be done.
    pub fn put_new(self) -> io::Result<()> {
        // A link is made only where nothing is yet.
        self.put_by(|beside, target| std::fs::hard_link(beside, target))
    }

    fn put_by(self, put: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        let Some(beside) = &self.beside else { return Ok(()) };
        self.file.sync_all()?;
        put(beside, &self.target)?;
        sync_folder_of(&self.target);
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Gone already if it was put by its name.
            let _ = std::fs::remove_file(beside);
        }
    }
}

/// Gives a file the owner and the group of the one that it replaces, as far as this process may, and answers the mode that it gets: the
/// former one, without what a group was let do that it could not be given to.
fn kept(file: &File, there: &Metadata) -> Permissions {
    let (owner, group) = (Uid::from_raw(there.uid()), Gid::from_raw(there.gid()));
    // Only root gives a file to another owner, and who is in a group gives one to that.
    let _ = fchown(file, Some(owner), Some(group)).or_else(|_| fchown(file, None, Some(group)));
    let has_group = file.metadata().is_ok_and(|now| now.gid() == there.gid());
    match has_group {
        true => there.permissions(),
        false => Permissions::from_mode(there.permissions().mode() & !BY_GROUP),
    }
}

/// The folder that a file is in.
#[must_use]
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// So that a file's name, too, survives a power cut; not every system can flush a folder.
pub fn sync_folder_of(file: &Path) {
    let _ = File::open(folder_of(file)).and_then(|folder| folder.sync_all());
}

/// What every user of this machine may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenToAll {
    /// Read it.
    Read,
    /// Change it, and read it perhaps.
    Write,
}

/// Whether every user of the machine can read or change a file. None if they cannot, or it is not there: a folder above it
/// that they cannot enter keeps them from it, whatever its own mode is.
#[must_use]
pub fn open_to_all(file: &Path) -> Option<OpenToAll> {
    let file = std::fs::canonicalize(file).ok()?;
    let mode_of = |path: &Path| std::fs::metadata(path).map(|found: Metadata| found.permissions().mode());
    let mode = mode_of(&file).ok()? & READ_OR_WRITE_BY_ALL;
    let is_reached = file.ancestors().skip(1).all(|folder| {
        // A folder that this process cannot look at is one that others cannot, either.
        mode_of(folder).is_ok_and(|mode| mode & ENTER_BY_ALL != 0)
    });
    match mode {
        0 => None,
        _ if !is_reached => None,
        mode if mode & 0o002 != 0 => Some(OpenToAll::Write),
        _ => Some(OpenToAll::Read),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_draft_takes_its_place_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut draft = Draft::begin(&path).unwrap();
        draft.write_all(b"half").unwrap();
        drop(draft);
        assert!(names(folder.path()).is_empty());
        let write = |text: &str| {
            let mut draft = Draft::begin(&path).unwrap();
            draft.write_all(text.as_bytes()).unwrap();
            draft
        };
        write("one").put().unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one", 0o600));
        assert_eq!(write("two").put_new().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        set_mode(&path, 0o640);
        write("two").put().unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two", 0o640));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Draft::begin(&link).unwrap().put().unwrap();
        assert!(link.is_symlink() && std::fs::read(&path).unwrap().is_empty());
        std::fs::remove_file(&path).unwrap();
        write("three").put_new().unwrap();
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, ["a", "link"]);
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        let mut draft = Draft::begin(Path::new("/dev/null")).unwrap();
        draft.write_all(b"x").unwrap();
        draft.put().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn what_others_can_reach_is_told_from_what_a_folder_keeps_from_them() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let path = inner.join("a");
        write_new(&path, b"x").unwrap();
        assert_eq!(open_to_all(&path), None, "0600");
        for (file, outer, found) in [
            (0o644, 0o700, None),
            (0o644, 0o711, Some(OpenToAll::Read)),
            (0o640, 0o755, None),
            (0o666, 0o755, Some(OpenToAll::Write)),
            (0o602, 0o755, Some(OpenToAll::Write)),
        ] {
            set_mode(&path, file);
            set_mode(&inner, 0o755);
            set_mode(folder.path(), outer);
            assert_eq!(open_to_all(&path), found, "{file:o} in {outer:o}");
        }
        assert_eq!(open_to_all(&inner.join("none")), None);
    }
}
