//! How a card or a cardholder stands at Stripe: one question, in its turn of the pace.

use super::limiter_of;
use crate::pace::{Answered, Endpoint, Pace, Waited};
use crate::stripe::{AccountStanding, Client, Design, FoundAnswer, Leaving, LimitReason, StandingAnswer};

/// Asks a question in its turn; again where a limiter turned it away. None if the pace is closed.
pub(super) async fn in_turn<T, F: Future<Output = T>>(
    pace: &Pace,
    endpoint: Endpoint,
    ask: impl Fn(Leaving) -> F,
    outcome_of: impl Fn(&T) -> Result<Answered, LimitReason>,
) -> Option<T> {
    loop {
        let turn = pace.turn(endpoint).await.ok()?;
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        let departure = permit.departure();
        let answer = ask(Box::new(|| departure.left())).await;
        match outcome_of(&answer) {
            Err(reason) => permit.answered(Answered::Limited(limiter_of(reason))),
            Ok(answered) => {
                permit.answered(answered);
                return Some(answer);
            }
        }
    }
}

/// Asks how a card stands.
pub async fn standing_of(pace: &Pace, client: &Client, card: &str) -> StandingAnswer {
    standing(pace, |leaving| client.standing(card, leaving)).await
}

/// Asks how a design stands.
pub async fn design_of(pace: &Pace, client: &Client, design: &str) -> StandingAnswer<Design> {
    standing(pace, |leaving| client.design(design, leaving)).await
}

/// Asks what the account may do.
pub async fn account_standing(pace: &Pace, client: &Client) -> StandingAnswer<AccountStanding> {
    standing(pace, |leaving| client.account_standing(leaving)).await
}

async fn standing<T, F: Future<Output = (StandingAnswer<T>, Option<LimitReason>)>>(
    pace: &Pace,
    ask: impl Fn(Leaving) -> F,
) -> StandingAnswer<T> {
    let outcome_of = |(answer, limited): &(StandingAnswer<T>, Option<LimitReason>)| match (limited, answer) {
        (Some(reason), _) => Err(*reason),
        (None, StandingAnswer::Failed(reason)) => Ok(Answered::Failed(reason.clone())),
        (None, _) => Ok(Answered::Accepted),
    };
    let answer = in_turn(pace, Endpoint::Retrieve, ask, outcome_of).await;
    answer.map_or_else(|| StandingAnswer::Failed("the pace is closed".into()), |(answer, _)| answer)
}

/// Asks for a cardholder.
pub async fn cardholder_of(pace: &Pace, client: &Client, id: &str) -> FoundAnswer {
    let outcome_of = |answer: &FoundAnswer| match answer {
        FoundAnswer::Limited(reason) => Err(*reason),
        FoundAnswer::Failed(reason) => Ok(Answered::Failed(reason.clone())),
        _ => Ok(Answered::Accepted),
    };
    let answer =
        in_turn(pace, Endpoint::Retrieve, |leaving| client.cardholder(id, leaving), outcome_of).await;
    answer.unwrap_or_else(|| FoundAnswer::Failed("the pace is closed".into()))
}
