//! Cardholders. Every `ich_…` exists, unless a sandbox is told which do; others can be made, and are found again then.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::cards::Making;
use super::list;
use super::request::CARDHOLDERS;
use super::response::Fault;
use crate::operation::Request;

/// Those that were made, of every account.
#[derive(Default)]
pub(super) struct Cardholders {
    objects: Vec<Value>,
    accounts: Vec<String>,
    /// When each was made, by the sandbox's clock: lists show it a while after that.
    made_at: Vec<Duration>,
    by_id: HashMap<(String, String), usize>,
}

impl Cardholders {
    /// Makes one; answers its object.
    pub(super) fn make(&mut self, wanted: &Request, making: Making<'_>) -> &Value {
        let index = self.objects.len();
        let id = format!("ich_sandbox{:08}", index + 1);
        let request = wanted.to_json();
        let mut object = object(&id, making.created, making.livemode);
        object["metadata"] = Value::Object(making.metadata);
        for name in ["name", "email", "phone_number", "preferred_locales", "status", "type"] {
            if let Some(given) = request.get(name) {
                object[name] = given.clone();
            }
        }
        let address = &request["billing"]["address"];
        for name in ["city", "country", "line1", "line2", "postal_code", "state"] {
            object["billing"]["address"][name] = address[name].clone();
        }
        if let Some(person) = request.get("individual") {
            object["individual"] = json!({
                "card_issuing": null, "dob": person["dob"], "first_name": person["first_name"],
                "last_name": person["last_name"], "verification": null,
            });
        }
        let needed = needed(&request);
        if !needed.is_empty() {
            object["requirements"] = json!({"disabled_reason": "requirements.past_due", "past_due": needed});
        }
        if request["company"]["tax_id"].is_string() {
            object["company"] = json!({"tax_id_provided": true});
        }
        self.objects.push(object);
        self.accounts.push(making.account.to_owned());
        self.made_at.push(making.made_at);
        self.by_id.insert((making.account.to_owned(), id), index);
        &self.objects[index]
    }

    /// One that was made.
    pub(super) fn find(&self, account: &str, id: &str) -> Option<&Value> {
        self.by_id.get(&(account.to_owned(), id.to_owned())).map(|index| &self.objects[*index])
    }

    /// A page of those that were made by then; none if no time is that early.
    pub(super) fn list(
        &self,
        account: &str,
        query: &[(String, String)],
        made_by: Option<Duration>,
    ) -> Result<Value, Fault> {
        let newest_first = (0..self.objects.len())
            .rev()
            .filter(|index| self.accounts[*index] == account)
            .filter(|index| made_by.is_some_and(|made_by| self.made_at[*index] <= made_by))
            .map(|index| (index, &self.objects[index]));
        let place_of = |id: &str| {
            let place = self.by_id.get(&(account.to_owned(), id.to_owned())).copied();
            place.ok_or_else(|| Fault::missing("issuing cardholder", "cardholder", id))
        };
        list::list(CARDHOLDERS, newest_first, query, place_of)
    }
}

/// What Stripe needs to know of a person before a card of theirs can be active, and was not told.
fn needed(request: &Value) -> Vec<&'static str> {
    if request["type"] == "company" {
        return Vec::new();
    }
    let person = &request["individual"];
    [
        ("individual.dob.day", &person["dob"]["day"]),
        ("individual.dob.month", &person["dob"]["month"]),
        ("individual.dob.year", &person["dob"]["year"]),
        ("individual.first_name", &person["first_name"]),
        ("individual.last_name", &person["last_name"]),
    ]
    .into_iter()
    .filter(|(_, given)| given.is_null())
    .map(|(name, _)| name)
    .collect()
}

/// A cardholder's object.
pub(super) fn object(id: &str, created: u64, livemode: bool) -> Value {
    json!({
        "id": id, "object": "issuing.cardholder",
        "billing": {"address": {"city": "Dublin", "country": "IE", "line1": "1 High Street", "line2": null,
            "postal_code": "D02 X285", "state": null}},
        "company": null, "created": created, "email": null, "individual": null, "livemode": livemode,
        "metadata": {}, "name": "A Cardholder", "phone_number": null, "preferred_locales": null,
        "requirements": {"disabled_reason": null, "past_due": []}, "spending_controls": null,
        "status": "active", "type": "individual",
    })
}
