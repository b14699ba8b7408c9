//! The cards that were made, as Stripe's objects, and how they are found and changed.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::lifecycle::{keeps_number, may_change, may_replace};
use super::list;
use super::request::CARDS;
use super::response::Fault;
use super::shipping::{self, Move};
use crate::operation::Request;

/// Every account's cards.
#[derive(Default)]
pub(super) struct Cards {
    cards: Vec<Value>,
    /// When each was made, by the sandbox's clock: lists show it a while after that.
    made_at: Vec<Duration>,
    by_id: HashMap<String, usize>,
    accounts: Vec<String>,
    by_account: HashMap<String, Vec<usize>>,
    by_cardholder: HashMap<(String, String), Vec<usize>>,
}

/// What of a card is not in the request.
pub(super) struct Making<'a> {
    pub(super) account: &'a str,
    pub(super) created: u64,
    pub(super) made_at: Duration,
    pub(super) livemode: bool,
    pub(super) metadata: Map<String, Value>,
}

impl Cards {
    /// Makes a card of a request; answers its object.
    pub(super) fn make(&mut self, card: &Request, cardholder: Option<&Value>, making: Making<'_>) -> &Value {
        let request = card.to_json();
        let id = format!("ic_sandbox{:08}", self.cards.len() + 1);
        let whose = card.cardholder.clone().unwrap_or_else(|| "ich_sandbox_nobody".into());
        let cardholder = cardholder
            .cloned()
            .unwrap_or_else(|| super::cardholders::object(&whose, making.created, making.livemode));
        let replaced = request["replacement_for"].as_str().and_then(|old| self.by_id.get(old).copied());
        let number = replaced.filter(|_| keeps_number(&request["replacement_reason"]));
        let last4 = number.map(|old| self.cards[old]["last4"].clone());
        let is_shipped = request["type"] == "physical" || !request["shipping"].is_null();
        let shipping =
            if is_shipped { shipping::pending(&request["shipping"], &cardholder) } else { Value::Null };
        let mut card = json!({
            "id": id, "object": "issuing.card", "brand": "Visa", "cancellation_reason": null,
            "cardholder": cardholder,
            "created": making.created, "currency": request["currency"],
            "exp_month": request["exp_month"].as_u64().unwrap_or(8),
            "exp_year": request["exp_year"].as_u64().unwrap_or(2030),
            "last4": last4.unwrap_or_else(|| format!("{:04}", (self.cards.len() + 1) % 10_000).into()),
            "latest_fraud_warning": null, "lifecycle_controls": lifecycle(&request),
            "livemode": making.livemode, "metadata": making.metadata, "replaced_by": null,
            "replacement_for": request["replacement_for"], "replacement_reason": request["replacement_reason"],
            "second_line": request["second_line"], "shipping": shipping,
            "spending_controls": controls(&request["spending_controls"], &request["currency"]),
            "status": request["status"].as_str().unwrap_or("inactive"), "type": request["type"], "wallets": wallets(),
        });
        for name in ["financial_account", "personalization_design"] {
            if let Some(given) = request.get(name).filter(|given| !given.is_null()) {
                card[name] = given.clone();
            }
        }
        if let Some(old) = replaced {
            self.cards[old]["replaced_by"] = id.as_str().into();
        }
        let index = self.cards.len();
        self.cards.push(card);
        self.made_at.push(making.made_at);
        let account = making.account.to_owned();
        self.by_id.insert(id, index);
        self.accounts.push(account.clone());
        self.by_account.entry(account.clone()).or_default().push(index);
        self.by_cardholder.entry((account, whose)).or_default().push(index);
        self.cancel_replaced_by(index);
        &self.cards[index]
    }

    /// A card that is active cancels the one whose number it has.
    fn cancel_replaced_by(&mut self, index: usize) {
        let card = &self.cards[index];
        if card["status"] == "active" && keeps_number(&card["replacement_reason"]) {
            let old = card["replacement_for"].as_str().and_then(|old| self.by_id.get(old));
            if let Some(old) = old.copied() {
                self.cards[old]["status"] = "canceled".into();
            }
        }
    }

    /// Whether this request may be made a card: whether the one that it replaces may be replaced so.
    pub(super) fn may_make(&self, account: &str, wanted: &Request) -> Result<(), Fault> {
        let wanted = wanted.to_json();
        match wanted["replacement_for"].as_str() {
            Some(old) => {
                let index = self.index(account, old);
                let index = index.map_err(|_| Fault::missing("issuing card", "replacement_for", old))?;
                may_replace(&self.cards[index], &wanted)
            }
            None if wanted["replacement_reason"].is_null() => Ok(()),
            None => {
                let message = "Missing required param: replacement_for.";
                Err(Fault::invalid(Some("parameter_missing"), "replacement_for", message))
            }
        }
    }

    /// A card of whatever account.
    pub(super) fn of_any_account(&self, id: &str) -> Option<&Value> {
        self.by_id.get(id).map(|index| &self.cards[*index])
    }

    /// Makes a card inactive, as its issuer does.
    pub(super) fn deactivate(&mut self, id: &str) {
        if let Some(index) = self.by_id.get(id) {
            self.cards[*index]["status"] = "inactive".into();
        }
    }

