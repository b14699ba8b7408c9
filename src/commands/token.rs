//! `embosser token`: a bearer token for `serve`, and its line for the file.

use std::path::PathBuf;

use super::Exit;
use super::output::write_line;
use crate::config::range::is_account_id;
use crate::files;
use crate::serve::access::Role;
use crate::serve::tokens::{New, expiry_of};

/// Options of `embosser token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose it is; the log and the audit log show it.
    #[arg(value_parser = token_name)]
    pub name: String,
    /// What it allows; give it several times for several.
    #[arg(long = "role", required = true, value_enum)]
    pub roles: Vec<Role>,
    /// The last day on which it opens anything, in UTC, as 2027-01-31; or a time, as 2027-01-31T17:00:00Z.
    #[arg(long, value_name = "DAY", value_parser = expiry, conflicts_with = "days")]
    pub expires: Option<String>,
    /// For how many days from today it opens anything.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: Option<u16>,
    /// The Stripe account that it is for, like acct_1Abc; give it several times for several [default: whichever it is].
    #[arg(long = "account", value_name = "ACCOUNT", value_parser = account)]
    pub accounts: Vec<String>,
    /// Add its line to this file, which is made for its owner alone if it is not there [default: print the line].
    #[arg(long, value_name = "FILE")]
    pub add_to: Option<PathBuf>,
}

fn token_name(text: &str) -> Result<String, String> {
    let fine = |character: char| character.is_ascii_alphanumeric() || "._-@".contains(character);
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err("a name has 1 to 64 letters, digits, and . _ - @".into());
    }
    Ok(text.to_owned())
}

fn expiry(text: &str) -> Result<String, String> {
    match expiry_of(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it is a day, as 2027-01-31, or a time, as 2027-01-31T17:00:00Z".into()),
    }
}

fn account(text: &str) -> Result<String, String> {
    if is_account_id(text) { Ok(text.to_owned()) } else { Err("an account's id is like acct_1Abc".into()) }
}

/// Makes a token: the token itself on standard output, once; its line goes into the file, or else to standard error.
///
/// # Errors
/// If it would expire after the last day that there is, or the file cannot be written.
pub fn run(args: &Args) -> Result<Exit, String> {
    let mut roles = args.roles.clone();
    roles.dedup();
    let mut expires = args.expires.clone();
    if let Some(days) = args.days {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let last = today.checked_add(jiff::Span::new().days(i64::from(days)));
        expires = Some(last.map_err(|error| error.to_string())?.to_string());
    }
    let new = New { name: &args.name, roles: &roles, expires: expires.as_deref(), accounts: &args.accounts };
    let (token, line) = new.make();
    match &args.add_to {
        Some(path) => files::add_line(path, &line).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            eprintln!(
                "# Add this line to http.tokens_file; the token itself is printed once and stored nowhere:"
            );
            eprintln!("{line}");
        }
    }
    write_line(token.as_str())
}
