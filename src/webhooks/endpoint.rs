//! One who is told: an address, what its events are signed with, and which it wants.
//!
//! A delivery is one POST whose answer is 2xx. Never: a redirect is followed, or a secret or a whole address is shown.

use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{redirect, retry};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::event::Kind;
use crate::clock::Time;
use crate::config::{EndpointConfig, WebhooksConfig, seconds};
use crate::http_failure::{last_cause, sentence_of};
use crate::signature::SigningKey;

/// The header with the time of signing and the signatures.
pub const SIGNATURE_HEADER: &str = "embosser-signature";
/// Secrets of one endpoint at a time: the new one, and the one that it takes the place of.
const SECRETS_MAX: usize = 4;
/// Fewer characters could be guessed.
const SECRET_CHARACTERS_MIN: usize = 24;
/// Who calls.
const AGENT: &str = concat!("embosser/", env!("CARGO_PKG_VERSION"));

/// One who is told.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// By which it stands in the ledger: a digest of its address.
    pub(super) id: String,
    /// Its host and port, for people.
    pub(super) host: String,
    url: url::Url,
    keys: Vec<SigningKey>,
    events: Vec<String>,
}

/// What a try met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// Nobody answered in time.
    NoAnswer(String),
    /// Somebody answered otherwise than with 2xx.
    Answered(String),
}

impl Endpoint {
    /// Reads its secrets.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn of(number: usize, config: &EndpointConfig) -> Result<Self, String> {
        let url = url::Url::parse(&config.url).map_err(|error| format!("webhooks.endpoints: {error}"))?;
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let place = format!("webhooks.endpoints: endpoint {number} ({host})");
        let text = secret_of(config.secret_file.as_deref(), &place)?;
        let keys = keys_of(&text).map_err(|reason| format!("{place}: {reason}"))?;
        let digest = Sha256::digest(config.url.as_bytes());
        let id = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id, host, url, keys, events: config.events.clone() })
    }

    /// Whether it is told of these.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.events.is_empty() || self.events.iter().any(|event| event == kind.word())
    }

    /// The header's value for a body that is sent at that time.
    fn signed(&self, body: &[u8], now: Time) -> Option<String> {
        let time = now.unix_ms().div_euclid(1000).to_string();
        let mut header = format!("t={time}");
        for key in &self.keys {
            header += ",v1=";
            header += &key.signature(&time, body).ok()?;
        }
        Some(header)
    }

    /// Sends a body once.
    pub(super) async fn post(&self, http: &reqwest::Client, body: String, now: Time) -> Result<(), Failed> {
        let signed = self.signed(body.as_bytes(), now);
        let signed = signed.and_then(|signed| HeaderValue::from_str(&signed).ok());
        let signed = signed.ok_or_else(|| Failed::Answered("it could not be signed".into()))?;
        let request = http
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(SIGNATURE_HEADER, signed)
            .body(body);
        let answer = request.send().await.map_err(|error| Failed::NoAnswer(sentence_of(error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        Err(Failed::Answered(match status.is_redirection() {
            true => format!("it answered {status}; redirects are not followed: name the address it leads to"),
            false => format!("it answered {status}"),
        }))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::NoAnswer(reason) | Self::Answered(reason)) = self;
        formatter.write_str(reason)
    }
}

/// The client that events are posted with. No connection is opened yet.
///
/// # Errors
/// If TLS cannot be had.
pub(super) fn client(config: &WebhooksConfig) -> Result<reqwest::Client, String> {
    /// Of the whole bound, for the connection alone.
    const CONNECT_PART: u32 = 2;
    let whole = seconds(config.timeout_seconds);
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(AGENT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .connect_timeout(whole / CONNECT_PART)
        .timeout(whole)
        // Events are rare: an idle connection would be closed by the time of the next.
        .pool_idle_timeout(Duration::from_secs(5))
        .build()
        .map_err(|error| format!("webhooks: {}", last_cause(&error.without_url())))
}

fn secret_of(file: Option<&Path>, place: &str) -> Result<SecretString, String> {
    /// For endpoints that name no file.
    const VARIABLE: &str = "EMBOSSER_WEBHOOK_SECRET";
    match (file, std::env::var(VARIABLE)) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file);
            text.map(Into::into)
                .map_err(|error| format!("{place}: its secret_file {}: {error}", file.display()))
        }
        (None, Ok(secret)) if !secret.trim().is_empty() => Ok(secret.into()),
        (None, _) => Err(format!(
            "{place} has no secret to sign with: name a file that holds one in secret_file, or set {VARIABLE}. \
             `openssl rand -hex 32` makes one"
        )),
    }
}

/// One key for each line: while a secret is being replaced, both sign.
fn keys_of(text: &SecretString) -> Result<Vec<SigningKey>, String> {
    let secrets: Vec<&str> =
        text.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if secrets.is_empty() || secrets.len() > SECRETS_MAX {
        return Err(format!("its secrets are 1 to {SECRETS_MAX} lines, and {} were found", secrets.len()));
    }
    let is_fine = |secret: &&str| {
        secret.len() >= SECRET_CHARACTERS_MIN && secret.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !secrets.iter().all(is_fine) {
        return Err(format!(
            "a secret has at least {SECRET_CHARACTERS_MIN} letters, digits or signs, and no spaces; `openssl rand -hex 32` \
             makes one"
        ));
    }
    secrets
        .iter()
        .map(|&secret| SigningKey::of(&secret.to_owned().into()).map_err(|error| error.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn endpoint(secrets: &str) -> Result<Endpoint, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, secrets).unwrap();
        let url = "https://example.com:8443/in?token=of_the_address".to_owned();
        Endpoint::of(
            1,
            &EndpointConfig { url, secret_file: Some(file), events: vec!["batch.stopped".into()] },
        )
    }

    /// Made by Stripe's own library for Python, version 16.1.0.
    #[test]
    fn each_secret_signs_as_stripes_library_does() {
        let secrets = "whsec_test_of_the_tests_one\nwhsec_test_of_the_tests_two\n";
        let (now, body) = (Time::from_unix_ms(1_796_000_000_999), br#"{"id": "evt_1"}"#);
        let header = endpoint(secrets).unwrap().signed(body, now).unwrap();
        let (one, two) = (
            "9af973a89c9e1e7490463b46232fd9a8fb5afaee87a1751a34f312afe9df1d25",
            "ed82b126d01ab888cd8cc87be37fd80b862b08810c8ace7d078e4324ca672820",
        );
        assert_eq!(header, format!("t=1796000000,v1={one},v1={two}"));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", endpoint("a_secret_of_24_characters\n").unwrap());
        assert!(!shown.contains("a_secret"), "{shown}");
        for wrong in
            ["", "\n \n", "too_short", "a secret of 24 characters", &"a_secret_of_24_characters\n".repeat(5)]
        {
            let problem = endpoint(wrong).unwrap_err();
            assert!(problem.contains("endpoint 1 (example.com:8443)"), "{problem}");
            assert!(!problem.contains("too_short") && !problem.contains("of_the_address"), "{problem}");
        }
    }

    #[test]
    fn an_endpoint_is_told_what_it_wants() {
        let endpoint = endpoint("a_secret_of_24_characters").unwrap();
        assert!(endpoint.wants(Kind::Stopped) && !endpoint.wants(Kind::Finished));
    }
}