    /// One card.
    pub(super) fn find(&self, account: &str, id: &str) -> Result<&Value, Fault> {
        self.index(account, id).map(|index| &self.cards[index])
    }

    fn index(&self, account: &str, id: &str) -> Result<usize, Fault> {
        let index = self.by_id.get(id).copied().filter(|index| self.accounts[*index] == account);
        index.ok_or_else(|| Fault::missing("issuing card", "card", id))
    }

    /// What a card would be after this change.
    pub(super) fn changed(
        &self,
        account: &str,
        id: &str,
        pairs: &[(String, String)],
    ) -> Result<Value, Fault> {
        let mut card = self.find(account, id)?.clone();
        may_change(&card, pairs)?;
        for (path, value) in pairs {
            change(&mut card, path, value)?;
        }
        Ok(card)
    }

    /// Changes a card, in all that is asked for or in nothing.
    pub(super) fn update(
        &mut self,
        account: &str,
        id: &str,
        pairs: &[(String, String)],
    ) -> Result<&Value, Fault> {
        let changed = self.changed(account, id, pairs)?;
        let index = self.index(account, id)?;
        self.cards[index] = changed;
        self.cancel_replaced_by(index);
        Ok(&self.cards[index])
    }

    /// Moves a physical card's way on, as a test helper does.
    pub(super) fn ship(
        &mut self,
        account: &str,
        id: &str,
        moves: Move,
        unix_seconds: u64,
    ) -> Result<&Value, Fault> {
        let index = self.index(account, id)?;
        moves.apply(&mut self.cards[index], unix_seconds)?;
        Ok(&self.cards[index])
    }

    /// A page of cards, the newest first, of those that were made by then; none if no time is that early.
    pub(super) fn list(
        &self,
        account: &str,
        query: &[(String, String)],
        made_by: Option<Duration>,
    ) -> Result<Value, Fault> {
        let given = |name: &str| query.iter().find(|(path, _)| path == name).map(|(_, value)| value.as_str());
        let indices = match given("cardholder") {
            Some(cardholder) => self.by_cardholder.get(&(account.to_owned(), cardholder.to_owned())),
            None => self.by_account.get(account),
        };
        let newest_first = indices
            .into_iter()
            .flatten()
            .rev()
            .copied()
            .filter(|index| made_by.is_some_and(|made_by| self.made_at[*index] <= made_by))
            .map(|index| (index, &self.cards[index]));
        list::list(CARDS, newest_first, query, |id| self.index(account, id))
    }
}

fn change(card: &mut Value, path: &str, value: &str) -> Result<(), Fault> {
    let metadata = path.strip_prefix("metadata[").and_then(|key| key.strip_suffix(']'));
    match (path, metadata) {
        ("status", _) if ["active", "inactive", "canceled"].contains(&value) => card["status"] = value.into(),
        ("cancellation_reason", _) if ["lost", "stolen"].contains(&value) => {
            card["cancellation_reason"] = value.into();
        }
        ("status" | "cancellation_reason", _) => {
            return Err(Fault::invalid(None, path, format!("Invalid {path}: {value}")));
        }
        ("personalization_design", _) => card[path] = value.into(),
        // The PIN was checked and set before; limits and shipping are only looked at, not kept.
        ("pin[encrypted_number]", _) => {}
        (_, Some(key)) => {
            if let Some(entries) = card["metadata"].as_object_mut() {
                // An empty value takes the entry away.
                if value.is_empty() {
                    entries.remove(key);
                } else {
                    entries.insert(key.to_owned(), value.into());
                }
            }
        }
        _ if path.starts_with("spending_controls[")
            || path.starts_with("shipping[")
            || path.starts_with("expand[") => {}
        _ => {
            let message = format!("Received unknown parameter: {path}");
            return Err(Fault::invalid(Some("parameter_unknown"), path, message));
        }
    }
    Ok(())
}

fn lifecycle(request: &Value) -> Value {
    let count = &request["lifecycle_controls"]["cancel_after"]["payment_count"];
    if count.is_null() { Value::Null } else { json!({"cancel_after": {"payment_count": count}}) }
}

fn controls(request: &Value, currency: &Value) -> Value {
    let list = |name: &str| request.get(name).cloned().unwrap_or(Value::Null);
    let limits: Vec<Value> = request["spending_limits"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|limit| {
            json!({"amount": limit["amount"], "interval": limit["interval"],
                "categories": limit.get("categories").cloned().unwrap_or_else(|| json!([]))})
        })
        .collect();
    json!({
        "allowed_card_presences": list("allowed_card_presences"), "allowed_categories": list("allowed_categories"),
        "allowed_merchant_countries": list("allowed_merchant_countries"),
        "blocked_card_presences": list("blocked_card_presences"), "blocked_categories": list("blocked_categories"),
        "blocked_merchant_countries": list("blocked_merchant_countries"), "spending_limits": limits,
        "spending_limits_currency": currency,
    })
}

fn wallets() -> Value {
    let wallet = json!({"eligible": true, "ineligible_reason": null});
    json!({"apple_pay": wallet, "google_pay": wallet, "primary_account_identifier": null})
}
