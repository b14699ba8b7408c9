//! The lease of an account in an SQLite ledger: a lock on a file beside it, which the operating system ends with its holder.
//!
//! Another machine that shares the disk in a way that is not known for a network's may have locks of its own. So whoever holds the
//! lease touches the file every second, and who finds it held by another machine that never gave it up looks for that first. That is
//! seen on a disk whose times are read as they are; a file system that keeps them for longer than the look lasts hides it, and
//! those that are known for that are refused ([`super::file_system`]).

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::Scope;
use super::lease::{Holder, LeaseError, number_of};
use crate::clock::Clock;
use crate::config::place::file_of;

/// Between two touches.
const TOUCH_EVERY: Duration = Duration::from_secs(1);
/// After so long without one another machine's process is taken for ended: it was switched off, or its disk is here now.
const UNTOUCHED_MAX: Duration = Duration::from_secs(4);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A file whose lock is held.
#[derive(Debug)]
pub(super) struct LockedFile {
    file: File,
    touching: tokio::task::AbortHandle,
}

/// What came of trying to lock it.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is locked.
    Ours {
        file: LockedFile,
        holder: Holder,
        /// How long the calls of whoever had it before still count.
        calls_from: Duration,
    },
    /// Somebody else has it.
    HeldBy(Box<Holder>),
}

impl LockedFile {
    /// The file whose lock is an account's lease.
    pub(super) fn path(url: &str, scope: &Scope) -> PathBuf {
        let file = file_of(url).unwrap_or_default();
        // Two paths to one file are one lease.
        let mut path = std::fs::canonicalize(&file).unwrap_or(file).into_os_string();
        path.push(format!(".{:016x}.lease", number_of(scope)));
        path.into()
    }

    /// Locks it, if nobody else has; `ledger` is the file that it lies beside. Blocks; within a runtime.
    pub(super) fn take(path: PathBuf, ledger: &Path, clock: &Clock) -> Result<Taken, LeaseError> {
        let to_error =
            |error: std::io::Error| LeaseError::File { path: path.clone(), reason: error.to_string() };
        let mut file = open(&path, ledger).map_err(to_error)?;
        let locked = file.try_lock();
        let before = read(&mut file);
        match locked {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                // It has just taken it, and not yet said who it is.
                let unknown = || Holder::unknown(clock, "this machine");
                return Ok(Taken::HeldBy(Box::new(before.unwrap_or_else(unknown))));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(to_error(error)),
        }
        let mut holder = Holder::this_process(clock);
        if let Some(before) = &before
            && is_of_another_machine(before, &holder)
            && is_touched(&path).map_err(to_error)?
        {
            tracing::error!(
                holder = %before,
                "another machine uses this SQLite ledger, which is for one machine: its locks do not hold between two. End one of \
                 them, and use postgres://HOST/DATABASE for both"
            );
            return Ok(Taken::HeldBy(Box::new(before.clone())));
        }
        let calls_from = holder.takes(before.as_ref(), clock.boot());
        // Opened anew: the lock is that of all copies of one file.
        let touched = File::options().write(true).open(&path).map_err(to_error)?;
        let touching = tokio::spawn(touch(touched)).abort_handle();
        let mut locked = Self { file, touching };
        locked.write(&holder).map_err(to_error)?;
        Ok(Taken::Ours { file: locked, holder, calls_from })
    }

    /// Says who holds it.
    pub(super) fn write(&mut self, holder: &Holder) -> std::io::Result<()> {
        let text = serde_json::to_string(holder).map_err(std::io::Error::other)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        self.touching.abort();
    }
}

/// Opens it. A new one is for those who may use the ledger: two users who share one share its lease.
fn open(path: &Path, ledger: &Path) -> std::io::Result<File> {
    let options = File::options().read(true).write(true).to_owned();
    match options.clone().create_new(true).open(path) {
        Ok(file) => {
            if let Ok(ledger) = std::fs::metadata(ledger) {
                file.set_permissions(ledger.permissions())?;
            }
            Ok(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => options.open(path),
        Err(error) => Err(error),
    }
}

fn read(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether a holder of before may live on another machine. (One of this machine would have kept the lock.)
fn is_of_another_machine(before: &Holder, ours: &Holder) -> bool {
    before.ended_ms.is_none() && !before.boot.is_empty() && !ours.boot.is_empty() && before.boot != ours.boot
}

fn is_touched(path: &Path) -> std::io::Result<bool> {
    let first = std::fs::metadata(path)?.modified()?;
    for _ in 0..UNTOUCHED_MAX.as_millis() / LOOK_EVERY.as_millis() {
        thread::sleep(LOOK_EVERY);
        if std::fs::metadata(path)?.modified()? != first {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn touch(file: File) {
    loop {
        tokio::time::sleep(TOUCH_EVERY).await;
        // It tells another machine only; the lock is what counts on this one.
        let _ = file.set_modified(SystemTime::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_that_another_machine_keeps_touching_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (path, clock) = (directory.path().join("a.lease"), Clock::system());
        let other = Holder { boot: "another".into(), host: "another".into(), ..Holder::this_process(&clock) };
        std::fs::write(&path, serde_json::to_string(&other).unwrap()).unwrap();
        let take = async || {
            let (path, clock) = (path.clone(), clock.clone());
            let taking = move || LockedFile::take(path, Path::new("none"), &clock);
            tokio::task::spawn_blocking(taking).await.unwrap().unwrap()
        };
        let touching = tokio::spawn(touch(File::options().write(true).open(&path).unwrap()));
        let Taken::HeldBy(holder) = take().await else { panic!("it is touched") };
        assert_eq!(holder.host, "another");
        touching.abort();
        // The other machine is switched off.
        assert!(matches!(take().await, Taken::Ours { .. }));
        // Who gave it up is not waited for.
        let ended = Holder { ended_ms: Some(1), ..other };
        assert!(!is_of_another_machine(&ended, &Holder::this_process(&clock)));
    }
}
