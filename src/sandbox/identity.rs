//! Which Stripe account a call is for, and that account's object.
//!
//! Cards, idempotency keys and limits are an account's own. The header `Stripe-Account` names it; without one it is the
//! account that the API key belongs to: `sk_test_acct_A_1` is a key of `acct_A`, and all others are of `acct_sandbox`.

use serde_json::{Value, json};

use super::request::api_key_of;

/// The account of every key that names none.
pub(super) const OF_ANY_KEY: &str = "acct_sandbox";

/// The account that a call is for.
pub(super) fn account_of(header: Option<&str>, authorization: Option<&str>) -> String {
    if let Some(named) = header {
        return named.to_owned();
    }
    let key = authorization.and_then(api_key_of).unwrap_or_default();
    named_in(&key).unwrap_or(OF_ANY_KEY).to_owned()
}

/// The `acct_…` within a key, up to the next underscore.
fn named_in(key: &str) -> Option<&str> {
    const PREFIX: &str = "acct_";
    let name = &key[key.find(PREFIX)?..];
    let end = name[PREFIX.len()..].find('_').map_or(name.len(), |length| PREFIX.len() + length);
    (end > PREFIX.len()).then(|| &name[..end])
}

/// The account's object, as `GET /v1/account` answers it. One whose id speaks of `pending` may not issue cards yet.
pub(super) fn object(id: &str, created: u64) -> Value {
    let card_issuing = if id.contains("pending") { "pending" } else { "active" };
    json!({
        "id": id, "object": "account", "business_profile": {"name": "The Sandbox", "url": null},
        "business_type": "company", "capabilities": {"card_issuing": card_issuing}, "charges_enabled": true,
        "country": "IE", "created": created, "default_currency": "eur", "details_submitted": true,
        "email": "sandbox@example.com", "metadata": {}, "payouts_enabled": true,
        "settings": {"dashboard": {"display_name": "The Sandbox", "timezone": "Etc/UTC"}}, "type": "standard",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_the_account_and_else_the_key_does() {
        for (header, key, account) in [
            (None, "sk_test_1", "acct_sandbox"),
            (None, "sk_test_acct_A_1", "acct_A"),
            (None, "rk_test_acct_B", "acct_B"),
            (None, "sk_test_acct_", "acct_sandbox"),
            (Some("acct_C"), "sk_test_acct_A_1", "acct_C"),
        ] {
            assert_eq!(account_of(header, Some(&format!("Bearer {key}"))), account, "{key}");
        }
        assert_eq!(account_of(None, None), "acct_sandbox");
    }
}
