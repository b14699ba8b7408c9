//! Cardholders. Every `ich_…` exists, unless a sandbox is told which do; others can be made.

use serde_json::{Value, json};

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
