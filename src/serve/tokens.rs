//! The bearer tokens: the file in which they stand, and the one that a request presents.
//!
//! Tokens are random and long, so that SHA-256 is enough to store them by. A presented token is hashed and held against
//! every stored hash in constant time; which one matched, or how far, shows in no timing. The file is read anew when it
//! changes; one that cannot be used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::access::Role;
use crate::clock::Time;
use crate::config::range::is_account_id;
use crate::files::Stamp;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// What a token begins with, so that secret scanners and people know it.
const TOKEN_PREFIX: &str = "embosser_";
/// Longest token that is hashed at all.
const TOKEN_BYTES_MAX: usize = 512;

/// Why the tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("http.tokens_file {0}: {1}")]
    Read(String, std::io::Error),
    /// A line is not one that `embosser token` printed.
    #[error(
        "http.tokens_file {file}, line {line}: {reason}; a line is NAME ROLE,ROLE HASH, and expires=… and accounts=… if they \
         are wanted, as `embosser token` prints it"
    )]
    Line {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is no token in it.
    #[error("http.tokens_file {0} holds no token; make one with `embosser token`")]
    Empty(String),
}

/// A token, as its line in the file describes it.
#[derive(PartialEq, Eq)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) roles: Vec<Role>,
    /// From when on it opens nothing.
    pub(super) expires: Option<Time>,
    /// The accounts that it is for; none: whichever it is.
    pub(super) accounts: Vec<String>,
    hash: [u8; 32],
}

/// What reading the file anew changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reread {
    /// Tokens that are known now.
    pub tokens: usize,
    /// Those of them that were not known before, or are of another role, account or expiry now.
    pub added: usize,
    /// Those that were known before and are no more, or not as they were.
    pub removed: usize,
}

/// The tokens that are known; they may be read anew while requests come.
pub struct Tokens {
    known: RwLock<Arc<[Arc<Token>]>>,
    seen: Mutex<Option<Stamp>>,
}

impl Tokens {
    /// None: whoever can reach the server may do everything.
    #[must_use]
    pub fn none() -> Self {
        Self { known: RwLock::new(Arc::from([])), seen: Mutex::new(None) }
    }

    /// Reads them from a file, a line each; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        // Before it is read: a change in between is seen by the next look.
        let seen = Stamp::of(path);
        Ok(Self { known: RwLock::new(tokens_of(path)?), seen: Mutex::new(seen) })
    }

    /// Whether the file is another than the one that was read last, whether or not that could be used.
    #[must_use]
    pub fn is_changed(&self, path: &Path) -> bool {
        Stamp::of(path) != *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file anew; requests from now on are held against what is in it.
    ///
    /// # Errors
    /// As [`Self::read`]; then the tokens stay as they are.
    pub fn read_anew(&self, path: &Path) -> Result<Reread, TokensError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Stamp::of(path);
        let new = tokens_of(path)?;
        let old =
            std::mem::replace(&mut *self.known.write().unwrap_or_else(PoisonError::into_inner), new.clone());
        let without = |these: &[Arc<Token>], others: &[Arc<Token>]| {
            these.iter().filter(|token| !others.contains(token)).count()
        };
        Ok(Reread { tokens: new.len(), added: without(&new, &old), removed: without(&old, &new) })
    }

    fn known(&self) -> Arc<[Arc<Token>]> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there are none, so that only this machine may be served.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.known().is_empty()
    }

    /// Whether a token has this role.
    #[must_use]
    pub fn have(&self, role: Role) -> bool {
        self.known().iter().any(|token| token.roles.contains(&role))
    }

    /// The token's entry. Every entry is compared, whichever matches.
    pub(super) fn find(&self, presented: &str) -> Option<Arc<Token>> {
        if presented.len() > TOKEN_BYTES_MAX {
            return None;
        }
        self.of_hash(&Sha256::digest(presented.as_bytes()).into())
    }

    /// The entry of a token that was presented before, as it is now.
    pub(super) fn find_again(&self, token: &Token) -> Option<Arc<Token>> {
        self.of_hash(&token.hash)
    }

    fn of_hash(&self, hash: &[u8; 32]) -> Option<Arc<Token>> {
        let mut found = None;
        for token in &*self.known() {
            if openssl::memcmp::eq(&token.hash, hash) {
                found = Some(token.clone());
            }
        }
        found
    }
}

