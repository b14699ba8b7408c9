//! `embosser columns`: a columns file for a manifest, as its headings suggest it.

use std::path::PathBuf;

use super::Exit;
use super::manifest::FileArgs;
use super::output::{file, write_out};
use crate::files;
use crate::manifest::proposal::propose;

/// Options of `embosser columns`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest: a CSV or a spreadsheet (XLSX, XLS, ODS) with a header row.
    pub manifest: PathBuf,
    /// How it is read.
    #[command(flatten)]
    pub file: FileArgs,
    /// Where to [default: standard output]. A file that is there is not written over.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the columns file.
///
/// # Errors
/// If the manifest cannot be read, or the file not be written.
pub fn run(args: &Args) -> Result<Exit, String> {
    let text = propose(&args.manifest, &args.file.reading()).map_err(|error| error.to_string())?;
    // What lies there was looked through by a person.
    let Some(path) = file(args.output.as_ref()) else { return write_out(text.as_bytes()) };
    files::write_new(path, text.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Exit::Success)
}
