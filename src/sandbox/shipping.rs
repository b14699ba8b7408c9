//! A physical card's way, moved on by Stripe's test helpers (docs.stripe.com/issuing/cards/physical/testing).

use serde_json::{Value, json};

use super::request::ApiRequest;
use super::response::Fault;

/// Between the card's id and what happens to it, in a test helper's address.
const HELPERS: &str = "/v1/test_helpers/issuing/cards/";

/// Days from a card's departure to its likely arrival.
const DAYS: u64 = 7;

/// What a test helper does with a card's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Submit,
    Ship,
    Deliver,
    Return,
    Fail,
}

impl Move {
    /// The card that a request moves, and what with it.
    pub(super) fn of(request: &ApiRequest) -> Option<(&str, Self)> {
        let (card, word) = request.path.strip_prefix(HELPERS)?.split_once("/shipping/")?;
        let moves = match word {
            "submit" => Self::Submit,
            "ship" => Self::Ship,
            "deliver" => Self::Deliver,
            "return" => Self::Return,
            "fail" => Self::Fail,
            _ => return None,
        };
        (request.method == "POST").then_some((card, moves))
    }

    /// From which status it moves, and to which.
    fn way(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Submit => (&["pending"], "submitted"),
            Self::Ship => (&["pending", "submitted"], "shipped"),
            Self::Deliver => (&["shipped"], "delivered"),
            Self::Return => (&["shipped", "delivered"], "returned"),
            Self::Fail => (&["pending", "submitted", "shipped"], "failure"),
        }
    }

    /// Moves a card's way on.
    pub(super) fn apply(self, card: &mut Value, unix_seconds: u64) -> Result<(), Fault> {
        let (from, to) = self.way();
        let id = card["id"].as_str().unwrap_or_default().to_owned();
        let shipping = &mut card["shipping"];
        if !shipping["status"].as_str().is_some_and(|status| from.contains(&status)) {
            let message = format!("The shipping status of this card cannot be set to {to}.");
            return Err(Fault::invalid(None, "card", message));
        }
        shipping["status"] = to.into();
        if self == Self::Ship {
            let number = format!("{:0>12}", id.trim_start_matches(|letter: char| !letter.is_ascii_digit()));
            shipping["carrier"] = "dhl".into();
            shipping["tracking_url"] = format!("https://tracking.example.com/{number}").into();
            shipping["tracking_number"] = number.into();
            shipping["eta"] = (unix_seconds + DAYS * 86_400).into();
        }
        Ok(())
    }
}

/// A physical card's way at its beginning: to the address that was asked for, or to the cardholder's.
pub(super) fn pending(request: &Value, cardholder: &Value) -> Value {
    let (to, name) = match request.is_null() {
        true => (&cardholder["billing"]["address"], &cardholder["name"]),
        false => (&request["address"], &request["name"]),
    };
    json!({
        "address": {
            "city": to["city"], "country": to["country"], "line1": to["line1"], "line2": to["line2"],
            "postal_code": to["postal_code"], "state": to["state"],
        },
        "address_validation": null, "carrier": null, "customs": request["customs"], "eta": null, "name": name,
        "phone_number": request["phone_number"], "require_signature": request["require_signature"],
        "service": request["service"].as_str().unwrap_or("standard"), "status": "pending", "tracking_number": null,
        "tracking_url": null, "type": request["type"].as_str().unwrap_or("individual"),
    })
}