/// Reads the file anew; answers what is to be told of it. If it cannot be used, those that are known stay.
pub(super) async fn read_anew(tokens: &Arc<Tokens>, file: PathBuf, why: &str) -> Option<String> {
    let read = tokens.clone();
    match tokio::task::spawn_blocking(move || read.read_anew(&file)).await {
        Ok(Ok(Reread { tokens, added, removed })) => {
            tracing::info!(tokens, added, removed, "{why}: http.tokens_file was read anew");
            Some(format!("{tokens} tokens: {added} added or changed, {removed} removed ({why})"))
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "{why}: the tokens stay as they were");
            None
        }
        Err(error) => {
            tracing::error!(%error, "{why}: a bug; the tokens stay as they were");
            None
        }
    }
}

/// Resolves once the file is another than the one that was read last.
pub(super) async fn changed(tokens: &Arc<Tokens>, file: &Path) {
    /// So soon a token that was taken out opens nothing any more.
    const LOOK_EVERY: Duration = Duration::from_secs(2);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (tokens, file) = (tokens.clone(), file.to_owned());
        let looking = tokio::task::spawn_blocking(move || tokens.is_changed(&file));
        if looking.await.unwrap_or(false) {
            return;
        }
    }
}

fn tokens_of(path: &Path) -> Result<Arc<[Arc<Token>]>, TokensError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| TokensError::Read(file.clone(), error))?;
    let mut tokens: Vec<Arc<Token>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |reason| TokensError::Line { file: file.clone(), line: index + 1, reason };
        let token = token_of(line).map_err(wrong)?;
        if tokens.iter().any(|other| other.name == token.name) {
            return Err(wrong("a token of this name stands above"));
        }
        tokens.push(Arc::new(token));
    }
    if tokens.is_empty() { Err(TokensError::Empty(file)) } else { Ok(tokens.into()) }
}

fn token_of(line: &str) -> Result<Token, &'static str> {
    let mut parts = line.split_whitespace();
    let (Some(name), Some(roles), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("it has not three parts");
    };
    let roles = roles
        .split(',')
        .map(|role| role.parse().map_err(|()| "a role is read, submit, operate, approve or pin"))
        .collect::<Result<_, _>>()?;
    let hash = URL_SAFE_NO_PAD
        .decode(hash.strip_prefix("sha256:").ok_or("the hash does not begin with sha256:")?)
        .ok()
        .and_then(|hash| hash.try_into().ok())
        .ok_or("the hash is not 32 bytes of base64url")?;
    let (mut expires, mut accounts) = (None, Vec::new());
    for part in parts {
        match part.split_once('=') {
            Some(("expires", text)) if expires.is_none() => {
                let time = expiry_of(text);
                expires =
                    Some(time.ok_or("expires is a day, as 2027-01-31, or a time, as 2027-01-31T17:00:00Z")?);
            }
            Some(("accounts", text)) if accounts.is_empty() => {
                accounts = text.split(',').map(str::to_owned).collect();
                if !accounts.iter().all(|account| is_account_id(account)) {
                    return Err("accounts are ids like acct_1Abc, with commas between them");
                }
            }
            Some(("expires" | "accounts", _)) => return Err("expires or accounts stands in it twice"),
            _ => return Err("what follows the hash is neither expires=… nor accounts=…"),
        }
    }
    Ok(Token { name: name.to_owned(), roles, expires, accounts, hash })
}

/// From when on a token that says so opens nothing: a day counts to its end in UTC.
#[must_use]
pub fn expiry_of(text: &str) -> Option<Time> {
    /// `2027-01-31`
    const DAY: usize = 10;
    let end = if text.len() == DAY {
        text.parse::<Date>().ok()?.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()
    } else {
        text.parse::<jiff::Timestamp>().ok()?
    };
    Some(Time::from_unix_ms(end.as_millisecond()))
}

