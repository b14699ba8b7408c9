//! The time of day as a process under test sees it, moved while it runs: libfaketime. What counts seconds (timers, the
//! pace) goes on as it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Program;

/// Longer than Stripe keeps an idempotency key.
pub const A_DAY: Duration = Duration::from_secs(25 * 3600);

/// What processes take for the time of day.
pub struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// The true time, until it is set.
    pub fn in_directory(directory: &Path) -> Self {
        let clock = Self { file: directory.join("clock") };
        clock.set(0);
        clock
    }

    /// So many seconds ahead of the true time, or behind it.
    pub fn set(&self, seconds: i64) {
        // Renamed, so that no process reads half of it.
        let written = self.file.with_extension("written");
        std::fs::write(&written, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(written, &self.file).unwrap();
    }

    /// A program whose processes live by this clock.
    pub fn of(&self, program: Program) -> Program {
        program
            .with("LD_PRELOAD", &library())
            .with("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap())
            .with("FAKETIME_NO_CACHE", "1")
            .with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}

fn library() -> String {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let paths = places.map(|place| format!("{place}/faketime/libfaketime.so.1"));
    let found = paths.into_iter().find(|path| Path::new(path).exists());
    found.expect("libfaketime is missing; tests/run installs it (Debian's package libfaketime)")
}
