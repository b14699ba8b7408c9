//! Somebody stands at a terminal or an ATM and enters a PIN: `POST /_sandbox/cards/{card}/enter_pin` and `…/atm`.

use serde_json::{Value, json};

use super::World;
use crate::sandbox::pins::{Entry, Verification, atms_manage_pins, is_pin};

/// Where cards are used whose cardholder has no address.
const COUNTRY: &str = "US";

/// What is done at a terminal or an ATM.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    pin: String,
    /// For a payment or a withdrawal; it makes no difference to the PIN.
    #[serde(rename = "where", default)]
    _place: Place,
    /// At an ATM, what is asked for besides money.
    action: Option<Action>,
    new_pin: Option<String>,
    /// Where this is; none: in the cardholder's country.
    country: Option<String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    #[default]
    Terminal,
    Atm,
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Change,
    Unblock,
}

impl World {
    /// What came of it.
    pub(in crate::sandbox) fn at_terminal(&mut self, path: &str, body: &[u8]) -> Result<Value, String> {
        let Some((id, what)) = path.strip_prefix("/_sandbox/cards/").and_then(|rest| rest.split_once('/'))
        else {
            return Err("POST /_sandbox/cards/{card}/enter_pin or /_sandbox/cards/{card}/atm".into());
        };
        let order: Order = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let action = match (what, order.action, &order.new_pin) {
            ("enter_pin", None, None) => None,
            ("atm", Some(Action::Change), Some(new)) if is_pin(new) => order.action,
            ("atm", Some(Action::Unblock), None) => order.action,
            ("enter_pin", ..) => return Err("enter_pin takes pin, where and country".into()),
            ("atm", ..) => {
                return Err(
                    "atm takes action change, pin and new_pin (four digits), or action unblock and pin"
                        .into(),
                );
            }
            _ => return Err(format!("there is no {what}; there are enter_pin, atm")),
        };
        let card = self.cards.of_any_account(id).ok_or_else(|| format!("there is no card {id}"))?;
        let home = card["cardholder"]["billing"]["address"]["country"].as_str().unwrap_or(COUNTRY);
        let country = order.country.as_deref().unwrap_or(home).to_owned();
        // A virtual card is in a wallet: there is no chip that could verify.
        let verification = match card["type"].as_str() {
            Some("physical") => Verification::in_country(&country),
            _ => Verification::Online,
        };
        let status = card["status"].as_str().unwrap_or_default();
        if action.is_some() && !atms_manage_pins(&country) {
            return Ok(entry_result("not_offered", None, verification, status));
        }
        // A card that the issuer blocked is inactive as well; that its PIN is blocked says more.
        if status == "canceled" || status == "inactive" && !self.pins.blocked_at_issuer(id) {
            return Ok(entry_result(status, None, verification, status));
        }
        let entry = match action {
            None => self.pins.enter(id, verification, &order.pin),
            Some(Action::Unblock) => self.pins.unblock_at_atm(id, &order.pin),
            Some(Action::Change) => {
                let new = order.new_pin.unwrap_or_default();
                let entry = self.pins.change_at_atm(id, verification, &order.pin, &new);
                if entry == Entry::Accepted {
                    self.account.pin_is(id, &new);
                }
                entry
            }
        };
        if self.pins.blocked_at_issuer(id) {
            self.cards.deactivate(id);
        }
        let status =
            self.cards.of_any_account(id).and_then(|card| card["status"].as_str()).unwrap_or_default();
        Ok(match entry {
            Entry::Accepted => entry_result("accepted", None, verification, status),
            Entry::Wrong { tries_left } => entry_result("wrong", Some(tries_left), verification, status),
            Entry::Blocked => entry_result("blocked", Some(0), verification, status),
        })
    }
}

fn entry_result(result: &str, tries_left: Option<u8>, verification: Verification, status: &str) -> Value {
    json!({"result": result, "tries_left": tries_left, "verification": verification, "card_status": status})
}
