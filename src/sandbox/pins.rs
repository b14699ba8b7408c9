//! Cards' PINs where they are entered (docs.stripe.com/issuing/cards/pin-management).
//!
//! A card's PIN is in two places: at the issuer, which terminals of some countries ask (online), and in the chip, which those of
//! others ask (offline). The API changes it at the issuer, an ATM in both. Each place counts wrong entries of its own and
//! blocks its PIN at the third in a row.

use std::collections::HashMap;

use rand::Rng as _;

/// Wrong entries in a row that block a PIN.
const TRIES: u8 = 3;
/// The PIN of every card in test mode, until one is set.
const IN_TEST_MODE: &str = "0000";

/// Every card's PIN. A card that was never asked about has the one of test mode.
#[derive(Default)]
pub(super) struct Pins(HashMap<String, CardPin>);

/// One card's PIN.
struct CardPin {
    issuer: Held,
    chip: Held,
}

/// A PIN in one of its places.
#[derive(Clone)]
struct Held {
    pin: String,
    wrong: u8,
}

/// Who verifies a PIN that is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verification {
    /// The issuer.
    Online,
    /// The card's chip.
    Offline,
}

/// What came of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Accepted,
    Wrong { tries_left: u8 },
    Blocked,
}

impl Verification {
    /// How terminals of a country verify. Stripe names these as generally offline; those that it names as online, and those it
    /// does not name, are online here.
    pub(super) fn in_country(country: &str) -> Self {
        match country {
            "AE" | "FR" | "GB" | "IE" | "MX" => Self::Offline,
            _ => Self::Online,
        }
    }
}

/// Whether a country's ATMs change and unblock PINs. Stripe names France as one whose ATMs do neither.
pub(super) fn atms_manage_pins(country: &str) -> bool {
    country != "FR"
}

/// Whether this can be a PIN here.
pub(super) fn is_pin(text: &str) -> bool {
    text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Pins {
    /// A card was made, with this PIN if one was given: issuer and chip have the same. A replacement has a PIN of its own.
    pub(super) fn made(&mut self, card: &str, given: Option<&str>, livemode: bool) {
        let pin = match given {
            Some(pin) => pin.to_owned(),
            // Stripe draws one. It is not from the seeded dice, whose draws are the faults'.
            None if livemode => format!("{:04}", rand::rng().random_range(0..10_000)),
            None => return,
        };
        self.0.insert(card.to_owned(), CardPin::new(&pin));
    }

    /// The PIN at the issuer: what the API set last, and what Issuing Elements show.
    pub(super) fn at_issuer(&self, card: &str) -> &str {
        self.0.get(card).map_or(IN_TEST_MODE, |card| &card.issuer.pin)
    }

    /// The API sets a PIN, be it the same: the chip's is unblocked, and becomes this one after an entry of the old one.
    pub(super) fn set(&mut self, card: &str, pin: &str) {
        let card = self.of(card);
        pin.clone_into(&mut card.issuer.pin);
        card.chip.wrong = 0;
    }

    /// The card was set active: a PIN that was blocked at the issuer is unblocked.
    pub(super) fn activated(&mut self, card: &str) {
        if let Some(card) = self.0.get_mut(card).filter(|card| card.issuer.is_blocked()) {
            card.issuer.wrong = 0;
        }
    }

    /// Whether the issuer's PIN is blocked, which makes the card inactive.
    pub(super) fn blocked_at_issuer(&self, card: &str) -> bool {
        self.0.get(card).is_some_and(|card| card.issuer.is_blocked())
    }

    /// Somebody enters a PIN to pay or to take money.
    pub(super) fn enter(&mut self, card: &str, verification: Verification, pin: &str) -> Entry {
        let card = self.of(card);
        match verification {
            Verification::Online => card.issuer.enter(pin),
            Verification::Offline => {
                let entry = card.chip.enter(pin);
                if entry == Entry::Accepted {
                    // After a verification that succeeded the chip is told the PIN that the issuer has.
                    card.chip.pin.clone_from(&card.issuer.pin);
                }
                entry
            }
        }
    }

    /// Somebody changes the PIN at an ATM, knowing the present one: it is changed in both places at once.
    pub(super) fn change_at_atm(
        &mut self,
        card: &str,
        verification: Verification,
        pin: &str,
        new: &str,
    ) -> Entry {
        let entry = self.enter(card, verification, pin);
        if entry == Entry::Accepted {
            *self.of(card) = CardPin::new(new);
        }
        entry
    }

    /// Somebody unblocks the chip's PIN at an ATM: the issuer verifies the PIN, and the chip is told it.
    pub(super) fn unblock_at_atm(&mut self, card: &str, pin: &str) -> Entry {
        let card = self.of(card);
        let entry = card.issuer.enter(pin);
        if entry == Entry::Accepted {
            card.chip = card.issuer.clone();
        }
        entry
    }

    fn of(&mut self, card: &str) -> &mut CardPin {
        self.0.entry(card.to_owned()).or_insert_with(|| CardPin::new(IN_TEST_MODE))
    }
}

impl CardPin {
    fn new(pin: &str) -> Self {
        let held = Held { pin: pin.to_owned(), wrong: 0 };
        Self { issuer: held.clone(), chip: held }
    }
}

impl Held {
    fn is_blocked(&self) -> bool {
        self.wrong >= TRIES
    }

    fn enter(&mut self, pin: &str) -> Entry {
        if self.is_blocked() {
            return Entry::Blocked;
        }
        if pin == self.pin {
            self.wrong = 0;
            return Entry::Accepted;
        }
        self.wrong += 1;
        if self.is_blocked() { Entry::Blocked } else { Entry::Wrong { tries_left: TRIES - self.wrong } }
    }
}
