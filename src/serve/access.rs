//! Who may do what.
//!
//! A request says who it is by a bearer token ([`super::tokens`]). Without any token only this machine is served, and by
//! its own name: a page elsewhere cannot reach in through the browser.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use super::Server;
use super::door::Place;
use super::problem::{Kind, Problem};
use super::tokens::{Token, Tokens};
use crate::clock::Time;

/// Between two looks whether a token that was presented still opens what it opened.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a token allows. They do not include one another: a token names each that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Role {
    /// See batches, results and jobs.
    Read,
    /// Upload, check, and send jobs.
    Submit,
    /// Pause, resume and cancel; give out links by which cardholders choose PINs; see the audit log.
    Operate,
    /// Release or reject batches that others have uploaded; see the audit log.
    Approve,
    /// Have a card's PIN shown, on a page of one's own.
    Pin,
    /// See the audit log, and change nothing.
    Audit,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Submit, Self::Operate, Self::Approve, Self::Pin, Self::Audit];

    /// As it stands in a token's line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Approve => "approve",
            Self::Pin => "pin",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.word() == text).ok_or(())
    }
}

/// Who sent a request, and by which role it was let through.
#[derive(Clone)]
pub(super) struct Caller {
    token: Option<Arc<Token>>,
    role: Option<Role>,
    /// What it is called without a token.
    otherwise: &'static str,
}

impl Caller {
    /// This server, where it does something by itself.
    pub(super) const THIS_SERVER: Self = Self { token: None, role: None, otherwise: "this server" };
    /// Whoever has a cardholder's link.
    pub(super) const CARDHOLDER: Self = Self { token: None, role: None, otherwise: "a cardholder" };
    /// Whoever is on this machine, where there are no tokens.
    const THIS_MACHINE: Self = Self { token: None, role: None, otherwise: "this machine" };

    /// The token's name, or words for whoever has none.
    pub(super) fn name(&self) -> &str {
        self.token.as_ref().map_or(self.otherwise, |token| &token.name)
    }

    /// The role that was used.
    pub(super) fn role(&self) -> Option<Role> {
        self.role
    }

    /// What it may do.
    pub(super) fn roles(&self) -> &[Role] {
        self.token.as_ref().map_or(&Role::ALL, |token| &token.roles)
    }

    /// From when on its token opens nothing.
    pub(super) fn expires(&self) -> Option<Time> {
        self.token.as_ref().and_then(|token| token.expires)
    }

    /// The accounts that its token is for; none: whichever it is.
    pub(super) fn accounts(&self) -> &[String] {
        self.token.as_ref().map_or(&[], |token| &token.accounts)
    }
}

