//! Pages of lists, as Stripe gives them: the newest first, filtered, from a cursor on.

use serde_json::{Value, json};

use super::response::Fault;

/// One page of objects that come newest first, each with its place in the order in which they were made.
pub(super) fn list<'o>(
    url: &str,
    newest_first: impl Iterator<Item = (usize, &'o Value)>,
    query: &[(String, String)],
    place_of: impl Fn(&str) -> Result<usize, Fault>,
) -> Result<Value, Fault> {
    let given = |name: &str| query.iter().find(|(path, _)| path == name).map(|(_, value)| value.as_str());
    let limit =
        match given("limit") {
            None => 10,
            Some(text) => text.parse().ok().filter(|limit| (1..=100).contains(limit)).ok_or_else(|| {
                Fault::invalid(Some("parameter_invalid_integer"), "limit", "Invalid integer")
            })?,
        };
    let of_cursor = |name| given(name).map(&place_of).transpose();
    let (after, before) = (of_cursor("starting_after")?, of_cursor("ending_before")?);
    let mut matching = newest_first
        .filter(|(place, _)| after.is_none_or(|after| *place < after))
        .filter(|(place, _)| before.is_none_or(|before| *place > before))
        .map(|(_, object)| object)
        .filter(|object| query.iter().all(|(path, value)| matches(object, path, value)));
    let data: Vec<&Value> = matching.by_ref().take(limit).collect();
    Ok(page(url, &data, matching.next().is_some()))
}

/// A page.
pub(super) fn page(url: &str, data: &[&Value], has_more: bool) -> Value {
    json!({"object": "list", "url": url, "has_more": has_more, "data": data})
}

fn matches(object: &Value, path: &str, value: &str) -> bool {
    let created = object["created"].as_i64().unwrap_or(0);
    let wanted = value.parse::<i64>().unwrap_or(0);
    match path {
        "status" | "type" | "last4" | "email" | "phone_number" => object[path] == value,
        "exp_month" | "exp_year" => object[path].as_i64() == Some(wanted),
        "created" => created == wanted,
        "created[gt]" => created > wanted,
        "created[gte]" => created >= wanted,
        "created[lt]" => created < wanted,
        "created[lte]" => created <= wanted,
        _ => true,
    }
}
