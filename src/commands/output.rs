//! Where a command writes what it was asked for: standard output, which its reader may close at any time, or a file.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Exit;

/// Why something was not written to its end.
pub(super) enum Unwritten {
    /// Why what is to be written cannot be had.
    Source(String),
    /// Where it is written takes no more.
    Output(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// How a command ends that has written.
pub(super) fn exit(written: Result<(), Unwritten>) -> Result<Exit, String> {
    match written {
        Ok(()) => Ok(Exit::Success),
        // Whoever reads has read enough, as `head` does.
        Err(Unwritten::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        Err(Unwritten::Output(error)) => Err(error.to_string()),
        Err(Unwritten::Source(reason)) => Err(reason),
    }
}

/// Writes it all to standard output.
pub(super) fn write_out(bytes: &[u8]) -> Result<Exit, String> {
    let mut out = io::stdout().lock();
    exit(out.write_all(bytes).and_then(|()| out.flush()).map_err(Unwritten::Output))
}

/// Writes a line to standard output. The text is not copied into one: what a command prints may be a secret that is wiped.
pub(super) fn write_line(text: &str) -> Result<Exit, String> {
    let mut out = io::stdout().lock();
    let written =
        out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    exit(written.map_err(Unwritten::Output))
}

/// The file that `--output` names; none for standard output, which `-` means as it does elsewhere.
pub(super) fn file(output: Option<&PathBuf>) -> Option<&Path> {
    output.map(PathBuf::as_path).filter(|path| *path != Path::new("-"))
}
