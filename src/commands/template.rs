//! `embosser template`: an empty manifest with its headings, an example row, and, in a spreadsheet, notes and drop-downs.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use super::Exit;
use super::output::{file, write_out};
use crate::files;
use crate::manifest::template::{What, csv, workbook};

/// Options of `embosser template`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What its rows are to be.
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    pub what: What,
    /// Where to: a file that ends in .xlsx or .csv [default: CSV on standard output].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes it.
///
/// # Errors
/// If it cannot be written.
pub fn run(args: &Args) -> Result<Exit, String> {
    let output = file(args.output.as_ref());
    let is_sheet = match output {
        None => false,
        Some(path) => match path.extension().and_then(|ending| ending.to_str()) {
            Some(ending) if ending.eq_ignore_ascii_case("xlsx") => true,
            Some(ending) if ending.eq_ignore_ascii_case("csv") => false,
            _ => return Err(format!("{}: a template's file ends in .xlsx or .csv", path.display())),
        },
    };
    let bytes = if is_sheet {
        workbook(args.what, true).map_err(|error| error.to_string())?
    } else {
        csv(args.what, true).map_err(|error| error.to_string())?
    };
    let Some(path) = output else { return write_out(&bytes) };
    // What lies there may be filled in already.
    files::write_new(path, &bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    if io::stderr().is_terminal() {
        eprintln!("The second row is an example: overwrite it.");
    }
    Ok(Exit::Success)
}
