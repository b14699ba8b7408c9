//! What each value may be. An error says the whole range, so that nobody tries twice.

use super::accounts::is_prefix;
use super::misplaced::{NO_FILE, is_secret};
use super::{Config, ConfigError};

/// Calls a second that can be asked for: far more than Stripe or one machine has.
pub const PER_SECOND_MAX: f64 = 100_000.0;

impl Config {
    /// Holds every value against its range.
    ///
    /// # Errors
    /// Names the first option that is out of its range.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let positive = [
            ("pace.endpoint_per_second", self.pace.endpoint_per_second, PER_SECOND_MAX),
            ("pace.account_per_second", self.pace.account_per_second, PER_SECOND_MAX),
            (
                "accounts.platform_per_second",
                self.accounts.platform_per_second.unwrap_or(PER_SECOND_MAX),
                PER_SECOND_MAX,
            ),
            ("stripe.connect_timeout_seconds", self.stripe.connect_timeout_seconds, 3600.0),
            ("stripe.total_timeout_seconds", self.stripe.total_timeout_seconds, 3600.0),
            ("retry.elapsed_seconds_max", self.retry.elapsed_seconds_max, 82_800.0),
            ("retry.backoff_seconds_min", self.retry.backoff_seconds_min, 3600.0),
            ("retry.backoff_seconds_max", self.retry.backoff_seconds_max, 3600.0),
            ("worker.drain_seconds", self.worker.drain_seconds, 3600.0),
            // Below RabbitMQ's consumer timeout, too: what is in hand waits meanwhile.
            ("ledger.patience_seconds", self.ledger.patience_seconds, 1500.0),
            // Both below RabbitMQ's consumer timeout, 30 minutes, after which it takes its deliveries back.
            ("worker.job_seconds_max", self.worker.job_seconds_max, 900.0),
            ("worker.held_seconds_max", self.worker.held_seconds_max, 900.0),
            ("worker.watchdog_seconds", self.worker.watchdog_seconds, 3600.0),
            // Below the 23 hours for which Stripe's idempotency keys are trusted.
            ("pin.max_age_seconds", self.pin.max_age_seconds, 82_799.0),
            // PINs are held for as long: rather uploaded anew than kept over a weekend and a holiday.
            ("approval.hours", self.approval.hours, 72.0),
            ("http.header_seconds_max", self.http.header_seconds_max, 3600.0),
            ("http.idle_seconds_max", self.http.idle_seconds_max, 3600.0),
        ];
        for (key, value, max) in positive {
            if !above_zero_up_to(value, max) {
                let reason = format!("must be above 0 and up to {}", grouped(max));
                return Err(ConfigError::Value { key, value: value.to_string(), reason });
            }
        }
        for (key, value) in [
            ("stripe.call_seconds_max", self.stripe.call_seconds_max),
            ("stripe.list_lag_seconds", self.stripe.list_lag_seconds),
        ] {
            // What is not a number is in no range.
            if !(0.1..=3600.0).contains(&value) {
                let reason = "must be from 0.1 to 3,600".into();
                return Err(ConfigError::Value { key, value: value.to_string(), reason });
            }
        }
        let whole = [
            ("stripe.same_refusals_max", self.stripe.same_refusals_max.into(), 10_000),
            ("retry.attempts_max", self.retry.attempts_max.into(), u64::from(u32::MAX)),
            ("http.upload_mib_max", self.http.upload_mib_max, 65_536),
            ("http.rows_max", self.http.rows_max, 100_000_000),
            ("http.held_mib_max", self.http.held_mib_max, 65_536),
            // Each upload is checked on a thread of its own, of which there are 512.
            ("http.uploads_max", self.http.uploads_max as u64, 384),
            ("rabbitmq.jobs_max", self.rabbitmq.jobs_max.into(), 100_000_000),
            ("worker.message_kib_max", self.worker.message_kib_max, 16_384),
            // Each has some fifty series.
            ("metrics.accounts_max", self.metrics.accounts_max as u64, 1000),
        ];
        for (key, value, max) in whole {
            if value == 0 || value > max {
                #[expect(clippy::cast_precision_loss, reason = "each is far below 2^53")]
                let reason = format!("must be from 1 to {}", grouped(max as f64));
                return Err(ConfigError::Value { key, value: value.to_string(), reason });
            }
        }
        if let Some((option, reason)) = self.pin_page.problem() {
            let key = match option {
                "url" => "pin_page.url",
                "stripe_js" => "pin_page.stripe_js",
                "link_days" => "pin_page.link_days",
                "client_address_header" => "pin_page.client_address_header",
                _ => "pin_page.refused",
            };
            return Err(ConfigError::Value { key, value: "(not shown)".into(), reason });
        }
        if let Some((key, reason)) = self.webhooks.problem() {
            return Err(ConfigError::Value { key, value: "(not shown)".into(), reason });
        }
        self.checked_names()?;
        self.checked_files()?;
        Ok(self)
    }

    /// Where the name of a secret's file is asked for, the secret itself may stand.
    fn checked_files(&self) -> Result<(), ConfigError> {
        let named = [
            ("stripe.api_key_file", &self.stripe.api_key_file),
            ("http.tokens_file", &self.http.tokens_file),
            ("rabbitmq.url_file", &self.rabbitmq.url_file),
            ("stripe_events.secret_file", &self.stripe_events.secret_file),
        ];
        let of_endpoints =
            self.webhooks.endpoints.iter().map(|endpoint| ("webhooks: secret_file", &endpoint.secret_file));
        for (key, file) in named.into_iter().chain(of_endpoints) {
            if file.as_deref().is_some_and(is_secret) {
                return Err(ConfigError::Value { key, value: "(not shown)".into(), reason: NO_FILE.into() });
            }
        }
        Ok(())
    }

    fn checked_names(&self) -> Result<(), ConfigError> {
        let prefix = &self.rabbitmq.prefix;
        if !is_prefix(prefix) {
            let reason = "must be 1 to 64 letters, digits, and . _ -".into();
            return Err(ConfigError::Value { key: "rabbitmq.prefix", value: prefix.clone(), reason });
        }
        if self.stripe.account_id.as_deref().is_some_and(|id| !is_account_id(id)) {
            // It may be a key that was put in the wrong place.
            let (key, value) = ("stripe.account_id", "(not shown)".into());
            let reason = "must be an account's id, like acct_1Abc".into();
            return Err(ConfigError::Value { key, value, reason });
        }
        if let Some(name) = self.stripe.account_name.as_deref().filter(|name| !is_name_for_people(name)) {
            let (key, value, reason) = ("stripe.account_name", format!("{name:?}"), NAME_FOR_PEOPLE.into());
            return Err(ConfigError::Value { key, value, reason });
        }
        Ok(())
    }
}

