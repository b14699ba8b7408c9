//! The question before something that costs money is done.

use std::io::{IsTerminal as _, Write as _};

/// What it means that there is no terminal to ask on.
pub(super) enum WithoutTerminal {
    /// Yes: whoever runs it from a script knows what it does.
    Yes,
    /// An error: a yes must have been given beforehand. This is said then.
    Refused(&'static str),
}

/// Says what is about to happen, and asks a person whether it may, unless `--yes` said so.
///
/// # Errors
/// If nobody can be asked who must be.
pub(super) fn confirmed(
    about: &str,
    question: &str,
    yes: bool,
    without_terminal: &WithoutTerminal,
) -> Result<bool, String> {
    eprintln!("{about}");
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return match without_terminal {
            WithoutTerminal::Yes => Ok(true),
            WithoutTerminal::Refused(reason) => Err((*reason).to_owned()),
        };
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| error.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