/// What a new token is for.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// Whose it is.
    pub name: &'a str,
    /// What it allows.
    pub roles: &'a [Role],
    /// Until when, as [`expiry_of`] reads it.
    pub expires: Option<&'a str>,
    /// The accounts that it is for; none: whichever it is.
    pub accounts: &'a [String],
}

impl New<'_> {
    /// The token, and the line for the file by which it is known.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn make(&self) -> (Zeroizing<String>, String) {
        let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
        openssl::rand::rand_bytes(&mut *bytes).expect("OpenSSL draws from the system's randomness");
        let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(*bytes)));
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()));
        let roles: Vec<String> = self.roles.iter().map(Role::to_string).collect();
        let expires = self.expires.map_or_else(String::new, |expires| format!(" expires={expires}"));
        let accounts = match self.accounts {
            [] => String::new(),
            accounts => format!(" accounts={}", accounts.join(",")),
        };
        (token, format!("{} {} sha256:{hash}{expires}{accounts}", self.name, roles.join(",")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<'a>(name: &'a str, roles: &'a [Role]) -> New<'a> {
        New { name, roles, expires: None, accounts: &[] }
    }

    #[test]
    fn a_new_token_is_found_by_its_line_and_no_other_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let accounts = ["acct_1".to_owned(), "acct_2b".to_owned()];
        let roles = [Role::Submit, Role::Read];
        let new = New { name: "ci", roles: &roles, expires: Some("2027-01-31"), accounts: &accounts };
        let (token, line) = new.make();
        let (other, _) = plain("other", &[Role::Read]).make();
        std::fs::write(&file, format!("# who\n\n{line}\n")).unwrap();
        let tokens = Tokens::read(&file).unwrap();
        assert!(!line.contains(token.as_str()));
        let found = tokens.find(&token).unwrap();
        assert_eq!((&found.roles[..], &found.accounts[..]), (&roles[..], &accounts[..]));
        // A day counts to its end.
        assert_eq!(found.expires, expiry_of("2027-02-01T00:00:00Z"));
        assert!(tokens.find(&other).is_none());
    }

    #[test]
    fn a_wrong_line_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let said = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Tokens::read(&file).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let (_, line) = plain("ci", &[Role::Approve]).make();
        assert_eq!(said(&line), "");
        assert!(said("ci read\n").contains("line 1"));
        assert!(said("# a\nci admin sha256:AA\n").contains("line 2: a role is"));
        assert!(said("ci read sha256:AA\n").contains("32 bytes"));
        assert!(said("# nothing\n").contains("no token"));
        for (end, wrong) in [
            ("expires=soon", "expires is a day"),
            ("expires=2027-02-30", "expires is a day"),
            ("expires=2027-01-31T17:00:00", "expires is a day"),
            ("expires=2027-01-31 expires=2028-01-31", "twice"),
            ("accounts=payroll", "ids like acct_1Abc"),
            ("accounts=", "ids like acct_1Abc"),
            ("until=2027-01-31", "neither expires"),
            ("acct_1", "neither expires"),
        ] {
            let said = said(&format!("{line} {end}\n"));
            assert!(said.contains(wrong), "{end}: {said}");
        }
    }

    #[test]
    fn what_is_read_anew_is_counted_and_a_broken_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let (first, second) = (plain("a", &[Role::Read]).make(), plain("b", &[Role::Read]).make());
        std::fs::write(&file, &first.1).unwrap();
        let tokens = Tokens::read(&file).unwrap();
        assert!(!tokens.is_changed(&file));
        std::fs::write(&file, format!("{}\n{} expires=2027-01-31\n", second.1, first.1)).unwrap();
        assert!(tokens.is_changed(&file));
        let reread = tokens.read_anew(&file).unwrap();
        assert_eq!(reread, Reread { tokens: 2, added: 2, removed: 1 });
        std::fs::write(&file, "b read\n").unwrap();
        assert!(tokens.is_changed(&file) && tokens.read_anew(&file).is_err());
        assert!(!tokens.is_changed(&file), "it is told once");
        assert!(tokens.find(&second.0).is_some());
    }
}
