//! `[webhooks]`: who is told of a batch that was checked, waits for its approval, has finished, or was stopped.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::place::is_loopback;
use super::range::{above_zero_up_to, grouped};

/// Addresses that are told: each has its own tries, and its own place in the ledger for what it was not told yet.
const ENDPOINTS_MAX: usize = 16;

/// What can be told, as `webhooks.endpoints` names it.
pub const EVENTS: [&str; 4] = ["batch.checked", "batch.awaiting_approval", "batch.finished", "batch.stopped"];

/// `[webhooks]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Who is told.
    pub endpoints: Vec<EndpointConfig>,
    /// A command that is run for each event, by `sh -c`, with the event on its standard input.
    pub command: Option<String>,
    /// How long it may run, in seconds.
    pub command_seconds_max: f64,
    /// Where people reach `embosser serve`, for the link in each event.
    pub page_url: Option<String>,
    /// Bound on one delivery, from connecting to the answer, in seconds.
    pub timeout_seconds: f64,
    /// First wait before another try, in seconds; it doubles, with jitter.
    pub retry_seconds_min: f64,
    /// Longest wait before another try, in seconds.
    pub retry_seconds_max: f64,
    /// How long an event is tried for, in hours.
    pub retry_hours_max: f64,
}

/// One who is told.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Its address; `https://`, but for this machine's own.
    pub url: String,
    /// File that holds its signing secret, when `EMBOSSER_WEBHOOK_SECRET` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// What it is told; all of [`EVENTS`] if nothing is said.
    #[serde(default)]
    pub events: Vec<String>,
}

impl fmt::Debug for EndpointConfig {
    /// Without the address, in which a password may stand.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EndpointConfig").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            command: None,
            command_seconds_max: 60.0,
            page_url: None,
            timeout_seconds: 10.0,
            retry_seconds_min: 5.0,
            retry_seconds_max: 3600.0,
            retry_hours_max: 72.0,
        }
    }
}

impl WebhooksConfig {
    /// What is wrong with it: the option, and a sentence that follows its name.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let numbers = [
            ("webhooks.command_seconds_max", self.command_seconds_max, 3600.0),
            ("webhooks.timeout_seconds", self.timeout_seconds, 60.0),
            ("webhooks.retry_seconds_min", self.retry_seconds_min, 3600.0),
            ("webhooks.retry_seconds_max", self.retry_seconds_max, 86_400.0),
            ("webhooks.retry_hours_max", self.retry_hours_max, 720.0),
        ];
        for (key, value, max) in numbers {
            if !above_zero_up_to(value, max) {
                return Some((key, format!("must be above 0 and up to {}", grouped(max))));
            }
        }
        let is_web = |url: &url::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        let page = self.page_url.as_deref().map(url::Url::parse);
        if page.is_some_and(|page| {
            page.map_or(true, |url| !is_web(&url) || url.query().is_some() || url.fragment().is_some())
        }) {
            return Some(("webhooks.page_url", "is not an address such as https://cards.example.com".into()));
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return Some(("webhooks.endpoints", format!("has more than {ENDPOINTS_MAX} endpoints")));
        }
        let problems = self.endpoints.iter().enumerate().filter_map(|(at, endpoint)| {
            let reason = endpoint.problem()?;
            Some(("webhooks.endpoints", format!("endpoint {}: {reason}", at + 1)))
        });
        let twice = self.endpoints.iter().enumerate().find_map(|(at, endpoint)| {
            let is_there = self.endpoints[..at].iter().any(|before| before.url == endpoint.url);
            is_there.then(|| {
                ("webhooks.endpoints", format!("endpoint {} has the same url as one before it", at + 1))
            })
        });
        problems.chain(twice).next()
    }
}

impl EndpointConfig {
    fn problem(&self) -> Option<String> {
        let Ok(url) = url::Url::parse(&self.url) else {
            return Some("its url is not an address such as https://example.com/embosser".into());
        };
        match (url.scheme(), url.has_host()) {
            ("https", true) => {}
            ("http", true) if is_loopback(&url) => {}
            ("http", true) => {
                return Some(
                    "its url must begin with https://: what is told is no secret, but its signature must not be \
                             replayed, and whoever answers must be who is meant"
                        .into(),
                );
            }
            _ => return Some("its url must begin with https://".into()),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Some(
                "its url has a name or password in it; events are told by their signature instead".into(),
            );
        }
        let unknown = self.events.iter().find(|event| !EVENTS.contains(&event.as_str()));
        unknown.map(|event| format!("there is no event {event:?}; there are {}", EVENTS.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(url: &str, events: &[&str]) -> Option<String> {
        let events = events.iter().map(|&event| event.to_owned()).collect();
        let endpoint = EndpointConfig { url: url.into(), secret_file: None, events };
        let config = WebhooksConfig { endpoints: vec![endpoint], ..WebhooksConfig::default() };
        config.problem().map(|(_, reason)| reason)
    }

    #[test]
    fn an_endpoint_is_secure_or_this_machine() {
        for fine in
            ["https://example.com/a?b=c", "http://127.0.0.1:9/x", "http://[::1]/", "http://localhost/"]
        {
            assert_eq!(problem_of(fine, &["batch.finished"]), None, "{fine}");
        }
        for wrong in
            ["", "example.com", "http://example.com/", "ftp://example.com", "https://u:p@example.com"]
        {
            let problem = problem_of(wrong, &[]).unwrap();
            assert!(problem.starts_with("endpoint 1: its url"), "{problem}");
            assert!(!problem.contains("u:p"), "{problem}");
        }
        let problem = problem_of("https://example.com", &["batch.done"]).unwrap();
        assert!(problem.contains("\"batch.done\"") && problem.contains("batch.finished"), "{problem}");
    }
}