/// Whose request it is, if its token is known and has not expired.
pub(super) fn caller_of(tokens: &Tokens, headers: &HeaderMap, now: Time) -> Result<Caller, Problem> {
    if tokens.is_none() {
        return Ok(Caller::THIS_MACHINE);
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
    let Some(token) = tokens.find(presented) else {
        return Err(Problem::new(Kind::Unauthorized, "this token is not known here"));
    };
    has_not_expired(&token, now)?;
    Ok(Caller { token: Some(token), ..Caller::THIS_MACHINE })
}

fn has_not_expired(token: &Token, now: Time) -> Result<(), Problem> {
    let Some(expired) = token.expires.filter(|expires| now >= *expires) else { return Ok(()) };
    let (name, when) = (&token.name, expired.in_utc());
    let detail = format!("token {name} expired at {when}; whoever runs embosser makes a new one");
    Err(Problem::new(Kind::Unauthorized, detail))
}

impl Caller {
    /// The same, if one of these roles is among its token's.
    pub(super) fn with_one_of(self, roles: &[Role]) -> Result<Self, Problem> {
        let role = roles.iter().find(|role| self.roles().contains(role)).copied();
        if role.is_none() {
            let needed = words(roles, " or ");
            let (name, has) = (self.name(), words(self.roles(), ", "));
            tracing::warn!(token = name, needed, "a token lacks the role");
            let detail = format!("this needs a token with the role {needed}; token {name} has {has}");
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        Ok(Self { role, ..self })
    }

    /// Whether its token is for this account, as far as that is said.
    pub(super) fn is_for(&self, account: &str) -> bool {
        let accounts = self.accounts();
        accounts.is_empty() || accounts.iter().any(|of_token| of_token == account)
    }
}

impl Server {
    /// Whose request it is, if its token is good for this server.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let caller = caller_of(&self.parts.tokens, headers, self.clock().now())?;
        if let Some(token) = &caller.token {
            self.is_of_account(token)?;
        }
        Ok(caller)
    }

    /// Whose request it is, if one of these roles is among its token's.
    pub(super) fn allow(&self, headers: &HeaderMap, roles: &[Role]) -> Result<Caller, Problem> {
        self.caller(headers)?.with_one_of(roles)
    }

    /// Whether a known token has not expired and is for the account of this server.
    fn is_good(&self, token: &Token) -> Result<(), Problem> {
        has_not_expired(token, self.clock().now())?;
        self.is_of_account(token)
    }

    fn is_of_account(&self, token: &Token) -> Result<(), Problem> {
        if token.accounts.is_empty() {
            return Ok(());
        }
        let (name, allowed) = (&token.name, token.accounts.join(", "));
        match self.scope().account() {
            Some(account) if token.accounts.iter().any(|allowed| allowed == account) => Ok(()),
            Some(account) => Err(Problem::new(
                Kind::Forbidden,
                format!("token {name} is for {allowed}; this server's account is {account}"),
            )),
            None => Err(Problem::new(
                Kind::Forbidden,
                format!("token {name} is for {allowed}, and it is not known which account this server's is"),
            )),
        }
    }

    /// Resolves once a caller may do no more what it was let through for: its token was taken out of the file, lost
    /// the role, or expired.
    pub(super) async fn turned_away(&self, caller: &Caller) {
        let (Some(token), Some(role)) = (&caller.token, caller.role) else {
            return std::future::pending().await;
        };
        while self.still_allows(token, role) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a caller may still do what it was let through for, after a wait.
    pub(super) fn allow_again(&self, caller: &Caller) -> Result<(), Problem> {
        match (&caller.token, caller.role) {
            (Some(token), Some(role)) if !self.still_allows(token, role) => {
                Err(Problem::new(Kind::Unauthorized, format!("token {} allows this no more", token.name)))
            }
            _ => Ok(()),
        }
    }

    fn still_allows(&self, token: &Token, role: Role) -> bool {
        let now = self.parts.tokens.find_again(token);
        now.is_some_and(|now| now.roles.contains(&role) && self.is_good(&now).is_ok())
    }
}

fn words(roles: &[Role], between: &str) -> String {
    roles.iter().map(|role| role.word()).collect::<Vec<_>>().join(between)
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

/// Makes an extractor that lets a request through only with one of these roles, and says whose it is.
macro_rules! allowed {
    ($(#[$doc:meta] $name:ident: [$($role:ident),+]),+ $(,)?) => {$(
        #[$doc]
        pub(super) struct $name(pub(super) Caller);

        impl FromRequestParts<Server> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Problem> {
                let caller = server.allow(&parts.headers, &[$(Role::$role),+])?;
                Place::is_known(&parts.extensions);
                Ok(Self(caller))
            }
        }
    )+};
}

allowed! {
    /// The request may see.
    Read: [Read],
    /// The request may send work.
    Submit: [Submit],
    /// The request may pause, resume and cancel.
    Operate: [Operate],
    /// The request may release batches that others have uploaded.
    Approve: [Approve],
    /// The request may see the audit log.
    Audit: [Audit, Operate, Approve],
    /// The request may have a batch's cards looked at.
    Track: [Submit, Operate],
}

/// The request comes from somebody who is known, whatever they may do.
pub(super) struct Anybody(pub(super) Caller);

impl FromRequestParts<Server> for Anybody {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Server) -> Result<Self, Problem> {
        let caller = server.caller(&parts.headers)?;
        Place::is_known(&parts.extensions);
        Ok(Self(caller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
