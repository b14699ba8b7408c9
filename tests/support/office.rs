//! LibreOffice, as whoever opens or saves a file with it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The file that LibreOffice makes of another, of this kind: an ending, and after a colon how it is to be written. `import`:
/// how the first is read, if not as it likes.
pub fn converted(folder: &Path, file: &Path, import: &str, into: &str) -> PathBuf {
    // A profile of its own: two at once with one would wait for each other.
    let profile = format!("-env:UserInstallation=file://{}", folder.join("profile").display());
    let out = folder.join("converted");
    let mut command = Command::new("soffice");
    command.args([&profile, "--headless", "--convert-to", into, "--outdir"]).arg(&out);
    let import = (!import.is_empty()).then(|| format!("--infilter={import}"));
    let output = command.args(import).arg(file).output().unwrap();
    let ending = into.split(':').next().unwrap();
    let made = out.join(file.with_extension(ending).file_name().unwrap());
    assert!(made.exists(), "{}", String::from_utf8_lossy(&output.stderr));
    made
}
