//! How a card stands at Stripe: one question, in its turn of the pace.

use super::limiter_of;
use crate::pace::{Answered, Endpoint, Pace, Waited};
use crate::stripe::{Client, StandingAnswer};

/// Asks how a card stands; again where a limiter turned the question away.
pub async fn standing_of(pace: &Pace, client: &Client, card: &str) -> StandingAnswer {
    loop {
        let Ok(turn) = pace.turn(Endpoint::Retrieve).await else {
            return StandingAnswer::Failed("the pace is closed".into());
        };
        let Waited::Permit(mut permit) = turn.permit().await else { continue };
        permit.departure().left();
        let (answer, limited) = client.standing(card).await;
        match (limited, &answer) {
            (Some(reason), _) => {
                permit.answered(Answered::Limited(limiter_of(reason)));
                continue;
            }
            (None, StandingAnswer::Failed(reason)) => permit.answered(Answered::Failed(reason.clone())),
            (None, _) => permit.answered(Answered::Accepted),
        }
        return answer;
    }
}
