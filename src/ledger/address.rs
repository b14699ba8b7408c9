//! The address of a ledger in PostgreSQL: one server or several of one cluster, and how they are spoken to.
//!
//! Several hosts are given as libpq takes them: `postgres://USER@ONE:5432,OTHER:5432/DATABASE`. The driver knows one host and no
//! `target_session_attrs`, so both are read here.

use std::net::IpAddr;
use std::str::FromStr as _;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::LedgerError;
use crate::config::place::without_password;

/// What a server must be for a connection to be of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// It answers; it may be a standby.
    Any,
    /// It is the primary: what a standby says of a row may be old.
    Primary,
    /// It takes writes.
    Writable,
}

/// A server's name, for people, and how to connect to it.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) options: PgConnectOptions,
}

/// Where the servers are, and what they must be.
#[derive(Debug)]
pub(super) struct Address {
    /// The ledger's name in messages, without its password.
    pub(super) name: String,
    pub(super) hosts: Vec<Host>,
    /// Whether a standby will do, as the address says by `target_session_attrs=any`.
    pub(super) takes_standby: bool,
}

impl Address {
    /// Reads `postgres://…`.
    ///
    /// # Errors
    /// If it is no such address.
    pub(super) fn parse(url: &str) -> Result<Self, LedgerError> {
        let name = without_password(url);
        let to_error = |reason: String| LedgerError::Address { url: name.clone(), reason };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| to_error("there is no ://".to_owned()))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = authority
            .rsplit_once('@')
            .map_or((String::new(), authority), |(user, hosts)| (format!("{user}@"), hosts));
        let mut takes_standby = false;
        let mut names_tls = std::env::var_os("PGSSLMODE").is_some();
        let mut kept = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match (&*key, &*value) {
                ("target_session_attrs", "any") => takes_standby = true,
                ("target_session_attrs", "read-write" | "primary") => takes_standby = false,
                ("target_session_attrs", other) => {
                    return Err(to_error(format!(
                        "target_session_attrs={other} is not known; it is read-write, as without it, or any"
                    )));
                }
                _ => {
                    names_tls |= matches!(&*key, "sslmode" | "ssl-mode");
                    kept.append_pair(&key, &value);
                }
            }
        }
        let query = kept.finish();
        let of_host = |host: &str| {
            let url = format!("{scheme}://{user}{host}/{database}?{query}");
            let options =
                PgConnectOptions::from_str(&url).map_err(|error| to_error(format!("{host}: {error}")))?;
            let is_local = options.get_socket().is_some() || is_this_machine(options.get_host());
            let options =
                if names_tls || is_local { options } else { options.ssl_mode(PgSslMode::VerifyFull) };
            let name = match options.get_socket() {
                Some(socket) => socket.display().to_string(),
                None => format!("{}:{}", options.get_host(), options.get_port()),
            };
            // Poolers refuse settings at the start that they do not know, and this one is for decimal fractions only.
            let options = options.extra_float_digits(None);
            Ok(Host { name, options: options.disable_statement_logging() })
        };
        let hosts = hosts.split(',').map(of_host).collect::<Result<_, _>>()?;
        Ok(Self { name, hosts, takes_standby })
    }
}

/// Whether what goes to this host leaves the machine on no wire.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.is_empty()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_is_spoken_to_with_tls_unless_the_address_says_otherwise() {
        let modes = |url: &str| -> Vec<String> {
            let address = Address::parse(url).unwrap();
            address.hosts.iter().map(|host| format!("{:?}", host.options.get_ssl_mode())).collect()
        };
        assert_eq!(modes("postgres://u@db.example/d"), ["VerifyFull"]);
        assert_eq!(modes("postgres://u@db.example,10.0.0.7:5433/d"), ["VerifyFull", "VerifyFull"]);
        assert_eq!(modes("postgres://u@db.example/d?sslmode=disable"), ["Disable"]);
        assert_eq!(modes("postgres://u@db.example/d?sslmode=require"), ["Require"]);
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert_eq!(modes(&format!("postgres://u@{local}/d")), ["Prefer"], "{local}");
        }
    }

    #[test]
    fn several_hosts_share_a_user_a_database_and_what_they_must_be() {
        let address =
            Address::parse("postgres://u:p%40ss@one,two:5433,[::1]:5434/cards?target_session_attrs=any")
                .unwrap();
        let names: Vec<&str> = address.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["one:5432", "two:5433", "[::1]:5434"]);
        assert!(address.hosts.iter().all(|host| host.options.get_database() == Some("cards")));
        assert!(address.hosts.iter().all(|host| host.options.get_username() == "u"));
        assert!(address.takes_standby && !address.name.contains("ss@"), "{}", address.name);
        let refused =
            Address::parse("postgres://u@one/d?target_session_attrs=standby").unwrap_err().to_string();
        assert!(refused.contains("standby is not known"), "{refused}");
    }
}