/// Longest name for people, in characters.
const NAME_CHARACTERS_MAX: usize = 60;
/// What such a name is.
pub(super) const NAME_FOR_PEOPLE: &str =
    "must be 1 to 60 characters on one line, without any that turn the text round";

/// Whether people can read it as the name of something.
pub(super) fn is_name_for_people(name: &str) -> bool {
    let is_unreadable = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    !name.trim().is_empty() && name.chars().count() <= NAME_CHARACTERS_MAX && !name.chars().any(is_unreadable)
}

/// Whether a number is in such a range; what is not a number is not.
#[must_use]
pub fn above_zero_up_to(value: f64, max: f64) -> bool {
    value > 0.0 && value <= max
}

/// A whole number as people write it: 100,000.
#[must_use]
pub fn grouped(number: impl std::fmt::Display) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whether this can be an account's id.
#[must_use]
pub fn is_account_id(text: &str) -> bool {
    /// Longer than any of Stripe's ids.
    const BYTES_MAX: usize = 64;
    text.len() <= BYTES_MAX
        && text.strip_prefix("acct_").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let written = [1.0, 384.0, 3600.0, 82_799.0, 100_000.0, 100_000_000.0].map(grouped);
        assert_eq!(written, ["1", "384", "3,600", "82,799", "100,000", "100,000,000"]);
    }
}
