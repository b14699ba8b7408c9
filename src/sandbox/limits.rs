//! Limiters as Stripe has them: strict windows of a second and numbers of calls at once, for each endpoint and for
//! the whole account. They stand before everything else, and what they turn away counts for nothing.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Options;

/// Stripe's window of rate limits.
const WINDOW: Duration = Duration::from_secs(1);

/// What was let through lately, and what is under way, by account or by account and endpoint.
#[derive(Default)]
pub(super) struct Limits {
    windows: HashMap<String, VecDeque<Instant>>,
    running: HashMap<String, usize>,
}

impl Limits {
    /// Lets a call through, or says why not. `endpoint` is method and path, the account's name before them.
    pub(super) fn ask(
        &mut self,
        options: &Options,
        account: &str,
        endpoint: &str,
        now: Instant,
    ) -> Result<(), &'static str> {
        let rates = [
            (endpoint, options.endpoint_per_second, "endpoint-rate"),
            (account, options.account_per_second, "global-rate"),
        ];
        let at_once = [
            (endpoint, options.endpoint_concurrency, "endpoint-concurrency"),
            (account, options.account_concurrency, "global-concurrency"),
        ];
        for (name, limit, reason) in at_once {
            let running = self.running.get(name).copied().unwrap_or(0);
            if limit.is_some_and(|limit| running >= limit) {
                return Err(reason);
            }
        }
        for (name, limit, reason) in rates {
            let Some(limit) = limit else { continue };
            let window = self.windows.entry(name.to_owned()).or_default();
            while window.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
                window.pop_front();
            }
            if window.len() >= limit {
                return Err(reason);
            }
        }
        for (name, limit, _) in rates {
            if limit.is_some() {
                self.windows.entry(name.to_owned()).or_default().push_back(now);
            }
        }
        Ok(())
    }

    pub(super) fn begins(&mut self, account: &str, endpoint: &str) {
        for name in [account, endpoint] {
            *self.running.entry(name.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn ends(&mut self, account: &str, endpoint: &str) {
        for name in [account, endpoint] {
            if let Some(running) = self.running.get_mut(name) {
                *running = running.saturating_sub(1);
            }
        }
    }
}
