//! Where a physical card is on its way to its cardholder, as Stripe tells it.

use serde::{Deserialize, Serialize};

use crate::clock::Time;

/// What cannot change any more: nobody is asked for it again.
const FINAL: [&str; 4] = ["canceled", "delivered", "failure", "returned"];

/// A card's `shipping` at Stripe, as far as it tells where the card is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Shipping {
    /// `pending`, `submitted`, `shipped`, `delivered`, `returned`, `failure` or `canceled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The carrier's number for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_number: Option<String>,
    /// The carrier's page about it: `https://`, or it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking_url: Option<String>,
    /// When it is likely to arrive, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<i64>,
}

impl Shipping {
    /// Without what is not fit to be shown: a link that leads to no web page, a text that is no line.
    #[must_use]
    pub fn fit_to_show(self) -> Self {
        /// Stripe's own bound.
        const CHARACTERS_MAX: usize = 5000;
        let line = |text: Option<String>| {
            text.filter(|text| text.len() <= CHARACTERS_MAX && !text.contains(char::is_control))
        };
        Self {
            status: line(self.status),
            tracking_number: line(self.tracking_number),
            tracking_url: line(self.tracking_url).filter(|url| url.starts_with("https://")),
            eta: self.eta,
        }
    }

    /// When it is likely to arrive, in UTC.
    #[must_use]
    pub fn eta_in_utc(&self) -> Option<String> {
        self.eta.map(|eta| Time::from_unix_ms(eta.saturating_mul(1000)).in_utc())
    }

    /// How far it has come: of two that were told in one second, the one that is further is the later.
    fn rank(&self) -> u8 {
        match self.status.as_deref() {
            None => 0,
            Some("pending") => 1,
            Some("submitted") => 2,
            Some("shipped") => 3,
            Some(_) => 4,
        }
    }
}

/// What is known of a card's way, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownShipping {
    /// None: the card is not shipped, as it is virtual.
    pub shipping: Option<Shipping>,
    /// When it was so, by Stripe's clock, in seconds since 1970.
    pub at: i64,
}

impl KnownShipping {
    /// Whether this is news beside what was known: nothing older takes the place of what is newer.
    #[must_use]
    pub fn is_newer_than(&self, known: &Self) -> bool {
        let rank = |known: &Self| known.shipping.as_ref().map_or(0, Shipping::rank);
        (self.at, rank(self)) > (known.at, rank(known))
    }

    /// Whether it stays as it is.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let status = self.shipping.as_ref().map(|shipping| shipping.status.as_deref().unwrap_or_default());
        status.is_none_or(|status| FINAL.contains(&status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(status: Option<&str>, at: i64) -> KnownShipping {
        let shipping = status.map(|status| Shipping { status: Some(status.into()), ..Shipping::default() });
        KnownShipping { shipping, at }
    }

    #[test]
    fn nothing_older_takes_the_place_of_what_is_newer() {
        assert!(known(Some("shipped"), 2).is_newer_than(&known(Some("pending"), 1)));
        assert!(!known(Some("pending"), 1).is_newer_than(&known(Some("shipped"), 2)));
        assert!(!known(Some("shipped"), 2).is_newer_than(&known(Some("shipped"), 2)), "a replay is no news");
        assert!(known(Some("delivered"), 2).is_newer_than(&known(Some("shipped"), 2)));
        assert!(!known(Some("pending"), 2).is_newer_than(&known(Some("shipped"), 2)));
        assert!(known(None, 1).is_final() && known(Some("returned"), 1).is_final());
        assert!(!known(Some("shipped"), 1).is_final());
    }

    #[test]
    fn what_is_shown_is_a_line_and_a_link_to_the_web() {
        let shown = |url: &str, number: &str| {
            let shipping = Shipping {
                tracking_url: Some(url.into()),
                tracking_number: Some(number.into()),
                ..Shipping::default()
            };
            let Shipping { tracking_url, tracking_number, .. } = shipping.fit_to_show();
            (tracking_url.is_some(), tracking_number.is_some())
        };
        assert_eq!(shown("https://dhl.example/1", "1Z"), (true, true));
        assert_eq!(shown("javascript:alert(1)", "1\n2"), (false, false));
    }
}
