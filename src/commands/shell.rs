//! `embosser completions` and `embosser man`: what shells and `man` know of the command line, made from itself.

use std::path::PathBuf;

use super::Exit;
use super::output::write_out;

/// Options of `embosser completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell.
    pub shell: clap_complete::Shell,
}

/// Options of `embosser man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder, instead of the first one to standard output.
    #[arg(long, value_name = "FOLDER")]
    pub directory: Option<PathBuf>,
}

/// Writes a shell's completions to standard output.
///
/// # Errors
/// If they cannot be written.
pub fn completions(args: &CompletionsArgs, mut command: clap::Command) -> Result<Exit, String> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "embosser", &mut script);
    write_out(&script)
}

/// Writes the manual pages.
///
/// # Errors
/// If they cannot be written.
pub fn man(args: &ManArgs, command: clap::Command) -> Result<Exit, String> {
    let to_error = |error: std::io::Error| error.to_string();
    let Some(directory) = &args.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(to_error)?;
        return write_out(&page);
    };
    clap_mangen::generate_to(command, directory).map_err(to_error)?;
    Ok(Exit::Success)
}
