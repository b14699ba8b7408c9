//! `[pin_page]`: the pages on which cardholders choose a PIN or look at theirs.

use serde::{Deserialize, Serialize};

/// `[pin_page]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PinPageConfig {
    /// Where cardholders reach `embosser serve`; none: there are no links.
    pub url: Option<String>,
    /// How long a link can be used, in days.
    pub link_days: u32,
    /// Whether a job of the queue whose link was spent for nothing, or has expired, gets another by itself.
    pub new_links: bool,
    /// Whether four times the same digit can be a PIN.
    pub repeated: bool,
    /// Whether digits in a row, up or down, can be.
    pub ascending: bool,
    /// Whether the cardholder's year of birth can be.
    pub birth_year: bool,
    /// PINs that nobody is to choose, with commas between them.
    pub refused: String,
    /// The header in which a proxy tells who asks; none: whoever connects does.
    pub client_address_header: Option<String>,
    /// Stripe's publishable key, with which a page shows a PIN; none: PINs are not shown.
    pub publishable_key: Option<String>,
    /// Stripe's script for that.
    pub stripe_js: String,
}

impl Default for PinPageConfig {
    fn default() -> Self {
        Self {
            url: None,
            link_days: 7,
            new_links: false,
            repeated: false,
            ascending: false,
            birth_year: false,
            refused: String::new(),
            client_address_header: None,
            publishable_key: None,
            stripe_js: "https://js.stripe.com/dahlia/stripe.js".into(),
        }
    }
}

impl PinPageConfig {
    /// What is wrong with it: the option, and a sentence that follows its name.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        let is_address = |text: &str| {
            url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        };
        if self.url.as_deref().is_some_and(|url| !is_address(url) || url.contains(['#', '?'])) {
            return Some(("url", "is not an address such as https://pins.example.com".into()));
        }
        if !is_address(&self.stripe_js) {
            return Some(("stripe_js", "is not an address".into()));
        }
        if !(1..=90).contains(&self.link_days) {
            return Some(("link_days", "is from 1 to 90".into()));
        }
        let is_header = |name: &str| http::HeaderName::try_from(name).is_ok();
        if self.client_address_header.as_deref().is_some_and(|name| !is_header(name)) {
            return Some(("client_address_header", "is not a header's name, such as X-Forwarded-For".into()));
        }
        let is_pin = |pin: &str| pin.len() == 4 && pin.bytes().all(|byte| byte.is_ascii_digit());
        if !self.refused_pins().all(is_pin) {
            return Some(("refused", "is four digits, and more with commas between them".into()));
        }
        None
    }

    /// PINs that nobody is to choose.
    pub fn refused_pins(&self) -> impl Iterator<Item = &str> {
        self.refused.split(',').map(str::trim).filter(|pin| !pin.is_empty())
    }
}
