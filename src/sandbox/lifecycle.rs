//! What a card's status allows, and which cards replace which (docs.stripe.com/issuing/cards/replacements).

use serde_json::Value;

use super::response::Fault;

/// What of a card that is canceled cannot be changed.
const FINAL: [&str; 2] = ["status", crate::operation::PIN];

/// Whether a card's status allows this change. Canceling is final.
pub(super) fn may_change(card: &Value, pairs: &[(String, String)]) -> Result<(), Fault> {
    let refused = pairs.iter().find(|(path, _)| FINAL.contains(&path.as_str()));
    match refused {
        Some((path, _)) if card["status"] == "canceled" => {
            let what = if path == "status" { "status" } else { "PIN" };
            Err(Fault::invalid(None, path, format!("The {what} of a canceled card cannot be changed.")))
        }
        _ => Ok(()),
    }
}

/// Whether a new card may replace this one.
pub(super) fn may_replace(old: &Value, wanted: &Value) -> Result<(), Fault> {
    let refused = |param: &str, message: &str| Err(Fault::invalid(None, param, message));
    match wanted["replacement_reason"].as_str() {
        Some("lost" | "stolen") if old["status"] != "canceled" => refused(
            "replacement_for",
            "A card that was lost or stolen must be canceled before it can be replaced.",
        ),
        Some("damaged") if old["type"] != "physical" || wanted["type"] != "physical" => {
            refused("replacement_reason", "Only a physical card can be damaged.")
        }
        Some(_) => Ok(()),
        None => Err(Fault::invalid(
            Some("parameter_missing"),
            "replacement_reason",
            "Missing required param: replacement_reason.",
        )),
    }
}

/// Whether a replacement for this reason has the old card's number, and its activation cancels the old card.
pub(super) fn keeps_number(reason: &Value) -> bool {
    reason == "expired" || reason == "damaged"
}
