//! Personalization designs: there is one of every id, and what it is like is in its name.

use serde_json::{Value, json};

use super::response::Fault;

/// The list of all.
pub(super) const DESIGNS: &str = "/v1/issuing/personalization_designs";

/// The design of that id, expanded if that is asked for. One whose id speaks of `none` is missing; of `inactive`, `rejected` or
/// `review`, it stands so; of `plain` or `required`, its bundle has no second line or requires one.
pub(super) fn object(id: &str, is_expanded: bool, created: u64, livemode: bool) -> Result<Value, Fault> {
    if id.contains("none") {
        return Err(Fault::missing("personalization_design", "personalization_design", id));
    }
    let named =
        |words: &[&'static str], other| words.iter().copied().find(|word| id.contains(word)).unwrap_or(other);
    let status = named(&["inactive", "rejected", "review"], "active");
    let second_line = match named(&["plain", "required"], "optional") {
        "plain" => "unsupported",
        other => other,
    };
    let bundle = json!({
        "id": "ics_sandbox", "object": "issuing.physical_bundle", "livemode": livemode, "name": "Sandbox", "status": "active",
        "type": "custom",
        "features": {"card_logo": "optional", "carrier_text": "optional", "second_line": second_line},
    });
    Ok(json!({
        "id": id, "object": "issuing.personalization_design", "card_logo": null, "carrier_text": null, "created": created,
        "livemode": livemode, "lookup_key": null, "metadata": {}, "name": id,
        "physical_bundle": if is_expanded { bundle } else { "ics_sandbox".into() },
        "preferences": {"is_default": false, "is_platform_default": null},
        "rejection_reasons": {"card_logo": null, "carrier_text": null}, "status": status,
    }))
}
