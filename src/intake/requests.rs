//! What a job's document asks of Stripe, by its operation: which of its members there must be, and which may not.

use serde_json::{Map, Value};

use super::document::{Problem, problem};
use crate::operation::{CARD_ID, Operation, REPLACED_OF_NOBODY, Request, is_card_id};

/// What a job asks for: the cardholder to be created first, if there is one, and the request that it is about.
pub(super) fn requests_of(
    members: &Map<String, Value>,
    operation: Operation,
    card_id: Option<&str>,
    problems: &mut Vec<Problem>,
) -> Option<(Option<Request>, Request)> {
    use Operation::{CreateCard, CreateCardholder, UpdateCard};
    let mut read = |member: &'static str, operation| match members.get(member) {
        Some(request @ Value::Object(_)) => Request::from_json(operation, request)
            .map_err(|fields| problems.extend(fields.into_iter().map(|field| Problem::of(member, field))))
            .ok(),
        None | Some(Value::Null) => {
            problems.push(problem(member, "is missing"));
            None
        }
        Some(_) => {
            problems.push(problem(member, "has the wrong type; it is an object with Stripe's parameters"));
            None
        }
    };
    let is_given = |member: &str| members.get(member).is_some_and(|value| !value.is_null());
    let requests = match operation {
        CreateCardholder => read("cardholder", CreateCardholder).map(|request| (None, request)),
        CreateCard if is_given("cardholder") => {
            let first = read("cardholder", CreateCardholder);
            read("card", CreateCard).zip(first).map(|(request, first)| (Some(first), request))
        }
        CreateCard => read("card", CreateCard).map(|request| (None, request)),
        UpdateCard => {
            let request = read("card", UpdateCard);
            request.zip(card_id).map(|(request, card)| (None, request.with_target(card.to_owned())))
        }
    };
    let mut superfluous = |member: &str| {
        if is_given(member) {
            problems.push(problem(member, &format!("is not of {}", operation.word())));
        }
    };
    match operation {
        CreateCardholder => ["card", "card_id"].into_iter().for_each(superfluous),
        CreateCard => superfluous("card_id"),
        UpdateCard => superfluous("cardholder"),
    }
    match (&requests, operation) {
        (Some((Some(_), card)), CreateCard) if card.cardholder.is_some() => {
            let reason =
                "is given twice: as card.cardholder, who exists, and as cardholder, who is to be created";
            problems.push(problem("cardholder", reason));
        }
        (Some((Some(_), card)), CreateCard) if card.cancels_replaced() => {
            problems.push(problem("card.cancel_replaced", REPLACED_OF_NOBODY));
        }
        (_, UpdateCard) if card_id.is_none_or(|id| !is_card_id(id)) => {
            problems.push(problem("card_id", CARD_ID));
        }
        (Some((_, change)), UpdateCard) if change.is_empty() => {
            problems.push(problem("card", "asks for no change"));
        }
        _ => {}
    }
    requests
}
