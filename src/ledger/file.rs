//! The file of an SQLite ledger: by which name it is opened, which file that is, and how it is waited for.

use std::thread;
use std::time::{Duration, Instant};

use super::result_code::is_busy;

/// How long another process may hold the file before we give up: longer than any of our own commits.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the next attempt, where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Which file a path names: its device and its number there.
pub(super) type Identity = (u64, u64);

/// Opens a file beside others who do. SQLite waits for a lock by itself ([`BUSY_TIMEOUT`]), but not where a reader becomes
/// a writer: so of two processes that switch a new file to its write-ahead log, one is refused at once.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && began.elapsed() < BUSY_TIMEOUT => thread::sleep(BUSY_PAUSE),
            ended => return ended,
        }
    }
}

#[cfg(unix)]
pub(super) fn identity_of(file: &std::path::Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// SQLite's own form of the address: a URI, whose query (`mode=ro`) it understands itself. An absolute path gets the
/// empty host before it, and a `#`, which would end the path, is a letter like any other.
pub(super) fn uri_of(url: &str) -> String {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path).replace('#', "%23");
    let host = if path.starts_with('/') { "//" } else { "" };
    format!("file:{host}{path}")
}

/// Whether it is a simulation's, which needs no write-ahead log: nothing of it outlives the process.
pub(super) fn is_in_memory(url: &str) -> bool {
    cfg!(feature = "killpoints") && url.ends_with("?vfs=memdb")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::place::file_of;
    use crate::ledger::database::Opening;
    use crate::ledger::sqlite::Sqlite;

    #[test]
    fn every_form_of_an_address_names_its_file_and_no_other() {
        for (url, uri, file) in [
            ("sqlite://embosser.db", "file:embosser.db", "embosser.db"),
            ("sqlite:embosser.db", "file:embosser.db", "embosser.db"),
            ("sqlite://a/b.db?mode=ro", "file:a/b.db?mode=ro", "a/b.db"),
            ("sqlite:///var/lib/a.db", "file:///var/lib/a.db", "/var/lib/a.db"),
            ("sqlite:////var/lib/a.db", "file:////var/lib/a.db", "//var/lib/a.db"),
            ("sqlite:/var/lib/a%20b.db", "file:///var/lib/a%20b.db", "/var/lib/a b.db"),
        ] {
            assert_eq!(uri_of(url), uri);
            assert_eq!(file_of(url).as_deref(), Some(std::path::Path::new(file)));
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a#b.db");
        let url = format!("sqlite://{}", path.display());
        assert!(Sqlite::open(&url, Opening::Existing).is_err() && !path.exists(), "nothing is made");
        Sqlite::open(&url, Opening::Making).unwrap().close();
        assert!(path.exists() && !directory.path().join("a").exists());
    }
}
