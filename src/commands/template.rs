//! `embosser template`: an empty manifest with its headings, an example row, and, in a spreadsheet, notes and drop-downs.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use super::Exit;
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
    let is_sheet = match &args.output {
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
    match &args.output {
        // What lies there may be filled in already.
        Some(path) => {
            files::write_new(path, &bytes).map_err(|error| format!("{}: {error}", path.display()))?
        }
        None => io::stdout().write_all(&bytes).map_err(|error| error.to_string())?,
    }
    if args.output.is_some() && io::stderr().is_terminal() {
        eprintln!("The second row is an example: overwrite it.");
    }
    Ok(Exit::Success)
}
