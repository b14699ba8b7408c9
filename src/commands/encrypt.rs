//! `embosser encrypt`: a PIN from standard input, encrypted as a cardholder's device would, to standard output.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::Exit;
use super::example::key_document;
use super::output::write_line;
use crate::config::Config;
use crate::encrypt::encrypt_pin;

/// Longest line that can be a PIN, and then some.
const LINE_BYTES_MAX: u64 = 64;

/// Options of `embosser encrypt`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For trials, tests and tooling. A server that encrypts a PIN has seen it in the clear, which is \
    what all this is there to avoid: in production the cardholder's own device does it."
)]
pub struct Args {
    /// Encrypt under the built-in sandbox's first key instead of the configured server's.
    #[arg(long, conflicts_with = "key_file")]
    pub sandbox: bool,
    /// Encrypt under the key in this file: what the key endpoint answered.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// Prints one PIN's JWE.
///
/// # Errors
/// If there is no key, or what came is no PIN.
pub async fn run(args: &Args, config: &Config) -> Result<Exit, String> {
    let key = match &args.key_file {
        Some(file) => std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?,
        None => key_document(args.sandbox, config).await?,
    };
    let pin = tokio::task::spawn_blocking(read_pin).await.map_err(|error| error.to_string())??;
    write_line(&encrypt_pin(&pin, &key).map_err(|error| error.to_string())?)
}

/// From standard input, never from an argument: those can be read by every user of the machine.
fn read_pin() -> Result<Zeroizing<String>, String> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let pin = rpassword::prompt_password("PIN (not shown): ").map_err(|error| error.to_string())?;
        return Ok(Zeroizing::new(pin));
    }
    let mut line = Zeroizing::new(String::with_capacity(LINE_BYTES_MAX as usize));
    stdin.lock().take(LINE_BYTES_MAX).read_line(&mut line).map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}
