//! Who may do what.
//!
//! Bearer tokens are random and long, so that SHA-256 is enough to store them by. A presented token is hashed and
//! held against every stored hash in constant time; which one matched, or how far, shows in no timing. Without any
//! token only this machine is served, and by its own name: a page elsewhere cannot reach in through the browser.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Server;
use super::problem::{Kind, Problem};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// What a token begins with, so that secret scanners and people know it.
const TOKEN_PREFIX: &str = "embosser_";
/// Longest token that is hashed at all.
const TOKEN_BYTES_MAX: usize = 512;

/// What a token allows. They do not include one another: a token names each that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// See batches, results and jobs.
    Read,
    /// Upload, check, and send jobs.
    Submit,
    /// Pause, resume and cancel; give out links by which cardholders choose PINs.
    Operate,
    /// Have a card's PIN shown, on a page of one's own.
    Pin,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Pin => "pin",
        })
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Read, Self::Submit, Self::Operate, Self::Pin]
            .into_iter()
            .find(|role| role.to_string() == text)
            .ok_or(())
    }
}

/// Why the tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("http.tokens_file {0}: {1}")]
    Read(String, std::io::Error),
    /// A line is not one that `embosser token` printed.
    #[error(
        "http.tokens_file {file}, line {line}: {reason}; a line is NAME ROLE,ROLE HASH, as `embosser token` prints it"
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

#[derive(Clone)]
struct Token {
    name: String,
    roles: HashSet<Role>,
    hash: [u8; 32],
}

/// The tokens that are known; they may be read anew while requests come.
pub struct Tokens(RwLock<Arc<[Token]>>);

impl Tokens {
    /// None: whoever can reach the server may do everything.
    #[must_use]
    pub fn none() -> Self {
        Self(RwLock::new(Arc::from([])))
    }

    /// Reads them from a file, a line each; empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// Names the line that is wrong.
    pub fn read(path: &Path) -> Result<Self, TokensError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| TokensError::Read(file.clone(), error))?;
        let mut tokens: Vec<Token> = Vec::new();
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
            tokens.push(token);
        }
        if tokens.is_empty() { Err(TokensError::Empty(file)) } else { Ok(Self(RwLock::new(tokens.into()))) }
    }

    /// Reads the file anew; requests from now on are held against what is in it. Answers how many there are.
    ///
    /// # Errors
    /// As [`Self::read`]; then the tokens stay as they are.
    pub fn read_anew(&self, path: &Path) -> Result<usize, TokensError> {
        let new = Self::read(path)?.known();
        let count = new.len();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(count)
    }

    fn known(&self) -> Arc<[Token]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there are none, so that only this machine may be served.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.known().is_empty()
    }

    /// The token's entry. Every entry is compared, whichever matches.
    fn find(&self, presented: &str) -> Option<Token> {
        if presented.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let mut found = None;
        for token in &*self.known() {
            if openssl::memcmp::eq(&token.hash, &hash) {
                found = Some(token.clone());
            }
        }
        found
    }

    /// Whether these headers allow the role.
    pub(super) fn allow(&self, headers: &HeaderMap, role: Role) -> Result<(), Problem> {
        if self.is_none() {
            return Ok(());
        }
        let presented = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(presented) = presented else {
            return Err(Problem::new(Kind::Unauthorized, "send Authorization: Bearer with a token"));
        };
        let Some(token) = self.find(presented) else {
            return Err(Problem::new(Kind::Unauthorized, "this token is not known here"));
        };
        if !token.roles.contains(&role) {
            tracing::warn!(token = token.name, %role, "a token lacks the role");
            return Err(Problem::new(Kind::Forbidden, format!("this needs a token with the role {role}")));
        }
        Ok(())
    }
}

fn token_of(line: &str) -> Result<Token, &'static str> {
    let mut parts = line.split_whitespace();
    let (Some(name), Some(roles), Some(hash), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it has not three parts");
    };
    let roles = roles
        .split(',')
        .map(|role| role.parse().map_err(|()| "a role is read, submit, operate or pin"))
        .collect::<Result<_, _>>()?;
    let hash = URL_SAFE_NO_PAD
        .decode(hash.strip_prefix("sha256:").ok_or("the hash does not begin with sha256:")?)
        .ok()
        .and_then(|hash| hash.try_into().ok())
        .ok_or("the hash is not 32 bytes of base64url")?;
    Ok(Token { name: name.to_owned(), roles, hash })
}

/// A new token, and the line for the file by which it is known.
///
/// # Panics
/// If the system has no randomness.
#[must_use]
pub fn new_token(name: &str, roles: &[Role]) -> (Zeroizing<String>, String) {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    openssl::rand::rand_bytes(&mut *bytes).expect("OpenSSL draws from the system's randomness");
    let token = Zeroizing::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(*bytes)));
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()));
    let roles: Vec<String> = roles.iter().map(Role::to_string).collect();
    (token, format!("{name} {} sha256:{hash}", roles.join(",")))
}

/// Refuses what another site's page may have sent, and without tokens whatever does not come from this machine by its
/// own name (a name that was made to point here would be another).
///
/// # Errors
/// What to tell it.
pub(super) fn of_this_page(
    tokens: &Tokens,
    peer: SocketAddr,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or("");
    if tokens.is_none() && !(peer.ip().to_canonical().is_loopback() && is_own_name(host)) {
        let detail = "without tokens only this machine is served, as localhost or by its loopback address";
        return Err(Problem::new(Kind::CrossSite, detail));
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let foreign = match headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        Some(site) => !matches!(site, "same-origin" | "none"),
        None => text(header::ORIGIN)
            .is_some_and(|origin| origin.split_once("://").is_none_or(|(_, origin)| origin != host)),
    };
    if foreign {
        return Err(Problem::new(Kind::CrossSite, "another site's page may not do this"));
    }
    Ok(())
}

fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Makes an extractor that lets a request through only with the role.
macro_rules! allowed {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        pub(super) struct $name;

        impl FromRequestParts<Server> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Problem> {
                server.parts.tokens.allow(&parts.headers, Role::$name).map(|()| Self)
            }
        }
    )+};
}

allowed! {
    /// The request may see.
    Read,
    /// The request may send work.
    Submit,
    /// The request may pause, resume and cancel.
    Operate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_is_found_by_its_line_and_no_other_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tokens");
        let (token, line) = new_token("ci", &[Role::Submit, Role::Read]);
        let (other, _) = new_token("other", &[Role::Read]);
        std::fs::write(&file, format!("# who\n\n{line}\n")).unwrap();
        let tokens = Tokens::read(&file).unwrap();
        assert!(!line.contains(token.as_str()));
        let roles = tokens.find(&token).unwrap().roles;
        assert!(roles.contains(&Role::Submit) && roles.contains(&Role::Read));
        assert!(!roles.contains(&Role::Operate));
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
        assert!(said("ci read\n").contains("line 1"));
        assert!(said("# a\nci admin sha256:AA\n").contains("line 2: a role is"));
        assert!(said("ci read sha256:AA\n").contains("32 bytes"));
        assert!(said("# nothing\n").contains("no token"));
    }

    #[test]
    fn only_this_machines_own_names_are_its_own() {
        for own in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:80", "[::1]", "127.3.2.1"] {
            assert!(is_own_name(own), "{own}");
        }
        for other in ["", "evil.example", "localhost.evil.example:8080", "10.0.0.1:8080", "0.0.0.0"] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
